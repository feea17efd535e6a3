"""Sources: splits of images of one size, in memory, or on disk and decoded when asked for."""

import abc
import functools
import hashlib
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from score_sde.array_types import Integer, UInt8
from score_sde.cond import NULL, Cond, rows
from score_sde.config.arguments import check_arguments, check_methods
from score_sde.data.decoding import ADVICE, Form, UnreadableError, named
from score_sde.data.split_report import SplitReport
from score_sde.errors import UsageError, warn
from score_sde.runtime.progress import bar

CHUNK = 1024  # images that are read at once, but at most CHUNK_BYTES
CHUNK_BYTES = 2**26
NAMED = 3  # unreadable images that messages name


class Batch(NamedTuple):
    """A batch of images, uint8 (b, h, w, c), and their condition, see `score_sde.cond`; None without any.

    Those of `score_sde.data.pairs` are float32, in [0, 1].
    """

    images: np.ndarray
    cond: Cond | None

    @property
    def labels(self) -> np.ndarray | None:
        """The labels, int (b,); None without any."""
        return None if self.cond is None else self.cond.get("labels")


def _formerly_classes(source: Any, names: Any = None) -> None:
    raise AttributeError("A source's classes are now its class_names.")


class Source(abc.ABC):
    """Images and their conditions, numbered 0..n-1; the order does not depend on how they are stored.

    class_names: names of the labels, if they have names. report: how the files were read; None where that is fixed, as
    for CIFAR-10. digested: the content that `digest` covers; digests of different content do not compare. stored: where
    the images are, in words. licence: the terms of the images, which pages with such images show; "" if unknown.
    """

    digested: str
    stored = "made as they are needed"
    licence = ""
    class_names: Sequence[str] | None = None
    report: SplitReport | None = None
    labels: np.ndarray | None  # int (n,)

    def __init_subclass__(cls, **options: Any):
        super().__init_subclass__(**options)
        if "classes" in vars(cls):
            _formerly_classes(cls)
        check_methods(cls, Source)

    @abc.abstractmethod
    def __len__(self) -> int: ...

    @abc.abstractmethod
    def take(self, indices: Integer[np.ndarray, " b"]) -> Batch:
        """Images and conditions at these indices, 0..n-1. Raises `UsageError` naming an image that cannot be read."""

    @abc.abstractmethod
    def digest(self) -> str:
        """The digest of all images, 32 hexadecimal digits; it is computed once."""

    def captions(self, indices: Integer[np.ndarray, " b"]) -> list[str] | None:
        """The captions of the images at these indices; None for images without captions."""
        return None

    @property
    def cond_entries(self) -> tuple[str, ...]:
        """Names of the condition's entries."""
        return tuple(name for name in self.take(np.arange(1)).cond or () if name != NULL)

    @property
    def num_classes(self) -> int:
        """Number of classes; 0 without labels."""
        if "labels" not in self.cond_entries:  # known before all labels are read
            return 0
        return len(self.class_names) if self.class_names is not None else int(self.labels.max()) + 1

    classes = property(_formerly_classes, _formerly_classes)


class InMemory(Source):
    """Images in memory.

    images: uint8 (n, h, w, c). labels: int (n,) or None. captions: a text for each image, or None. entries: other
    entries of the condition, n rows each.

        import numpy as np
        from score_sde.data import InMemory

        source = InMemory(np.zeros((10, 8, 8, 1), np.uint8), labels=np.arange(10))
        batch = source.take(np.array([2, 5]))  # batch.images: (2, 8, 8, 1), batch.labels: [2, 5]
    """

    digested = "InMemory"
    stored = "in memory"

    @check_arguments
    def __init__(
        self,
        images: UInt8[np.ndarray, "n h w c"],
        labels: Integer[np.ndarray, " n"] | None = None,
        captions: Sequence[str] | None = None,
        **entries: Any,
    ):
        if captions is not None and len(captions) != len(images):
            raise UsageError(f"There are {len(captions)} captions and {len(images)} images; give each image one.")
        for name, entry in entries.items():
            if any(np.shape(leaf)[:1] != (len(images),) for leaf in jax.tree.leaves(entry)):
                raise UsageError(f"The entry {name} of the condition must have a row for each of {len(images)} images.")
        self.images, self.labels, self._captions = images, labels, captions
        self.cond = (entries if labels is None else {"labels": labels} | entries) or None

    def __len__(self) -> int:
        return len(self.images)

    def take(self, indices: np.ndarray) -> Batch:
        check_inside(indices, len(self))
        return Batch(self.images[indices], rows(self.cond, indices))

    def captions(self, indices: np.ndarray) -> list[str] | None:
        check_inside(indices, len(self))
        return None if self._captions is None else [self._captions[i] for i in indices]

    def digest(self) -> str:
        """The digest of every pixel, of every entry of the condition, and of the captions."""
        return self._digest

    @functools.cached_property
    def _digest(self) -> str:
        entries = {name: entry for name, entry in (self.cond or {}).items() if name != "labels"}
        labels = [] if self.labels is None else [np.asarray(self.labels, np.int64)]
        others = map(np.ascontiguousarray, jax.tree.leaves(entries))
        named = [sorted(entries)] if entries else []
        named += [] if self._captions is None else [list(self._captions)]
        return hashed([len(self), *self.images.shape[1:], *named], np.ascontiguousarray(self.images), *labels, *others)


