"""Conditions: one dict of arrays, with a row for each sample, from the batch to the network.

| entry                   | array                                                             |
|-------------------------|-------------------------------------------------------------------|
| `labels`                | int32 (b,): classes 0, 1, ...                                     |
| `tokens`, `tokens_mask` | int32 (b, L); bool (b, L), True where there is a token            |
| `image`                 | float32 (b, h, w, c)                                              |
| a user's own            | what its network declares                                         |
| `null`                  | {entry: bool (b,)}, True where a sample is without that entry     |

None is the null condition of all samples, and an absent entry is null for all. The network has a learned embedding for
null, which is never a value of the data; guidance, dropout and evaluation are therefore the same code for any entry.

A network declares the entries that it takes by a property `cond_entries`, and can `read` them:

    class Net(nn.Module):
        @property
        def cond_entries(self):
            return {"tokens": Entry(jnp.int32, (None,), below=1000), "tokens_mask": Entry(jnp.bool_, (None,))}

        @nn.compact
        def __call__(self, x, noise_cond, cond=None, *, dropout_keys=None):
            tokens, null = read(cond, self.cond_entries, "tokens", len(x))

An entry called `NAME_mask` beside `NAME` is its mask: both come together, and the mask is null where `NAME` is.

    import jax
    import jax.numpy as jnp
    from score_sde import cond

    entries = {"labels": cond.Entry(jnp.int32, (), below=10)}
    labels = {"labels": jnp.array([3, 7])}
    cond.check_cond(labels, entries, 2)
    dropped = cond.dropped(labels, jax.random.split(jax.random.key(0), 2), rate=0.1)  # with "null", for training
"""

import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from score_sde.array_types import Array, Keys, Shaped
from score_sde.config.arguments import check_arguments
from score_sde.config.arrays import MisfitError, as_jax
from score_sde.config.kinds import is_abstract
from score_sde.errors import UsageError, nearest
from score_sde.randomness import Stream, stream, uniform

Cond = dict[str, Any]  # arrays by entry, and `NULL`
NULL, MASK = "null", "_mask"
TEXT = ("tokens", "text")  # entries that captions become, of which a network that takes text has one
NAMED = 30  # classes that a message lists


class Entry(NamedTuple):
    """Type and shape of an entry of a condition.

    shape: of one sample's row; None stands for any length. below: bound that integers are less than.
    """

    dtype: Any
    shape: tuple[int | None, ...] = ()
    below: int | None = None


Entries = Mapping[str, Entry]
Number = Annotated[int, "[0, inf)"]  # of samples


def names(entries: Iterable[str]) -> list[str]:
    """The entries that can be null: all except masks and `null` itself."""
    listed = list(entries)
    return [name for name in listed if name != NULL and not (name.endswith(MASK) and name[: -len(MASK)] in listed)]


def takes_text(entries: Iterable[str]) -> bool:
    """Whether a network with these entries can take captions."""
    return not set(TEXT).isdisjoint(entries)


@check_arguments
def blank(entries: Entries, n: Number) -> Cond:
    """The condition of n samples whose entries are zeros, with length 1 where any length will do."""
    return {name: _zeros(entry, n) for name, entry in entries.items()}


def read(cond: Cond | None, entries: Entries, name: str, n: int) -> tuple[Array, Shaped[Array, " b"]]:
    """The values of an entry for n samples, and a bool (n,): the samples for which it is null.

    Where the condition lacks the entry, it is null for all, and its values are zeros.
    """
    if cond is None or name not in cond:
        return _zeros(entries[name], n), jnp.ones(n, bool)
    of_entry = name.removesuffix(MASK) if name.removesuffix(MASK) in entries else name
    return jnp.asarray(cond[name]), jnp.asarray(cond.get(NULL, {}).get(of_entry, np.zeros(n, bool)))


