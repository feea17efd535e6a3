"""Runs one job, alone: `python -m experiments.sweep.job STATUS LOG COMMAND...`.

Holds a lock while it runs, so that one that outlived its launcher is waited for and not run beside. Passes notices to
stop on to the program, which saves, and so does the end of the launcher, however that comes. Writes how the program
ended to STATUS. Imports nothing heavy.
"""

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock

from score_sde.runtime.preemption import REQUEUE

PR_SET_PDEATHSIG = 1


def execute(status: Path, log: Path, command: Sequence[str]) -> int:
    """The exit status of the command, negative if a signal ended it, which STATUS says with its last line and time."""
    status.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as held:
        with contextlib.suppress(OSError):  # of a file system without locks; the workdir's own lock is there too
            held.enter_context(FileLock(status.with_suffix(".lock"), fallback_to_soft=False))
        before = read(status)
        started = time.time()
        with log.open("ab") as output:
            begin = output.tell()
            ended = _run(command, output)
        seconds = before.get("seconds", 0.0) + time.time() - started
        write(status, {"status": ended, "seconds": round(seconds, 1), "said": last_line(log, begin)})
    return ended


def _run(command: Sequence[str], output) -> int:
    child: subprocess.Popen | None = None
    stopped = 0

    def stop(number: int, _) -> None:
        nonlocal stopped
        stopped = number
        if child is not None:
            child.send_signal(signal.SIGTERM)

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)}
    try:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, preexec_fn=die_with_parent
        )
        if stopped:  # while it was being started
            child.send_signal(signal.SIGTERM)
        return child.wait()
    except OSError as error:
        output.write(f"{command[0]}: {error.strerror}\n".encode())
        return 127
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def die_with_parent() -> None:
    """Makes Linux send SIGTERM to this process when its parent ends, even by SIGKILL."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def read(path: Path) -> dict:
    """The content of a small JSON file; {} if there is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def write(path: Path, content: dict) -> None:
    """Replaces it whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(content) + "\n", encoding="utf-8")
    temporary.replace(path)


def last_line(log: Path, begin: int = 0) -> str:
    """The last line written from `begin` on, without redrawn progress bars."""
    try:
        with log.open("rb") as file:
            file.seek(max(begin, log.stat().st_size - 8192))
            lines = file.read().decode(errors="replace").replace("\r", "\n").splitlines()
    except OSError:
        return ""
    written = [line.strip() for line in lines if line.strip()]
    said = [line for line in written if line.startswith("score_sde: ") and not line.startswith("score_sde: warning")]
    return (said or written or [""])[-1].removeprefix("score_sde: ")[:500]


if __name__ == "__main__":
    launcher = os.getppid()
    die_with_parent()
    if os.getppid() != launcher:  # it ended before this was asked for
        sys.exit(REQUEUE)
    sys.exit(execute(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]) & 0xFF)
