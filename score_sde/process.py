r"""Gaussian processes from data to noise, and the predictions that networks make along them.

A process is two functions of time, alpha and sigma, on t in [0, 1], where 0 is data and 1 is noise:

    x_t  =  alpha(t) x_0 + sigma(t) eps,     eps ~ N(0, I).                                        (1)

Its SDE and its probability-flow ODE follow from them,

    dx = f x dt + g dw,      f = alpha' / alpha,      g^2 = 2 sigma (sigma' - f sigma),            (2)
    dx/dt = alpha' E[x_0 | x_t] + sigma' E[eps | x_t].                                             (3)

The velocity (3) is finite where alpha(1) = 0, and f and g are not. sigma / alpha is the noise level, which stands for
time in fast solvers: x_t / alpha is data plus noise of this level.

The functions take JAX arrays, traced or not, and NumPy arrays, in which solvers tabulate coefficients in float64. They
return one number for each time; a process whose schedule differs from pixel to pixel returns an array (*times, h, w, c)
and sets `scalar = False`. `score_sde.randomness.expand` shapes either to images.

A network is used through its `Prediction` of x_0 and eps. Where alpha is 0, a score, -E[eps | x_t] / sigma, does not
determine x_0; samplers and likelihoods therefore take predictions, and `from_score` turns a score into them.

The paper's SDEs are in `score_sde.sde`, later paths in `score_sde.paths`.
"""

import abc
import copy
import dataclasses
import math
from collections.abc import Callable
from types import ModuleType
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from score_sde.array_types import Array, Float, Key, Keys, ModelImages, PerSample, PyTree, ScoreFn, Times
from score_sde.config.arguments import check_arguments, check_methods
from score_sde.config.keys import plain
from score_sde.config.kinds import is_abstract
from score_sde.errors import UsageError
from score_sde.randomness import expand, normal

Scalars = Float[Array, "..."] | Float[np.ndarray, "..."] | np.floating  # one number a time, or (*times, h, w, c)

# Times of one call, which are of one shape, or of shapes that fit together.
Instants = Annotated[Float[Array, "*#b"] | Float[np.ndarray, "*#b"] | np.floating, "[0, 1]"]
Steps = Annotated[int, "[2, 16777216]"]  # float32 numbers no more steps
Eps = Annotated[float, "(0, 1)"]  # a time near the data

LEAST_TIME = 1e-5  # stands for 0 in training and likelihoods, where scores would be infinite (paper, appendix C)
LOST = 22026.0  # noise level of a log-SNR of -20, above which nothing of the data is left in float32


