"""Latents of images under a trained model, by the probability-flow ODE, and the way back."""

import functools
from typing import Annotated

import jax
import jax.numpy as jnp

from score_sde.array_types import Array, Float, ModelImages, UnitImages
from score_sde.config.arguments import check_arguments
from score_sde.errors import UsageError
from score_sde.inference import inputs
from score_sde.inference.inputs import AnyImages
from score_sde.inference.snapshots import Snapshot
from score_sde.randomness import batch_keys
from score_sde.sampling import slerp
from score_sde.sampling.runner import Runner


@check_arguments
def encode(model: Snapshot, pixels: AnyImages) -> ModelImages:
    """Latents x_1 of images, by the probability-flow ODE from t = 1e-5.

    pixels: images, uint8 or in [0, 1].

        z = model.encode(np.zeros((2, *model.image_shape), np.uint8))
    """
    return _transported(model, model.image_range.to_model(inputs.unit_images(pixels, model.image_shape)), encode=True)


@check_arguments
def decode(model: Snapshot, z: ModelImages) -> UnitImages:
    """Images in [0, 1] of latents: the inverse of `encode`, without a denoising step.

    z: latents, of the images' shape, in model range.

        decoded = model.decode(np.zeros((2, *model.image_shape), np.float32))
    """
    x = _transported(model, inputs.of_shape(z, model.image_shape).astype(jnp.float32), encode=False)
    return jnp.clip(model.image_range.to_unit(x), 0, 1)


@check_arguments
def interpolate(
    model: Snapshot, first: AnyImages, last: AnyImages, n: Annotated[int, "[2, inf)"]
) -> Float[Array, "n b h w c"]:
    """Images (n, b, h, w, c) from each of `first` to each of `last`, by `slerp` of their latents.

    n: number of images, with both ends; at least 2. first, last: pixels as for `encode`, the same number of each.

        path = model.interpolate(images[:2], images[2:4], 3)
    """
    first, last = (inputs.unit_images(ends, model.image_shape) for ends in (first, last))
    if len(first) != len(last):
        raise UsageError(f"Interpolating {len(first)} and {len(last)} images; give pairs of images.")
    z0, z1 = encode(model, first), encode(model, last)
    z = jnp.concatenate([slerp(z0, z1, i / (n - 1)) for i in range(n)])
    return decode(model, z).reshape(n, *z0.shape)


def _transported(model: Snapshot, x: ModelImages, *, encode: bool) -> ModelImages:
    transport = functools.partial(model.experiment.transport, encode=encode)
    runner = model.experiment.once(("transport", encode), lambda: Runner(transport))
    y, _ = runner(model.params, batch_keys(jax.random.key(0), len(x)), x)  # an ODE draws nothing
    inputs.check_finite(jnp.all(jnp.isfinite(y)), "A solution of the probability-flow ODE")
    return y
