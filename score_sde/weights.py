r"""Weights: the factor on the squared error of eps at each time.

    import jax.numpy as jnp
    from score_sde.sde import VP
    from score_sde.weights import WEIGHTS

    w = WEIGHTS["min_snr"](gamma=5.0).on_noise(VP(), jnp.array([0.1, 0.9]))  # min(1, gamma k^2)

The same loss, written with the error of x_0, has the factor w (alpha / sigma)^2. With k = sigma / alpha and
L = d log k / dt,

| row           | w, on the error of eps | that is                                     |
|---------------|------------------------|---------------------------------------------|
| `noise`       | 1                      | the paper's and DDPM's                      |
| `likelihood`  | g^2 / sigma^2 = 2 L    | twice the bound on -log p                   |
| `edm`         | (k^2 + s^2) / s^2      | 1 on the error of `edm`'s F                 |
| `min_snr`     | min(1, gamma k^2)      | min(SNR, gamma) on the error of x_0         |
| `velocity`    | (sigma L)^2            | 1 on the error of the velocity              |
| `uncertainty` | w of `base`            | divided by a learned e^u, see `Uncertainty` |
"""

import abc
import dataclasses
import math
from collections.abc import Callable, Mapping
from statistics import NormalDist
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from score_sde.array_types import Array, Float, ModelImages, PerSample, PyTree, Times
from score_sde.config.arguments import check_arguments, check_methods
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
    """Base class: a factor w(t) on the squared error of eps.

    reduction: how the errors of an image's pixels become one number, a name in `REDUCTIONS`.
    """

    reduction: str = "mean"

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        check_methods(cls, Weight)

    def __post_init__(self):
        one_of("weight.reduction", self.reduction, REDUCTIONS)

    @abc.abstractmethod
    def on_noise(self, process: Process, t: Times) -> PerSample:
        """The factor w(t) on |eps^ - eps|^2."""

    def on_x0(self, process: Process, t: Times) -> PerSample:
        """The factor on |x_0^ - x_0|^2 in the same loss."""
        return self.on_noise(process, t) / jnp.square(process.noise_level(t))

    def reduce(self, values: ModelImages) -> PerSample:
        """One number for each image, from the numbers of its pixels."""
        return REDUCTIONS[self.reduction](values, tuple(range(1, values.ndim)))

    def balanced(self, loss: PerSample, process: Process, t: Times, number: PerSample) -> PerSample:
        """The loss after a learned weight has been applied to it. number: the result of `reduce` for ones."""
        return loss

    def init_params(self) -> PyTree:
        """Initial parameters of a learned weight; {} for a weight without any."""
        return {}

    def with_params(self, params: PyTree) -> "Weight":
        """A copy of the weight with these parameters."""
        return self


check_methods(Weight, Weight)

Std = Annotated[float, "(0, 1e9)"]
Ratio = Annotated[float, "(0, inf)"]


@check_arguments
@dataclasses.dataclass(frozen=True)
class NoiseWeight(Weight):
    """Simple weight, 1 on the error of eps: DDPM's simple loss, and the paper's lambda(t) = sigma^2 on the score's."""

    def on_noise(self, process: Process, t: Times) -> PerSample:
        return jnp.ones_like(t)


@check_arguments
@dataclasses.dataclass(frozen=True)
class LikelihoodWeight(Weight):
    """Likelihood weight g^2 / sigma^2: half of the sum over pixels bounds -log p (Song et al., 2021; VDM)."""

    def on_noise(self, process: Process, t: Times) -> PerSample:
        return jnp.square(process.g(t) / process.sigma(t))


@check_arguments
@dataclasses.dataclass(frozen=True)
class KarrasWeight(Weight):
    """EDM's weight (k^2 + s^2) / (k s)^2 on the error of x_0 (Karras et al., 2022, table 1).

    k = sigma / alpha, s = sigma_data.
    """

    sigma_data: Std = 0.5

    def on_noise(self, process: Process, t: Times) -> PerSample:
        return jnp.square(process.noise_level(t) / self.sigma_data) + 1


