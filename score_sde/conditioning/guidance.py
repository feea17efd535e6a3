r"""Guidance: predictions that move samples towards a class or a better network, combined from two predictions.

    classifier          s + w grad_x log p(class | x_t)        (paper, eq. 14; w: Dhariwal and Nichol, 2021)
    classifier-free     s_0 + w (s_class - s_0)                (Ho and Salimans, 2022; s_0 of the network without class)
    negative caption    s_neg + w (s_text - s_neg)             (s_neg of the network under another caption)
    autoguidance        s_weak + w (s - s_weak)                (Karras et al., 2024; s_weak of a weaker network)

The last three are one expression, which holds for predictions of x_0 and eps as for scores. With a weight of 0 or 1
only one of the models is evaluated, so that samples are that model's to the last bit. Where guidance is limited to an
interval of times (Kynkaanniemi et al., 2024), the weight outside it is 1, and 0 for a classifier. Every forward pass of
a network counts as an evaluation: two inside the interval, one outside.
"""

import functools
from collections.abc import Callable
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np

from score_sde.array_types import Array, Float, Integer, ModelImages, PerSample, Times
from score_sde.config.arguments import check_arguments
from score_sde.config.kinds import is_abstract
from score_sde.errors import UsageError, renamed
from score_sde.process import Model, Prediction, Process
from score_sde.randomness import expand
from score_sde.sampling.solver import CountedModel, Counts, predict
from score_sde.sampling.solver import evaluations as passes

Interval = tuple[float, float]
ALWAYS: Interval = (0.0, 1.0)
Evaluations = Callable[[Times | Float[np.ndarray, " b"]], Counts]


@renamed("classes", "labels")
@check_arguments
def classifier_guidance(
    process: Process,
    model: Model,
    logits_fn: Callable[[ModelImages, Times], Float[Array, "b k"]],
    labels: Annotated[Integer[Array, " b"], "[0, inf)"],
    *,
    scale: Annotated[float, "[0, inf)"] = 1.0,
    interval: Interval = ALWAYS,
) -> Model:
    """The model guided towards `labels` by a classifier of x_t, one more evaluation at times where it is used.

    logits_fn: (x, t) -> logits (b, k). labels: int (b,). scale: w, 0 or more; 1 is Bayes' rule. interval: times at
    which the classifier is used. Raises `UsageError` for values out of range.

        import jax.numpy as jnp
        from score_sde.conditioning import classifier_guidance
        from score_sde.process import from_score
        from score_sde.sde import VP

        def logits_fn(x, t):  # two classes, of dark and of bright images
            return jnp.stack([-x.mean((1, 2, 3)), x.mean((1, 2, 3))], axis=1)

        model = from_score(VP(), lambda x, t: -x)
        guided = classifier_guidance(VP(), model, logits_fn, jnp.array([1]), scale=2.0)
        x0, eps = guided(jnp.zeros((1, 8, 8, 1)), jnp.array([0.5]))  # x0 > 0: brighter
    """
    check_guidance(scale, interval)
    if scale == 0:
        return model

    def log_probability(x: ModelImages, t: Times) -> Array:
        each = jax.nn.log_softmax(logits_fn(x, t))
        if not is_abstract(labels) and np.max(np.asarray(labels), initial=0) >= each.shape[1]:
            raise UsageError(f"There are labels 0 to {each.shape[1] - 1}, not {np.max(np.asarray(labels))}.")
        return jnp.sum(jnp.take_along_axis(each, labels[:, None], axis=1))

    def guided(prediction: Prediction, x: ModelImages, t: Times) -> Prediction:
        return nudged(process, prediction, scale * jax.grad(log_probability)(x, t), t)

    return _within(interval, model, guided, lambda t: np.ones(len(t), np.int32))


def nudged(process: Process, prediction: Prediction, gradient: ModelImages, t: Times) -> Prediction:
    """The prediction after a gradient g is added to the score: eps falls by sigma g, x_0 rises by sigma^2 / alpha g.

    Where alpha is 0, x_t says nothing about x_0 and x_0 is left unchanged: guidance begins with a sampler's second
    step.
    """
    moved = expand(reach_of_gradient(process, t), gradient) * gradient
    return Prediction(prediction.x0 + moved, prediction.eps - expand(process.sigma(t), gradient) * gradient)


