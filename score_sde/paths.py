r"""Paths from data to noise that came after the paper's SDEs, and the table of all processes.

The paths of this module are pure noise at t = 1, where alpha = 0, so that a standard normal is the exact prior of
samplers and likelihoods; at t = 0 they are pure data, sigma = 0. None has a discrete chain.

    import jax.numpy as jnp
    from score_sde.paths import PROCESSES

    process = PROCESSES["cosine"](s=0.008)
    k = process.noise_level(jnp.array([0.5]))  # about 1: as much noise as signal in the middle
"""

import dataclasses
import math
from typing import Annotated

from score_sde.config.arguments import check_arguments
from score_sde.learned import Learned
from score_sde.process import Eps, Process, Scalars, Steps, library_of, noisy
from score_sde.sde import EDM, SDES


@dataclasses.dataclass(frozen=True)
class Path(Process):
    """Base of these paths: the number of steps of predictor-corrector samplers, and the time at which samplers stop."""

    num_scales: Steps = 1000
    sampling_eps: Eps = 1e-3


@check_arguments
@dataclasses.dataclass(frozen=True)
class Linear(Path):
    """Straight path, alpha = 1 - t, sigma = t: flow matching and rectified flow.

    Lipman et al. (2023); Liu et al. (2023).
    """

    def alpha(self, t: Scalars) -> Scalars:
        return 1 - t

    def sigma(self, t: Scalars) -> Scalars:
        return t

    def rates(self, t: Scalars) -> tuple[Scalars, Scalars]:
        one = library_of(t).ones_like(t)
        return -one, one

    def time(self, noise_level: Scalars) -> Scalars:
        return 1 / (1 + 1 / noise_level)


@check_arguments
@dataclasses.dataclass(frozen=True)
class Trigonometric(Path):
    """Circular path, alpha = cos(pi t / 2), sigma = sin(pi t / 2) (Albergo and Vanden-Eijnden, 2023; SiT's "GVP")."""

    def alpha(self, t: Scalars) -> Scalars:
        return library_of(t).sin(math.pi / 2 * (1 - t))  # cos(pi t / 2), which in floating point is not 0 at t = 1

    def sigma(self, t: Scalars) -> Scalars:
        return library_of(t).sin(math.pi / 2 * t)

    def rates(self, t: Scalars) -> tuple[Scalars, Scalars]:
        return -math.pi / 2 * self.sigma(t), math.pi / 2 * self.alpha(t)

    def time(self, noise_level: Scalars) -> Scalars:
        return 2 / math.pi * library_of(noise_level).arctan(noise_level)


@check_arguments
@dataclasses.dataclass(frozen=True)
class Cosine(Path):
    """Cosine schedule: alpha = cos(phi(t)) / cos(phi(0)), alpha^2 + sigma^2 = 1 (Nichol and Dhariwal, 2021, eq. 17).

    phi(t) = pi/2 (t + s) / (1 + s).
    s: offset that keeps the first noise levels from being too small; 0.008 as published.
    """

    s: Annotated[float, "[0, 10]"] = 0.008

    def alpha(self, t: Scalars) -> Scalars:
        return library_of(t).sin(self._slope * (1 - t)) / math.cos(self._slope * self.s)

    def sigma(self, t: Scalars) -> Scalars:
        # cos^2 phi(0) - cos^2 phi(t) as a product of sines, which does not cancel at small t
        xp, slope = library_of(t), self._slope
        return xp.sqrt(xp.sin(slope * t) * xp.sin(slope * (t + 2 * self.s))) / math.cos(slope * self.s)

    def rates(self, t: Scalars) -> tuple[Scalars, Scalars]:
        d_alpha = -self._slope * library_of(t).cos(self._slope * (1 - t)) / math.cos(self._slope * self.s)
        return d_alpha, -self.alpha(t) * d_alpha / noisy(self, t)

    def time(self, noise_level: Scalars) -> Scalars:
        # tan(phi(t) - phi(0)) for low levels, where the other form cancels in float32
        xp, phi0, low = library_of(noise_level), self._slope * self.s, noise_level < 1
        k = xp.where(low, noise_level, 1.0)
        root = xp.hypot(k, math.sin(phi0))
        sine, cosine = math.cos(phi0) * k**2 / (root + math.sin(phi0)), math.cos(phi0) ** 2 + math.sin(phi0) * root
        high = 1 - xp.arcsin(math.cos(phi0) / xp.hypot(1.0, noise_level)) / self._slope
        return xp.where(low, xp.arctan2(sine, cosine) / self._slope, high)

    @property
    def _slope(self) -> float:
        """phi', the angle by which the path turns in a unit of time."""
        return math.pi / 2 / (1 + self.s)


PROCESSES: dict[str, type[Process]] = {
    "vp": SDES["vpsde"],
    "subvp": SDES["subvpsde"],
    "ve": SDES["vesde"],
    "edm": EDM,
    "cosine": Cosine,
    "linear": Linear,
    "trigonometric": Trigonometric,
    "learned": Learned,
}
