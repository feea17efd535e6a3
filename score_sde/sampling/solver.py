"""Solvers: the form of every sampler and likelihood, an initial state, one step, a fraction done, and a result.

    state = solver.init(keys, x)
    while solver.fraction(state) < 1:
        state = solver.step(state)
    result = solver.result(state)

`solve` runs this in one program. `advance` runs a bounded number of steps, so that a caller can show progress, keep a
trajectory, or stop and go on.

A sampler counts its evaluations as it makes them. NFE of a sample is the number of forward passes of networks that
contain its row and whose output it uses: each network of a guided score counts, derivatives are not extra. The batch's
NFE counts all passes from its start to its end, those of a part of its rows as that part of a pass.
"""

import dataclasses
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from score_sde.array_types import Array, Float, Int, Key, Keys, ModelImages, PerSample, PyTree, Times
from score_sde.config.arguments import check_arguments
from score_sde.errors import UsageError
from score_sde.process import Model, Prediction
from score_sde.randomness import batch_keys
from score_sde.sampling.derivatives import forward_only

# A hook that imposes known content on (x, x_mean) at time t after each update: inpainting, colouring.
Project = Callable[[Keys, Times, ModelImages, ModelImages], tuple[ModelImages, ModelImages]]
StartTime = Annotated[float, "(0, 1]"]
Tolerance = Annotated[float, "(0, inf)"]
Counts = Int[Array, " b"] | Int[np.ndarray, " b"]


@check_arguments
@dataclasses.dataclass(frozen=True)
class CountedModel:
    """A model together with its count of network passes: how many a prediction takes at each of an array of times."""

    model: Model
    evaluations: Callable[[Times | Float[np.ndarray, " b"]], Counts]

    def __call__(self, x: ModelImages, t: Times) -> Prediction:
        return self.model(x, t)


@check_arguments
def predict(model: Model, x: ModelImages, t: Times) -> Prediction:
    """The model's prediction at x_t.

    Raises `UsageError` for a score function in the place of a model.
    """
    prediction = model(x, t)
    if not isinstance(prediction, Prediction):
        raise UsageError(
            "Samplers and likelihoods take a model, (x, t) -> Prediction(x0, eps); score_sde.process.from_score("
            "process, score_fn) makes one of a score function."
        )
    return prediction


@check_arguments
def evaluations(model: Model, t: Times | Float[np.ndarray, " b"]) -> Counts:
    """Network passes that a prediction takes at each time: 1, or the model's own count."""
    count = getattr(model, "evaluations", None)
    return np.ones(len(t), np.int32) if count is None else count(t)


@check_arguments
def planned(model: Model, times: np.ndarray) -> int:
    """Evaluations of a sample if the model predicts at these times, counted at float32 times as in the run."""
    return int(np.sum(evaluations(model, times.astype(np.float32))))


class Solver(NamedTuple):
    """Pure functions over a state: any pytree whose arrays have the batch along their first axis."""

    init: Callable[[Keys, ModelImages], PyTree]
    step: Callable[[PyTree], PyTree]
    fraction: Callable[[PyTree], Float[Array, ""]]  # 1.0 when finished
    view: Callable[[PyTree], ModelImages]  # the current images, for trajectories
    result: Callable[[PyTree], Any]
    nfe: int | None = None  # evaluations per sample, where they are known beforehand
    steps: int | None = None  # calls of `step`, where they are known beforehand
    batch_nfe: Callable[[PyTree], Counts] | None = (
        None  # passes that contain a sample's row, used or not; None: all are
    )
    progress: Callable[[PyTree], PerSample] | None = None  # of each sample, 1.0 when finished; None: all step together

    def with_batch_nfe(self) -> "Solver":
        """The same sampler with the result (x, nfe, batch_nfe), the last in passes of the whole batch."""

        def result(state: PyTree) -> tuple[ModelImages, Counts, PerSample]:
            x, nfe = self.result(state)
            made = jnp.asarray(nfe if self.batch_nfe is None else self.batch_nfe(state), jnp.float32)
            return x, nfe, jnp.full_like(made, jnp.mean(made))

        return self._replace(result=result)


def fraction_of(steps: int, i: Int[Array, ""]) -> Float[Array, ""]:
    """The fraction of the steps that is done after i of them, exactly 1 at the end.

    XLA divides by a constant through its reciprocal, by which 41 / 41 in float32 is less than 1.
    """
    return jnp.where(i < steps, i / steps, 1.0)


@check_arguments
def check_times(eps: float, start_time: float = 1.0) -> None:
    """Raises `UsageError` for a last time outside (0, 1), and for a first time that is not in (eps, 1]."""
    if not 0 < eps < 1:
        raise UsageError(f"sampling.eps={eps} must be in (0, 1): it is the time nearest to the data.")
    if not eps < start_time <= 1:
        raise UsageError(
            f"sampling.start_time={start_time} must be in ({eps:g}, 1]: samples begin there and end at sampling.eps."
        )


@check_arguments
def advance(solver: Solver, state: PyTree, max_steps: Annotated[int, "[0, 2147483648)"] | Int[Array, ""]) -> PyTree:
    """The state after `max_steps` more steps, or fewer if the solver finishes first."""

    def unfinished(carry):
        count, state = carry
        return (count < max_steps) & (solver.fraction(state) < 1)

    return jax.lax.while_loop(unfinished, lambda carry: (carry[0] + 1, solver.step(carry[1])), (jnp.int32(0), state))[1]


@check_arguments
def solve(solver: Solver, key: Key[Array, "..."], x: ModelImages) -> Any:
    """The solver's result from start images `x`, compiled as one program.

    key: one key, or one for each image (see `score_sde.randomness`). The call can be part of any JAX program. Samplers
    of fixed steps have derivatives in both modes. Adaptive ones have those of forward mode, with the steps held as they
    are, and raise `UsageError` in reverse mode, which needs a number of steps that is known beforehand.

        import jax
        import jax.numpy as jnp
        from score_sde.process import from_score
        from score_sde.sampling import fast_solver, solve
        from score_sde.sde import VP

        process, key = VP(), jax.random.key(0)
        model = from_score(process, lambda x, t: -x)  # standard normal data
        samples, nfe = solve(fast_solver(process, model, num_steps=5), key, jnp.ones((4, 8, 8, 1)))
    """

    @jax.jit
    def run(keys, x):
        state = solver.init(keys, x)
        if solver.steps is None:
            return forward_only(solver.result(advance(solver, state, jnp.iinfo(jnp.int32).max)))
        return solver.result(jax.lax.fori_loop(0, solver.steps, lambda _, state: solver.step(state), state))

    return run(batch_keys(key, len(x)), x)
