"""One program over all devices of all processes: batches are split, parameters are replicated or split too.

`pmap` is named after the function in the paper's code. It takes the same `in_axes`, but the mapped function sees the
whole batch, so that a mean over the batch is the mean over all devices and no collective is written anywhere. It is
`jit` over a mesh; `jax.pmap` itself is in maintenance and lowers to the same.

Every process runs the same program with the same host arrays; `split` and `place` give each device its own part.
Results are replicated, so that each process can read them whole.
"""

import contextlib
import functools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax._src import core  # JAX has no public test for tracing
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec, Sharding

from score_sde.errors import UsageError
from score_sde.runtime.backend import program

AXIS = "batch"


@functools.lru_cache
def mesh() -> Mesh:
    """A mesh of all devices in one row."""
    return jax.make_mesh((jax.device_count(),), (AXIS,), axis_types=(AxisType.Auto,))


def shardings(axes: Any) -> Any:
    """Shardings for a tree of 0 (split along the batch) and None (replicated); shardings in the tree stay."""

    def sharding(axis):
        if isinstance(axis, Sharding):
            return axis
        return NamedSharding(mesh(), PartitionSpec() if axis is None else PartitionSpec(AXIS))

    return jax.tree.map(sharding, axes, is_leaf=lambda axis: axis is None)


def fully_sharded(shapes: Any, groups_of: int) -> Any:
    """Shardings of parameters, or of a training state: each leaf split among the devices of each group (FSDP).

    A leaf is split along its `split_dimension`, or replicated without one. The batch stays split over all devices.
    """
    grouped = Mesh(mesh().devices.reshape(-1, groups_of), ("group", "member"), axis_types=(AxisType.Auto,) * 2)

    def sharding(leaf):
        dimension = split_dimension(leaf.shape, groups_of)
        return NamedSharding(grouped, PartitionSpec(*["member" if i == dimension else None for i in range(leaf.ndim)]))

    return jax.tree.map(sharding, shapes)


def split_dimension(shape: tuple[int, ...], groups_of: int) -> int | None:
    """The largest dimension that `groups_of` > 1 divides; None without any."""
    divisible = [i for i, size in enumerate(shape) if size % groups_of == 0]
    return max(divisible, key=lambda i: shape[i]) if divisible and groups_of > 1 else None


def like(shapes: Any, placement: Any = None) -> Any:
    """Shapes with shardings, the target of loading a checkpoint.

    placement: a tree of shardings; default all replicated.
    """
    placement = jax.tree.map(lambda _: shardings(None), shapes) if placement is None else placement
    return jax.tree.map(lambda s, p: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=p), shapes, placement)


def batch_axes(tree: Any) -> Any:
    """Axes of a tree whose arrays all have the batch first: 0 for arrays, None for scalars."""
    return jax.tree.map(lambda leaf: 0 if leaf.ndim else None, tree)


def pmap(fn: Callable, *, in_axes: tuple, out_axes: Any, donate_argnums: tuple[int, ...] = ()) -> Callable:
    """The function `fn` compiled over all devices; axes are 0 (batch, split), None, shardings, or trees of these.

    As an output None means replicated; as an input it keeps the array's sharding: replicated, or parameters split by
    `fully_sharded`. Inside another program (`jit`, `grad`, `scan`, `vmap`) it is a part of that one, whose shardings
    hold.
    """
    alone = compiled(fn, in_axes=in_axes, out_axes=out_axes, donate_argnums=donate_argnums)
    inside = jax.jit(fn)  # JAX takes compiler options for a whole program only

    @functools.wraps(fn)
    def call(*args: Any) -> Any:
        return (inside if is_traced() else alone)(*args)

    call.lower = alone.lower
    return call


def compiled(fn: Callable, *, in_axes: tuple, out_axes: Any, donate_argnums: tuple[int, ...] = ()) -> Callable:
    """The function compiled as by `pmap`, for programs that are never part of another one."""
    as_it_is = jax.tree.map(
        lambda axis: None if axis is None else shardings(axis), in_axes, is_leaf=lambda axis: axis is None
    )
    return program(fn, in_shardings=as_it_is, out_shardings=shardings(out_axes), donate_argnums=donate_argnums)


def is_traced() -> bool:
    """Whether this is called while JAX traces another program, where numbers are not known."""
    return not core.trace_state_clean()


def place(tree: Any, placement: Any = None) -> Any:
    """Host arrays, the same in each process, placed on the devices.

    placement: a sharding or a tree of them; default replicated.
    """
    if placement is None or isinstance(placement, Sharding):
        placement = jax.tree.map(lambda _: shardings(placement), tree)
    return jax.tree.map(_place, tree, placement)


