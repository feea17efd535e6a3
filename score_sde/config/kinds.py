"""Kinds of values that annotations of arguments stand for: whether a value is of one, and the value as one of it.

`score_sde.config.arguments` has the table of the annotations.

    from typing import Annotated

    from score_sde.config.kinds import fitted, kind_of

    rate = fitted(kind_of(Annotated[float, "[0, 1)"]), "rate", 0)  # 0.0; 1 is refused
"""

import collections.abc
import functools
import inspect
import operator
import os
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import AbstractArray

from score_sde.config.arrays import MisfitError, as_jax
from score_sde.config.keys import PLURALS, inside, interval_words, is_scalar, plain
from score_sde.errors import UsageError

ROUNDING = 1e-6  # relative, by which a number may pass an end of an interval


class Kind(NamedTuple):
    """A kind of value.

    words: a noun for it. convert: the value as one of this kind, or `MisfitError`.
    """

    words: str
    convert: Callable[[Any], Any]


def fitted(kind: Kind, name: str, value: Any) -> Any:
    """The value as one of the kind. Raises `UsageError`."""
    try:
        return kind.convert(value)
    except MisfitError as misfit:
        reason = f"; {misfit}" if str(misfit) else ""
        raise UsageError(f"{name} must be {kind.words}, and is {described(value)}{reason}.") from None


def described(value: Any) -> str:
    """A value in a few words: type and shape of an array, otherwise its beginning."""
    if hasattr(value, "dtype") and getattr(value, "shape", ()):
        return f"{value.dtype} of shape {tuple(value.shape)}"
    text = " ".join(repr(value).split())
    kind = "" if value is None or isinstance(value, bool | int | float | str) else f"{type(value).__name__} "
    return kind + text[:60] + "..." * (len(text) > 60)


ANYTHING = Kind("anything", lambda value: value)


def kind_of(annotation: Any) -> Kind:
    """The kind that an annotation stands for."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        intervals = [extra for extra in inner[1:] if isinstance(extra, str)]
        return functools.reduce(_within, intervals, kind_of(inner[0]))
    if origin in (typing.Union, types.UnionType):
        return _one_of([kind_of(each) for each in inner], tuple(filter(_is_array_type, inner)))
    if origin is Literal:
        return _literal(inner)
    if origin is tuple or annotation is tuple:
        return _tuple(inner)
    if isinstance(origin, type) and issubclass(origin, collections.abc.Sequence):
        return _sequence(kind_of(inner[0]))
    if annotation in SCALARS:
        return SCALARS[annotation]
    if _is_array_type(annotation):
        return _array(annotation)
    if annotation is collections.abc.Callable or origin is collections.abc.Callable:
        return _function(inner)
    if isinstance(annotation, type) and issubclass(annotation, tuple) and hasattr(annotation, "_fields"):
        return _named_tuple(annotation)
    cls = origin if isinstance(origin, type) else annotation
    if not isinstance(cls, type) or cls in (Any, object) or _is_unchecked(cls):
        return ANYTHING
    return Kind(_name(cls), lambda value: _needed(value, isinstance(value, cls)))


def _is_array_type(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, AbstractArray)


def _is_unchecked(cls: type) -> bool:
    """Whether no object can be asked if it is of this type, as for most protocols and for jaxtyping's PyTree."""
    protocol = getattr(cls, "_is_protocol", False) and not getattr(cls, "_is_runtime_protocol", False)
    return protocol or cls.__module__.startswith("jaxtyping")


def _name(cls: type) -> str:
    return {dict: "a dictionary", collections.abc.Mapping: "a dictionary"}.get(cls, f"a {cls.__name__}")


def _needed(value: Any, fits: bool) -> Any:
    if not fits:
        raise MisfitError
    return value


def _literal(choices: tuple) -> Kind:
    def convert(value: Any) -> Any:
        value = plain(value) if getattr(value, "ndim", 0) == 0 and not isinstance(value, jax.core.Tracer) else value
        return _needed(value, any(type(value) is type(choice) and value == choice for choice in choices))

    return Kind(" or ".join(map(repr, choices)), convert)


def _function(inner: tuple) -> Kind:
    """Functions, that can be called with as many arguments as `Callable[[...], ...]` has."""
    number = len(inner[0]) if inner and isinstance(inner[0], list) else None

    def convert(value: Any) -> Any:
        _needed(value, callable(value))
        if number is not None:
            try:
                signature = inspect.signature(value)
            except (TypeError, ValueError):  # as of some functions that are written in C
                return value
            try:
                signature.bind(*range(number))
            except TypeError:
                raise MisfitError(f"it is called with {number} argument{'s' * (number != 1)}") from None
        return value

    return Kind("a function", convert)


