"""Memory, in bytes: of arrays, of compiled programs, and the number of samples that fit on the devices at a time."""

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any

import jax

from score_sde.array_types import PyTree
from score_sde.errors import UsageError
from score_sde.runtime.failures import OutOfMemoryError, is_exhausted, out_of_memory
from score_sde.runtime.sharding import pad_to_devices

USABLE = 0.9  # fraction of a device's memory; the runtime and gaps between allocations take the rest
PROBES = (8, 16)  # images per device in the two programs that measure an image's share


def tree_bytes(tree: PyTree) -> int:
    """Bytes of arrays, or of arrays with these shapes."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def program_bytes(program: Any) -> int:
    """Bytes that a device needs for a compiled program: arguments, results and intermediate arrays."""
    memory = program.memory_analysis()
    used = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
    return used - memory.alias_size_in_bytes


def device_bytes() -> int:
    """Bytes of memory of one device; CPU devices share the machine's."""
    limit = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")
    return limit or os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // jax.local_device_count()


def largest_batch(bytes_of: Callable[[int], int], most: int, memory: int | None = None) -> int:
    """The largest batch, up to `most`, that fits on the devices: a multiple of their number, if possible of 8 times it.

    bytes_of: batch over all devices -> bytes on each; it is called for two small batches, whose difference gives an
    image's share, and for the chosen one. memory: default `device_bytes`. Raises `UsageError` if not even
    one image has room.
    """
    devices, most = jax.device_count(), pad_to_devices(most)
    room = int(USABLE * (device_bytes() if memory is None else memory))
    small, large = (bytes_of(n * devices) for n in PROBES)
    image = max(large - small, 1) / (PROBES[1] - PROBES[0])
    fits = int((room - (small - PROBES[0] * image)) / image)
    while fits >= 1:
        batch = min(devices * (fits // 8 * 8 or fits), most)
        if batch <= PROBES[0] * devices or bytes_of(batch) <= room:
            return batch
        fits = batch // devices * 7 // 8  # the two small batches underestimated it
    raise UsageError(
        f"A device has {room / 2**30:.1f} GiB to use, and {PROBES[0]} images need {small / 2**30:.1f}; use larger "
        "devices."
    )


@contextlib.contextmanager
def enough_memory(task: str, advice: Callable[[], str], *, key: bool = True) -> Iterator[None]:
    """Context of a computation with a batch, which raises `OutOfMemoryError` where there is no memory for it.

    task: the computation and its batch size. advice: the end of the sentence without a full stop, made where it is
    needed. key: whether they name a key of the config; a context around one that does not says it instead.

        with enough_memory("updates at training.batch_size=128", lambda: "lower training.batch_size"):
            state, loss = update(state, batch)
    """
    try:
        yield
    except Exception as error:
        if not (is_exhausted(error) or (isinstance(error, OutOfMemoryError) and not error.key)):
            raise
        reason = error.__cause__ or error
        size = (
            f"{device_bytes() / 2**30:,.1f} GiB of {'a device' if jax.default_backend() != 'cpu' else 'this machine'}"
        )
        raise OutOfMemoryError(out_of_memory(reason, f"{task} in the {size}", advice()), key=key) from reason
