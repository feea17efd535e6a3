r"""The paper's three SDEs (Song et al., 2021, section 3.4 and appendix B), and that of Karras et al. (2022).

Each is a `Process` with closed forms for f and g. Besides the continuous process it has a Markov chain of `num_scales`
steps, x_{i+1} = (1 + f_k) x_i + G_k z with k = floor(t (N - 1)): the DDPM chain for VP, the SMLD chain for VE,
Euler-Maruyama for sub-VP.

    import jax.numpy as jnp
    from score_sde.sde import SDES

    sde, t = SDES["vesde"](sigma_min=0.01, sigma_max=50.0), jnp.array([1.0])
    sigma, (f_k, g_k) = sde.sigma(t), sde.chain(t)  # 50, and the chain's last step
"""

import abc
import dataclasses
import functools
import math
from typing import Annotated, Any

import jax.numpy as jnp
import numpy as np

from score_sde.array_types import Array, Int
from score_sde.config.arguments import check_arguments, check_methods
from score_sde.errors import UsageError, moved_names
from score_sde.process import Eps, Instants, Process, Scalars, Steps, check_backwards, noisy
from score_sde.process import library_of as _numpy

# t (N - 1) is an integer up to float32 rounding wherever t is a point of the chain; this keeps the floor on the right
# side of it. It is above one rounding unit for N <= 2000, and below the distance 1 - (N - 1) eps of a sampler's last
# time from the next point (1e-3 for VP).
ROUNDING = 2.5e-4


class Chain(Process):
    """A process with a discrete chain of `num_scales` steps, whose ancestral and Langevin steps samplers may take."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        check_methods(cls, Chain)

    def rates(self, t: Scalars) -> tuple[Scalars, Scalars]:
        """(alpha', sigma') from f and g, which have closed forms here."""
        f, sigma = self.f(t), noisy(self, t)
        return f * self.alpha(t), f * sigma + self.g(t) ** 2 / (2 * sigma)

    @abc.abstractmethod
    def chain(self, t: Instants, t_next: Instants | None = None) -> tuple[Scalars, Scalars]:
        """(f_k, G_k) of the chain's step x + f_k x + G_k z at t; with t_next, of a chain that visits t_next and t."""

    @abc.abstractmethod
    def chain_marginal(self, t: Instants) -> tuple[Scalars, Scalars]:
        """(alpha, sigma) of the chain's state after step k, given x_0: the noise levels of discrete training."""

    @abc.abstractmethod
    def ancestral(self, t: Instants, t_next: Instants | None = None) -> tuple[Scalars, Scalars, Scalars]:
        """(a, b, c) of the ancestral step x_mean = a x + b score, x = x_mean + c z (appendix F).

        With t_next, the step goes from t to t_next, as in `chain`.
        """

    @abc.abstractmethod
    def langevin_scale(self, t: Instants) -> Scalars:
        """Factor alpha in the Langevin step size 2 alpha (snr |z| / |score|)^2 (appendix G, algorithms 4 and 5)."""

    def chain_index(self, t: Instants) -> Int[Array, "*b"]:
        """k = floor(t (N - 1)), the position of t in the chain, 0..N-1."""
        return jnp.floor(t * (self.num_scales - 1) + ROUNDING).astype(jnp.int32)


check_methods(Chain, Chain)

Rate = Annotated[float, "(0, 300]"]  # of noise; with more, alpha(1) is 0 in float32
Std = Annotated[float, "(0, 1e18)"]  # whose square float32 holds


