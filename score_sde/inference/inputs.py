"""Inputs of a trained model's functions: images, times and conditions, checked and brought to one form."""

from collections.abc import Callable, Sequence
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from score_sde import images
from score_sde.array_types import Array, Bool, Float, Integer, PerSample, Real, Times, UnitImages
from score_sde.cond import Cond, as_array, fitted, numbered, with_labels
from score_sde.config.kinds import is_abstract
from score_sde.errors import UsageError

Number = float | Float[Array, ""]  # also one that is traced
AnyTimes = Annotated[Number, "[0, 1]"] | Times  # one for all images, or one for each
NoisyTimes = Annotated[Number, "(0, 1]"] | Annotated[PerSample, "(0, 1]"]
Levels = Annotated[Number, "(0, inf)"] | Annotated[PerSample, "(0, inf)"]
AnyImages = Real[Array, "..."] | Bool[Array, "..."]  # uint8, or numbers in [0, 1]
AnyLabels = (
    Annotated[int, "[0, 2147483647]"] | str | Integer[Array, "..."] | tuple[int | str, ...] | None
)  # numbers or names
AnyText = str | tuple[str, ...] | None  # a caption for all images, or one for each
Shape = tuple[int, ...]
Report = Callable[[float], None]  # called with the fraction of the work that is done


def for_each(values: AnyTimes | Levels, n: int) -> PerSample:
    """Times or noise levels of n images, float32 (n,), from one number for all or one for each.

    Raises `UsageError` for another number of them.
    """
    values = jnp.asarray(values, jnp.float32)
    if values.shape not in ((), (n,)):
        raise UsageError(
            f"Times or noise levels of shape {values.shape} for {n} images; give one for all, or for each."
        )
    return jnp.broadcast_to(values, (n,)) if values.ndim == 0 else values


def unit_images(pixels: AnyImages, image_shape: Shape) -> UnitImages:
    """Images in [0, 1] of uint8 or numbers in [0, 1]. Raises `UsageError` for others, and for another shape."""
    pixels = of_shape(pixels, image_shape)
    if pixels.dtype == jnp.uint8:
        return images.to_unit(pixels)
    if not is_abstract(pixels):
        numbers = np.asarray(pixels)
        if not (numbers.min() >= 0 and numbers.max() <= 1):  # NaN fails as well
            ends = f"go from {numbers.min():g} to {numbers.max():g}"
            raise UsageError(
                f"Images must be uint8, or floats in [0, 1]; these leave that range or are NaN: they {ends}."
            )
    return pixels.astype(jnp.float32)


def of_shape(x: Array, image_shape: Shape) -> Array:
    """The images x, if they are of a model's shape. Raises `UsageError` for others."""
    _check_channels_last(x, image_shape)
    if x.shape[1:] != image_shape or not len(x):
        shape = ", ".join(map(str, image_shape))
        raise UsageError(f"Images of shape {x.shape}: this model takes (n, {shape}), with n at least 1.")
    return x


def condition(
    model: Any, n: int, labels: AnyLabels = None, cond: Cond | None = None, text: AnyText = None
) -> Cond | None:
    """The checked condition of n images: entries of `cond`, with those of labels and captions added.

    model: a `Snapshot`. labels, text: one for all images, or one for each. Raises `UsageError` for what its network
    does not take, and for a network that is no score without an entry that is missing.
    """
    labels = numbered(labels, model.class_names)
    if labels is not None:
        labels = as_array("labels", labels, jnp.int32)
        labels = jnp.broadcast_to(labels, (n,)) if labels.ndim == 0 else labels
    experiment, cond = model.experiment, with_labels(with_text(model, cond, text, n), labels)
    experiment.check_cond(cond)
    return fitted(cond, experiment.cond_entries, n)


def text_cond(model: Any, captions: Sequence[str]) -> Cond:
    """The entries of captions, one row for each. Raises `UsageError` for a network without text, and long captions."""
    if model.text is None:
        raise UsageError(
            "This network takes no text; load one that was trained with text.tokenizer on captioned images, or ask for "
            "no caption."
        )
    return model.text.cond(list(captions))


def with_text(model: Any, cond: Cond | None, text: AnyText, n: int) -> Cond | None:
    """The condition of n samples with the entries of their captions added; without `text` it is left as it is.

    Raises `UsageError` for a network without text, another number of captions, and entries that `cond` has already.
    """
    if text is None:
        return cond
    captions = (text,) if isinstance(text, str) else text
    if not isinstance(text, str) and len(captions) != n:
        raise UsageError(f"There are {len(captions)} captions for {n} images; give one for all, or one for each.")
    entries = text_cond(model, captions)
    for name in entries:
        if name in (cond or {}):
            raise UsageError(f"The caption is cond['{name}'] as well; give one of the two.")
    return (cond or {}) | {name: np.broadcast_to(rows, (n, *rows.shape[1:])) for name, rows in entries.items()}


def check_taken(program: Callable, image_shape: Shape, params: Any, x: Array, *others: Any) -> None:
    """Raises `UsageError` for images of another shape that the program does not take.

    Convolutions take images of other sizes than those of training.
    """
    if x.shape[1:] == image_shape and len(x):
        return
    _check_channels_last(x, image_shape)
    if not x.size:
        raise UsageError(f"Images of shape {x.shape} are none; give at least one.")
    try:
        jax.eval_shape(program, params, x, *others)
    except Exception as error:  # whatever the network raises
        raise UsageError(
            f"Images of shape {x.shape}: this model is of {image_shape}, and its network does not take others "
            f"({_first_line(error)})."
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".")


def _check_channels_last(x: Array, image_shape: Shape) -> None:
    h, w, c = image_shape
    if x.ndim == 4 and x.shape[1:] == (c, h, w) != image_shape:
        advice = "call x.transpose(0, 2, 3, 1)"
        raise UsageError(f"Images are channels-last, (n, {h}, {w}, {c}), and these are {x.shape}; {advice}.")


def check_finite(finite: Array, name: str) -> None:
    """Raises `UsageError` for a result that is not finite. finite: a boolean, which is not read while it is traced."""
    if not is_abstract(finite) and not bool(finite):
        raise UsageError(
            f"{name} is not finite: the solver failed; try another checkpoint, looser tolerances, or more steps."
        )
