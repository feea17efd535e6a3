"""The predictor-corrector sampler (paper, section 4.2).

At each time t_i of its grid a step runs the corrector, then the predictor. This is the order of the paper's code; its
algorithm 1 has them the other way round.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from score_sde.array_types import Array, Float, Images, Int, Keys, ScoreFn, Times
from score_sde.errors import UsageError, one_of
from score_sde.process import Process
from score_sde.randomness import Noise, Stream, expand, normal, stream
from score_sde.sampling.correctors import CORRECTORS
from score_sde.sampling.predictors import PREDICTORS, ancestral_sampling, flow
from score_sde.sampling.solver import Project, Solver, check_eps, evaluations, planned


class State(NamedTuple):
    i: Int[Array, ""]
    keys: Keys
    x: Images
    x_mean: Images  # x without the noise of the last update
    nfe: Int[Array, " b"]


def predictor_corrector(
    sde: Process,
    score_fn: ScoreFn,
    *,
    predictor: str = "euler_maruyama",
    corrector: str = "none",
    snr: float = 0.16,
    n_steps_each: int = 1,
    probability_flow: bool = False,
    noise_removal: bool = True,
    eps: float | None = None,
    project: Project | None = None,
    noise: Noise = normal,
) -> Solver:
    """A solver from x_T ~ p_1 to samples; its result is (x, nfe), nfe of shape (b,) the exact evaluations a sample.

    sde: its `num_scales` is the number of steps, which may differ from that in training.
    snr: signal-to-noise ratio of the corrector, > 0; n_steps_each: corrector steps at each time.
    probability_flow: the predictor takes the ODE's step instead, without noise.
    noise_removal: return the last predictor's mean (Tweedie denoising), not the noisy state.
    eps: last time; default `sde.sampling_eps`. project: see `Project`. noise: where z comes from.
    Raises `UsageError` for unknown names and for combinations that are not defined.
    """
    predict = PREDICTORS[one_of("sampling.predictor", predictor, PREDICTORS)]
    correct = CORRECTORS[one_of("sampling.corrector", corrector, CORRECTORS)]
    if predict is None and correct is None:
        raise UsageError("sampling.predictor and sampling.corrector are both 'none': nothing would be sampled.")
    if predict is ancestral_sampling and probability_flow:
        raise UsageError(
            "Ancestral sampling has no probability flow; set sampling.predictor to reverse_diffusion or euler_maruyama."
        )
    if correct is not None and not snr > 0:
        raise UsageError(f"sampling.snr={snr} must be positive, as a corrector's steps are proportional to its square.")
    if n_steps_each < 1:
        raise UsageError(
            f"sampling.n_steps_each={n_steps_each} must be at least 1; set sampling.corrector=none for none."
        )
    grid = time_steps(sde, eps, predicts=predict is not None)
    if predict is not None:
        jax.eval_shape(lambda: predict(sde, *grid.at(0, jnp.ones(1))))  # what the SDE lacks is said now
    if correct is not None:
        jax.eval_shape(lambda: sde.langevin_scale(jnp.ones(1)))
    n = len(grid.t)
    scores_each = (predict is not None) + (correct is not None) * n_steps_each  # of a step

    def apply_project(keys, t, x, x_mean):
        return (x, x_mean) if project is None else project(stream(keys, Stream.PROJECT), t, x, x_mean)

    def corrector_update(keys, x, t):
        score = score_fn(x, t)
        z = noise(stream(keys, Stream.NOISE), x.shape[1:]).astype(x.dtype)
        step_size = expand(correct(sde, t, snr, score, z), x)
        x_mean = x + step_size * score
        return apply_project(keys, t, x_mean + jnp.sqrt(2 * step_size) * z, x_mean)

    def predictor_update(keys, x, t, t_next):
        a, b, c = flow(sde, t, t_next) if probability_flow and t_next is not None else predict(sde, t, t_next)
        if probability_flow and t_next is None:
            b, c = 0.5 * b, jnp.zeros_like(c)
        x_mean = expand(a, x) * x + expand(b, x) * score_fn(x, t)
        z = noise(stream(keys, Stream.NOISE), x.shape[1:]).astype(x.dtype)
        return apply_project(keys, t if t_next is None else t_next, x_mean + expand(c, x) * z, x_mean)

    def init(keys: Keys, x: Images) -> State:
        return State(jnp.int32(0), stream(keys, Stream.STEPS), x, x, jnp.zeros(len(x), jnp.int32))

    def step(state: State) -> State:
        x, x_mean = state.x, state.x
        t, t_next = grid.at(state.i, x)
        keys = stream(state.keys, state.i)
        if correct is not None:

            def body(j, carry):
                return corrector_update(stream(keys, j), carry[0], t)

            x, x_mean = jax.lax.fori_loop(0, n_steps_each, body, (x, x_mean))
        if predict is not None:
            x, x_mean = predictor_update(stream(keys, n_steps_each), x, t, t_next)
        else:
            x_mean = x
        nfe = state.nfe + scores_each * evaluations(score_fn, t)
        return State(state.i + 1, state.keys, x, x_mean, nfe)

    return Solver(
        init=init,
        step=step,
        fraction=lambda state: state.i / n,
        view=lambda state: state.x,
        result=lambda state: (state.x_mean if noise_removal else state.x, state.nfe),
        nfe=planned(score_fn, np.repeat(grid.t, scores_each)),
        steps=n,
    )


class TimeSteps(NamedTuple):
    """The times of N steps, in float64, and where each ends: None for steps of the paper's code."""

    t: np.ndarray
    t_next: np.ndarray | None

    def at(self, i: int | Int[Array, ""], x: Float[Array, "b ..."]) -> tuple[Times, Times | None]:
        """Those of step i for each of x, in its type."""
        t, t_next = (None if column is None else jnp.full(len(x), jnp.asarray(column, x.dtype)[i]) for column in self)
        return t, t_next


def time_steps(sde: Process, eps: float | None, *, predicts: bool = True) -> TimeSteps:
    """The N steps from 1 to eps, default `sde.sampling_eps`. Raises `UsageError` for eps outside (0, 1).

    predicts: whether a predictor moves from one time to the next; without one all is done at the times themselves.
    """
    eps = sde.sampling_eps if eps is None else eps
    check_eps(eps)
    # The paper's code has N times and N steps of 1/N, or of the chain, so that the last goes beyond eps by about 1/N:
    # to the data where eps is the process's own, and past p_eps where it is any other.
    if eps == sde.sampling_eps or not predicts:
        return TimeSteps(np.linspace(1.0, eps, sde.num_scales), None)
    times = np.linspace(1.0, eps, sde.num_scales + 1)
    return TimeSteps(times[:-1], times[1:])
