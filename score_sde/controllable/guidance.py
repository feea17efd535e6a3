r"""Guidance: the score of what a sample should be more of, made from two that are known.

    classifier          s + w grad_x log p(class | x_t)        (paper, eq. 14; w: Dhariwal and Nichol, 2021)
    classifier-free     s_0 + w (s_class - s_0)                (Ho and Salimans, 2022; s_0 of the network without class)
    autoguidance        s_weak + w (s - s_weak)                (Karras et al., 2024; s_weak of a weaker network)

The last two are one expression. A weight of 0 or 1 leaves one of the scores, which alone is evaluated then, so that it
is that sampler's to the last bit. Within an interval only (Kynkaanniemi et al., 2024), the weight outside it is 1, and
0 for a classifier. Each network that is asked counts as an evaluation: two for each score in the interval, one outside.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from score_sde.array_types import Array, Float, Images, Int, ScoreFn, Times
from score_sde.errors import UsageError
from score_sde.randomness import expand
from score_sde.sampling.solver import CountedScore, Counts
from score_sde.sampling.solver import evaluations as passes

Interval = tuple[float, float]
ALWAYS: Interval = (0.0, 1.0)
Evaluations = Callable[[Times | Float[np.ndarray, " b"]], Counts]


def classifier_guidance(
    score_fn: ScoreFn,
    logits_fn: Callable[[Images, Times], Float[Array, "b k"]],
    classes: Int[Array, " b"],
    *,
    scale: float = 1.0,
    interval: Interval = ALWAYS,
) -> ScoreFn:
    """The score given `classes`, by a classifier of x_t, which is an evaluation more where it is asked.

    scale: w, 0 or more; 1 is Bayes' rule. interval: of times at which the classifier is asked.
    """
    check_guidance(scale, interval)
    if scale == 0:
        return score_fn

    def log_probability(x: Images, t: Times) -> Array:
        each = jax.nn.log_softmax(logits_fn(x, t))
        return jnp.sum(jnp.take_along_axis(each, classes[:, None], axis=1))

    def guided(score: Images, x: Images, t: Times) -> Images:
        return score + scale * jax.grad(log_probability)(x, t)

    return _within(interval, score_fn, guided, lambda t: np.ones(len(t), np.int32))


def extrapolation(main: ScoreFn, reference: ScoreFn, *, scale: float = 1.0, interval: Interval = ALWAYS) -> ScoreFn:
    """reference + w (main - reference): classifier-free guidance, or autoguidance.

    scale: w, 0 or more; 1 is `main`, 0 is `reference`. interval: of times outside which w is 1.
    """
    check_guidance(scale, interval)
    if scale == 1 or (scale == 0 and interval == ALWAYS):
        return main if scale == 1 else reference

    def guided(score: Images, x: Images, t: Times) -> Images:
        base = reference(x, t)
        return base + scale * (score - base)

    return _within(interval, main, guided, functools.partial(passes, reference))


def inside(t: Times | Float[np.ndarray, " b"], interval: Interval) -> Array | np.ndarray:
    """Which times, in float32, are in the interval, its ends among them."""
    t, low, high = t.astype(np.float32), np.float32(interval[0]), np.float32(interval[1])
    return (t >= low) & (t <= high)


def _within(
    interval: Interval, plain: ScoreFn, guided: Callable[[Images, Images, Times], Images], evaluations: Evaluations
) -> CountedScore:
    """`guided`, of `plain`'s score, x and t, in the interval, else `plain`; not evaluated where no time is in it.

    evaluations: of `guided`, beside those of `plain`.
    """

    def score_fn(x: Images, t: Times) -> Images:
        score = plain(x, t)
        if interval == ALWAYS:
            return guided(score, x, t)
        chosen = inside(t, interval)
        return jax.lax.cond(
            jnp.any(chosen), lambda: jnp.where(expand(chosen, x), guided(score, x, t), score), lambda: score
        )

    return CountedScore(score_fn, lambda t: passes(plain, t) + inside(t, interval) * evaluations(t))


def check_guidance(scale: float, interval: Interval) -> None:
    """Raises `UsageError` for what is out of range."""
    if not 0 <= scale < np.inf:
        raise UsageError(f"guidance.scale={scale} must be 0 or more, and finite; 1 is Bayes' rule.")
    if len(interval) != 2 or not 0 <= interval[0] < interval[1] <= 1:
        raise UsageError(f"guidance.interval={tuple(interval)} must be two times 0 <= low < high <= 1.")
