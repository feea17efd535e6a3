r"""How a network becomes a score.

A network maps (image, label) to an image and knows no SDE. Preconditioning turns it into the score of p_t,

    score(x, t) = c_skip(t) x + c_out(t) net(c_in(t) x + shift, c_noise(t)),    (1)

and each way the paper trains its networks is one row:

| row             | network learns     | c_out(t)            | c_noise(t), the network's label   |
|-----------------|--------------------|---------------------|-----------------------------------|
| VP, sub-VP      | the noise z        | -1 / std(t)         | 999 t                             |
| VP, discrete    | the noise z        | -1 / chain std(t)   | t (N - 1)                         |
| VE              | std(t) score       | 1 / sigma(t)        | sigma(t)                          |
| VE, discrete    | sigma_k score      | 1 / sigma_k         | round((1 - t)(N - 1)), 0 = sigma_max |
| data            | x_0                | m / std(t)^2        | 999 t                             |
| velocity        | m z - std x_0      | -m / (std(t) r)     | 999 t                             |

c_skip is 0, but -1 / std(t)^2 for data and -1 / r for velocity, with m = mean_scale(t) and r = m^2 + std(t)^2; these
two are for networks trained elsewhere. Data in [0, 1] enters the network as 2x - 1 (c_in = 2, shift = -1); data in
[-1, 1] as it is.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from score_sde.array_types import Images, PerSample, ScoreFn, Times
from score_sde.errors import UsageError
from score_sde.process import Process
from score_sde.randomness import expand
from score_sde.sde import VE, VP, SubVP

Network = Callable[[Images, PerSample], Images]
TimeFn = Callable[[Times], PerSample]


class Preconditioning(NamedTuple):
    """The functions of eq. (1)."""

    c_out: TimeFn
    c_noise: TimeFn
    c_in: TimeFn = jnp.ones_like
    shift: float = 0.0
    c_skip: TimeFn | None = None


def precondition(network: Network, row: Preconditioning) -> ScoreFn:
    """The score function of a network, eq. (1)."""

    def score_fn(x: Images, t: Times) -> Images:
        output = network(expand(row.c_in(t), x) * x + row.shift, row.c_noise(t))
        score = expand(row.c_out(t), x) * output
        return score if row.c_skip is None else score + expand(row.c_skip(t), x) * x

    return score_fn


def noise_prediction(sde: Process) -> Preconditioning:
    """VP and sub-VP. The label's factor is 999 whatever `num_scales` is."""
    return Preconditioning(c_out=lambda t: -1 / sde.sigma(t), c_noise=lambda t: 999.0 * t)


def discrete_noise_prediction(sde: Process) -> Preconditioning:
    """VP trained at the N noise levels of DDPM. Between grid points the label is not rounded."""
    return Preconditioning(c_out=lambda t: -1 / sde.chain_marginal(t)[1], c_noise=lambda t: t * (sde.num_scales - 1.0))


def score_prediction(sde: Process) -> Preconditioning:
    """VE."""
    return Preconditioning(c_out=lambda t: 1 / sde.sigma(t), c_noise=sde.sigma)


def data_prediction(sde: Process) -> Preconditioning:
    """Networks that return the posterior mean of x_0."""
    return Preconditioning(
        c_out=lambda t: sde.alpha(t) / jnp.square(sde.sigma(t)),
        c_noise=lambda t: 999.0 * t,
        c_skip=lambda t: -1 / jnp.square(sde.sigma(t)),
    )


def velocity_prediction(sde: Process) -> Preconditioning:
    """Networks that return v = mean_scale z - std x_0 (Salimans and Ho, 2022)."""

    def power(t: Times) -> PerSample:
        return jnp.square(sde.alpha(t)) + jnp.square(sde.sigma(t))

    return Preconditioning(
        c_out=lambda t: -sde.alpha(t) / (sde.sigma(t) * power(t)),
        c_noise=lambda t: 999.0 * t,
        c_skip=lambda t: -1 / power(t),
    )


def discrete_score_prediction(sde: Process) -> Preconditioning:
    """VE trained at the N noise levels of SMLD."""
    n = sde.num_scales

    def label(t: Times) -> PerSample:
        return jnp.round((1 - t) * (n - 1.0))

    # The noise level of the label, which off the grid is not that of floor(t (N - 1)).
    return Preconditioning(c_out=lambda t: 1 / sde.chain_marginal(1 - label(t) / (n - 1))[1], c_noise=label)


# (SDE, trained with continuous times?) -> row
PRECONDITIONINGS: dict[tuple[type[Process], bool], Callable[[Process], Preconditioning]] = {
    (VP, True): noise_prediction,
    (VP, False): discrete_noise_prediction,
    (SubVP, True): noise_prediction,
    (VE, True): score_prediction,
    (VE, False): discrete_score_prediction,
}


def preconditioning(sde: Process, *, continuous: bool, centered: bool, scale_by_sigma: bool) -> Preconditioning:
    """The row for an SDE, with the two switches of the paper's configs.

    centered: data is in [-1, 1]; otherwise in [0, 1], and the network is given 2x - 1.
    scale_by_sigma: whether a VE network's output is divided by sigma; without it the network learns the raw score.
    Raises `UsageError` for sub-VP with `continuous=False`, and for VP or sub-VP with `scale_by_sigma=True`.
    """
    if (type(sde), continuous) not in PRECONDITIONINGS:
        raise UsageError(f"{type(sde).__name__} has no discrete noise levels; set training.continuous=True.")
    row = PRECONDITIONINGS[type(sde), continuous](sde)
    if isinstance(sde, VE):
        row = row if scale_by_sigma else row._replace(c_out=jnp.ones_like)
    elif scale_by_sigma:
        raise UsageError("model.scale_by_sigma=True belongs to the VE SDE; set it to False for VP and sub-VP.")
    return row if centered else row._replace(c_in=lambda t: jnp.full_like(t, 2.0), shift=-1.0)