class Process(abc.ABC):
    """Base class of all processes x_t = alpha(t) x_0 + sigma(t) eps on t in [0, 1], eq. (1); t = 1 is noise.

    A subclass defines `alpha` and `sigma`, and sigma / alpha, the noise level, must increase with t. Everything else is
    computed unless the subclass defines it: derivatives by JAX, the inverse of the noise level by bisection. A process
    with a learned schedule also defines `init_params` and `with_params`.

        import jax.numpy as jnp
        from score_sde.paths import Linear

        process, t = Linear(), jnp.array([0.25])
        alpha, sigma = process.alpha(t), process.sigma(t)  # 0.75 and 0.25: x_t = 0.75 x_0 + 0.25 eps
    """

    num_scales: int = 1000  # N: steps of the predictor-corrector sampler, and of the chain where there is one
    sampling_eps: float = 1e-3  # samplers stop at this t
    scalar: bool = True  # whether all pixels have one schedule
    learned: bool = False  # whether it owns parameters

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        check_methods(cls, Process)

    @abc.abstractmethod
    def alpha(self, t: Instants) -> Scalars:
        """Factor on x_0 in x_t (eq. 29 of the paper)."""

    @abc.abstractmethod
    def sigma(self, t: Instants) -> Scalars:
        """Standard deviation of x_t given x_0 (eq. 29)."""

    def rates(self, t: Instants) -> tuple[Scalars, Scalars]:
        """Derivatives (alpha', sigma') by t."""
        return _derivative(self.alpha, t), _derivative(self.sigma, t)

    def f(self, t: Instants) -> Scalars:
        """Drift rate f(t) of eq. (2), which is infinite where alpha is 0."""
        return self.rates(t)[0] / self.alpha(t)

    def g(self, t: Instants) -> Scalars:
        """Diffusion g(t) of eq. (2), which is infinite where alpha is 0."""
        sigma, (d_alpha, d_sigma) = self.sigma(t), self.rates(t)
        return library_of(t).sqrt(2 * sigma * (d_sigma - d_alpha / self.alpha(t) * sigma))

    def noise_level(self, t: Instants) -> Scalars:
        """Noise level sigma(t) / alpha(t), increasing in t: noise relative to signal. Its logarithm is -1/2 log-SNR."""
        with np.errstate(divide="ignore"):  # infinite where alpha is 0
            return self.sigma(t) / self.alpha(t)

    def time(self, noise_level: Annotated[Scalars, "(0, inf)"]) -> Scalars:
        """The time t of a noise level: the inverse of `noise_level`, here by bisection, to the last bits of t."""
        check_scalar(self, "A time of a noise level", "set times.name=uniform, or give times in place of noise levels")
        xp = library_of(noise_level)
        low, high = xp.zeros_like(noise_level), xp.ones_like(noise_level)
        for _ in range(60 if noise_level.dtype == np.float64 else 30):
            middle = (low + high) / 2
            below = self.noise_level(middle) < noise_level
            low, high = xp.where(below, middle, low), xp.where(below, high, middle)
        return (low + high) / 2

    @property
    def begins_in_noise(self) -> bool:
        """Whether x_1 holds nothing of x_0: alpha(1) = 0."""
        return bool(np.any(np.asarray(in_float64(self.alpha, np.ones(1))) == 0))

    @property
    def noisiest_time(self) -> float:
        """The latest time with a finite noise level: 1, or if alpha(1) = 0 the time when the data are lost in noise.

        Where each pixel has its own schedule, it is the first time at which the data are lost in any pixel.
        """
        if not self.begins_in_noise:
            return 1.0
        if self.scalar:
            return self.time(np.array([LOST])).item()
        low, high = 0.0, 1.0
        for _ in range(60):
            middle = (low + high) / 2
            lost = np.any(in_float64(self.noise_level, np.array([middle])) >= LOST)
            low, high = (low, middle) if lost else (middle, high)
        return low

    @property
    def prior_std(self) -> float:
        """Standard deviation of the prior p_1, a zero-mean isotropic Gaussian."""
        return float(np.max(in_float64(self.sigma, np.ones(1))))

    def prior_sample(self, keys: Keys, shape: tuple[int, ...]) -> Float[Array, "b ..."]:
        """Samples x_T of the prior, of shape (b, *shape), one for each key."""
        return self.prior_std * normal(keys, shape)

    def prior_logp(self, x: ModelImages) -> PerSample:
        """Log-density of the prior, log p_1(x), in nats."""
        d = math.prod(x.shape[1:])
        energy = jnp.sum(jnp.square(x / self.prior_std), axis=tuple(range(1, x.ndim)))
        return -0.5 * energy - d * (0.5 * math.log(2 * math.pi) + math.log(self.prior_std))

    def steps_a_unit(self, t: Instants, t_next: Instants | None = None) -> Scalars | int:
        """Number of steps in a unit of time: N, or the number of steps as long as the one from t to t_next."""
        check_backwards(t, t_next)
        return self.num_scales if t_next is None else 1 / (t - t_next)

    def with_num_scales(self, num_scales: Steps) -> "Process":
        """A copy of the process with another number of steps N."""
        other = copy.copy(self)
        object.__setattr__(other, "num_scales", num_scales)  # it is frozen
        return other

    def init_params(self, key: Key[Array, ""]) -> PyTree:
        """Initial parameters of a learned schedule; {} for a process without any."""
        return {}

    def with_params(self, params: PyTree) -> "Process":
        """A copy of the process with these parameters, traced or not; fast solvers need NumPy arrays."""
        return self

    def __getattr__(self, name: str) -> Any:
        if name in RENAMED:
            raise AttributeError(f"{type(self).__name__}.{name} is now {type(self).__name__}.{RENAMED[name]}.")
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}.")

    def __post_init__(self) -> None:
        self._store_plain()

    def _store_plain(self) -> None:
        """Stores fields that are NumPy or JAX scalars as Python numbers, so that NumPy arithmetic stays in float64."""
        for field in dataclasses.fields(self) if dataclasses.is_dataclass(self) else ():
            value = getattr(self, field.name)
            if isinstance(value, np.generic | np.ndarray | jax.Array) and not isinstance(value, jax.core.Tracer):
                object.__setattr__(self, field.name, plain(value))  # it is frozen

    def _check_order(self, low: str, high: str) -> None:
        """Raises `UsageError` unless the field `low` is less than `high`."""
        if not getattr(self, low) < getattr(self, high):
            values = f"{low}={getattr(self, low)} and {high}={getattr(self, high)}"
            raise UsageError(f"{values}: a process needs {low} < {high}.")


check_methods(Process, Process)

RENAMED = {"mean_scale": "alpha", "std": "sigma", "drift_rate": "f", "diffusion": "g"}


class Prediction(NamedTuple):
    """Prediction of a network at x_t: E[x_0 | x_t] and E[eps | x_t], with alpha x0 + sigma eps = x_t."""

    x0: ModelImages
    eps: ModelImages


Model = Callable[[ModelImages, Times], Prediction]  # of x_t, shape (b, h, w, c), and a time in (0, 1] for each image


