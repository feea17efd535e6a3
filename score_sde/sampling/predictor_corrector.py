"""The predictor-corrector sampler (paper, section 4.2).

At each time t_i of the grid a step runs the corrector, then the predictor. This is the order of the paper's code; the
paper's algorithm 1 has them the other way round.
"""

from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from score_sde.array_types import Array, Float, Int, Keys, ModelImages, Times
from score_sde.config.arguments import check_arguments
from score_sde.errors import UsageError, one_of
from score_sde.process import Eps, Model, Process, score
from score_sde.randomness import Noise, Stream, expand, normal, stream
from score_sde.sampling.correctors import CORRECTORS, Corrector
from score_sde.sampling.predictors import (
    PREDICTORS,
    Diffusion,
    Predictor,
    ancestral_sampling,
    exponential,
)
from score_sde.sampling.solver import (
    Project,
    Solver,
    StartTime,
    check_times,
    evaluations,
    fraction_of,
    planned,
    predict,
)


class State(NamedTuple):
    """State of the predictor-corrector sampler after i of its steps."""

    i: Int[Array, ""]
    keys: Keys
    x: ModelImages
    x_mean: ModelImages  # x without the noise of the last update
    nfe: Int[Array, " b"]


@check_arguments
def predictor_corrector(
    process: Process,
    model: Model,
    *,
    predictor: str = "euler_maruyama",
    corrector: str = "none",
    snr: Annotated[float, "[0, 1000]"] = 0.16,
    n_steps_each: Annotated[int, "[1, 10000]"] = 1,
    probability_flow: bool = False,
    diffusion: Diffusion = 1.0,
    noise_removal: bool = True,
    eps: Eps | None = None,
    start_time: StartTime = 1.0,
    project: Project | None = None,
    noise: Noise = normal,
) -> Solver:
    """A solver from x_T ~ p_1 to samples; its result is (x, nfe), nfe of shape (b,) the exact evaluations per sample.

    process: its `num_scales` is the number of steps, which may differ from that in training.
    model: (x, t) -> `Prediction`. predictor, corrector: names in `PREDICTORS` and `CORRECTORS`.
    snr: signal-to-noise ratio of the corrector, > 0; n_steps_each: corrector steps at each time.
    diffusion: w >= 0, or w(t), of the reverse SDE whose noise has the variance w g^2 dt: see `predictors`.
    probability_flow: make the predictor take the ODE's step instead, without noise: w = 0.
    noise_removal: return the last predictor's mean (Tweedie denoising), not the noisy state; after the exponential
    predictor the posterior mean of the data at eps, for 1 more evaluation.
    eps: last time; default `process.sampling_eps`. start_time: first time, in (eps, 1], at which the sampler takes x;
    steps are as long as those from 1, and fewer. project: see `Project`. noise: source of z, (keys, shape) -> z.
    Raises `UsageError` for unknown names and for combinations that are not defined.

        import jax
        import numpy as np
        from score_sde.oracles import Gaussian
        from score_sde.sampling import predictor_corrector, solve
        from score_sde.sde import VP

        data, process = Gaussian(np.zeros((2, 2, 1)), 0.25), VP(num_scales=100)
        x = process.prior_sample(jax.random.split(jax.random.key(0), 8), data.shape)
        sampler = predictor_corrector(process, data.model(process), predictor="reverse_diffusion", corrector="langevin")
        samples, nfe = solve(sampler, jax.random.key(1), x)  # nfe = 200: a predictor and a corrector in each step
    """
    w = 0.0 if probability_flow else diffusion
    step_of, correct = _rows(predictor, corrector, w)
    exact = step_of is exponential
    grid = time_steps(process, eps, predicts=step_of is not None, exact=exact, start_time=start_time)
    _check_defined(process, step_of, correct, grid, w=w, snr=snr)
    n = len(grid.t)
    tweedie = exact and noise_removal
    passes_each = (step_of is not None) + (correct is not None) * n_steps_each  # predictions in a step

    def apply_project(keys, t, x, x_mean):
        return (x, x_mean) if project is None else project(stream(keys, Stream.PROJECT), t, x, x_mean)

    def corrector_update(keys, x, t):
        direction = score(process, predict(model, x, t), t)
        z = noise(stream(keys, Stream.NOISE), x.shape[1:]).astype(x.dtype)
        step_size = expand(correct(process, t, snr, direction, z), x)
        x_mean = x + step_size * direction
        return apply_project(keys, t, x_mean + jnp.sqrt(2 * step_size) * z, x_mean)

    def predictor_update(keys, x, t, t_next):
        weights = step_of(process, t, t_next, w)
        if probability_flow and t_next is not None:
            weights = exponential(process, t, t_next, w)
        x_mean = weights.mean(x, predict(model, x, t))
        z = noise(stream(keys, Stream.NOISE), x.shape[1:]).astype(x.dtype)
        return apply_project(keys, t if t_next is None else t_next, x_mean + expand(weights.z, x) * z, x_mean)

    def init(keys: Keys, x: ModelImages) -> State:
        return State(jnp.int32(0), stream(keys, Stream.STEPS), x, x, jnp.zeros(len(x), jnp.int32))

    def step(state: State) -> State:
        x, x_mean = state.x, state.x
        t, t_next = grid.at(state.i, x)
        keys = stream(state.keys, state.i)
        if correct is not None:

            def body(j, carry):
                return corrector_update(stream(keys, j), carry[0], t)

            x, x_mean = jax.lax.fori_loop(0, n_steps_each, body, (x, x_mean))
        if step_of is not None:
            x, x_mean = predictor_update(stream(keys, n_steps_each), x, t, t_next)
        else:
            x_mean = x
        nfe = state.nfe + passes_each * evaluations(model, t)
        return State(state.i + 1, state.keys, x, x_mean, nfe)

    def result(state: State) -> tuple[ModelImages, Array]:
        if not tweedie:
            return state.x_mean if noise_removal else state.x, state.nfe
        t = jnp.full(len(state.x), grid.t_next[-1], state.x.dtype)
        return predict(model, state.x, t).x0, state.nfe + evaluations(model, t)

    times = np.repeat(grid.t, passes_each)
    # A solver's fields are named in full, as by the other samplers, so that each says what it counts and shows.
    return Solver(
        init=init,
        step=step,
        fraction=lambda state: fraction_of(n, state.i),
        view=lambda state: state.x,
        result=result,
        nfe=planned(model, np.append(times, grid.t_next[-1:]) if tweedie else times),
        steps=n,
    )


