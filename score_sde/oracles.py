r"""Oracles: data with known scores, namely Gaussians, empirical distributions, and mixtures of these.

Under every affine SDE, with x_t = m x_0 + s z (m the mean scale and s the std at t),

    Gaussian N(mu, C):       p_t = N(m mu, m^2 C + s^2 I)
    data points x_i:         p_t = mean of N(m x_i, s^2 I)
    mixture of any of them:  p_t = the mixture of their p_t

so score, log-density and posterior mean E[x_0 | x_t] are closed forms. An oracle takes the place of a trained network,
to measure a sampler or a likelihood against the truth, or to run a pipeline whose optimum is known. The posterior of a
Gaussian given a linear observation y = A x_0 + n is a Gaussian, that of a mixture of them a mixture (`posterior`).
"""

import abc
import math
from collections.abc import Sequence
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from score_sde.array_types import Array, Float, Keys, ModelImages, PerSample, ScoreFn, Times
from score_sde.config.arguments import check_arguments, check_methods
from score_sde.errors import UsageError
from score_sde.process import LEAST_TIME, Eps, Model, Prediction, Process, noisy
from score_sde.randomness import expand, normal, stream, uniform

Finite = Annotated[np.ndarray, "(-inf, inf)"]
Deviation = Annotated[float, "[0, inf)"]  # of the noise of an observation

HIGHEST = jax.lax.Precision.HIGHEST  # float32 products on accelerators too


class Oracle(abc.ABC):
    """Base class of data with known p_t.

    Images are of shape (b, *shape), in model range; log-densities are in nats.

        import jax
        import numpy as np
        from score_sde.oracles import Gaussian
        from score_sde.sampling import fast_solver, solve
        from score_sde.sde import VP

        data, process = Gaussian(np.zeros((2, 2, 1)), 0.25), VP()
        x = process.prior_sample(jax.random.split(jax.random.key(0), 8), data.shape)
        samples, nfe = solve(fast_solver(process, data.model(process), num_steps=5), jax.random.key(1), x)
    """

    shape: tuple[int, int, int]

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        check_methods(cls, Oracle)

    @abc.abstractmethod
    def sample(self, keys: Keys) -> ModelImages:
        """Samples x_0 of the data, one for each key."""

    @abc.abstractmethod
    def score(self, sde: Process, x: ModelImages, t: Times) -> ModelImages:
        """The gradient of log p_t at x."""

    @abc.abstractmethod
    def log_density(self, sde: Process, x: ModelImages, t: Times) -> PerSample:
        """Log-density log p_t at x, in nats."""

    @abc.abstractmethod
    def posterior_mean(self, sde: Process, x: ModelImages, t: Times) -> ModelImages:
        """Posterior mean E[x_0 | x_t = x]."""

    def model(self, sde: Process) -> Model:
        """The exact model (x, t) -> `Prediction`, as samplers and likelihoods take it."""

        def predict(x: ModelImages, t: Times) -> Prediction:
            return Prediction(self.posterior_mean(sde, x, t), -expand(sde.sigma(t), x) * self.score(sde, x, t))

        return predict

    def score_fn(self, sde: Process) -> ScoreFn:
        """The exact score as a function (x, t) -> images."""
        return lambda x, t: self.score(sde, x, t)

    def perturbed_sample(self, sde: Process, keys: Keys, t: Times) -> ModelImages:
        """Samples x_t of p_t, one for each key."""
        x0 = self.sample(stream(keys, 0))
        return expand(sde.alpha(t), x0) * x0 + expand(sde.sigma(t), x0) * normal(stream(keys, 1), self.shape)

    def _fits(self, x: ModelImages) -> None:
        if x.shape[1:] != self.shape:
            raise UsageError(f"Images are of shape {x.shape[1:]}, and those of the data of shape {self.shape}.")

    def __getattr__(self, name: str) -> Any:
        own = type(self).__name__
        raise AttributeError(f"{own}.given is now {own}.posterior." if name == "given" else f"{own} has no {name!r}.")


check_methods(Oracle, Oracle)