@check_arguments
def from_score(process: Process, score_fn: ScoreFn) -> Model:
    """Turns a score function (x, t) -> grad log p_t(x) into a model, by Tweedie's formula.

        eps = -sigma score,     x0 = (x - sigma eps) / alpha

    Returns the model (x, t) -> `Prediction` that samplers and likelihoods take.
    Raises `UsageError` for a process with alpha(1) = 0, where a score does not determine x_0.

        from score_sde.process import from_score
        from score_sde.sde import VP

        model = from_score(VP(), lambda x, t: -x)  # standard normal data
    """
    if process.begins_in_noise:
        raise UsageError(
            f"A score tells nothing about x0 at t = 1 of {type(process).__name__}, where alpha is 0; give predictions "
            "of x0 and eps, or choose a process with alpha(1) > 0, such as VP."
        )

    def model(x: ModelImages, t: Times) -> Prediction:
        sigma = expand(process.sigma(t), x)
        eps = -sigma * score_fn(x, t)
        return Prediction((x - sigma * eps) / expand(process.alpha(t), x), eps)

    return model


@check_arguments
def score(process: Process, prediction: Prediction, t: Times) -> ModelImages:
    """The score -E[eps | x_t] / sigma(t) of p_t that a prediction implies.

    Raises `UsageError` for times without noise, where it is infinite, as t = 0 of most processes.

        import jax.numpy as jnp
        from score_sde.process import Prediction, score
        from score_sde.sde import VE

        x = jnp.ones((1, 8, 8, 3))
        s = score(VE(), Prediction(x0=0 * x, eps=x), jnp.ones(1))  # -1 / 50, the noise of VE at t = 1
    """
    return -prediction.eps / expand(noisy(process, t), prediction.eps)


@check_arguments
def check_backwards(t: Instants, t_next: Instants | None) -> None:
    """Raises `UsageError` for steps that do not end at an earlier time, unless the times are traced."""
    if t_next is not None and not is_abstract(t) and not is_abstract(t_next) and np.any(np.asarray(t_next) > t):
        raise UsageError("A step of a sampler ends at an earlier time: t_next is at most t.")


@check_arguments
def noisy(process: Process, t: Instants) -> Scalars:
    """sigma(t), to divide by it. Raises `UsageError` where it is 0, unless the times are traced."""
    sigma = process.sigma(t)
    if not is_abstract(sigma) and not np.all(sigma):
        raise UsageError(
            f"There is no noise at t = 0 of {type(process).__name__}, by whose deviation this divides; give times in "
            "(0, 1]."
        )
    return sigma


@check_arguments
def velocity(process: Process, prediction: Prediction, t: Times) -> ModelImages:
    """The velocity dx/dt of the probability-flow ODE, eq. (3), that a prediction implies.

    It is finite on the whole path, also where alpha(1) = 0.

        import jax.numpy as jnp
        from score_sde.paths import Linear
        from score_sde.process import Prediction, velocity

        x = jnp.ones((1, 8, 8, 3))
        v = velocity(Linear(), Prediction(x0=x, eps=-x), jnp.array([0.5]))  # eps - x0, on a straight path
    """
    d_alpha, d_sigma = (expand(rate, prediction.eps) for rate in process.rates(t))
    return d_alpha * prediction.x0 + d_sigma * prediction.eps


@check_arguments
def before_noise(process: Process, t: Instants) -> Scalars:
    """Times t, capped at the process's noisiest time if alpha(1) = 0, so that all noise levels are finite."""
    return library_of(t).minimum(t, process.noisiest_time) if process.begins_in_noise else t


@check_arguments
def check_scalar(process: Process, subject: str, advice: str) -> None:
    """Raises `UsageError` for a process whose schedule differs from pixel to pixel.

    subject: the thing that needs one schedule. advice: the end of the sentence, which says what to do instead.
    """
    if not process.scalar:
        raise UsageError(
            f"{subject} needs one noise level for all pixels, and {type(process).__name__} has one for each; {advice}."
        )


def library_of(x: Scalars) -> ModuleType:
    """The library, NumPy or jax.numpy, that an array belongs to."""
    return np if isinstance(x, np.ndarray | np.generic) else jnp


@check_arguments
def in_float64(function: Callable[[Scalars], Scalars], t: np.ndarray) -> np.ndarray:
    """Values of a function at NumPy times, computed now and in float64, even while JAX traces a program."""
    with jax.ensure_compile_time_eval(), jax.enable_x64(True):
        return np.asarray(function(np.asarray(t, np.float64)), np.float64)


def _derivative(function: Callable[[Scalars], Scalars], t: Scalars) -> Scalars:
    """Derivative by t, from JAX; the value at each time depends on that time only."""

    def by_jax(t: Scalars) -> Array:
        t = jnp.asarray(t)
        return jax.jvp(function, (t,), (jnp.ones_like(t),))[1]

    return in_float64(by_jax, t) if library_of(t) is np else by_jax(t)
