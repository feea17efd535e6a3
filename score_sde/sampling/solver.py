"""What every sampler and the likelihood are: an initial state, one step, a fraction done, a result.

    state = solver.init(keys, x)
    while solver.fraction(state) < 1:
        state = solver.step(state)
    result = solver.result(state)

`solve` runs this in one program. `advance` runs a bounded number of steps, so that a caller can show progress, keep a
trajectory, or stop and go on.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from score_sde.array_types import Array, Float, Images, Int, Key, Keys, PyTree, Times
from score_sde.errors import UsageError
from score_sde.randomness import batch_keys

# Imposes known content on (x, x_mean) at time t after each update: inpainting, colouring.
Project = Callable[[Keys, Times, Images, Images], tuple[Images, Images]]


class Solver(NamedTuple):
    """Pure functions over a state, an arbitrary pytree with the batch along the first axis of its arrays."""

    init: Callable[[Keys, Images], PyTree]
    step: Callable[[PyTree], PyTree]
    fraction: Callable[[PyTree], Float[Array, ""]]  # 1.0 when finished
    view: Callable[[PyTree], Images]  # the current images, for trajectories
    result: Callable[[PyTree], Any]
    times: np.ndarray | None = None  # of each evaluation of the score, where they are known beforehand

    @property
    def nfe(self) -> int | None:
        """Evaluations a sample, where they are known beforehand."""
        return None if self.times is None else len(self.times)


def check_eps(eps: float) -> None:
    """Raises `UsageError` for a last time outside (0, 1)."""
    if not 0 < eps < 1:
        raise UsageError(f"sampling.eps={eps} must be in (0, 1): it is the time nearest to the data.")


def advance(solver: Solver, state: PyTree, max_steps: int | Int[Array, ""]) -> PyTree:
    """Up to `max_steps` steps, fewer if the solver finishes first."""

    def unfinished(carry):
        count, state = carry
        return (count < max_steps) & (solver.fraction(state) < 1)

    return jax.lax.while_loop(unfinished, lambda carry: (carry[0] + 1, solver.step(carry[1])), (jnp.int32(0), state))[1]


def solve(solver: Solver, key: Key[Array, "..."], x: Images) -> Any:
    """The solver's result from start images `x`, compiled as one program.

    key: one key, or one for each image (see `score_sde.randomness`).
    """

    @jax.jit
    def run(keys, x):
        return solver.result(advance(solver, solver.init(keys, x), jnp.iinfo(jnp.int32).max))

    return run(batch_keys(key, len(x)), x)
