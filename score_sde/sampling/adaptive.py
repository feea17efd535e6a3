"""The reverse-time SDE with adaptive steps (Jolicoeur-Martineau et al. 2021, "Gotta Go Fast", algorithm 1).

Each step is one of stochastic Heun, whose first half is an Euler-Maruyama step (paper, eq. 6). The difference of the
two, relative to a visible difference of pixels, sets the size of the next step, for each sample separately. A rejected
step is repeated, smaller, along the same Brownian path. (The published algorithm draws fresh noise then, which favours
noise that happens to be accepted.)
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from score_sde.array_types import Array, Int, Keys, ModelImages, PerSample, Times
from score_sde.config.arguments import check_arguments
from score_sde.errors import UsageError
from score_sde.process import Eps, Model, Process, score
from score_sde.randomness import Stream, expand, stream
from score_sde.sampling.brownian import brownian
from score_sde.sampling.predictors import Diffusion, diffusion_at
from score_sde.sampling.solver import Solver, StartTime, Tolerance, check_times, evaluations, predict

FIRST_STEP, SAFETY, EXPONENT = 0.01, 0.9, 0.9  # h_init, theta and r of the algorithm


class State(NamedTuple):
    """State of the adaptive solver; each sample has its own time and step."""

    keys: Keys
    t: Times
    h: PerSample  # size of the next step, > 0
    x: ModelImages
    previous: ModelImages  # the last accepted Euler-Maruyama point
    path: ModelImages  # W(start - t) of the sample's Brownian path
    nfe: Int[Array, " b"]
    made: Int[Array, " b"]  # evaluations that contained the row, also while it waited


@check_arguments
def adaptive(
    process: Process,
    model: Model,
    *,
    rtol: Tolerance = 0.02,
    atol: Tolerance = 2 / 256,
    eps: Eps | None = None,
    start_time: StartTime = 1.0,
    diffusion: Diffusion = 1.0,
    noise_removal: bool = True,
) -> Solver:
    """A solver from x_T ~ p_1 to samples; its result is (x, nfe), nfe of shape (b,) the exact evaluations per sample.

    process, model: the process, and the model (x, t) -> `Prediction`. rtol: tolerance relative to the pixels; 0.01 to
    0.05 in the reference. atol: absolute tolerance; in the reference one of 256 levels, 2/256 for data in [-1, 1] and
    1/256 in [0, 1]. eps: last time, default `process.sampling_eps`. start_time: first time, in (eps, 1], at which the
    solver takes x. diffusion: w >= 0, or w(t), of the reverse SDE whose noise has the variance w g^2 dt (`predictors`,
    eq. 1). noise_removal: return the posterior mean of the data at eps (Tweedie), for 1 more evaluation. A sample on
    which the solver fails is NaN. Raises `UsageError` for tolerances that are not positive, and for processes whose f
    and g are infinite at t = 1, if they start there.

        import jax
        import numpy as np
        from score_sde.oracles import Gaussian
        from score_sde.sampling import adaptive, solve
        from score_sde.sde import VP

        data, process = Gaussian(np.zeros((2, 2, 1)), 0.25), VP()
        x = process.prior_sample(jax.random.split(jax.random.key(0), 8), data.shape)
        samples, nfe = solve(adaptive(process, data.model(process)), jax.random.key(1), x)
    """
    eps = process.sampling_eps if eps is None else eps
    check_times(eps, start_time)
    _check(process, start_time)

    def drift(x: ModelImages, t: Times) -> ModelImages:
        """Drift of the reverse SDE, per unit of time running down."""
        pull = expand((1 + diffusion_at(diffusion, t)) / 2 * jnp.square(process.g(t)), x)
        return pull * score(process, predict(model, x, t), t) - expand(process.f(t), x) * x

    def diffuse(t: Times, dw: ModelImages) -> ModelImages:
        return expand(diffusion_at(diffusion, t) ** 0.5 * process.g(t), dw) * dw

    def init(keys: Keys, x: ModelImages) -> State:
        t = jnp.full(len(x), start_time, x.dtype)
        h = jnp.full_like(t, min(FIRST_STEP, start_time - eps))
        nfe = jnp.zeros(len(x), jnp.int32)
        return State(stream(keys, Stream.STEPS), t, h, x, x, jnp.zeros_like(x), nfe, nfe)

    def step(state: State) -> State:
        keys, t, h, x, previous, path, nfe, made = state
        active = t > eps
        smallest = 10 * jnp.finfo(t.dtype).eps * t
        h = jnp.where(h > smallest, h, smallest)  # also where it is NaN
        t_new = jnp.where(h < t - eps, t - h, eps)
        dt = expand(t - t_new, x)
        path_new = brownian(keys, x.shape[1:], start_time - t_new).astype(x.dtype)
        euler = x + dt * drift(x, t) + diffuse(t, path_new - path)
        second = x + dt * drift(euler, t_new) + diffuse(t_new, path_new - path)
        heun = (euler + second) / 2
        error = jax.lax.stop_gradient(_error(euler, heun, previous, rtol=rtol, atol=atol))  # derivatives hold the steps

        first, last = evaluations(model, t), evaluations(model, t_new)
        accepted = active & (error <= 1)
        failed = active & ~accepted & (h <= smallest)
        factor = SAFETY * error**-EXPONENT

        def keep(new: ModelImages, old: ModelImages) -> ModelImages:
            return jnp.where(expand(accepted, old), new, old)

        return State(
            keys,
            jnp.where(failed, eps, jnp.where(accepted, t_new, t)),
            jnp.where(active, jnp.where(jnp.isfinite(error), jnp.clip(factor, 0.1, 10.0), 0.1) * h, h),
            jnp.where(expand(failed, x), jnp.nan, keep(heun, x)),
            keep(euler, previous),
            keep(path_new, path),
            nfe + jnp.where(active, first + last, 0),
            made + jnp.max(first) + jnp.max(last),
        )

    def progress(state: State) -> PerSample:
        return jnp.where(state.t > eps, jnp.minimum((start_time - state.t) / (start_time - eps), 1 - 1e-6), 1.0)

    def result(state: State) -> tuple[ModelImages, Array]:
        if not noise_removal:
            return state.x, state.nfe
        t = jnp.full_like(state.t, eps)
        return predict(model, state.x, t).x0, state.nfe + evaluations(model, t)

    def batch_nfe(state: State) -> Array:
        return state.made + (jnp.max(evaluations(model, jnp.full_like(state.t, eps))) if noise_removal else 0)

    def fraction(state: State) -> Array:
        return jnp.min(progress(state))

    return Solver(init, step, fraction, lambda state: state.x, result, batch_nfe=batch_nfe, progress=progress)


def _check(process: Process, start_time: float) -> None:
    """Raises `UsageError` for a process without f and g where the solver starts."""
    if start_time == 1 and process.begins_in_noise:
        raise UsageError(
            f"The adaptive SDE needs f and g, which are infinite at t = 1 of {type(process).__name__}; set "
            "sampling.method=ode, or another."
        )


def _error(euler: ModelImages, heun: ModelImages, previous: ModelImages, *, rtol: float, atol: float) -> PerSample:
    """Root mean square of the two steps' difference, relative to a visible one; a step is accepted up to 1."""
    scale = jnp.maximum(atol, rtol * jnp.maximum(jnp.abs(euler), jnp.abs(previous)))
    return jnp.sqrt(jnp.mean(jnp.square((euler - heun) / scale), axis=tuple(range(1, euler.ndim))))
