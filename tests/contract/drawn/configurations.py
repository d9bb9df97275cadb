"""Configurations of every component, drawn valid rather than filtered, each as a row of the contract."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial

from hypothesis import strategies as st
from hypothesis.vendor.pretty import RepresentationPrinter
from torch import Tensor, nn

from components import MLP, Attention, Block, Encoder, LocalizationNet, PatchEmbeddings, SpatialTransformer
from components.patch_embeddings import INTERPOLATIONS
from components.spatial_transformer import PADDING_MODES
from components.transforms import Affine, Projective, Rotation, Similarity, ThinPlateSpline, Translation
from tests.contract.cases import BLOCK_LAYERS, CASES, Case, layers, wrong_shapes
from tests.support.strategies import channels, grid_sides, head_counts, patch_sizes, token_counts

ROWS = {case.name: case for case in CASES}
wide = st.sampled_from((3, 4, 6))  # heads of a normalised token: of one or two numbers LayerNorm leaves a sign at most
widths = st.sampled_from((1, 2, 3, 5, 7))
small_sides = st.sampled_from((2, 3, 5, 6))
transforms = st.one_of(
    st.builds(Translation, st.sampled_from((None, 0.5))),
    st.builds(Rotation, st.sampled_from((None, 30.0))),
    st.builds(Similarity, st.sampled_from((None, 90)), st.sampled_from((None, 2)), st.sampled_from((None, 0.5))),
    st.just(Affine()),
    st.just(Projective()),
    st.builds(ThinPlateSpline, st.sampled_from((2, 3))),
)
SIMPLE = "the reference knows one step, one sample, zeros outside and a given size"


@dataclass(frozen=True, repr=False)
class Drawn(Case):
    """A row whose configuration was drawn.

    Args:
        kind: The class.
        options: What its constructor gets.
    """

    kind: type[nn.Module] = nn.Module
    options: Mapping[str, object] = field(default_factory=dict)

    def _repr_pretty_(self, printer: RepresentationPrinter, cycle: bool) -> None:
        """What Hypothesis prints of an example that fails."""
        printer.text(repr(self))

    def __repr__(self) -> str:
        given = ", ".join(f"{name}={value!r}" for name, value in self.options.items())
        return f"{self.kind.__name__}({given}) of {self.input_shape}"


def drawn(
    kind: type[nn.Module], options: Mapping[str, object], input_shape: tuple[int, ...], wanted: str,
    *wrong: tuple[int, ...], make: Callable[..., nn.Module] | None = None, **changes: object,
) -> Drawn:  # fmt: skip
    """The row of a component with another configuration.

    Args:
        kind: The class.
        options: What its constructor gets.
        input_shape: Shape of one input, without the batch.
        wanted: What its error message says that an input must be.
        wrong: Shapes of inputs that it must refuse.
        make: Builds it, if that is not a call of the class with the options.
        changes: What else differs from the row.
    """
    row, build = ROWS[kind.__name__], make or partial(kind, **options)
    same = {each.name: getattr(row, each.name) for each in fields(Case)}
    named = partial(kind, **options)
    refusals = wrong_shapes(named, "x", wanted, *wrong)
    if len(input_shape) == 3 and (input_shape[0] == 1 or input_shape[1:] == (1, 1)):
        same["exempt"] = row.exempt | {"channels last": "there is nothing to reorder"}
    same |= {"build": build, "input_shape": input_shape, "output_shape": input_shape, "refusals": refusals}
    return Drawn(**(same | changes), kind=kind, options=options)


@st.composite
def localization_nets(draw: st.DrawFn) -> Drawn:
    """Of any number of channels and parameters, for images that are not padded."""
    options = {"in_channels": draw(channels), "num_params": draw(widths)}
    side = st.sampled_from((18, 19, 23, 26))
    shape = (options["in_channels"], draw(side), draw(side))
    wrong = (shape, (2, shape[0] + 1, *shape[1:]))
    return drawn(
        LocalizationNet, options, shape, f"(B, {shape[0]}, H, W)", *wrong, output_shape=(options["num_params"],)
    )


class NearIdentity(nn.Module):
    """Parameters within a tenth of those of the identity, so that every image stays in sight."""

    def __init__(self, identity: Sequence[float]) -> None:
        super().__init__()
        self.identity = identity

    def forward(self, x: Tensor) -> Tensor:
        return x.sin() / 10 + x.new_tensor(self.identity)


@st.composite
def spatial_transformers(draw: st.DrawFn) -> Drawn:
    """Of any transform and option, with a linear localization."""
    transform = draw(transforms)
    shape = (draw(channels), draw(small_sides), draw(small_sides))
    size = draw(st.one_of(st.none(), small_sides, st.tuples(small_sides, small_sides)))
    options = {
        "transform": transform, "output_size": size, "align_corners": draw(st.booleans()),
        "padding_mode": draw(st.sampled_from(("zeros", *PADDING_MODES))),
        "steps": draw(st.sampled_from((1, 1, 2))), "samples": draw(st.sampled_from((1, 1, 2))),
    }  # fmt: skip

    def make(device: object = None, dtype: object = None) -> SpatialTransformer:
        linear = nn.Linear(shape[0] * shape[1] * shape[2], transform.num_params, device=device, dtype=dtype)
        return SpatialTransformer(nn.Sequential(nn.Flatten(), linear, NearIdentity(transform.identity)), **options)

    simple = size is not None and (options["padding_mode"], options["steps"], options["samples"]) == ("zeros", 1, 1)
    height, width = shape[1:] if size is None else size if isinstance(size, tuple) else (size, size)
    row = drawn(
        SpatialTransformer, {"localization": nn.Identity(), **options}, shape,
        "(B, C, H, W) with C, H, W at least 1", shape, (2, *shape[:2], 0),
        make=make, output_shape=(shape[0], height, width),
    )  # fmt: skip
    return row if simple else replace(row, exempt=row.exempt | {"reference value": SIMPLE})


@st.composite
def patch_embeddings(draw: st.DrawFn) -> Drawn:
    """Of any grid, for images of any other grid."""
    patch, colours, dim = draw(patch_sizes), draw(channels), draw(widths)
    sides = st.tuples(grid_sides, grid_sides).map(lambda grid: (grid[0] * patch, grid[1] * patch))
    learned, seen = draw(sides), draw(sides)
    options = {
        "image_size": learned[0] if learned[0] == learned[1] else learned, "patch_size": patch, "dim": dim,
        "in_channels": colours, "interpolation": draw(st.sampled_from([*INTERPOLATIONS])),
    }  # fmt: skip
    wanted, shape = f"(B, {colours}, H, W) with H and W multiples of {patch}", (colours, *seen)
    return drawn(
        PatchEmbeddings, options, shape, wanted, shape, (2, colours + 1, *seen), (2, colours, 0, seen[1]),
        output_shape=(1 + seen[0] * seen[1] // patch**2, dim), smallest=(colours, patch, patch),
    )  # fmt: skip


@st.composite
def attentions(draw: st.DrawFn) -> Drawn:
    """Of any number of heads and width of a head, with and without a bias."""
    heads, bias, count = draw(head_counts), draw(st.booleans()), draw(token_counts)
    dim = heads * draw(widths)
    options = {"dim": dim, "num_heads": heads, "qkv_bias": bias}
    return drawn(
        Attention, options, (count, dim), f"(B, N, {dim})", (count, dim), (2, count, dim + 1),
        smallest=(1, dim), keys=biased(layers("qkv", "proj"), bias),
    )  # fmt: skip


@st.composite
def mlps(draw: st.DrawFn) -> Drawn:
    """Of any width, for tokens on any number of axes."""
    dim, axes = draw(widths), draw(st.lists(token_counts, max_size=2))
    options = {"dim": dim, "mlp_dim": draw(widths)}
    return drawn(MLP, options, (*axes, dim), f"(..., {dim})", (2, *axes, dim + 1), (), smallest=(dim,))


@st.composite
def blocks(draw: st.DrawFn) -> Drawn:
    """Of any number of heads, hidden width and bias."""
    heads, bias, count = draw(head_counts), draw(st.booleans()), draw(token_counts)
    dim = heads * draw(wide)
    options = {"dim": dim, "num_heads": heads, "mlp_dim": draw(widths), "qkv_bias": bias}
    return drawn(
        Block, options, (count, dim), f"(B, N, {dim})", (count, dim), (2, count, dim + 1),
        smallest=(1, dim), keys=biased(layers(*BLOCK_LAYERS), bias),
    )  # fmt: skip


@st.composite
def encoders(draw: st.DrawFn) -> Drawn:
    """Of any depth too."""
    heads, bias, count, depth = draw(head_counts), draw(st.booleans()), draw(token_counts), draw(st.integers(1, 3))
    dim = heads * draw(wide)
    options = {"dim": dim, "depth": depth, "num_heads": heads, "mlp_dim": draw(widths), "qkv_bias": bias}
    names = layers(*(f"blocks.{i}.{name}" for i in range(depth) for name in BLOCK_LAYERS), "norm")
    return drawn(
        Encoder, options, (count, dim), f"(B, N, {dim})", (count, dim), (2, count, dim + 1),
        smallest=(1, dim), keys=biased(names, bias),
    )  # fmt: skip


def biased(names: tuple[str, ...], bias: bool) -> tuple[str, ...]:
    """The names of the parameters with or without the bias of q, k and v."""
    return tuple(name for name in names if bias or not name.endswith("qkv.bias"))


CONFIGURATIONS: dict[str, st.SearchStrategy[Drawn]] = {
    "LocalizationNet": localization_nets(), "SpatialTransformer": spatial_transformers(),
    "PatchEmbeddings": patch_embeddings(), "Attention": attentions(), "MLP": mlps(), "Block": blocks(),
    "Encoder": encoders(),
}  # fmt: skip
