r"""Weights of the squared error at each time, as factors on that of eps.

The same loss has the factor w (alpha / sigma)^2 on the error of x_0. With k = sigma / alpha and its logarithm's
derivative L by t,

| row           | w, on the error of eps | which is                                    |
|---------------|------------------------|---------------------------------------------|
| `noise`       | 1                      | the paper's and DDPM's                      |
| `likelihood`  | g^2 / sigma^2 = 2 L    | twice a bound on the negative log-likelihood |
| `edm`         | (k^2 + s^2) / s^2      | 1 on the error of `edm`'s F                 |
| `min_snr`     | min(1, gamma k^2)      | min(SNR, gamma) on that of x_0              |
| `velocity`    | (sigma L)^2            | 1 on that of the velocity                   |
| `uncertainty` | that of `base`         | learned, to have errors of one size         |
"""

import abc
import dataclasses
import math
from collections.abc import Callable
from statistics import NormalDist

import jax.numpy as jnp
import numpy as np

from score_sde.array_types import Array, Float, Images, PerSample, PyTree, Times
from score_sde.errors import UsageError, one_of
from score_sde.process import Process, check_scalar
from score_sde.times import log_noise_rate

REDUCTIONS: dict[str, Callable[[Array, tuple[int, ...]], PerSample]] = {
    "mean": jnp.mean,
    "half_sum": lambda values, axes: 0.5 * jnp.sum(values, axes),
    "sum": jnp.sum,
}


@dataclasses.dataclass(frozen=True)
class Weight(abc.ABC):
    """A factor on the squared error of eps at each time. reduction: over an image's pixels, of `REDUCTIONS`."""

    reduction: str = "mean"

    def __post_init__(self):
        one_of("weight.reduction", self.reduction, REDUCTIONS)

    @abc.abstractmethod
    def on_noise(self, process: Process, t: Times) -> PerSample:
        """w(t) of eq. (1), the factor on |eps^ - eps|^2."""

    def on_x0(self, process: Process, t: Times) -> PerSample:
        """The factor on |x_0^ - x_0|^2, for the same loss."""
        return self.on_noise(process, t) / jnp.square(process.noise_level(t))

    def reduce(self, values: Images) -> PerSample:
        """One number for each image."""
        return REDUCTIONS[self.reduction](values, tuple(range(1, values.ndim)))

    def balanced(self, loss: PerSample, process: Process, t: Times, number: PerSample) -> PerSample:
        """The loss with what a learned weight makes of it. number: what `reduce` gives for ones."""
        return loss

    def init_params(self) -> PyTree:
        """Parameters of a learned weight, {} for one without."""
        return {}

    def with_params(self, params: PyTree) -> "Weight":
        """The weight with these parameters."""
        return self


@dataclasses.dataclass(frozen=True)
class NoiseWeight(Weight):
    """1 on the error of eps: DDPM's simple loss, and the paper's lambda(t) = sigma^2 on that of the score."""

    def on_noise(self, process: Process, t: Times) -> PerSample:
        return jnp.ones_like(t)


@dataclasses.dataclass(frozen=True)
class LikelihoodWeight(Weight):
    """g^2 / sigma^2: half of it, summed over pixels, bounds the likelihood (Song et al., 2021; VDM)."""

    def on_noise(self, process: Process, t: Times) -> PerSample:
        return jnp.square(process.g(t) / process.sigma(t))


@dataclasses.dataclass(frozen=True)
class KarrasWeight(Weight):
    """(k^2 + s^2) / (k s)^2 on the error of x_0, k = sigma / alpha, s = sigma_data (Karras et al., 2022, table 1)."""

    sigma_data: float = 0.5

    def on_noise(self, process: Process, t: Times) -> PerSample:
        return jnp.square(process.noise_level(t) / self.sigma_data) + 1


@dataclasses.dataclass(frozen=True)
class MinSNR(Weight):
    """min(SNR, gamma) on the error of x_0, SNR = (alpha / sigma)^2 (Hang et al., 2023)."""

    gamma: float = 5.0

    def __post_init__(self):
        super().__post_init__()
        if not self.gamma > 0:
            raise UsageError(f"weight.gamma={self.gamma} must be positive; 5 as published.")

    def on_noise(self, process: Process, t: Times) -> PerSample:
        return jnp.minimum(1.0, self.gamma * jnp.square(process.noise_level(t)))


@dataclasses.dataclass(frozen=True)
class VelocityWeight(Weight):
    """1 on the error of the velocity alpha' x_0 + sigma' eps: flow matching's loss."""

    def on_noise(self, process: Process, t: Times) -> PerSample:
        return jnp.square(process.sigma(t) * log_noise_rate(process, t))


@dataclasses.dataclass(frozen=True)
class Uncertainty(Weight):
    """w / e^u |error|^2 + u with a learned u of the noise level (Karras et al., 2024, "EDM2", eq. 14 and 21).

    At its least e^u is the expected weighted error, so that all noise levels have gradients of one size. u is linear in
    Fourier features of log(sigma / alpha) / 4, and 0 at first. It is no part of the network's prediction.

    base: the weight w, of `WEIGHTS`; sigma_data and gamma are its arguments if it has them. features: how many.
    """

    base: str = "edm"
    sigma_data: float = 0.5
    gamma: float = 5.0
    features: int = 64
    params: PyTree = dataclasses.field(default=None, compare=False)

    def __post_init__(self):
        super().__post_init__()
        one_of("weight.base", self.base, [name for name in WEIGHTS if name != "uncertainty"])
        if self.features < 1:
            raise UsageError(f"weight.features={self.features} must be at least 1; 64 are the default.")

    def on_noise(self, process: Process, t: Times) -> PerSample:
        check_scalar(process, "weight.name=uncertainty", f"set weight.name={self.base}")
        base = WEIGHTS[self.base]
        names = {field.name for field in dataclasses.fields(base)} - {"reduction"}
        return base(**{name: getattr(self, name) for name in names}).on_noise(process, t)

    def balanced(self, loss: PerSample, process: Process, t: Times, number: PerSample) -> PerSample:
        u = self.u(process, t)
        return loss * jnp.exp(-u) + number * u

    def u(self, process: Process, t: Times) -> PerSample:
        """The logarithm of the expected weighted error, as learned."""
        params = self.init_params() if self.params is None else self.params
        return params["bias"] + jnp.sum(self.waves(process, t) * params["kernel"], axis=1)

    def waves(self, process: Process, t: Times) -> Float[Array, "b n"]:
        """The Fourier features, n = 2 `features`."""
        angle = jnp.log(process.noise_level(t))[:, None] / 4 * jnp.asarray(self._frequencies(), jnp.float32)
        return jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=1) * math.sqrt(2)

    def init_params(self) -> PyTree:
        return {"bias": jnp.zeros(()), "kernel": jnp.zeros(2 * self.features)}

    def with_params(self, params: PyTree) -> "Uncertainty":
        return dataclasses.replace(self, params=params)

    def _frequencies(self) -> np.ndarray:
        """2 pi times standard normal numbers, as EDM2 draws them; here evenly among the positive quantiles."""
        quantiles = (np.arange(self.features) + 0.5) / (2 * self.features) + 0.5
        return 2 * math.pi * np.array([NormalDist().inv_cdf(quantile) for quantile in quantiles])


WEIGHTS: dict[str, type[Weight]] = {
    "noise": NoiseWeight,
    "likelihood": LikelihoodWeight,
    "edm": KarrasWeight,
    "min_snr": MinSNR,
    "velocity": VelocityWeight,
    "uncertainty": Uncertainty,
}
