"""Layouts of U-ViT and DiT in their publishers' files of tensors, and what the tensors say of a network.

Names and shapes say the network, but for its heads, which the published sizes have, and whether the last row of the
table of classes is the null label's. They do not say the objective, so that of the publisher's training is assumed.

| publisher                                      | objective of its training                                      |
|------------------------------------------------|----------------------------------------------------------------|
| U-ViT (Bao et al., 2022), all but the next row | noise, under the paper's VP SDE                                |
| U-ViT of latents without a last convolution    | noise, on the chain of Stable Diffusion: `scaled_linear_step`  |
| DiT (Peebles and Xie, 2022)                    | noise and its variance, on DDPM's chain: `linear_index`        |

Positions of DiT are no parameters here, and the table in its file is compared with them.
"""

import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from score_sde.array_types import ImageShape, PyTree
from score_sde.config.arguments import check_arguments
from score_sde.errors import UsageError
from score_sde.inference.published_tensors import (
    Shapes,
    check_shapes,
    finite,
    kernel,
    kernel_shape,
    leaf_shapes,
    unflatten,
)
from score_sde.models import DiT, UViT
from score_sde.models.dit import grid_positions

LEAVES = {"kernel": "weight", "scale": "weight", "embedding": "weight"}
OBJECTIVE = {
    "process.name": "vp",
    "parameterization.name": "noise",
    "times.name": "uniform",
    "weight.name": "noise",
    "sampling.clip": "none",
}
# Beta at the ends of the chain, times 1,000, of a VP SDE with the chain's noise level at both ends.
STABLE_DIFFUSION = {
    "process.beta_min": 0.85,
    "process.beta_max": 9.887,
    "parameterization.noise_cond": "scaled_linear_step",
}
AS_DDPM = {"parameterization.noise_cond": "linear_index"}
EULER_MARUYAMA = {"sampling.predictor": "euler_maruyama", "sampling.corrector": "none"}
DPM_SOLVER = {"sampling.method": "dpm_solver_3", "sampling.num_steps": 17}
DDIM = {"sampling.method": "ddim", "sampling.num_steps": 249}
DROPOUT = 0.1  # of labels, where there is a null label
HEAD = 64  # channels of a head in all published networks but the largest


class Publisher(NamedTuple):
    """Names of a publisher's tensors by ours, and the sizes that it published.

    network: our name of it. patches, table: names of the map of patches and of the table of classes. layers: patterns
    of our names of layers, and the publisher's. sizes: name and number of heads, by width and depth.
    """

    title: str
    network: str
    patches: str
    table: str
    layers: tuple[tuple[str, str], ...]
    sizes: Mapping[tuple[int, int], tuple[str, int]]


UVIT = Publisher(
    "U-ViT",
    "uvit",
    "patch_embed.proj.weight",
    "label_emb.weight",
    (
        (r"blocks_(\d+)", r"blocks.\1"),
        (r"time_embed_(\d)", r"time_embed.\1"),
        (r"^patch_embed$", "patch_embed.proj"),
    ),
    {(512, 12): ("S", 8), (768, 16): ("M", 12), (1024, 20): ("L", 16), (1152, 28): ("H", 16)},
)
DIT = Publisher(
    "DiT",
    "dit",
    "x_embedder.proj.weight",
    "y_embedder.embedding_table.weight",
    (
        (r"blocks_(\d+)", r"blocks.\1"),
        (r"adaLN_modulation$", "adaLN_modulation.1"),
        (r"t_embedder_(\d)", r"t_embedder.mlp.\1"),
        (r"^x_embedder$", "x_embedder.proj"),
        (r"^y_embedder$", "y_embedder.embedding_table"),
    ),
    {(384, 12): ("S", 6), (768, 12): ("B", 12), (1024, 24): ("L", 16), (1152, 28): ("XL", 16)},
)
MARKS = {"mid_block.attn.qkv.weight": UVIT, "blocks.0.adaLN_modulation.1.weight": DIT}  # by which a file is known


class Description(NamedTuple):
    """The network that the tensors of a file describe.

    title: the publisher's name of it. values, assumed: values of our config by key, which tensors say and do not say.
    facts: what they say besides, by name. unknown: sentences on what they do not say.
    """

    title: str
    values: dict[str, Any]
    assumed: dict[str, Any]
    facts: dict[str, str]
    unknown: tuple[str, ...]