@check_arguments
@dataclasses.dataclass(frozen=True)
class MinSNR(Weight):
    """Min-SNR weight: min(SNR, gamma) on the error of x_0, SNR = (alpha / sigma)^2 (Hang et al., 2023)."""

    gamma: Ratio = 5.0

    def on_noise(self, process: Process, t: Times) -> PerSample:
        return jnp.minimum(1.0, self.gamma * jnp.square(process.noise_level(t)))


@check_arguments
@dataclasses.dataclass(frozen=True)
class VelocityWeight(Weight):
    """Velocity weight: 1 on the error of the velocity alpha' x_0 + sigma' eps, flow matching's loss."""

    def on_noise(self, process: Process, t: Times) -> PerSample:
        return jnp.square(process.sigma(t) * log_noise_rate(process, t))


@check_arguments
@dataclasses.dataclass(frozen=True)
class Uncertainty(Weight):
    """Learned weight: w / e^u |error|^2 + u, with a learned u of the noise level (Karras et al., 2024, EDM2, eq. 14).

    At the loss's minimum e^u is the expected weighted error, so that the gradients of all noise levels have one size.
    u is linear in Fourier features of log(sigma / alpha) / 4 (eq. 21) and starts at 0. It does not enter predictions.

    base: the weight w, a name in `WEIGHTS`; sigma_data and gamma are its arguments, if it has them. features: number of
    Fourier features.
    """

    base: str = "edm"
    sigma_data: Std = 0.5
    gamma: Ratio = 5.0
    features: Annotated[int, "[1, 65536]"] = 64
    params: PyTree = dataclasses.field(default=None, compare=False)

    def __post_init__(self):
        super().__post_init__()
        one_of("weight.base", self.base, [name for name in WEIGHTS if name != "uncertainty"])
        shapes = {"bias": (), "kernel": (2 * self.features,)}
        params = dict(self.params) if isinstance(self.params, Mapping) else self.params
        if params is not None and jax.tree.map(np.shape, params) != shapes:
            raise UsageError(f"Parameters of the weight uncertainty are arrays of the shapes {shapes}.")

    def on_noise(self, process: Process, t: Times) -> PerSample:
        check_scalar(process, "weight.name=uncertainty", f"set weight.name={self.base}")
        base = WEIGHTS[self.base]
        names = {field.name for field in dataclasses.fields(base)} - {"reduction"}
        return base(**{name: getattr(self, name) for name in names}).on_noise(process, t)

    def balanced(self, loss: PerSample, process: Process, t: Times, number: PerSample) -> PerSample:
        u = self.u(process, t)
        return loss * jnp.exp(-u) + number * u

    @check_arguments
    def u(self, process: Process, t: Times) -> PerSample:
        """The learned logarithm of the expected weighted error."""
        params = self.init_params() if self.params is None else self.params
        return params["bias"] + jnp.sum(self.waves(process, t) * params["kernel"], axis=1)

    @check_arguments
    def waves(self, process: Process, t: Times) -> Float[Array, "b n"]:
        """Fourier features of the noise level, n = 2 `features`."""
        angle = jnp.log(process.noise_level(t))[:, None] / 4 * jnp.asarray(self._frequencies(), jnp.float32)
        return jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=1) * math.sqrt(2)

    def init_params(self) -> PyTree:
        return {"bias": jnp.zeros(()), "kernel": jnp.zeros(2 * self.features)}

    def with_params(self, params: PyTree) -> "Uncertainty":
        return dataclasses.replace(self, params=params)

    def _frequencies(self) -> np.ndarray:
        """Frequencies 2 pi q, with q spread evenly over the positive normal quantiles.

        EDM2 draws normal numbers instead.
        """
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