def _one_of(kinds: list[Kind], arrays: tuple) -> Kind:
    """A union: a value is left as it is if one of the kinds does so, and otherwise converted by the first that can.

    arrays: the array types among the kinds.
    """
    if any(kind is ANYTHING for kind in kinds):
        return ANYTHING
    words = list(dict.fromkeys(kind.words for kind in kinds))

    def convert(value: Any) -> Any:
        if any(isinstance(value, annotation) for annotation in arrays):
            return value
        converted, reasons = [], []
        for kind in kinds:
            try:
                converted.append(kind.convert(value))
            except MisfitError as misfit:
                reasons.append(str(misfit))
                continue
            if converted[-1] is value:
                return value
        if not converted:
            raise MisfitError(next(filter(None, reasons), ""))
        return converted[0]

    return Kind(" or ".join(words), convert)


# Numbers and texts.


def _scalar(kind: type, words: str) -> Kind:
    def convert(value: Any) -> Any:
        if isinstance(value, jax.core.Tracer):
            return _needed(value, kind is not str and value.ndim == 0)
        number = plain(value) if getattr(value, "ndim", 0) == 0 else value
        if not is_scalar(number, kind):
            raise MisfitError
        if kind is float and number != number:
            raise MisfitError("NaN is no number to compute with")
        try:
            return number if isinstance(number, kind) else kind(number)  # a subclass, as of marked-up text, stays
        except OverflowError:
            raise MisfitError("it is too large") from None

    return Kind(words, convert)


def _index(value: Any) -> Any:
    try:
        return _needed(value, not isinstance(value, bool) and operator.index(value) is not None)
    except TypeError:
        raise MisfitError from None


def _path(value: Any) -> Path:
    if not isinstance(value, str | os.PathLike) or "\0" in os.fspath(value):
        raise MisfitError
    try:
        return value if isinstance(value, Path) and "~" not in value.parts[:1] else Path(value).expanduser()
    except RuntimeError:
        raise MisfitError("there is no such user") from None


SCALARS: dict[Any, Kind] = {
    bool: _scalar(bool, "True or False"),
    int: _scalar(int, "an integer"),
    float: _scalar(float, "a number"),
    str: _scalar(str, "a text"),
    typing.SupportsIndex: Kind("an integer", _index),
    typing.SupportsFloat: _scalar(float, "a number"),
    type(None): Kind("None", lambda value: _needed(value, value is None)),
    Path: Kind("a path", _path),
    typing.BinaryIO: Kind(
        "an open file", lambda value: _needed(value, hasattr(value, "write") or hasattr(value, "read"))
    ),
    np.ndarray: Kind("an array", lambda value: _numpy(value)),
    jax.Array: Kind("an array", lambda value: _as_array(value, numpy=False, dtypes=())),
}


def _within(kind: Kind, interval: str) -> Kind:
    """The values of a kind that are in an interval, or arrays of such."""
    phrase = interval_words(interval).removeprefix("be ")
    phrase = {"not be negative": "of 0 or more", "positive and finite": "above 0, finite"}.get(phrase, phrase)

    def convert(value: Any) -> Any:
        value = kind.convert(value)
        if value is not None and not is_abstract(value) and (array := np.asarray(value)).size:
            try:
                low, high = float(array.min()), float(array.max())
            except OverflowError:
                raise MisfitError("it is too large") from None
            if not (_inside(interval, low) and _inside(interval, high)):
                raise MisfitError(f"its numbers are from {low:g} to {high:g}" if array.ndim else "")
        return value

    return Kind(f"{kind.words} {phrase}", convert)


def _inside(interval: str, number: float) -> bool:
    """Whether a number is in an interval, up to the rounding of sums and products that should end at an end of it."""
    ends = (float(end) for end in interval[1:-1].split(","))
    return inside(interval, number) or any(
        inside(interval, end) and abs(number - end) <= ROUNDING * abs(end) and number != int(number) for end in ends
    )


def is_abstract(value: Any) -> bool:
    """Whether an array's numbers cannot be read here: it is traced, or partly on other hosts."""
    return isinstance(value, jax.core.Tracer) or not getattr(value, "is_fully_addressable", True)


# Arrays.


def _array(annotation: Any) -> Kind:
    shape = annotation.dim_str.strip()
    dtypes = annotation.dtypes if isinstance(annotation.dtypes, tuple | list) else ()
    kind = "keys" if "prng_key" in dtypes else _dtype_words(dtypes)
    sizes = "of any shape" if shape in ("...", "") and shape else f"of shape ({', '.join(shape.split())})"
    noun = (
        f"{kind} {sizes}"
        if shape
        else {"a float array": "a number", "an int array": "an integer"}.get(kind, f"one {kind}")
    )
    numpy = annotation.array_type is np.ndarray

    def convert(value: Any) -> Any:
        array = _keys(value) if kind == "keys" else _as_array(value, numpy=numpy, dtypes=dtypes)
        if isinstance(array, annotation):
            return array
        if str(getattr(array, "dtype", "")) == "uint8" and "float32" in dtypes:
            raise MisfitError(
                "score_sde.images.to_unit brings pixels into [0, 1], and image_range.to_model of a model into its range"
            )
        if str(array.dtype) in dtypes and "..." not in shape and array.ndim == len(shape.split()):
            raise MisfitError(f"its shape is {array.shape}, and a letter is of one size in all arguments")
        raise MisfitError

    return Kind(noun, convert)


