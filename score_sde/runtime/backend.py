"""Settings of JAX and of the CPU. An import changes none of them; programs, `load` and `train` do.

This module imports nothing heavy.
"""

import contextlib
import ctypes
import logging
import os
import platform
import sys
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from score_sde.errors import UsageError
from score_sde.runtime import failures

# XLA:CPU of these versions passes single convolutions to a library that is 1.3 to 1.8 times slower on score networks
# than its own code. XLA aborts at an unknown flag, so it is set only for versions where it was tried.
CPU_CONVOLUTION_FLAG = "--xla_cpu_experimental_ynn_fusion_type=-individual_convolution"
TRIED = ("0.10.", "0.11.", "0.12.")
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h
LEVEL = "xla_backend_optimization_level"


def configure() -> None:
    """Sets what makes JAX fast on a CPU, and keeps compiled programs on disk; `score_sde.load` and `train` call it.

    Whoever uses single pieces calls it before JAX computes anything: what a CPU needs is read when JAX starts, and is
    left alone afterwards. Values that the user has set in
    XLA_FLAGS, malloc's variables or JAX_COMPILATION_CACHE_DIR stay; SCORE_SDE_NO_CACHE=1 keeps no programs.

        import jax
        import score_sde

        score_sde.configure()
        jax.random.normal(jax.random.key(0), (2,))
    """
    prepare_cpu()
    keep_programs()


def prepare_cpu() -> None:
    """Sets what JAX on a CPU needs for its speed, unless JAX has started, which reads it once."""
    if not _has_started():
        _choose_convolutions()
        if "JAX_CPU_ENABLE_ASYNC_DISPATCH" not in os.environ:
            _run_in_the_calling_thread()
        _keep_memory()


def start() -> None:
    """Starts JAX on its devices. Raises `UsageError` where a backend is missing that JAX_PLATFORMS asks for."""
    import jax

    log = logging.getLogger("jax._src.xla_bridge")
    if not any(isinstance(each, failures.PluginFailures) for each in log.filters):
        log.addFilter(failures.PluginFailures())
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # an assertion where JAX finds none of the devices asked for
        raise UsageError(failures.missing_backend(error)) from error


def _has_started() -> bool:
    """Whether JAX has looked for its devices in this process."""
    bridge = sys.modules.get("jax._src.xla_bridge")  # JAX has no public test that does not start it
    return bridge is not None and bridge.backends_are_initialized()


def _run_in_the_calling_thread() -> None:
    """Turns asynchronous dispatch off on CPUs, by the variable where JAX is not imported yet: that takes a while."""
    if "jax" in sys.modules:
        import jax

        jax.config.update("jax_cpu_enable_async_dispatch", False)
    else:
        os.environ["JAX_CPU_ENABLE_ASYNC_DISPATCH"] = "False"


def _choose_convolutions() -> None:
    """Adds the package's flag to XLA_FLAGS, unless the user has set it."""
    flags = os.environ.get("XLA_FLAGS", "")
    if CPU_CONVOLUTION_FLAG.split("=")[0] in flags:
        return
    from importlib.metadata import version  # slow: half the time of a process that computes nothing

    if version("jaxlib").startswith(TRIED):
        os.environ["XLA_FLAGS"] = f"{flags} {CPU_CONVOLUTION_FLAG}".strip()


def _keep_memory() -> None:
    """Stops glibc from returning freed memory to the kernel, so that CPU updates reuse buffers.

    Otherwise glibc gives pieces of that size back to the kernel, which clears them again page by page, for a fifth of
    an update's time. Only the first thread has a heap for such pieces, and so a program of one device runs in the
    thread that calls it (`_run_in_the_calling_thread`). Nothing changes where the environment sets malloc's own
    variables.
    """
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
    """The path with ~ replaced by the user's home folder; unchanged where there is none.

    Raises `UsageError` for a value that is no path.
    """
    if not isinstance(path, str | os.PathLike) or "\0" in os.fspath(path):
        raise UsageError(f"{path!s:.60} is no path; give text or a pathlib.Path.")
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
    folder = os.environ.get("SCORE_SDE_CACHE")
    return expanded(folder) if folder else in_home(".cache/score_sde")


def keep_programs() -> None:
    """Keeps compiled programs on disk, by kind of processor, unless the user has chosen a folder or SCORE_SDE_NO_CACHE.

    A program for another processor could abort at an instruction that this one lacks.
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ or os.environ.get("SCORE_SDE_NO_CACHE", "0") != "0":
        return
    import jax

    if jax.config.jax_compilation_cache_dir or not jax.config.jax_enable_compilation_cache:
        return
    # The environment stays as it is: a child may run on another processor, or have a folder of its own.
    jax.config.update("jax_compilation_cache_dir", str(cache_folder() / f"programs-{_processor():08x}"))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)  # the small programs of a sampler add up
    if _has_started():
        from jax.experimental.compilation_cache import compilation_cache

        compilation_cache.reset_cache()  # JAX looks for a folder once, at the first program


def _processor() -> int:
    """A checksum of the kind of processor and its instructions."""
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text(encoding="utf-8", errors="replace").splitlines() if cpu.exists() else []
    features = [line for line in lines if line.startswith(("flags", "Features"))][:1]
    return zlib.crc32("".join([platform.machine(), *features]).encode())
