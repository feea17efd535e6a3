"""Files of a run: written as a whole or not at all, by the first process only, and by one run at a time."""

import contextlib
import errno
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from filelock import FileLock, Timeout

from score_sde.errors import UsageError, tell, warn
from score_sde.runtime.sharding import all_agree, is_first

WRITABLE = "choose a --workdir that can be written"
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL)  # answers of file systems without locks


def replace(path: Path, write: Callable[[BinaryIO], object], flag: str = "--workdir") -> None:
    """Replaces a file by the output of `write`; a reader, or a kill at any moment, sees the old file or the new one.

    flag: the command-line flag that chooses another path, for the message. Raises `UsageError` if it cannot be written.
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


def check_place(path: Path, flag: str) -> None:
    """Raises `UsageError` unless a file can be written there, before the work that makes its content.

    Missing folders are no obstacle, since `replace` makes them. flag: as for `replace`.
    """
    above = next((folder for folder in path.absolute().parents if folder.exists()), path)
    if path.is_dir():
        problem = "it is a folder"
    elif not above.is_dir():
        problem = f"{above} is a file"
    else:
        problem = "" if os.access(above, os.W_OK | os.X_OK) else f"{above} cannot be written"
    if problem:
        raise UsageError(f"Cannot write {path}, since {problem}; choose another {flag}.")


def read_arrays(path: Path) -> dict[str, np.ndarray] | None:
    """The arrays of an .npz file; None if it is missing or damaged (a zip file has checksums)."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            return dict(stored)
    except Exception:  # zipfile raises various types for damaged files
        return None


def check_writable(folder: Path, advice: str = WRITABLE) -> None:
    """Raises `UsageError` unless this process can write files in a folder, which may not exist yet. Writes nothing.

    advice: for the message.
    """
    nearest = next(each for each in (folder.absolute(), *folder.absolute().parents) if os.path.lexists(each))
    problem = None
    if not nearest.is_dir():
        problem = f"{nearest} is {'a file' if nearest.is_file() else 'no folder'}; {advice}."
    elif is_first() and not os.access(nearest, os.R_OK | os.W_OK | os.X_OK):
        problem = f"Cannot write in {nearest} (no permission, or a read-only disk); {advice}."
    if not all_agree(problem is None):
        raise UsageError(problem or f"The first process cannot write in {folder}; see what it says.")


@contextlib.contextmanager
def locked(folder: Path, name: str, advice: str = WRITABLE, *, wait: bool = False) -> Iterator[None]:
    """Holds the lock `folder`/`name`.lock, which is released when the process ends in any way.

    advice: for the message on a folder that cannot be written. wait: whether to wait for another process that holds the
    lock. Raises `UsageError` where the folder cannot be written, or another process holds the lock and `wait` is False.
    """
    path = Path(folder) / f"{name}.lock"
    with contextlib.ExitStack() as held:
        problem = _take(path, advice, wait, held) if is_first() else None
        if not all_agree(problem is None):
            raise UsageError(problem or f"The first process cannot lock {path}; see what it says.")
        yield


def _take(path: Path, advice: str, wait: bool, held: contextlib.ExitStack) -> str | None:
    """Holds the lock on the stack; returns a message if it cannot be had."""
    lock = FileLock(path, blocking=False, fallback_to_soft=False)  # a soft one outlives a process that is killed
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        held.enter_context(lock)
    except Timeout:
        holder = path.read_text(encoding="utf-8", errors="replace").strip() or "another process"
        if not wait:
            return f"{path.parent} is in use by {holder}; wait until it has ended, or choose another folder."
        tell(f"Waiting for {holder}, which makes {path.parent}.")
        held.enter_context(lock.acquire(blocking=True))
    except OSError as error:
        if error.errno not in NO_LOCKS:
            return f"Cannot write {path} ({error.strerror}); {advice}."
        warn(f"{path} cannot be locked ({error.strerror}): see to it that no other run uses this folder.")
    with contextlib.suppress(OSError):  # the disk may be full; the lock holds all the same
        path.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
    return None
