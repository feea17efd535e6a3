"""Messages to the user: the exception for the user's mistakes, and warnings.

A message is a sentence that says what to do.
"""

import difflib
import functools
import inspect
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import NoReturn


class UsageError(ValueError):
    """A mistake of the user, shown without a traceback by the command line, which then exits with status 2."""


def warn(message: str) -> None:
    """Warns on stderr of a problem that stops nothing."""
    _say(f"warning: {message}")


def tell(message: str) -> None:
    """Prints information on stderr."""
    _say(message)


def show(lines: Iterable[str]) -> None:
    """Prints lines on stderr as they are, without the program's name."""
    print(_line_up() + "\n".join(lines), file=sys.stderr, flush=True)


def shown(name: str | os.PathLike[str]) -> str:
    """A file's name as printable text; bytes that are not UTF-8 appear as \\udcNN."""
    return os.fspath(name).encode("utf-8", "backslashreplace").decode()


def _say(message: str) -> None:
    print(f"{_line_up()}score_sde: {message}", file=sys.stderr, flush=True)


def _line_up() -> str:
    """Characters that let the next line begin over a progress bar."""
    return "\r\033[K" if sys.stderr.isatty() else ""


def one_of(kind: str, name: str, choices: Iterable[str]) -> str:
    """The `name`, if it is among `choices`; otherwise raises `UsageError` naming the nearest."""
    choices = list(choices)
    if not isinstance(name, str):
        raise UsageError(f"A {kind} is a text, not {type(name).__name__}; choose from: {', '.join(choices)}.")
    if name in choices:
        return name
    raise UsageError(f"Unknown {kind} '{name}'{nearest(name, choices)}; choose from: {', '.join(choices)}.")


def nearest(name: str, choices: Iterable[str]) -> str:
    """The hint ` (did you mean ...?)`; "" when no choice is close to `name`."""
    matches = difflib.get_close_matches(name, list(choices), n=1, cutoff=0.5)
    return f" (did you mean '{matches[0]}'?)" if matches else ""


def renamed(old: str, new: str) -> Callable[[Callable], Callable]:
    """Decorator: a keyword of the release before raises `UsageError` with its new name."""

    def decorate(function: Callable) -> Callable:
        @functools.wraps(function)
        def call(*arguments, **options):
            if old in options:
                raise UsageError(renaming(function.__name__, old, new))
            return function(*arguments, **options)

        return call

    return decorate


def misnamed(name: str, signature: inspect.Signature, options: Iterable[str], error: TypeError | str) -> str:
    """The sentence on a call of the function `name` with options that it does not take, or without what it needs."""
    taken = [parameter for parameter in signature.parameters if parameter != "self"]
    for option in sorted(set(options) - set(taken)):
        error = f"there is no '{option}'{nearest(option, taken)}"
    return f"{name}: {error}; it takes {', '.join(taken) or 'no argument'}."


def takes_its_arguments(function: Callable) -> Callable:
    """Decorator: a call with other arguments than the function has raises `UsageError`."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*arguments, **options):
        try:
            signature.bind(*arguments, **options)
        except TypeError as error:
            raise UsageError(misnamed(function.__name__, signature, options, error)) from None
        return function(*arguments, **options)

    return call


def moved_names(module: str, moved: Mapping[str, str]) -> Callable[[str], NoReturn]:
    """A module's `__getattr__`, which answers names of the release before with an `ImportError` that has the new ones.

    An `AttributeError`'s text would be lost in `from module import name`.
    """

    def answer(name: str) -> NoReturn:
        if name in moved:
            raise ImportError(f"{module}.{name} is now {moved[name]}.")
        raise AttributeError(f"module {module!r} has no attribute {name!r}")

    return answer


def renaming(function: str, old: str, new: str) -> str:
    """The sentence on a renamed keyword of a function."""
    return f"The keyword {old} is now {new}; call {function}({new}=...)."
