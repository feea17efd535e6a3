"""Pieces of all readers of published checkpoints: names and shapes of tensors, and PyTorch's order of their axes."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from score_sde.array_types import PyTree
from score_sde.errors import UsageError

Named = dict[str, np.ndarray]  # "Conv_0/kernel" -> array
Shapes = dict[str, tuple[int, ...]]


def leaf_shapes(init_params: Callable[[], PyTree]) -> Shapes:
    """Shapes by leaf, {"Conv_0/kernel": shape}, in the order in which the network creates its parameters."""
    shapes: Shapes = {}

    def init():
        params = init_params()
        shapes.update({"/".join(p): leaf.shape for p, leaf in traverse_util.flatten_dict(params).items()})
        return params

    jax.eval_shape(init)
    return shapes


def check_shapes(tensors: Mapping[str, Any], expected: Shapes, where: str) -> None:
    """Raises `UsageError` for the first tensor that is missing, left over, no floats, or of another shape."""
    for name in expected:
        if name not in tensors:
            raise UsageError(f"{where} has no {name}, which the config's network has; is it the file's config?")
    for name, value in tensors.items():
        if name not in expected:
            raise UsageError(f"{where} has {name}, which the config's network lacks; is it the file's config?")
        if not isinstance(value, np.ndarray) or value.dtype.kind != "f":
            raise UsageError(f"{where}: {name} is no floating-point array.")
        if value.shape != tuple(expected[name]):
            raise UsageError(f"{where}: {name} has shape {value.shape}, and in the config {tuple(expected[name])}.")


def finite(value: np.ndarray, name: str) -> np.ndarray:
    """The array in float32. Raises `UsageError` for a number that is not finite."""
    with np.errstate(over="ignore"):
        value = value.astype(np.float32)
    if not np.isfinite(value).all():
        raise UsageError(f"{name} holds a number that is not finite; the file is damaged or its training diverged.")
    return value


def kernel_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """PyTorch's shape (out, in, ...) of a kernel that Flax has as (..., in, out); vectors and numbers stay."""
    return (*shape[:-3:-1], *shape[:-2]) if len(shape) > 1 else shape


def kernel(value: np.ndarray) -> np.ndarray:
    """A kernel of PyTorch's with the axes in Flax's order, contiguous; vectors and numbers stay."""
    axes = (*range(2, value.ndim), 1, 0) if value.ndim > 1 else range(value.ndim)
    return np.asarray(value.transpose(*axes), order="C")


def unflatten(named: Named) -> PyTree:
    """The tree of parameters, on the devices, from arrays by leaf."""
    return traverse_util.unflatten_dict({tuple(path.split("/")): jnp.asarray(v) for path, v in named.items()})
