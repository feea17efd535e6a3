r"""The problems: four SDEs, a Gaussian with a full covariance, a mixture, and their exact answers.

Orders are measured in float64 on SDEs whose ranges of noise are such that a few hundred steps are many. Distributions
are measured on `DEFAULTS`, the library's own.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from scipy.integrate import solve_ivp

from score_sde.array_types import Array, ModelImages, ScoreFn, Times
from score_sde.oracles import Gaussian, Mixture, Oracle
from score_sde.process import Model, Prediction, Process
from score_sde.sde import EDM, VE, VP, SubVP

SHAPE = (1, 1, 2)
D = 2

MEASURED: dict[str, Process] = {
    "VP": VP(),
    "sub-VP": SubVP(),
    "VE": VE(sigma_min=0.002, sigma_max=20.0),
    "EDM": EDM(sigma_min=0.002, sigma_max=5.0),
}
# Of the paper's predictors, whose steps are those of its code to a process's own last time only. Where steps are of a
# chain of noise levels, the last is std(eps), or score and step would be of different levels.
LAST = 1e-6
MEASURED_CHAIN: dict[str, Process] = {
    "VP": VP(sampling_eps=LAST),
    "sub-VP": SubVP(sampling_eps=LAST),
    "VE": VE(sigma_min=0.002, sigma_max=20.0, sampling_eps=LAST),
    "EDM": EDM(sigma_min=5.0 * LAST, sigma_max=5.0),
}
# Methods over many steps begin with low orders. Where all is noise, the first steps are exact whatever their order is:
# the orders of these methods are measured from there, and those of their first steps where data are seen at once.
HIGH_START: dict[str, Process] = {
    "VP": VP(beta_max=30.0),
    "sub-VP": SubVP(),
    "VE": VE(sigma_min=0.01, sigma_max=1000.0),
    "EDM": EDM(),
}
LOW_START: dict[str, Process] = {
    "VP": VP(beta_max=2.0),
    "sub-VP": SubVP(beta_max=2.0),
    "VE": VE(sigma_min=0.01, sigma_max=2.0),
    "EDM": EDM(sigma_min=0.01, sigma_max=2.0),
}
# Some end with low orders too, and where no noise is left the last steps are exact: so likewise with noise that goes
# on falling, and with noise that is left.
LITTLE = {"VP": dict(sampling_eps=1e-5), "sub-VP": {}, "VE": dict(sigma_min=1e-4), "EDM": dict(sigma_min=1e-4)}
LOW_END = {name: dataclasses.replace(sde, **LITTLE[name]) for name, sde in HIGH_START.items()}
LOW_START_AND_END = {name: dataclasses.replace(sde, **LITTLE[name]) for name, sde in LOW_START.items()}
HIGH_END: dict[str, Process] = {
    "VP": VP(beta_max=30.0, sampling_eps=0.1),
    "sub-VP": SubVP(sampling_eps=0.1),
    "VE": VE(sigma_min=0.2, sigma_max=1000.0),
    "EDM": EDM(sigma_min=0.2),
}
DEFAULTS: dict[str, Process] = {"VP": VP(), "sub-VP": SubVP(), "VE": VE(), "EDM": EDM()}


def _gaussian(mean: tuple[float, float], covariance: list[list[float]]) -> Gaussian:
    return Gaussian(np.reshape(mean, SHAPE), np.array(covariance))


GAUSSIAN = _gaussian((0.5, -0.3), [[0.5, 0.24], [0.24, 0.3]])
MIXTURE = Mixture(
    [0.5, 0.3, 0.2],
    [
        _gaussian((0.8, 0.4), [[0.2, 0.08], [0.08, 0.16]]),
        _gaussian((-0.9, 0.5), [[0.15, -0.05], [-0.05, 0.2]]),
        _gaussian((0.1, -0.9), [[0.25, 0.0], [0.0, 0.12]]),
    ],
)
DATA: dict[str, Oracle] = {"Gaussian": GAUSSIAN, "mixture": MIXTURE}


def both_models(sde: Process) -> Model:
    """The Gaussian's model in the first half of a batch, the mixture's in the second: one program measures both."""
    models = [data.model(sde) for data in DATA.values()]

    def model(x: ModelImages, t: Times) -> Prediction:
        half = len(x) // 2
        of_halves = models[0](x[:half], t[:half]), models[1](x[half:], t[half:])
        return jax.tree.map(lambda *halves: jnp.concatenate(halves), *of_halves)

    return model


def components(data: Oracle) -> list[tuple[float, np.ndarray, np.ndarray]]:
    """(weight, mean (D,), covariance (D, D)) of the data's Gaussians, in float64."""
    parts = zip(data.weights, data.components, strict=True) if isinstance(data, Mixture) else [(1.0, data)]
    return [(float(w), g.mean.ravel(), (g.axes * g.variances) @ g.axes.T) for w, g in parts]


