r"""Guidance: the prediction of what a sample should be more of, made from two that are known.

    classifier          s + w grad_x log p(class | x_t)        (paper, eq. 14; w: Dhariwal and Nichol, 2021)
    classifier-free     s_0 + w (s_class - s_0)                (Ho and Salimans, 2022; s_0 of the network without class)
    autoguidance        s_weak + w (s - s_weak)                (Karras et al., 2024; s_weak of a weaker network)

The last two are one expression, which holds for predictions of x_0 and eps as it does for scores. A weight of 0 or 1
leaves one of the models, which alone is evaluated then, so that it is that sampler's to the last bit. Within an
interval only (Kynkaanniemi et al., 2024), the weight outside it is 1, and 0 for a classifier. Each network that is
asked counts as an evaluation: two for each model in the interval, one outside.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from score_sde.array_types import Array, Float, Images, Int, Times
from score_sde.errors import UsageError
from score_sde.process import Model, Prediction, Process
from score_sde.randomness import expand
from score_sde.sampling.solver import CountedModel, Counts, predict
from score_sde.sampling.solver import evaluations as passes

Interval = tuple[float, float]
ALWAYS: Interval = (0.0, 1.0)
Evaluations = Callable[[Times | Float[np.ndarray, " b"]], Counts]


def classifier_guidance(
    process: Process,
    model: Model,
    logits_fn: Callable[[Images, Times], Float[Array, "b k"]],
    classes: Int[Array, " b"],
    *,
    scale: float = 1.0,
    interval: Interval = ALWAYS,
) -> Model:
    """The model given `classes`, by a classifier of x_t, which is an evaluation more where it is asked.

    scale: w, 0 or more; 1 is Bayes' rule. interval: of times at which the classifier is asked.
    """
    check_guidance(scale, interval)
    if scale == 0:
        return model

    def log_probability(x: Images, t: Times) -> Array:
        each = jax.nn.log_softmax(logits_fn(x, t))
        return jnp.sum(jnp.take_along_axis(each, classes[:, None], axis=1))

    def guided(prediction: Prediction, x: Images, t: Times) -> Prediction:
        return nudged(process, prediction, scale * jax.grad(log_probability)(x, t), t)

    return _within(interval, model, guided, lambda t: np.ones(len(t), np.int32))


def nudged(process: Process, prediction: Prediction, gradient: Images, t: Times) -> Prediction:
    """The prediction whose score is greater by a gradient: eps falls by sigma of it, x_0 rises by sigma^2 / alpha.

    Where alpha is 0, and x_t tells nothing of x_0, x_0 stays: guidance begins with a sampler's second step.
    """
    moved = expand(reach_of_gradient(process, t), gradient) * gradient
    return Prediction(prediction.x0 + moved, prediction.eps - expand(process.sigma(t), gradient) * gradient)


def reach_of_gradient(process: Process, t: Times) -> Array:
    """sigma^2 / alpha, by which a gradient added to the score moves x_0 (Tweedie); 0 where alpha is 0."""
    alpha = process.alpha(t)
    return jnp.where(alpha > 0, jnp.square(process.sigma(t)) / jnp.where(alpha > 0, alpha, 1), 0)


def extrapolation(main: Model, reference: Model, *, scale: float = 1.0, interval: Interval = ALWAYS) -> Model:
    """reference + w (main - reference): classifier-free guidance, or autoguidance.

    scale: w, 0 or more; 1 is `main`, 0 is `reference`. interval: of times outside which w is 1.
    """
    check_guidance(scale, interval)
    if scale == 1 or (scale == 0 and interval == ALWAYS):
        return main if scale == 1 else reference

    def guided(prediction: Prediction, x: Images, t: Times) -> Prediction:
        return jax.tree.map(lambda own, base: base + scale * (own - base), prediction, predict(reference, x, t))

    return _within(interval, main, guided, functools.partial(passes, reference))


def inside(t: Times | Float[np.ndarray, " b"], interval: Interval) -> Array | np.ndarray:
    """Which times, in float32, are in the interval, its ends among them."""
    t, low, high = t.astype(np.float32), np.float32(interval[0]), np.float32(interval[1])
    return (t >= low) & (t <= high)


def _within(
    interval: Interval,
    plain: Model,
    guided: Callable[[Prediction, Images, Times], Prediction],
    evaluations: Evaluations,
) -> CountedModel:
    """`guided`, of `plain`'s prediction, x and t, in the interval, else `plain`; not evaluated where no time is in it.

    evaluations: of `guided`, beside those of `plain`.
    """

    def model(x: Images, t: Times) -> Prediction:
        prediction = predict(plain, x, t)
        if interval == ALWAYS:
            return guided(prediction, x, t)
        chosen = inside(t, interval)

        def some() -> Prediction:
            within = guided(prediction, x, t)
            return jax.tree.map(lambda new, old: jnp.where(expand(chosen, x), new, old), within, prediction)

        return jax.lax.cond(jnp.any(chosen), some, lambda: prediction)

    return CountedModel(model, lambda t: passes(plain, t) + inside(t, interval) * evaluations(t))


def check_guidance(scale: float, interval: Interval) -> None:
    """Raises `UsageError` for what is out of range."""
    if not 0 <= scale < np.inf:
        raise UsageError(f"guidance.scale={scale} must be 0 or more, and finite; 1 is Bayes' rule.")
    if len(interval) != 2 or not 0 <= interval[0] < interval[1] <= 1:
        raise UsageError(f"guidance.interval={tuple(interval)} must be two times 0 <= low < high <= 1.")
