"""The probability-flow ODE (paper, section 4.3, eq. 13): sampler, encoder and decoder.

dx/dt = f(t) x - g(t)^2 score(x, t) / 2 = alpha' E[x_0 | x_t] + sigma' E[eps | x_t] has the process's marginals. It is
solved from 1 to eps for samples, and from eps to 1 for latents; from or to another time for images that are noisy.
"""

import functools
from collections.abc import Callable
from typing import Annotated

import jax
import jax.numpy as jnp

from score_sde.array_types import Array, Keys, ModelImages, Times
from score_sde.config.arguments import check_arguments
from score_sde.process import Eps, Model, Process, velocity
from score_sde.randomness import expand
from score_sde.sampling.predictors import reverse_diffusion
from score_sde.sampling.runge_kutta import State, runge_kutta
from score_sde.sampling.solver import Solver, StartTime, Tolerance, check_times, evaluations, predict
from score_sde.sde import Chain

RelativeTolerance = Annotated[float, "[1e-7, inf)"]  # less is below rounding in float32


@check_arguments
def drift(process: Process, model: Model) -> Callable[[Times, ModelImages], ModelImages]:
    """The velocity field (t, x) -> dx/dt of the ODE."""
    return lambda t, x: velocity(process, predict(model, x, t), t)


@check_arguments
def probability_flow(
    process: Process,
    model: Model,
    *,
    rtol: RelativeTolerance = 1e-5,
    atol: Tolerance = 1e-5,
    ode_method: str = "dopri5",
    eps: Eps | None = None,
    start_time: StartTime = 1.0,
    noise_removal: bool = True,
    encode: bool = False,
) -> Solver:
    """A solver from x_T to samples, or from images to latents if `encode`; its result is (x, nfe), nfe of shape (b,).

    model: (x, t) -> `Prediction`. rtol, atol: tolerances of each step, for each sample separately.
    ode_method: the Runge-Kutta pair, a name in `score_sde.sampling.tableaus.TABLEAUS`.
    eps: the time nearest to the data, default `process.sampling_eps`. start_time: the time farthest from the data, in
    (eps, 1], at which samples begin and latents are.
    noise_removal: one denoising step after the ODE, for 1 more evaluation: as in the paper's code the mean of the
    reverse-diffusion predictor at eps, or without a chain the posterior mean of the data. Never when encoding.
    A sample on which the solver fails is NaN. Raises `UsageError` for tolerances and times out of range.

        import jax
        import numpy as np
        from score_sde.oracles import Gaussian
        from score_sde.sampling import probability_flow, solve
        from score_sde.sde import VP

        data, process = Gaussian(np.zeros((2, 2, 1)), 0.25), VP()
        images = data.sample(jax.random.split(jax.random.key(0), 4))
        encoder = probability_flow(process, data.model(process), encode=True)
        latents, nfe = solve(encoder, jax.random.key(0), images)
    """
    eps = process.sampling_eps if eps is None else eps
    check_times(eps, start_time)
    t0, t1 = (eps, start_time) if encode else (start_time, eps)
    flow = drift(process, model)
    passes = functools.partial(evaluations, model)
    tolerances = dict(rtol=rtol, atol=atol)
    ode = runge_kutta(lambda t, x, _: flow(t, x), t0, t1, method=ode_method, **tolerances, evaluations=passes)
    denoise = noise_removal and not encode
    chained = isinstance(process, Chain)
    if denoise and chained:
        jax.eval_shape(lambda: reverse_diffusion(process, jnp.ones(1)))  # raises now for a process without it

    def init(keys: Keys, x: ModelImages) -> State:
        return ode.init(x)

    def result(state: State):
        x, nfe = state.y, state.nfe
        if denoise:
            t = jnp.full(len(x), eps, x.dtype)
            prediction = predict(model, x, t)
            x = reverse_diffusion(process, t).mean(x, prediction) if chained else prediction.x0
            nfe = nfe + passes(t)
        return x, nfe

    def batch_nfe(state: State) -> Array:
        return state.made + (jnp.max(passes(jnp.full_like(state.t, eps))) if denoise else 0)

    return Solver(
        init, ode.step, ode.fraction, lambda state: state.y, result, batch_nfe=batch_nfe, progress=ode.progress
    )


@check_arguments
def slerp(z0: ModelImages, z1: ModelImages, fraction: Annotated[float, "[0, 1]"]) -> ModelImages:
    """Spherical interpolation between latents: the direction turns at constant speed, the length changes linearly.

    A straight line would leave the sphere near which almost all of a Gaussian's mass lies. fraction: in [0, 1]; 0 gives
    z0, 1 gives z1.

        import jax.numpy as jnp
        from score_sde.sampling import slerp

        z0, z1 = jnp.ones((1, 8, 8, 3)), jnp.ones((1, 8, 8, 3)).at[:, :4].set(-1)
        z = slerp(z0, z1, 0.5)  # of the same length as z0 and z1
    """
    axes = tuple(range(1, z0.ndim))
    length0, length1 = (jnp.sqrt(jnp.sum(jnp.square(z), axes)) for z in (z0, z1))
    cosine = jnp.sum(z0 * z1, axes) / (length0 * length1)
    angle = jnp.maximum(jnp.arccos(jnp.clip(cosine, -1, 1)), 1e-4)
    length = (1 - fraction) * length0 + fraction * length1
    weight0 = length / length0 * jnp.sin((1 - fraction) * angle) / jnp.sin(angle)
    weight1 = length / length1 * jnp.sin(fraction * angle) / jnp.sin(angle)
    return expand(weight0, z0) * z0 + expand(weight1, z1) * z1
