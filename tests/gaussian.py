"""The exact answers for data x_0 ~ N(mean, std^2), independent in every number: score, marginals, likelihood."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from score_sde.randomness import expand


@dataclasses.dataclass(frozen=True)
class Gaussian:
    mean: float | np.ndarray = 0.3
    std: float | np.ndarray = 0.5

    def score_fn(self, sde):
        """x, t -> the score of p_t."""

        def score(x, t):
            m, s = expand(sde.mean_scale(t), x), expand(sde.std(t), x)
            return -(x - m * self.mean) / (jnp.square(m * self.std) + jnp.square(s))

        return score

    def marginal(self, sde, t: float) -> tuple:
        """Mean and std of x_t, in float64."""
        m, s = float(sde.mean_scale(jnp.float32(t))), float(sde.std(jnp.float32(t)))
        return m * self.mean, np.sqrt((m * self.std) ** 2 + s**2)

    def bits_per_dim(self, sde, x, eps: float = 1e-5) -> np.ndarray:
        """-log2 of the prior density at the ODE's exact image of x, with the exact Jacobian, a dimension.

        The ODE of a Gaussian is linear: it maps (x - mean_eps) / std_eps to (z - mean_1) / std_1.
        """
        x = np.asarray(x, np.float64)
        (mean0, std0), (mean1, std1) = self.marginal(sde, eps), self.marginal(sde, 1.0)
        z = mean1 + (x - mean0) * std1 / std0
        log_density = -0.5 * (z / sde.prior_std) ** 2 - np.log(sde.prior_std) - 0.5 * np.log(2 * np.pi)
        return -np.mean(log_density + np.log(std1 / std0), axis=(1, 2, 3)) / np.log(2)