@dataclasses.dataclass(frozen=True)
class LinearBeta(Chain):
    """Base of VP and sub-VP: f = -beta(t)/2 with beta(t) linear in t, and a standard normal prior (eq. 11)."""

    beta_min: Rate = 0.1
    beta_max: Rate = 20.0
    num_scales: Steps = 1000
    sampling_eps: Eps = 1e-3

    def __post_init__(self):
        self._check_order("beta_min", "beta_max")

    @check_arguments
    def beta(self, t: Instants) -> Scalars:
        return self.beta_min + t * (self.beta_max - self.beta_min)

    @check_arguments
    def integrated_beta(self, t: Instants) -> Scalars:
        """B(t), the integral of beta from 0 to t."""
        return t * (self.beta_min + 0.5 * t * (self.beta_max - self.beta_min))

    def f(self, t: Scalars) -> Scalars:
        return -0.5 * self.beta(t)

    @check_arguments
    def time_of_integral(self, integral: Annotated[Scalars, "[0, inf)"]) -> Scalars:
        """The t at which B(t) has this value."""
        root = _numpy(integral).sqrt(self.beta_min**2 + 2 * (self.beta_max - self.beta_min) * integral)
        return 2 * integral / (self.beta_min + root)

    def alpha(self, t: Scalars) -> Scalars:
        return _numpy(t).exp(-0.5 * self.integrated_beta(t))

    @property
    def prior_std(self) -> float:
        return 1.0


@check_arguments
@dataclasses.dataclass(frozen=True)
class VP(LinearBeta):
    """Variance-preserving SDE: g = sqrt(beta(t)), alpha^2 + sigma^2 = 1 (eq. 11); the limit of DDPM."""

    def g(self, t: Scalars) -> Scalars:
        return _numpy(t).sqrt(self.beta(t))

    def sigma(self, t: Scalars) -> Scalars:
        xp = _numpy(t)
        return xp.sqrt(-xp.expm1(-self.integrated_beta(t)))

    def time(self, noise_level: Scalars) -> Scalars:
        return self.time_of_integral(_numpy(noise_level).log1p(noise_level**2))

    def chain(self, t: Scalars, t_next: Scalars | None = None) -> tuple[Scalars, Scalars]:
        beta = self._variance_of_step(t, t_next)
        return jnp.sqrt(1 - beta) - 1, jnp.sqrt(beta)

    def chain_marginal(self, t: Scalars) -> tuple[Scalars, Scalars]:
        _, alpha, sigma = _ddpm_chain(self)
        k = self.chain_index(t)
        return _lookup(alpha, k, t), _lookup(sigma, k, t)

    def ancestral(self, t: Scalars, t_next: Scalars | None = None) -> tuple[Scalars, Scalars, Scalars]:
        beta = self._variance_of_step(t, t_next)
        return 1 / jnp.sqrt(1 - beta), beta / jnp.sqrt(1 - beta), jnp.sqrt(beta)

    def langevin_scale(self, t: Scalars) -> Scalars:
        """alpha_k = 1 - beta_k of the single step, not the cumulative product."""
        return 1 - self._variance_of_step(t)

    def _variance_of_step(self, t: Scalars, t_next: Scalars | None = None) -> Scalars:
        """beta_k of the chain; with t_next, beta of a step between the two times, 1 - beta = (m(t) / m(t_next))^2."""
        check_backwards(t, t_next)
        if t_next is None:
            return _lookup(_ddpm_chain(self)[0], self.chain_index(t), t)
        return -_numpy(t).expm1(self.integrated_beta(t_next) - self.integrated_beta(t))


