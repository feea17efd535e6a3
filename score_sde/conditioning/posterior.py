r"""Posterior samples from p(x_0 | y) for linear observations y = A x_0 + n, by an unconditional score.

`projection` imposes the observation, perturbed to the noise level at hand, after each update of a sampler (paper,
appendix I.2 and I.3; Song et al., 2022, "Solving inverse problems in medical imaging"). The others add the gradient of
an approximate log p(y | x_t) to the score, so that any sampler can use them; dps needs a known number of steps.
With xhat(x_t) = E[x_0 | x_t], the posterior mean (Tweedie), and an approximate covariance C_t of x_0 given x_t,

    p(y | x_t)  ~  N(A xhat(x_t), A C_t A^T + noise^2 I),                                       (1)

    grad_x log p(y | x_t)  ~  (d xhat / dx)^T A^T (A C_t A^T + noise^2 I)^{-1} (y - A xhat),     (2)

| method     | C_t                            | exact for                          | reference                        |
|------------|--------------------------------|------------------------------------|----------------------------------|
| dps        | 0, and a step size instead     | nothing                            | Chung et al. 2023, algorithm 1   |
| pigdm      | k^2 v / (k^2 + v) I            | Gaussians of covariance v I        | Song et al. 2023, section 3      |
| tmpd       | (std^2 / m) d xhat / dx        | Gaussians                          | Boys et al. 2023, section 3      |
| projection | no Gaussian, but known pixels  | known and unknown independent (*)  | paper, appendix I                |

with k = std / m the noise level; (*) with noise, where the eigenvalues of A A^T are known (see `projection`). `tmpd`
uses the whole matrix, because conjugate gradients need only products with it (Rozet et al., 2024); its publication
keeps the diagonal. None of these is exact for other data; `score_sde.conditioning.particles` is, in the limit of many.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from score_sde.array_types import Array, Keys, ModelImages, PerSample, Times
from score_sde.conditioning.guidance import nudged, reach_of_gradient
from score_sde.conditioning.observations import Observation, Observed, checked_observation, residual
from score_sde.conditioning.operators import conjugate_gradients
from score_sde.config.arguments import check_arguments
from score_sde.process import Model, Prediction, Process, check_scalar
from score_sde.randomness import expand, normal
from score_sde.sampling import Project
from score_sde.sampling.solver import CountedModel, evaluations, predict


@check_arguments
@dataclasses.dataclass(frozen=True)
class Options:
    """Options of all methods; each method reads those that concern it.

    data_variance: v of pigdm, the variance of a number of x_0 in model range: 1 as published, for data in [-1, 1].
    step: zeta of dps, the length of one of the sampler's N steps. num_steps: this N; None for the N of the SDE's chain.
    iterations: steps of tmpd's conjugate gradients, each one derivative of the network. reach: limit on how far
    guidance moves a number of xhat. Data of a bounded range never need more than the width of that range, and near t =
    1 a network's errors, divided by m, would exceed it. Raises `UsageError` for values out of range.
    """

    data_variance: Annotated[float, "(0, inf)"] = 1.0
    step: Annotated[float, "(0, inf)"] = 1.0
    iterations: Annotated[int, "[1, inf)"] = 5
    reach: Annotated[float, "(0, inf]"] = np.inf
    num_steps: Annotated[int, "[1, inf)"] | None = None


Guide = Callable[[Process, Model, Observation, Options], Model]  # the observation in model range -> the guided model


@check_arguments
def dps(process: Process, model: Model, observation: Observation, options: Options) -> Model:
    """Diffusion posterior sampling: each of N steps moves x by -zeta grad_x |y - A xhat|, whatever the noise.

    zeta is `options.step`. N is `options.num_steps`, the number of steps of the sampler that takes this model; adaptive
    samplers have none (Chung et al., 2023, algorithm 1). Raises `UsageError` for a process with a schedule for each
    pixel, and for an observation of negative noise.

        import jax.numpy as jnp
        from score_sde.conditioning import Average, Observation, Options, dps
        from score_sde.process import from_score
        from score_sde.sde import VP

        process, observation = VP(), Observation(Average(2), jnp.ones((1, 2, 2, 1)), jnp.array([0.1]))
        model = dps(process, from_score(process, lambda x, t: -x), observation, Options(num_steps=20))
        x0, eps = model(jnp.zeros((1, 4, 4, 1)), jnp.array([0.5]))  # x0 > 0: towards means of 1
    """
    observation = _checked(process, observation)
    steps = process.num_scales if options.num_steps is None else options.num_steps

    def guided(x: ModelImages, t: Times) -> Prediction:
        prediction, pull_back = denoised(model, x, t)
        difference = residual(observation.operator, observation.y, prediction.x0)
        length = jnp.sqrt(jnp.sum(jnp.square(difference), axis=tuple(range(1, difference.ndim))))
        direction = difference / expand(jnp.maximum(length, 1e-12), difference)
        size = options.step * steps / jnp.square(process.g(t))
        return nudged(process, prediction, expand(size, x) * pull_back(observation.operator.adjoint(direction)), t)

    return _counted_as(model, guided)


@check_arguments
def pigdm(process: Process, model: Model, observation: Observation, options: Options) -> Model:
    """Pseudoinverse-guided diffusion: x_0 given x_t has the same variance in all directions.

    v is `options.data_variance` (Song et al., 2023, section 3). Raises `UsageError` for a process with a schedule for
    each pixel.

        import jax.numpy as jnp
        from score_sde.conditioning import Average, Observation, Options, pigdm
        from score_sde.process import from_score
        from score_sde.sde import VP

        process, observation = VP(), Observation(Average(2), jnp.ones((1, 2, 2, 1)), jnp.array([0.1]))
        model = pigdm(process, from_score(process, lambda x, t: -x), observation, Options())
        x0, eps = model(jnp.zeros((1, 4, 4, 1)), jnp.array([0.5]))  # x0 > 0: towards means of 1
    """
    observation = _checked(process, observation)

    def guided(x: ModelImages, t: Times) -> Prediction:
        prediction, pull_back = denoised(model, x, t)
        weights = isotropic_solve(process, observation, options, prediction.x0, t)
        gradient = pull_back(observation.operator.adjoint(weights))
        return nudged(process, prediction, within_reach(process, options, gradient, t), t)

    return _counted_as(model, guided)


def isotropic_solve(
    process: Process, observation: Observation, options: Options, xhat: ModelImages, t: Times
) -> Observed:
    """The solution (r^2 A A^T + noise^2 I)^{-1} (y - A xhat), with r^2 the variance of `pigdm`."""
    sigma2, data2 = jnp.square(process.sigma(t)), jnp.square(process.alpha(t)) * options.data_variance
    spread = sigma2 * options.data_variance / (sigma2 + data2)
    difference = residual(observation.operator, observation.y, xhat)
    variance = jnp.square(observation.noise) / spread
    return observation.operator.solve(difference, variance) / expand(spread, difference)


@check_arguments
def tmpd(process: Process, model: Model, observation: Observation, options: Options) -> Model:
    """Tweedie moment projection: the covariance is the one that the score's own derivative gives.

    It takes `options.iterations` steps of conjugate gradients, each one derivative of the network (Boys et al., 2023,
    section 3). Raises `UsageError` for a process with a schedule for each pixel.

        import jax.numpy as jnp
        from score_sde.conditioning import Average, Observation, Options, tmpd
        from score_sde.process import from_score
        from score_sde.sde import VP

        process, observation = VP(), Observation(Average(2), jnp.ones((1, 2, 2, 1)), jnp.array([0.1]))
        model = tmpd(process, from_score(process, lambda x, t: -x), observation, Options(iterations=3))
        x0, eps = model(jnp.zeros((1, 4, 4, 1)), jnp.array([0.5]))  # x0 > 0: towards means of 1
    """
    observation = _checked(process, observation)
    operator = observation.operator

    def guided(x: ModelImages, t: Times) -> Prediction:
        prediction, pull_back = denoised(model, x, t)
        spread = reach_of_gradient(process, t)

        def covariance(u: Observed) -> Observed:
            """The product (A C_t A^T + noise^2 I) u; the derivative of xhat is symmetric, as for any exact score."""
            moved = operator.forward(expand(spread, x) * pull_back(operator.adjoint(u)))
            return moved + expand(jnp.square(observation.noise), u) * u

        difference = residual(operator, observation.y, prediction.x0)
        weights = conjugate_gradients(covariance, difference, iterations=options.iterations)
        gradient = within_reach(process, options, pull_back(operator.adjoint(weights)), t)
        return nudged(process, prediction, gradient, t)

    return _counted_as(model, guided)


@check_arguments
def check_observable(process: Process) -> None:
    """Raises `UsageError` for a process with a schedule for each pixel: guidance needs one noise level at a time."""
    check_scalar(process, "Guidance by an observation", "sample without one, or under a process with one schedule")


def _checked(process: Process, observation: Observation) -> Observation:
    """The observation, checked, under a process by which it can guide."""
    check_observable(process)
    return checked_observation(*observation)


def _counted_as(model: Model, guided: Model) -> Model:
    """The model `guided`, counted as `model`: derivatives are no extra evaluations."""
    return CountedModel(guided, functools.partial(evaluations, model))


def within_reach(process: Process, options: Options, gradient: ModelImages, t: Times) -> ModelImages:
    """The gradient of log p(y | x_t), shortened where it would move xhat (by std^2 / m of it) beyond `reach`."""
    per_unit = expand(reach_of_gradient(process, t), gradient)
    within = jnp.clip(per_unit * gradient, -options.reach, options.reach) / jnp.where(per_unit > 0, per_unit, 1)
    return jnp.where(per_unit > 0, within, gradient)


def denoised(model: Model, x: ModelImages, t: Times) -> tuple[Prediction, Callable[[ModelImages], ModelImages]]:
    """The prediction at x, and the function u -> (d x0 / dx)^T u, from one evaluation of the network."""

    def mean(x: ModelImages) -> tuple[ModelImages, ModelImages]:
        prediction = predict(model, x, t)
        return prediction.x0, prediction.eps

    x0, pull_back, eps = jax.vjp(mean, x, has_aux=True)
    return Prediction(x0, eps), lambda u: pull_back(u)[0]


class Projection(NamedTuple):
    """Two hooks that hold a sampler to an observation."""

    start: Callable[[ModelImages], ModelImages]  # of x_T
    project: Project


@check_arguments
def projection(process: Process, observation: Observation) -> Projection:
    """Replaces the observed part of x_t, after each update, by the observation perturbed to the noise level of t.

    x <- x + A^T (A A^T)^{-1} (y_t - A x), with y_t = m y + std A z. A noisy y already has part of the noise of x_t: in
    directions where A A^T is g, y_t needs z of variance std^2 - m^2 noise^2 / g only. Where that is negative, y is less
    certain than x_t, and nothing is imposed any more (Kawar et al., 2022, in the limit). Where g is unknown, as for
    `Linear`, all of z is added and lambda = std^2 / (std^2 + m^2 noise^2) of the change is made, which trusts y too
    much. The mean of an update gets the mean of y_t, without noise anywhere (the paper's code leaves the noise of the
    last step where nothing is known). x_T gets y itself, as in the paper's code.

        import jax
        import jax.numpy as jnp
        from score_sde.conditioning import Average, Observation, projection
        from score_sde.process import from_score
        from score_sde.sampling import fast_solver, solve
        from score_sde.sde import VP

        process, y = VP(), jnp.ones((1, 2, 2, 1))
        held = projection(process, Observation(Average(2), y, jnp.zeros(1)))
        solver = fast_solver(process, from_score(process, lambda x, t: -x), num_steps=5, project=held.project)
        x, nfe = solve(solver, jax.random.key(0), held.start(jnp.zeros((1, 4, 4, 1))))  # means of blocks: nearly y
    """
    observation = _checked(process, observation)
    operator, y = observation.operator, observation.y
    spectral = operator.function(jnp.ones_like, y) is not None

    def pull(x: ModelImages, target: Observed, std: PerSample, noise: PerSample) -> ModelImages:
        imposed = operator.impose(x, target)
        if spectral:
            change = operator.function(lambda g: (left(g, std, noise) >= 0) / g, residual(operator, target, x))
            return jnp.where(expand(noise == 0, x), imposed, x + operator.adjoint(change))
        strength = expand(jnp.square(std) / (jnp.square(std) + jnp.square(noise)), x)
        return jnp.where(strength == 1, imposed, x + strength * (imposed - x))

    def left(g: Array, std: PerSample, noise: PerSample) -> Array:
        """Remaining variance of z."""
        return expand(jnp.square(std), g) - expand(jnp.square(noise), g) / g

    def project(keys: Keys, t: Times, x: ModelImages, x_mean: ModelImages) -> tuple[ModelImages, ModelImages]:
        alpha, std = process.alpha(t), process.sigma(t)
        mean, noise = expand(alpha, y) * y, alpha * observation.noise
        z = operator.forward(normal(keys, x.shape[1:]).astype(x.dtype))
        perturbation = expand(std, y) * z
        if spectral:
            reduced = operator.function(lambda g: jnp.sqrt(jnp.maximum(left(g, std, noise), 0.0)), z)
            perturbation = jnp.where(expand(noise == 0, y), perturbation, reduced)
        return pull(x, mean + perturbation, std, noise), pull(x_mean, mean, std, noise)

    return Projection(lambda x: operator.impose(x, y), project)


GUIDES: dict[str, Guide] = {"dps": dps, "pigdm": pigdm, "tmpd": tmpd}
METHODS = ("projection", *GUIDES, "particles")  # of config.guidance.inverse
