r"""Guidance: the score of what a sample should be more of, made from two that are known.

    classifier          s + w grad_x log p(class | x_t)        (paper, eq. 14; w: Dhariwal and Nichol, 2021)
    classifier-free     s_0 + w (s_class - s_0)                (Ho and Salimans, 2022; s_0 of the network without class)
    autoguidance        s_weak + w (s - s_weak)                (Karras et al., 2024; s_weak of a weaker network)

The last two are one expression. A weight of 0 or 1 leaves one of the scores, which alone is evaluated then, so that it
is that sampler's to the last bit. Within an interval only (Kynkaanniemi et al., 2024), the weight outside it is 1, and
0 for a classifier.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from score_sde.array_types import Array, Float, Images, Int, ScoreFn, Times
from score_sde.errors import UsageError
from score_sde.randomness import expand
from score_sde.sampling import Solver

Interval = tuple[float, float]
ALWAYS: Interval = (0.0, 1.0)


class Guided(NamedTuple):
    """A score, and how many evaluations of a network one of it takes, at each of an array of times."""

    score_fn: ScoreFn
    evaluations: Callable[[np.ndarray], np.ndarray] = lambda t: np.ones(len(t), int)


def classifier_guidance(
    score_fn: ScoreFn,
    logits_fn: Callable[[Images, Times], Float[Array, "b k"]],
    classes: Int[Array, " b"],
    *,
    scale: float = 1.0,
    interval: Interval = ALWAYS,
) -> Guided:
    """The score given `classes`, by a classifier of x_t. Its evaluations and gradients are not counted.

    scale: w, 0 or more; 1 is Bayes' rule. interval: of times at which the classifier is asked.
    """
    check_guidance(scale, interval)
    if scale == 0:
        return Guided(score_fn)

    def log_probability(x: Images, t: Times) -> Array:
        each = jax.nn.log_softmax(logits_fn(x, t))
        return jnp.sum(jnp.take_along_axis(each, classes[:, None], axis=1))

    def guided(x: Images, t: Times) -> Images:
        return score_fn(x, t) + scale * jax.grad(log_probability)(x, t)

    return Guided(_within(interval, guided, score_fn))


def extrapolation(main: ScoreFn, reference: ScoreFn, *, scale: float = 1.0, interval: Interval = ALWAYS) -> Guided:
    """reference + w (main - reference): classifier-free guidance, or autoguidance.

    scale: w, 0 or more; 1 is `main`, 0 is `reference`. interval: of times outside which w is 1.
    """
    check_guidance(scale, interval)
    if scale == 1 or (scale == 0 and interval == ALWAYS):
        return Guided(main if scale == 1 else reference)

    def guided(x: Images, t: Times) -> Images:
        base = reference(x, t)
        return base + scale * (main(x, t) - base)

    return Guided(_within(interval, guided, main), lambda t: 1 + inside(t, interval))


def inside(t: Times | np.ndarray, interval: Interval) -> Array | np.ndarray:
    """Which times, in float32, are in the interval, its ends among them."""
    low, high = np.float32(interval[0]), np.float32(interval[1])
    return (t >= low) & (t <= high)


def counted(solver: Solver, guided: Guided) -> Solver:
    """The sampler of a guided score, with its result's evaluations counted in those of networks."""
    if solver.times is not None:
        each = guided.evaluations(solver.times)
        times = np.repeat(solver.times, each)

        def result(state):
            x, nfe = solver.result(state)
            return x, jnp.full_like(nfe, len(times))

        return solver._replace(result=result, times=times)
    most = int(guided.evaluations(np.linspace(0.0, 1.0, 1001, dtype=np.float32)).max())

    def result_of_adaptive(state):
        x, nfe = solver.result(state)
        return x, most * nfe  # where any sample is in the interval, all are evaluated

    return solver._replace(result=result_of_adaptive)


def _within(interval: Interval, guided: ScoreFn, plain: ScoreFn) -> ScoreFn:
    """`guided` in the interval, else `plain`; at times that all samples share only one of them is evaluated."""
    if interval == ALWAYS:
        return guided

    def score_fn(x: Images, t: Times) -> Images:
        chosen = inside(t, interval)
        both = jax.lax.cond(jnp.any(chosen), guided, plain, x, t)
        return jax.lax.cond(
            jnp.all(chosen == chosen[0]), lambda: both, lambda: jnp.where(expand(chosen, x), both, plain(x, t))
        )

    return score_fn


def check_guidance(scale: float, interval: Interval) -> None:
    """Raises `UsageError` for what is out of range."""
    if not 0 <= scale < np.inf:
        raise UsageError(f"guidance.scale={scale} must be 0 or more, and finite; 1 is Bayes' rule.")
    if len(interval) != 2 or not 0 <= interval[0] < interval[1] <= 1:
        raise UsageError(f"guidance.interval={tuple(interval)} must be two times 0 <= low < high <= 1.")
