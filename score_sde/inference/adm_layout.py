"""Layouts of ADM's U-Net in published files: OpenAI's `UNetModel` and EDM's `DhariwalUNet`, as parameters of ours.

Both publishers' networks have the layers of `score_sde.models.ADM` in the same order, under other names. One linear map
makes queries, keys and values of H heads of d channels; its outputs stand in one of three orders:

| network                                           | order     |
|---------------------------------------------------|-----------|
| ours, and OpenAI's with `use_new_attention_order` | (3, H, d) |
| OpenAI's otherwise, the "legacy" order            | (H, 3, d) |
| EDM's                                             | (H, d, 3) |

EDM's files say all options of their network and its objective, which is iDDPM's or EDM's. OpenAI's hold tensors alone:
the options and the objective are those of the flags of its programs (`score_sde.inference.openai_flags`). Its networks
predict the noise at the 1,000 levels of a chain, and a variance, which is left out here.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from score_sde.array_types import ImageShape, PyTree
from score_sde.config.arguments import check_arguments
from score_sde.errors import UsageError
from score_sde.inference import openai_flags
from score_sde.inference.edm_layout import network_arguments, objective_values
from score_sde.inference.openai_flags import integers, model_values
from score_sde.inference.published_tensors import (
    Shapes,
    check_shapes,
    finite,
    kernel,
    kernel_shape,
    leaf_shapes,
    unflatten,
)
from score_sde.models import ADM

BLOCK, ATTENTION = "ResnetBlockADM", "AttnBlockADM"
AttentionOrder = Literal["", "new", "legacy"]
ORDERS = {"new": (0, 1, 2), "legacy": (1, 0, 2), "edm": (2, 0, 1)}  # axis of each of (3, H, d), in the file
LEAVES = {"kernel": "weight", "scale": "weight", "embedding": "weight", "bias": "bias"}


class Publisher(NamedTuple):
    """Names of a publisher's layers by ours, in a block, in attention, and outside of both.

    kernel: number of axes of the maps of attention, which are convolutions of size 1.
    """

    title: str
    kernel: int
    block: dict[str, str]
    attention: dict[str, str]
    outside: dict[str, str]


OPENAI = Publisher(
    "OpenAI's file",
    3,
    dict(
        GroupNorm_0="in_layers.0",
        Conv_0="in_layers.2",
        Dense_0="emb_layers.1",
        GroupNorm_1="out_layers.0",
        Conv_1="out_layers.3",
        Conv_2="skip_connection",
    ),
    dict(GroupNorm_0="norm", Dense_0="qkv", Dense_1="proj_out"),
    dict(Dense_0="time_embed.0", Dense_1="time_embed.2", Embed_0="label_emb", GroupNorm_0="out.0", output="out.2"),
)
EDM = Publisher(
    "EDM's file",
    4,
    dict(
        GroupNorm_0="norm0",
        Conv_0="conv0",
        Dense_0="affine",
        GroupNorm_1="norm1",
        Conv_1="conv1",
        Conv_2="skip",
    ),
    dict(GroupNorm_0="norm2", Dense_0="qkv", Dense_1="proj"),
    dict(
        Dense_0="map_layer0",
        Dense_1="map_layer1",
        Embed_0="map_label",
        of_augment="map_augment",
        GroupNorm_0="out_norm",
        output="out_conv",
    ),
)
PUBLISHERS = {"openai": OPENAI, "edm": EDM}
DHARIWAL = dict(  # defaults of EDM's network
    augment_dim=0,
    model_channels=192,
    channel_mult=(1, 2, 3, 4),
    channel_mult_emb=4,
    num_blocks=3,
    attn_resolutions=(32, 16, 8),
    dropout=0.1,
    label_dropout=0,
)


class Stage(NamedTuple):
    """Layers between two skip connections, of the kinds "block", "attention", "conv", or "pool" without parameters."""

    part: Literal["enc", "mid", "dec"]
    height: int
    role: str
    kinds: tuple[str, ...]


@check_arguments
def params_of(
    tensors: Mapping[str, np.ndarray], network: ADM, image_shape: ImageShape, attention_order: AttentionOrder = ""
) -> PyTree:
    """Our parameters of a network from the tensors of a published one, whose names and shapes are all compared.

    Args:
      tensors: arrays by published name, of OpenAI's `UNetModel`, or of EDM's `DhariwalUNet` with or without the
        `model.` of a preconditioned network.
      image_shape: (h, w, c) of the images.
      attention_order: of OpenAI's networks with more than one head, "new" or "legacy".

    Raises:
      UsageError: for the first tensor that is missing, left over, of another shape, or not finite, and without the
        order of attention where it matters.
    """
    tensors = _unwrapped(tensors)
    by = "edm" if "map_layer0.weight" in tensors else "openai"
    publisher, shapes = PUBLISHERS[by], _shapes(network, image_shape)
    names = _names(publisher, network, image_shape[0], shapes)
    expected = {names[path]: _published_shape(publisher, path, shape) for path, shape in shapes.items()}
    check_shapes(tensors, expected, publisher.title)
    leaves = {}
    for path, shape in shapes.items():
        value = finite(tensors[names[path]], f"{publisher.title}: {names[path]}")
        if path.startswith(ATTENTION) and "/Dense_0/" in path:
            value = _in_our_order(value, network.heads(len(value) // 3), "edm" if by == "edm" else attention_order)
        leaves[path] = _ours(publisher, path, value, shape)
    return unflatten(leaves)


@check_arguments
def published_shapes(network: ADM, image_shape: ImageShape, publisher: Literal["openai", "edm"]) -> Shapes:
    """The shape of each tensor of a published network with these options, {"out.2.bias": (3,), ...}.

    Raises `UsageError` for options that the publisher's networks do not have.

        from score_sde.inference.adm_layout import published_shapes
        from score_sde.models import ADM

        network = ADM(nf=32, ch_mult=(1, 2), num_res_blocks=1, attn_resolutions=(), head_channels=32)
        shapes = published_shapes(network, (8, 8, 3), "openai")
    """
    row, shapes = PUBLISHERS[publisher], _shapes(network, image_shape)
    names = _names(row, network, image_shape[0], shapes)
    return {names[path]: _published_shape(row, path, shape) for path, shape in shapes.items()}


def _names(publisher: Publisher, network: ADM, height: int, shapes: Shapes) -> dict[str, str]:
    """Published names by our leaf, {"Conv_0/kernel": "input_blocks.0.0.weight", ...}, for images of this height."""
    modules, counts = {}, dict.fromkeys(("Conv", BLOCK, ATTENTION), 0)
    prefixes = _openai_prefixes if publisher is OPENAI else _edm_prefixes
    for kind, prefix in prefixes(network, height):
        ours, layers = {
            "block": (BLOCK, publisher.block),
            "attention": (ATTENTION, publisher.attention),
            "conv": ("Conv", {"": ""}),
        }[kind]
        for layer, name in layers.items():
            modules[f"{ours}_{counts[ours]}/{layer}".rstrip("/")] = f"{prefix}.{name}".rstrip(".")
        counts[ours] += 1
    modules |= publisher.outside | {f"Conv_{counts['Conv']}": publisher.outside["output"]}
    names = {}
    for path in shapes:
        module, _, leaf = path.rpartition("/")
        if module not in modules:
            raise UsageError(f"{publisher.title} has no place for {path} of the config's network.")
        names[path] = f"{modules[module]}.{LEAVES[leaf]}"
    return names


@check_arguments
def values_of(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Values of our config by key, from the arguments of a published network.

    kwargs: of EDM's, the arguments of the preconditioning, with its name as `class_name`; of OpenAI's, the flags of its
    programs, as texts or values, and optionally `num_classes` and `num_channels_of_images`, which its programs do not
    have. Those that are absent have the publisher's defaults.
    Raises `UsageError` for arguments that no network here has.

        from score_sde.inference.adm_layout import values_of

        values = values_of(dict(image_size="64", noise_schedule="cosine", num_head_channels="32"))
        values = values_of(dict(class_name="EDMPrecond", img_resolution=64, img_channels=3, label_dim=1000))
    """
    try:
        return _values_of_edm(kwargs) if "class_name" in kwargs else openai_flags.values_of(kwargs)
    except UsageError:
        raise
    except (TypeError, ValueError) as error:
        raise UsageError(f"An argument of the published network is no number where one must be ({error}).") from error


