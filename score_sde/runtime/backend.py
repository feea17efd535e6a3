"""Backend settings, which JAX reads when it starts. This module imports nothing heavy."""

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

# XLA:CPU of these versions passes single convolutions to a library that is 1.3 to 1.8 times slower on score networks
# than its own code. XLA aborts at an unknown flag, so it is set only for versions where it was tried.
CPU_CONVOLUTION_FLAG = "--xla_cpu_experimental_ynn_fusion_type=-individual_convolution"
TRIED = ("0.10.", "0.12.")
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h
LEVEL = "xla_backend_optimization_level"


def configure() -> None:
    """Adds the package's flags to XLA_FLAGS, except ones that the user has set; no effect once JAX has computed."""
    flags = os.environ.get("XLA_FLAGS", "")
    if CPU_CONVOLUTION_FLAG.split("=")[0] in flags:
        return
    from importlib.metadata import version  # slow: half the time of a process that computes nothing

    if version("jaxlib").startswith(TRIED):
        os.environ["XLA_FLAGS"] = f"{flags} {CPU_CONVOLUTION_FLAG}".strip()


def keep_memory() -> None:
    """Stops glibc from returning freed memory to the kernel, so that CPU updates reuse buffers.

    Otherwise glibc gives pieces of that size back to the kernel, which clears them again page by page, for a fifth of
    an update's time. Only the first thread has a heap for such pieces, and so a program of one device runs in the
    thread that calls it: no effect once JAX has computed. Nothing changes where the environment sets malloc's own
    variables.
    """
    import jax

    jax.config.update("jax_cpu_enable_async_dispatch", False)
    chosen = any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None  # only glibc has it
    if mallopt and not chosen:
        mallopt(M_MMAP_THRESHOLD, 2**30)  # bytes; larger pieces come from the kernel as before
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def compiler_options(backend: str) -> dict[str, int] | None:
    """Compiler options of a program: on CPUs LLVM's first level of optimization, unless the user has set one.

    Compiling then takes a quarter less time than at the third level, and running no more, because networks are products
    and convolutions of a library.
    """
    chosen = LEVEL in os.environ.get("XLA_FLAGS", "")
    return {LEVEL: 1} if backend == "cpu" and not chosen else None


def program(fn: Callable, **options: Any) -> Callable:
    """A whole program compiled by `jax.jit` with `compiler_options`. options: shardings and donated arguments."""
    import jax

    return jax.jit(fn, **options, compiler_options=compiler_options(jax.default_backend()))


def expanded(path: str | Path) -> Path:
    """The path with ~ replaced by the user's home folder; unchanged where there is none."""
    with contextlib.suppress(RuntimeError):
        return Path(path).expanduser()
    return Path(path)


def in_home(name: str) -> Path:
    """The folder ~/NAME if it exists or can be made, else NAME in a folder of this user among the temporary files."""
    path = expanded(f"~/{name}")
    there = next(folder for folder in (path, *path.parents) if folder.exists())
    return path if path.is_absolute() and (there == path or os.access(there, os.W_OK)) else _temporary_home() / name


def find_home() -> None:
    """Sets HOME if it is missing, since some libraries abort without one: a job's user may be only a number."""
    if not expanded("~").is_absolute():
        os.environ["HOME"] = str(_temporary_home())


def _temporary_home() -> Path:
    folder = Path(tempfile.gettempdir()) / f"score_sde-{os.getuid()}"
    with contextlib.suppress(OSError):
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.stat().st_uid == os.getuid():  # because programs are read from it
            return folder
    return Path(tempfile.mkdtemp(prefix="score_sde-"))


def cache_folder() -> Path:
    """The folder of results shared by all runs: SCORE_SDE_CACHE of the environment, else ~/.cache/score_sde."""
    given = os.environ.get("SCORE_SDE_CACHE")
    return expanded(given) if given else in_home(".cache/score_sde")


def keep_programs() -> None:
    """Keeps compiled programs on disk, by kind of processor, unless the user has chosen a folder.

    It has no effect once JAX has started. A program for another processor could abort at an instruction that this one
    lacks.
    """
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text(encoding="utf-8", errors="replace").splitlines() if cpu.exists() else []
    features = [line for line in lines if line.startswith(("flags", "Features"))][:1]
    kind = zlib.crc32("".join([platform.machine(), *features]).encode())
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache_folder() / f"programs-{kind:08x}"))