def reach_of_gradient(process: Process, t: Times) -> Array:
    """Factor sigma^2 / alpha by which a gradient added to the score moves x_0 (Tweedie); 0 where alpha is 0."""
    alpha = process.alpha(t)
    return jnp.where(alpha > 0, jnp.square(process.sigma(t)) / jnp.where(alpha > 0, alpha, 1), 0)


@check_arguments
def extrapolation(
    main: Model, reference: Model, *, scale: Annotated[float, "[0, inf)"] = 1.0, interval: Interval = ALWAYS
) -> Model:
    """The model reference + w (main - reference): classifier-free guidance, or autoguidance.

    scale: w, 0 or more; 1 is `main`, 0 is `reference`. interval: times outside which w is 1. Raises `UsageError` for
    values out of range.

        import jax.numpy as jnp
        from score_sde.conditioning import extrapolation
        from score_sde.process import from_score
        from score_sde.sde import VP

        main, weak = (from_score(VP(), lambda x, t, factor=factor: -factor * x) for factor in (1.0, 0.5))
        x0, eps = extrapolation(main, weak, scale=2.0)(jnp.ones((1, 8, 8, 1)), jnp.array([0.5]))
    """
    check_guidance(scale, interval)
    if scale == 1 or (scale == 0 and interval == ALWAYS):
        return main if scale == 1 else reference

    def guided(prediction: Prediction, x: ModelImages, t: Times) -> Prediction:
        return jax.tree.map(lambda own, base: base + scale * (own - base), prediction, predict(reference, x, t))

    return _within(interval, main, guided, functools.partial(passes, reference))


@check_arguments
def interpolation(first: Model, second: Model, share: Annotated[PerSample, "[0, 1]"]) -> Model:
    """The model (1 - a) first + a second, as between two captions; two evaluations at every time.

    At each noise level its score is that of the normalised product p_first^(1 - a) p_second^a of the noisy densities.
    Noise on the product of the densities of images is another law, so the samples are not exactly of that product, as
    guided samples are not of the tilted law. At a = 0 and 1 the numbers are those of `first` and `second`, exactly;
    a program of both networks may round their last bit in another way than a program of one.

    share: a of each sample, float (b,).

        import jax.numpy as jnp
        from score_sde.conditioning import interpolation
        from score_sde.process import from_score
        from score_sde.sde import VP

        first, second = (from_score(VP(), lambda x, t, mean=mean: mean - x) for mean in (0.0, 1.0))
        model = interpolation(first, second, jnp.array([0.0, 0.5, 1.0]))
        x0, eps = model(jnp.zeros((3, 8, 8, 1)), jnp.full(3, 0.5))
    """

    def model(x: ModelImages, t: Times) -> Prediction:
        a, ends = expand(share, x), (predict(first, x, t), predict(second, x, t))
        return jax.tree.map(lambda start, end: (1 - a) * start + a * end, *ends)

    return CountedModel(model, lambda t: passes(first, t) + passes(second, t))


def inside(t: Times | Float[np.ndarray, " b"], interval: Interval) -> Array | np.ndarray:
    """Booleans: whether each time is in the closed interval, compared in float32."""
    t, low, high = t.astype(np.float32), np.float32(interval[0]), np.float32(interval[1])
    return (t >= low) & (t <= high)


def _within(
    interval: Interval,
    plain: Model,
    guided: Callable[[Prediction, ModelImages, Times], Prediction],
    evaluations: Evaluations,
) -> CountedModel:
    """The model `guided` inside the interval and `plain` outside; `guided` is skipped when no time is inside.

    guided: (prediction of `plain`, x, t) -> prediction. evaluations: passes of `guided` beyond those of `plain`.
    """

    def model(x: ModelImages, t: Times) -> Prediction:
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
    """Raises `UsageError` for a scale or an interval out of range."""
    if not 0 <= scale < np.inf:
        raise UsageError(f"guidance.scale={scale} must be 0 or more, and finite; 1 is Bayes' rule.")
    if len(interval) != 2 or not 0 <= interval[0] < interval[1] <= 1:
        raise UsageError(f"guidance.interval={tuple(interval)} must be two times 0 <= low < high <= 1.")
