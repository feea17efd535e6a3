r"""A learned schedule: the noise level between fixed ends, such that the loss varies the least.

With k = sigma / alpha, a time u uniform in [0, 1] and the weight g^2 / sigma^2, the mean of an image's loss is an
integral over log k,

    E_u[w(u) R(u)]  =  2 \int R d log k,                                                                    (1)

which does not depend on how fast log k goes from end to end: the schedule changes the variance of the loss alone
(Kingma, Salimans, Poole and Ho, 2021, "Variational diffusion models", VDM, section 5). Its parameters therefore have
the gradient of the squared loss, as there, and those of the network have that of the loss.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from score_sde.array_types import Array, Key, PerSample, PyTree
from score_sde.config.arguments import check_arguments
from score_sde.errors import UsageError
from score_sde.process import Eps, Process, Scalars, Steps, library_of

NoiseLevel = Annotated[float, "(0, 1e18)"]  # whose square float32 holds


@check_arguments
@dataclasses.dataclass(frozen=True)
class Learned(Process):
    """Learned process: alpha^2 + sigma^2 = 1, with log noise level learned between log noise_min and log noise_max.

    The derivative of log(sigma / alpha) by t is positive and, in each of `pieces` equal parts of [0, 1], linear in t.
    The parameters `log_rates`, (pieces + 1,), are its logarithms at the ends of the parts, up to a constant. The
    derivative is constant before training, and in a process without parameters.

    noise_min, noise_max: sigma / alpha at t = 0 and 1. The defaults are log-SNRs of 13.3, as in VDM, and of
    -10, as in VP.
    Raises `UsageError` unless 0 < noise_min < noise_max and pieces >= 1, for parameters of another form, and for NumPy
    times while the parameters are traced.

        import jax
        import jax.numpy as jnp
        from score_sde.learned import Learned

        process = Learned(noise_min=0.01, noise_max=100.0, pieces=4)
        process = process.with_params(process.init_params(jax.random.key(0)))
        k = process.noise_level(jnp.array([0.5]))  # 1.0: log k is linear in t before training
    """

    noise_min: NoiseLevel = 0.0013
    noise_max: NoiseLevel = 150.0
    pieces: Annotated[int, "[1, 65536]"] = 32
    num_scales: Steps = 1000
    sampling_eps: Eps = 1e-3
    params: PyTree = dataclasses.field(default=None, compare=False, repr=False)

    learned = True
    begins_in_noise = False

    def __post_init__(self):
        self._check_order("noise_min", "noise_max")
        rates = self.params["log_rates"] if isinstance(self.params, Mapping) and "log_rates" in self.params else None
        if self.params is not None and np.shape(rates) != (self.pieces + 1,):
            raise UsageError(f'Parameters of a learned schedule are {{"log_rates": an array ({self.pieces + 1},)}}.')

    def noise_level(self, t: Scalars) -> Scalars:
        return library_of(t).exp(math.log(self.noise_min) + self._span * self._way(t)[0])

    def alpha(self, t: Scalars) -> Scalars:
        return 1 / library_of(t).hypot(1.0, self.noise_level(t))

    def sigma(self, t: Scalars) -> Scalars:
        k = self.noise_level(t)
        return k / library_of(t).hypot(1.0, k)

    def rates(self, t: Scalars) -> tuple[Scalars, Scalars]:
        alpha, sigma, rate = self.alpha(t), self.sigma(t), self._span * self._way(t)[1]
        return -alpha * sigma**2 * rate, sigma * alpha**2 * rate

    def time(self, noise_level: Scalars) -> Scalars:
        xp = library_of(noise_level)
        way = xp.clip((xp.log(noise_level) - math.log(self.noise_min)) / self._span, 0.0, 1.0)
        rate, before = self._pieces(noise_level)
        i = xp.clip(xp.searchsorted(before, way, side="right") - 1, 0, self.pieces - 1)
        left = self.pieces * (way - before[i])  # r0 u + (r1 - r0) u^2 / 2, to be solved for u
        u = 2 * left / (rate[i] + xp.sqrt(rate[i] ** 2 + 2 * (rate[i + 1] - rate[i]) * left))
        return xp.clip((i + u) / self.pieces, 0.0, 1.0)

    @property
    def prior_std(self) -> float:
        return self.noise_max / math.hypot(1.0, self.noise_max)

    def init_params(self, key: Key[Array, ""]) -> PyTree:
        return {"log_rates": jnp.zeros(self.pieces + 1, jnp.float32)}

    def with_params(self, params: PyTree) -> "Learned":
        return dataclasses.replace(self, params=params)

    @property
    def _span(self) -> float:
        return math.log(self.noise_max / self.noise_min)

    def _way(self, t: Scalars) -> tuple[Scalars, Scalars]:
        """The fraction of the way from log noise_min to log noise_max covered at t, and its derivative."""
        xp, (rate, before) = library_of(t), self._pieces(t)
        i = xp.clip(xp.floor(t * self.pieces), 0, self.pieces - 1).astype(np.int32)
        u, turn = t * self.pieces - i, rate[i + 1] - rate[i]
        return before[i] + (rate[i] * u + turn * u**2 / 2) / self.pieces, rate[i] + turn * u

    def _pieces(self, like: Scalars) -> tuple[Any, Any]:
        """Derivative of the way at the ends of the pieces, and the way covered there; in the precision of `like`."""
        xp = library_of(like)
        logs = np.zeros(self.pieces + 1) if self.params is None else self.params["log_rates"]
        if xp is np and isinstance(logs, jax.core.Tracer):
            raise UsageError(
                "Fast solvers, time grids and bounds are made with the numbers of a learned schedule, and here its "
                "parameters are traced: make the solver of `experiment.frozen(params)`, or sample by ode or pc."
            )
        rate = xp.exp(xp.asarray(logs, like.dtype))
        parts = (rate[1:] + rate[:-1]) / 2
        total = xp.sum(parts)
        covered = xp.cumsum(parts / total)
        return rate * (self.pieces / total), xp.concatenate([xp.zeros_like(covered[:1]), covered])


@check_arguments
def with_gradient_of_squares(loss: Callable[[PyTree], PerSample], params: dict[str, PyTree]) -> PerSample:
    """The loss of each image at `params`, whose gradient by params["process"] is the gradient of the squared loss.

    The gradient by all other parameters is the loss's own. The loss is computed twice; a compiler computes the common
    part once.
    """
    still = jax.lax.stop_gradient(params)
    squares = jnp.square(loss(still | {"process": params["process"]}))
    return loss(params | {"process": still["process"]}) + (squares - jax.lax.stop_gradient(squares))