@check_arguments
@dataclasses.dataclass(frozen=True)
class SubVP(LinearBeta):
    """Sub-VP SDE: g = sqrt(beta(t) (1 - exp(-2 B(t)))), so that sigma = 1 - exp(-B(t)) (eqs. 12 and 29)."""

    def g(self, t: Scalars) -> Scalars:
        xp = _numpy(t)
        return xp.sqrt(-self.beta(t) * xp.expm1(-2 * self.integrated_beta(t)))

    def sigma(self, t: Scalars) -> Scalars:
        return -_numpy(t).expm1(-self.integrated_beta(t))

    def time(self, noise_level: Scalars) -> Scalars:
        return self.time_of_integral(2 * _numpy(noise_level).asinh(noise_level / 2))

    def chain(self, t: Scalars, t_next: Scalars | None = None) -> tuple[Scalars, Scalars]:
        n = self.steps_a_unit(t, t_next)
        return self.f(t) / n, self.g(t) / n**0.5

    def chain_marginal(self, t: Scalars) -> tuple[Scalars, Scalars]:
        raise UsageError(
            "Sub-VP has no discrete noise levels; leave times.name=chain out, and set training.continuous=True."
        )

    def ancestral(self, t: Scalars, t_next: Scalars | None = None) -> tuple[Scalars, Scalars, Scalars]:
        raise UsageError(
            "Ancestral sampling is not defined for sub-VP; "
            "set sampling.predictor to reverse_diffusion or euler_maruyama."
        )

    def langevin_scale(self, t: Scalars) -> Scalars:
        """1 - beta(t)/N, VP's alpha_k up to O(1/N). The paper's code defines none and stops with an error."""
        if self.beta_max >= self.num_scales:
            raise UsageError(
                f"A Langevin step of sub-VP needs beta_max / num_scales below 1, not {self.beta_max:g} / "
                f"{self.num_scales}; raise num_scales above {self.beta_max:g}, or set sampling.corrector=none."
            )
        return 1 - self.beta(t) / self.num_scales


class Exploding(Chain):
    """Base of VE and EDM: no drift, and a chain through the noise levels of N equidistant times (SMLD)."""

    sigma_min: Std
    sigma_max: Std

    def __post_init__(self):
        self._check_order("sigma_min", "sigma_max")

    @abc.abstractmethod
    def chain_stds(self) -> np.ndarray:
        """sigma_k of the chain, ascending, in float64."""

    def f(self, t: Scalars) -> Scalars:
        return _numpy(t).zeros_like(t)

    def alpha(self, t: Scalars) -> Scalars:
        return _numpy(t).ones_like(t)

    def chain(self, t: Scalars, t_next: Scalars | None = None) -> tuple[Scalars, Scalars]:
        sigma, previous = self._steps(t, t_next)
        return jnp.zeros_like(t), jnp.sqrt(sigma**2 - previous**2)

    def chain_marginal(self, t: Scalars) -> tuple[Scalars, Scalars]:
        # Between points of the chain: its nearest level, the same one whose index the network gets (`level_index`).
        last = self.num_scales - 1.0
        k = jnp.round(last - jnp.round((1 - t) * last)).astype(jnp.int32)
        return jnp.ones_like(t), _lookup(_smld_chain(self), k, t)

    def ancestral(self, t: Scalars, t_next: Scalars | None = None) -> tuple[Scalars, Scalars, Scalars]:
        sigma, previous = self._steps(t, t_next)
        variance = sigma**2 - previous**2
        return jnp.ones_like(t), variance, jnp.sqrt(previous**2 * variance) / sigma

    def langevin_scale(self, t: Scalars) -> Scalars:
        return jnp.ones_like(t)

    @property
    def prior_std(self) -> float:
        return float(self.sigma_max)

    def _steps(self, t: Scalars, t_next: Scalars | None = None) -> tuple[Scalars, Scalars]:
        """sigma_k and sigma_{k-1}, with sigma_{-1} = 0; with t_next, sigma at the two times."""
        check_backwards(t, t_next)
        if t_next is not None:
            return self.sigma(t), self.sigma(t_next)
        sigmas, k = _smld_chain(self), self.chain_index(t)
        return _lookup(sigmas, k, t), jnp.where(k > 0, _lookup(sigmas, k - 1, t), 0.0)


