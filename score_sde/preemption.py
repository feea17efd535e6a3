"""Notices to stop: SIGTERM, or SIGUSR1 ahead of it, from a scheduler; Ctrl-C from a person.

A program that is stopped ends with status `REQUEUE`, by which a scheduler can tell it from one that failed, or with
`INTERRUPTED` after Ctrl-C. The same command goes on where it was.
"""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

REQUEUE = 75  # EX_TEMPFAIL of sysexits.h: not a failure, try again
INTERRUPTED = 128 + signal.SIGINT
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class Stopped(BaseException):
    """Ends the program. Not an `Exception`, so that nothing on the way takes it for a failure."""

    def __init__(self, number: int, message: str = ""):
        name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
        super().__init__(f"Stopped by {name}{message or '; the same command goes on from what is saved'}.")
        self.status = INTERRUPTED if number == signal.SIGINT else REQUEUE


class Notice:
    """While it is entered, notices are only noted; a second Ctrl-C acts as it did before.

    Does nothing outside the main thread, where Python delivers no signals.
    """

    def __init__(self):
        self.number = 0  # the signal's, once there is one
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
    """While it is entered, a notice raises `Stopped` wherever the program is; every file is whole at any moment.

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
    """Sets the handler of all notices that are not ignored, as Ctrl-C is in the background; those there were."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    heard = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    return {number: signal.signal(number, handler) for number in heard}


def _restore(handlers: dict) -> None:
    for number, handler in handlers.items():
        if handler is not None:  # another library's, in C
            signal.signal(number, handler)
