"""Traces of a few updates, with every operation on host and devices, for viewing in a browser."""

import sys
from pathlib import Path
from typing import Any

import jax

from score_sde.runtime.sharding import is_first

WARM_UP = 3  # updates before the trace, in which programs compile and the data are read ahead


class Profile:
    """Traces `updates` updates of this launch, after the first `WARM_UP`, into `folder`; 0 traces none."""

    def __init__(self, folder: Path, updates: int):
        self._folder, self._updates = folder, updates if is_first() else 0
        self._running = False

    def __enter__(self) -> "Profile":
        return self

    def before(self, number: int, state: Any) -> None:
        """Hook to call before update `number` = 0, 1, ... of this launch, with the state after the previous one."""
        if self._updates and number == WARM_UP:
            jax.block_until_ready(state)
            jax.profiler.start_trace(self._folder, create_perfetto_trace=True)
            self._running = True
        if self._running and number == WARM_UP + self._updates:
            jax.block_until_ready(state)
            self._stop()

    def __exit__(self, *_: Any) -> None:
        if self._running:
            self._stop()

    def _stop(self) -> None:
        self._running = False
        jax.profiler.stop_trace()
        traces = sorted(self._folder.rglob("perfetto_trace.json.gz"))
        where = traces[-1] if traces else self._folder
        print(f"Trace: {where}; open it at https://ui.perfetto.dev", file=sys.stderr)
