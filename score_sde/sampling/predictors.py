r"""Predictors: one step of the reverse-time SDE (paper, algorithm 1 and appendices D to F).

For an affine SDE every predictor is three scalars of time,

    x_mean = a x + b score(x, t),     x = x_mean + c z,                         (1)

and its probability-flow version has b halved where b is the score's share of the reverse drift, and c = 0.

A predictor is given the time t and that at which its step ends, or None for a step of the paper's code: of 1/N, or of
the chain, wherever it ends. Between two times the probability flow is `flow`, whatever the predictor.
"""

from collections.abc import Callable

import jax.numpy as jnp

from score_sde.array_types import PerSample, Times
from score_sde.process import Process

Coefficients = tuple[PerSample, PerSample, PerSample]
Predictor = Callable[[Process, Times, Times | None], Coefficients]


def euler_maruyama(sde: Process, t: Times, t_next: Times | None = None) -> Coefficients:
    """Euler-Maruyama on the reverse SDE (eq. 6)."""
    n = sde.steps_a_unit(t, t_next)
    g = sde.g(t)
    return 1 - sde.f(t) / n, jnp.square(g) / n, g / n**0.5


def reverse_diffusion(sde: Process, t: Times, t_next: Times | None = None) -> Coefficients:
    """The reverse SDE discretised as the chain is (eq. 46)."""
    f, g = sde.chain(t, t_next)
    return 1 - f, jnp.square(g), g


def ancestral_sampling(sde: Process, t: Times, t_next: Times | None = None) -> Coefficients:
    """Ancestral sampling: of DDPM for VP (eq. 4), of SMLD for VE (eq. 47). Not defined for sub-VP."""
    return sde.ancestral(t, t_next)


def flow(sde: Process, t: Times, t_next: Times) -> Coefficients:
    """The step of the probability-flow ODE with its linear part exact, as DDIM: of order 1 in what the score changes.

    Half the reverse SDE's step, which is the paper's, misses the standard deviation by 1.5 % in 1000 steps of VE.
    """
    m, m_next = sde.alpha(t), sde.alpha(t_next)
    falls = sde.noise_level(t) - sde.noise_level(t_next)
    return m_next / m, m_next * falls * sde.sigma(t), jnp.zeros_like(t)


PREDICTORS: dict[str, Predictor | None] = {
    "euler_maruyama": euler_maruyama,
    "reverse_diffusion": reverse_diffusion,
    "ancestral_sampling": ancestral_sampling,
    "none": None,
}