@check_arguments
def dropped(cond: Cond, keys: Keys, rate: Annotated[float, "[0, 1]"], each: Sequence[str] = ()) -> Cond:
    """The condition in training, null with probability `rate`, drawn from each sample's own key.

    each: entries that are dropped independently of one another, while others are never dropped; default: the whole
    condition at once.
    """
    if each:
        drawn = {name: uniform(stream(stream(keys, Stream.COND), _number(name))) < rate for name in each}
    else:
        drawn = dict.fromkeys(names(cond), uniform(stream(keys, Stream.COND)) < rate)
    null = dict(cond.get(NULL, {}))
    for name in names(cond):
        if name in drawn:
            null[name] = null[name] | drawn[name] if name in null else drawn[name]
    return cond | {NULL: null}


def restricted(cond: Cond | None, entries: Entries) -> Cond | None:
    """The part of a condition that a network with these entries takes, in their types; None if that is nothing."""
    arrays = {name: array.astype(entries[name].dtype) for name, array in (cond or {}).items() if name in entries}
    null = {name: rows for name, rows in (cond or {}).get(NULL, {}).items() if name in arrays}
    return (arrays | ({NULL: null} if null else {})) or None


@check_arguments
def fitted(cond: Cond | None, entries: Entries, n: Number) -> Cond | None:
    """The checked condition of n samples, in the types of the entries that a network takes.

    Raises `UsageError` for an entry that it does not know, and for arrays of other shapes, types or ranges.
    """
    check_names(cond, entries)
    if cond is not None:
        null = {name: as_array(name, rows, jnp.bool_) for name, rows in cond.get(NULL, {}).items()}
        arrays = {name: array for name, array in cond.items() if name != NULL}
        cond = {name: as_array(name, array, entries[name].dtype) for name, array in arrays.items()}
        cond |= {NULL: null} if null else {}
    check_cond(cond, entries, n)
    return restricted(cond, entries)


def as_array(name: str, values: Any, dtype: Any) -> Array:
    """The values of an entry as an array; whole numbers of a list may be floats.

    Raises `UsageError` for values that are no numbers, and for integers outside the type's range.
    """
    try:
        array = values if isinstance(values, jax.Array) else np.asarray(values)
    except ValueError:  # rows of several lengths
        array = np.array(None)
    if array.dtype.kind not in "biufV":
        raise UsageError(f"cond['{name}'] must be an array of numbers, and is a {type(values).__name__}.")
    if isinstance(array, jax.Array):
        return array
    if array.dtype.kind in "iu" and jnp.issubdtype(dtype, jnp.floating) and not hasattr(values, "dtype"):
        array = array.astype(dtype)
    try:
        return as_jax(array, dtype)
    except MisfitError as misfit:
        raise UsageError(f"cond['{name}'] must be {np.dtype(dtype)}: {misfit}.") from None


@check_arguments
def numbered(labels: Any, class_names: tuple[str, ...] = ()) -> Any:
    """Labels as numbers: a name or a list with names becomes an array, int32; others are returned unchanged.

    class_names: the name of each class. Raises `UsageError` for a name that is not among them.

        from score_sde.cond import numbered

        labels = numbered(["ship", 0], ("plane", "ship"))  # [1, 0]
    """
    if isinstance(labels, np.ndarray) and labels.dtype.kind in "UO":
        labels = labels.tolist()
    if isinstance(labels, str):
        return np.int32(class_number(labels, class_names))
    if isinstance(labels, Sequence) and any(isinstance(each, str) for each in labels):
        return np.array([class_number(each, class_names) if isinstance(each, str) else each for each in labels])
    return labels


@check_arguments
def class_number(name: str, class_names: tuple[str, ...]) -> int:
    """The number of the class of this name. Raises `UsageError` with the nearest names if there is none."""
    class_names = list(class_names)
    if name in class_names:
        return class_names.index(name)
    if not class_names:
        raise UsageError(f"No names of classes are kept with this model, so '{name}' has no number; ask by numbers.")
    listed = ", ".join(class_names[:NAMED]) + f", ... ({len(class_names):,} classes)" * (len(class_names) > NAMED)
    raise UsageError(f"Unknown class '{name}'{nearest(name, class_names)}; choose from: {listed}; or ask by number.")


@check_arguments
def with_labels(cond: Cond | None, labels: Array | np.ndarray | None) -> Cond | None:
    """The condition with these labels added. Raises `UsageError` if it has labels already."""
    if labels is None:
        return cond
    if cond is not None and "labels" in cond:
        raise UsageError("The labels are cond['labels'] as well; give one of the two.")
    return (cond or {}) | {"labels": as_array("labels", labels, jnp.int32)}


