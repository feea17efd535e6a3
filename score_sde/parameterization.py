r"""Parameterizations: the target that a network learns, and the prediction of x_0 and eps that its output implies.

A network F maps an image and a noise condition to an image, and knows no process. Every row of `PARAMETERIZATIONS`
trains it to return a combination of data and noise,

    F(c_in(t) x, noise_cond(t))   ~   p(t) x_0 + q(t) eps,                                                  (1)

and with x = alpha x_0 + sigma eps its output at x implies the prediction

    x_0 = (q x - sigma F) / det,     eps = (alpha F - p x) / det,     det = alpha q - sigma p.              (2)

| row            | target (1)                                    | error of eps / error of F | noise_cond            |
|----------------|-----------------------------------------------|---------------------------|-----------------------|
| `noise`        | eps                                           | 1                         | 999 t                 |
| `x0`           | x_0                                           | -alpha / sigma            | 999 t                 |
| `v`            | alpha eps - sigma x_0                         | alpha / (alpha^2+sigma^2) | 999 t                 |
| `velocity`     | alpha' x_0 + sigma' eps                       | alpha / det               | 999 t                 |
| `edm`          | (sigma / s x_0 - alpha s eps) / r             | -alpha s / r              | ln(sigma / alpha) / 4 |
| `score`        | -eps / sigma                                  | -sigma                    | sigma                 |
| `scaled_score` | -eps                                          | -1                        | sigma                 |

with s = sigma_data and r = sqrt(sigma^2 + alpha^2 s^2). `v` is from Salimans and Ho (2022), `velocity` from flow
matching (Lipman et al., 2023), `edm` is the F of Karras et al. (2022, table 1) applied to x / alpha. Each class writes
(2) out, so that no digits are lost. The paper's own networks are `noise` (VP, sub-VP), `scaled_score` (VE) and `score`
(VE networks without `scale_by_sigma`). Networks trained at the levels of a chain get other noise conditions:
`chain_index` under VP, `level_index` under VE, and under any process `cosine_index` of iDDPM's chain, `linear_index` of
DDPM's and `scaled_linear_step` of Stable Diffusion's (`NOISE_CONDS`). EDM's VE networks have data in [-1, 1] and
`log_half_noise_level`, ln(sigma / (2 alpha)), the logarithm of the noise level for data in [0, 1].

Data in [0, 1] enter a network as 2x - 1, data in [-1, 1] as they are; under `edm` as x / r, which has unit variance.

    import jax.numpy as jnp
    from score_sde.parameterization import PARAMETERIZATIONS
    from score_sde.sde import VP

    row, process, t = PARAMETERIZATIONS["v"](), VP(), jnp.array([0.5])
    x0 = eps = jnp.ones((1, 8, 8, 3))
    F = row.target(process, x0, eps, t)  # what a network learns
    x = process.alpha(t) * x0 + process.sigma(t) * eps
    prediction = row.predict(process, x, F, t)  # x0 and eps again
"""

import abc
import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Annotated, Any

import jax.numpy as jnp
import numpy as np

from score_sde.array_types import Array, ModelImages, PerSample, Times
from score_sde.config.arguments import check_arguments, check_methods
from score_sde.errors import UsageError, one_of
from score_sde.process import Model, Prediction, Process, before_noise, check_scalar, noisy
from score_sde.randomness import expand

STEPS = 1000  # of DDPM's and iDDPM's chains

Network = Callable[[ModelImages, PerSample], ModelImages]  # (image, noise_cond) -> F


