"""The way of samples through a solver: their images at chosen times."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from score_sde.array_types import Keys, ModelImages, PyTree
from score_sde.process import Process
from score_sde.sampling import Solver
from score_sde.sampling.grids import time_grid
from score_sde.sampling.predictor_corrector import time_steps

TimesOf = Callable[[PyTree, int], float]  # (state, number of steps made) -> the state's time


class Seen(NamedTuple):
    """The states nearest to the chosen times of a way, and its end, in model range.

    x: (times, b, h, w, c). t: the times of these states. end, nfe: the solver's result.
    """

    x: np.ndarray
    t: np.ndarray
    end: np.ndarray
    nfe: np.ndarray


def way(
    make: Callable[[PyTree], Solver],
    params: PyTree,
    keys: Keys,
    x: ModelImages,
    times: TimesOf,
    at: Sequence[float] | np.ndarray,
) -> Seen:
    """Runs a solver step by step, and keeps the state nearest to each of the times `at`.

    make: parameters of the networks -> the solver, so that the program has parameters as an argument.
    """

    @jax.jit
    def go_on(params: PyTree, state: PyTree) -> tuple[PyTree, ModelImages, jax.Array]:
        solver = make(params)
        state = solver.step(state)
        return state, solver.view(state), solver.fraction(state)

    solver = make(params)
    state, view, fraction, steps = solver.init(keys, x), x, 0.0, 0
    nearest: dict[float, tuple[float, np.ndarray]] = {}
    while True:
        t = times(state, steps)
        for wanted in at:
            if wanted not in nearest or abs(t - wanted) < abs(nearest[wanted][0] - wanted):
                nearest[wanted] = t, np.asarray(view)
        if float(fraction) >= 1:
            break
        state, view, fraction = go_on(params, state)
        steps += 1
    end, nfe = jax.jit(lambda params, state: make(params).result(state))(params, state)
    instants, views = zip(*(nearest[wanted] for wanted in at), strict=True)
    return Seen(np.stack(views), np.array(instants), np.asarray(end), np.asarray(nfe))


def times_of(process: Process, method: str, options: Any) -> TimesOf:
    """The times of a sampler's states.

    They are those of the grid for `pc` and for solvers of one evaluation a step, and the first sample's own for `ode`.
    options: config.sampling.
    """
    if method == "ode":
        return lambda state, _: float(state.t[0])
    eps = process.sampling_eps
    if method == "pc":
        grid = np.append(time_steps(process, None).t, eps)
    else:
        grid = time_grid(process, options.grid, options.num_steps, eps=eps, rho=options.rho)
    return lambda _, steps: float(grid[min(steps, len(grid) - 1)])