@check_arguments
def described(tensors: Mapping[str, np.ndarray]) -> Description:
    """The network and objective of a U-ViT's or a DiT's tensors by published name, as values of our config.

    Raises `UsageError` for tensors of another network, and of U-ViT with text.

        import numpy as np
        from score_sde.inference.transformer_layout import described, published_shapes
        from score_sde.models import DiT

        shapes = published_shapes(DiT(width=32, depth=2, num_heads=4, num_classes=10), (8, 8, 3))
        said = described({name: np.zeros(shape, np.float32) for name, shape in shapes.items()})
        said.values["model.width"], said.assumed["model.num_classes"]  # 32, 10
    """
    shapes = {name: tuple(np.shape(value)) for name, value in tensors.items()}
    publisher = next((row for mark, row in MARKS.items() if mark in shapes), None)
    if publisher is None:
        raise UsageError(f"The tensors lack {' and '.join(MARKS)}, one of which U-ViT and DiT have.")
    if "context_embed.weight" in shapes:
        raise UsageError("The file has context_embed.weight: U-ViT with text is not read, only without.")
    width, channels, patch, _ = _shape(shapes, publisher.patches, 4)
    rows = _shape(shapes, publisher.table, 2)[0] if publisher.table in shapes else 0
    extras = (1 + (rows > 0)) if publisher is UVIT else 0
    num_patches = _shape(shapes, "pos_embed", 3)[1] - extras
    side = math.isqrt(max(num_patches, 0))
    if side * side != num_patches or not num_patches:
        raise UsageError(f"{publisher.title}'s file has positions of {num_patches} patches, which are no square.")
    of_publisher = _uvit_values if publisher is UVIT else _dit_values
    values, assumed = of_publisher(shapes, channels, rows)
    values |= {"model.name": publisher.network, "model.patch_size": patch, "model.width": width}
    values |= {"data.image_size": side * patch, "data.num_channels": channels, "data.centered": True}
    size, heads = publisher.sizes.get((width, values["model.depth"]), ("", 0))
    unknown = [OF_TRAINING.format(publisher.title)]
    if not size:
        heads = width // HEAD if width % HEAD == 0 else 1
        unknown.append(f"The size is none that {publisher.title} published, so its {heads} heads are a guess; ")
        unknown[-1] += "import with --config.model.num_heads=N for another number."
    facts = {"network": f"{publisher.title}{f'-{size}' * bool(size)}/{patch}, {values['model.depth']} blocks"}
    if channels == LATENTS:
        facts["latents"] = "4 channels, of an autoencoder that is not here"
    return Description(publisher.title, values, assumed | {"model.num_heads": heads}, facts, tuple(unknown))


LATENTS = 4  # channels of Stable Diffusion's autoencoder
OF_TRAINING = (
    "The file does not say its objective, and has that of {}'s own training; import with --config=NAME for another."
)


