"""Progress on stderr, with rate and time left: a bar on a terminal, and a line now and then in a log file.

The rate leaves out the first update, because that one waits for programs to compile; so there is no estimate of the
time left before the second.
"""

import contextlib
import math
import os
import sys
import time
from collections.abc import Callable

from tqdm import tqdm

from score_sde.runtime.sharding import is_first

FORMAT = "{desc}: {percentage:3.0f}%|{bar}| {n:.0f}/{total:.0f} [{elapsed}<{left}, {pace}]{postfix}"
SOON, LATER = 5.0, 60.0  # seconds between the first update and its line in a log file, and between later lines
MEMORY = 30.0  # seconds over which a rate is averaged
MANY = {"step": "steps", "img": "images"}


class Pace:
    """The rate of a progress: units a second over about the last `MEMORY` seconds, without the first update."""

    def __init__(self):
        self._last: float | None = None  # the time of the last update
        self._done = self._seconds = 0.0

    def add(self, amount: float, now: float) -> None:
        """Counts an update that has ended now; one by nothing does not count."""
        if amount <= 0:
            return
        if self._last is not None:
            seconds = now - self._last
            kept = math.exp(-seconds / MEMORY)
            self._done, self._seconds = kept * self._done + amount, kept * self._seconds + seconds
        self._last = now

    @property
    def rate(self) -> float | None:
        """Units a second; None before the second update."""
        return self._done / self._seconds if self._seconds > 0 else None


class Bar(tqdm):
    """A bar on a terminal."""

    def __init__(self, description: str, total: float, unit: str, initial: float, delay: float, *, shown: bool):
        self._pace = Pace()
        options = dict(mininterval=0.2, bar_format=FORMAT, disable=not shown, delay=delay)
        if shown and not _has_window():
            options |= dict(ncols=80, nrows=24)
        super().__init__(total=total, desc=description, unit=unit, initial=initial, **options)
        self._time = time.monotonic  # the wall clock can be set back, which would stop the bar
        self.start_t = self.last_print_t = time.monotonic()

    @property
    def format_dict(self) -> dict:
        """Values of `FORMAT`."""
        rate = self._pace.rate
        return super().format_dict | {"left": _left(self.total - self.n, rate), "pace": _pace(rate, self.unit)}

    def update(self, n: float = 1) -> bool | None:
        """Moves the bar on by n units."""
        self._pace.add(n, time.monotonic())
        return super().update(n)


class Lines:
    """Lines in a log file: at the start, `SOON` after the first update, then one in `LATER` seconds, and at the end.

    delay: seconds; if it is not 0, there is no line at the start, and none where the progress ends sooner.
    """

    def __init__(self, description: str, total: float, unit: str, initial: float, delay: float):
        self.n, self._description, self._total, self._unit, self._delay = initial, description, total, unit, delay
        self._pace, self._postfix, self._printed = Pace(), "", initial
        self._start = time.monotonic()
        self._due: float | None = None  # the time of the next line
        if not delay and initial < total:
            self._print("")

    def update(self, n: float = 1) -> None:
        """Moves on by n units."""
        now = time.monotonic()
        self._pace.add(n, now)
        self.n += n
        if self._due is None:
            self._due = now + SOON
        elif now >= self._due and self._pace.rate and self.n < self._total:
            self._due = now + LATER
            self._print(f"{_pace(self._pace.rate, self._unit)}, {_left(self._total - self.n, self._pace.rate)} left")

    def set_postfix_str(self, text: str, refresh: bool = True) -> None:
        """Sets words that later lines show."""
        self._postfix = text

    def __enter__(self) -> "Lines":
        return self

    def __exit__(self, *_) -> None:
        seconds = time.monotonic() - self._start
        if self.n != self._printed and seconds >= self._delay:
            self._print(f"in {_clock(seconds)}")

    def _print(self, words: str) -> None:
        self._printed = self.n
        unit, share = MANY.get(self._unit, self._unit), 100 * self.n / self._total
        parts = [
            f"{self._description}: {self.n:,.0f} of {self._total:,.0f} {unit} ({share:.0f} %)",
            self._postfix,
            words,
        ]
        print(", ".join(filter(None, parts)), file=sys.stderr, flush=True)


def bar(description: str, total: float, unit: str, initial: float = 0, delay: float = 0.0) -> Bar | Lines:
    """The progress of `total` units, a context manager: `Bar` on a terminal, else `Lines`; the first process shows it.

    delay: seconds before it is shown.
    """
    if is_first() and not sys.stderr.isatty():
        return Lines(description, total, unit, initial, delay)
    return Bar(description, total, unit, initial, delay, shown=is_first())


def reporter(progress: Bar | Lines, total: int, done: int = 0) -> Callable[[float], None]:
    """A function that moves a bar to `done` plus a fraction of `total`."""
    return lambda fraction: progress.update(done + fraction * total - progress.n)


def _has_window() -> bool:
    """Whether the terminal of stderr has a size; tqdm shows nothing on one without, such as that of `script`."""
    with contextlib.suppress(OSError, ValueError):  # of a stream without a file
        return all(os.get_terminal_size(sys.stderr.fileno()))
    return False


def _left(amount: float, rate: float | None) -> str:
    return "?" if rate is None else _clock(amount / rate)


def _pace(rate: float | None, unit: str) -> str:
    if rate is None:
        return f"? {unit}/s"
    if rate < 1:
        return f"{1 / rate:.3g} s/{unit}"
    return f"{rate:,.0f} {unit}/s" if rate >= 100 else f"{rate:.3g} {unit}/s"


def _clock(seconds: float) -> str:
    return tqdm.format_interval(seconds)
