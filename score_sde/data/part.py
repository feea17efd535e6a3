"""A part of a split: some of its images, for studies of memorisation and of learning curves.

import numpy as np
from score_sde.data import InMemory, Part, part_of

whole = InMemory(np.zeros((100, 8, 8, 1), np.uint8), np.arange(100) % 10)
source = Part(whole, part_of(100, 20))
len(source), source.num_classes  # 20, 10
"""

import functools

import numpy as np

from score_sde.array_types import Integer
from score_sde.config.arguments import check_arguments
from score_sde.data.batches import part_of
from score_sde.data.sources import Batch, Source, check_inside, hashed
from score_sde.errors import UsageError


class Part(Source):
    """The images of a source at some indices, in that order, with their labels and captions.

    Classes are those of the whole source, also where the part lacks one. `source` and `indices` are kept as attributes.
    Raises `UsageError` for no index, and for one that no image has.
    """

    @check_arguments
    def __init__(self, source: Source, indices: Integer[np.ndarray, " n"]):
        if not len(indices):
            raise UsageError("A part of a split needs one image or more; give their indices.")
        check_inside(indices, len(source))
        self.source, self.indices = source, indices
        self.digested, self.stored = source.digested, f"{source.stored}, a part of {len(source):,} images"
        self.class_names, self.report, self.licence = source.class_names, source.report, source.licence

    def __len__(self) -> int:
        return len(self.indices)

    @functools.cached_property
    def labels(self) -> np.ndarray | None:
        """The labels of the part, int (n,); None without any."""
        whole = self.source.labels
        return None if whole is None else whole[self.indices]

    @property
    def cond_entries(self) -> tuple[str, ...]:
        """The entries of the source."""
        return self.source.cond_entries

    @property
    def num_classes(self) -> int:
        """Number of classes of the whole source."""
        return self.source.num_classes

    def take(self, indices: Integer[np.ndarray, " b"]) -> Batch:
        return self.source.take(self._whole(indices))

    def captions(self, indices: Integer[np.ndarray, " b"]) -> list[str] | None:
        return self.source.captions(self._whole(indices))

    def digest(self) -> str:
        """The digest of the whole source and of the indices."""
        return self._digest

    @functools.cached_property
    def _digest(self) -> str:
        return hashed([self.source.digest(), len(self)], np.asarray(self.indices, np.int64))

    def _whole(self, indices: np.ndarray) -> np.ndarray:
        check_inside(indices, len(self))
        return self.indices[indices]


def train_part(source: Source, n: int) -> Source:
    """The training split of `data.train_images=n`: n images by `part_of`, all for 0. Raises `UsageError` for more."""
    if n > len(source):
        raise UsageError(
            f"data.train_images={n} is more than the {len(source):,} training images that there are; set it to at most "
            f"{len(source)}, or to 0 for all."
        )
    return source if n in (0, len(source)) else Part(source, part_of(len(source), n))
