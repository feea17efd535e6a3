"""A judge: a classifier of real images that says what samples show, with the errors that it makes on held-out images.

Its network is `score_sde.metrics.small`, trained with another seed than the features by which distances are measured.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, NamedTuple

import jax
import numpy as np

from score_sde import data
from score_sde.array_types import Array, Float, Integer, Pixels, PyTree
from score_sde.config.arguments import check_arguments
from score_sde.data.sources import hashed
from score_sde.errors import UsageError
from score_sde.metrics import small
from score_sde.runtime.backend import program

OPTIONS = small.Options(seed=1)
MOST = 10_000  # held-out images on which errors are counted
BATCH = 512

Probabilities = Float[np.ndarray, "n k"]
Values = Annotated[Integer[np.ndarray, " n"], "[0, 1e6]"]


class Attribute(NamedTuple):
    """An attribute of the images, in place of a data set's own labels: a number 0, 1, ... for each image.

    name: for messages. train: of the training images. held_out: of the held-out images.
    """

    name: str
    train: Values
    held_out: Annotated[Integer[np.ndarray, " m"], "[0, 1e6]"]


class Judge(NamedTuple):
    """A classifier of real images.

    of: uint8 images -> the probability that each shows class k and is intact. confusion: numbers of held-out images,
    int (true class, judged class).
    """

    of: Callable[[Pixels], Probabilities]
    confusion: Integer[np.ndarray, "k k"]

    @property
    def accuracy(self) -> float:
        """The share of held-out images whose class it knows."""
        return float(np.trace(self.confusion) / self.confusion.sum())

    def classes(self, pixels: Pixels) -> Integer[np.ndarray, " n"]:
        """The most probable class of each image."""
        return self.of(pixels).argmax(axis=1)

    def counts(self, pixels: Pixels) -> Integer[np.ndarray, " k"]:
        """Numbers of images that are judged to be of each class."""
        return np.bincount(self.classes(pixels), minlength=len(self.confusion))


class _Relabelled(data.Source):
    """The images of another source, with an attribute as their labels."""

    digested = "_Relabelled"

    def __init__(self, source: data.Source, labels: np.ndarray):
        self._source, self.labels = source, labels

    def __len__(self) -> int:
        return len(self._source)

    def take(self, indices: np.ndarray) -> data.Batch:
        return data.Batch(self._source.take(indices).images, {"labels": self.labels[indices]})

    def digest(self) -> str:
        return hashed([self._source.digest()], np.asarray(self.labels, np.int64))


@check_arguments
def judge(
    train: data.Source,
    held_out: data.Source,
    folder: Path,
    *,
    options: small.Options = OPTIONS,
    attribute: Attribute | None = None,
) -> Judge:
    """The judge of a data set's classes, or of an attribute of its images, trained now or by an earlier call.

    Its parameters are kept in `folder`, and a training that is stopped goes on with the next call. Errors are counted
    on `MOST` held-out images at most. Raises `UsageError` for data without labels, and for classes that the training
    images do not have.

        from pathlib import Path
        from tempfile import mkdtemp

        import numpy as np
        from score_sde.data import InMemory
        from score_sde.metrics import Options
        from score_sde.metrics.judge import judge

        shades = np.repeat(np.arange(4) % 2, 16)
        images = np.broadcast_to(255 * shades[:, None, None, None], (64, 8, 8, 1)).astype(np.uint8)
        source = InMemory(images, labels=shades)
        of_shades = judge(source, source, Path(mkdtemp()), options=Options(nf=8, dimension=8, n_iters=2, batch_size=8))
        counts = of_shades.counts(images)  # of images judged to be black, and white
    """
    if attribute is not None:
        train, held_out = _with_attribute(train, held_out, attribute)
    name = "labels" if attribute is None else f"attribute {attribute.name}"
    k = train.num_classes
    if k < 2:
        raise UsageError(f"A judge needs {name} of two classes or more, and the data have {k}; give it an attribute.")
    if not 1 <= held_out.num_classes <= k:
        raise UsageError(
            f"The {name} of training images have {k} classes, and those of held-out images {held_out.num_classes}; "
            "give both splits the same."
        )
    of = _classifier(options, k, small.trained(options, train, folder))
    known = held_out.take(data.part_of(len(held_out), MOST))
    confusion = np.zeros((k, k), int)
    np.add.at(confusion, (known.labels, of(known.images).argmax(axis=1)), 1)
    return Judge(of, confusion)


def _with_attribute(train: data.Source, held_out: data.Source, attribute: Attribute) -> list[data.Source]:
    result = []
    for split, source, labels in zip(("training", "held-out"), (train, held_out), attribute[1:], strict=True):
        if len(labels) != len(source):
            raise UsageError(
                f"Attribute {attribute.name} has {len(labels)} values for {len(source)} {split} images; give each "
                "image one."
            )
        result.append(_Relabelled(source, labels))
    return result


def _classifier(options: small.Options, k: int, params: PyTree) -> Callable[[Pixels], Probabilities]:
    network = small.Network(options.nf, options.dimension, k)

    @program
    def of(pixels: Pixels) -> Float[Array, "n k"]:
        _, classes, corruptions = network.apply({"params": params}, pixels)
        return jax.nn.softmax(classes) * jax.nn.softmax(corruptions)[:, :1]

    def in_parts(pixels: Pixels) -> Probabilities:
        chunks = data.padded_chunks(len(pixels), BATCH)
        return np.concatenate([np.asarray(of(pixels[indices]))[:valid] for indices, valid in chunks])

    return in_parts
