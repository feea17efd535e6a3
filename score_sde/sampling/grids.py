"""Time grids of the fast solvers: where a given number of steps is best spent.

A grid is n + 1 times from the start, which is 1 for noise, down to eps, in float64. With the noise level
k(t) = std(t) / mean_scale(t) they are equidistant

    uniform     in t, the paper's grid
    quadratic   in sqrt(t), as in DDIM and DEIS
    log_snr     in log k, as in DPM-Solver
    karras      in k^(1/rho), as in Karras et al. (2022), eq. 5

Where alpha(1) = 0, so that k(1) is infinite, a grid in k takes one step to the largest t of log-SNR >= -10, and is
equidistant from there.
"""

from collections.abc import Callable
from typing import Annotated

import numpy as np

from score_sde.array_types import Float
from score_sde.config.arguments import check_arguments
from score_sde.errors import one_of
from score_sde.process import Eps, Process, check_scalar, in_float64
from score_sde.sampling.solver import StartTime

FAINT = np.exp(5.0)  # the noise level of a log-SNR of -10


NumSteps = Annotated[int, "[1, 16777216]"]  # float32 numbers no more
Rho = Annotated[float, "[0.1, 100]"]
Fractions = Annotated[Float[np.ndarray, " n"], "[0, 1]"]


@check_arguments
def time_grid(
    process: Process, name: str, num_steps: NumSteps, *, eps: Eps, rho: Rho = 7.0, start_time: StartTime = 1.0
) -> np.ndarray:
    """Times t_0 = start_time > ... > t_n = eps in float64, for n = `num_steps` >= 1 steps.

    name: spacing of the times, a name in `GRIDS`. rho: exponent of "karras" only, in [0.1, 100]; 7 in Karras et al.
    start_time: in (eps, 1].
    Raises `UsageError` for an unknown name, numbers out of range, or a schedule that differs from pixel to pixel.

        from score_sde.sampling.grids import time_grid
        from score_sde.sde import VP

        t = time_grid(VP(), "log_snr", 10, eps=1e-3)
    """
    spacing = GRIDS[one_of("sampling.grid", name, GRIDS)]
    check_scalar(process, "A time grid", "set sampling.method to ode, or to pc with sampling.predictor=exponential")
    if start_time == 1 and process.begins_in_noise and spacing in (_log_snr, _karras):
        if num_steps == 1:
            return np.array([1.0, eps])
        high = process.time(np.array([FAINT])).item()
        t = np.append(1.0, spacing(process, np.linspace(0.0, 1.0, num_steps), high, eps, rho))
    else:
        t = spacing(process, np.linspace(0.0, 1.0, num_steps + 1), start_time, eps, rho)
    t[0], t[-1] = start_time, eps  # to the last bit
    return t


Spacing = Callable[[Process, np.ndarray, float, float, float], np.ndarray]  # fractions 0..1 -> times from first to eps


@check_arguments
def _uniform(process: Process, fraction: Fractions, first: StartTime, eps: Eps, rho: Rho) -> np.ndarray:
    return first + fraction * (eps - first)


@check_arguments
def _quadratic(process: Process, fraction: Fractions, first: StartTime, eps: Eps, rho: Rho) -> np.ndarray:
    return np.square(np.sqrt(first) + fraction * (np.sqrt(eps) - np.sqrt(first)))


@check_arguments
def _log_snr(process: Process, fraction: Fractions, first: StartTime, eps: Eps, rho: Rho) -> np.ndarray:
    high, low = np.log(in_float64(process.noise_level, np.array([first, eps])))
    return in_float64(process.time, np.exp(high + fraction * (low - high)))


@check_arguments
def _karras(process: Process, fraction: Fractions, first: StartTime, eps: Eps, rho: Rho) -> np.ndarray:
    high, low = in_float64(process.noise_level, np.array([first, eps])) ** (1 / rho)
    return in_float64(process.time, (high + fraction * (low - high)) ** rho)


GRIDS: dict[str, Spacing] = {
    "uniform": _uniform,
    "quadratic": _quadratic,
    "log_snr": _log_snr,
    "karras": _karras,
}