@dataclasses.dataclass(frozen=True)
class Parameterization(abc.ABC):
    """Base class: the regression target of a network, eq. (1), and how its output becomes a prediction, eq. (2).

    noise_cond: the number that tells the network the time, a name in `NOISE_CONDS`. time_scale: factor on t for "time".
    """

    noise_cond: str = "time"
    time_scale: Annotated[float, "(-inf, inf)"] = 999.0

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        check_methods(cls, Parameterization)

    def __post_init__(self):
        one_of("parameterization.noise_cond", self.noise_cond, NOISE_CONDS)

    @abc.abstractmethod
    def target(self, process: Process, x0: ModelImages, eps: ModelImages, t: Times) -> ModelImages:
        """The right output of the network for these x_0 and eps, eq. (1)."""

    @abc.abstractmethod
    def predict(self, process: Process, x: ModelImages, output: ModelImages, t: Times) -> Prediction:
        """The prediction that an output of the network at x implies, eq. (2)."""

    @abc.abstractmethod
    def noise_error(self, process: Process, t: Times) -> PerSample:
        """d eps / d output = alpha / det: how an error of the output becomes an error of eps, at fixed x."""

    def outputs(self, network: Network, process: Process, *, centered: bool = True) -> Model:
        """The network's output F as a function of (x, t).

        centered: whether data are in [-1, 1]; otherwise they are in [0, 1].
        Raises `UsageError` where the network needs one noise level and each pixel has its own.
        """
        if self.noise_cond in OF_NOISE_LEVEL:
            check_scalar(process, f"noise_cond={self.noise_cond}", "set parameterization.noise_cond=time")
        noise_cond = NOISE_CONDS[self.noise_cond]
        return lambda x, t: network(self._input(process, x, t, centered), noise_cond(self, process, t))

    def model(self, network: Network, process: Process, *, centered: bool = True) -> Model:
        """The model (x, t) -> `Prediction` that a network defines under a process, finite also where alpha(1) = 0.

        network: (image, noise_cond) -> F. centered: whether data are in [-1, 1]; otherwise they are in [0, 1], and the
        network gets 2x - 1. Raises `UsageError` under `edm` for data that are not centred.

            import jax.numpy as jnp
            from score_sde.parameterization import PARAMETERIZATIONS
            from score_sde.paths import Linear

            def network(x, noise_cond):
                return -x

            model = PARAMETERIZATIONS["velocity"]().model(network, Linear())
            x0, eps = model(jnp.ones((1, 8, 8, 3)), jnp.array([0.5]))
        """
        outputs = self.outputs(network, process, centered=centered)

        def model(x: ModelImages, t: Times) -> Prediction:
            t = self._read_at(process, t)
            return self.predict(process, x, outputs(x, t), t)

        return model

    def _input(self, process: Process, x: ModelImages, t: Times, centered: bool) -> ModelImages:
        return x if centered else 2.0 * x - 1.0

    def _read_at(self, process: Process, t: Times) -> Times:
        """The time at which the network is evaluated to predict at t: t itself, if F determines x_0 where alpha = 0."""
        return t


check_methods(Parameterization, Parameterization)


class OfNoise(Parameterization):
    """Base of rows whose target is eps alone, which does not determine x_0 where alpha is 0.

    At such times the network is evaluated at the noisiest time instead, where x_0 is as exact as float32 allows.
    """

    def _read_at(self, process: Process, t: Times) -> Times:
        return before_noise(process, t)

    def _prediction(self, process: Process, x: ModelImages, eps: ModelImages, t: Times) -> Prediction:
        alpha, sigma = _scales(process, x, t)
        return Prediction((x - sigma * eps) / alpha, eps)


@check_arguments
@dataclasses.dataclass(frozen=True)
class Noise(OfNoise):
    """Noise prediction, F = eps (Ho et al., 2020): the paper's VP and sub-VP networks."""

    def target(self, process: Process, x0: ModelImages, eps: ModelImages, t: Times) -> ModelImages:
        return eps

    def predict(self, process: Process, x: ModelImages, output: ModelImages, t: Times) -> Prediction:
        return self._prediction(process, x, output, t)

    def noise_error(self, process: Process, t: Times) -> PerSample:
        return jnp.ones_like(t)


@check_arguments
@dataclasses.dataclass(frozen=True)
class ScaledScore(OfNoise):
    """Scaled score, F = sigma score = -eps: the paper's VE networks, whose output is divided by sigma."""

    noise_cond: str = "sigma"

    def target(self, process: Process, x0: ModelImages, eps: ModelImages, t: Times) -> ModelImages:
        return -eps

    def predict(self, process: Process, x: ModelImages, output: ModelImages, t: Times) -> Prediction:
        return self._prediction(process, x, -output, t)

    def noise_error(self, process: Process, t: Times) -> PerSample:
        return -jnp.ones_like(t)


@check_arguments
@dataclasses.dataclass(frozen=True)
class Score(OfNoise):
    """Plain score, F = -eps / sigma: VE networks that do not scale their output, as NCSN (Song and Ermon, 2019)."""

    noise_cond: str = "sigma"

    def target(self, process: Process, x0: ModelImages, eps: ModelImages, t: Times) -> ModelImages:
        return -eps / expand(noisy(process, t), eps)

    def predict(self, process: Process, x: ModelImages, output: ModelImages, t: Times) -> Prediction:
        return self._prediction(process, x, -expand(process.sigma(t), x) * output, t)

    def noise_error(self, process: Process, t: Times) -> PerSample:
        return -process.sigma(t)


