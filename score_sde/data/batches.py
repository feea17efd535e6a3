"""Batches as a pure function of (seed, step): resuming needs no iterator state.

import numpy as np
from score_sde.data import InMemory, batches

source = InMemory(np.zeros((100, 8, 8, 1), np.uint8), np.arange(100) % 10)
step, batch = next(batches(source, batch_size=32, seed=0, start_step=7))
batch.images, batch.labels  # (32, 8, 8, 1), (32,): the same ones whenever step 7 comes
"""

import contextlib
import functools
import itertools
import math
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Annotated

import jax
import numpy as np

from score_sde.array_types import Integer
from score_sde.cond import Cond, Entries, restricted
from score_sde.config.arguments import check_arguments
from score_sde.config.keys import SEEDS
from score_sde.data.sources import Batch, Source
from score_sde.runtime import sharding

NO_ENTRIES: Entries = {}
AHEAD = 4  # batches that are on the devices before they are needed

Number = Annotated[int, "[1, 1e9]"]  # of images, whose indices fit in memory
Seed = Annotated[int, SEEDS]
Step = Annotated[int, "[0, 1e9]"]


@functools.lru_cache(maxsize=4)
def _permutation(n: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(n)


@check_arguments
def batch_indices(n: Number, batch_size: Number, *, seed: Seed, step: Step) -> np.ndarray:
    """Indices of batch `step` into n examples: one endless sequence of epochs, each in its own random order."""
    epochs, positions = np.divmod(step * batch_size + np.arange(batch_size), n)
    indices = np.empty(batch_size, np.int64)
    for epoch in np.unique(epochs):
        indices[epochs == epoch] = _permutation(n, seed, int(epoch))[positions[epochs == epoch]]
    return indices


@check_arguments
def batches(source: Source, batch_size: Number, *, seed: Seed, start_step: Step = 0) -> Iterator[tuple[int, Batch]]:
    """Pairs (step, batch) without end, from `start_step`."""
    for step in itertools.count(start_step):
        yield step, source.take(batch_indices(len(source), batch_size, seed=seed, step=step))


@check_arguments
def batch_fn(
    source: Source,
    batch_size: Number,
    *,
    seed: Seed,
    entries: Entries = NO_ENTRIES,
    numbers: Callable[[int, np.ndarray, np.ndarray, Batch], np.ndarray] | None = None,
) -> Callable[[int], tuple]:
    """A function step -> (images, cond): the batch of that step in `batches`, on the devices.

    entries: the entries of the condition that the network takes. numbers: (step, rows, indices, batch) -> a number for
    each row, which then comes third; of the rows of this process, with the indices of their images.
    """

    def batch(step: int) -> tuple:
        indices = batch_indices(len(source), batch_size, seed=seed, step=step)
        return on_devices(source, indices, entries, numbers and functools.partial(numbers, step))

    return batch


@check_arguments
@contextlib.contextmanager
def prefetched(batch: Callable[[int], tuple], steps: range) -> Iterator[Iterator[tuple]]:
    """Tuples (step, *batch(step)) for these steps; one thread keeps a few of them ready.

    batch: as for `batch_fn`. An error in the thread is raised where its batch is asked for. The thread ends with the
    block.
    """
    thread = ThreadPoolExecutor(1, thread_name_prefix="score_sde-batches")
    under_way: deque[Future] = deque()

    def stream() -> Iterator[tuple]:
        for step in steps[:AHEAD]:
            under_way.append(thread.submit(batch, step))
        for step, to_come in itertools.zip_longest(steps, steps[AHEAD:]):
            if to_come is not None:
                under_way.append(thread.submit(batch, to_come))
            yield step, *under_way.popleft().result()

    try:
        yield stream()
    finally:
        thread.shutdown(cancel_futures=True)


@check_arguments
def on_devices(
    source: Source,
    indices: Integer[np.ndarray, " b"],
    entries: Entries = NO_ENTRIES,
    numbers: Callable[[np.ndarray, np.ndarray, Batch], np.ndarray] | None = None,
) -> tuple[jax.Array, Cond | None] | tuple[jax.Array, Cond | None, jax.Array]:
    """The images of one batch, and these entries of its condition (None without any), on the devices of all processes.

    They are split over the devices, and each process reads only the rows of its own devices. numbers: as for
    `batch_fn`, without the step.
    """
    rows = sharding.local_rows(len(indices))
    batch = source.take(indices[rows])
    batch = Batch(batch.images, restricted(batch.cond, entries))
    own = (*batch, *([] if numbers is None else [numbers(rows, indices[rows], batch)]))
    return sharding.split(*jax.tree.map(lambda part: _spread(part, rows, len(indices)), own))


def _spread(own: np.ndarray, rows: np.ndarray, n: int) -> np.ndarray:
    """An array of n rows that holds `own` at `rows`; the other rows, which belong to other processes, are arbitrary."""
    if len(rows) == n:
        return own
    whole = np.empty((n, *own.shape[1:]), own.dtype)
    whole[rows] = own
    return whole


@check_arguments
def part_of(n: Annotated[int, "[0, 1e9]"], most: Annotated[int, "[0, inf)"] | None) -> np.ndarray:
    """Indices of `most` of n images in ascending order, or of all where `most` is None or not less than n.

    The choice is as good as random, the same in every program, and independent of the order of the images: the first
    ones of a data set may all be of one class. The images of a smaller part are among those of a larger one.

        from score_sde.data import part_of

        indices = part_of(10_000, 100)  # int (100,)
    """
    if most is None or most >= n:
        return np.arange(n)
    # Raw numbers of NumPy's Philox are the same in all its versions, which those of its distributions need not be.
    return np.sort(np.argsort(np.random.Philox(key=0).random_raw(n), kind="stable")[:most])


@check_arguments
def scattered(
    n: Annotated[int, "[1, 4294967296]"], numbers: Annotated[Integer[np.ndarray, " b"], "[0, 4294967296)"]
) -> np.ndarray:
    """Numbers 0..n-1 for samples 0, 1, ..., spread evenly over the n from the first few samples on.

    Sample i has the number i s mod n, with s the next number after n times the golden section that has no factor in
    common with n, so that each number comes once before one comes twice. It depends on n and i alone.

        import numpy as np
        from score_sde.data import scattered

        numbers = scattered(10, np.arange(4))  # [0, 7, 4, 1]
    """
    golden = (math.sqrt(5) - 1) / 2
    step = next(step for step in range(max(1, round(n * golden)), n + 1) if math.gcd(step, n) == 1)
    return np.asarray(numbers, np.int64) * step % n


@check_arguments
def padded_chunks(n: Annotated[int, "[0, 1e9]"], size: Number) -> Iterator[tuple[np.ndarray, int]]:
    """Pairs (indices, valid): 0..n-1 in order, in chunks of exactly `size`; n - 1 is repeated to fill the last one."""
    for start in range(0, n, size):
        indices = np.arange(start, start + size)
        yield np.minimum(indices, n - 1), min(size, n - start)
