"""Readers of original archives, one for each format: generators of (key, features) as TFDS has them.

Images that an archive holds as files are kept byte for byte, arrays become PNG. All is read from front to back, with no
more in memory than a member of the archive: for ImageNet's NumPy files and SVHN's MATLAB files up to 3 GB.
"""

import errno
import functools
import io
import os
import shutil
import tempfile
import zipfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from score_sde.data.archives import idx, tar_members, zip_members
from score_sde.data.tfrecords import tfrecord_images
from score_sde.errors import UsageError

Examples = Iterator[tuple[str | int, dict[str, Any]]]


def reader(read: Callable[..., Examples]) -> Callable[..., Examples]:
    """Decorator of a generator read(path, ...): any error in it becomes a `UsageError` that names the file."""

    @functools.wraps(read)
    def named(path: Path, *args) -> Examples:
        try:
            yield from read(path, *args)
        except (UsageError, MemoryError):
            raise
        except Exception as error:  # each format's library raises its own types for damaged files
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            reason = str(error) or type(error).__name__
            raise UsageError(f"Cannot read {path} ({reason}); put an undamaged one in its place.") from error

    return named


def png(image: np.ndarray) -> bytes:
    """An image, uint8 (h, w, c) with 1 (grey), 3 or 4 channels, as a PNG file."""
    file = io.BytesIO()
    image = np.ascontiguousarray(image[..., 0] if image.shape[-1] == 1 else image)
    Image.fromarray(image).save(file, format="png")
    return file.getvalue()


def pngs(images: Iterable[np.ndarray]) -> Iterator[bytes]:
    """PNG files of images, in order, made on all cores: a large image takes half a second."""
    threads = os.cpu_count() or 1
    under_way: deque[Future] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for image in images:
            under_way.append(pool.submit(png, image))
            if len(under_way) > 2 * threads:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()


@reader
def cifar10(path: Path, names: list[str], split: str) -> Examples:
    """Examples of CIFAR-10: archive members of rows, each a label and 3 x 32 x 32 bytes."""
    members = {name.split("/")[-1]: content for name, content in tar_members(path)}  # 180 MB
    rows = np.concatenate([np.frombuffer(members[name], np.uint8).reshape(-1, 1 + 3 * 32 * 32) for name in names])
    for i, row in enumerate(rows):
        image = png(row[1:].reshape(3, 32, 32).transpose(1, 2, 0))
        yield i, {"id": f"{split}_{i:05d}", "image": image, "label": int(row[0])}


@reader
def cifar10_labels(path: Path) -> Iterator[str]:
    """Names of the classes, one on each line."""
    for name, content in tar_members(path):
        if name.endswith("batches.meta.txt"):
            yield from content.decode().split()


@reader
def mnist(images: Path, labels: Path) -> Examples:
    """Examples of MNIST: two IDX files."""
    for i, (image, label) in enumerate(zip(idx(images), idx(labels), strict=True)):
        yield i, {"image": png(image[..., None]), "label": int(label)}


@reader
def svhn(path: Path, split: str) -> Examples:
    """Examples of SVHN: a MATLAB file of X (32, 32, 3, n) and y (n, 1), where 10 is the digit 0."""
    from scipy.io import loadmat

    content = loadmat(path)
    for i, (image, label) in enumerate(zip(np.moveaxis(content["X"], -1, 0), content["y"][:, 0], strict=True)):
        yield i, {"id": f"{split}_{i:06d}", "image": png(image), "label": int(label) % 10}


@reader
def celeb_a(path: Path, tables: list[Path], split: int) -> Examples:
    """Examples of CelebA: a zip of JPEG files, and tables of split, attributes (1 or -1), landmarks and identity."""
    splits, attributes, landmarks, identities = map(celeb_a_table, tables, (["split"], None, None, ["Identity_No"]))
    with zipfile.ZipFile(path) as archive:
        for name in sorted(name for name, row in splits.items() if row["split"] == split):
            features = {
                "image": archive.read(f"img_align_celeba/{name}"),
                "attributes": {key: value > 0 for key, value in attributes[name].items()},
                "landmarks": landmarks[name],
                "identity": identities[name],
            }
            yield name, features


def celeb_a_table(path: Path, columns: list[str] | None) -> dict[str, dict[str, int]]:
    """Rows "FILE INT ...", below a line with their number and, unless they are given, a line of column names."""
    lines = path.read_text(encoding="utf-8").splitlines()
    if columns is None:
        columns, lines = lines[1].split(), lines[2:]
    rows = (line.split() for line in lines if line.strip())
    return {name: dict(zip(columns, map(int, values), strict=True)) for name, *values in rows}


@reader
def lsun(path: Path, folder: Path) -> Examples:
    """Examples of LSUN: a zip of an LMDB database of WebP files. LMDB needs a file, so it is unpacked into `folder`."""
    with zipfile.ZipFile(path) as archive, tempfile.TemporaryDirectory(dir=folder) as unpacked:
        with archive.open(f"{path.stem}/data.mdb") as member, (Path(unpacked) / "data.mdb").open("wb") as database:
            shutil.copyfileobj(member, database, 2**20)
        with lmdb().open(unpacked, readonly=True, lock=False) as environment, environment.begin() as transaction:
            for i, (key, image) in enumerate(transaction.cursor()):
                yield i, {"id": key.decode(), "image": image}


def lmdb():
    """The package lmdb, which only LSUN needs. Raises `UsageError` where it is missing."""
    try:
        import lmdb
    except ImportError as error:
        raise UsageError("LSUN comes as LMDB databases: pip install lmdb.") from error
    return lmdb


@reader
def downsampled_imagenet(path: Path) -> Examples:
    """Examples of downsampled ImageNet: a tar of PNG files."""
    for name, image in tar_members(path):
        yield name, {"image": image}


@reader
def imagenet_resized(path: Path, size: int) -> Examples:
    """Examples of resized ImageNet: a zip of NumPy files, each with `data` (n, 3 h w) and `labels` (n,) from 1."""
    for name, content in zip_members(path):
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            rows, labels = arrays["data"].reshape(-1, 3, size, size), arrays["labels"]
        for i, (row, label) in enumerate(zip(rows, labels, strict=True)):
            yield f"{name}{i}", {"image": png(row.transpose(1, 2, 0)), "label": int(label) - 1}


@reader
def celeb_a_hq(path: Path, size: int, number: int) -> Examples:
    """Examples of CelebA-HQ: a tar of image files, or TFRecords, with `number` images of this size."""
    if path.suffix != ".tar":
        for i, image in exactly(number, pngs(tfrecord_images(path, size))):
            yield i, {"image": image, "image/filename": f"{path.name}/{i:05d}"}
        return
    for _, (name, content) in exactly(number, tar_members(path)):
        if (image_size := Image.open(io.BytesIO(content)).size) != (size, size):
            raise ValueError(f"{name} is {image_size[0]}x{image_size[1]} pixels")
        yield name, {"image": content, "image/filename": name}


@reader
def ffhq(path: Path, size: int, number: int) -> Examples:
    """Examples of FFHQ: TFRecords with `number` images of this size."""
    for i, image in exactly(number, pngs(tfrecord_images(path, size))):
        yield i, {"image": image}


def exactly(number: int, things: Iterable) -> Iterator[tuple[int, Any]]:
    """`enumerate`, with a `ValueError` at the end unless the number is right: a file may be cut between two records."""
    i = -1
    for i, thing in enumerate(things):
        yield i, thing
    if i + 1 != number:
        raise ValueError(f"{i + 1:,} images, not {number:,}")
