"""Correctors: step sizes of Langevin dynamics at a fixed time (paper, algorithms 4 and 5).

A corrector moves x to x + e score + sqrt(2 e) z with its step size e.
"""

from collections.abc import Callable

import jax.numpy as jnp

from score_sde.array_types import Images, PerSample, Times
from score_sde.sde import SDE

Corrector = Callable[[SDE, Times, float, Images, Images], PerSample]


def langevin(sde: SDE, t: Times, snr: float, score: Images, z: Images) -> PerSample:
    """2 alpha (snr |z| / |score|)^2, norms averaged over the whole batch, on all devices.

    As in the paper's code; the step, and so a sample, depends on what else is in the batch.
    """
    axes = tuple(range(1, z.ndim))
    z_norm = jnp.mean(jnp.sqrt(jnp.sum(jnp.square(z), axes)))
    score_norm = jnp.mean(jnp.sqrt(jnp.sum(jnp.square(score), axes)))
    return 2 * sde.langevin_scale(t) * jnp.square(snr * z_norm / score_norm)


def ald(sde: SDE, t: Times, snr: float, score: Images, z: Images) -> PerSample:
    """2 alpha (snr std(t))^2: the annealed Langevin dynamics of NCSN."""
    return 2 * sde.langevin_scale(t) * jnp.square(snr * sde.std(t))


CORRECTORS: dict[str, Corrector | None] = {"langevin": langevin, "ald": ald, "none": None}