def _rows(predictor: str, corrector: str, w: Diffusion) -> tuple[Predictor | None, Corrector | None]:
    """The predictor and the corrector with these names; None for "none".

    Raises `UsageError` for unknown names, and for options with which they are not defined.
    """
    step_of = PREDICTORS[one_of("sampling.predictor", predictor, PREDICTORS)]
    correct = CORRECTORS[one_of("sampling.corrector", corrector, CORRECTORS)]
    if step_of is None and correct is None:
        raise UsageError("sampling.predictor and sampling.corrector are both 'none': nothing would be sampled.")
    if step_of is ancestral_sampling and w != 1:
        raise UsageError(
            "Ancestral sampling has no probability flow and one diffusion only; set sampling.predictor to "
            "reverse_diffusion, euler_maruyama or exponential."
        )
    return step_of, correct


def _check_defined(
    process: Process,
    step_of: Predictor | None,
    correct: Corrector | None,
    grid: "TimeSteps",
    *,
    w: Diffusion,
    snr: float,
) -> None:
    """Raises `UsageError` for a process that lacks what the predictor or the corrector needs."""
    if step_of is not None:
        jax.eval_shape(lambda: step_of(process, *grid.at(0, jnp.ones(1)), w))
    if correct is not None:
        jax.eval_shape(lambda: correct(process, jnp.ones(1), snr, *(jnp.ones((1, 1, 1, 1)),) * 2))


class TimeSteps(NamedTuple):
    """Times of N steps in float64, and the times at which they end: None for the steps of the paper's code."""

    t: np.ndarray
    t_next: np.ndarray | None

    def at(self, i: int | Int[Array, ""], x: Float[Array, "b ..."]) -> tuple[Times, Times | None]:
        """Start and end times of step i, one of each for every row of x, in its type."""
        t, t_next = (None if column is None else jnp.full(len(x), jnp.asarray(column, x.dtype)[i]) for column in self)
        return t, t_next


@check_arguments
def time_steps(
    process: Process, eps: Eps | None, *, predicts: bool = True, exact: bool = False, start_time: StartTime = 1.0
) -> TimeSteps:
    """The steps from start_time to eps, N in a unit of time. Raises `UsageError` for times out of order or range.

    eps: default `process.sampling_eps`. start_time: in (eps, 1]; from 1 there are N steps.
    predicts: whether a predictor moves from one time to the next; without one all happens at the times themselves.
    exact: whether the predictor needs the times at which its steps end.
    """
    eps = process.sampling_eps if eps is None else eps
    check_times(eps, start_time)
    n = max(1, round(process.num_scales * start_time))
    # The paper's code has N times and N steps of 1/N, or of the chain, so that the last overshoots eps by about 1/N:
    # it ends at the data if eps is the process's own, and beyond p_eps if it is any other.
    if not exact and (eps == process.sampling_eps or not predicts):
        return TimeSteps(np.linspace(start_time, eps, n), None)
    times = np.linspace(start_time, eps, n + 1)
    return TimeSteps(times[:-1], times[1:])
