"""Labelled images: the parts of a data set for training, for choices and for the test, and nested subsets of a class.

The validation part is a fifth of each class of the training images. Nothing is trained on it: neither a classifier nor
a generator that the experiment makes.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from score_sde import data
from score_sde.array_types import Integer, Pixels
from score_sde.config import Config
from score_sde.data.arrays import read_arrays
from score_sde.data.sources import hashed
from score_sde.errors import UsageError
from score_sde.training.run import load_data

MOST = 50_000, 10_000  # images of either split that are looked at
VALIDATION = 5  # one of so many training images
ONE_COMMAND = "--mode=sample with sampling.condition=class=all and sampling.save=arr_0 writes such a file"


class Pool(NamedTuple):
    """Labelled images to draw from. images: uint8 (n, h, w, c). labels: int (n,)."""

    images: Pixels
    labels: Integer[np.ndarray, " n"]

    def take(self, indices: Integer[np.ndarray, " b"]) -> "Pool":
        return Pool(self.images[indices], self.labels[indices])

    def digest(self) -> str:
        """A hash of all images and labels."""
        arrays = np.ascontiguousarray(self.images), np.asarray(self.labels, np.int64)
        return hashed([len(self.labels), *self.images.shape[1:]], *arrays)


class Splits(NamedTuple):
    """The parts of a data set. names: of the classes."""

    train: Pool
    validation: Pool
    test: Pool
    names: tuple[str, ...]


def load(config: Config) -> Splits:
    """The parts of a config's data set. Raises `UsageError` without labels, or with too few images of a class."""
    sources = [load_data(config, train=train) for train in (True, False)]
    classes = sources[0].num_classes
    if classes < 2:
        raise UsageError(
            f"data.dataset={config.data.dataset} has no labels of two or more classes, and a classifier needs them; "
            "name a model of labelled images."
        )
    train, test = (_pool(source, most) for source, most in zip(sources, MOST, strict=True))
    names = sources[0].class_names or range(classes)
    return split(train, test, tuple(map(str, names)))


def split(train: Pool, test: Pool, names: tuple[str, ...]) -> Splits:
    """The parts of these images. Raises `UsageError` for a class with fewer than two training images."""
    chosen = np.zeros(len(train.labels), bool)
    for label, name in enumerate(names):
        order = _order(train.labels, label, 0)
        if len(order) < 2:
            raise UsageError(
                f"Class {name} has {len(order)} training images, and two are needed, one of them for validation; add "
                "images of this class."
            )
        chosen[order[: -(-len(order) // VALIDATION)]] = True
    return Splits(train.take(np.flatnonzero(~chosen)), train.take(np.flatnonzero(chosen)), test, names)


def subset(pool: Pool, names: tuple[str, ...], count: int, seed: int) -> Pool:
    """The images of each class that a seed learns from, `count` of them or all for 0.

    Larger subsets contain smaller ones. Raises `UsageError` for more images than a class has.

        import numpy as np
        from score_sde.experiments.augmentation.splits import Pool, subset

        pool = Pool(np.zeros((20, 8, 8, 1), np.uint8), np.arange(20) % 2)
        assert subset(pool, ("a", "b"), 3, seed=0).labels.tolist() == [0, 0, 0, 1, 1, 1]
    """
    if not count:
        return pool
    chosen = []
    for label, name in enumerate(names):
        order = _order(pool.labels, label, seed + 1)
        if len(order) < count:
            raise UsageError(
                f"--counts={count} is more than the {len(order)} training images that class {name} has besides the "
                "validation part; take fewer."
            )
        chosen.append(order[:count])
    return pool.take(np.concatenate(chosen))


def samples(path: Path, each: int, like: Pool, names: tuple[str, ...]) -> Pool:
    """The first `each` labelled samples of each class in a NumPy file.

    like: images of the shape that they must have. Raises `UsageError` for a file without labels, for samples of another
    shape or other classes, for a class without samples, and for fewer samples than that.
    """
    pixels, labels, *_ = read_arrays(path)
    if labels is None:
        raise UsageError(f"{path} has no labels; {ONE_COMMAND}.")
    if pixels.dtype != np.uint8 or pixels.shape[1:] != like.images.shape[1:]:
        raise UsageError(
            f"{path} holds {pixels.dtype} of shape {pixels.shape}, and the real images are uint8 of shape "
            f"{like.images.shape[1:]} each; give samples of this form."
        )
    if labels.shape != (len(pixels),) or not np.isin(labels, np.arange(len(names))).all():
        raise UsageError(f"The labels of {path} must be a number from 0 to {len(names) - 1} for each of its images.")
    numbers = np.bincount(labels, minlength=len(names))
    for name, number in zip(names, numbers, strict=True):
        if number < each:
            have = f"{number} of class {name}" if number else f"none of class {name}"
            raise UsageError(f"{path} has {have}, and --each={each} samples are needed; draw more, or lower --each.")
    chosen = np.concatenate([np.flatnonzero(labels == label)[:each] for label in range(len(names))])
    return Pool(pixels[chosen], labels[chosen])


def _pool(source: data.Source, most: int) -> Pool:
    batch = source.take(data.part_of(len(source), most))
    return Pool(batch.images, np.asarray(batch.labels))


def _order(labels: Integer[np.ndarray, " n"], label: int, seed: int) -> Integer[np.ndarray, " m"]:
    """Indices of a class in the random order of a seed; raw numbers of Philox are the same in all versions of NumPy."""
    own = np.flatnonzero(labels == label)
    return own[np.argsort(np.random.Philox(key=[seed, label]).random_raw(len(own)), kind="stable")]
