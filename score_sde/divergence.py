"""The losses of a training, watched for what is not finite."""

import math
from collections import deque
from collections.abc import Callable

from score_sde.array_types import Array

AHEAD = 2  # updates that may be under way while the host goes on, so that the device never waits for it
MAX_IN_A_ROW = 10  # skipped updates, after which it is not the data


class DivergenceError(Exception):
    """Training has come to a number that is not finite.

    made: False where it is the loss or gradient of the update of `step`, which was not made; else `value` is the
    evaluation loss after that update, or the sum of all parameters.
    """

    def __init__(self, step: int, value: float, *, made: bool):
        super().__init__(step, value)
        self.step, self.value, self.made = step, value, made


def check_finite(value: float, step: int) -> float:
    """The evaluation loss after `step` updates, or the sum of all parameters. Raises `DivergenceError`."""
    if math.isfinite(value):
        return value
    raise DivergenceError(step, value, made=True)


class Losses:
    """Takes the loss of every update, NaN for one that was not made, and reads it `AHEAD` updates later.

    skip: count such an update and go on, at most `MAX_IN_A_ROW` times in a row. skipped: the count so far. tell: is
    given the step and the count of each.
    """

    def __init__(self, *, skip: bool, skipped: int, tell: Callable[[int, int], None]):
        self._skip, self._skipped, self._tell = skip, skipped, tell
        self._in_a_row = 0
        self._unread: deque[tuple[int, Array]] = deque()
        self._last = math.nan

    def add(self, step: int, loss: Array) -> None:
        """Raises `DivergenceError`, for this update or one before it."""
        self._unread.append((step, loss))
        self._read(AHEAD)

    def last(self) -> float:
        """That of the last update, waited for; NaN if it was skipped. Raises `DivergenceError`."""
        self._read(0)
        return self._last

    def _read(self, unread: int) -> None:
        while len(self._unread) > unread:
            step, loss = self._unread.popleft()
            self._last = float(loss)
            if math.isfinite(self._last):
                self._in_a_row = 0
                continue
            self._in_a_row += 1
            if not self._skip or self._in_a_row > MAX_IN_A_ROW:
                raise DivergenceError(step, self._last, made=False)
            self._skipped += 1
            self._tell(step, self._skipped)