@check_arguments
@dataclasses.dataclass(frozen=True)
class X0(Parameterization):
    """Data prediction, F = x_0: networks that return the posterior mean of the data."""

    def target(self, process: Process, x0: ModelImages, eps: ModelImages, t: Times) -> ModelImages:
        return x0

    def predict(self, process: Process, x: ModelImages, output: ModelImages, t: Times) -> Prediction:
        alpha, sigma = _scales(process, x, t)
        noisy(process, t)
        return Prediction(output, (x - alpha * output) / sigma)

    def noise_error(self, process: Process, t: Times) -> PerSample:
        return -process.alpha(t) / process.sigma(t)


@check_arguments
@dataclasses.dataclass(frozen=True)
class V(Parameterization):
    """v-prediction, F = alpha eps - sigma x_0 (Salimans and Ho, 2022)."""

    def target(self, process: Process, x0: ModelImages, eps: ModelImages, t: Times) -> ModelImages:
        alpha, sigma = _scales(process, eps, t)
        return alpha * eps - sigma * x0

    def predict(self, process: Process, x: ModelImages, output: ModelImages, t: Times) -> Prediction:
        alpha, sigma = _scales(process, x, t)
        power = jnp.square(alpha) + jnp.square(sigma)
        return Prediction((alpha * x - sigma * output) / power, (sigma * x + alpha * output) / power)

    def noise_error(self, process: Process, t: Times) -> PerSample:
        alpha, sigma = process.alpha(t), process.sigma(t)
        return alpha / (jnp.square(alpha) + jnp.square(sigma))


@check_arguments
@dataclasses.dataclass(frozen=True)
class Velocity(Parameterization):
    """Velocity prediction, F = dx_t/dt = alpha' x_0 + sigma' eps: flow matching (Lipman et al., 2023, eq. 14)."""

    def target(self, process: Process, x0: ModelImages, eps: ModelImages, t: Times) -> ModelImages:
        d_alpha, d_sigma = (expand(rate, eps) for rate in process.rates(t))
        return d_alpha * x0 + d_sigma * eps

    def predict(self, process: Process, x: ModelImages, output: ModelImages, t: Times) -> Prediction:
        (alpha, sigma), (d_alpha, d_sigma) = _scales(process, x, t), (expand(rate, x) for rate in process.rates(t))
        det = alpha * d_sigma - sigma * d_alpha
        return Prediction((d_sigma * x - sigma * output) / det, (alpha * output - d_alpha * x) / det)

    def noise_error(self, process: Process, t: Times) -> PerSample:
        alpha, (d_alpha, d_sigma) = process.alpha(t), process.rates(t)
        return alpha / (alpha * d_sigma - process.sigma(t) * d_alpha)


@check_arguments
@dataclasses.dataclass(frozen=True)
class KarrasF(Parameterization):
    """EDM's F (Karras et al., 2022, eq. 7), applied to x / alpha with noise level sigma / alpha.

    Input and target have variance 1. sigma_data: standard deviation of the data, in model range [-1, 1].
    """

    noise_cond: str = "log_noise_level"
    sigma_data: Annotated[float, "(0, 1e9)"] = 0.5

    def target(self, process: Process, x0: ModelImages, eps: ModelImages, t: Times) -> ModelImages:
        alpha, sigma = _scales(process, eps, t)
        return (sigma / self.sigma_data * x0 - alpha * self.sigma_data * eps) / self._spread(alpha, sigma)

    def predict(self, process: Process, x: ModelImages, output: ModelImages, t: Times) -> Prediction:
        alpha, sigma = _scales(process, x, t)
        spread = self._spread(alpha, sigma)
        x, output = x / jnp.square(spread), self.sigma_data / spread * output
        return Prediction(alpha * self.sigma_data**2 * x + sigma * output, sigma * x - alpha * output)

    def noise_error(self, process: Process, t: Times) -> PerSample:
        alpha, sigma = process.alpha(t), process.sigma(t)
        return -alpha * self.sigma_data / self._spread(alpha, sigma)

    def outputs(self, network: Network, process: Process, *, centered: bool = True) -> Model:
        if not centered:
            raise UsageError(
                "parameterization.name=edm divides its input by the standard deviation of data with mean 0; set "
                "data.centered=True."
            )
        return super().outputs(network, process)

    def _input(self, process: Process, x: ModelImages, t: Times, centered: bool) -> ModelImages:
        return x / self._spread(*_scales(process, x, t))

    def _spread(self, alpha: Array, sigma: Array) -> Array:
        """The standard deviation of x_t."""
        return jnp.hypot(sigma, alpha * self.sigma_data)


