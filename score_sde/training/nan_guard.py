"""Watch over the losses of a training for numbers that are not finite."""

import math
from collections import deque
from collections.abc import Callable

from score_sde.array_types import Array

AHEAD = 2  # updates that may be in progress while the host goes on, so that the device never waits for the host
MAX_IN_A_ROW = 10  # skipped updates; more are not the fault of the data


class DivergenceError(Exception):
    """Error for a number of a training that is not finite.

    updated: whether the update of `step` was made. `value` is then the evaluation loss after it, or the sum of all
    parameters; otherwise it is the loss of that update, and the loss or its gradient is not finite.
    """

    def __init__(self, step: int, value: float, *, updated: bool):
        super().__init__(step, value)
        self.step, self.value, self.updated = step, value, updated


def check_finite(value: float, step: int) -> float:
    """The value, an evaluation loss or sum of parameters after `step` updates.

    Raises `DivergenceError` if not finite.
    """
    if math.isfinite(value):
        return value
    raise DivergenceError(step, value, updated=True)


class Losses:
    """Losses of all updates, NaN for one that was not made; each is read `AHEAD` updates later.

    skip: count such an update and go on, at most `MAX_IN_A_ROW` times in a row. skipped: the count so far. tell: called
    with the step and the count at each.
    """

    def __init__(self, *, skip: bool, skipped: int, tell: Callable[[int, int], None]):
        self._skip, self._skipped, self._tell = skip, skipped, tell
        self._in_a_row = 0
        self._unread: deque[tuple[int, Array]] = deque()
        self._last = math.nan

    def add(self, step: int, loss: Array) -> None:
        """Adds the loss of an update. Raises `DivergenceError` for this update or one before it."""
        self._unread.append((step, loss))
        self._read(AHEAD)

    def last(self) -> float:
        """The loss of the last update, waited for; NaN if it was skipped. Raises `DivergenceError`."""
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
                raise DivergenceError(step, self._last, updated=False)
            self._skipped += 1
            self._tell(step, self._skipped)
