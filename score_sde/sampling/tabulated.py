r"""Solvers with a fixed schedule: one loop for all of them, and a table of numbers for each.

Dividing an affine SDE by its mean scale leaves y = x / mean_scale, data plus noise of level k = std / mean_scale, and
the probability-flow ODE (paper, eq. 13) becomes, with the network's noise e(y, k) = -std score and its denoised data
d(y, k) = y - k e (Tweedie's posterior mean),

    dy/dk = e(y, k),     equivalently with l = -log k, half the log-SNR:     dy/dl = d(y, l) - y.        (1)

Its linear part is solved exactly: between two levels only the network, along the way, is unknown. Every exponential
integrator, in either form and of any order, one step or many, thus is linear in what it has evaluated. A solver is a
table; its row i evaluates f_i = e or d at the trial point u, and then sets, with f = (f_i, f_{i-1}, ...),

    base  <-  p . (base, f) + c z,       u  <-  q . (base, f) + c z,                                   (2)

where base is the last accepted y. Where a row completes a step q = p; a row inside a step keeps base. The numbers are
computed in float64, once, from the SDE and the time grid.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from score_sde.array_types import Array, Images, Int, Keys, ScoreFn
from score_sde.process import Process
from score_sde.randomness import Noise, Stream, normal, stream
from score_sde.sampling.solver import Project, Solver, evaluations, planned


class Table(NamedTuple):
    """The rows of eq. (2), for n evaluations with a history of m."""

    predicts_data: bool  # f is d, otherwise e
    t: np.ndarray  # (n,) times of the evaluations
    base: np.ndarray  # (n, 1 + m) p: weights of base, f_i, f_{i-1}, ...
    trial: np.ndarray  # (n, 1 + m) q
    noise: np.ndarray  # (n,) c


class State(NamedTuple):
    i: Int[Array, ""]
    keys: Keys
    base: Images
    trial: Images
    history: tuple[Images, ...]  # f_{i-1}, f_{i-2}, ...
    nfe: Int[Array, " b"]


def tabulated(
    sde: Process,
    score_fn: ScoreFn,
    table: Table,
    *,
    eps: float,
    noise_removal: bool = True,
    project: Project | None = None,
    noise: Noise = normal,
) -> Solver:
    """The solver of a table that ends at time eps; its result is (x, nfe), nfe of shape (b,).

    noise_removal: return the posterior mean of the data at eps, for 1 more evaluation. project: see `Project`; of a
    deterministic table it draws the same noise in every step. noise: where z comes from.
    """
    n, m = len(table.t), table.base.shape[1] - 1
    t = np.append(table.t, eps)
    scale, std = sde.alpha(t), sde.sigma(t)
    same = np.all(table.base == table.trial, axis=1)
    stochastic = bool(np.any(table.noise))

    def evaluate(y: Images, i: int | Array, data: bool) -> Images:
        def row(column: np.ndarray) -> Array:
            return jnp.asarray(column, y.dtype)[i]

        e = -row(std) * score_fn(row(scale) * y, jnp.full(len(y), row(t)))
        return y - row(std / scale) * e if data else e

    def init(keys: Keys, x: Images) -> State:
        y = x / float(scale[0])
        history, nfe = (jnp.zeros_like(y),) * (m - 1), jnp.zeros(len(x), jnp.int32)
        return State(jnp.int32(0), stream(keys, Stream.STEPS), y, y, history, nfe)

    def count(state: State, i: int | Array) -> Array:
        """The evaluations with those at time i."""
        at = jnp.full(len(state.base), jnp.asarray(t, state.base.dtype)[i])
        return state.nfe + evaluations(score_fn, at)

    def step(state: State) -> State:
        i, keys, base, trial, history, _ = state
        history = (evaluate(trial, i, table.predicts_data), *history)

        def combine(weights: np.ndarray) -> Images:
            w = jnp.asarray(weights, base.dtype)[i]
            return sum((w[1 + j] * f for j, f in enumerate(history)), w[0] * base)

        new_base, new_trial = combine(table.base), combine(table.trial)
        if stochastic:
            z = noise(stream(stream(keys, i), Stream.NOISE), base.shape[1:]).astype(base.dtype)
            z = jnp.asarray(table.noise, base.dtype)[i] * z
            new_base, new_trial = new_base + z, new_trial + z
        if project is not None:
            new_base, new_trial = imposed(keys, i, new_base, new_trial)
        return State(i + 1, keys, new_base, new_trial, history[: m - 1], count(state, i))

    def imposed(keys: Keys, i: Array, base: Images, trial: Images) -> tuple[Images, Images]:
        """The trial point held to what is known at its time; base as well, where it is the same point."""
        keys = stream(stream(keys, i) if stochastic else keys, Stream.PROJECT)
        at, m = (jnp.asarray(column, trial.dtype)[i + 1] for column in (t, scale))
        known = project(keys, jnp.full(len(trial), at), m * trial, m * trial)[0] / m
        return jnp.where(jnp.asarray(same)[i], known, base), known

    def result(state: State) -> tuple[Images, Array]:
        if noise_removal:
            return evaluate(state.base, n, data=True), count(state, n)
        return jnp.asarray(scale[n], state.base.dtype) * state.base, state.nfe

    return Solver(
        init=init,
        step=step,
        fraction=lambda state: state.i / n,
        view=lambda state: jnp.asarray(scale, state.trial.dtype)[state.i] * state.trial,
        result=result,
        nfe=planned(score_fn, t[: n + noise_removal]),
        steps=n,
    )
