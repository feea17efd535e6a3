r"""Tabulated solvers: one loop for all solvers with a fixed schedule, and a table of numbers for each.

Dividing an affine SDE by its mean scale leaves y = x / mean_scale, data plus noise of level k = std / mean_scale, and
the probability-flow ODE (paper, eq. 13) becomes, with the network's noise e(y, k) = -std score and its denoised data
d(y, k) = y - k e (Tweedie's posterior mean),

    dy/dk = e(y, k),     equivalently with l = -log k, half the log-SNR:     dy/dl = d(y, l) - y.        (1)

Its linear part is solved exactly: between two levels only the network's values along the way are unknown. Every
exponential integrator, in either form, of any order, with one step or many, is therefore linear in the values that it
has evaluated. A solver is a table; row i evaluates f_i = e or d at the trial point u, and then sets, with
f = (f_i, f_{i-1}, ...),

    base  <-  p . (base, f) + c z,       u  <-  q . (base, f) + c z,                                   (2)

where base is the last accepted y. Where a row completes a step q = p; a row inside a step keeps base.

y is infinite where alpha is 0, so a table holds the weights of x itself. A solver's first step from there is
x <- alpha' d + sigma' e, with alpha' and sigma' at the time where it ends; it needs both d and e (`other`). The numbers
are computed once, in float64, from the process and the time grid.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from score_sde.array_types import Array, Int, Keys, ModelImages, Times
from score_sde.config.arguments import check_arguments
from score_sde.process import Eps, Model
from score_sde.randomness import Noise, Stream, normal, stream
from score_sde.sampling.solver import Project, Solver, evaluations, fraction_of, planned, predict


class Table(NamedTuple):
    """Rows of eq. (2) in x, for n evaluations with a history of m."""

    predicts_data: bool  # f is d, otherwise e
    t: np.ndarray  # (n,) times of the evaluations
    base: np.ndarray  # (n, 1 + m) p: weights of base, f_i, f_{i-1}, ...
    trial: np.ndarray  # (n, 1 + m) q
    other: np.ndarray  # (n,) weight, in both, of the other of d_i and e_i
    noise: np.ndarray  # (n,) c


class State(NamedTuple):
    """State of a tabulated solver after i of its rows."""

    i: Int[Array, ""]
    keys: Keys
    base: ModelImages
    trial: ModelImages
    history: tuple[ModelImages, ...]  # f_{i-1}, f_{i-2}, ...
    nfe: Int[Array, " b"]


@check_arguments
def tabulated(
    model: Model,
    table: Table,
    *,
    eps: Eps,
    noise_removal: bool = True,
    project: Project | None = None,
    noise: Noise = normal,
) -> Solver:
    """The solver of a table that ends at time eps; its result is (x, nfe), nfe of shape (b,).

    noise_removal: return the posterior mean of the data at eps, for 1 more evaluation. project: see `Project`; with a
    deterministic table it draws the same noise in every step. noise: source of z, (keys, shape) -> z.

        import jax
        import jax.numpy as jnp
        from score_sde.process import from_score
        from score_sde.sampling import FAST_SOLVERS, solve
        from score_sde.sampling.fast import Options
        from score_sde.sampling.grids import time_grid
        from score_sde.sampling.rows import Grid
        from score_sde.sampling.tabulated import tabulated
        from score_sde.sde import VP

        grid = Grid(VP(), time_grid(VP(), "log_snr", 4, eps=1e-3))
        solver = tabulated(from_score(VP(), lambda x, t: -x), FAST_SOLVERS["ddim"](grid, Options()), eps=1e-3)
        x, nfe = solve(solver, jax.random.key(0), jnp.ones((2, 4, 4, 1)))
    """
    n, m = len(table.t), table.base.shape[1] - 1
    steps = n + noise_removal
    t = np.append(table.t, eps)
    same = np.all(table.base == table.trial, axis=1)
    stochastic, both = bool(np.any(table.noise)), bool(np.any(table.other))

    def times(x: ModelImages, i: int | Array) -> Times:
        return jnp.full(len(x), jnp.asarray(t, x.dtype)[i])

    def init(keys: Keys, x: ModelImages) -> State:
        history, nfe = (jnp.zeros_like(x),) * (m - 1), jnp.zeros(len(x), jnp.int32)
        return State(jnp.int32(0), stream(keys, Stream.STEPS), x, x, history, nfe)

    def step(state: State) -> State:
        """One row; after the last the posterior mean at eps, here too, so that a program has the network once."""
        i, keys, base, trial, history, nfe = state
        prediction = predict(model, trial, times(trial, i))
        f, other = prediction if table.predicts_data else reversed(prediction)
        history = (f, *history)

        def combine(weights: np.ndarray) -> ModelImages:
            w = jnp.asarray(weights, base.dtype)[i]
            x = sum((w[1 + j] * f for j, f in enumerate(history)), w[0] * base)
            return x + jnp.asarray(table.other, base.dtype)[i] * other if both else x

        new_base, new_trial = combine(table.base), combine(table.trial)
        if stochastic:
            z = noise(stream(stream(keys, i), Stream.NOISE), base.shape[1:]).astype(base.dtype)
            z = jnp.asarray(table.noise, base.dtype)[i] * z
            new_base, new_trial = new_base + z, new_trial + z
        if project is not None:
            new_base, new_trial = imposed(keys, i, new_base, new_trial)
        if noise_removal:  # beyond the table an index is its last, and what it gives is not used
            new_base, new_trial = (jnp.where(i < n, new, prediction.x0) for new in (new_base, new_trial))
        nfe = nfe + evaluations(model, times(base, i))
        return State(i + 1, keys, new_base, new_trial, history[: m - 1], nfe)

    def imposed(keys: Keys, i: Array, base: ModelImages, trial: ModelImages) -> tuple[ModelImages, ModelImages]:
        """(base, trial) with the trial point projected at its time; base too, where both are the same point."""
        keys = stream(stream(keys, i) if stochastic else keys, Stream.PROJECT)
        projected = project(keys, times(trial, i + 1), trial, trial)[0]
        return jnp.where(jnp.asarray(same)[i], projected, base), projected

    return Solver(
        init=init,
        step=step,
        fraction=lambda state: fraction_of(steps, state.i),
        view=lambda state: state.trial,
        result=lambda state: (state.base, state.nfe),
        nfe=planned(model, t[:steps]),
        steps=steps,
    )