def _values_of_edm(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    values, model = objective_values(kwargs), network_arguments(kwargs, DHARIWAL)
    if (model_type := model["model_type"]) != "DhariwalUNet":
        raise UsageError(f"EDM's file is a {model_type}, and this layout is that of DhariwalUNet.")
    if model["channel_mult_emb"] != 4:
        raise UsageError(f"EDM's file has channel_mult_emb={model['channel_mult_emb']}; only 4 can be read.")
    network = dict(
        nf=int(model["model_channels"]),
        ch_mult=integers(model["channel_mult"]),
        num_res_blocks=int(model["num_blocks"]),
        attn_resolutions=integers(model["attn_resolutions"]),
        dropout=float(model["dropout"]),
        learned_variance=str(kwargs["class_name"]).endswith("iDDPMPrecond"),
        num_classes=int(model["label_dim"]),
        augment_dim=int(model["augment_dim"]),
    )
    return values | model_values(network) | {"training.label_dropout": float(model["label_dropout"])}


def _stages(network: ADM, height: int) -> Iterator[Stage]:
    """Stages in the order of their creation."""

    def block(level: int) -> tuple[str, ...]:
        return ("block", "attention") if height >> level in network.attn_resolutions else ("block",)

    resample = "block" if network.resblock_type == "biggan" else "conv" if network.resamp_with_conv else "pool"
    levels = range(len(network.ch_mult))
    for level in levels:
        yield Stage("enc", height >> level, *(("down", (resample,)) if level else ("conv", ("conv",))))
        for index in range(network.num_res_blocks):
            yield Stage("enc", height >> level, f"block{index}", block(level))
    yield Stage("mid", height >> levels[-1], "in0", ("block", "attention"))
    yield Stage("mid", height >> levels[-1], "in1", ("block",))
    for level in reversed(levels):
        if level != levels[-1]:
            yield Stage("dec", height >> level, "up", (resample,))
        for index in range(network.num_res_blocks + 1):
            yield Stage("dec", height >> level, f"block{index}", block(level))


def _edm_prefixes(network: ADM, height: int) -> Iterator[tuple[str, str]]:
    """(kind, prefix of its names) of each layer of EDM's: "enc.64x64_block0" is a block and its attention."""
    for stage in _stages(network, height):
        part = "enc" if stage.part == "enc" else "dec"
        for kind in stage.kinds:
            yield kind, f"{part}.{stage.height}x{stage.height}_{stage.role}"


def _openai_prefixes(network: ADM, height: int) -> Iterator[tuple[str, str]]:
    """(kind, prefix of its names) of each layer of OpenAI's.

    "input_blocks.1.0" is a block and "input_blocks.1.1" its attention; upsampling is the last layer of a stage.
    """
    entered = left = middle = last = 0
    for stage in _stages(network, height):
        if stage.part == "enc":
            prefixes = [f"input_blocks.{entered}.{number}" for number in range(2)]
            entered, suffix = entered + 1, ".op" if stage.role == "down" else ""
        elif stage.part == "mid":
            prefixes = [f"middle_block.{middle + number}" for number in range(2)]
            middle, suffix = middle + len(stage.kinds), ""
        elif stage.role == "up":
            prefixes, suffix = [f"output_blocks.{left - 1}.{last + 1}"], ".conv"
        else:
            prefixes = [f"output_blocks.{left}.{number}" for number in range(2)]
            left, suffix = left + 1, ""
        for kind, prefix in zip(stage.kinds, prefixes, strict=False):
            if kind != "pool":
                yield kind, prefix + suffix * (kind == "conv")
        last = len(stage.kinds) - 1


def _shapes(network: ADM, image_shape: ImageShape) -> Shapes:
    x, noise_cond = jnp.zeros((1, *image_shape)), jnp.ones(1)
    return leaf_shapes(lambda: network.init(jax.random.key(0), x, noise_cond)["params"])


def _unwrapped(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Tensors of the network itself: without the `model.` of EDM's, and without constants."""
    inner = all(name.startswith("model.") or name == "u" for name in tensors)  # `u`: iDDPM's noise levels
    names = {name.removeprefix("model.") if inner else name: value for name, value in tensors.items() if name != "u"}
    for name, value in names.items():
        if name.endswith(".resample_filter") and not (np.shape(value) == (1, 1, 2, 2) and np.all(value == 0.25)):
            raise UsageError(f"EDM's file: {name} is no mean of 2x2 pixels, and this network resamples by means.")
    return {name: value for name, value in names.items() if not name.endswith(".resample_filter")}


def _published_shape(publisher: Publisher, path: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    if path == "Embed_0/embedding":
        return shape if publisher is OPENAI else shape[::-1]  # EDM's is a map of one-hot vectors
    ones = publisher.kernel - 2 if len(shape) == 2 and path.startswith(ATTENTION) else 0
    return (*kernel_shape(shape), *(1,) * ones)


def _ours(publisher: Publisher, path: str, value: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if path == "Embed_0/embedding" and publisher is OPENAI:
        return value
    return kernel(value.reshape(kernel_shape(shape)))  # the maps of attention are convolutions of size 1


def _in_our_order(value: np.ndarray, heads: int, order: str) -> np.ndarray:
    """The outputs of the map of queries, keys and values in our order, of `heads` heads."""
    c, *rest = value.shape[0] // 3, *value.shape[1:]
    if heads == 1 and order != "edm":
        return value
    if not order:
        raise UsageError(
            f"OpenAI's file does not say the order of the {heads} heads of its attention; give attention_order=new if "
            "the network had --use_new_attention_order True (as OpenAI's 64x64 one), and legacy otherwise."
        )
    axes = ORDERS[order]
    sizes = (3, heads, c // heads)
    stored = value.reshape(*(sizes[ours] for ours in np.argsort(axes)), *rest)
    return stored.transpose(*axes, *range(3, stored.ndim)).reshape(value.shape)
