"""Display of a running sweep: a table that is redrawn on a terminal, else a line whenever a job changes."""

import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import timedelta

from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text
from score_sde.experiments.sweep.drive import Drive, Entry, State
from score_sde.experiments.sweep.job import last_line
from score_sde.experiments.sweep.results import label
from score_sde.experiments.sweep.runs import Job, Run

from score_sde.io.metrics_log import read_lines

STYLES = {State.WAITING: "dim", State.RUNNING: "bold", State.FINISHED: "green", State.FAILED: "red"}
EVERY = 0.5  # seconds between two pictures
TAIL = 4096  # bytes of metrics.jsonl, which may be long and is read often
ROOM = 14  # lines of the terminal that are not the table's


class Display:
    """Use as a context manager, and give it to a `Drive` to tell. name: of a job of a run."""

    def __init__(self, runs: Sequence[Run], title: str, name: Callable[[Run, Job], str] | None = None):
        self._labels: dict[tuple, str] = {}
        for run in runs:
            for job in run.jobs:
                self._labels.setdefault(job.key, name(run, job) if name else label(run.point))
        self._title, self._terminal = title, sys.stderr.isatty()
        self._live = Live(console=Console(stderr=True), auto_refresh=False) if self._terminal else None
        self._printed: dict[tuple, State] = {}
        self._drawn, self._started = 0.0, time.monotonic()
        self._begun: dict[tuple, tuple[float, int]] = {}  # when a training was first seen running, and at which step

    def __enter__(self) -> "Display":
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_) -> None:
        if self._live:
            self._live.stop()

    def __call__(self, drive: Drive) -> None:
        if self._live is None:
            return self._lines(drive)
        over = all(entry.over for entry in drive.entries)
        if over or time.monotonic() - self._drawn > EVERY:
            self._live.update(self._table(drive), refresh=True)
            self._drawn = time.monotonic()
        return None

    def _lines(self, drive: Drive) -> None:
        if not self._printed:
            self._printed = {entry.job.key: entry.before for entry in drive.entries}
            over = sum(state.over for state in self._printed.values())
            print(f"{self._title}: {len(self._printed)} jobs, {over} finished before")
        for entry in drive.entries:
            silent = entry.before is State.FAILED  # with the job that it needs
            if entry.state is not self._printed[entry.job.key] and not silent:
                self._printed[entry.job.key] = entry.state
                done = sum(other.over for other in drive.entries)
                why = f": {entry.why}" if entry.why else ""
                count = f"[{done}/{len(drive.entries)}]"
                print(f"{count} {entry.job.mode} {entry.state.value}: {self._labels[entry.job.key]}{why}", flush=True)

    def _table(self, drive: Drive) -> Table:
        counts = Counter(entry.state for entry in drive.entries)
        by_state = ", ".join(f"{counts[state]} {state.value}" for state in State if counts[state])
        elapsed, waiting = time.monotonic() - self._started, sum(not entry.over for entry in drive.entries)
        finished = sum(entry.over and not entry.before.over for entry in drive.entries)
        remaining = f", about {_time(elapsed / finished * waiting)} left" if finished and waiting else ""
        title = f"{self._title}: {by_state}, {_time(elapsed)}{remaining}"
        table = Table(title=title, box=box.SIMPLE, title_justify="left")
        for name in ("run", "job", "state", "progress"):
            table.add_column(name, overflow="ellipsis", no_wrap=name != "progress")
        for entry in self._shown(drive):
            name = f"{entry.job.workdir.name} {self._labels[entry.job.key]}"
            cells = (name, entry.job.mode, entry.state.value, self._progress(entry))
            table.add_row(*map(Text, cells), style=STYLES[entry.state])
        return table

    def _shown(self, drive: Drive) -> list[Entry]:
        """The entries that fit, the running ones and failures first."""
        room = max(5, os.get_terminal_size(sys.stderr.fileno()).lines - ROOM)
        order = {State.RUNNING: 0, State.FAILED: 1, State.WAITING: 2, State.FINISHED: 3}
        listed = [entry for entry in drive.entries if entry.before is not State.FAILED]
        chosen = sorted(listed, key=lambda entry: order[entry.state])[:room]
        return [entry for entry in drive.entries if entry in chosen]

    def _progress(self, entry: Entry) -> str:
        if entry.state is not State.RUNNING:
            return entry.why
        if entry.job.mode != "train":
            return last_line(entry.job.log)[-60:]
        lines = read_lines(entry.job.workdir / "metrics.jsonl", tail=TAIL)
        step = max((line["step"] for line in lines), default=0)
        began, first = self._begun.setdefault(entry.job.key, (time.monotonic(), step))
        losses = [line["training_loss"] for line in lines if "training_loss" in line]
        loss = f", loss {losses[-1]:.4g}" if losses else ""
        rate = (step - first) / max(time.monotonic() - began, 1e-3)
        remaining = f", {_time((entry.job.until - step) / rate)} left" if rate > 0 else ""
        return f"{step:,} of {entry.job.until:,} ({rate:.2g}/s{remaining}){loss}"


def _time(seconds: float) -> str:
    return str(timedelta(seconds=int(seconds)))
