"""Compaction: a batch of samples with steps of their own takes each step for a part of its rows, those furthest behind.

A sample that needs more steps than others gets more turns, where steps of the whole batch would let the others wait.
All arrive at about the same time, so that few turns at the end have rows to spare.
"""

from collections.abc import Callable

import jax
from jax.sharding import PartitionSpec

from score_sde.array_types import PyTree
from score_sde.config.arguments import check_arguments
from score_sde.randomness import Size
from score_sde.runtime.sharding import AXIS, mesh
from score_sde.sampling.solver import Solver

# Measured with networks for 16x16 images on 2 cores, 64 rows: halves and quarters take the same time where the slowest
# row takes 1.4 times the mean's evaluations, and quarters 0.6 of it where one row takes 4 times those. A CPU is 8 %
# slower for a row in 16 than in 64. Nothing was measured on accelerators: there the bound is a guess.
PARTS, LEAST_ROWS, LEAST_ROWS_OF_ACCELERATORS = 4, 16, 128


@check_arguments
def compacted(whole: Solver, make_solver: Callable[..., Solver], conditions: tuple) -> Solver:
    """The solver with steps of a part of the rows on each device; no row leaves its device.

    whole: the solver make_solver(*conditions). conditions: trees of arrays with one row for each sample.
    Solvers without `progress` stay as they are.

        import jax
        import numpy as np
        from score_sde.oracles import Gaussian
        from score_sde.sampling import adaptive, solve
        from score_sde.sampling.compaction import compacted
        from score_sde.sde import VP

        data, process = Gaussian(np.zeros((2, 2, 1)), 0.25), VP()
        x = process.prior_sample(jax.random.split(jax.random.key(0), 64), data.shape)
        whole = adaptive(process, data.model(process))
        solver = compacted(whole, lambda: whole, ())
        samples, nfe = solve(solver, jax.random.key(1), x)
    """
    if whole.progress is None:
        return whole

    def step(state: PyTree) -> PyTree:
        progress = whole.progress(state)
        rows, size = len(progress) // mesh().size, part_size(len(progress) // mesh().size)
        if size == rows:
            return whole.step(state)
        chosen = _on_each_device(lambda progress: jax.lax.top_k(-progress, size)[1])(progress)
        part, of_part = _on_each_device(_take)((state, conditions), chosen)
        return _on_each_device(_put)(state, chosen, make_solver(*of_part).step(part))

    return whole._replace(step=step)


@check_arguments
def part_size(rows: Size) -> int:
    """Number of rows, of a device's, that take a step together: a quarter, but not so few that a pass is slow."""
    least = LEAST_ROWS if jax.default_backend() == "cpu" else LEAST_ROWS_OF_ACCELERATORS
    return min(rows, max(rows // PARTS, least))


def _on_each_device(fn: Callable) -> Callable:
    return jax.shard_map(fn, mesh=mesh(), in_specs=PartitionSpec(AXIS), out_specs=PartitionSpec(AXIS))


def _take(tree: PyTree, rows: jax.Array) -> PyTree:
    return jax.tree.map(lambda leaf: leaf[rows], tree)


def _put(tree: PyTree, rows: jax.Array, new: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf, new: leaf.at[rows].set(new), tree, new)