@check_arguments
@dataclasses.dataclass(frozen=True)
class VE(Exploding):
    """Variance-exploding SDE: sigma(t) = sigma_min (sigma_max / sigma_min)^t (eq. 9); the limit of SMLD.

    The kernel's variance is sigma(t)^2, as in the paper's code, not sigma(t)^2 - sigma(0)^2.
    """

    sigma_min: Std = 0.01
    sigma_max: Std = 50.0
    num_scales: Steps = 1000
    sampling_eps: Eps = 1e-5

    def rates(self, t: Scalars) -> tuple[Scalars, Scalars]:
        return _numpy(t).zeros_like(t), self._log_ratio * self.sigma(t)

    @property
    def _log_ratio(self) -> float:
        return math.log(self.sigma_max / self.sigma_min)

    def g(self, t: Scalars) -> Scalars:
        return self.sigma(t) * math.sqrt(2 * self._log_ratio)

    def sigma(self, t: Scalars) -> Scalars:
        # A power, because exp(t log ratio) is 8 times less exact, which Fourier features turn into 4e-5 of a score.
        return self.sigma_min * (self.sigma_max / self.sigma_min) ** t

    def time(self, noise_level: Scalars) -> Scalars:
        return _numpy(noise_level).log(noise_level / self.sigma_min) / self._log_ratio

    def chain_stds(self) -> np.ndarray:
        return np.geomspace(self.sigma_min, self.sigma_max, self.num_scales)


@check_arguments
@dataclasses.dataclass(frozen=True)
class EDM(Exploding):
    """The process of Karras et al. (2022): sigma proportional to time, with time in units of sigma_max.

    Samplers stop at sigma = sigma_min. The paper trains no network under this process, so it is not in `SDES`.
    """

    sigma_min: Std = 0.002
    sigma_max: Std = 80.0
    num_scales: Steps = 1000

    @property
    def sampling_eps(self) -> float:
        return self.sigma_min / self.sigma_max

    def rates(self, t: Scalars) -> tuple[Scalars, Scalars]:
        return _numpy(t).zeros_like(t), self.sigma_max * _numpy(t).ones_like(t)

    def g(self, t: Scalars) -> Scalars:
        return self.sigma_max * _numpy(t).sqrt(2 * t)

    def sigma(self, t: Scalars) -> Scalars:
        return self.sigma_max * t

    def time(self, noise_level: Scalars) -> Scalars:
        return noise_level / self.sigma_max

    def chain_stds(self) -> np.ndarray:
        return np.linspace(self.sigma_min, self.sigma_max, self.num_scales)


@functools.lru_cache
def _ddpm_chain(sde: VP) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """beta_k, and the mean scale and std after step k, in float64."""
    n = sde.num_scales
    betas = np.linspace(sde.beta_min / n, sde.beta_max / n, n)
    if betas[-1] >= 1:
        raise UsageError(
            f"The DDPM chain has beta_max / num_scales = {sde.beta_max:g} / {n}, and a step needs less than 1; "
            f"raise num_scales above {sde.beta_max:g}, or set sampling.predictor=euler_maruyama and "
            "sampling.corrector=none."
        )
    alphas_cumprod = np.cumprod(1 - betas)
    return betas, np.sqrt(alphas_cumprod), np.sqrt(1 - alphas_cumprod)


@functools.lru_cache
def _smld_chain(sde: Exploding) -> np.ndarray:
    return sde.chain_stds()


def _lookup(table: np.ndarray, k: Int[Array, "*b"], t: Scalars) -> Scalars:
    """Entries k of a table, in the type of t."""
    return jnp.asarray(table, jnp.result_type(t))[jnp.clip(k, 0, len(table) - 1)]


SDES: dict[str, type[Chain]] = {"vpsde": VP, "subvpsde": SubVP, "vesde": VE}


@check_arguments
def chain_of(process: Process, need: str) -> Chain:
    """The process itself, if it has a discrete chain.

    need: subject and verb of the error's sentence, "A Langevin corrector needs". Raises `UsageError` without a chain.
    """
    if isinstance(process, Chain):
        return process
    raise UsageError(
        f"{need} a discrete chain, and {type(process).__name__} has none; set sampling.predictor=exponential and "
        "sampling.corrector=none, or choose another sampling.method."
    )


__getattr__ = moved_names(__name__, {"SDE": "score_sde.process.Process", "LEAST_TIME": "score_sde.process.LEAST_TIME"})
