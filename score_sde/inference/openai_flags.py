"""Flags of OpenAI's programs (guided-diffusion), which build the network of a released file of tensors.

| known from names and shapes                                   | not known from them                             |
|---------------------------------------------------------------|-------------------------------------------------|
| num_channels, channel_mult, num_res_blocks, learn_sigma       | image_size, num_heads or num_head_channels      |
| class_cond, use_scale_shift_norm, resblock_updown             | use_new_attention_order (for more than one head)|
| the levels that have attention                                | noise_schedule, predict_xstart, dropout         |

`RELEASED` has the flags of the released networks, by the stem of their file's name, as the publisher's page says them.
Networks that upsample a small image, and classifiers, are not read.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from score_sde.config.arguments import check_arguments
from score_sde.errors import UsageError
from score_sde.models import ADM

FLAGS: dict[str, Any] = dict(  # of the network and its objective, with their defaults
    image_size=64,
    num_channels=128,
    num_res_blocks=2,
    num_heads=4,
    num_heads_upsample=-1,
    num_head_channels=-1,
    attention_resolutions="16,8",
    channel_mult="",
    dropout=0.0,
    class_cond=False,
    use_checkpoint=False,
    use_scale_shift_norm=True,
    resblock_updown=False,
    use_fp16=False,
    use_new_attention_order=False,
    learn_sigma=False,
    diffusion_steps=1000,
    noise_schedule="linear",
    timestep_respacing="",
    use_kl=False,
    predict_xstart=False,
    rescale_timesteps=False,
    rescale_learned_sigmas=False,
    # Arguments of its network that its programs do not set:
    conv_resample=True,
    num_classes=1000,
    num_channels_of_images=3,
)
SCHEDULES = {"linear": ("vp", "linear_index"), "cosine": ("cosine", "cosine_index")}  # process and noise condition
CHANNEL_MULT = {  # of OpenAI's sizes
    512: (0.5, 1, 1, 2, 2, 4, 4),
    256: (1, 1, 2, 2, 4, 4),
    128: (1, 1, 2, 3, 4),
    64: (1, 2, 3, 4),
}
OPENAI_GROUPS = 32  # of all normalisations
# Fields of the network that no program of OpenAI's sets.
OURS = ("parent", "name", "compute", "encoder", "cross_resolutions", "cross_heads")
_ALL = dict(
    attention_resolutions="32,16,8",
    class_cond=True,
    learn_sigma=True,
    num_channels=256,
    num_head_channels=64,
    num_res_blocks=2,
    resblock_updown=True,
)
_LSUN = _ALL | dict(image_size=256, class_cond=False, dropout=0.1)
RELEASED: dict[str, dict[str, Any]] = {
    "64x64_diffusion": _ALL
    | dict(
        image_size=64,
        dropout=0.1,
        noise_schedule="cosine",
        num_channels=192,
        num_res_blocks=3,
        use_new_attention_order=True,
    ),
    "128x128_diffusion": _ALL | dict(image_size=128, num_heads=4, num_head_channels=-1),
    "256x256_diffusion": _ALL | dict(image_size=256),
    "256x256_diffusion_uncond": _ALL | dict(image_size=256, class_cond=False),
    "512x512_diffusion": _ALL | dict(image_size=512),
    "lsun_bedroom": _LSUN,
    "lsun_cat": _LSUN,
    "lsun_horse": _LSUN,
    "lsun_horse_nodropout": _LSUN | dict(dropout=0.0),
}


def is_set(flag: Any) -> bool:
    """Whether a flag, a boolean or a text as on the command line, is true. Raises `UsageError` for other texts."""
    words = {"true": True, "yes": True, "t": True, "y": True, "1": True}
    words |= {"false": False, "no": False, "f": False, "n": False, "0": False}
    if str(flag).lower() not in words:
        raise UsageError(f"A flag of OpenAI's programs is {flag!r}, and must be True or False.")
    return words[str(flag).lower()]


@check_arguments
def attention_order(flags: Mapping[str, Any]) -> str:
    """The order of queries, keys and values of a network with these flags: "new" or "legacy"."""
    return "new" if is_set((FLAGS | dict(flags))["use_new_attention_order"]) else "legacy"


@check_arguments
def values_of(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Values of our config by key, from flags, which are texts or values; those that are absent have their defaults.

    Raises `UsageError` for flags that OpenAI's programs do not have, and for networks and objectives that are not here.

        from score_sde.inference.openai_flags import RELEASED, values_of

        values = values_of(RELEASED["64x64_diffusion"])  # {"data.image_size": 64, ..., "model.nf": 192, ...}
    """
    if unknown := sorted(kwargs.keys() - FLAGS.keys()):
        raise UsageError(f"OpenAI's programs have no flag {unknown[0]}; choose from: {', '.join(FLAGS)}.")
    flags = FLAGS | dict(kwargs)
    size, schedule = int(flags["image_size"]), flags["noise_schedule"]
    for name, wrong in (
        ("noise_schedule", schedule not in SCHEDULES),
        ("diffusion_steps", int(flags["diffusion_steps"]) != 1000),
        ("num_heads_upsample", int(flags["num_heads_upsample"]) not in (-1, int(flags["num_heads"]))),
    ):
        if wrong:
            raise UsageError(f"OpenAI's network has --{name} {flags[name]}, which no network here has.")
    width, factors = int(flags["num_channels"]), _factors(flags["channel_mult"], size)
    scale = 1 if all(factor == int(factor) for factor in factors) else 2  # 512x512 begins with half the channels
    reductions = [size // height for height in integers(flags["attention_resolutions"])]
    network = dict(
        nf=width // scale,
        ch_mult=tuple(int(scale * factor) for factor in factors),
        num_res_blocks=int(flags["num_res_blocks"]),
        attn_resolutions=tuple(size // by for by in reductions if by in [2**i for i in range(len(factors))]),
        dropout=float(flags["dropout"]),
        num_heads=int(flags["num_heads"]) if int(flags["num_head_channels"]) == -1 else 0,
        head_channels=max(int(flags["num_head_channels"]), 1),
        resblock_type="biggan" if is_set(flags["resblock_updown"]) else "ddpm",
        resamp_with_conv=is_set(flags["conv_resample"]),
        scale_shift=is_set(flags["use_scale_shift_norm"]),
        num_groups=OPENAI_GROUPS,
        embedding_size=width if scale == 2 else 0,
        learned_variance=is_set(flags["learn_sigma"]),
        num_classes=int(flags["num_classes"]) if is_set(flags["class_cond"]) else 0,
    )
    process, noise_cond = SCHEDULES[schedule]
    return {
        "data.image_size": size,
        "data.num_channels": int(flags["num_channels_of_images"]),
        "data.centered": True,
        "process.name": process,
        "parameterization.name": "x0" if is_set(flags["predict_xstart"]) else "noise",
        "parameterization.noise_cond": noise_cond,
        "times.name": "uniform",
        "weight.name": "noise",
    } | model_values(network)


@check_arguments
def flags_of(tensors: Mapping[str, np.ndarray], image_size: int) -> dict[str, Any]:
    """The flags that names and shapes of OpenAI's tensors say, for images of this size.

    Raises `UsageError` for tensors of another network, of a classifier, or of one that upsamples images.
    """
    shapes = {name: tuple(np.shape(value)) for name, value in tensors.items()}
    inputs, outputs = (_blocks(shapes, part) for part in ("input_blocks", "output_blocks"))
    for name in (
        "time_embed.0.weight",
        "input_blocks.0.0.weight",
        "output_blocks.0.0.in_layers.0.weight",
        "out.2.weight",
    ):
        if name not in shapes:
            raise UsageError(f"The tensors lack {name} of OpenAI's U-Net; its classifiers are not read.")
    width, channels = shapes["time_embed.0.weight"][1], shapes["input_blocks.0.0.weight"][1]
    if channels == 6:
        raise UsageError("The network takes images of 6 channels: OpenAI's networks that upsample images are not read.")
    total = max(inputs) + 1
    stage = _stage(inputs, outputs, total)
    firsts = range(1, total, stage)
    blocks = [f"input_blocks.{first}.0" for first in firsts]
    widths = [shapes[f"{block}.out_layers.3.weight"][0] for block in blocks]
    attends = [f"input_blocks.{first}.1.qkv.weight" in shapes for first in firsts]
    resamplers = inputs.get(stage, set())
    flags = dict(
        image_size=image_size,
        num_channels=width,
        channel_mult=",".join(f"{each / width:g}" for each in widths),
        num_res_blocks=stage - 1,
        attention_resolutions=",".join(str(image_size >> level) for level, attend in enumerate(attends) if attend),
        use_scale_shift_norm=shapes[f"{blocks[0]}.emb_layers.1.weight"][0] == 2 * widths[0],
        resblock_updown="0.in_layers.0.weight" in resamplers and len(blocks) > 1,
        conv_resample="0.op.weight" in resamplers,
        learn_sigma=shapes["out.2.weight"][0] == 2 * channels,
        class_cond="label_emb.weight" in shapes,
        num_channels_of_images=channels,
    )
    return flags | ({"num_classes": shapes["label_emb.weight"][0]} if flags["class_cond"] else {})


def _blocks(shapes: Mapping[str, Any], part: str) -> dict[int, set[str]]:
    """Names inside each numbered block of a part of the network."""
    blocks: dict[int, set[str]] = {}
    for name in shapes:
        if match := re.fullmatch(rf"{part}\.(\d+)\.(.+)", name):
            blocks.setdefault(int(match[1]), set()).add(match[2])
    return blocks


def _stage(inputs: Mapping[int, set[str]], outputs: Mapping[int, set[str]], total: int) -> int:
    """Blocks of a level on the way up: one more than residual blocks of a level on the way down."""
    for number in sorted(outputs):
        upsamples = any(re.fullmatch(r"[12]\.(in_layers\.0|conv)\.weight", name) for name in outputs[number])
        if upsamples or (number + 1 not in inputs and number + 1 < total):  # pooling has no tensors
            return number + 1
    return total


def model_values(options: Mapping[str, Any]) -> dict[str, Any]:
    """Values of section `model`: the options, and others at the network's defaults."""
    defaults = {field.name: field.default for field in dataclasses.fields(ADM) if field.name not in OURS}
    return {
        f"model.{name}": value
        for name, value in {"name": "adm", "scale_by_sigma": False, **defaults, **options}.items()
    }


def _factors(channel_mult: Any, size: int) -> tuple[float, ...]:
    """Factors on the channels, by level; those of OpenAI's sizes if none are set."""
    if channel_mult not in ("", None):
        return tuple(float(factor) for factor in _items(channel_mult))
    if size not in CHANNEL_MULT:
        raise UsageError(f"OpenAI's networks of {size}x{size} pixels have no factors of their own; give channel_mult.")
    return CHANNEL_MULT[size]


def integers(values: Any) -> tuple[int, ...]:
    """Integers of a flag, which has them as a sequence or as text, "1,2,3"."""
    return tuple(int(value) for value in _items(values))


def _items(values: Any) -> Sequence[Any]:
    if isinstance(values, str):
        return values.split(",") if values else ()
    return values if isinstance(values, Sequence) else (values,)
