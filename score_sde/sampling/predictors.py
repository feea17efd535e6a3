r"""Predictors: one step of the reverse-time SDE (paper, algorithm 1 and appendices D to F).

For an affine SDE every predictor is three scalars of time,

    x_mean = a x + b score(x, t),     x = x_mean + c z,                         (1)

and its probability-flow version has b halved where b is the score's share of the reverse drift, and c = 0.
"""

import math
from collections.abc import Callable

import jax.numpy as jnp

from score_sde.array_types import PerSample, Times
from score_sde.sde import SDE

Predictor = Callable[[SDE, Times], tuple[PerSample, PerSample, PerSample]]


def euler_maruyama(sde: SDE, t: Times) -> tuple[PerSample, PerSample, PerSample]:
    """Euler-Maruyama on the reverse SDE (eq. 6) with steps of 1/N."""
    n = sde.num_scales
    g = sde.diffusion(t)
    return 1 - sde.drift_rate(t) / n, jnp.square(g) / n, g / math.sqrt(n)


def reverse_diffusion(sde: SDE, t: Times) -> tuple[PerSample, PerSample, PerSample]:
    """The reverse SDE discretised as the chain is (eq. 46)."""
    f, g = sde.chain(t)
    return 1 - f, jnp.square(g), g


def ancestral_sampling(sde: SDE, t: Times) -> tuple[PerSample, PerSample, PerSample]:
    """Ancestral sampling: of DDPM for VP (eq. 4), of SMLD for VE (eq. 47). Not defined for sub-VP."""
    return sde.ancestral(t)


PREDICTORS: dict[str, Predictor | None] = {
    "euler_maruyama": euler_maruyama,
    "reverse_diffusion": reverse_diffusion,
    "ancestral_sampling": ancestral_sampling,
    "none": None,
}
