"""Loading: from a data set's name to its splits as sources."""

import dataclasses
import math
import os
from collections.abc import Callable
from typing import Annotated, Any

import numpy as np

from score_sde.config import KEYS, check_section, protocols
from score_sde.config.arguments import check_arguments
from score_sde.config.import_paths import arguments, choose, is_import_path
from score_sde.data import arrays, folder, openmoji, records, scenes
from score_sde.data.datasets import dataset
from score_sde.data.decoding import Form, UnreadableError, named
from score_sde.data.part import train_part
from score_sde.data.sources import OnDisk, Pictures, Source, each, in_memory, tell_left_out
from score_sde.data.split_report import counted
from score_sde.errors import UsageError, shown

MOST_WORKERS = 32
NAMED = 5  # classes that the summary names
CORRUPT = ("refuse", "skip")
Side = Annotated[int, "[1, inf)"]


@dataclasses.dataclass(frozen=True)
class Options:
    """Location of a data set and how it is read; names and defaults are those of `config.data`.

    path: for `folder`, see `own_files.opened`, and `array`. data_dir, archives: see `records.find`. in_memory_gib: a
    split of at most this many GiB of pixels is read into memory, a larger one is decoded when asked for. held_out:
    fraction of the images for evaluation, where there is no split for it; 0: all images are in both splits. corrupt:
    "refuse" or "skip" images that cannot be read. convert: whether images of other colours are converted. labels: for
    `folder`: "none"; "folders" (the topmost are classes, whatever else is there); or "auto", which reads labels that
    are stored with the images and otherwise CLASS/FILE, and refuses ambiguous folders. captions: for `folder` and
    `array`, "auto" reads those that are stored with the images (`score_sde.data.caption_files`), "none" leaves them
    out. array_range: for `array`, the numbers that are black and white; None: its images are uint8. num_workers:
    decoding threads; 0: one for each core.
    """

    path: str = ""
    data_dir: str = ""
    archives: str = ""
    in_memory_gib: float | int = 8.0
    held_out: float | int = 0.1
    corrupt: str = "refuse"
    convert: bool = False
    labels: str = "auto"
    captions: str = "auto"
    array_range: tuple[float, ...] | None = None
    num_workers: int = 0

    @property
    def workers(self) -> int:
        mine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return self.num_workers or min(MOST_WORKERS, mine)


OPTIONS = tuple(field.name for field in dataclasses.fields(Options))


@check_arguments
def load(
    name: str,
    *,
    train: bool,
    image_size: Side,
    num_channels: Side,
    image_width: Side | None = None,
    train_images: Annotated[int, "[0, inf)"] = 0,
    **options: Any,
) -> Source:
    """The training or evaluation split of a data set, as uint8 images of one size.

    name: in `DATASETS`, of TFDS, or an import path. image_size: the height, and without `image_width` also the width.
    train_images: so many images of the training split, by `score_sde.data.part_of`, so that fewer are among more; 0:
    all. The evaluation split is the same for each number. options: fields of `Options`; for a function at an import
    path also its own arguments (`score_sde.config.protocols.DataSet`), and for a data set in `MADE` those of its class.

    Images are cropped to the proportions of this size and resized as `DATASETS` says, with antialiasing, on 256 levels.
    The order is the same in memory and on disk. Images that cannot be read are left out only with `corrupt="skip"`, and
    only those that are found before training: for a source on disk by their headers, see `OnDisk` for the others.

    Raises `UsageError` when the data set is missing, an image cannot be read, its channels are not `num_channels`, or
    it has less than `train_images` images.

        import numpy as np
        from score_sde import data

        np.save("images.npy", np.zeros((10, 8, 8, 3), np.uint8))
        source = data.load("array", train=True, image_size=8, num_channels=3, path="images.npy", held_out=0)
        images = source.take(np.array([0, 3])).images  # uint8 (2, 8, 8, 3)
    """
    source = _split(name, options, (image_size, image_width, num_channels), train)
    return train_part(source, train_images) if train else source


def _split(name: str, options: dict[str, Any], sizes: tuple[int, int | None, int], train: bool) -> Source:
    """All images of a split; `sizes` are height, width and channels."""
    own_options = {key: options[key] for key in (*OPTIONS, *OF_SCENES) if key in options}
    check_section("data", own_options)
    own_options = {key: KEYS[f"data.{key}"].plain(value) for key, value in own_options.items()}
    own, (image_size, image_width, num_channels) = name.lower(), sizes
    if is_import_path(name):
        return _opened(name, options, sizes, train)
    if unknown := options.keys() - own_options.keys():
        raise UsageError(f"data.{min(unknown)} is an option of no data set of this package; leave it out.")
    _check_owners(own, own_options)
    if own in MADE:
        return _opened(own, options, sizes, train)
    read_options = Options(**{key: value for key, value in own_options.items() if key in OPTIONS})
    entry = dataset(name, read_options.data_dir)
    if own in OWN and num_channels not in (1, 3):
        raise UsageError(f"data.num_channels={num_channels} is neither 1, greyscale, nor 3, RGB.")
    pictures = OWN.get(own, records.open_split)(name, read_options, train=train)
    form = Form(image_size, num_channels, entry.crop, entry.filter, read_options.convert, own == "folder", image_width)
    split_name, skip = f"{name} ({'training' if train else 'evaluation'})", read_options.corrupt == "skip"
    if len(pictures) * math.prod(form.shape) <= read_options.in_memory_gib * 2**30:
        source = in_memory(OnDisk(pictures, form, workers=read_options.workers, skip=skip), split_name)
    else:
        if isinstance(pictures, folder.Files):
            pictures = _readable(pictures, form, read_options, split_name)
        source = OnDisk(pictures, form, workers=read_options.workers, skip=skip)
        source.take(np.arange(1))  # raises now if none can be read
    source.licence = records.licence(entry.builder)
    return source


