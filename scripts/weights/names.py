"""The name and the layout of every weight in each family of Vision Transformer files.

In a name, ``{i}`` is the index of a block and ``{weight}`` is weight or bias; Flax calls a weight ``{kernel}`` or, in a
LayerNorm, ``{scale}``. ``{query}`` stands for query, key and value, which are three arrays instead of a fused one.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple


class Part(NamedTuple):
    """A row of the table: the names of one part of the network in every family."""

    kit: str
    google: str
    big_vision: str
    jeonsworld: str
    timm: str
    torchvision: str
    huggingface: str
    dinov2: str  # as Hugging Face names it; empty if there is no such part
    flax: str = ""  # torch's layout of the weight -> Flax's, if they differ; all other families have torch's
    flax_bias: str = ""


TABLE = (
    Part(
        kit="embeddings.cls_token",
        google="cls",
        big_vision="cls",
        jeonsworld="transformer.embeddings.cls_token",
        timm="cls_token",
        torchvision="class_token",
        huggingface="vit.embeddings.cls_token",
        dinov2="dinov2.embeddings.cls_token",
    ),
    Part(
        kit="embeddings.pos_embed",
        google="Transformer/posembed_input/pos_embedding",
        big_vision="pos_embedding",  # without a position for the class token
        jeonsworld="transformer.embeddings.position_embeddings",
        timm="pos_embed",
        torchvision="encoder.pos_embedding",
        huggingface="vit.embeddings.position_embeddings",
        dinov2="dinov2.embeddings.position_embeddings",
    ),
    Part(
        kit="embeddings.proj.{weight}",
        google="embedding/{kernel}",
        big_vision="embedding/{kernel}",
        jeonsworld="transformer.embeddings.patch_embeddings.{weight}",
        timm="patch_embed.proj.{weight}",
        torchvision="conv_proj.{weight}",
        huggingface="vit.embeddings.patch_embeddings.projection.{weight}",
        dinov2="dinov2.embeddings.patch_embeddings.projection.{weight}",
        flax="d c h w -> h w c d",
    ),
    Part(
        kit="encoder.blocks.{i}.norm1.{weight}",
        google="Transformer/encoderblock_{i}/LayerNorm_0/{scale}",
        big_vision="Transformer/encoderblock_{i}/LayerNorm_0/{scale}",
        jeonsworld="transformer.encoder.layer.{i}.attention_norm.{weight}",
        timm="blocks.{i}.norm1.{weight}",
        torchvision="encoder.layers.encoder_layer_{i}.ln_1.{weight}",
        huggingface="vit.encoder.layer.{i}.layernorm_before.{weight}",
        dinov2="dinov2.encoder.layer.{i}.norm1.{weight}",
    ),
    Part(
        kit="encoder.blocks.{i}.attn.qkv.{weight}",
        google="Transformer/encoderblock_{i}/MultiHeadDotProductAttention_1/{query}/{kernel}",
        big_vision="Transformer/encoderblock_{i}/MultiHeadDotProductAttention_0/{query}/{kernel}",
        jeonsworld="transformer.encoder.layer.{i}.attn.{query}.{weight}",
        timm="blocks.{i}.attn.qkv.{weight}",
        torchvision="encoder.layers.encoder_layer_{i}.self_attention.in_proj_{weight}",
        huggingface="vit.encoder.layer.{i}.attention.attention.{query}.{weight}",
        dinov2="dinov2.encoder.layer.{i}.attention.attention.{query}.{weight}",
        flax="(heads d) i -> i heads d",
        flax_bias="(heads d) -> heads d",
    ),
    Part(
        kit="encoder.blocks.{i}.attn.proj.{weight}",
        google="Transformer/encoderblock_{i}/MultiHeadDotProductAttention_1/out/{kernel}",
        big_vision="Transformer/encoderblock_{i}/MultiHeadDotProductAttention_0/out/{kernel}",
        jeonsworld="transformer.encoder.layer.{i}.attn.out.{weight}",
        timm="blocks.{i}.attn.proj.{weight}",
        torchvision="encoder.layers.encoder_layer_{i}.self_attention.out_proj.{weight}",
        huggingface="vit.encoder.layer.{i}.attention.output.dense.{weight}",
        dinov2="dinov2.encoder.layer.{i}.attention.output.dense.{weight}",
        flax="o (heads d) -> heads d o",
    ),
    Part(
        kit="encoder.blocks.{i}.norm2.{weight}",
        google="Transformer/encoderblock_{i}/LayerNorm_2/{scale}",
        big_vision="Transformer/encoderblock_{i}/LayerNorm_1/{scale}",
        jeonsworld="transformer.encoder.layer.{i}.ffn_norm.{weight}",
        timm="blocks.{i}.norm2.{weight}",
        torchvision="encoder.layers.encoder_layer_{i}.ln_2.{weight}",
        huggingface="vit.encoder.layer.{i}.layernorm_after.{weight}",
        dinov2="dinov2.encoder.layer.{i}.norm2.{weight}",
    ),
    Part(
        kit="encoder.blocks.{i}.mlp.fc1.{weight}",
        google="Transformer/encoderblock_{i}/MlpBlock_3/Dense_0/{kernel}",
        big_vision="Transformer/encoderblock_{i}/MlpBlock_0/Dense_0/{kernel}",
        jeonsworld="transformer.encoder.layer.{i}.ffn.fc1.{weight}",
        timm="blocks.{i}.mlp.fc1.{weight}",
        torchvision="encoder.layers.encoder_layer_{i}.mlp.0.{weight}",
        huggingface="vit.encoder.layer.{i}.intermediate.dense.{weight}",
        dinov2="dinov2.encoder.layer.{i}.mlp.fc1.{weight}",
        flax="o i -> i o",
    ),
    Part(
        kit="encoder.blocks.{i}.mlp.fc2.{weight}",
        google="Transformer/encoderblock_{i}/MlpBlock_3/Dense_1/{kernel}",
        big_vision="Transformer/encoderblock_{i}/MlpBlock_0/Dense_1/{kernel}",
        jeonsworld="transformer.encoder.layer.{i}.ffn.fc2.{weight}",
        timm="blocks.{i}.mlp.fc2.{weight}",
        torchvision="encoder.layers.encoder_layer_{i}.mlp.3.{weight}",
        huggingface="vit.encoder.layer.{i}.output.dense.{weight}",
        dinov2="dinov2.encoder.layer.{i}.mlp.fc2.{weight}",
        flax="o i -> i o",
    ),
    Part(
        kit="encoder.norm.{weight}",
        google="Transformer/encoder_norm/{scale}",
        big_vision="Transformer/encoder_norm/{scale}",
        jeonsworld="transformer.encoder.encoder_norm.{weight}",
        timm="norm.{weight}",
        torchvision="encoder.ln.{weight}",
        huggingface="vit.layernorm.{weight}",
        dinov2="dinov2.layernorm.{weight}",
    ),
    Part(
        kit="head.{weight}",
        google="head/{kernel}",
        big_vision="head/{kernel}",
        jeonsworld="head.{weight}",
        timm="head.{weight}",
        torchvision="heads.head.{weight}",
        huggingface="classifier.{weight}",
        dinov2="",
        flax="o i -> i o",
    ),
)


class Family(NamedTuple):
    """The column of the table that a family uses, and its prefix and layout."""

    column: str
    prefix: str = ""  # of every name
    flax: bool = False  # whether arrays have Flax's layout
    ignored: tuple[str, ...] = ()  # beginnings of the names of parts that the kit has no use for
    layer_scale: str = ""  # names of the factors of LayerScale {n} in block {i}, which reading folds; or it has none


FAMILIES = {
    "kit": Family("kit"),
    "google": Family("google", flax=True),
    "google-opt-target": Family("google", "opt/target/", flax=True),
    "big-vision": Family("big_vision", "params/", flax=True),
    "big-vision-stacked": Family("big_vision", "params/", flax=True),  # blocks as one array under ``encoderblock/``
    "jeonsworld": Family("jeonsworld"),
    "timm": Family("timm"),
    "torchvision": Family("torchvision"),
    "huggingface": Family("huggingface", ignored=("vit.pooler.",)),
    "dinov2-original": Family("timm", ignored=("mask_token",), layer_scale="blocks.{i}.ls{n}.gamma"),
    "dinov2": Family(
        "dinov2",
        ignored=("dinov2.embeddings.mask_token", "classifier."),  # it takes twice the width
        layer_scale="dinov2.encoder.layer.{i}.layer_scale{n}.lambda1",
    ),
}

STACK = "Transformer/encoderblock/"  # prefix under which big_vision may keep all blocks in one array

# names in other versions of a family: pattern -> name in the table
OTHER_SPELLINGS = {
    r"(?<=\.)(?:_orig_mod|_checkpoint_wrapped_module|_fsdp_wrapped_module)\.": "",  # blocks wrapped by torch
    r"\.mlp\.linear_1\.": ".mlp.0.",  # torchvision's first files
    r"\.mlp\.linear_2\.": ".mlp.3.",
    r"^blocks\.\d+\.(?=\d+\.)": "blocks.",  # DINOv2 trains blocks in chunks, and counts through
    r"^vit\.layers\.": "vit.encoder.layer.",  # in memory in transformers 5, whose files keep the old names
    r"^((?:vit|dinov2)\.\S+\.attention)\.q_proj\.": r"\1.attention.query.",
    r"^((?:vit|dinov2)\.\S+\.attention)\.k_proj\.": r"\1.attention.key.",
    r"^((?:vit|dinov2)\.\S+\.attention)\.v_proj\.": r"\1.attention.value.",
    r"^((?:vit|dinov2)\.\S+\.attention)\.o_proj\.": r"\1.output.dense.",
    r"^(vit\.\S+)\.mlp\.fc1\.": r"\1.intermediate.dense.",
    r"^(vit\.\S+)\.mlp\.fc2\.": r"\1.output.dense.",
}

WEIGHT = {"weight": "weight", "kernel": "kernel", "scale": "scale"}
BIAS = dict.fromkeys(WEIGHT, "bias")


class Entry(NamedTuple):
    """One array of the kit: its name, its one or three names in a family, and the change of layout."""

    kit: str
    names: tuple[str, ...]
    layout: str


@lru_cache(maxsize=64)  # a file is compared with it several times
def entries(family: str, depth: int) -> tuple[Entry, ...]:
    """Return every array of a network of that depth, in the order of the kit."""
    column, prefix, flax, *_ = FAMILIES[family]
    found = []
    for part in TABLE:
        template = getattr(part, column)
        if not template:
            continue
        thirds = ("query", "key", "value") if "{query}" in template else ("",)
        for i in range(depth if "{i}" in part.kit else 1):
            for leaf in (WEIGHT, BIAS) if "{weight}" in part.kit else (WEIGHT,):
                names = tuple(prefix + template.format(i=i, query=third, **leaf) for third in thirds)
                layout = (part.flax if leaf is WEIGHT else part.flax_bias) if flax else ""
                found.append(Entry(part.kit.format(i=i, **leaf), names, layout))
    return tuple(found)


def layer_scales(family: str, depth: int) -> Iterator[tuple[str, str]]:
    """Yield the kit's layers that LayerScale follows in a family, and the name of its factors."""
    if template := FAMILIES[family].layer_scale:
        for i in range(depth):
            for n, layer in enumerate(("attn.proj", "mlp.fc2"), 1):
                yield f"encoder.blocks.{i}.{layer}", template.format(i=i, n=n)
