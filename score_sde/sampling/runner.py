"""Solvers over all devices, in programs short enough that progress can be shown."""

import functools
import time
from collections.abc import Callable
from typing import Any

import jax

from score_sde.array_types import Keys, ModelImages, PyTree
from score_sde.config.arguments import check_arguments
from score_sde.runtime.memory import enough_memory, program_bytes
from score_sde.runtime.sharding import all_agree, batch_axes, compiled, is_traced, split
from score_sde.sampling.compaction import compacted
from score_sde.sampling.solver import Solver, advance, solve

SECONDS_A_CALL = 0.5


@check_arguments
class Runner:
    """A solver that runs on all devices, in programs of about half a second, so that progress can be shown.

    make_solver: (parameters, *conditions) -> solver. batch_nfe: whether the result also has the batch's evaluations.
    """

    def __init__(self, make_solver: Callable[..., Solver], *, batch_nfe: bool = False):
        self._make_solver, self._batch_nfe = make_solver, batch_nfe
        self._programs: dict[tuple, tuple[Callable, ...]] = {}

    def __call__(
        self,
        params: PyTree,
        keys: Keys,
        x: ModelImages,
        report: Callable[[float], None] = lambda _: None,
        compile_only: bool = False,
        conditions: tuple = (),
    ) -> Any:
        """The solver's result, replicated; `report` is called with the fraction done. compile_only: take no step.

        conditions: trees of arrays with one row for each of x. Inside another JAX program (`jit`, `grad`, `scan`,
        `vmap`) it is a part of that one, as by `solve`, and reports nothing.
        """
        if is_traced():
            solver = self._make_solver(params, *conditions)
            return solve(solver.with_batch_nfe() if self._batch_nfe else solver, keys, x)
        n = len(x)
        with enough_memory(f"{n} images at a time", lambda: "take fewer at a time", key=False):
            keys, x, conditions = split(keys, x, conditions)
            signature = (x.shape, jax.tree.structure(conditions))
            if signature not in self._programs:
                shapes = jax.eval_shape(self._init, params, conditions, keys, x)
                self._programs[signature] = self._compiled(shapes, conditions)
            init, step, result = self._programs[signature]
            state, fraction = step(params, conditions, init(params, conditions, keys, x), 0)
            steps = 1
            while float(fraction) < 1 and not compile_only:  # on the host: `<` on devices is a program of its own
                started = time.monotonic()
                state, fraction = step(params, conditions, state, steps)
                report(float(fraction))
                if all_agree(time.monotonic() - started < SECONDS_A_CALL / 2):
                    steps *= 2
            return jax.tree.map(lambda a: a[:n], result(params, conditions, state))

    def bytes(self, params: PyTree, keys: Keys, x: ModelImages, conditions: tuple = ()) -> int:
        """Bytes that each device needs for a call with these arguments; arrays may be shapes."""
        state = jax.eval_shape(self._init, params, conditions, keys, x)
        arguments = ((keys, x), (state, 0), (state,))
        programs = zip(self._compiled(state, conditions), arguments, strict=True)
        return max(program_bytes(one.lower(params, conditions, *its).compile()) for one, its in programs)

    def _compiled(self, state: PyTree, conditions: tuple) -> tuple[Callable, ...]:
        """The programs for batches with such states."""
        axes, each = batch_axes(state), jax.tree.map(lambda _: 0, conditions)
        return (
            compiled(self._init, in_axes=(None, each, 0, 0), out_axes=axes),
            compiled(self._step, in_axes=(None, each, axes, None), out_axes=(axes, None), donate_argnums=(2,)),
            compiled(self._result, in_axes=(None, each, axes), out_axes=None),
        )

    def _init(self, params: PyTree, conditions: tuple, keys: Keys, x: ModelImages) -> PyTree:
        return self._make_solver(params, *conditions).init(keys, x)

    def _step(self, params: PyTree, conditions: tuple, state: PyTree, steps: Any) -> tuple[PyTree, Any]:
        make_solver = functools.partial(self._make_solver, params)
        solver = compacted(make_solver(*conditions), make_solver, conditions)
        state = advance(solver, state, steps)
        return state, solver.fraction(state)

    def _result(self, params: PyTree, conditions: tuple, state: PyTree) -> Any:
        solver = self._make_solver(params, *conditions)
        return (solver.with_batch_nfe() if self._batch_nfe else solver).result(state)