def _check_owners(name: str, options: dict[str, Any]) -> None:
    """Raises `UsageError` for an option, other than its default, of another data set."""
    for key, owner in OF_ONE.items():
        default = KEYS[f"data.{key}"].default
        if name != owner and options.get(key, default) != default:
            raise UsageError(f"data.{key}={options[key]} is for data.dataset={owner}; leave it out.")


def _opened(name: str, options: dict[str, Any], sizes: tuple[int, int | None, int], train: bool) -> Source:
    """The split that a function opens: one of `MADE`, or that at an import path.

    Raises `UsageError` unless it holds images of these sizes.
    """
    function = choose("data.dataset", name, MADE, protocols.DataSet)
    image_size, image_width, num_channels = sizes
    options = options | {"image_width": image_width}
    chosen = {key: value for key, value in options.items() if key in arguments(function)}
    source = function(train=train, image_size=image_size, num_channels=num_channels, **chosen)
    if not isinstance(source, Source) or not len(source):
        raise UsageError(f"data.dataset={name} returns {type(source).__name__}; return a score_sde.data.Source.")
    images, shape = source.take(np.arange(1)).images, (1, image_size, image_width or image_size, num_channels)
    if images.shape != shape or images.dtype != np.uint8:
        raise UsageError(
            f"data.dataset={name} gives images of shape {images.shape} and type {images.dtype}, and this config asks "
            f"for uint8 of {shape}: data.image_size, data.image_width and data.num_channels."
        )
    return source


@check_arguments
def summary(name: str, train: Source, evaluation: Source) -> str:
    """One line on how a user's own files were read and which were left out.

    "" for data sets with fixed splits, such as CIFAR-10.
    """
    if train.report is None or evaluation.report is None:
        return ""
    line = f"{shown(name)}: {len(train):,} image{'s' * (len(train) > 1)} {_classes(train)} {train.report.part}".rstrip()
    also = " without classes" if train.num_classes and not evaluation.num_classes else ""
    if evaluation.report.part:
        line += f", {len(evaluation):,}{also} {evaluation.report.part} to evaluate on"
    else:
        line += ", which are evaluated on as well"
    line += "".join(f"; {note}" for note in train.report.notes)
    return line + (f"; left out: {counted(train.report.left_out)}" if train.report.left_out else "")


def _classes(source: Source) -> str:
    by = f", {source.report.labels}" if source.report.labels else ""
    if not source.num_classes:
        return f"without classes{by}"
    first = source.class_names if source.class_names else [f"0 to {source.num_classes - 1}"]
    names = ", ".join(first[:NAMED]) + ", ..." * (len(first) > NAMED)
    return f"in {source.num_classes:,} class{'es' * (source.num_classes > 1)} ({names}{by})"


def _readable(files: folder.Files, form: Form, options: Options, split_name: str) -> folder.Files:
    """The files whose headers can be read."""
    bad: set[int] = set()

    def check(i: int) -> None:
        try:
            with named(files.name(i), files.advice), files.opened(i) as file:
                form.check_header(file, files.name(i), files.advice)
        except UnreadableError:
            if options.corrupt != "skip":
                raise
            bad.add(i)

    each(check, len(files), f"checking {split_name}", options.workers)
    tell_left_out([files.name(i) for i in sorted(bad)], len(files), split_name)
    return files.where(lambda i: i not in bad)


# Data sets that this package makes, which are functions as at an import path.
MADE: dict[str, Callable[..., Source]] = {"scenes": scenes.Scenes, "openmoji": openmoji.openmoji}
# Options of one data set, which others refuse.
OF_SCENES = ("scene_objects", "scene_relations", "scene_held_out", "scene_images", "scene_seed")
OF_ONE = {"labels": "folder", "array_range": "array", **dict.fromkeys(OF_SCENES, "scenes")}
# Data sets of a user's own images, at config.data.path; all others come from TFDS.
OWN: dict[str, Callable[..., Pictures]] = {"folder": folder.open_split, "array": arrays.open_split}
