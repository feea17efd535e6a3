r"""Particles: samples of p(x_0 | y) that are exact in the limit of many particles (Wu et al., 2023, algorithm 1).

The paper is "Practical and asymptotically exact conditional sampling in diffusion models". A sample has K particles,
which the predictor moves under a guided score, and whose weights correct that score's error. The twist p~(y | x_t) is
any approximation of p(y | x_t) that becomes exact as t goes to 0. With the predictor's step p and the guided step q
from x_i to x_{i+1},

    log w_{i+1} = log w_i + log p~(y | x_{i+1}) - log p~(y | x_i) + log p(x_{i+1} | x_i) - log q(x_{i+1} | x_i).     (1)

The twist is `pigdm`'s, and its gradient is the guidance. When the effective number of particles falls below half of K,
they are drawn anew (systematic resampling); at the end one is drawn by its weight. The error falls with K to that of
the sampler itself. The particles of a sample are not independent; samples are.
"""

from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp

from score_sde.array_types import Array, Float, Int, Key, Keys, ModelImages, PerSample
from score_sde.conditioning.guidance import nudged
from score_sde.conditioning.observations import Observation, checked_observation, residual
from score_sde.conditioning.posterior import Options, check_observable, denoised, isotropic_solve, within_reach
from score_sde.config.arguments import check_arguments
from score_sde.errors import UsageError, one_of
from score_sde.process import Model, Prediction, Process
from score_sde.randomness import Stream, expand, normal, stream, uniform
from score_sde.sampling import PREDICTORS, Solver
from score_sde.sampling.predictor_corrector import time_steps
from score_sde.sampling.predictors import exponential
from score_sde.sampling.solver import evaluations, fraction_of, planned

Clouds = Float[Array, "b k h w c"]  # the particles of each sample
Weights = Float[Array, "b k"]  # in logarithms


class State(NamedTuple):
    """State of the particle filter, a cloud of k particles for each sample."""

    i: Int[Array, ""]
    keys: Keys
    x: Clouds
    x_mean: Clouds  # without the noise of the last step
    log_w: Weights  # of the particles before the last step
    change: Weights  # the terms that eq. (1) adds to them, without the new twist
    nfe: Int[Array, " b"]


