"""Correctors: step sizes of Langevin dynamics at a fixed time (paper, algorithms 4 and 5).

A corrector moves x to x + e score + sqrt(2 e) z with its step size e.

    import jax.numpy as jnp
    from score_sde.sampling import CORRECTORS
    from score_sde.sde import VE

    score = z = jnp.ones((1, 8, 8, 3))
    step_size = CORRECTORS["ald"](VE(), jnp.array([0.5]), 0.16, score, z)  # 2 (0.16 sigma)^2
"""

import math
from collections.abc import Callable
from typing import Annotated

import jax.numpy as jnp

from score_sde.array_types import ModelImages, PerSample, Times
from score_sde.config.arguments import check_arguments
from score_sde.process import Process
from score_sde.sde import chain_of

SNR = Annotated[float, "(0, 1000]"]
Corrector = Callable[[Process, Times, float, ModelImages, ModelImages], PerSample]


@check_arguments
def langevin(process: Process, t: Times, snr: SNR, score: ModelImages, z: ModelImages) -> PerSample:
    """Step size 2 alpha (snr |z| / |score|)^2, with norms averaged over the whole batch, on all devices.

    This is the rule of the paper's code; a sample therefore depends on the rest of its batch.
    """
    return 2 * _scale(process, t) * jnp.square(snr * jnp.mean(_norms(z)) / jnp.mean(_norms(score)))


@check_arguments
def langevin_per_sample(process: Process, t: Times, snr: SNR, score: ModelImages, z: ModelImages) -> PerSample:
    """Step size 2 alpha snr^2 D / |score|^2: `langevin` with each sample's own norm, and sqrt(D) for |z| (appendix G).

    A sample does not depend on its batch. The step size depends on its position, which biases the result by order 1/D:
    little for images, much in a few dimensions.
    """
    return 2 * _scale(process, t) * jnp.square(snr / _norms(score)) * math.prod(z.shape[1:])


@check_arguments
def ald(process: Process, t: Times, snr: SNR, score: ModelImages, z: ModelImages) -> PerSample:
    """Step size 2 alpha (snr sigma(t))^2: the annealed Langevin dynamics of NCSN."""
    return 2 * _scale(process, t) * jnp.square(snr * process.sigma(t))


def _scale(process: Process, t: Times) -> PerSample:
    return chain_of(process, "A Langevin corrector needs").langevin_scale(t)


def _norms(x: ModelImages) -> PerSample:
    return jnp.sqrt(jnp.sum(jnp.square(x), axis=tuple(range(1, x.ndim))))


CORRECTORS: dict[str, Corrector | None] = {
    "langevin": langevin,
    "langevin_per_sample": langevin_per_sample,
    "ald": ald,
    "none": None,
}
