"""Files of a run: written as a whole or not at all, by the first process only, and by one run at a time."""

import contextlib
import fcntl
import os
import socket
from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path
from typing import BinaryIO

import numpy as np

from score_sde.errors import UsageError, tell, warn
from score_sde.runtime.sharding import all_agree, is_first


def replace(path: Path, write: Callable[[BinaryIO], object], flag: str = "--workdir") -> None:
    """Replaces a file by the output of `write`; a reader, or a kill at any moment, sees the old file or the new one.

    flag: the flag, for messages, that chooses another path. Raises `UsageError` if it cannot be written.
    """
    if not is_first():
        return
    temporary = path.with_name(path.name + ".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)  # its part would keep a full disk full
        raise UsageError(f"Cannot write {path} ({error.strerror}); free space, or choose another {flag}.") from error


def read_arrays(path: Path) -> dict[str, np.ndarray] | None:
    """The arrays of an .npz file; None if it is missing or damaged (a zip file has checksums)."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            return dict(stored)
    except Exception:  # zipfile raises various types for damaged files
        return None


@contextlib.contextmanager
def locked(
    folder: Path, name: str, advice: str = "choose a --workdir that can be written", *, wait: bool = False
) -> Iterator[None]:
    """Holds the lock `folder`/`name`.lock, which is released when the process ends in any way.

    advice: for the message on a folder that cannot be written. wait: whether to wait for another process that holds the
    lock. Raises `UsageError` where the folder cannot be written, or another process holds the lock and `wait` is False.
    """
    path, problem = Path(folder) / f"{name}.lock", None
    with contextlib.ExitStack() as held:
        if is_first():
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                problem = _take(path, held.enter_context(path.open("ab+", buffering=0)), wait)
            except OSError as error:
                problem = f"Cannot write {path} ({error.strerror}); {advice}."
        if not all_agree(problem is None):
            raise UsageError(problem or f"The first process cannot lock {path}; see what it says.")
        yield


def _take(path: Path, file: FileIO, wait: bool) -> str | None:
    """Locks the open file; returns a message if another process holds the lock."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = file.read().decode().strip() or "another process"
        if not wait:
            return f"{path.parent} is in use by {holder}; wait until it has ended, or choose another folder."
        tell(f"Waiting for {holder}, which makes {path.parent}.")
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError as error:  # a file system without locks
        warn(f"{path} cannot be locked ({error.strerror}): see to it that no other run uses this folder.")
    with contextlib.suppress(OSError):  # the disk may be full; the lock holds all the same
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}".encode())
    return None
