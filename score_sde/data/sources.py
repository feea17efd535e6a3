"""Data sets, read through tensorflow-datasets' ArrayRecord data sources without TensorFlow."""

import importlib
import io
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

from score_sde.errors import UsageError, one_of
from score_sde.parallel import first_goes_first

FORMATS = ("PNG", "JPEG", "WEBP")
MAX_PIXELS = 2**26  # of one image: 8192x8192, 192 MiB in colour


class Dataset(NamedTuple):
    """Where a data set is found and how its images become squares.

    builder: a TFDS name, "name/config", or "module:Class" of a builder of ours.
    crop: side of the square at the centre that is kept, as large as possible if None, before resizing by `filter`.
    stock: whether TFDS can prepare it.
    """

    builder: str
    eval_split: str
    crop: int | None = None
    filter: Image.Resampling = Image.Resampling.BILINEAR
    stock: bool = True

    @property
    def ours(self) -> bool:
        return ":" in self.builder


LSUN_SCENES = (
    "bedroom",
    "bridge",
    "church_outdoor",
    "classroom",
    "conference_room",
    "dining_room",
    "kitchen",
    "living_room",
    "restaurant",
    "tower",
)

DATASETS: dict[str, Dataset] = {
    "digits": Dataset("score_sde.data.digits:Digits", eval_split="test"),
    "cifar10": Dataset("cifar10", eval_split="test"),
    "svhn": Dataset("svhn_cropped", eval_split="test"),
    "mnist": Dataset("mnist", eval_split="test"),
    "fashion_mnist": Dataset("fashion_mnist", eval_split="test"),
    "celeba": Dataset("celeb_a", eval_split="validation", crop=140),
    **{
        f"lsun/{scene}": Dataset(f"lsun/{scene}", eval_split="validation", filter=Image.Resampling.BICUBIC)
        for scene in LSUN_SCENES
    },
    # The paper evaluates these on what it trains on: they have one split.
    "celebahq_256": Dataset("celeb_a_hq/256", eval_split="train"),
    "celebahq_1024": Dataset("celeb_a_hq/1024", eval_split="train"),
    "ffhq_256": Dataset("ffhq/256", eval_split="train", stock=False),
    "ffhq_1024": Dataset("ffhq/1024", eval_split="train", stock=False),
}


class Source(NamedTuple):
    """A split in memory."""

    images: np.ndarray  # uint8 (n, h, w, c)
    labels: np.ndarray | None  # int (n,)

    def __len__(self) -> int:
        return len(self.images)


def dataset(name: str) -> Dataset:
    """The entry of `DATASETS`, upper or lower case. Raises `UsageError` naming the nearest."""
    return DATASETS[one_of("data.dataset", name.lower(), DATASETS)]


def find(name: str, data_dir: str = ""):
    """The prepared TFDS builder of a data set; ours are prepared now if they are not yet.

    data_dir: default the environment's TFDS_DATA_DIR, else ~/tensorflow_datasets.
    Raises `UsageError` when the data set is not there as ArrayRecord.
    """
    entry = dataset(name)
    directory = Path(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()
    import tensorflow_datasets as tfds

    if entry.ours:
        module, cls = entry.builder.split(":")
        try:
            with first_goes_first():
                cls = getattr(importlib.import_module(module), cls)
                builder = cls(data_dir=str(directory), file_format="array_record")
                builder.download_and_prepare()
        except OSError as error:
            advice = "set config.data.data_dir to a writable folder"
            raise UsageError(f"Cannot prepare {name} in {directory} ({error}); {advice}.") from error
        return builder
    try:
        builder = tfds.core.read_only_builder.builder_from_files(entry.builder, data_dir=str(directory))
        ready = builder.info.file_format is tfds.core.FileFormat.ARRAY_RECORD
    except Exception:  # TFDS raises various types for a folder it cannot read
        ready = False
    if not ready:
        how = f"tfds.builder('{entry.builder}', data_dir=..., file_format='array_record').download_and_prepare()"
        if not entry.stock:
            how = f"a builder of your own named '{entry.builder}', with a feature 'image', since TFDS has none"
        raise UsageError(
            f"No prepared '{entry.builder}' in {directory}: set config.data.data_dir or TFDS_DATA_DIR to the "
            f"folder that holds it as ArrayRecord; to prepare it, where TensorFlow is installed: {how}."
        )
    return builder


def load(name: str, *, train: bool, image_size: int, num_channels: int, data_dir: str = "") -> Source:
    """The training or evaluation split as uint8 images of the given size, in memory.

    Images are cropped to a square and resized as `DATASETS` says, with antialiasing, on 256 levels.
    Raises `UsageError` when the data set is missing or its channels are not `num_channels`.
    """
    import tensorflow_datasets as tfds

    builder, entry = find(name, data_dir), dataset(name)
    split = "train" if train else entry.eval_split
    examples = builder.as_data_source(split=split, decoders={"image": tfds.decode.SkipDecoding()})
    images, labels = np.empty((len(examples), image_size, image_size, num_channels), np.uint8), []
    for i, example in enumerate(tqdm(examples, desc=f"reading {name} {split}", unit="img", delay=1.0)):
        image = decode(example["image"], f"{name}'s image number {i} of split {split}")
        if image.shape[-1] != num_channels:
            raise UsageError(
                f"{name} has an image of {image.shape[-1]} channel(s), number {i} of split {split}; "
                f"set config.data.num_channels to that, not {num_channels}."
            )
        images[i] = resize(square(image, entry.crop), image_size, entry.filter)
        labels.append(example.get("label"))
    if not labels:
        raise UsageError(f"The split {split} of {name} is empty; prepare the data set again.")
    return Source(images, None if labels[0] is None else np.asarray(labels))


def decode(encoded: bytes, what: str = "an image") -> np.ndarray:
    """A PNG, JPEG or WebP file as uint8 (h, w, c).

    Raises `UsageError` naming `what` when the file is damaged, of another format, or of more than `MAX_PIXELS` pixels;
    the header says how many, and none is decoded then.
    """
    try:
        file = Image.open(io.BytesIO(encoded), formats=FORMATS)
        if file.width * file.height > MAX_PIXELS:
            raise ValueError(f"{file.width}x{file.height} pixels are more than {MAX_PIXELS}")
        image = np.asarray(file)
    except Exception as error:  # Pillow raises various types for what it cannot read
        reason = "no PNG, JPEG or WebP" if isinstance(error, UnidentifiedImageError) else error
        raise UsageError(f"Cannot read {what} ({reason}); prepare the data set again without it.") from error
    return image if image.ndim == 3 else image[..., None]


def square(image: np.ndarray, side: int | None = None) -> np.ndarray:
    """The square of that side at the centre, at most and by default as large as the shorter side."""
    height, width = image.shape[:2]
    side = min(side or height, height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return image[top : top + side, left : left + side]


def resize(image: np.ndarray, size: int, filter: Image.Resampling = Image.Resampling.BILINEAR) -> np.ndarray:
    """uint8 (h, w, c) to (size, size, c)."""
    if image.shape[:2] == (size, size):
        return image
    planes = [Image.fromarray(plane).resize((size, size), filter) for plane in np.moveaxis(image, -1, 0)]
    return np.stack([np.asarray(plane) for plane in planes], axis=-1)