def kernel(sde: Process, t: float) -> tuple[float, float]:
    """Mean scale and std of x_t given x_0."""
    return float(sde.alpha(np.array([t]))[0]), float(sde.sigma(np.array([t]))[0])


def moments(sde: Process, data: Gaussian, t: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean (D,) and covariance (D, D) of p_t, in float64."""
    [(_, mean, covariance)] = components(data)
    scale, std = kernel(sde, t)
    return scale * mean, scale**2 * covariance + std**2 * np.eye(D)


def characteristic_function(sde: Process, data: Oracle, t: float, frequencies: np.ndarray) -> np.ndarray:
    """E exp(i w.x) under p_t at frequencies (k, D): the mean over components of exp(i w.m - w'Cw / 2)."""
    scale, std = kernel(sde, t)
    total = 0.0
    for weight, mean, covariance in components(data):
        c = scale**2 * covariance + std**2 * np.eye(len(mean))
        total = total + weight * np.exp(
            1j * scale * frequencies @ mean - 0.5 * np.einsum("ki,ij,kj->k", frequencies, c, frequencies)
        )
    return total


def mean(data: Oracle) -> np.ndarray:
    """The mean of x_0, (D,)."""
    return sum(w * m for w, m, _ in components(data))


def covariance(data: Oracle) -> np.ndarray:
    """The covariance of x_0, (D, D)."""
    centre = mean(data)
    return sum(w * (c + np.outer(m - centre, m - centre)) for w, m, c in components(data))


def fixed_starts(sde: Process, n: int) -> Array:
    """n points x_T, the same always."""
    return jnp.asarray(sde.prior_std * np.random.default_rng(0).standard_normal((n, *SHAPE)))


def exact_flow(sde: Process, data: Oracle, x: ModelImages, eps: float) -> np.ndarray:
    """The probability-flow ODE from x at t = 1 to eps: closed form of a Gaussian; otherwise by `dop853`."""
    if isinstance(data, Gaussian):
        return np.asarray(jax.jit(data.flow, static_argnums=0)(sde, x, np.ones(len(x)), np.full(len(x), eps)))
    return dop853(sde, data.score_fn(sde), x, eps)


def dop853(sde: Process, score_fn: ScoreFn, x: ModelImages, eps: float) -> np.ndarray:
    """The solution by scipy's Runge-Kutta of order 8 at tolerance 1e-12, in y = x / mean_scale against log noise level.

    Neither the method nor the variables are those of any sampler: dy/dlog k = -k std score(m y).
    """
    score = jax.jit(score_fn)
    high, low = np.log(sde.noise_level(np.array([1.0, eps])))

    def velocity(log_k: float, y: np.ndarray) -> np.ndarray:
        t = float(sde.time(np.exp([log_k]))[0])
        scale, std = kernel(sde, t)
        s = score(jnp.asarray(scale * y.reshape(x.shape)), jnp.full(len(x), t))
        return (-np.exp(log_k) * std * np.asarray(s)).ravel()

    start = np.asarray(x).ravel() / kernel(sde, 1.0)[0]
    y = solve_ivp(velocity, (high, low), start, method="DOP853", rtol=1e-12, atol=1e-13).y[:, -1]
    return kernel(sde, eps)[0] * y.reshape(x.shape)


def wasserstein(mean0: np.ndarray, cov0: np.ndarray, mean1: np.ndarray, cov1: np.ndarray) -> float:
    """2-Wasserstein distance between Gaussians: |m0 - m1|^2 + tr(C0 + C1 - 2 (C1^1/2 C0 C1^1/2)^1/2), its root."""
    root = _root(cov1)
    square = np.sum((mean0 - mean1) ** 2) + np.trace(cov0 + cov1 - 2 * _root(root @ cov0 @ root))
    return float(np.sqrt(max(square, 0.0)))


def _root(matrix: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T


def slope(h: list[float], error: list[float]) -> float:
    """Least-squares slope of log error against log h."""
    return float(np.polyfit(np.log(h), np.log(error), 1)[0])
