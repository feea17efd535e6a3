r"""Clipping: keeps predictions of x_0 in the range of the data, for any sampler.

An error of eps becomes sigma / alpha times as large in x_0, which for a barely trained network exceeds any pixel. Where
x_0 leaves the range it is changed, and eps is recomputed such that alpha x0 + sigma eps = x_t still holds:

| name    | x_0 becomes                                                                                       |
|---------|---------------------------------------------------------------------------------------------------|
| none    | unchanged                                                                                         |
| range   | the nearest number in the range (Ho et al., 2020: the samplers of DDPM)                           |
| dynamic | x_0 / s about the middle of the range, clipped; s, at least 1, is a quantile of a sample's        |
|         | |x_0|, relative to half the range (Saharia et al., 2022, section 2.3: dynamic thresholding)       |

A prediction inside the range is unchanged to the last bit.
"""

from collections.abc import Callable
from typing import Annotated

import jax.numpy as jnp

from score_sde.array_types import ModelImages, Times
from score_sde.config.arguments import check_arguments
from score_sde.errors import UsageError, one_of
from score_sde.process import Model, Prediction, Process
from score_sde.randomness import expand
from score_sde.sampling.solver import CountedModel, evaluations, predict

Finite = Annotated[float, "(-1e9, 1e9)"]
Range = tuple[Finite, Finite]  # of the data, in model range: (-1, 1) or (0, 1)
Quantile = Annotated[float, "(0, 1]"]
Clip = Callable[[ModelImages, Range, float], ModelImages]


@check_arguments
def _to_range(x0: ModelImages, limits: Range, quantile: Quantile) -> ModelImages:
    _check_limits(limits)
    return jnp.clip(x0, *limits)


@check_arguments
def _dynamic(x0: ModelImages, limits: Range, quantile: Quantile) -> ModelImages:
    _check_limits(limits)
    low, high = limits
    middle, half = (low + high) / 2, (high - low) / 2
    relative = (x0 - middle) / half
    s = jnp.quantile(jnp.abs(relative).reshape(len(x0), -1), quantile, axis=1)
    s = expand(jnp.maximum(s, 1), x0)
    leaves = (s > 1) | (jnp.abs(relative) > 1)  # otherwise not a bit is changed
    return jnp.where(leaves, middle + half * jnp.clip(relative / s, -1, 1), x0)


def _check_limits(limits: Range) -> None:
    if not limits[0] < limits[1]:
        raise UsageError(f"The limits {limits} of a range are a number and a larger one.")


CLIPPINGS: dict[str, Clip | None] = {"none": None, "range": _to_range, "dynamic": _dynamic}


@check_arguments
def clipped(process: Process, model: Model, name: str, limits: Range, *, quantile: Quantile = 0.995) -> Model:
    """A model whose x_0 is clipped as `CLIPPINGS` says; evaluations are counted as those of `model`.

    name: "none", "range" or "dynamic". limits: (low, high) of the data in model range. quantile: of "dynamic" clipping,
    in (0, 1]; 0.995 in Saharia et al.
    Raises `UsageError` for an unknown name and for limits or a quantile out of range.

        import jax.numpy as jnp
        from score_sde.process import from_score
        from score_sde.sampling import clipped
        from score_sde.sde import VP

        model = from_score(VP(), lambda x, t: -x)
        x0, eps = clipped(VP(), model, "range", (-1, 1))(jnp.full((1, 8, 8, 3), 9.0), jnp.array([0.1]))  # x0 = 1
    """
    clip = CLIPPINGS[one_of("sampling.clip", name, CLIPPINGS)]
    _check_limits(limits)
    if clip is None:
        return model

    def held(x: ModelImages, t: Times) -> Prediction:
        x0, eps = predict(model, x, t)
        inside = clip(x0, limits, quantile)
        alpha, sigma = expand(process.alpha(t), x), expand(process.sigma(t), x)
        return Prediction(inside, jnp.where(inside == x0, eps, (x - alpha * inside) / sigma))

    return CountedModel(held, lambda t: evaluations(model, t))