def _dtype_words(dtypes: tuple[str, ...]) -> str:
    if not dtypes:
        return "an array"
    for name, words in (("float32", "a float array"), ("int32", "an int array"), ("bool", "a bool array")):
        if name in dtypes:
            return words if len(dtypes) > 1 or name == "bool" else words.replace(words.split()[1], name)
    return f"a {dtypes[0]} array" if len(dtypes) == 1 else "an array"


def _as_array(value: Any, *, numpy: bool, dtypes: tuple[str, ...]) -> Any:
    if isinstance(value, jax.Array) and not numpy:
        return value
    array = _numpy(value)
    if array.dtype.kind in "iu" and "float32" in dtypes and not hasattr(value, "dtype"):
        array = array.astype(np.float32)  # of numbers as Python has them, 1 is 1.0
    return array if numpy else as_jax(array)


def _numpy(value: Any) -> np.ndarray:
    if isinstance(value, np.ndarray):
        array = value
    elif isinstance(value, jax.core.Tracer) or _is_key(value):
        raise MisfitError
    else:
        try:
            array = np.asarray(value)
        except Exception:  # rows of several lengths, arrays on other hosts
            raise MisfitError from None
    if array.dtype.kind not in "biufV":  # V: bfloat16 and its like
        raise MisfitError
    return array


def _is_key(value: Any) -> bool:
    return isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key)


def _keys(value: Any) -> Any:
    """Typed keys, of a seed or of the words of untyped keys too."""
    if _is_key(value):
        return value
    seed = plain(value) if getattr(value, "ndim", 0) == 0 and not isinstance(value, jax.core.Tracer) else value
    if is_scalar(seed, int):
        if not 0 <= seed < 2**32:
            raise MisfitError("a seed is in 0, ..., 2^32 - 1")
        return jax.random.key(seed)
    if getattr(value, "dtype", None) == np.uint32 and value.ndim and value.shape[-1] == 2:
        return jax.random.wrap_key_data(jnp.asarray(value))
    raise MisfitError("give jax.random.key(SEED), or the seed itself")


# Tuples and sequences.


def _tuple(inner: tuple) -> Kind:
    if not inner:
        return Kind("a tuple", lambda value: tuple(_items(value)))
    if len(inner) == 2 and inner[1] is Ellipsis:
        item = kind_of(inner[0])
        plural = PLURALS.get(inner[0], item.words)
        return Kind(f"a tuple of {plural}", lambda value: tuple(item.convert(each) for each in _items(value)))
    items = [kind_of(each) for each in inner]

    def convert(value: Any) -> tuple:
        values = _items(value)
        if len(values) != len(items):
            raise MisfitError(f"it has {len(values)} items")
        return tuple(item.convert(each) for item, each in zip(items, values, strict=True))

    return Kind(f"a tuple of {len(items)} ({', '.join(item.words for item in items)})", convert)


def _named_tuple(cls: type) -> Kind:
    """Named tuples, whose fields are checked here: JAX also makes them of other objects, in which nothing is wrong."""
    hints = typing.get_type_hints(cls, include_extras=True)
    kinds = {name: kind_of(hints[name]) for name in cls._fields if name in hints}

    def convert(value: Any) -> Any:
        _needed(value, isinstance(value, cls))
        changes = {}
        for name, kind in kinds.items():
            field = getattr(value, name)
            try:
                converted = kind.convert(field)
            except MisfitError as misfit:
                reason = f", as {misfit}" if str(misfit) else ""
                raise MisfitError(f"its {name} must be {kind.words}, and is {described(field)}{reason}") from None
            if converted is not field:
                changes[name] = converted
        return value._replace(**changes) if changes else value

    return Kind(_name(cls), convert)


def _sequence(item: Kind) -> Kind:
    def convert(value: Any) -> Any:
        items = _items(value)
        converted = [item.convert(each) for each in items]
        same = all(a is b for a, b in zip(items, converted, strict=True))
        return value if same and isinstance(value, collections.abc.Sequence) else converted

    return Kind(f"a sequence, each {item.words}", convert)


def _items(value: Any) -> list:
    if isinstance(value, str | bytes | dict | jax.core.Tracer):
        raise MisfitError
    if getattr(value, "ndim", 1) != 1 and hasattr(value, "dtype"):
        raise MisfitError
    try:
        return value.tolist() if isinstance(value, np.ndarray | jax.Array) and not _is_key(value) else list(value)
    except TypeError:
        raise MisfitError from None
