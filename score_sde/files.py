"""Files of a run: written whole or not at all, by the first process only, and one run at a time."""

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
from score_sde.parallel import all_agree, is_first


def replace(path: Path, write: Callable[[BinaryIO], object], flag: str = "--workdir") -> None:
    """Replaces a file by what `write` puts out: a reader, or a kill at any moment, sees the old one or the new one.

    flag: what chooses another path. Raises `UsageError` if it cannot be written.
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
            temporary.unlink(missing_ok=True)  # part of a file fills a full disk
        raise UsageError(f"Cannot write {path} ({error.strerror}); free space, or choose another {flag}.") from error


def read_arrays(path: Path) -> dict[str, np.ndarray] | None:
    """The arrays of an .npz file; None if there is none, or it is damaged: a zip file has a checksum of each array."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            return dict(stored)
    except Exception:  # zipfile raises various types for what is damaged
        return None


@contextlib.contextmanager
def locked(
    folder: Path, name: str, advice: str = "choose a --workdir that can be written", *, wait: bool = False
) -> Iterator[None]:
    """Holds `folder`/`name`.lock, which ends with the process, however that ends.

    advice: on a folder that cannot be written. wait: until another process that has the lock has ended with it. Raises
    `UsageError` where the folder cannot be written, or another process has the lock and is not waited for.
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
    """Locks the open file; otherwise, what to do."""
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
    with contextlib.suppress(OSError):  # of a full disk: it is locked all the same
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}".encode())
    return None
