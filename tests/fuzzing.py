"""Calls of public functions with arguments that do not fit.

`survives` draws one or two arguments of a valid call, puts hostile values in their place, and calls. The function must
raise `UsageError`, or give a result without NaN, unless a NaN went in.
"""

import inspect
import random
import traceback
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies

from score_sde.errors import UsageError

HOSTILE = (
    *(None, True, False, -1, 0, 1, 2, 3, 7, 2**31, -(2**63), 10**400),
    *(-0.5, 0.0, 0.5, 1.0, 1.5, 1e-30, 1e30, float("nan"), float("inf"), -float("inf"), 1 + 2j),
    *("", "nonsense", "a:b", "../x", "\0", b"bytes", [], [1, 2], [[1], [2, 3]], ["a"], (), (0.5, 0.1), {}, {"a": 1}),
    *(object(), len, np.int64(3), np.float32(0.5), np.bool_(True), np.str_("a")),
    *(jnp.float32(0.5), jnp.int32(-2), jnp.zeros(0), jnp.full(2, jnp.nan), jnp.zeros((2, 1, 8, 8))),
    *(np.zeros((0, 8, 8, 1), np.float32), np.zeros((2, 8, 8, 1), np.uint8), np.zeros((2, 8, 8, 1)), np.zeros((3, 3))),
    *(np.array(["a", "b"]), np.array([None, 1], object), np.zeros((2, 8, 8, 2), np.float32), np.ones(2, np.complex64)),
)

# Changes of a valid value; where one cannot be applied, it is skipped.
CHANGES: dict[str, Callable[[Any], Any]] = {
    "negative": lambda value: -value,
    "huge": lambda value: value * 1e6,
    "uint8": lambda value: np.asarray(value).astype(np.uint8),
    "bool": lambda value: np.asarray(value).astype(bool),
    "float64": lambda value: np.asarray(value, np.float64),
    "text": str,
    "none of it": lambda value: value[:0],
    "half of it": lambda value: value[: max(1, len(value) // 2)],
    "without the first axis": lambda value: value[0],
    "with another axis": lambda value: np.asarray(value)[None],
    "transposed": lambda value: np.asarray(value).T,
    "a list": lambda value: np.asarray(value).tolist(),
    "with NaN": lambda value: np.asarray(value) * np.nan,
}


def survives(function: Callable, valid: Mapping[str, Any], data: strategies.DataObject, repeated: int = 12) -> None:
    """Calls the function `repeated` times with other arguments than the valid ones.

    valid: arguments by name. data: of hypothesis, which draws a seed from it and no more, because it prints all that it
    draws. Fails with a line for each kind of failure, and the traceback of the last.
    """
    assert valid, f"{function} has no argument to change"
    random_of = random.Random(data.draw(strategies.integers(0, 2**32 - 1)))
    failures = {}
    for _ in range(repeated):
        arguments = dict(valid)
        for name in random_of.choices(sorted(valid), k=random_of.choice((1, 1, 2))):
            arguments[name] = changed(valid[name], random_of)
        if (failure := failure_of(function, arguments)) is not None:
            failures[failure.kind] = failure
    _fail(list(failures.values()))


def check(function: Callable, arguments: Mapping[str, Any]) -> None:
    """Calls the function with these arguments; fails unless it raises `UsageError` or gives no new NaN."""
    failure = failure_of(function, arguments)
    _fail([failure] if failure else [])


class Failure(NamedTuple):
    """A call that raised something else than `UsageError`, or gave NaN."""

    kind: tuple  # the same for calls that fail in the same way
    line: str
    traceback: str = ""


def failure_of(function: Callable, arguments: Mapping[str, Any]) -> Failure | None:
    """Calls the function; None if it raises `UsageError` or gives no new NaN."""
    shown = ", ".join(f"{name}={_shown(value)}" for name, value in arguments.items())
    call = f"{getattr(function, '__name__', function)}({shown})"
    try:
        with np.errstate(all="ignore"):  # a warning is no exception
            result = function(**arguments)
            if inspect.isgenerator(result):
                result = next(result, None)
    except UsageError as error:
        sentence = str(error)
        if sentence.endswith(".") and "\n" not in sentence.strip():
            return None
        return Failure(("sentence", sentence[:30]), f"{call} raises UsageError, and no sentence: {sentence!r}")
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)[1:]
        own = [frame for frame in frames if "score_sde" in frame.filename] or frames or [None]
        first = f"{type(error).__name__}: {str(error)[:300]}".splitlines()[0]
        text = "".join(traceback.format_list(frames[-8:])) + first
        return Failure((type(error).__name__, str(own[-1])), f"{call} raises {first}", text)
    if has_nan(result) and not any(has_nan(value) for value in arguments.values()):
        return Failure(("nan",), f"{call} gives NaN")
    return None


def _fail(failures: list[Failure]) -> None:
    if failures:
        pytest.fail("\n".join([*(failure.line for failure in failures), failures[-1].traceback]), pytrace=False)


def changed(value: Any, random_of: random.Random) -> Any:
    """A hostile value in the place of this one; no function for a function, whose mistakes are its own."""
    if callable(value) or random_of.random() < 0.5:
        return random_of.choice([other for other in HOSTILE if not (callable(value) and callable(other))])
    try:
        return CHANGES[random_of.choice(list(CHANGES))](value)
    except Exception:  # such as a slice of a number
        return random_of.choice(HOSTILE)


def has_nan(value: Any) -> bool:
    """Whether a number in a value, or in an array, tuple or dictionary of it, is NaN."""
    leaves = jax.tree.leaves(value, is_leaf=lambda each: each is None)
    return any(_is_nan(leaf) for leaf in leaves)


def _is_nan(leaf: Any) -> bool:
    try:
        return leaf is not None and bool(np.isnan(np.asarray(leaf, np.complex128)).any())
    except (TypeError, ValueError, OverflowError):
        return False


def _shown(value: Any) -> str:
    return (
        f"{value.dtype}{list(value.shape)}"
        if hasattr(value, "shape") and hasattr(value, "dtype")
        else " ".join(repr(value)[:80].split())
    )


quick = hypothesis.settings(
    max_examples=3,  # each of which calls a function a dozen times
    deadline=None,
    phases=[hypothesis.Phase.generate],  # a failing call is shown as it was; a smaller seed is no simpler call
    derandomize=True,  # the same calls in every run
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)
