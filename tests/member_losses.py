"""Denoising losses of images by a model whose batches are split over all devices, as a loaded model's are."""

import jax
import numpy as np

from score_sde.audit import losses
from score_sde.oracles import Gaussian
from score_sde.runtime import sharding
from score_sde.sde import VP

SHAPE = (4, 4, 1)


def on_these_devices() -> list[list[float]]:
    """The losses of 11 images at two times."""
    process, images = VP(), np.random.default_rng(0).normal(size=(11, *SHAPE))
    program = sharding.pmap(Gaussian(np.full(SHAPE, 0.3), 0.5).model(process), in_axes=(0, 0), out_axes=0)

    def model(x, t):
        return jax.tree.map(lambda rows: rows[: len(x)], program(*sharding.split(x, t)))

    return losses(model, process, images, jax.random.key(0), np.array([0.2, 0.7]), draws=3, batch_size=9).tolist()
