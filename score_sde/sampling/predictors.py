r"""Predictors: single steps of a reverse-time SDE (paper, algorithm 1 and appendices D to F).

The noise of the paper's reverse SDE has the variance g^2 dt. There is a reverse SDE with w g^2 dt for every w >= 0,
and all of them have the marginals p_t (Karras et al., 2022, appendix B),

    dx = [f x - (1 + w) / 2 g^2 score] dt + sqrt(w) g dw,     w = 1 the paper's,  w = 0 the probability-flow ODE.   (1)

A step of any predictor is four numbers for each time, the weights in

    x_mean = x x_t + x0 E[x_0 | x_t] + eps E[eps | x_t],      x_next = x_mean + z noise.                            (2)

A predictor takes the time t and the time at which its step ends. None stands for a step of the paper's code: 1/N, or a
step of the chain, wherever it ends.

    import jax.numpy as jnp
    from score_sde.process import Prediction
    from score_sde.sampling import PREDICTORS
    from score_sde.sde import VP

    step = PREDICTORS["reverse_diffusion"](VP(), jnp.array([0.5]))
    x_mean = step.mean(jnp.ones((1, 8, 8, 3)), Prediction(jnp.zeros((1, 8, 8, 3)), jnp.ones((1, 8, 8, 3))))
"""

from collections.abc import Callable
from typing import Annotated, NamedTuple

import jax.numpy as jnp

from score_sde.array_types import Array, ModelImages, PerSample, Times
from score_sde.config.arguments import check_arguments
from score_sde.errors import UsageError
from score_sde.process import Prediction, Process, check_backwards
from score_sde.randomness import expand
from score_sde.sde import chain_of

Diffusion = Annotated[float, "[0, 1e6]"] | Callable[[Times], Times]  # w, or w(t)


class Step(NamedTuple):
    """Weights of eq. (2), each of shape (b,) or of the images' shape; None stands for 0."""

    x: PerSample | Array | None
    x0: PerSample | Array | None
    eps: PerSample | Array | None
    z: PerSample | Array

    def mean(self, x: ModelImages, prediction: Prediction) -> ModelImages:
        """The mean of the step, x_mean of eq. (2)."""
        terms = zip((self.x, self.x0, self.eps), (x, *prediction), strict=True)
        return sum(expand(weight, x) * value for weight, value in terms if weight is not None)


Predictor = Callable[[Process, Times, Times | None, Diffusion], Step]


@check_arguments
def euler_maruyama(process: Process, t: Times, t_next: Times | None = None, w: Diffusion = 1.0) -> Step:
    """Euler-Maruyama step of eq. (1). Raises `UsageError` for processes whose f and g are infinite at t = 1."""
    if process.begins_in_noise:
        raise UsageError(
            f"Euler-Maruyama needs f and g, which are infinite at t = 1 of {type(process).__name__}; set "
            "sampling.predictor=exponential."
        )
    n, g, w = process.steps_a_unit(t, t_next), process.g(t), diffusion_at(w, t)
    return _of_score(process, t, 1 - process.f(t) / n, (1 + w) / 2 * jnp.square(g) / n, w**0.5 * g / n**0.5)


@check_arguments
def reverse_diffusion(process: Process, t: Times, t_next: Times | None = None, w: Diffusion = 1.0) -> Step:
    """Reverse-diffusion step: eq. (1) discretised like the chain (eq. 46). Raises `UsageError` without a chain."""
    f, g = chain_of(process, "The reverse-diffusion predictor needs").chain(t, t_next)
    w = diffusion_at(w, t)
    return _of_score(process, t, 1 - f, (1 + w) / 2 * jnp.square(g), w**0.5 * g)


@check_arguments
def ancestral_sampling(process: Process, t: Times, t_next: Times | None = None, w: Diffusion = 1.0) -> Step:
    """Ancestral sampling: DDPM's for VP (eq. 4), SMLD's for VE (eq. 47).

    It is defined for w = 1 only. Raises `UsageError` for processes without such a step.
    """
    a, b, c = chain_of(process, "Ancestral sampling needs").ancestral(t, t_next)
    return _of_score(process, t, a, b, c)


@check_arguments
def exponential(process: Process, t: Times, t_next: Times, w: Diffusion = 1.0) -> Step:
    """Exponential step of eq. (1): its linear part is exact, x_0 is held constant. DDIM at w = 0, on any process.

    With r the ratio of the noise levels at t_next and t, x_next = alpha x0 + sigma (r^w eps + sqrt(1 - r^(2 w)) z) at
    t_next. It is finite where alpha(1) = 0, so that r is 0.
    """
    check_backwards(t, t_next)
    alpha, sigma, w = process.alpha(t_next), process.sigma(t_next), diffusion_at(w, t)
    ratio = sigma * process.alpha(t) / (alpha * process.sigma(t))
    kept = ratio**w
    return Step(None, alpha, sigma * kept, sigma * jnp.sqrt(1 - jnp.square(kept)))


def _of_score(process: Process, t: Times, a: PerSample, b: PerSample, c: PerSample) -> Step:
    """The step x_mean = a x + b score, x = x_mean + c z, in which the paper writes its predictors."""
    return Step(a, None, -b / process.sigma(t), c)


@check_arguments
def diffusion_at(w: Diffusion, t: Times) -> Times | float:
    """The diffusion w at times t, if it is a function of time."""
    return w(t) if callable(w) else w


PREDICTORS: dict[str, Predictor | None] = {
    "euler_maruyama": euler_maruyama,
    "reverse_diffusion": reverse_diffusion,
    "ancestral_sampling": ancestral_sampling,
    "exponential": exponential,
    "none": None,
}
