"""Time grids of the fast solvers: where a number of steps is best spent.

A grid is n + 1 times from 1 down to eps, in float64. With the noise level k(t) = std(t) / mean_scale(t) they are
equidistant

    uniform     in t, the paper's grid
    quadratic   in sqrt(t), as in DDIM and DEIS
    log_snr     in log k, as in DPM-Solver
    karras      in k^(1/rho), as in Karras et al. (2022), eq. 5
"""

from collections.abc import Callable

import numpy as np

from score_sde.errors import UsageError, one_of
from score_sde.process import Process


def time_grid(sde: Process, name: str, num_steps: int, *, eps: float, rho: float = 7.0) -> np.ndarray:
    """t_0 = 1 > ... > t_n = eps, float64, for n = `num_steps` >= 1. rho: of "karras" only, > 0.

    Raises `UsageError` for an unknown name, no steps, or rho <= 0.
    """
    spacing = GRIDS[one_of("sampling.grid", name, GRIDS)]
    if num_steps < 1:
        raise UsageError(f"sampling.num_steps={num_steps} must be at least 1.")
    if not 0 < rho < np.inf:
        raise UsageError(f"sampling.rho={rho} must be positive and finite; Karras et al. take 7.")
    t = spacing(sde, np.linspace(0.0, 1.0, num_steps + 1), eps, rho)
    t[0], t[-1] = 1.0, eps  # to the last bit
    return t


def _uniform(sde: Process, fraction: np.ndarray, eps: float, rho: float) -> np.ndarray:
    return 1.0 + fraction * (eps - 1.0)


def _quadratic(sde: Process, fraction: np.ndarray, eps: float, rho: float) -> np.ndarray:
    return np.square(1.0 + fraction * (np.sqrt(eps) - 1.0))


def _log_snr(sde: Process, fraction: np.ndarray, eps: float, rho: float) -> np.ndarray:
    high, low = np.log(sde.noise_level(np.array([1.0, eps])))
    return sde.time(np.exp(high + fraction * (low - high)))


def _karras(sde: Process, fraction: np.ndarray, eps: float, rho: float) -> np.ndarray:
    high, low = sde.noise_level(np.array([1.0, eps])) ** (1 / rho)
    return sde.time((high + fraction * (low - high)) ** rho)


GRIDS: dict[str, Callable[[Process, np.ndarray, float, float], np.ndarray]] = {
    "uniform": _uniform,
    "quadratic": _quadratic,
    "log_snr": _log_snr,
    "karras": _karras,
}
