r"""Denoising score matching (eq. 7 of the paper), in one expression.

With x = m(t) x_0 + s(t) z, every loss of the paper's code is, per image element,

    (s(t) score(x, t) + z)^2,                                                   (1)

under different noise levels: t uniform in [eps, 1] and (m, s) of the SDE (continuous), or t on the N points of the
SMLD or DDPM chain and (m, s) of the chain (discrete). Likelihood weighting replaces the weight s^2 by g^2:
g(t)^2 (score + z/s)^2.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from score_sde.array_types import Array, Float, Images, Keys, Labels, PerSample, ScoreFn, Times
from score_sde.process import LEAST_TIME, Process
from score_sde.randomness import expand, uniform


class Perturbation(NamedTuple):
    """Noise levels to train on."""

    sample_times: Callable[[Keys], Times]
    marginal: Callable[[Times], tuple[PerSample, PerSample]]  # mean scale, std
    diffusion: Callable[[Times], PerSample]


def continuous_perturbation(sde: Process, eps: float = LEAST_TIME) -> Perturbation:
    """t uniform in [eps, 1] (paper, appendix C)."""
    return Perturbation(
        sample_times=lambda keys: eps + (1 - eps) * uniform(keys),
        marginal=lambda t: (sde.alpha(t), sde.sigma(t)),
        diffusion=sde.g,
    )


def discrete_perturbation(sde: Process) -> Perturbation:
    """t uniform on the N points k/(N-1): SMLD (VE) and DDPM (VP). Raises `UsageError` for sub-VP."""
    jax.eval_shape(lambda: sde.chain_marginal(jnp.ones(1)))  # raises where there is no chain
    n = sde.num_scales

    def sample_times(keys: Keys) -> Times:
        return jnp.minimum(jnp.floor(uniform(keys) * n), n - 1) / (n - 1)

    return Perturbation(sample_times, marginal=sde.chain_marginal, diffusion=sde.g)


def perturb(perturbation: Perturbation, x0: Images, t: Times, z: Images) -> Images:
    """x_t of x_0 with the noise z."""
    mean_scale, std = perturbation.marginal(t)
    return expand(mean_scale, x0) * x0 + expand(std, z) * z


def dsm_loss(
    score_fn: ScoreFn,
    perturbation: Perturbation,
    x0: Images,
    t: Times,
    z: Images,
    *,
    likelihood_weighting: bool,
    reduce_mean: bool,
) -> PerSample:
    """Loss of each image, eq. (1): the mean over its elements if `reduce_mean`, else half their sum."""
    predicted = predicted_noise(score_fn, perturbation, x0, t, z)
    return noise_loss(predicted, perturbation, t, z, likelihood_weighting=likelihood_weighting, reduce_mean=reduce_mean)


def predicted_noise(score_fn: ScoreFn, perturbation: Perturbation, x0: Images, t: Times, z: Images) -> Images:
    """The noise -s(t) score that a score sees in x_t, where z is."""
    x, (_, std) = perturb(perturbation, x0, t, z), perturbation.marginal(t)
    return -expand(std, x) * score_fn(x, t)


def noise_loss(
    predicted: Images,
    perturbation: Perturbation,
    t: Times,
    z: Images,
    *,
    likelihood_weighting: bool,
    reduce_mean: bool,
) -> PerSample:
    """`dsm_loss` of a predicted noise."""
    losses, axes = jnp.square(z - predicted), tuple(range(1, z.ndim))
    loss = jnp.mean(losses, axes) if reduce_mean else 0.5 * jnp.sum(losses, axes)
    if not likelihood_weighting:
        return loss
    _, std = perturbation.marginal(t)
    return loss * jnp.square(perturbation.diffusion(t) / std)


def cross_entropy(logits: Float[Array, "b k"], labels: Labels) -> PerSample:
    """-log p(label) of each row, in nats."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)
