"""One program over all devices: batches are split, everything else is replicated.

`pmap` is named after what the paper's code uses. It takes the same `in_axes`, but the mapped function sees the whole
batch, so that a mean over the batch is the mean over all devices and no collective is written anywhere. It is `jit`
over a mesh; `jax.pmap` itself is in maintenance and lowers to the same.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from score_sde.errors import UsageError

AXIS = "batch"


@functools.lru_cache
def mesh() -> Mesh:
    """All devices in one row."""
    return jax.make_mesh((jax.device_count(),), (AXIS,), axis_types=(AxisType.Auto,))


def shardings(axes: Any) -> Any:
    """A tree of 0 (split along the batch) and None (replicated) as shardings."""

    def sharding(axis):
        return NamedSharding(mesh(), PartitionSpec() if axis is None else PartitionSpec(AXIS))

    return jax.tree.map(sharding, axes, is_leaf=lambda axis: axis is None)


def batch_axes(tree: Any) -> Any:
    """0 for arrays, None for scalars: the axes of a tree whose arrays all have the batch first."""
    return jax.tree.map(lambda leaf: 0 if leaf.ndim else None, tree)


def pmap(fn: Callable, *, in_axes: tuple, out_axes: Any, donate_argnums: tuple[int, ...] = ()) -> Callable:
    """`fn` compiled over all devices; axes are 0 (batch, split) or None (replicated), or trees of these."""
    return jax.jit(
        fn, in_shardings=shardings(in_axes), out_shardings=shardings(out_axes), donate_argnums=donate_argnums
    )


def split(*arrays: Any) -> tuple[Any, ...]:
    """Arrays of one batch on all devices; a batch they do not divide is filled up with copies of its last row."""
    n = len(arrays[0])
    rows = jnp.minimum(jnp.arange(pad_to_devices(n)), n - 1)
    return tuple(jax.device_put(a if len(rows) == n else jnp.asarray(a)[rows], shardings(0)) for a in arrays)


def pad_to_devices(n: int) -> int:
    """The next multiple of the number of devices."""
    return -(-n // jax.device_count()) * jax.device_count()


def is_first() -> bool:
    """Whether this is the process that writes the run's files; Orbax alone is called by all."""
    return jax.process_index() == 0


def all_agree(ok: bool) -> bool:
    """Whether `ok` is true in every process. All must call it."""
    return ok if jax.process_count() == 1 else bool(multihost_utils.process_allgather(np.bool_(ok)).all())


def check_divisible(name: str, batch_size: int) -> None:
    """Raises `UsageError` unless the batch splits evenly over the devices."""
    devices = jax.device_count()
    if batch_size < 1 or batch_size % devices:
        raise UsageError(f"{name}={batch_size} must be a positive multiple of the {devices} devices.")