class Stored(NamedTuple):
    """A stored picture and its label.

    content: a path, an encoded file, a function that reads one, or pixels, uint8 (h, w, c).
    """

    content: Path | bytes | Callable[[], bytes] | np.ndarray
    label: int | None


class Pictures(abc.ABC):
    """A split as it is stored: numbered pictures of any size.

    advice: the end of the message on a picture that cannot be read. class_names, report: as for `Source`. captions: a
    text for each picture, or None.
    """

    captions: Sequence[str] | None = None
    class_names: Sequence[str] | None = None
    report: SplitReport | None = None
    advice = ADVICE

    @abc.abstractmethod
    def __len__(self) -> int: ...

    @abc.abstractmethod
    def read(self, indices: Sequence[int]) -> list[Stored]: ...

    @abc.abstractmethod
    def name(self, index: int) -> str:
        """Name of a picture, for messages."""

    @abc.abstractmethod
    def fingerprint(self) -> Any:
        """JSON-serialisable identity of these pictures."""

    def close(self) -> None:  # noqa: B027
        """Closes the files of these pictures."""


class Subset(Pictures):
    """The pictures at some indices, in that order."""

    def __init__(self, pictures: Pictures, indices: np.ndarray):
        self._pictures, self._indices = pictures, indices
        self.class_names, self.report, self.advice = pictures.class_names, pictures.report, pictures.advice
        self.captions = None if pictures.captions is None else [pictures.captions[i] for i in indices]

    def __len__(self) -> int:
        return len(self._indices)

    def read(self, indices: Sequence[int]) -> list[Stored]:
        return self._pictures.read([int(self._indices[i]) for i in indices])

    def name(self, index: int) -> str:
        return self._pictures.name(int(self._indices[index]))

    def fingerprint(self) -> Any:
        return [self._pictures.fingerprint(), hashed([len(self)], self._indices)]

    def close(self) -> None:
        self._pictures.close()


class OnDisk(Source):
    """Pictures on disk, decoded by `workers` threads when they are asked for.

    skip: in place of a picture that cannot be read, take the next one that can, with its label, and from then on its
    caption; otherwise raise.
    """

    digested = "pieces of files"
    stored = "decoded from disk"

    def __init__(self, pictures: Pictures, form: Form, *, workers: int, skip: bool = False):
        self.pictures, self.form = pictures, form
        self.class_names, self.report = pictures.class_names, pictures.report
        self._skip, self._workers = skip, workers
        self._unreadable: set[int] = set()
        self._instead: dict[int, int] = {}  # of unreadable ones: the picture that was taken
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.pictures)

    def take(self, indices: np.ndarray) -> Batch:
        check_inside(indices, len(self))
        images, labels, bad = self.decode(indices)
        for position in bad:
            index = int(indices[position])
            self._tell(index, bad[position])
            images[position], labels[position] = self._next(index)
        labels = as_labels(labels)
        return Batch(images, None if labels is None else {"labels": labels})

    def captions(self, indices: np.ndarray) -> list[str] | None:
        check_inside(indices, len(self))
        texts = self.pictures.captions
        return None if texts is None else [texts[self._instead.get(i, i)] for i in indices.tolist()]

    def digest(self) -> str:
        """The digest of the pictures' names, files' content and captions, and of the form they are converted to."""
        return self._digest

    @functools.cached_property
    def _digest(self) -> str:
        texts = [] if self.pictures.captions is None else [list(self.pictures.captions)]
        return hashed([self.pictures.fingerprint(), str(self.form), len(self), *texts])

    @functools.cached_property
    def labels(self) -> np.ndarray | None:
        """Labels of all pictures, read without decoding one."""
        labels: list[Any] = []
        for indices in _chunks(len(self), "reading labels"):
            labels += [stored.label for stored in self.pictures.read(indices.tolist())]
        return as_labels(labels)

    def decode(self, indices: np.ndarray) -> tuple[np.ndarray, list[int | None], dict[int, UnreadableError]]:
        """(images, labels, errors by position); images that cannot be read are left undefined."""
        stored = self.pictures.read([int(i) for i in indices])
        advice = self.pictures.advice
        images, bad = np.empty((len(stored), *self.form.shape), np.uint8), {}

        def render(positions: np.ndarray) -> None:
            for position in positions:
                name = self.pictures.name(int(indices[position]))
                try:
                    images[position] = self.form.render(self._content(stored[position], name), name, advice)
                except UnreadableError as error:
                    if not self._skip:
                        raise
                    bad[int(position)] = error

        # A task for each image would cost more than a small image takes.
        tasks = np.array_split(np.arange(len(stored)), min(len(stored), 4 * self._workers) or 1)
        list(self._pool.map(render, tasks))
        return images, [s.label for s in stored], dict(sorted(bad.items()))

    def _content(self, stored: Stored, name: str) -> Any:
        if not callable(stored.content):
            return stored.content
        with named(name, self.pictures.advice):
            return stored.content()

    @functools.cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self._workers, thread_name_prefix="score_sde-decode")

    def close(self) -> None:
        """Ends the threads and closes the files."""
        self._pool.shutdown()
        self.pictures.close()

    def _next(self, index: int) -> tuple[np.ndarray, int | None]:
        for step in range(1, len(self)):
            other = (index + step) % len(self)
            images, labels, bad = self.decode(np.array([other]))
            if not bad:
                self._instead[index] = other
                return images[0], labels[0]
        raise UsageError(f"No image can be read, among them {self.pictures.name(index)}; {self.pictures.advice}.")

    def _tell(self, index: int, error: UnreadableError) -> None:
        with self._lock:
            new = index not in self._unreadable
            self._unreadable.add(index)
            number = len(self._unreadable)
        if new and number <= NAMED:
            more = "; further ones are not named" if number == NAMED else ""
            warn(f"{str(error).partition(';')[0]}; the next one takes its place{more}.")


