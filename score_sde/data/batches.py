"""Batches as a pure function of (seed, step): resuming needs no iterator state."""

import functools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from score_sde.data.sources import Source


class Batch(NamedTuple):
    images: np.ndarray  # uint8 (b, h, w, c)
    labels: np.ndarray | None


@functools.lru_cache(maxsize=4)
def _permutation(n: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(n)


def batch_indices(n: int, batch_size: int, *, seed: int, step: int) -> np.ndarray:
    """Indices of batch `step` into n examples: one endless sequence of epochs, each in its own random order."""
    epochs, positions = np.divmod(step * batch_size + np.arange(batch_size), n)
    indices = np.empty(batch_size, np.int64)
    for epoch in np.unique(epochs):
        indices[epochs == epoch] = _permutation(n, seed, int(epoch))[positions[epochs == epoch]]
    return indices


def take(source: Source, indices: np.ndarray) -> Batch:
    return Batch(source.images[indices], None if source.labels is None else source.labels[indices])


def batches(source: Source, batch_size: int, *, seed: int, start_step: int = 0) -> Iterator[tuple[int, Batch]]:
    """(step, batch) without end, from `start_step`."""
    step = start_step
    while True:
        yield step, take(source, batch_indices(len(source), batch_size, seed=seed, step=step))
        step += 1


def padded_chunks(n: int, size: int) -> Iterator[tuple[np.ndarray, int]]:
    """0..n-1 in order, in chunks of exactly `size`; the last is filled up from its own end. Yields (indices, valid)."""
    for start in range(0, n, size):
        indices = np.arange(start, start + size)
        yield np.minimum(indices, n - 1), min(size, n - start)
