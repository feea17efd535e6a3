"""What the user is told: mistakes, by the one exception for them, warnings, and how a program ends.

A message is a sentence that says what to do.
"""

import contextlib
import difflib
import os
import sys
from collections.abc import Callable, Iterable

from score_sde.preemption import Stopped, stoppable


class UsageError(ValueError):
    """Shown without a traceback by the command line, which then exits with status 2."""


def exit_status(program: Callable[[list[str]], int | None], argv: list[str] | None) -> int:
    """Runs a command line, default this process's, which signals may stop from here on; its exit status.

    What the program returns, None being 0; 2 for a mistake of the user, with its sentence on stderr;
    `preemption.REQUEUE` or INTERRUPTED if it was stopped.
    """
    for stream in (sys.stdout, sys.stderr):  # a locale may have no ± and no umlaut of a file name
        with contextlib.suppress(AttributeError):
            stream.reconfigure(errors="backslashreplace")
    try:
        with stoppable():
            return program(sys.argv if argv is None else argv) or 0
    except UsageError as error:
        _say(str(error))
        return 2
    except Stopped as stopped:
        _say(str(stopped))
        return stopped.status


def warn(message: str) -> None:
    """What goes wrong and stops nothing, on stderr."""
    _say(f"warning: {message}")


def tell(message: str) -> None:
    """What is to be known and is nothing wrong, on stderr."""
    _say(message)


def shown(name: str | os.PathLike[str]) -> str:
    """A file's name as text that can be printed and written anywhere: bytes that are no UTF-8 appear as \\udcNN."""
    return os.fspath(name).encode("utf-8", "backslashreplace").decode()


def _say(message: str) -> None:
    line_up = "\r\033[K" if sys.stderr.isatty() else ""  # over a progress bar
    print(f"{line_up}score_sde: {message}", file=sys.stderr, flush=True)


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
