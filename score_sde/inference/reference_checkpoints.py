"""Layouts of the checkpoints that the paper's authors released, in either of their formats.

PyTorch (.pth): {"model", "ema", "optimizer", "step"}. `model` names its tensors module.all_modules.<i>.<...>, where i
counts the layers in their order of creation, which is the same here; `ema` is a list in that order, without the
fixed Fourier frequencies. Files of one's own may lack `optimizer` and `step`, and one of `model` and `ema`, or be the
bare state dict. Flax (no extension, msgpack): {"optimizer", "params_ema", "step", ...}, whose leaves have our names. A
noise-conditional classifier is a bare tree of parameters, in Flax's format.

Names and shapes are all compared; nothing is skipped and nothing is filled in.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import serialization, traverse_util

from score_sde.array_types import PyTree
from score_sde.errors import UsageError, moved_names
from score_sde.inference.published_tensors import (
    Named,
    Shapes,
    check_shapes,
    finite,
    kernel,
    kernel_shape,
    unflatten,
)
from score_sde.models import is_trainable


class Reference(NamedTuple):
    """A checkpoint of the paper's code, its trees in our names."""

    kind: str
    step: int
    params: PyTree
    ema_params: PyTree
    moments: tuple[int, PyTree, PyTree] | None  # Adam's count, mean and mean of squares
    sigmas: np.ndarray | None  # the noise levels the network was built with, descending


