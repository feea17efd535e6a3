"""Notices to stop: SIGTERM, or SIGUSR1 before it, from a scheduler; Ctrl-C from a person.

A program that is stopped ends with status `REQUEUE`, which tells a scheduler that it has not failed, or with
`INTERRUPTED` after Ctrl-C. The same command goes on from there.
"""

import contextlib
import io
import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TextIO

from score_sde.errors import UsageError, tell
from score_sde.runtime import backend, failures

REQUEUE = 75  # EX_TEMPFAIL of sysexits.h: not a failure, try again
INTERRUPTED = 128 + signal.SIGINT
UNREAD = 128 + signal.SIGPIPE
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class Stopped(BaseException):
    """Request to end the program; not an `Exception`, so that no handler on the way takes it for a failure."""

    def __init__(self, number: int, message: str = ""):
        name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
        super().__init__(f"Stopped by {name}{message or '; the same command goes on from the last save'}.")
        self.status = INTERRUPTED if number == signal.SIGINT else REQUEUE


class Notice:
    """Context in which notices are only recorded; a second Ctrl-C acts as before.

    Does nothing outside the main thread, where Python delivers no signals.
    """

    def __init__(self):
        self.number = 0  # of the signal, once there is one
        self._before: dict = {}

    def __enter__(self) -> "Notice":
        self._before = _handle(self._note)
        return self

    def __exit__(self, *_) -> None:
        _restore(self._before)
        self._before = {}

    def _note(self, number: int, _: FrameType | None) -> None:
        if self.number and number == signal.SIGINT:
            self.__exit__()
            signal.raise_signal(number)
        self.number = self.number or number


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Context in which a notice raises `Stopped` wherever the program is; every file is whole at any moment.

    Does nothing outside the main thread.
    """

    def stop(number: int, _: FrameType | None) -> None:
        raise Stopped(number)

    before = _handle(stop)
    try:
        yield
    finally:
        _restore(before)


def _handle(handler: Callable) -> dict:
    """Sets the handler of all notices but ignored ones (Ctrl-C in the background); returns the previous handlers."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    heard = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    return {number: signal.signal(number, handler) for number in heard}


def _restore(handlers: dict) -> None:
    for number, handler in handlers.items():
        if handler is not None:  # None: the handler of another library, in C
            signal.signal(number, handler)


def exit_status(program: Callable[[list[str]], int | None], argv: list[str] | None) -> int:
    """Runs a command line, default this process's, and returns its exit status; signals may stop it from here on.

    A program has a home folder and what a CPU needs before anything computes. It keeps compiled programs only if it
    says so (`backend.keep_programs`), because some measure how long compiling takes.

    The status is what the program returns, None being 0; 2 for a mistake of the user or a failure of the machine
    (`failures`), with its sentence on stderr; REQUEUE or INTERRUPTED if it was stopped; UNREAD if nobody reads its
    output any more.
    """
    for stream in (sys.stdout, sys.stderr):  # a locale may lack ±, or the umlauts of a file name
        with contextlib.suppress(AttributeError):
            stream.reconfigure(errors="backslashreplace")
    backend.find_home()
    backend.prepare_cpu()
    try:
        with stoppable():
            status = program(sys.argv if argv is None else argv) or 0
        sys.stdout.flush()
        return status
    except UsageError as error:
        tell(str(error))
        return 2
    except Stopped as stopped:
        tell(str(stopped))
        return stopped.status
    except BrokenPipeError:
        if _is_read(sys.stdout):
            raise  # it was another pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python flushes at its end
        return UNREAD
    except (OSError, RuntimeError, MemoryError) as error:
        if (sentence := failures.explained(error)) is None:
            raise
        tell(sentence)
        return 2


def _is_read(stream: TextIO) -> bool:
    """Whether somebody still reads a stream; not if it is a pipe to a program that has ended, such as `head`."""
    poll = select.poll()
    with contextlib.suppress(io.UnsupportedOperation):  # of a stream in memory
        poll.register(stream.fileno(), select.POLLOUT)
    return not any(event & select.POLLERR for _, event in poll.poll(0))
