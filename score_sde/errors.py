"""Messages to the user: the exception for the user's mistakes, warnings, and how a program ends.

A message is a sentence that says what to do.
"""

import contextlib
import difflib
import os
import sys
from collections.abc import Callable, Iterable

from score_sde.preemption import Stopped, stoppable


class UsageError(ValueError):
    """A mistake of the user, shown without a traceback by the command line, which then exits with status 2."""


def exit_status(program: Callable[[list[str]], int | None], argv: list[str] | None) -> int:
    """Runs a command line, default this process's, and returns its exit status; signals may stop it from here on.

    The status is what the program returns, None being 0; 2 for a mistake of the user, with its sentence on stderr;
    `preemption.REQUEUE` or INTERRUPTED if it was stopped.
    """
    for stream in (sys.stdout, sys.stderr):  # a locale may lack ±, or the umlauts of a file name
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
    """Warns on stderr of a problem that stops nothing."""
    _say(f"warning: {message}")


def tell(message: str) -> None:
    """Prints information on stderr."""
    _say(message)


def shown(name: str | os.PathLike[str]) -> str:
    """A file's name as printable text; bytes that are not UTF-8 appear as \\udcNN."""
    return os.fspath(name).encode("utf-8", "backslashreplace").decode()


def _say(message: str) -> None:
    line_up = "\r\033[K" if sys.stderr.isatty() else ""  # over a progress bar
    print(f"{line_up}score_sde: {message}", file=sys.stderr, flush=True)


def one_of(what: str, name: str, choices: Iterable[str]) -> str:
    """The `name`, if it is among `choices`; otherwise raises `UsageError` naming the nearest."""
    choices = list(choices)
    if name in choices:
        return name
    raise UsageError(f"Unknown {what} '{name}'{nearest(name, choices)}; choose from: {', '.join(choices)}.")


def nearest(name: str, choices: Iterable[str]) -> str:
    """The hint ` (did you mean ...?)`; "" when no choice is close to `name`."""
    matches = difflib.get_close_matches(name, list(choices), n=1, cutoff=0.5)
    return f" (did you mean '{matches[0]}'?)" if matches else ""
