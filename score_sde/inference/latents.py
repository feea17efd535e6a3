"""Latents of images under a trained model, by the probability-flow ODE, and the way back."""

import functools
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np

from score_sde.array_types import Array, Float, ModelImages, UnitImages
from score_sde.cond import Cond, rows
from score_sde.config.arguments import check_arguments
from score_sde.errors import UsageError
from score_sde.inference import inputs
from score_sde.inference.inputs import AnyImages, AnyLabels, AnyText
from score_sde.inference.snapshots import Snapshot
from score_sde.randomness import batch_keys
from score_sde.sampling import slerp
from score_sde.sampling.runner import Runner


@check_arguments
def encode(
    model: Snapshot,
    pixels: AnyImages,
    labels: AnyLabels = None,
    *,
    cond: Cond | None = None,
    text: AnyText = None,
) -> ModelImages:
    """Latents x_1 of images, by the probability-flow ODE from t = 1e-5.

    pixels: images, uint8 or in [0, 1]. labels: numbers or names of classes, text: captions, one for all images or one
    for each; cond: arrays of n rows, see `score_sde.cond`. With any of these the ODE is that of p(x | c), else of p(x).
    Raises `UsageError` for other images, and for conditions that the network does not know.

        z = model.encode(np.zeros((2, *model.image_shape), np.uint8))
    """
    x = model.image_range.to_model(inputs.unit_images(pixels, model.image_shape))
    return _transported(model, x, inputs.condition(model, len(x), labels, cond, text), encode=True)


@check_arguments
def decode(
    model: Snapshot, z: ModelImages, labels: AnyLabels = None, *, cond: Cond | None = None, text: AnyText = None
) -> UnitImages:
    """Images in [0, 1] of latents: the inverse of `encode` under the same condition, without a denoising step.

    z: latents, of the images' shape, in model range. Another condition than that of `encode` translates the images: to
    another class, for example. Conditions and errors are those of `encode`.

        decoded = model.decode(np.zeros((2, *model.image_shape), np.float32))
    """
    z = inputs.of_shape(z, model.image_shape).astype(jnp.float32)
    x = _transported(model, z, inputs.condition(model, len(z), labels, cond, text), encode=False)
    return jnp.clip(model.image_range.to_unit(x), 0, 1)


@check_arguments
def interpolate(
    model: Snapshot,
    first: AnyImages,
    last: AnyImages,
    n: Annotated[int, "[2, inf)"],
    labels: AnyLabels = None,
    *,
    cond: Cond | None = None,
    text: AnyText = None,
) -> Float[Array, "n b h w c"]:
    """Images (n, b, h, w, c) from each of `first` to each of `last`, by `slerp` of their latents.

    n: number of images, with both ends; at least 2. first, last: pixels as for `encode`, the same number of each.
    labels, cond, text: as for `encode`, one for each pair.

        path = model.interpolate(images[:2], images[2:4], 3)
    """
    first, last = (inputs.unit_images(ends, model.image_shape) for ends in (first, last))
    if len(first) != len(last):
        raise UsageError(f"Interpolating {len(first)} and {len(last)} images; give pairs of images.")
    cond = inputs.condition(model, len(first), labels, cond, text)
    z0, z1 = encode(model, first, cond=cond), encode(model, last, cond=cond)
    z = jnp.concatenate([slerp(z0, z1, i / (n - 1)) for i in range(n)])
    return decode(model, z, cond=rows(cond, np.arange(len(z)) % len(first))).reshape(n, *z0.shape)


def _transported(model: Snapshot, x: ModelImages, cond: Cond | None, *, encode: bool) -> ModelImages:
    transport = functools.partial(model.experiment.transport, encode=encode)
    runner = model.experiment.once(("transport", encode), lambda: Runner(transport))
    keys = batch_keys(jax.random.key(0), len(x))  # an ODE draws nothing
    y, _ = runner(model.params, keys, x, conditions=(cond,))
    inputs.check_finite(jnp.all(jnp.isfinite(y)), "A solution of the probability-flow ODE")
    return y
