"""Orders of the fast solvers on paths with alpha(1) = 0, where log-SNR has no lower end, in NumPy and float64.

A fast solver is a table of numbers, which is run here with the exact predictions of `problems`' Gaussian and mixture.
Each order is measured twice: between noise levels of a log-SNR of -10 and of 1e-3, on a grid even in log-SNR; and from
t = 1, whose first step is x <- alpha x0 + sigma eps, to t = 0.05 on a grid even in t.
"""

import functools
import sys
from collections.abc import Callable

import numpy as np
from scipy.integrate import solve_ivp
from score_sde.experiments.truth_table.problems import DATA, D, components
from score_sde.experiments.truth_table.rows import ORDERS

from score_sde.oracles import Oracle
from score_sde.paths import Cosine, Linear, Trigonometric
from score_sde.process import Process
from score_sde.sampling import FAST_SOLVERS
from score_sde.sampling.fast import Options
from score_sde.sampling.grids import FAINT, time_grid
from score_sde.sampling.rows import Grid, first_step
from score_sde.sampling.tabulated import Table

PATHS: dict[str, Process] = {"linear": Linear(), "cosine": Cosine(), "trigonometric": Trigonometric()}
STARTS = np.random.default_rng(0).standard_normal((6, D))  # x at the first time
SIZES = (160, 320)
# From t = 1 the errors of some methods over many steps fall as log n / n^2, whose slope nears 2 slowly.
LARGE_SIZES = {"dpmpp_2m": (640, 2560), "ipndm": (320, 1280)}
LEVELS = (float(FAINT), 1e-3)
LAST = 0.05


def predicted(data: Oracle, alpha: float, sigma: float, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Exact x0 and eps at x, each of shape (b, D)."""
    weights, means, covariances = _moments(data)
    spread = alpha**2 * covariances + sigma**2 * np.eye(D)
    away = x[:, None] - alpha * means
    pulled = np.einsum("kij,bkj->bki", np.linalg.inv(spread), away)
    logits = np.log(weights) - 0.5 * np.sum(away * pulled, -1) - 0.5 * np.linalg.slogdet(spread)[1]
    share = np.exp(logits - logits.max(1, keepdims=True))
    share /= share.sum(1, keepdims=True)
    x0 = np.einsum("bk,bki->bi", share, means + alpha * np.einsum("kij,bkj->bki", covariances, pulled))
    return x0, np.einsum("bk,bki->bi", share, sigma * pulled)


@functools.cache
def _moments(data: Oracle) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(k,) weights, (k, D) means and (k, D, D) covariances."""
    weights, means, covariances = zip(*components(data), strict=True)
    return np.array(weights), np.array(means), np.array(covariances)


def run(process: Process, data: Oracle, table: Table, x: np.ndarray) -> np.ndarray:
    """The image that a deterministic table takes x to."""
    base = trial = x
    history: list[np.ndarray] = []
    columns = process.alpha(table.t), process.sigma(table.t), table.base, table.trial, table.other
    for alpha, sigma, of_base, of_trial, other in zip(*columns, strict=True):
        x0, eps = predicted(data, alpha, sigma, trial)
        f, second = (x0, eps) if table.predicts_data else (eps, x0)
        history = [f, *history]
        base, trial = (
            sum(w * f for w, f in zip(weights, [base, *history], strict=False)) + other * second
            for weights in (of_base, of_trial)
        )
    return base


@functools.cache
def flowed(process: Process, data: Oracle, first: float, last: float) -> np.ndarray:
    """Images that the exact flow takes STARTS to, by Runge-Kutta of order 8, in t."""

    def velocity(t: float, flat: np.ndarray) -> np.ndarray:
        t = np.float64(t)
        x0, eps = predicted(data, process.alpha(t), process.sigma(t), flat.reshape(-1, D))
        d_alpha, d_sigma = process.rates(t)
        return (d_alpha * x0 + d_sigma * eps).ravel()

    solution = solve_ivp(velocity, (first, last), STARTS.ravel(), method="DOP853", rtol=1e-12, atol=1e-13)
    return solution.y[:, -1].reshape(-1, D)


def order(
    process: Process,
    data: Oracle,
    tables: Callable[[int], Table],
    first: float,
    last: float,
    sizes: tuple[int, int] = SIZES,
) -> float:
    """The slope of the error against the number of steps."""
    exact = flowed(process, data, first, last)
    errors = [np.sqrt(np.mean(np.square(run(process, data, tables(n), STARTS) - exact))) for n in sizes]
    return float(np.log(errors[0] / errors[1]) / np.log(sizes[1] / sizes[0]))


def from_faint(process: Process, data: Oracle, name: str) -> float:
    """The order from the largest t at which log-SNR is -10."""
    first, last = process.time(np.array(LEVELS)).tolist()

    def table(n: int) -> Table:
        t = process.time(np.geomspace(*LEVELS, n + 1))
        t[0], t[-1] = first, last
        return FAST_SOLVERS[name](Grid(process, t), Options())

    return order(process, data, table, first, last)


def from_one(process: Process, data: Oracle, name: str) -> float:
    """The order from t = 1."""

    def table(n: int) -> Table:
        t = time_grid(process, "uniform", n, eps=LAST)
        return first_step(process, t, FAST_SOLVERS[name](Grid(process, t[1:]), Options()), 1.0)

    return order(process, data, table, 1.0, LAST, LARGE_SIZES.get(name, SIZES))


def expected(name: str) -> tuple[int, int]:
    """The orders from where data are faint, and the least from t = 1."""
    return ORDERS[name], min(ORDERS[name], 2)


def table() -> tuple[str, list[str]]:
    """Markdown, a row for each solver with its orders on the Gaussian, then on the mixture; and what misses."""
    lines = [
        f"| sampler | theory | from log-SNR -10: {', '.join(PATHS)} | from t = 1, at least | from t = 1 |",
        "|---|---|---|---|---|",
    ]
    missed = []
    for name in ORDERS:
        nominal, least = expected(name)
        cells = []
        for measured in (from_faint, from_one):
            orders_of_data = [[measured(process, data, name) for process in PATHS.values()] for data in DATA.values()]
            cells.append("; ".join(", ".join(f"{order:.2f}" for order in row) for row in orders_of_data))
            orders = np.array(orders_of_data)
            wrong = abs(orders - nominal) > 0.25 if measured is from_faint else orders < least - 0.25
            missed += [f"{name}, {measured.__name__}: {cells[-1]}"] if np.any(wrong) else []
        lines.append(f"| `{name}` | {nominal} | {cells[0]} | {least} | {cells[1]} |")
    return "\n".join(lines), missed


if __name__ == "__main__":
    rows, missed = table()
    print(rows)
    if missed:
        print(f"{len(missed)} missed:", *missed, sep="\n  ", file=sys.stderr)
    sys.exit(1 if missed else 0)