def on_host(tree: Any) -> Any:
    """Arrays as NumPy arrays in each process, also those split over devices of several. All processes must call it."""

    def whole(leaf: Any) -> np.ndarray:
        split = isinstance(leaf, jax.Array) and not (leaf.is_fully_addressable or leaf.is_fully_replicated)
        return np.asarray(multihost_utils.process_allgather(leaf, tiled=True) if split else leaf)

    return jax.tree.map(whole, tree)


def split(*trees: Any) -> tuple[Any, ...]:
    """Trees of arrays of one batch, split over all devices; copies of the last row fill up a batch that is too short.

    Inside another program they stay unchanged. Raises `UsageError` unless all have the same number of rows.
    """
    arrays = jax.tree.leaves(trees)
    n = len(arrays[0])
    if any(len(array) != n for array in arrays):
        shapes = ", ".join(str(array.shape) for array in arrays)
        raise UsageError(f"The arrays of one batch have the shapes {shapes}; give one row of each for every image.")
    if is_traced():
        return trees
    rows = np.minimum(np.arange(pad_to_devices(n)), n - 1)
    return jax.tree.map(lambda array: _place(array, shardings(0), rows), trees)


def local_rows(n: int) -> np.ndarray:
    """Indices of the rows of a batch of n that `split` gives to this process's devices; the devices divide n."""
    return rows_of([device.process_index for device in mesh().devices.flat], jax.process_index(), n)


def rows_of(processes: Sequence[int], process: int, n: int) -> np.ndarray:
    """Indices of the rows of one process, of n rows split evenly among devices of `processes`, in this order."""
    return np.flatnonzero(np.repeat(np.asarray(processes) == process, n // len(processes)))


def _place(array: Any, sharding: Sharding, rows: np.ndarray | None = None) -> jax.Array:
    """`jax.device_put`, also between processes, where that neither takes keys nor trusts that they are equal."""
    short = rows is not None and len(rows) != len(array)
    if jax.process_count() == 1:
        return jax.device_put(jnp.asarray(array)[rows] if short else array, sharding)
    if jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        data = _place(jax.random.key_data(array), sharding, rows)
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(array))
    array = np.asarray(array)[rows] if short else np.asarray(array)
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def pad_to_devices(n: int) -> int:
    """The next multiple of n by the number of devices."""
    return -(-n // jax.device_count()) * jax.device_count()


def is_first() -> bool:
    """Whether this is the process that writes the run's files; Orbax alone is called by all."""
    return jax.process_index() == 0


def all_agree(ok: bool) -> bool:
    """Whether `ok` is true in every process. All processes must call it."""
    return ok if jax.process_count() == 1 else bool(multihost_utils.process_allgather(np.bool_(ok)).all())


class Largest:
    """The largest of the processes' numbers at each call, returned `BEHIND` calls later, so that no process waits."""

    BEHIND = 2

    def __init__(self):
        self._under_way: deque[jax.Array] = deque()
        self._max = program(jnp.max, out_shardings=shardings(None))

    def __call__(self, number: int) -> int:
        """The largest number of an earlier call; 0 before there is one. All processes must call it.

        A single process gets its own number at once.
        """
        if jax.process_count() == 1:
            return number
        mine = np.full(jax.device_count(), number, np.int32)
        self._under_way.append(self._max(_place(mine, shardings(0))))
        return int(self._under_way.popleft()) if len(self._under_way) > self.BEHIND else 0


@contextlib.contextmanager
def first_goes_first() -> Iterator[None]:
    """Runs the block on process 0 first, then on the rest, which find the files it has made."""
    if not is_first():
        all_agree(True)
    yield
    if is_first():
        all_agree(True)


def check_divisible(name: str, batch_size: int, parts: int = 1) -> None:
    """Raises `UsageError` unless each of `parts` of the batch can be split evenly over the devices."""
    devices = jax.device_count()
    if batch_size < 1 or batch_size % (devices * parts):
        times = "" if parts == 1 else f"training.accumulate={parts} times "
        raise UsageError(f"{name}={batch_size} must be a positive multiple of {times}the {devices} devices.")


def check_groups(groups_of: int) -> None:
    """Raises `UsageError` unless parameters can be split among groups of this many devices."""
    if groups_of < 1 or jax.device_count() % groups_of:
        raise UsageError(f"training.fsdp={groups_of} must be a divisor of the {jax.device_count()} devices.")