@check_arguments
class Gaussian(Oracle):
    """The Gaussian N(mean, covariance).

    mean: of image shape (h, w, c). covariance: a variance, variances of image shape, or a symmetric positive
    semidefinite matrix (D, D) with D = h w c. Raises `UsageError` for other shapes and for negative variances.

        import jax.numpy as jnp
        import numpy as np
        from score_sde.oracles import Gaussian
        from score_sde.sde import VE

        score = Gaussian(np.zeros((1, 1, 1)), 4.0).score(VE(), jnp.ones((1, 1, 1, 1)), jnp.array([0.5]))
    """

    def __init__(self, mean: Finite, covariance: Finite):
        self.mean = np.asarray(mean, np.float64)
        self.shape = self.mean.shape
        covariance = np.asarray(covariance, np.float64)
        d = self.mean.size
        if self.mean.ndim != 3 or not d or covariance.shape not in ((), self.shape, (d, d)):
            raise UsageError(
                f"A Gaussian with mean of shape {self.shape} and covariance of shape {covariance.shape}: give a mean "
                "(h, w, c), and a variance, variances (h, w, c), or a matrix (h w c, h w c)."
            )
        full = covariance.shape == (d, d)
        if full and not np.allclose(covariance, covariance.T):
            raise UsageError("A covariance matrix is symmetric.")
        # Principal axes: a rotation (None if they are the pixels' own) and the variances along them.
        variances, axes = (
            np.linalg.eigh(covariance) if full else (np.broadcast_to(covariance, self.shape).ravel(), None)
        )
        if not variances.min() >= -1e-12 * variances.max() or not variances.max() > 0:
            raise UsageError(f"The covariance has eigenvalue {variances.min():g}; none may be negative, nor all zero.")
        self.variances, self.axes = np.maximum(variances, 0.0), axes

    def sample(self, keys: Keys) -> ModelImages:
        z = normal(keys, (self.mean.size,))
        return self._back(jnp.sqrt(_like(z, self.variances)) * z) + _like(z, self.mean)

    def score(self, sde: Process, x: ModelImages, t: Times) -> ModelImages:
        y, _, variances = self._along_axes(sde, x, t)
        return self._back(-y / variances)

    def log_density(self, sde: Process, x: ModelImages, t: Times) -> PerSample:
        y, _, variances = self._along_axes(sde, x, t)
        return -0.5 * jnp.sum(jnp.square(y) / variances + jnp.log(2 * math.pi * variances), axis=1)

    def posterior_mean(self, sde: Process, x: ModelImages, t: Times) -> ModelImages:
        y, scale, variances = self._along_axes(sde, x, t)
        return self._back(scale * _like(x, self.variances) / variances * y) + _like(x, self.mean)

    @property
    def covariance(self) -> np.ndarray:
        """The covariance matrix (D, D), in float64."""
        return np.diag(self.variances) if self.axes is None else (self.axes * self.variances) @ self.axes.T

    @check_arguments
    def posterior(self, matrix: Finite, y: Finite, noise: Deviation) -> "Gaussian":
        """The posterior of x_0, given that `matrix` (m, D) x_0 + noise n is y (m,), with n ~ N(0, I) and noise >= 0."""
        gain, innovation, _ = self._observed(matrix, y, noise)
        unexplained = np.eye(self.mean.size) - gain @ matrix
        # Joseph's form, which is symmetric whatever is rounded.
        covariance = unexplained @ self.covariance @ unexplained.T + noise**2 * gain @ gain.T
        return Gaussian(self.mean + (gain @ innovation).reshape(self.shape), covariance)

    @check_arguments
    def log_evidence(self, matrix: Finite, y: Finite, noise: Deviation) -> float:
        """log p(y) of the observation of `posterior`, in nats; without noise, of its linearly independent part."""
        _, innovation, spread = self._observed(matrix, y, noise)
        values, vectors = np.linalg.eigh(spread)
        kept = values > 1e-10 * values.max()
        energy = np.square(vectors.T[kept] @ innovation) / values[kept]
        return float(-0.5 * np.sum(energy + np.log(2 * np.pi * values[kept])))

    def _observed(self, matrix: np.ndarray, y: np.ndarray, noise: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Kalman gain (D, m), residual of y from its mean (m,), and the covariance of y (m, m)."""
        if matrix.shape != (*y.shape, self.mean.size) or not y.size:
            raise UsageError(
                f"An observation of shape {y.shape} by a matrix of shape {matrix.shape}: give y (m,) and a matrix (m, "
                f"{self.mean.size})."
            )
        covariance = self.covariance
        spread = matrix @ covariance @ matrix.T + noise**2 * np.eye(len(matrix))
        gain = covariance @ matrix.T @ np.linalg.pinv(spread, rcond=1e-10, hermitian=True)
        return gain, y - matrix @ self.mean.ravel(), spread

    @check_arguments
    def flow(self, sde: Process, x: ModelImages, t0: Times, t1: Times) -> ModelImages:
        """Exact solution at t1 of the probability-flow ODE that passes through x at t0."""
        y, _, before = self._along_axes(sde, x, t0)
        _, scale, after = self._along_axes(sde, x, t1)
        return self._back(jnp.sqrt(after / before) * y) + expand(scale[:, 0], x) * _like(x, self.mean)

    @check_arguments
    def bits_per_dim(self, sde: Process, x: ModelImages, eps: Eps = LEAST_TIME) -> PerSample:
        """Bits/dim of images x in model range under the probability-flow model with this exact score, at the time eps.

        They differ from -log2 p_eps / D because the model starts from the process's prior at t = 1 instead of p_1.
        """
        t0, t1 = jnp.full(len(x), eps, x.dtype), jnp.ones(len(x), x.dtype)
        _, _, before = self._along_axes(sde, x, t0)
        _, _, after = self._along_axes(sde, x, t1)
        log_det = 0.5 * jnp.sum(jnp.log(after / before), axis=1)
        return -(sde.prior_logp(self.flow(sde, x, t0, t1)) + log_det) / (math.log(2) * self.mean.size)

    def _along_axes(self, sde: Process, x: ModelImages, t: Times) -> tuple[Array, Array, Array]:
        """x - m mu along the principal axes (b, D), the scale m (b, 1), and the variances of p_t (b, D)."""
        self._fits(x)
        scale, std = sde.alpha(t)[:, None], sde.sigma(t)[:, None]
        y = (x - expand(scale[:, 0], x) * _like(x, self.mean)).reshape(len(x), -1)
        y = y if self.axes is None else jnp.matmul(y, _like(x, self.axes), precision=HIGHEST)
        return y, scale, jnp.square(scale) * _like(x, self.variances) + jnp.square(std)

    def _back(self, y: Float[Array, "b d"]) -> ModelImages:
        y = y if self.axes is None else jnp.matmul(y, _like(y, self.axes.T), precision=HIGHEST)
        return y.reshape(-1, *self.shape)


@check_arguments
class Mixture(Oracle):
    """A mixture of oracles that have the same image shape.

    weights: positive, one for each component; they are normalised to sum to 1. Raises `UsageError` for others.

        import jax
        import numpy as np
        from score_sde.oracles import Gaussian, Mixture

        parts = Gaussian(np.full((2, 2, 1), -0.5), 0.01), Gaussian(np.full((2, 2, 1), 0.5), 0.01)
        x0 = Mixture([0.3, 0.7], parts).sample(jax.random.split(jax.random.key(0), 8))
    """

    def __init__(self, weights: Sequence[float] | np.ndarray, components: Sequence[Oracle]):
        weights = np.asarray(weights, np.float64)
        if weights.shape != (len(components),) or not np.all(weights > 0) or not np.all(np.isfinite(weights)):
            raise UsageError("A mixture needs one positive weight for each component.")
        if not components or len({component.shape for component in components}) != 1:
            raise UsageError("All components of a mixture have images of one shape.")
        self.weights, self.components = weights / weights.sum(), tuple(components)
        self.shape = components[0].shape

    def sample(self, keys: Keys) -> ModelImages:
        u = uniform(stream(keys, 0))
        chosen = jnp.searchsorted(_like(u, np.cumsum(self.weights)[:-1]), u)
        samples = jnp.stack([component.sample(stream(keys, 1)) for component in self.components])
        return samples[chosen, jnp.arange(len(keys))]

    def score(self, sde: Process, x: ModelImages, t: Times) -> ModelImages:
        return self._average(sde, x, t, [component.score(sde, x, t) for component in self.components])

    def log_density(self, sde: Process, x: ModelImages, t: Times) -> PerSample:
        return jax.nn.logsumexp(self.log_joint(sde, x, t), axis=0)

    def posterior_mean(self, sde: Process, x: ModelImages, t: Times) -> ModelImages:
        return self._average(sde, x, t, [component.posterior_mean(sde, x, t) for component in self.components])

    @check_arguments
    def posterior(self, matrix: Finite, y: Finite, noise: Deviation) -> "Mixture":
        """The posterior of a mixture of Gaussians; the evidence of each component reweights it.

        See `Gaussian.posterior`.
        """
        evidence = np.array([component.log_evidence(matrix, y, noise) for component in self.components])
        weights = np.maximum(self.weights * np.exp(evidence - evidence.max()), 1e-300)
        return Mixture(weights, [component.posterior(matrix, y, noise) for component in self.components])

    @check_arguments
    def log_joint(self, sde: Process, x: ModelImages, t: Times) -> Float[Array, "k b"]:
        """Joint log-density of component and x, log p_t(component, x), in nats."""
        densities = [component.log_density(sde, x, t) for component in self.components]
        return jnp.stack(densities) + jnp.log(_like(x, self.weights))[:, None]

    def _average(self, sde: Process, x: ModelImages, t: Times, values: list[ModelImages]) -> ModelImages:
        """Mean of values over the components, weighted by their probabilities given x."""
        weights = jax.nn.softmax(self.log_joint(sde, x, t), axis=0)
        return jnp.einsum("kb,kb...->b...", weights, jnp.stack(values), precision=HIGHEST)


@check_arguments
class Empirical(Oracle):
    """The empirical distribution of n images: equal weight on each, as if a network had memorised them.

    data: floats (n, h, w, c) in model range. One score costs arithmetic over all n images.

        import jax.numpy as jnp
        import numpy as np
        from score_sde.oracles import Empirical
        from score_sde.sde import VP

        data = Empirical(np.linspace(-1, 1, 12).reshape(3, 2, 2, 1))
        x0, eps = data.model(VP())(jnp.zeros((1, 2, 2, 1)), jnp.array([0.01]))  # x0: the nearest image, nearly
    """

    def __init__(self, data: Annotated[Float[np.ndarray, "n h w c"], "(-inf, inf)"]):
        if not data.size:
            raise UsageError(f"Data of shape {data.shape}: give one image or more.")
        self.data = data
        self.shape = self.data.shape[1:]

    def sample(self, keys: Keys) -> ModelImages:
        n = len(self.data)
        u = uniform(keys)
        return _like(u, self.data)[jnp.minimum((u * n).astype(jnp.int32), n - 1)]

    def score(self, sde: Process, x: ModelImages, t: Times) -> ModelImages:
        scale, std = expand(sde.alpha(t), x), expand(sde.sigma(t), x)
        return (scale * self.posterior_mean(sde, x, t) - x) / jnp.square(std)

    def log_density(self, sde: Process, x: ModelImages, t: Times) -> PerSample:
        normaliser = math.log(len(self.data)) + math.prod(x.shape[1:]) * (
            jnp.log(sde.sigma(t)) + 0.5 * math.log(2 * math.pi)
        )
        return jax.nn.logsumexp(self._exponents(sde, x, t), axis=1) - normaliser

    def posterior_mean(self, sde: Process, x: ModelImages, t: Times) -> ModelImages:
        weights = jax.nn.softmax(self._exponents(sde, x, t), axis=1)
        return jnp.tensordot(weights, _like(x, self.data), 1, precision=HIGHEST)

    def _exponents(self, sde: Process, x: ModelImages, t: Times) -> Float[Array, "b n"]:
        """Exponents -|x - m x_i|^2 / (2 s^2), from differences, because expanded squares would cancel in float32."""

        def distances(x: Float[Array, "h w c"], scale: Float[Array, ""]) -> Float[Array, " n"]:
            return jnp.sum(jnp.square(x - scale * _like(x, self.data)), axis=(1, 2, 3))

        self._fits(x)
        noisy(sde, t)
        squares = jax.lax.map(lambda pair: distances(*pair), (x, sde.alpha(t)))
        return -squares / (2 * jnp.square(sde.sigma(t))[:, None])


def _like(x: Array, values: np.ndarray) -> Array:
    """The values as an array in the type of x."""
    return jnp.asarray(values, jnp.result_type(x))
