"""Names and arguments of EDM2's published networks (https://github.com/NVlabs/edm2), and ours for the same.

A file's tensors are `unet.enc.64x64_block0.conv_res0.weight` and so on: level l of an image of height h is called by
its own height, h / 2^l. The tensors of `logvar_fourier` and `logvar_linear`, with which training learned its weight, do
not enter predictions; they may be there, and are left out.
"""

import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from score_sde.array_types import ImageShape, PyTree
from score_sde.config.arguments import check_arguments
from score_sde.errors import UsageError
from score_sde.inference.published_tensors import check_shapes, finite, leaf_shapes, unflatten
from score_sde.inference.reference_checkpoints import to_flax, torch_shape
from score_sde.models import edm2

ARGUMENTS = {
    "model_channels": "model.nf",
    "channel_mult": "model.ch_mult",
    "num_blocks": "model.num_res_blocks",
    "attn_resolutions": "model.attn_resolutions",
    "channels_per_head": "model.head_channels",
    "dropout": "model.dropout",
    "label_dim": "model.num_classes",
    "img_resolution": "data.image_size",
    "img_channels": "data.num_channels",
    "sigma_data": "parameterization.sigma_data",
}
# Arguments that all published networks leave at these values, for which ours has no option.
FIXED = {
    "channel_mult_noise": None,
    "channel_mult_emb": None,
    "label_balance": edm2.LABEL,
    "concat_balance": edm2.CONCAT,
    "res_balance": edm2.RESIDUAL,
    "attn_balance": edm2.ATTENTION,
    "clip_act": edm2.LARGEST,
    "resample_filter": [1, 1],
}
OF_TRAINING = ("use_fp16", "logvar_channels")  # they do not change predictions in float32
OBJECTIVE = {
    "process.name": "edm",
    "parameterization.name": "edm",
    "times.name": "lognormal",
    "weight.name": "edm",
    "data.centered": True,
}


@check_arguments
def values_of(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Values of a config, by key, for the network that was built with these keyword arguments.

    kwargs: of the published `Precond`; those that it leaves out have the defaults of its code, which are ours. Raises
    `UsageError` for an argument that is unknown, and for a value that no published network has.

        from score_sde.inference.edm2_layout import values_of

        values = values_of(dict(img_resolution=64, img_channels=3, label_dim=1000, model_channels=192))
        values["model.nf"]  # 192
    """
    values = {"model.name": "edm2"} | OBJECTIVE
    for name, value in kwargs.items():
        if name in ARGUMENTS:
            values[ARGUMENTS[name]] = tuple(value) if isinstance(value, list | tuple) else value
        elif name in FIXED:
            if value != FIXED[name]:
                raise UsageError(f"The file's network has {name}={value}, and model.name=edm2 has {FIXED[name]} alone.")
        elif name not in OF_TRAINING:
            raise UsageError(f"The file's network has an argument {name}, which no published EDM2 network has.")
    if "parameterization.sigma_data" in values:
        values["weight.sigma_data"] = values["parameterization.sigma_data"]
    return values


@check_arguments
def params_of(tensors: Mapping[str, np.ndarray], network: edm2.EDM2UNet, image_shape: ImageShape) -> PyTree:
    """Parameters of our network from a published one's tensors, by name, which are weights or their averages.

    tensors: with or without `unet.` before their names. image_shape: (h, w, c) of the file's images, since names
    contain heights. Raises `UsageError` naming the first tensor that is missing, left over, of another shape, or not
    finite.
    """
    tensors = {name.removeprefix("unet."): value for name, value in tensors.items() if not name.startswith("logvar_")}
    x, noise_cond = jnp.zeros((1, *image_shape)), jnp.zeros(1)
    shapes = leaf_shapes(lambda: network.init(jax.random.key(0), x, noise_cond)["params"])
    names = {path: published_name(path, image_shape[0]) for path in shapes}
    check_shapes(tensors, {names[path]: torch_shape(path, shape) for path, shape in shapes.items()}, "the file")
    return unflatten({path: to_flax(path, finite(tensors[name], name)) for path, name in names.items()})


def published_name(path: str, height: int) -> str:
    """The published name of our leaf, enc.32x32_block0.conv_res0.weight for enc1_block0/conv_res0/weight."""

    def sized(match: re.Match) -> str:
        side = height >> int(match[2])
        return f"{match[1]}.{side}x{side}_"

    return re.sub(r"^(enc|dec)(\d+)_", sized, path).replace("/", ".").replace("frequencies", "freqs")
