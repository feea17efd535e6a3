"""The reverse-time SDE with adaptive steps (Jolicoeur-Martineau et al. 2021, "Gotta Go Fast", algorithm 1).

A step of stochastic Heun, whose first half is Euler-Maruyama's (paper, eq. 6); their difference, relative to what an
image shows, sets the size of the next step, for each sample by itself. A rejected step is taken again, smaller, along
the same Brownian path. (The published algorithm draws fresh noise then, which favours the noise that passes.)
"""

from typing import NamedTuple

import jax.numpy as jnp

from score_sde.array_types import Array, Images, Int, Keys, PerSample, ScoreFn, Times
from score_sde.errors import UsageError
from score_sde.process import Process
from score_sde.randomness import Stream, expand, stream
from score_sde.sampling.brownian import brownian
from score_sde.sampling.solver import Solver, check_eps, evaluations

FIRST_STEP, SAFETY, EXPONENT = 0.01, 0.9, 0.9  # h_init, theta and r of the algorithm


class State(NamedTuple):
    keys: Keys
    t: Times
    h: PerSample  # size of the next step, > 0
    x: Images
    previous: Images  # the last accepted Euler-Maruyama point
    w: Images  # the Brownian path at 1 - t
    nfe: Int[Array, " b"]
    batch_nfe: Int[Array, ""]


def adaptive(
    sde: Process,
    score_fn: ScoreFn,
    *,
    rtol: float = 0.02,
    atol: float = 2 / 256,
    eps: float | None = None,
    noise_removal: bool = True,
) -> Solver:
    """A solver from x_T ~ p_1 to samples; its result is (x, nfe), nfe of shape (b,) the exact evaluations a sample.

    rtol: relative to the pixels; 0.01 to 0.05 in the reference. atol: absolute; there one of 256 levels, 2/256 for data
    in [-1, 1] and 1/256 in [0, 1]. eps: last time, default `sde.sampling_eps`.
    noise_removal: return the posterior mean of the data at eps (Tweedie), for 1 more evaluation.
    A sample on which the solver fails is NaN. Raises `UsageError` for tolerances that are not positive.
    """
    if not (rtol > 0 and atol > 0):
        raise UsageError(f"sampling.sde_rtol={rtol} and sampling.sde_atol={atol} must be positive; try 0.02 and 1/256.")
    eps = sde.sampling_eps if eps is None else eps
    check_eps(eps)

    def drift(x: Images, t: Times) -> Images:
        """Of the reverse SDE, per unit of time running down."""
        return expand(jnp.square(sde.g(t)), x) * score_fn(x, t) - expand(sde.f(t), x) * x

    def init(keys: Keys, x: Images) -> State:
        t = jnp.ones(len(x), x.dtype)
        h = jnp.full_like(t, min(FIRST_STEP, 1 - eps))
        nfe = jnp.zeros(len(x), jnp.int32)
        return State(stream(keys, Stream.STEPS), t, h, x, x, jnp.zeros_like(x), nfe, jnp.int32(0))

    def step(state: State) -> State:
        keys, t, h, x, previous, w, nfe, batch_nfe = state
        active = t > eps
        smallest = 10 * jnp.finfo(t.dtype).eps * t
        h = jnp.where(h > smallest, h, smallest)  # also where it is NaN
        t_new = jnp.where(h < t - eps, t - h, eps)
        dt = expand(t - t_new, x)
        w_new = brownian(keys, x.shape[1:], 1 - t_new).astype(x.dtype)
        euler = x + dt * drift(x, t) + expand(sde.g(t), x) * (w_new - w)
        second = x + dt * drift(euler, t_new) + expand(sde.g(t_new), x) * (w_new - w)
        heun = (euler + second) / 2
        scale = jnp.maximum(atol, rtol * jnp.maximum(jnp.abs(euler), jnp.abs(previous)))
        error = jnp.sqrt(jnp.mean(jnp.square((euler - heun) / scale), axis=tuple(range(1, x.ndim))))

        first, last = evaluations(score_fn, t), evaluations(score_fn, t_new)
        accepted = active & (error <= 1)
        failed = active & ~accepted & (h <= smallest)
        factor = SAFETY * error**-EXPONENT

        def keep(new: Images, old: Images) -> Images:
            return jnp.where(expand(accepted, old), new, old)

        return State(
            keys,
            jnp.where(failed, eps, jnp.where(accepted, t_new, t)),
            jnp.where(active, jnp.where(jnp.isfinite(error), jnp.clip(factor, 0.1, 10.0), 0.1) * h, h),
            jnp.where(expand(failed, x), jnp.nan, keep(heun, x)),
            keep(euler, previous),
            keep(w_new, w),
            nfe + jnp.where(active, first + last, 0),
            batch_nfe + jnp.max(first) + jnp.max(last),
        )

    def fraction(state: State) -> Array:
        unfinished = jnp.any(state.t > eps)
        return jnp.where(unfinished, jnp.minimum((1 - jnp.max(state.t)) / (1 - eps), 1 - 1e-6), 1.0)

    def result(state: State) -> tuple[Images, Array]:
        if not noise_removal:
            return state.x, state.nfe
        t = jnp.full_like(state.t, eps)
        data = state.x + expand(jnp.square(sde.sigma(t)), state.x) * score_fn(state.x, t)
        return data / expand(sde.alpha(t), data), state.nfe + evaluations(score_fn, t)

    def batch_nfe(state: State) -> Array:
        last = jnp.max(evaluations(score_fn, jnp.full_like(state.t, eps))) if noise_removal else 0
        return jnp.full_like(state.nfe, state.batch_nfe + last)

    return Solver(init, step, fraction, view=lambda state: state.x, result=result, batch_nfe=batch_nfe)
