"""Data sets by name, and batches of them."""

from score_sde.data.batches import Batch, batch_indices, batches, padded_chunks, take
from score_sde.data.sources import DATASETS, Source, dataset, load

__all__ = [
    "DATASETS",
    "Batch",
    "Source",
    "batch_indices",
    "batches",
    "dataset",
    "load",
    "padded_chunks",
    "take",
]