def restored(content: Any, shapes: Shapes, *, flax: bool, classifier: bool = False) -> Reference:
    """The checkpoint in the content of a file, for a network with these leaves.

    flax: whether the file is Flax's. Raises `UsageError` naming the first leaf that is missing, left over, of another
    shape, or not finite.
    """
    if classifier and not flax:
        raise UsageError("This is a PyTorch file; the paper's classifier exists in Flax's format only.")
    convert = (_from_bare_flax if classifier else _from_flax) if flax else _from_pytorch
    try:
        return convert(content, shapes)
    except UsageError:
        raise
    except (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise UsageError(f"The file is not laid out as a checkpoint of the paper's code ({reason}).") from error


def read_msgpack(path: Path) -> Any:
    """The content of a Flax checkpoint. Raises `UsageError` if it is none, and `OSError` if it cannot be read."""
    content = path.read_bytes()
    try:
        return serialization.msgpack_restore(content)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise UsageError(f"{path} is neither a PyTorch file nor a whole Flax checkpoint ({reason}).") from error


def published_names(content: Any, *, flax: bool) -> Shapes:
    """Shapes by name of the network's tensors in a file, the names as in `torch_names` or, of Flax, as ours.

    {} where the file has none.
    """
    try:
        named = _flat(_section(content, "params_ema")) if flax else _state_dict(content) or {}
    except (AttributeError, TypeError, UsageError):  # `restored` says what is wrong
        return {}
    return {name: _shape(value) for name, value in named.items() if _shape(value) is not None and name != "sigmas"}


def _from_flax(content: Any, shapes: Shapes) -> Reference:
    optimizer = _section(content, "optimizer")
    state = _section(optimizer, "state", "optimizer.")
    first, second = _split(_flat(_section(state, "param_states", "optimizer.state.")), ("grad_ema", "grad_sq_ema"))
    where = "optimizer.state.param_states"
    count = _number(state, "step", "optimizer.state.")
    moments = (_tree(first, shapes, f"{where}, grad_ema"), _tree(second, shapes, f"{where}, grad_sq_ema"))
    step = _number(content, "step")
    params = _tree(_flat(_section(optimizer, "target", "optimizer.")), shapes, "optimizer.target")
    ema_params = _tree(_flat(_section(content, "params_ema")), shapes, "params_ema")
    return Reference("Flax", step, params, ema_params, _moments(count, *moments), sigmas=None)


def _from_bare_flax(content: Any, shapes: Shapes) -> Reference:
    if not isinstance(content, Mapping):
        raise UsageError("The file holds no tree of parameters.")
    params = _tree(_flat(content), shapes, "the classifier")
    return Reference("Flax, bare", 0, params, params, moments=None, sigmas=None)


def _from_pytorch(content: Any, shapes: Shapes) -> Reference:
    model, names = _state_dict(content), torch_names(shapes)
    averaged = [path for path in shapes if is_trainable(tuple(path.split("/")))]
    has_average = isinstance(content, Mapping) and "ema" in content
    if model is None and not has_average:
        raise UsageError("The file has no model and no ema; it is not a checkpoint of the paper's code.")
    if model is None and len(averaged) < len(shapes):
        raise UsageError("The file has no model, which alone holds the fixed frequencies of the Fourier embedding.")
    model = model or {}
    sigmas = model.pop("sigmas", None)
    params = _from_torch(model, names, shapes, "model") if model else {}
    fixed = {path: value for path, value in params.items() if path not in averaged}
    ema_names = {path: names[path] for path in averaged}
    ema_params = params
    if has_average:
        shadow = _section(_section(content, "ema"), "shadow_params", "ema.")
        if len(shadow) != len(averaged):
            raise UsageError(f"ema.shadow_params has {len(shadow)} tensors, and the config's network {len(averaged)}.")
        ema = {names[path]: value for path, value in zip(averaged, shadow, strict=True)}
        ema_params = _from_torch(ema, ema_names, shapes, "ema.shadow_params") | fixed

    if sigmas is not None and not (isinstance(sigmas, np.ndarray) and sigmas.ndim == 1 and sigmas.size):
        raise UsageError("model: sigmas is no list of noise levels.")
    is_whole = isinstance(content, Mapping) and "optimizer" in content
    # The optimizer, which files made for sampling lack, numbers all parameters, also the fixed ones without a state.
    states = content["optimizer"].get("state", {}) if is_whole else {}
    numbers = {path: number for number, path in enumerate(shapes)}
    moments = None
    if states:
        lacking = [names[path] for path in averaged if numbers[path] not in states]
        if lacking:
            raise UsageError(f"optimizer has no state of {lacking[0]}; it is not of the config's network.")

        def moment(key: str) -> PyTree:
            tensors = {names[path]: _section(states[numbers[path]], key, "optimizer.") for path in averaged}
            zeros = {path: np.zeros_like(value) for path, value in fixed.items()}
            return unflatten(_from_torch(tensors, ema_names, shapes, f"optimizer, {key}") | zeros)

        count = _number(states[numbers[averaged[0]]], "step", "optimizer.")
        moments = _moments(count, moment("exp_avg"), moment("exp_avg_sq"))
    step = _number(content, "step") if is_whole or "step" in content else 0
    trees = [unflatten(tree) for tree in (params or ema_params, ema_params)]
    return Reference("PyTorch", step, *trees, moments, sigmas)


def _state_dict(content: Any) -> dict[str, Any] | None:
    """The tensors of the network by name, without the prefix of DataParallel; None where the file has none."""
    if not isinstance(content, Mapping):
        raise UsageError("The file holds no checkpoint of the paper's code.")
    model = content["model"] if "model" in content else content if _is_bare(content) else None
    if model is None or not all(name.startswith("module.") for name in model):
        return None if model is None else dict(model)
    return {name.removeprefix("module."): value for name, value in model.items()}


def _is_bare(content: Mapping) -> bool:
    """Whether this is a state dict itself."""
    return bool(content) and all(isinstance(value, np.ndarray) for value in content.values())


def torch_names(shapes: Shapes) -> dict[str, str]:
    """PyTorch's names by leaf, {"Conv_0/kernel": "all_modules.3.weight"}: layers are numbered as they are created."""
    layers = list(dict.fromkeys(path.split("/")[0] for path in shapes))
    renamed = {"kernel": "weight", "scale": "weight"}
    names = {}
    for path in shapes:
        layer, *inner, leaf = path.split("/")
        names[path] = ".".join(("all_modules", str(layers.index(layer)), *inner, renamed.get(leaf, leaf)))
    return names


def _from_torch(tensors: Mapping[str, Any], names: dict[str, str], shapes: Shapes, where: str) -> Named:
    """Arrays under Flax's names, with axes in Flax's order."""
    expected = {names[path]: torch_shape(path, shapes[path]) for path in names}
    check_shapes(tensors, expected, where)
    return {path: to_flax(path, finite(tensors[name], f"{where}: {name}")) for path, name in names.items()}


def torch_shape(path: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """PyTorch's shape of a leaf."""
    return kernel_shape(shape) if _is_kernel(path) else shape


def to_flax(path: str, value: np.ndarray) -> np.ndarray:
    """A tensor of PyTorch's as the leaf of this path."""
    return kernel(value) if _is_kernel(path) else value


def _is_kernel(path: str) -> bool:
    """Whether a leaf's axes are in another order in PyTorch's files."""
    return path.rsplit("/")[-1] in ("kernel", "weight")


def _tree(leaves: Mapping[str, Any], shapes: Shapes, where: str) -> PyTree:
    # Flax before 0.4 kept a group normalisation's leaves as (1, 1, 1, c).
    leaves = {
        path: value.reshape(shapes[path]) if path in shapes and _shape(value) == (1, 1, 1, *shapes[path]) else value
        for path, value in leaves.items()
    }
    check_shapes(leaves, shapes, where)
    return unflatten({path: finite(leaves[path], f"{where}: {path}") for path in shapes})


def _shape(value: Any) -> tuple[int, ...] | None:
    return value.shape if isinstance(value, np.ndarray) else None


def _section(content: Any, name: str, prefix: str = "") -> Any:
    if not isinstance(content, Mapping) or name not in content:
        raise UsageError(f"The file has no {prefix}{name}; it is not a checkpoint of the paper's code.")
    return content[name]


def _number(content: Any, name: str, prefix: str = "") -> int:
    """The number of updates in a file."""
    value = _section(content, name, prefix)
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.item()
    if not isinstance(value, int | float | np.number) or not 0 <= value < 2**31:
        raise UsageError(f"The file's {prefix}{name} is no number of updates.")
    return int(value)


def _moments(count: int, first: PyTree, second: PyTree) -> tuple[int, PyTree, PyTree]:
    if any(np.any(np.asarray(leaf) < 0) for leaf in jax.tree.leaves(second)):
        raise UsageError("The optimizer's mean of squared gradients is negative; the file is damaged.")
    return count, first, second


def _flat(tree: Any) -> Named:
    if not isinstance(tree, Mapping):
        raise UsageError("The file holds an array where the paper's code has a tree.")
    return {"/".join(path): leaf for path, leaf in traverse_util.flatten_dict(dict(tree)).items()}


def _split(leaves: Named, lasts: tuple[str, ...]) -> list[Named]:
    """Leaves by their last name, one dictionary for each of `lasts`, without it."""
    parts: dict[str, Named] = {last: {} for last in lasts}
    for path, leaf in leaves.items():
        start, _, last = path.rpartition("/")
        if last not in parts:
            raise UsageError(f"optimizer.state.param_states has {path}, which is none of {', '.join(lasts)}.")
        parts[last][start] = leaf
    return list(parts.values())


__getattr__ = moved_names(__name__, {"leaf_shapes": "score_sde.inference.published_tensors.leaf_shapes"})
