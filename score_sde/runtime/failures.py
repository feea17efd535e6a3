"""Failures of the machine in one sentence: no memory, no space on a disk, no access to a file, no such backend.

A program shows the sentence and ends with status 2 (`score_sde.runtime.preemption.exit_status`); a library call raises
it as a `UsageError`. This module imports nothing heavy.
"""

import errno
import logging
import os
import re

from score_sde.errors import UsageError, shown, warn

EXHAUSTED = re.compile("RESOURCE_EXHAUSTED|out of memory|OUT_OF_MEMORY|bad_alloc|Unable to allocate", re.IGNORECASE)
BYTES = re.compile(r"allocat\w* (\d+) ?bytes|allocate (\d+(?:\.\d+)? ?[KMGT]i?B)", re.IGNORECASE)
# Errors of files that have their reason outside the program.
ELSEWHERE = {
    errno.ENOSPC: "free space, or name another folder",
    errno.EDQUOT: "free space, or name another folder",
    errno.EROFS: "name a folder on a disk that can be written",
    errno.EACCES: "change its permissions, or name another path",
    errno.EPERM: "change its permissions, or name another path",
    errno.ENAMETOOLONG: "name a shorter path",
    errno.ELOOP: "name a path without a circle of links",
    errno.ENOTDIR: "name a path whose parents are folders",
    errno.EISDIR: "name a file",
    errno.ENXIO: "name a file",
    errno.ENODEV: "name a file",
    errno.EIO: "see to the disk, then start again",
    errno.ESTALE: "see to the file server, then start again",
    errno.EMFILE: "raise the number of open files: ulimit -n 4096",
    errno.ENFILE: "end other programs, which hold too many open files",
}
EXTRAS = {"cuda": "cuda12", "gpu": "cuda12", "tpu": "tpu"}  # of jax's packages, by the name of a backend


class OutOfMemoryError(UsageError):
    """A device or the host has no memory for a computation, in one sentence. key: whether it names a config's key."""

    def __init__(self, sentence: str, *, key: bool = True):
        super().__init__(sentence)
        self.key = key


def explained(error: BaseException) -> str | None:
    """The sentence on a failure of the machine; None for an error of another kind."""
    if is_exhausted(error):
        return out_of_memory(error, "this program", "lower its batch size, or end other programs of this machine")
    if isinstance(error, OSError) and error.errno in ELSEWHERE:
        name = f" {shown(error.filename)}" if isinstance(error.filename, str | os.PathLike) else ""
        return f"Cannot use{name or ' a file'} ({error.strerror}); {ELSEWHERE[error.errno]}."
    return None


def is_exhausted(error: BaseException) -> bool:
    """Whether an error is of memory that is used up, on the host or on a device."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and bool(EXHAUSTED.search(str(error))))


def out_of_memory(error: BaseException, task: str, advice: str) -> str:
    """The sentence on memory that is used up by a task, with the size of the array that found no place."""
    asked = BYTES.search(str(error))
    more = f" (an array of {_size(asked[1] or asked[2])} has no place)" if asked else ""
    return f"Out of memory: there is too little for {task}{more}; {advice}."


def _size(amount: str) -> str:
    return f"{int(amount) / 2**30:,.1f} GiB" if amount.isdecimal() else amount


def missing_backend(error: BaseException) -> str:
    """The sentence on a backend of JAX that did not start."""
    asked = os.environ.get("JAX_PLATFORMS", "")
    reason = (str(error).strip() or "it sees no such device").splitlines()[0]
    reason = re.sub(r"Unable to initialize backend '\w+': | \((set JAX_PLATFORMS|you may need).*", "", reason).rstrip(
        "."
    )
    if not asked:
        return f"JAX cannot start ({reason}); set JAX_PLATFORMS=cpu, or uninstall the plugin that fails."
    extra = next((extra for name, extra in EXTRAS.items() if name in asked), None)
    install = f'install it, as by pip install "jax[{extra}]"' if extra else "choose cpu, cuda or tpu"
    return f"JAX_PLATFORMS={asked} asks for a backend that is not there ({reason}); unset it, or {install}."


class PluginFailures(logging.Filter):
    """Filter of JAX's log: a plugin that cannot be loaded is a warning of one sentence, without a traceback."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if error is None or "plugin" not in record.getMessage():
            return True
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        warn(
            f"JAX cannot load a plugin ({reason}), and goes on without its device; install the plugin again, as by "
            'pip install "jax[cuda12]", or uninstall it.'
        )
        return False