def check_inside(indices: np.ndarray, n: int) -> None:
    """Raises `UsageError` for indices that none of n images has."""
    if len(indices) and not 0 <= indices.min() <= indices.max() < n:
        raise UsageError(f"Images are numbered 0..{n - 1}, and not from {indices.min()} to {indices.max()}.")


def in_memory(source: OnDisk, split_name: str) -> InMemory:
    """The images that can be read, with a progress bar.

    Raises `UsageError` if no image can be read, or for an unreadable one that is not skipped.
    """
    form, texts, kept, labels, captions, bad = source.form, source.pictures.captions, 0, [], [], []
    images = np.empty((len(source), *form.shape), np.uint8)
    for indices in _chunks(len(source), f"reading {split_name}", images[:1].nbytes):
        part, part_labels, unreadable = source.decode(indices)
        good = [i for i in range(len(part)) if i not in unreadable]
        images[kept : kept + len(good)] = part[good] if unreadable else part
        labels += [part_labels[i] for i in good]
        captions += [texts[indices[i]] for i in good] if texts is not None else []
        bad += [source.pictures.name(int(indices[i])) for i in unreadable]
        kept += len(good)
    source.close()
    tell_left_out(bad, len(source), split_name)
    result = InMemory(images[:kept], as_labels(labels), None if texts is None else captions)
    result.class_names, result.report = source.class_names, source.report
    return result


def tell_left_out(bad: Sequence[str], total: int, split_name: str) -> None:
    """Warns once, with the number and first names of images left out. Raises `UsageError` if none is left."""
    if not bad:
        return
    names = ", ".join(bad[:NAMED]) + (", ..." if len(bad) > NAMED else "")
    if len(bad) == total:
        raise UsageError(
            f"None of the {total} images of {split_name} can be read ({names}); put others in their place."
        )
    warn(f"{len(bad)} of {total} images of {split_name} cannot be read and are left out: {names}.")


def _chunks(n: int, description: str, bytes_each: int = 1) -> Iterator[np.ndarray]:
    """Indices 0..n-1 in pieces, with a progress bar if it takes long."""
    size = max(1, min(CHUNK, CHUNK_BYTES // bytes_each))
    with bar(description, n, "img", delay=1.0) as progress:
        for start in range(0, n, size):
            indices = np.arange(start, min(start + size, n))
            yield indices
            progress.update(len(indices))


def each(check: Callable[[int], None], n: int, description: str, workers: int) -> None:
    """Calls a function with 0..n-1 in threads, with a progress bar."""
    with ThreadPoolExecutor(workers) as pool:
        for indices in _chunks(n, description):
            list(pool.map(check, indices.tolist()))


def as_labels(labels: Sequence[int | None]) -> np.ndarray | None:
    """The labels of a batch as an array; None if the images have none."""
    return None if not len(labels) or labels[0] is None else np.asarray(labels)


def hashed(facts: Any, *arrays: np.ndarray) -> str:
    """A hash, 32 hexadecimal digits, of JSON-serialisable facts and of arrays."""
    result = hashlib.blake2b(json.dumps(facts).encode(), digest_size=16)
    for array in arrays:
        result.update(array)
    return result.hexdigest()
