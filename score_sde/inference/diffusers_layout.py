"""Layouts of the `UNet2DModel` of diffusers, in the forms of the paper's networks: DDPM and NCSN++.

A folder has the network's arguments in config.json, its tensors in a safetensors file, and mostly the arguments of its
scheduler, which say the process, in scheduler_config.json. DDPM's form has the blocks DownBlock2D, AttnDownBlock2D,
UpBlock2D and AttnUpBlock2D, as `google/ddpm-*`; NCSN++'s has those with Skip in their names, as `google/ncsnpp-*`.
Arguments for which our networks have no option are refused by name.

    from score_sde.inference.diffusers_layout import values_of

    blocks = {"down_block_types": ["DownBlock2D", "DownBlock2D"], "up_block_types": ["UpBlock2D", "UpBlock2D"]}
    values = values_of(blocks | dict(block_out_channels=[64, 128], sample_size=32, downsample_padding=0, freq_shift=1,
                                     flip_sin_to_cos=False, norm_eps=1e-6, attention_head_dim=None))
    values["model.ch_mult"]  # (1, 2)
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from score_sde.array_types import ImageShape, PyTree
from score_sde.config.arguments import check_arguments
from score_sde.errors import UsageError
from score_sde.inference.published_tensors import check_shapes, finite, kernel, kernel_shape, leaf_shapes, unflatten
from score_sde.models import DDPM, NCSNpp

SQRT_2 = 1.41421356237
# The constructor's arguments with their defaults, where no argument is in config.json.
DEFAULTS: dict[str, Any] = {
    "sample_size": None,
    "in_channels": 3,
    "out_channels": 3,
    "center_input_sample": False,
    "time_embedding_type": "positional",
    "time_embedding_dim": None,
    "freq_shift": 0,
    "flip_sin_to_cos": True,
    "down_block_types": (),
    "mid_block_type": "UNetMidBlock2D",
    "up_block_types": (),
    "block_out_channels": (224, 448, 672, 896),
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "downsample_padding": 1,
    "downsample_type": "conv",
    "upsample_type": "conv",
    "dropout": 0.0,
    "act_fn": "silu",
    "attention_head_dim": 8,
    "norm_num_groups": 32,
    "attn_norm_num_groups": None,
    "norm_eps": 1e-5,
    "resnet_time_scale_shift": "default",
    "add_attention": True,
    "class_embed_type": None,
    "num_class_embeds": None,
    "num_train_timesteps": None,
}
# Values that a network of ours needs of those for which it has no option.
BOTH = {
    "time_embedding_dim": (None,),
    "mid_block_type": ("UNetMidBlock2D",),
    "downsample_type": ("conv",),
    "upsample_type": ("conv",),
    "act_fn": ("silu", "swish"),
    "attn_norm_num_groups": (None,),
    "norm_eps": (1e-6,),
    "resnet_time_scale_shift": ("default",),
    "add_attention": (True,),
    "class_embed_type": (None,),
    "num_class_embeds": (None,),
}
OF_DDPM = {
    "time_embedding_type": ("positional",),
    "freq_shift": (1,),
    "flip_sin_to_cos": (False,),
    "mid_block_scale_factor": (1,),
    "downsample_padding": (0,),
    "norm_num_groups": (32,),
}
OF_NCSNPP = {
    "time_embedding_type": ("fourier",),
    "mid_block_scale_factor": (SQRT_2,),
    "norm_num_groups": (None,),
    "in_channels": (3,),  # of the image pyramids of these blocks
}
LEAST_WIDTH = 128  # of NCSN++'s levels with attention, whose normalisation has 32 groups at any width
KINDS = {"": OF_DDPM, "Skip": OF_NCSNPP}

RESNET = {
    "GroupNorm_0": "norm1",
    "Conv_0": "conv1",
    "Dense_0": "time_emb_proj",
    "GroupNorm_1": "norm2",
    "Conv_1": "conv2",
    "NIN_0": "conv_shortcut",
    "Conv_2": "conv_shortcut",
}
ATTENTION = {"GroupNorm_0": "group_norm", "NIN_0": "to_q", "NIN_1": "to_k", "NIN_2": "to_v", "NIN_3": "to_out.0"}
OLD_NAMES = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}
LEAVES = {"kernel": "weight", "scale": "weight", "W": "weight", "bias": "bias", "b": "bias"}


@check_arguments
def values_of(kwargs: Mapping[str, Any], scheduler: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Values of a config, by key, for the network with these arguments, and the process of a scheduler.

    kwargs: the content of config.json. scheduler: that of scheduler_config.json; without it the process has the
    scheduler's defaults. Raises `UsageError` for an argument that our networks have no option for.
    """
    own = {name: value for name, value in kwargs.items() if not name.startswith("_")}
    unknown = own.keys() - DEFAULTS.keys()
    if unknown:
        raise UsageError(f"config.json has {min(unknown)}, which is not an argument of a UNet2DModel of pixels.")
    arguments = DEFAULTS | own
    kind, attention = _kind(arguments)
    for name, values in (BOTH | KINDS[kind]).items():
        if not any(_same(arguments[name], value) for value in values):
            wanted = " or ".join(repr(value) for value in values)
            raise UsageError(f"config.json has {name}={arguments[name]!r}, and our network has {wanted} alone.")
    widths, size = arguments["block_out_channels"], arguments["sample_size"]
    if not isinstance(size, int):
        raise UsageError(f"config.json has sample_size={size!r}; it must be one number, the side of the images.")
    if arguments["in_channels"] != arguments["out_channels"]:
        raise UsageError("config.json has more channels at one end than at the other, and our network has not.")
    if any(width % widths[0] for width in widths):
        raise UsageError(f"config.json has block_out_channels={list(widths)}, and ours are multiples of the first.")
    head = arguments["attention_head_dim"]
    if head is not None and head < max(widths):
        raise UsageError(f"config.json has attention_head_dim={head}, and our attention has one head alone: null.")
    narrow = [widths[level] for level in attention if widths[level] < LEAST_WIDTH] if kind else []
    if narrow:
        raise UsageError(
            f"config.json has attention at {narrow[0]} channels, which diffusers normalises in 32 groups, and ours has "
            f"fewer below {LEAST_WIDTH} channels."
        )
    model = {
        "model.nf": widths[0],
        "model.ch_mult": tuple(width // widths[0] for width in widths),
        "model.num_res_blocks": arguments["layers_per_block"],
        "model.attn_resolutions": tuple(size >> level for level in attention),
        "model.dropout": float(arguments["dropout"]),
    }
    data = {"data.image_size": size, "data.num_channels": arguments["in_channels"]}
    if not kind:
        centred = {"data.centered": not arguments["center_input_sample"]}
        return {"model.name": "ddpm", "model.attention_up": "each"} | model | data | centred | _ddpm(scheduler or {})
    pyramids = {"model.progressive": "output_skip", "model.progressive_input": "input_skip"}
    fourier = {"model.embedding_type": "fourier", "model.progressive_combine": "sum"}
    centred = {"data.centered": not arguments["center_input_sample"]}
    return {"model.name": "ncsnpp"} | model | pyramids | fourier | data | centred | _ncsnpp(scheduler or {})


def _kind(arguments: Mapping[str, Any]) -> tuple[str, list[int]]:
    """The key of `KINDS`, and the levels with attention. Raises `UsageError` for other blocks."""
    down, up = list(arguments["down_block_types"]), list(arguments["up_block_types"])
    kind = "Skip" if any("Skip" in block for block in down) else ""
    names = [f"{kind}DownBlock2D", f"Attn{kind}DownBlock2D"]
    for block in down:
        if block not in names:
            raise UsageError(f"config.json has a {block}, and our networks have {' and '.join(names)} alone.")
    if not down or len(down) != len(arguments["block_out_channels"]):
        raise UsageError("config.json has another number of down_block_types than of block_out_channels.")
    if up != [block.replace("Down", "Up") for block in reversed(down)]:
        raise UsageError("config.json has up_block_types that are no mirror of its down_block_types, as ours are.")
    return kind, [level for level, block in enumerate(down) if block.startswith("Attn")]


def _same(value: Any, other: Any) -> bool:
    numbers = all(isinstance(each, int | float) and not isinstance(each, bool) for each in (value, other))
    return abs(value - other) <= 1e-9 if numbers else value == other


PREDICTIONS = {"epsilon": "noise", "sample": "x0", "v_prediction": "v"}


def _ddpm(scheduler: Mapping[str, Any]) -> dict[str, Any]:
    """The objective of networks that get the index in a chain of VP."""
    schedule, predicts = scheduler.get("beta_schedule", "linear"), scheduler.get("prediction_type", "epsilon")
    if schedule != "linear" or scheduler.get("trained_betas") is not None:
        raise UsageError(f"scheduler_config.json has beta_schedule={schedule}, and the process vp is linear.")
    if scheduler.get("rescale_betas_zero_snr"):
        raise UsageError("scheduler_config.json has rescale_betas_zero_snr=True, which the process vp has not.")
    if predicts not in PREDICTIONS:
        raise UsageError(f"scheduler_config.json has prediction_type={predicts}; ours are {', '.join(PREDICTIONS)}.")
    n = scheduler.get("num_train_timesteps", 1000)
    values = {
        "sde.name": "vpsde",
        "sde.beta_min": scheduler.get("beta_start", 1e-4) * n,
        "sde.beta_max": scheduler.get("beta_end", 0.02) * n,
        "sde.num_scales": n,
        "model.scale_by_sigma": False,
    }
    if predicts == "epsilon":
        return values | {"training.continuous": False}
    row = {"parameterization.name": PREDICTIONS[predicts], "parameterization.noise_cond": "chain_index"}
    return values | row | {"times.name": "chain"}


def _ncsnpp(scheduler: Mapping[str, Any]) -> dict[str, Any]:
    """The objective of networks that get the noise level of VE, by which diffusers divides their output."""
    return {
        "sde.name": "vesde",
        "sde.sigma_min": scheduler.get("sigma_min", 0.01),
        "sde.sigma_max": scheduler.get("sigma_max", 1348.0),
        "sde.num_scales": scheduler.get("num_train_timesteps", 2000),
        "model.scale_by_sigma": True,
    }


@check_arguments
def params_of(tensors: Mapping[str, np.ndarray], network: DDPM | NCSNpp, image_shape: ImageShape) -> PyTree:
    """Our parameters of a network from the tensors of diffusers' one, by name.

    image_shape: (h, w, c) of the images. Raises `UsageError` naming the first tensor that is missing, left over, of
    another shape, or not finite.
    """
    tensors = {_renamed(name): value for name, value in tensors.items()}
    x, noise_cond = jnp.zeros((1, *image_shape)), jnp.ones(1)
    shapes = leaf_shapes(lambda: network.init(jax.random.key(0), x, noise_cond)["params"])
    names = names_of(network, image_shape[0], shapes)
    expected = {name: _published_shape(path, shapes[path]) for path, name in names.items()}
    check_shapes(tensors, expected, "the file")
    return unflatten({path: _ours(path, finite(tensors[names[path]], names[path])) for path in shapes})


@check_arguments
def names_of(network: DDPM | NCSNpp, height: int, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, str]:
    """The names of diffusers by our leaf, {"Conv_0/kernel": "conv_in.weight", ...}, for images of this height."""
    layers = list(dict.fromkeys(path.split("/")[0] for path in shapes))
    theirs = list(_layers(network, height))
    if len(layers) != len(theirs):
        raise UsageError("The config's network has another form than diffusers' networks; leave --config out.")
    prefixes = dict(zip(layers, theirs, strict=True))
    names = {}
    for path in shapes:
        layer, *inner, leaf = path.split("/")
        of_inner = ATTENTION if layer.startswith("Attn") else RESNET if layer.startswith("Resnet") else {}
        parts = [prefixes[layer], *(of_inner[each] for each in inner if each in of_inner), LEAVES[leaf]]
        names[path] = ".".join(parts)
    return names


def _layers(network: DDPM | NCSNpp, height: int) -> Iterator[str]:
    """The names of diffusers' layers in the order in which ours are created."""
    skips, levels = isinstance(network, NCSNpp), range(len(network.ch_mult))
    attends = [height >> level in network.attn_resolutions for level in levels]
    yield from (["time_proj"] if skips else []) + ["time_embedding.linear_1", "time_embedding.linear_2", "conv_in"]
    for level in levels:
        block = f"down_blocks.{level}"
        for i in range(network.num_res_blocks):
            yield f"{block}.resnets.{i}"
            if attends[level]:
                yield f"{block}.attentions.{i}"
        if level != levels[-1]:
            yield from (f"{block}.resnet_down", f"{block}.skip_conv") if skips else (f"{block}.downsamplers.0.conv",)
    yield from ("mid_block.resnets.0", "mid_block.attentions.0", "mid_block.resnets.1")
    for level in reversed(levels):
        block = f"up_blocks.{levels[-1] - level}"
        for i in range(network.num_res_blocks + 1):
            yield f"{block}.resnets.{i}"
            if attends[level] and not skips:
                yield f"{block}.attentions.{i}"
        if attends[level] and skips:
            yield f"{block}.attentions.0"
        if skips and level != 0:
            yield from (f"{block}.skip_norm", f"{block}.skip_conv", f"{block}.resnet_up")
        elif level != 0:
            yield f"{block}.upsamplers.0.conv"
    yield from ("conv_norm_out", "conv_out")


def _renamed(name: str) -> str:
    """The name of today for one of the first versions of diffusers."""
    for old, new in OLD_NAMES.items():
        name = name.replace(old, new)
    return re.sub(r"\.downsamplers\.0\.Conv2d_0\.", ".downsamplers.0.conv.", name)


def _published_shape(path: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a tensor in PyTorch's order of axes; a shortcut's map of channels is a convolution of size 1."""
    leaf = path.rsplit("/", 1)[-1]
    if leaf == "W" and len(shape) == 2 and path.startswith("Resnet"):
        return (*kernel_shape(shape), 1, 1)
    return kernel_shape(shape) if leaf in ("kernel", "W") else shape


def _ours(path: str, value: np.ndarray) -> np.ndarray:
    leaf = path.rsplit("/", 1)[-1]
    if leaf == "W" and value.ndim > 1:
        return kernel(value.reshape(value.shape[:2]))
    return kernel(value) if leaf == "kernel" else value
