"""Progress bars with rate and time left."""

import sys
import time
from collections.abc import Callable

from tqdm import tqdm

from score_sde.runtime.sharding import is_first

FORMAT = "{desc}: {percentage:3.0f}%|{bar:24}| {n:.0f}/{total:.0f} [{elapsed}<{remaining}, {rate_fmt}]{postfix}"


def bar(description: str, total: float, unit: str, initial: float = 0) -> tqdm:
    """A progress bar: redrawn often on a terminal, a line now and then in a log file."""
    interval = 0.2 if sys.stderr.isatty() else 15.0
    options = dict(mininterval=interval, bar_format=FORMAT, disable=not is_first(), smoothing=0.1)
    progress = tqdm(total=total, desc=description, unit=unit, initial=initial, **options)
    progress._time = time.monotonic  # the wall clock can be set back, which would stop the bar
    progress.start_t = progress.last_print_t = time.monotonic()
    return progress


def reporter(progress: tqdm, total: int, done: int = 0) -> Callable[[float], None]:
    """A function that moves a bar to `done` plus a fraction of `total`."""
    return lambda fraction: progress.update(done + fraction * total - progress.n)
