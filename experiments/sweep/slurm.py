"""Jobs under SLURM, by submitit: an sbatch script for each, requeued when it is preempted or its time is over.

Jobs stay in the queue when the launcher ends; started again, it follows those that are still there.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from score_sde.experiments.sweep import job as program
from score_sde.experiments.sweep.runs import Job

from score_sde.errors import UsageError, nearest

ASK_EVERY = 3.0  # seconds between two questions to the queue
OPTIONS = (  # of sbatch, by submitit's names for them
    *("account", "comment", "constraint", "cpus_per_gpu", "cpus_per_task", "dependency", "exclude", "exclusive"),
    *("gpus_per_node", "gpus_per_task", "gres", "mail_type", "mail_user", "mem", "mem_per_cpu", "mem_per_gpu"),
    *("nodelist", "nodes", "ntasks_per_node", "partition", "qos", "setup", "signal_delay_s", "time", "use_srun"),
)


class Execution:
    """The function that a SLURM job calls: submitit pickles it, and before it requeues the job calls `checkpoint`."""

    def __init__(self, status: Path, log: Path, command: tuple[str, ...]):
        self._arguments = (str(status), str(log), *command)
        self._process: subprocess.Popen | None = None

    def __call__(self) -> int:
        status, log = self._arguments[:2]
        task = os.environ.get("SLURM_PROCID", "0")
        if task != "0":  # of a run of several processes, the first one says how it ended
            status, log = f"{status}.{task}", f"{log}.{task}"
        command = [sys.executable, "-m", "score_sde.experiments.sweep.job", status, log, *self._arguments[2:]]
        # The notice, SIGUSR2, is for submitit, and SLURM sends it to all that the job has started.
        self._process = subprocess.Popen(command, preexec_fn=lambda: signal.signal(signal.SIGUSR2, signal.SIG_IGN))
        return self._process.wait()

    def checkpoint(self):
        """Makes the program save and end."""
        import submitit

        if self._process is not None:
            self._process.terminate()
            with contextlib.suppress(ChildProcessError):
                # `wait` holds a lock in the call that this has interrupted.
                os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
        return submitit.helpers.DelayedSubmission(self)

    def __getstate__(self) -> dict:
        return {"_arguments": self._arguments, "_process": None}


class Queued:
    """A job in the queue."""

    def __init__(self, queue: "Slurm", number: str):
        self._queue, self._number = queue, number

    @property
    def ended(self) -> bool:
        return self._queue.gone(self._number)

    def stop(self) -> None:
        """Does nothing: the job stays in the queue."""

    def wait(self) -> None:
        """Does nothing: nobody waits until the job ends."""


class Slurm:
    """Launcher by SLURM. slots: jobs in the queue at a time. devices: GPUs of each job. options: see `OPTIONS`."""

    def __init__(
        self, folder: Path, slots: int | None = None, devices: int = 0, options: Mapping[str, str] | None = None
    ):
        try:
            import submitit
        except ImportError as error:
            raise UsageError("--launcher=slurm needs submitit: pip install submitit.") from error
        for command in ("sbatch", "squeue", "srun"):  # submitit wants the last even where use_srun is False
            if not shutil.which(command):
                advice = "start this where SLURM is, or use --launcher=local"
                raise UsageError(f"There is no {command} on the PATH; {advice}.")
        options = options or {}
        for name in options:
            if name not in OPTIONS:
                raise UsageError(f"Unknown --slurm={name}{nearest(name, OPTIONS)}; choose from: {', '.join(OPTIONS)}.")
        self.slots = slots or 100
        self._executor = submitit.SlurmExecutor(folder / ".slurm" / "%j", max_num_timeout=1000)
        gpus = {"gpus_per_node": devices} if devices else {}
        typed = {name: _typed(name, value) for name, value in options.items()}
        self._executor.update_parameters(**{"job_name": "score_sde"} | gpus | typed)
        self._queued: list[Queued] = []
        self._alive, self._answered = set[str](), 0.0

    @property
    def free(self) -> bool:
        self._queued = [queued for queued in self._queued if not queued.ended]
        return len(self._queued) < self.slots

    def adopt(self, job: Job) -> Queued | None:
        """The job, if an earlier launcher has put it in the queue and it is still there."""
        number = program.read(_ticket(job)).get("number")
        return self._added(number) if number and not self.gone(number) else None

    def start(self, job: Job) -> Queued:
        """Raises `UsageError` with what sbatch says, if it refuses."""
        from submitit.core.utils import FailedJobError

        try:
            submitted = self._executor.submit(Execution(job.status.absolute(), job.log.absolute(), job.command))
        except (FailedJobError, subprocess.CalledProcessError, OSError) as error:
            lines = str(error).splitlines()
            said = [line for line in lines if "sbatch: error" in line] or lines[-1:]
            raise UsageError(f"SLURM refuses the job: {said[-1].removeprefix('sbatch: error: ').strip()}.") from error
        program.write(_ticket(job), {"number": submitted.job_id})
        self._answered = 0.0  # an older answer does not know it
        return self._added(submitted.job_id)

    def _added(self, number: str) -> Queued:
        self._queued.append(Queued(self, number))
        return self._queued[-1]

    def gone(self, number: str) -> bool:
        """Whether the queue has it no more, by an answer of at most `ASK_EVERY` seconds ago."""
        if time.monotonic() - self._answered > ASK_EVERY:
            command = ["squeue", "--noheader", f"--user={os.getuid()}", "--format=%A"]
            answer = subprocess.run(command, capture_output=True, text=True, check=False)
            if answer.returncode:
                return False  # a controller that does not answer now
            self._alive, self._answered = set(answer.stdout.split()), time.monotonic()
        return number not in self._alive


def _typed(name: str, value: str) -> Any:
    if name == "setup":
        return [value]
    return {"True": True, "False": False}.get(value, int(value) if value.isdecimal() else value)


def _ticket(job: Job) -> Path:
    return job.log.with_suffix(".slurm.json")