def rows(cond: Cond | None, indices: np.ndarray) -> Cond | None:
    """The condition of the samples at these indices."""
    return jax.tree.map(lambda array: array[indices], cond)


@check_arguments
def check_names(cond: Cond | None, entries: Entries) -> None:
    """Raises `UsageError` for an entry that a network with these entries does not know, or a mask that is missing."""
    for name in cond or {}:
        if not isinstance(name, str) or (name == NULL and not isinstance(cond[name], Mapping)):
            raise UsageError(f"A condition is a dictionary of arrays by entry, and of booleans in '{NULL}'.")
        if name != NULL and name not in entries:
            advice = f"; it takes {', '.join(entries) or 'none'}"
            if name == "labels":
                advice = (
                    "; classes need model.num_classes in training, or guidance.classifier, the workdir of a "
                    "noise-conditional classifier"
                )
            raise UsageError(f"This network takes no condition entry '{name}'{nearest(name, entries)}{advice}.")
        if name + MASK in entries and name + MASK not in cond:
            raise UsageError(
                f"The condition has {name} and no {name}{MASK}; give a mask, all True if nothing is padding."
            )


@check_arguments
def check_cond(cond: Cond | None, entries: Entries, n: Number) -> None:
    """Raises `UsageError` unless a condition fits n samples of a network: names, shapes, types and ranges."""
    check_names(cond, entries)
    for name, rows in (cond or {}).get(NULL, {}).items():
        if name not in names(cond):
            raise UsageError(f"cond['{NULL}'] names '{name}'{nearest(name, names(cond))}, which the condition lacks.")
        _check_array(f"{NULL}']['{name}", rows, Entry(jnp.bool_), n)
    arrays = {name: array for name, array in (cond or {}).items() if name != NULL}
    for name, array in arrays.items():
        _check_array(name, array, entries[name], n)
    for name, array in arrays.items():
        mask = arrays.get(name + MASK)
        if mask is not None and array.shape[: mask.ndim] != mask.shape:
            raise UsageError(
                f"cond['{name}'] has shape {tuple(array.shape)}, and its mask {tuple(mask.shape)}; give a mask of the "
                "same length."
            )
        _check_range(name, array, entries[name], mask)


def _check_array(name: str, array: Any, entry: Entry, n: int) -> None:
    if not hasattr(array, "dtype"):
        raise UsageError(f"cond['{name}'] must be an array, and is a {type(array).__name__}.")
    shape = (n, *entry.shape)
    fits = len(array.shape) == len(shape) and all(b in (None, a) for a, b in zip(array.shape, shape, strict=True))
    kind = next(kind for kind in (jnp.bool_, jnp.integer, jnp.floating) if jnp.issubdtype(entry.dtype, kind))
    if not (fits and jnp.issubdtype(array.dtype, kind)):
        sizes = ", ".join("any" if size is None else str(size) for size in shape)
        raise UsageError(
            f"cond['{name}'] must be {np.dtype(entry.dtype)} of shape ({sizes}{',' * (len(shape) == 1)}), one row for "
            f"each image, and is {array.dtype} of shape {tuple(array.shape)}."
        )


def _check_range(name: str, array: Any, entry: Entry, mask: Any) -> None:
    if entry.below is None or is_abstract(array) or is_abstract(mask):
        return
    values = np.asarray(array) if mask is None else np.asarray(array)[np.asarray(mask, bool)]  # padding may be anything
    outside = np.unique(values[(values < 0) | (values >= entry.below)])
    if len(outside):
        raise UsageError(f"There are {name} 0 to {entry.below - 1}, not {outside.tolist()}.")


def _zeros(entry: Entry, n: int) -> Array:
    return jnp.zeros((n, *(1 if size is None else size for size in entry.shape)), entry.dtype)


def _number(name: str) -> int:
    """A number for an entry's random stream that does not depend on the other entries."""
    return zlib.crc32(name.encode()) & 0x7FFFFFFF
