"""Time laws: distributions of the times at which a network is trained, and the noise levels at these times.

Each is a row of `TIMES`; an `Objective` draws from it.

    import jax
    from score_sde.sde import VP
    from score_sde.times import TIMES

    law, keys = TIMES["lognormal"](P_mean=-1.2, P_std=1.2), jax.random.split(jax.random.key(0), 4)
    t = law.sample(VP(), keys)  # 4 times in (0, 1]
    density = law.density(VP(), t)
"""

import abc
import dataclasses
import math
from typing import Annotated, Any

import jax
import jax.numpy as jnp

from score_sde.array_types import Array, Float, Keys, PerSample, Times
from score_sde.config.arguments import check_arguments, check_methods
from score_sde.errors import UsageError
from score_sde.process import LEAST_TIME, Eps, Process, Scalars, before_noise
from score_sde.randomness import normal, uniform
from score_sde.sde import Chain


@dataclasses.dataclass(frozen=True)
class TimeLaw(abc.ABC):
    """Base class: a distribution of training times in (0, 1]."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        check_methods(cls, TimeLaw)

    @abc.abstractmethod
    def sample(self, process: Process, keys: Keys) -> Times:
        """Times in (0, 1], one for each key."""

    @abc.abstractmethod
    def density(self, process: Process, t: Times) -> PerSample:
        """Probability density at t; for a chain, the probability of each of its points."""

    def levels(self, process: Process) -> Process:
        """The process whose alpha and sigma are used in training: the process itself, or the levels of its chain."""
        return process


check_methods(TimeLaw, TimeLaw)


@check_arguments
@dataclasses.dataclass(frozen=True)
class Uniform(TimeLaw):
    """Uniform law: t uniform in [eps, 1] (paper, appendix C)."""

    eps: Eps = LEAST_TIME

    def sample(self, process: Process, keys: Keys) -> Times:
        return self.eps + (1 - self.eps) * uniform(keys)

    def density(self, process: Process, t: Times) -> PerSample:
        return jnp.full_like(t, 1 / (1 - self.eps))


@check_arguments
@dataclasses.dataclass(frozen=True)
class OnChain(TimeLaw):
    """Chain law: t uniform on the N points k / (N - 1) of the process's chain, and its levels: SMLD (VE), DDPM (VP)."""

    def sample(self, process: Process, keys: Keys) -> Times:
        n = process.num_scales
        return jnp.minimum(jnp.floor(uniform(keys) * n), n - 1) / (n - 1)

    def density(self, process: Process, t: Times) -> PerSample:
        return jnp.full_like(t, 1 / process.num_scales)

    def levels(self, process: Process) -> Process:
        return Levels(process)


@check_arguments
@dataclasses.dataclass(frozen=True)
class LogNormal(TimeLaw):
    """Log-normal law: log(sigma / alpha) ~ N(P_mean, P_std^2) (Karras et al., 2022, table 1)."""

    P_mean: Annotated[float, "[-40, 40]"] = -1.2
    P_std: Annotated[float, "(0, 100]"] = 1.2

    def sample(self, process: Process, keys: Keys) -> Times:
        return _within(process.time(jnp.exp(self.P_mean + self.P_std * normal(keys, ()))))

    def density(self, process: Process, t: Times) -> PerSample:
        """Density within the process's noise levels; draws beyond them are moved to the ends."""
        z = (jnp.log(process.noise_level(t)) - self.P_mean) / self.P_std
        return _bell(z) / self.P_std * log_noise_rate(process, t)


@check_arguments
@dataclasses.dataclass(frozen=True)
class LogitNormal(TimeLaw):
    """Logit-normal law: log(t / (1 - t)) ~ N(mean, std^2) (Esser et al., 2024, section 3.1).

    The defaults are those of Stable Diffusion 3.
    """

    mean: Annotated[float, "(-inf, inf)"] = 0.0
    std: Annotated[float, "(0, inf)"] = 1.0

    def sample(self, process: Process, keys: Keys) -> Times:
        return _within(jax.nn.sigmoid(self.mean + self.std * normal(keys, ())))

    def density(self, process: Process, t: Times) -> PerSample:
        z = (jnp.log(t) - jnp.log1p(-t) - self.mean) / self.std
        return _bell(z) / (self.std * t * (1 - t))


@check_arguments
@dataclasses.dataclass(frozen=True)
class Importance(TimeLaw):
    """Importance sampling: density proportional to g^2 / sigma^2, so that log(sigma / alpha) is uniform.

    With this law, the loss that bounds the likelihood has the same weight at all times (Song et al., 2021, "Maximum
    likelihood training of score-based diffusion models", section 3.3). eps: the least time.
    """

    eps: Eps = LEAST_TIME

    def sample(self, process: Process, keys: Keys) -> Times:
        low, high = self._ends(process)
        return _within(process.time(jnp.exp(low + (high - low) * uniform(keys))))

    def density(self, process: Process, t: Times) -> PerSample:
        low, high = self._ends(process)
        return log_noise_rate(process, t) / (high - low)

    def _ends(self, process: Process) -> Float[Array, "2"]:
        """Logarithms of the least and the largest noise level."""
        ends = before_noise(process, jnp.array([self.eps, 1.0], jnp.float32))
        return jnp.log(process.noise_level(ends))


def _within(t: Times) -> Times:
    return jnp.clip(t, LEAST_TIME, 1.0)


def _bell(z: PerSample) -> PerSample:
    return jnp.exp(-0.5 * jnp.square(z)) / math.sqrt(2 * math.pi)


@check_arguments
@dataclasses.dataclass(frozen=True)
class Levels(Process):
    """Process of the discrete noise levels of a chain, as discrete training uses them: alpha and sigma step with t."""

    process: Process

    def __post_init__(self):
        if not isinstance(self.process, Chain):
            raise UsageError(
                f"{type(self.process).__name__} has no chain, whose points times.name=chain and "
                "training.continuous=False train on; leave times.name=chain out, and set "
                "training.continuous=True."
            )
        jax.eval_shape(lambda: self.process.chain_marginal(jnp.ones(1)))  # raises for sub-VP, whose chain has no levels

    @property
    def num_scales(self) -> int:
        return self.process.num_scales

    def alpha(self, t: Scalars) -> Scalars:
        return self.process.chain_marginal(t)[0]

    def sigma(self, t: Scalars) -> Scalars:
        return self.process.chain_marginal(t)[1]

    def rates(self, t: Scalars) -> tuple[Scalars, Scalars]:
        raise UsageError(
            "The levels of a chain have no velocity and no g, which this parameterization or weight needs; leave "
            "times.name=chain out, and set training.continuous=True."
        )

    def g(self, t: Scalars) -> Scalars:
        return self.rates(t)[0]

    @property
    def begins_in_noise(self) -> bool:
        return False


@check_arguments
def log_noise_rate(process: Process, t: Times) -> PerSample:
    """Derivative of log(sigma / alpha) by t, which is half of g^2 / sigma^2."""
    d_alpha, d_sigma = process.rates(t)
    return d_sigma / process.sigma(t) - d_alpha / process.alpha(t)


TIMES: dict[str, type[TimeLaw]] = {
    "uniform": Uniform,
    "chain": OnChain,
    "lognormal": LogNormal,
    "logit_normal": LogitNormal,
    "importance": Importance,
}
