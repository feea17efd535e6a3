"""Writer of metrics.jsonl, mirrored to Weights & Biases if that is switched on."""

import contextlib
import errno
import json
import math
import os
import threading
import time
from collections.abc import Callable
from io import FileIO
from pathlib import Path
from typing import Any, SupportsFloat

import numpy as np

from score_sde.errors import warn
from score_sde.io.atomic_files import replace
from score_sde.runtime.sharding import is_first

WANDB_SECONDS = 30  # the longest that wandb may take to start, and to finish


class Writer:
    """Appends one JSON object a line to `workdir/metrics.jsonl`; lines after `start_step` are dropped first.

    Lines that cannot be written, for example on a full disk, are kept and written with later ones. Only the first
    process writes.

    wandb: {"mode": "disabled" | "offline" | "online", "id": str} and the other keys of config.wandb. An error of wandb
    does not stop the run: it is printed once, and the mirror ends. Use as a context manager.
    """

    def __init__(self, workdir: Path, start_step: int, wandb: dict[str, Any], config: dict[str, Any]):
        self.path = Path(workdir) / "metrics.jsonl"
        lines = read_lines(self.path, start_step)
        self.last = {name: value for line in lines for name, value in line.items()}  # the last value of each name
        self._unwritten = b""
        self._said: OSError | None = None  # the disk's error, once it has been printed
        self._wandb = None
        self._file = None
        if not is_first():
            return
        replace(self.path, lambda file: file.writelines(map(_encode, lines)))
        self._file = self.path.open("r+b", buffering=0)
        self._size = self._file.seek(0, os.SEEK_END)
        if wandb["mode"] != "disabled":
            self._try(lambda: self._start_wandb(workdir, wandb, config))

    def _start_wandb(self, workdir: Path, options: dict[str, Any], config: dict[str, Any]) -> None:
        import wandb

        name = options["name"] or Path(workdir).absolute().name
        run = dict(mode=options["mode"], project=options["project"], id=options["id"], name=name, dir=str(workdir))
        run |= {key: options[key] for key in ("entity", "group") if options.get(key)}
        self._wandb = wandb.init(**run, config=config, resume="allow", settings={"init_timeout": WANDB_SECONDS})

    def _try(self, action: Callable[[], object]) -> None:
        try:
            action()
        except Exception as error:
            self._wandb = None
            reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
            warn(f"wandb is off from here on ({reason}); metrics.jsonl goes on.")

    def scalars(self, step: int, **values: SupportsFloat) -> None:
        """Writes one line: step, values, and the time in seconds since the epoch, which never runs backwards."""
        values = {name: float(value) for name, value in values.items()}
        now = max(round(time.time(), 3), self.last.get("time", 0.0))
        line = {"step": step, **values, "time": now}
        self.last |= line
        if self._file is None:
            return
        self._unwritten += _encode(line)
        self._write(self._file)
        if self._wandb is not None:
            self._try(lambda: self._wandb.log(values, step=step))

    def _write(self, file: FileIO) -> None:
        """Appends the waiting lines, all of them or none."""
        try:
            file.seek(self._size)
            if file.write(self._unwritten) < len(self._unwritten):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            with contextlib.suppress(OSError):
                file.truncate(self._size)
            if self._said is None:
                warn(f"Cannot write {self.path} ({error.strerror}): its lines are kept until there is space again.")
            self._said = error
            return
        self._size += len(self._unwritten)
        self._unwritten, self._said = b"", None

    def image(self, step: int, name: str, sheet: np.ndarray) -> None:
        """Sends a picture, uint8 (H, W, 3), to wandb only."""
        if self._wandb is not None:

            def log():
                import wandb

                self._wandb.log({name: wandb.Image(sheet)}, step=step)

            self._try(log)

    def sync(self) -> None:
        """Makes the lines written so far survive a power cut, like the checkpoint that is saved next."""
        if self._file is not None:
            self._write(self._file)
            with contextlib.suppress(OSError):
                os.fsync(self._file.fileno())

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *_) -> None:
        if self._file is not None:
            self._write(self._file)
            if self._unwritten:
                warn(f"{len(self._unwritten.splitlines())} lines of {self.path} could not be written.")
            self._file.close()
        if self._wandb is not None:
            self._try(self._finish_wandb)

    def _finish_wandb(self) -> None:
        """Waits for uploads, but not for ever, since without a network they do not end."""
        thread = threading.Thread(target=self._wandb.finish, daemon=True)
        thread.start()
        thread.join(WANDB_SECONDS)
        if thread.is_alive():
            raise TimeoutError(f"it has not finished within {WANDB_SECONDS} s; `wandb sync` uploads what is left")


def read_lines(path: Path, last_step: float = math.inf, *, tail: int | None = None) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl up to a step, without those that are not of a `Writer` or that a kill has cut short.

    tail: read only this many bytes at the end.
    """
    try:
        with path.open("rb") as file:
            if tail is not None:
                file.seek(max(0, path.stat().st_size - tail))
            lines = file.read().splitlines()
    except FileNotFoundError:
        return []
    parsed = []
    for line in lines:
        with contextlib.suppress(ValueError, RecursionError):
            parsed.append(json.loads(line))
    return [line for line in parsed if _is_ours(line) and line["step"] <= last_step]


def _is_ours(line: Any) -> bool:
    """Whether a line is an object with a step, in which all values are numbers."""
    return isinstance(line, dict) and "step" in line and all(type(value) in (int, float) for value in line.values())


def _encode(line: dict[str, Any]) -> bytes:
    return json.dumps(line).encode() + b"\n"