def _uvit_values(shapes: Shapes, channels: int, rows: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Values that U-ViT's tensors say, and to assume. Those of latents have a null label, those of pixels have none."""
    depth = _count(shapes, "in_blocks") + _count(shapes, "out_blocks")
    is_latent = channels == LATENTS
    values = {
        "model.depth": depth,
        "model.mlp_ratio": _ratio(shapes, "mid_block"),
        "model.skip": "out_blocks.0.skip_linear.weight" in shapes or not depth,
        "model.conv": "final_layer.weight" in shapes,
        "model.mlp_time_embed": "time_embed.0.weight" in shapes,
    }
    chain = STABLE_DIFFUSION if is_latent and not values["model.conv"] else {}
    has_null = bool(rows) and is_latent
    assumed = OBJECTIVE | chain | (DPM_SOLVER if rows or is_latent else EULER_MARUYAMA)
    return values, assumed | _classes(rows - has_null, has_null)


def _dit_values(shapes: Shapes, channels: int, rows: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Values that DiT's tensors say, and to assume. Its table of classes has a last row for the null label."""
    outputs, patch = _shape(shapes, "final_layer.linear.weight", 2)[0], _shape(shapes, DIT.patches, 4)[2]
    values = {
        "model.depth": _count(shapes, "blocks"),
        "model.mlp_ratio": _ratio(shapes, "blocks.0"),
        "model.learned_variance": outputs == 2 * patch * patch * channels,
    }
    return values, OBJECTIVE | AS_DDPM | DDIM | _classes(max(rows - 1, 0), rows > 1)


def _classes(num_classes: int, has_null: bool) -> dict[str, Any]:
    return {"model.num_classes": num_classes, "training.label_dropout": DROPOUT if has_null else 0.0}


def _shape(shapes: Shapes, name: str, axes: int) -> tuple[int, ...]:
    if len(shapes.get(name, ())) != axes:
        raise UsageError(f"The file has no {name} with {axes} axes, which U-ViT and DiT without text have.")
    return shapes[name]


def _count(shapes: Shapes, part: str) -> int:
    """The number of blocks of a part."""
    return len({match[1] for name in shapes if (match := re.match(rf"{part}\.(\d+)\.", name))})


def _ratio(shapes: Shapes, block: str) -> float:
    inner, width = _shape(shapes, f"{block}.mlp.fc1.weight", 2)
    return inner / width


@check_arguments
def params_of(tensors: Mapping[str, np.ndarray], network: UViT | DiT, image_shape: ImageShape) -> PyTree:
    """Parameters of our network from a published one's tensors, by name, which are weights or their averages.

    image_shape: (h, w, c) of the file's images. A table of classes may lack the null label's row, which is zeros then;
    DiT's table of this row alone is a part of its embedding of the noise level here. Raises `UsageError` naming the
    first tensor that is missing, left over, of another shape, or not finite, and for other positions than DiT's.
    """
    publisher, shapes = _publisher(network), _shapes(network, image_shape)
    names = {path: _published_name(publisher, path) for path in shapes}
    tensors = _without_positions(tensors, network, image_shape) if publisher is DIT else dict(tensors)
    tensors = _with_null(publisher, tensors, network.num_classes)
    expected = {names[path]: _published_shape(publisher, names[path], shapes[path], image_shape) for path in shapes}
    check_shapes(tensors, expected, f"{publisher.title}'s file")
    return unflatten({path: _ours(publisher, names[path], tensors[names[path]], shapes[path]) for path in shapes})


@check_arguments
def published_shapes(network: UViT | DiT, image_shape: ImageShape) -> Shapes:
    """The shape of each tensor of the published network with these options, {"final_layer.bias": (3,), ...}.

    from score_sde.inference.transformer_layout import published_shapes
    from score_sde.models import UViT

    shapes = published_shapes(UViT(width=32, depth=2, num_heads=4), (8, 8, 3))
    """
    publisher, shapes = _publisher(network), _shapes(network, image_shape)
    names = {path: _published_name(publisher, path) for path in shapes}
    published = {names[path]: _published_shape(publisher, names[path], shapes[path], image_shape) for path in shapes}
    positions = {"pos_embed": _positions(network, image_shape).shape} if publisher is DIT else {}
    return published | positions


def _publisher(network: UViT | DiT) -> Publisher:
    return UVIT if isinstance(network, UViT) else DIT


def _shapes(network: UViT | DiT, image_shape: ImageShape) -> Shapes:
    x, noise_cond = jnp.zeros((1, *image_shape)), jnp.ones(1)
    return leaf_shapes(lambda: network.init(jax.random.key(0), x, noise_cond)["params"])


def _published_name(publisher: Publisher, path: str) -> str:
    """The published name of our leaf, blocks.0.attn.qkv.weight for blocks_0/attn/qkv/kernel."""
    module, _, leaf = path.rpartition("/")
    for ours, theirs in publisher.layers:
        module = re.sub(ours, theirs, module)
    return ".".join(filter(None, (module.replace("/", "."), LEAVES.get(leaf, leaf))))


def _published_shape(publisher: Publisher, name: str, shape: tuple[int, ...], image_shape: ImageShape):
    if name == publisher.patches:
        numbers, width = shape
        patch = math.isqrt(numbers // image_shape[-1])
        return width, image_shape[-1], patch, patch
    return shape if name in (publisher.table, "pos_embed") else kernel_shape(shape)


def _ours(publisher: Publisher, name: str, value: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    value = finite(value, f"{publisher.title}'s file: {name}")
    return value if name in (publisher.table, "pos_embed") else kernel(value).reshape(shape)


def _positions(network: DiT, image_shape: ImageShape) -> np.ndarray:
    rows, columns = (side // network.patch_size for side in image_shape[:2])
    return np.asarray(grid_positions(rows, columns, network.width))[None]


def _without_positions(tensors: Mapping[str, np.ndarray], network: DiT, image_shape: ImageShape) -> dict:
    """The tensors but for the positions, which must be DiT's."""
    expected, rest = _positions(network, image_shape), dict(tensors)
    positions = rest.pop("pos_embed", expected)
    check_shapes({"pos_embed": positions}, {"pos_embed": expected.shape}, "DiT's file")
    if not np.abs(positions - expected).max() < 1e-3:  # of sines; files of 16 bits differ by 5e-4
        raise UsageError("DiT's file: pos_embed is not its table of sines and cosines, which model.name=dit has alone.")
    return rest


def _with_null(publisher: Publisher, tensors: dict[str, np.ndarray], num_classes: int) -> dict[str, np.ndarray]:
    """The tensors with a last row of zeros in a table that lacks the null label's; a table of one row is a bias."""
    table = tensors.get(publisher.table)
    if table is None or table.ndim != 2:
        return tensors
    if num_classes and len(table) == num_classes:
        return tensors | {publisher.table: np.concatenate([table, np.zeros_like(table[:1])])}
    bias = "t_embedder.mlp.2.bias"
    if publisher is DIT and not num_classes and len(table) == 1 and bias in tensors:
        rest = {name: value for name, value in tensors.items() if name != publisher.table}
        return rest | {bias: tensors[bias] + table[0]}
    return tensors