@check_arguments
def particles(
    process: Process,
    model: Model,
    observation: Observation,
    options: Options,
    *,
    num_particles: int = 64,
    predictor: str = "reverse_diffusion",
    eps: Annotated[float, "(0, 1)"] | None = None,
    noise_removal: bool = True,
) -> Solver:
    """A solver from x_T ~ p_1 to samples; its result is (x, nfe), nfe of all particles of a sample.

    model and observation take batches with `num_particles` rows for each sample. The first particle starts at x_T.
    predictor, eps, noise_removal: as for `predictor_corrector`. Raises `UsageError` for fewer than 2 particles.

        import jax
        import jax.numpy as jnp
        from score_sde.conditioning import Average, Observation, Options, particles
        from score_sde.process import from_score
        from score_sde.sampling import solve
        from score_sde.sde import VP

        process, k = VP(num_scales=50), 8
        observation = Observation(Average(2), jnp.ones((1, 2, 2, 1)), jnp.array([0.1])).repeated(k)
        model = from_score(process, lambda x, t: -x)
        solver = particles(process, model, observation, Options(), num_particles=k)
        x, nfe = solve(solver, jax.random.key(0), jnp.zeros((1, 4, 4, 1)))  # nfe: 8 times 50
    """
    check_observable(process)
    observation = checked_observation(*observation)
    step_of = PREDICTORS[one_of("sampling.predictor", predictor, PREDICTORS)]
    if step_of is None:
        raise UsageError("Particles are moved by a predictor, and sampling.predictor is 'none'.")
    if num_particles < 2:
        raise UsageError(f"guidance.particles={num_particles} must be at least 2.")
    grid = time_steps(process, eps, exact=step_of is exponential)
    jax.eval_shape(lambda: step_of(process, *grid.at(0, jnp.ones(1)), 1.0))  # raises now for a process without it
    n, k = len(grid.t), num_particles
    if len(observation.y) % k:
        raise UsageError(f"The observation must have {k} rows for each sample, as of observation.repeated({k}).")

    def flat(cloud: Array) -> Array:
        return cloud.reshape(-1, *cloud.shape[2:])

    def clouds(rows: Array) -> Array:
        return rows.reshape(-1, k, *rows.shape[1:])

    def own_keys(keys: Keys) -> Key[Array, " particles"]:
        """A key for each particle."""
        return flat(jax.vmap(lambda key: jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(k)))(keys))

    def init(keys: Keys, x: ModelImages) -> State:
        others = clouds(process.prior_sample(own_keys(stream(keys, Stream.PARTICLES)), x.shape[1:])).astype(x.dtype)
        cloud = others.at[:, 0].set(x)
        none = jnp.zeros((len(x), k), x.dtype)
        nfe = jnp.zeros(len(x), jnp.int32)
        return State(jnp.int32(0), stream(keys, Stream.STEPS), cloud, cloud, none, none, nfe)

    def step(state: State) -> State:
        keys = stream(state.keys, state.i)
        x = flat(state.x)
        t, t_next = grid.at(state.i, x)
        prediction, pull_back = denoised(model, x, t)
        weighted = isotropic_solve(process, observation, options, prediction.x0, t)
        difference = residual(observation.operator, observation.y, prediction.x0)
        twist = clouds(-0.5 * jnp.sum(difference * weighted, axis=tuple(range(1, difference.ndim))))
        gradient = within_reach(process, options, pull_back(observation.operator.adjoint(weighted)), t)

        log_w = state.log_w + state.change + twist
        chosen, log_w = _resampled(stream(keys, Stream.PARTICLES), log_w)
        x, x0, eps, gradient, twist = (
            flat(_take(cloud, chosen)) for cloud in (state.x, *map(clouds, prediction), clouds(gradient), twist)
        )
        weights, prediction = step_of(process, t, t_next, 1.0), Prediction(x0, eps)
        c, z = expand(weights.z, x), normal(own_keys(stream(keys, Stream.NOISE)), x.shape[1:]).astype(x.dtype)
        unguided, mean = weights.mean(x, prediction), weights.mean(x, nudged(process, prediction, gradient, t))
        change = _log_ratio(mean - unguided, c, z) - twist
        nfe = state.nfe + jnp.sum(clouds(jnp.asarray(evaluations(model, t))), axis=1)
        return State(state.i + 1, state.keys, clouds(mean + c * z), clouds(mean), log_w, clouds(change), nfe)

    def result(state: State) -> tuple[ModelImages, Array]:
        keys = stream(state.keys, n)
        gumbel = -jnp.log(-jnp.log(jnp.clip(uniform(keys, (k,)), 1e-12, 1 - 1e-7)))
        best = jnp.argmax(state.log_w + gumbel, axis=1)[:, None]
        x = _take(state.x_mean if noise_removal else state.x, best)[:, 0]
        return x, state.nfe

    return Solver(
        init=init,
        step=step,
        fraction=lambda state: fraction_of(n, state.i),
        view=lambda state: state.x[:, 0],
        result=result,
        nfe=k * planned(model, grid.t),
        steps=n,
    )


def _log_ratio(shift: ModelImages, c: Array, z: ModelImages) -> PerSample:
    """log p - log q of Gaussians of standard deviation c, at q's mean plus c z; 0 where c is 0.

    shift: the mean of q minus that of p.
    """
    relative = shift / jnp.where(c > 0, c, 1.0)
    return -jnp.sum(relative * (0.5 * relative + z), axis=(1, 2, 3)) * (c[:, 0, 0, 0] > 0)


def _take(cloud: Array, chosen: Int[Array, "b k"]) -> Array:
    return jnp.take_along_axis(cloud, chosen.reshape(chosen.shape + (1,) * (cloud.ndim - 2)), axis=1)


def _resampled(keys: Keys, log_w: Weights) -> tuple[Int[Array, "b k"], Weights]:
    """Indices of the particles that go on, and their weights, which are equal after resampling."""
    k = log_w.shape[1]
    log_w = log_w - jax.nn.logsumexp(log_w, axis=1, keepdims=True)
    w = jnp.exp(log_w)
    few = 1 / jnp.sum(jnp.square(w), axis=1, keepdims=True) < k / 2
    positions = (jnp.arange(k) + uniform(keys)[:, None]) / k
    drawn = jax.vmap(jnp.searchsorted)(jnp.cumsum(w, axis=1), positions)
    chosen = jnp.where(few, jnp.minimum(drawn, k - 1), jnp.arange(k))
    return chosen.astype(jnp.int32), jnp.where(few, -jnp.log(jnp.float32(k)), log_w)
