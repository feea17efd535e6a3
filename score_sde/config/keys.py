"""Keys of the config: default, sentence, values, and when a key may differ.

A key has one of these kinds. Each also takes NumPy's and JAX's scalars, and a tuple also takes lists and arrays; they
are stored as plain Python values, which JSON can hold.

| kind                                | a default  | values on a command line              |
|-------------------------------------|------------|---------------------------------------|
| `bool`, `int`, `float`, `str`       | False, 128 | True, 128, 1e-3, tf32                 |
| `tuple[int, ...]`, float            | (1, 2, 2)  | (1,2,2) or 1,2,2                      |
| `tuple[str, ...]`                   | ("labels",)| labels,tokens                         |
| any of these, and None: "nullable"  | None       | None                                  |
"""

import dataclasses
import enum
import functools
import importlib
import math
import os
import typing
from collections.abc import Iterator, Mapping
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
        newer: Whether the default counts as no key in a run's identity, so that results of older runs keep their cache
            keys.
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
        if self.kind is str and isinstance(value, os.PathLike):
            value = os.fspath(value)
        kind, items = self._items or self.kind, value if self._items else (value,)
        if not isinstance(items, tuple) or not all(is_scalar(item, kind) for item in items):
            noun = f"a list or tuple of {PLURALS[kind]}" if self._items else NOUNS[kind]
            raise UsageError(f"{self.name}={value!r} is not {noun}.")
        if self._items is str and self.values:  # choices, which have no commas, as a command line gives them: a,b
            return tuple(name.strip() for item in value for name in item.strip("()").split(",") if name.strip())
        stored = [self._stored(kind, item) for item in items]
        return value if self._items else stored[0]  # ints among floats stay, as digests of older workdirs have them

    def _stored(self, kind: type, item: Any) -> Any:
        """A value, or an item of a tuple, as one of the kind that files and arrays can hold."""
        if kind is str and "\0" in item:
            raise UsageError(f"{self.name}={item!r} holds a NUL character, which no name can have.")
        if kind is int and not -(2**63) <= item < 2**63:
            raise UsageError(f"{self.name} must be an integer of at most 64 bits.")
        try:
            return kind(item)
        except OverflowError:  # an integer beyond the range of floats
            raise UsageError(f"{self.name} is too large a number.") from None

    def check(self, value: Any) -> None:
        """Raises `UsageError` unless the value is of the key's kind and among its `values`."""
        value = self.plain(value)
        if not self.values or value is None or value == self.default:
            return
        items = value if self._items else (value,)
        if interval := self.interval:
            if outside := [number for number in items if not inside(interval, number)]:
                words = "be finite" if math.inf in outside else interval_words(interval)
                raise UsageError(f"{self.name}={value}{': each' * bool(self._items)} must {words}.")
        elif (choices := self.choices) and not (self.others or (self.takes_path and ":" in value)):
            for item in items:
                one_of(self.name, item.lower() if self.any_case else item, choices)

    @property
    def interval(self) -> str:
        """The interval of the key's numbers; "" for choices, and where any value of the kind is one."""
        if isinstance(self.values, str) and self.values.startswith(("[", "(")):
            return self.values
        return next((extra for extra in self._annotations if isinstance(extra, str)), "")

    @property
    def choices(self) -> tuple[str, ...]:
        """The names that the key can have; () for an interval, and where any value of the kind is one."""
        if isinstance(self.values, tuple):
            return self.values
        tables, argument = self._tables
        if argument:
            return next((extra for extra in self._annotations if isinstance(extra, tuple)), ())
        return tuple(name for table in tables for name in table)

    @property
    def range(self) -> str:
        """The values in words: "at least 1", "stop, skip"; "" where any value of the kind is one."""
        if interval := self.interval:
            words = interval_words(interval).removeprefix("be ").replace("not be negative", "0 or more")
            return f"each {words}" if self._items else words
        if not self.choices:
            return ""
        also = ["an import path"] * self.takes_path + ["others"] * self.others
        return ", ".join((*self.choices, *also))

    @property
    def _tables(self) -> tuple[list[Any], str]:
        """The dictionaries, and the argument or "", that `values` names."""
        if not isinstance(self.values, str) or ":" not in self.values:
            return [], ""
        module, _, names = self.values.partition(":")
        names, _, argument = names.partition(".")
        return [getattr(importlib.import_module(module), name) for name in names.split("+")], argument

    @property
    def _annotations(self) -> list[Any]:
        """Intervals, and tuples of choices, by which classes annotate the argument that `values` names."""
        tables, argument = self._tables
        if not argument:
            return []
        return [extra for table in tables for cls in table.values() for extra in extras_of(cls).get(argument, ())]

    @functools.cached_property
    def _items(self) -> type | None:
        """The kind of a tuple's items; None for other kinds."""
        return typing.get_args(self.kind)[0] if typing.get_origin(self.kind) is tuple else None


@functools.cache
def extras_of(cls: Any) -> dict[str, tuple[Any, ...]]:
    """Intervals, as "[0, 1)", and choices, as tuples, in the annotations of each field or argument.

    {"rate": ("[0, 1)",), "kind": (("a", "b"),)} for rate: Annotated[float, "[0, 1)"] and kind: Literal["a", "b"].
    """
    hints = typing.get_type_hints(cls, include_extras=True)
    return {name: tuple(_extras(hint)) for name, hint in hints.items()}


def _extras(hint: Any) -> Iterator[Any]:
    parts = typing.get_args(hint)
    if typing.get_origin(hint) is typing.Literal:
        yield parts
        return
    for part in parts:
        if isinstance(part, str):
            yield part
        else:
            yield from _extras(part)


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
