"""Settings that JAX reads when its backend starts. Imports nothing heavy."""

import contextlib
import ctypes
import os
import platform
import sys
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

# XLA:CPU of these versions sends single convolutions to a library that is 1.3 to 1.8 times slower on score networks
# than its own. XLA ends the program at an unknown flag, so it is set only where it was tried.
CPU_CONVOLUTION_FLAG = "--xla_cpu_experimental_ynn_fusion_type=-individual_convolution"
TRIED = ("0.10.", "0.12.")
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h
LEVEL = "xla_backend_optimization_level"


def configure() -> None:
    """Appends to the environment's XLA_FLAGS, unless the user has set the same flag; too late once JAX has computed."""
    flags = os.environ.get("XLA_FLAGS", "")
    if CPU_CONVOLUTION_FLAG.split("=")[0] in flags:
        return
    from importlib.metadata import version  # takes half the time of a process that computes nothing

    if version("jaxlib").startswith(TRIED):
        os.environ["XLA_FLAGS"] = f"{flags} {CPU_CONVOLUTION_FLAG}".strip()


def keep_memory() -> None:
    """What the host frees stays with the process: an update on a CPU finds the memory of the one before it. glibc gives
    pieces of its size back to the kernel, which clears them again page by page, for a fifth of an update's time.

    Only the first thread has a heap for such pieces, and so a program of one device runs in the thread that calls it:
    too late once JAX has computed. An environment that sets malloc's own variables keeps malloc as it is.
    """
    import jax

    jax.config.update("jax_cpu_enable_async_dispatch", False)
    chosen = any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None  # glibc's alone
    if mallopt and not chosen:
        mallopt(M_MMAP_THRESHOLD, 2**30)  # bytes; larger pieces are fetched as ever
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def compiler_options(backend: str) -> dict[str, int] | None:
    """Of a program: on CPUs LLVM's first level, where the user has set none. It takes a quarter less time to compile,
    and none more to run, than the third: networks are products and convolutions of a library.
    """
    chosen = LEVEL in os.environ.get("XLA_FLAGS", "")
    return {LEVEL: 1} if backend == "cpu" and not chosen else None


def program(fn: Callable, **options: Any) -> Callable:
    """`jax.jit` of a whole program, with `compiler_options`. options: its shardings, and what it may overwrite."""
    import jax

    return jax.jit(fn, **options, compiler_options=compiler_options(jax.default_backend()))


def expanded(path: str | Path) -> Path:
    """A path with ~ for the user's home folder; the path as it is where there is none."""
    with contextlib.suppress(RuntimeError):
        return Path(path).expanduser()
    return Path(path)


def in_home(name: str) -> Path:
    """~/NAME if it is there or can be made, else NAME in a folder of this user's own beside other temporary files."""
    path = expanded(f"~/{name}")
    there = next(folder for folder in (path, *path.parents) if folder.exists())
    return path if path.is_absolute() and (there == path or os.access(there, os.W_OK)) else _temporary_home() / name


def find_home() -> None:
    """Sets HOME for libraries that end without one, where the user has none: a job's user may be a number only."""
    if not expanded("~").is_absolute():
        os.environ["HOME"] = str(_temporary_home())


def _temporary_home() -> Path:
    folder = Path(tempfile.gettempdir()) / f"score_sde-{os.getuid()}"
    with contextlib.suppress(OSError):
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.stat().st_uid == os.getuid():  # programs are read from it
            return folder
    return Path(tempfile.mkdtemp(prefix="score_sde-"))


def cache_folder() -> Path:
    """Folder of what is computed once for all runs: SCORE_SDE_CACHE of the environment, else ~/.cache/score_sde."""
    given = os.environ.get("SCORE_SDE_CACHE")
    return expanded(given) if given else in_home(".cache/score_sde")


def keep_programs() -> None:
    """Compiled programs are kept, unless the user has chosen where, by kind of processor; too late once JAX is there.

    A program of another processor could stop at an instruction that this one does not have.
    """
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text(encoding="utf-8", errors="replace").splitlines() if cpu.exists() else []
    features = [line for line in lines if line.startswith(("flags", "Features"))][:1]
    kind = zlib.crc32("".join([platform.machine(), *features]).encode())
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache_folder() / f"programs-{kind:08x}"))
