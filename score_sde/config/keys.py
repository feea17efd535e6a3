"""Keys of the config: default, sentence, values, and when a key may differ.

A key has one of these kinds. Each also takes NumPy's and JAX's scalars, and a tuple also takes lists and arrays; they
are stored as plain Python values, which JSON can hold.

| kind                                | a default  | values on a command line              |
|-------------------------------------|------------|---------------------------------------|
| `bool`, `int`, `float`, `str`       | False, 128 | True, 128, 1e-3, tf32                 |
| `tuple[int, ...]`, float, str       | (1, 2, 2)  | (1,2,2) or 1,2,2                      |
| any of these, and None: "nullable"  | None       | None                                  |
"""

import dataclasses
import enum
import functools
import importlib
import math
import os
import typing
from collections.abc import Mapping
from typing import Any

from score_sde.errors import UsageError, one_of

ABSENT: Any = object()  # the default of a key that only presets put into a config
SAME: Any = object()  # an older workdir without the key means its default

# NumPy's seeds are not negative, and JAX's have 64 bits with a sign, of which its default types use the last 32.
# Evaluation adds 1.
SEEDS = "[0, 9e18]"


class Differs(enum.Enum):
    """Reasons why a key may have another value than at the start of a run, in words that follow "may differ"."""

    NEVER = "in no launch, since another value is another run"
    ALLOWED = "in a training that goes on, by --allow_change"
    LAUNCH = "between launches of a training"
    MACHINE = "in every program, as it depends on the machine"
    LATER = "in every program, as no trained number depends on it"


NOUNS = {bool: "True or False", int: "an integer", float: "a number", str: "text"}
PLURALS = {int: "integers", float: "numbers", str: "texts"}


@dataclasses.dataclass(frozen=True)
class Key:
    """One key of the config.

    Attributes:
        default: The value where a config sets none; None makes the key nullable.
        sentence: One sentence on the key, without a full stop.
        values: An interval, as "[0, 1)"; or choices, as a tuple or as "module:NAME", dictionaries that are looked up
            when a value is checked. Each item of a tuple is a choice. "" where the class or function that takes the
            value checks it.
        differs: The reason why the key may differ; None stands for its section's.
        kind: `bool`, `int`, `float`, `str` or a `tuple[KIND, ...]`; by default the type of the default.
        any_case: Whether upper case counts as lower case.
        others: Whether further values than `values` exist.
        takes_path: Whether an import path, "module:attribute", may stand for a choice.
        moves_numbers: Whether any number depends on the key.
        older: The value in a workdir that is older than the key, `SAME` for the default.
        older_of: The names in the key's section to which `older` applies; () for all.
        inherited: Whether a run that goes on keeps its first value, whatever the default is by now.
        newer: Whether None counts as no key in a run's identity, so that results of older runs keep their cache keys.
        replaces: Keys or sections that have no effect where this one is set.
        formerly: Names that the key had in the paper's code.
        name: "section.key", given by the table.
    """

    default: Any
    sentence: str
    values: str | tuple[str, ...] = ""
    differs: Differs | None = None
    kind: Any = None
    any_case: bool = False
    others: bool = False
    takes_path: bool = False
    moves_numbers: bool = True
    older: Any = SAME
    older_of: tuple[str, ...] = ()
    inherited: bool = False
    newer: bool = False
    replaces: tuple[str, ...] = ()
    formerly: tuple[str, ...] = ()
    name: str = ""

    def __post_init__(self):
        if self.kind is None:
            object.__setattr__(self, "kind", type(self.default))

    @property
    def nullable(self) -> bool:
        """Whether None is a value."""
        return self.default is None

    @property
    def python_type(self) -> type:
        """The type of the key's values, apart from None."""
        return tuple if self._items else self.kind

    def plain(self, value: Any) -> Any:
        """The value as plain Python. Raises `UsageError` if it is of another kind.

        Key(0.1, "Rate", name="optim.lr").plain(np.float32(1))  ->  1.0
        """
        value = plain(value)
        if value is None and self.nullable:
            return None
        if self._items is None:
            if self.kind is str and isinstance(value, os.PathLike):
                return os.fspath(value)
            if not is_scalar(value, self.kind):
                raise UsageError(f"{self.name}={value!r} is not {NOUNS[self.kind]}.")
            return self.kind(value)
        if not isinstance(value, tuple) or not all(is_scalar(item, self._items) for item in value):
            raise UsageError(f"{self.name}={value!r} is not a list or tuple of {PLURALS[self._items]}.")
        if self._items is str and self.values:  # choices, which have no commas, as a command line gives them: a,b
            return tuple(name.strip() for item in value for name in item.strip("()").split(",") if name.strip())
        return value

    def check(self, value: Any) -> None:
        """Raises `UsageError` unless the value is of the key's kind and among its `values`."""
        value = self.plain(value)
        if not self.values or value is None or value == self.default:
            return
        if isinstance(self.values, str) and self.values[0] in "[(":
            if not inside(self.values, value):
                raise UsageError(f"{self.name}={value} must {interval_words(self.values)}.")
        elif not (self.others or (self.takes_path and ":" in value)):
            for item in value if self._items else (value,):
                one_of(self.name, item.lower() if self.any_case else item, self.choices)

    @property
    def choices(self) -> tuple[str, ...]:
        """The names that the key can have; () for an interval, or without choices."""
        if isinstance(self.values, tuple) or not self.values or self.values[0] in "[(":
            return self.values if isinstance(self.values, tuple) else ()
        module, _, names = self.values.partition(":")
        return tuple(name for table in names.split("+") for name in getattr(importlib.import_module(module), table))

    @property
    def range(self) -> str:
        """The values in words: "at least 1", "stop, skip"; "" where the code that uses the key checks them."""
        if not self.values:
            return ""
        if self.choices:
            also = ["an import path"] * self.takes_path + ["others"] * self.others
            return ", ".join((*self.choices, *also))
        return interval_words(self.values).removeprefix("be ").replace("not be negative", "0 or more")

    @functools.cached_property
    def _items(self) -> type | None:
        """The kind of a tuple's items; None for other kinds."""
        return typing.get_args(self.kind)[0] if typing.get_origin(self.kind) is tuple else None


def plain(value: Any) -> Any:
    """The value with NumPy's and JAX's numbers as Python's, and lists and arrays as tuples."""
    if hasattr(value, "tolist") and hasattr(value, "ndim"):
        value = value.tolist()
    return tuple(plain(item) for item in value) if isinstance(value, list | tuple) else value


def inside(interval: str, value: float) -> bool:
    """Whether a number is in an interval like "[0, 1)"; NaN is in none."""
    low, high = (float(end) for end in interval[1:-1].split(","))
    above = low <= value if interval[0] == "[" else low < value
    return above and (value <= high if interval[-1] == "]" else value < high)


def checked(keys: Mapping[str, Key], values: Mapping[str, Any]) -> None:
    """Checks each value whose key is in the table. Raises `UsageError`."""
    for name, value in values.items():
        if name in keys:
            keys[name].check(value)


def is_scalar(value: Any, kind: type) -> bool:
    """Whether a plain value is of the type; an int is a float, and a bool is no number."""
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def interval_words(interval: str) -> str:
    """An interval in words that follow "must"."""
    low, high = (float(end) for end in interval[1:-1].split(","))
    if high < math.inf or interval[-1] == "]":
        return f"be in {interval}"
    if low == 0:
        return "be positive and finite" if interval[0] == "(" else "not be negative"
    return f"be at least {low:g}" if low > -math.inf else "be finite"
