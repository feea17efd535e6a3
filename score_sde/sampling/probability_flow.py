"""The probability-flow ODE (paper, section 4.3, eq. 13): sampler, encoder and decoder.

dx/dt = f(t) x - g(t)^2 score(x, t) / 2 has the SDE's marginals. It is solved from 1 to eps for samples, and from eps to
1 for latents.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from score_sde.array_types import Array, Images, Keys, ScoreFn, Times
from score_sde.errors import UsageError
from score_sde.process import Process
from score_sde.randomness import expand
from score_sde.sampling.predictors import reverse_diffusion
from score_sde.sampling.runge_kutta import State, dormand_prince
from score_sde.sampling.solver import Solver, check_eps, evaluations


def drift(sde: Process, score_fn: ScoreFn) -> Callable[[Times, Images], Images]:
    """The velocity (t, x) -> dx/dt."""

    def velocity(t: Times, x: Images) -> Images:
        return expand(sde.f(t), x) * x - expand(0.5 * jnp.square(sde.g(t)), x) * score_fn(x, t)

    return velocity


def probability_flow(
    sde: Process,
    score_fn: ScoreFn,
    *,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    eps: float | None = None,
    noise_removal: bool = True,
    encode: bool = False,
) -> Solver:
    """A solver from x_T to samples, or from images to latents if `encode`; its result is (x, nfe), nfe of shape (b,).

    rtol, atol: tolerances of each step, for each sample by itself. eps: default `sde.sampling_eps`.
    noise_removal: after the ODE, one denoising step: the mean of the reverse-diffusion predictor at eps, as in the
    paper's code; 1 more evaluation. Never when encoding.
    A sample on which the solver fails is NaN.
    """
    check_tolerances(rtol, atol)
    eps = sde.sampling_eps if eps is None else eps
    check_eps(eps)
    t0, t1 = (eps, 1.0) if encode else (1.0, eps)
    velocity = drift(sde, score_fn)
    passes = functools.partial(evaluations, score_fn)
    ode = dormand_prince(lambda t, x, _: velocity(t, x), t0, t1, rtol=rtol, atol=atol, evaluations=passes)
    denoise = noise_removal and not encode
    if denoise:
        jax.eval_shape(lambda: reverse_diffusion(sde, jnp.ones(1)))  # what the SDE lacks is said now

    def init(keys: Keys, x: Images) -> State:
        return ode.init(x)

    def result(state: State):
        x, nfe = state.y, state.nfe
        if denoise:
            t = jnp.full(len(x), eps, x.dtype)
            a, b, _ = reverse_diffusion(sde, t)
            x, nfe = expand(a, x) * x + expand(b, x) * score_fn(x, t), nfe + passes(t)
        return x, nfe

    def batch_nfe(state: State) -> Array:
        last = jnp.max(passes(jnp.full_like(state.t, eps))) if denoise else 0
        return jnp.full_like(state.nfe, state.batch_nfe + last)

    return Solver(init, ode.step, ode.fraction, view=lambda state: state.y, result=result, batch_nfe=batch_nfe)


def slerp(z0: Images, z1: Images, fraction: float) -> Images:
    """Spherical interpolation between latents: turns the direction at even speed, and changes the length linearly.

    A straight line between two latents leaves the sphere that nearly all of a Gaussian's mass is on. fraction: 0 gives
    z0, 1 gives z1.
    """
    axes = tuple(range(1, z0.ndim))
    length0, length1 = (jnp.sqrt(jnp.sum(jnp.square(z), axes)) for z in (z0, z1))
    cosine = jnp.sum(z0 * z1, axes) / (length0 * length1)
    angle = jnp.maximum(jnp.arccos(jnp.clip(cosine, -1, 1)), 1e-4)
    length = (1 - fraction) * length0 + fraction * length1
    weight0 = length / length0 * jnp.sin((1 - fraction) * angle) / jnp.sin(angle)
    weight1 = length / length1 * jnp.sin(fraction * angle) / jnp.sin(angle)
    return expand(weight0, z0) * z0 + expand(weight1, z1) * z1


def check_tolerances(rtol: float, atol: float) -> None:
    """Raises `UsageError` for tolerances that float32 cannot meet."""
    if not (rtol >= 1e-7 and atol > 0):
        raise UsageError(f"ODE tolerances rtol={rtol}, atol={atol}: in float32 use rtol >= 1e-7 and atol > 0.")
