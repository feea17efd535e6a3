"""Data sets by name, their splits as sources of images, and batches of these."""

from score_sde.data.batches import (
    batch_fn,
    batch_indices,
    batches,
    on_devices,
    padded_chunks,
    part_of,
    prefetched,
    scattered,
)
from score_sde.data.datasets import DATASETS, dataset
from score_sde.data.extent import Extent, extent
from score_sde.data.loading import OPTIONS, Options, load, summary
from score_sde.data.poisson import poisson_batch
from score_sde.data.sources import Batch, InMemory, OnDisk, Source
from score_sde.data.spread import Spread, spread

__all__ = [
    "DATASETS",
    "OPTIONS",
    "Batch",
    "Extent",
    "InMemory",
    "OnDisk",
    "Options",
    "Source",
    "Spread",
    "batch_fn",
    "batch_indices",
    "batches",
    "dataset",
    "extent",
    "load",
    "on_devices",
    "padded_chunks",
    "part_of",
    "poisson_batch",
    "prefetched",
    "scattered",
    "spread",
    "summary",
]
