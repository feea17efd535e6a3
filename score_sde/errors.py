"""The one exception for mistakes of the user: its message is a sentence that says what to do."""

import difflib
import sys
from collections.abc import Callable, Iterable


class UsageError(ValueError):
    """Shown without a traceback by the command line, which then exits with status 2."""


def exit_status(program: Callable[[list[str]], None], argv: list[str] | None) -> int:
    """Runs a command line, default this process's: 0, or 2 with one sentence on stderr for a mistake of the user."""
    try:
        program(sys.argv if argv is None else argv)
    except UsageError as error:
        print(f"score_sde: {error}", file=sys.stderr)
        return 2
    return 0


def one_of(what: str, name: str, choices: Iterable[str]) -> str:
    """`name` if it is among `choices`; otherwise raises `UsageError` naming the nearest."""
    choices = list(choices)
    if name in choices:
        return name
    raise UsageError(f"Unknown {what} '{name}'{nearest(name, choices)}; choose from: {', '.join(choices)}.")


def nearest(name: str, choices: Iterable[str]) -> str:
    """`' (did you mean ...?)'`, or nothing when no choice is close to `name`."""
    matches = difflib.get_close_matches(name, list(choices), n=1, cutoff=0.5)
    return f" (did you mean '{matches[0]}'?)" if matches else ""
