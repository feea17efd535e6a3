r"""Dequantization: from images of 256 levels to points of a density, so that bits/dim bound the pixels' code length.

A level k stands for a cell C_k of the model's range, and P(x) is the density's mass in the box of an image's cells. For
any q(y | x) on that box Jensen's inequality gives

    -log P(x)  <=  E_q [ -log p(y) + log q(y | x) ],                            (1)

an equality where q is p restricted to the box. Both densities are in model range, so no other term enters: the offset
of 7 or 8 bits/dim that the paper's code adds is log2 q / D of the uniform choice. All log q here are in bits/dim.
"""

import math
from collections.abc import Callable
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from score_sde import images
from score_sde.array_types import Array, FeatureMaps, Keys, ModelImages, PerSample, UnitImages
from score_sde.config.arguments import check_arguments
from score_sde.images import Scaling
from score_sde.process import LEAST_TIME, Process
from score_sde.randomness import uniform as uniform_noise

CHOICES = ("uniform", "truncated_normal", "variational")


class Dequantization(NamedTuple):
    """A choice of q(y | x), as a sampler of y together with its log-density."""

    sample: Callable[[Keys, UnitImages], tuple[ModelImages, PerSample]]  # of x: y, and log2 q(y | x) / D
    eps: float = LEAST_TIME  # the time at which y lives: p of eq. (1) is the model's density there


@check_arguments
def uniform(scaling: Scaling) -> Dequantization:
    """Uniform dequantization: y uniform in the cell (k + u) / 256, u in [0, 1) (Theis et al., 2016; the paper's).

    scaling: the map from [0, 1] to model range.

        import jax
        import jax.numpy as jnp
        from score_sde.likelihood.dequantization import uniform
        from score_sde.images import CENTERED

        x, keys = jnp.zeros((2, 8, 8, 1)), jax.random.split(jax.random.key(0), 2)  # images in [0, 1]
        y, log_q = uniform(CENTERED).sample(keys, x)  # points in [-1, 1], and bits/dim of q there: 7
    """

    @check_arguments
    def sample(keys: Keys, x: UnitImages) -> tuple[ModelImages, PerSample]:
        return scaling.to_model(images.dequantize(keys, x)), jnp.full(len(x), scaling.offset_bits, x.dtype)

    return Dequantization(sample)


@check_arguments
def truncated_normal(
    sde: Process, scaling: Scaling, *, dequantized: bool, tau: Annotated[float, "[0.1, 10]"] = 3.0
) -> Dequantization:
    """Truncated-normal dequantization: y = m c + s z at eps, z normal in [-tau, tau] (i-DODE, Zheng et al., 2023).

    c is the middle of the cell, m and s are alpha and sigma at eps, chosen such that the cell's half-width h is tau s /
    m: up to the tails, y is the input that the network saw in training at eps. Where that eps would be below 1e-5, eps
    is 1e-5 and tau becomes m h / s.

    dequantized: whether the network saw (k + u) / 256 in training, so that cells are as in `uniform`; otherwise it saw
    k / 255, and the cells are centred there. The method pays for networks of the second kind that have learned to see
    noise this small; where p is flat in a cell, tau = 3 costs 0.56 bits/dim more than `uniform`.

        import jax
        import jax.numpy as jnp
        from score_sde.images import CENTERED
        from score_sde.likelihood.dequantization import truncated_normal
        from score_sde.sde import VP

        q = truncated_normal(VP(), CENTERED, dequantized=True)
        y, log_q = q.sample(jax.random.split(jax.random.key(0), 2), jnp.zeros((2, 8, 8, 1)))  # at the time q.eps
    """
    levels = 256 if dequantized else 255  # cells in [0, 1]
    half_width = 0.5 * scaling.scale / levels
    eps = np.maximum(sde.time(np.array([half_width / tau])), LEAST_TIME)
    m, s, tau = (value.item() for value in (sde.alpha(eps), sde.sigma(eps), half_width / sde.noise_level(eps)))
    log_normalizer = math.log(s * math.sqrt(2 * math.pi) * math.erf(tau / math.sqrt(2)))

    @check_arguments
    def sample(keys: Keys, x: UnitImages) -> tuple[ModelImages, PerSample]:
        draw = jax.vmap(lambda key: jax.random.truncated_normal(key, -tau, tau, x.shape[1:], x.dtype))
        z = draw(keys)
        middle = scaling.to_model((255 * x + 0.5) / 256 if dequantized else x)
        return m * middle + s * z, _bits_per_dim(-0.5 * jnp.square(z) - log_normalizer)

    return Dequantization(sample, eps=eps.item())


@check_arguments
def unlearned(x: FeatureMaps) -> tuple[FeatureMaps, FeatureMaps]:
    """The network with which `variational` equals `uniform`."""
    return jnp.zeros_like(x), jnp.zeros_like(x)


@check_arguments
def variational(scaling: Scaling, network: Callable[[FeatureMaps], tuple[FeatureMaps, FeatureMaps]]) -> Dequantization:
    r"""Variational: y = (k + u) / 256, u = sigmoid(mu(x) + e^{s(x)} logit(v)), v uniform (Flow++, Ho et al., 2019).

    log q(u | x) = log v (1 - v) - log u (1 - u) - s, in nats. network: 2 x - 1, in [-1, 1] whatever the model's range,
    -> mu, s.

        import jax
        import jax.numpy as jnp
        from score_sde.images import CENTERED
        from score_sde.likelihood.dequantization import unlearned, variational

        q, keys = variational(CENTERED, unlearned), jax.random.split(jax.random.key(0), 2)
        y, log_q = q.sample(keys, jnp.zeros((2, 8, 8, 1)))  # as uniform: log_q is 7
    """

    @check_arguments
    def sample(keys: Keys, x: UnitImages) -> tuple[ModelImages, PerSample]:
        mu, s = network(2 * x - 1)
        # Half a unit of float32 inside both ends, where the logit is finite.
        v = jnp.clip(uniform_noise(keys, x.shape[1:]), 2.0**-24, 1 - 2.0**-24)
        noise = jax.scipy.special.logit(v)
        logit = mu + jnp.exp(s) * noise
        log_q = scaling.offset_bits + _bits_per_dim(_log_slope(noise) - _log_slope(logit) - s)
        return scaling.to_model((255 * x + jax.nn.sigmoid(logit)) / 256), log_q

    return Dequantization(sample)


def _log_slope(x: Array) -> Array:
    """Logarithm of the sigmoid's derivative, u (1 - u)."""
    return -jax.nn.softplus(x) - jax.nn.softplus(-x)


def _bits_per_dim(nats: Array) -> PerSample:
    return jnp.mean(nats, axis=tuple(range(1, nats.ndim))) / math.log(2)