def _scales(process: Process, x: ModelImages, t: Times) -> tuple[Array, Array]:
    """alpha(t) and sigma(t), shaped to broadcast to images."""
    return expand(process.alpha(t), x), expand(process.sigma(t), x)


@functools.cache
def cosine_levels() -> np.ndarray:
    """Noise levels of iDDPM's chain of 1,000 steps, ascending from 0, in float64 (Nichol and Dhariwal, 2021, eq. 17).

    Step k = 1, 2, ... multiplies 1 + sigma^2 by 1 / (1 - beta_k), of which beta_k is at most 0.999.
    """
    phi = math.pi / 2 * (np.arange(STEPS + 1) / STEPS + 0.008) / 1.008
    kept = np.square(np.sin(math.pi / 2 - phi))  # cos^2, which in floating point is not 0 at the end
    return np.sqrt(np.expm1(np.cumsum(np.append(0.0, -np.log(np.maximum(kept[1:] / kept[:-1], 1e-3))))))


@functools.cache
def linear_levels() -> np.ndarray:
    """Noise levels of DDPM's chain of 1,000 steps, ascending from 0, in float64 (Ho et al., 2020, section 4)."""
    return _levels_of(np.linspace(1e-4, 0.02, STEPS))


@functools.cache
def scaled_linear_levels() -> np.ndarray:
    """Noise levels of Stable Diffusion's chain of 1,000 steps, ascending from 0, in float64 (Rombach et al., 2022).

    Roots of its betas are equally spaced, and betas are 0.00085 to 0.012.
    """
    return _levels_of(np.linspace(0.00085**0.5, 0.012**0.5, STEPS) ** 2)


def _levels_of(betas: np.ndarray) -> np.ndarray:
    """Noise levels before and after the steps of a chain."""
    return np.sqrt(np.expm1(np.cumsum(np.append(0.0, -np.log1p(-betas)))))


def _nearest_step(levels: np.ndarray, process: Process, t: Times) -> PerSample:
    """The step, 0 .. 999, of a chain after which its noise level is nearest to that at t; -1 before the first."""
    between = jnp.asarray((levels[1:] + levels[:-1]) / 2, jnp.float32)
    return jnp.searchsorted(between, process.noise_level(before_noise(process, t))).astype(jnp.float32) - 1.0


def _log_noise_level(process: Process, t: Times) -> PerSample:
    return jnp.log(process.noise_level(before_noise(process, t)))


# Noise conditions, by which a network knows the time: (row, process, t) -> one number for each image.
NOISE_CONDS: dict[str, Callable[[Parameterization, Process, Times], PerSample]] = {
    "time": lambda row, process, t: row.time_scale * t,  # 999 t whatever `num_scales` is
    "chain_index": lambda row, process, t: t * (process.num_scales - 1.0),  # between the points of a chain not rounded
    "level_index": lambda row, process, t: jnp.round((1 - t) * (process.num_scales - 1.0)),  # 0 is sigma_max
    "cosine_index": lambda row, process, t: _nearest_step(cosine_levels(), process, t),  # of EDM's form of iDDPM
    "linear_index": lambda row, process, t: jnp.maximum(_nearest_step(linear_levels(), process, t), 0.0),
    "scaled_linear_step": lambda row, process, t: jnp.maximum(
        _nearest_step(scaled_linear_levels(), process, t) + 1, 1.0
    ),
    "sigma": lambda row, process, t: process.sigma(t),
    "log_noise_level": lambda row, process, t: _log_noise_level(process, t) / 4,
    "log_half_noise_level": lambda row, process, t: _log_noise_level(process, t) - math.log(2),
}
OF_NOISE_LEVEL = {"cosine_index", "linear_index", "scaled_linear_step"}
OF_NOISE_LEVEL |= {"sigma", "log_noise_level", "log_half_noise_level"}

PARAMETERIZATIONS: dict[str, type[Parameterization]] = {
    "noise": Noise,
    "x0": X0,
    "v": V,
    "velocity": Velocity,
    "edm": KarrasF,
    "score": Score,
    "scaled_score": ScaledScore,
}
