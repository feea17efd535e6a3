"""Driver of jobs: a launcher runs them until each is finished or has failed.

A launcher has `free`, `start(job)` and `adopt(job)`; what it starts has `ended`, `stop()` and `wait()`.
"""

import dataclasses
import enum
import time
from collections.abc import Callable, Sequence
from typing import Any

from score_sde.experiments.sweep import job as program
from score_sde.experiments.sweep.runs import Job, Run

from score_sde.errors import UsageError
from score_sde.runtime.preemption import REQUEUE, Stopped

USAGE = 2  # exit status of a program that was given a mistake: started again, it would say the same
POLL_SECONDS = 0.2


class State(enum.Enum):
    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"

    @property
    def over(self) -> bool:
        return self in (State.FINISHED, State.FAILED)


@dataclasses.dataclass
class Entry:
    """A job on its way. needs: the entry of the job that comes before. why: it has failed, in a sentence.

    before: its state when the drive began, or failed with what it needs.
    """

    job: Job
    needs: "Entry | None"
    state: State = State.WAITING
    failures: int = 0
    why: str = ""
    handle: Any = None
    before: State = State.WAITING

    @property
    def over(self) -> bool:
        return self.state.over


class Drive:
    """The jobs of some runs, each once. retries: of a job that fails, but by a mistake that would be the same."""

    def __init__(self, runs: Sequence[Run], launcher: Any, retries: int = 1):
        self._launcher, self._retries = launcher, retries
        self._entries: dict[tuple, Entry] = {}
        for run in runs:
            needs = None
            for job in run.jobs:
                needs = self._entries.setdefault(job.key, Entry(job, needs))
        for entry in self.entries:
            if entry.job.finished:
                entry.state = State.FINISHED
            elif handle := launcher.adopt(entry.job):
                entry.state, entry.handle = State.RUNNING, handle
            entry.before = entry.state

    @property
    def entries(self) -> list[Entry]:
        return list(self._entries.values())

    def of(self, run: Run) -> list[Entry]:
        return [self._entries[job.key] for job in run.jobs]

    def failure(self, run: Run) -> str:
        """The reason why a run has failed; "" if it has not."""
        return next((entry.why for entry in self.of(run) if entry.state is State.FAILED), "")

    def __call__(self, tell: Callable[["Drive"], None] = lambda _: None) -> None:
        """Runs until all are over. tell: called whenever something may have changed. `Stopped` ends what runs here."""
        try:
            while not all(entry.over for entry in self.entries):
                self._step()
                tell(self)
                time.sleep(POLL_SECONDS)
        except Stopped:
            running = [entry.handle for entry in self.entries if entry.state is State.RUNNING]
            for handle in running:
                handle.stop()
            for handle in running:
                handle.wait()
            raise
        tell(self)

    def _step(self) -> None:
        for entry in self.entries:
            if entry.state is State.RUNNING and entry.handle.ended:
                self._conclude(entry)
        for entry in self.entries:
            if entry.state is not State.WAITING:
                continue
            if entry.needs and entry.needs.state is State.FAILED:
                entry.state, entry.why, entry.before = State.FAILED, entry.needs.why, State.FAILED  # said once
            elif (entry.needs is None or entry.needs.state is State.FINISHED) and self._launcher.free:
                self._start(entry)

    def _start(self, entry: Entry) -> None:
        status = program.read(entry.job.status)
        program.write(entry.job.status, {key: value for key, value in status.items() if key == "seconds"})
        try:
            entry.handle, entry.state = self._launcher.start(entry.job), State.RUNNING
        except UsageError as error:
            entry.why, entry.state = str(error), State.FAILED

    def _conclude(self, entry: Entry) -> None:
        """Notes how a job that is no longer running has ended."""
        job, outcome = entry.job, program.read(entry.job.status)
        status = outcome.get("status")
        if job.finished:
            entry.state = State.FINISHED
        elif status == REQUEUE:
            entry.state = State.WAITING
        else:
            entry.failures += 1
            again = status != USAGE and entry.failures <= self._retries
            entry.state = State.WAITING if again else State.FAILED
            entry.why = "" if again else _why(job, status, outcome.get("said", ""), entry.failures)


def _why(job: Job, status: int | None, said: str, failures: int) -> str:
    if status == USAGE:
        return said
    times = f", {failures} times" if failures > 1 else ""
    if status is None:
        return f"It was ended from outside{times}; see {job.log}."
    if status == 0:
        return f"It ended without having made all it was to make{times}; see {job.log}."
    how = f"signal {-status}" if status < 0 else f"status {status}"
    return f"It ended with {how}{times} ({said or 'without a word'}); see {job.log}."
