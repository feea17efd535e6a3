"""Report on the data set of a config, before training: `score_sde --mode=data`."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from absl.flags import FlagValues

from score_sde import data, images
from score_sde.config import Config
from score_sde.data import records
from score_sde.data.captioned import some_captions
from score_sde.data.decoding import resize
from score_sde.data.loading import MADE, OWN
from score_sde.data.text_cond import TextCond
from score_sde.errors import UsageError, shown
from score_sde.io import atomic_files
from score_sde.training import text
from score_sde.training.run import load_data

SHOWN = 100  # images on the sheet
LARGEST = 128  # longer side of one there
NAMED = 20  # classes
CAPTIONS = 3  # of a split
MEASURED = 10_000  # images whose standard deviation is printed


def run(values: FlagValues) -> None:
    """Prepares the data set if needed, reads both splits as a training does, and says what they are.

    It prints number, shape and size of the images, classes, captions and how many tokens they have, whether images are
    in memory or decoded from disk, digest and licence, and for your own images how the files were read. Where `--out`
    says, it writes a sheet of 100 training images, with captions beneath them. With --distances it also prints the
    largest distance of two.
    """
    if values.distances is not None and (values.distances < 0 or values.distances == 1):
        raise UsageError(f"--distances={values.distances} is a number of images, 2 or more; 0 stands for all.")
    config = values.config
    name = config.data.dataset.lower()
    path = _place(values.out, name) if values.out else None
    train, evaluation = load_data(config, train=True), load_data(config, train=False)
    print(f"{name}: {train.licence or _terms(name, config.data.data_dir, config.data.path)}")
    if line := data.summary(config.data.path or config.data.dataset, train, evaluation):
        print(line)
    of_text = text.of_config(config, train)
    if of_text:
        print(f"text: {text.described(of_text)}")
    for title, source in (("training", train), ("evaluation", evaluation)):
        print("\n".join([*_lines(title, source), *([_lengths(of_text, source)] if of_text else [])]))
    print(_spread(config, train))
    if values.distances is not None:
        print(_extent(config, train, values.distances or None))
    if path is None:
        print(f"--out=FILE.png draws a sheet of {SHOWN} training images")
        return
    indices = data.batch_indices(len(train), min(SHOWN, len(train)), seed=config.seed, step=0)
    pixels = _at_most(train.take(indices).images)
    magnify, captions = images.magnification(pixels), train.captions(indices)
    sheet = images.grid(pixels) if captions is None else images.captioned(pixels, captions)
    scale = magnify if captions is None else 1
    atomic_files.replace(path, lambda file: images.write_png(file, sheet, scale), "--out")
    print(f"{path}: {len(indices)} training images, at random" + ", with their captions" * (captions is not None))


def _lengths(of_text: TextCond, source: data.Source) -> str:
    """Numbers of tokens of captions, and the share of captions that are too long."""
    captions = some_captions(source, text.CHECKED)
    lengths = np.array(of_text.lengths(captions))
    long, part = lengths > of_text.max_tokens, "all" if len(captions) == len(source) else f"{len(captions):,}"
    line = f"  {part} captions: {lengths.min()} to {lengths.max()} tokens, {lengths.mean():.1f} on average; "
    if not long.any():
        return line + f"none has more than text.max_tokens={of_text.max_tokens}"
    example = captions[int(lengths.argmax())]
    return line + f"{long.mean():.1%} have more than text.max_tokens={of_text.max_tokens}, as {example!r:.80}"


def _spread(config: Config, train: data.Source) -> str:
    """The standard deviation of training images, which is EDM's sigma_data."""
    mean, std, images_read = data.spread(train, MEASURED)
    scaling, model_range = _range(config)
    of = "all" if images_read == len(train) else f"{images_read:,} of {len(train):,}"
    return (
        f"standard deviation of the training pixels in {model_range}: {scaling.scale * std:.4f}, mean "
        f"{scaling.scale * mean + scaling.shift:.4f}, of {of} images; EDM's sigma_data, by "
        f"--config.data.sigma_images={len(train)}"
    )


def _range(config: Config) -> tuple[images.Scaling, str]:
    return (images.CENTERED, "[-1, 1]") if config.data.centered else (images.UNIT, "[0, 1]")


def _extent(config: Config, train: data.Source, most: int | None) -> str:
    """The largest distance of two training images, from which `sde.sigma_max` is set."""
    part, (scaling, model_range) = data.part_of(len(train), most), _range(config)
    distance, pair, pairs = data.extent(train.take(part).images, scaling.scale)
    first, second = sorted(int(part[i]) for i in pair)
    of_all = "all" if len(part) == len(train) else f"{len(part):,} of"
    lines = [
        f"largest distance in {model_range}: {distance:.1f}, of images {first} and {second}; "
        f"{pairs:,} pairs of {of_all} {len(train):,} training images",
        f"for VE and EDM: --config.sde.sigma_max={distance:.0f} (Song and Ermon, 2020)",
    ]
    if "sigma_max" in config.sde:
        lines[-1] += f"; this config has {config.sde.sigma_max:g}"
    return "\n".join(lines)


def _place(out: str, name: str) -> Path:
    """The file of the sheet. Raises `UsageError` for one that is no PNG, or cannot be written."""
    path = Path(out)
    if path.is_dir() or out.endswith(os.sep):
        path /= f"{re.sub('[^a-z0-9_.-]+', '_', name)}.png"
    if path.suffix.lower() != ".png":
        raise UsageError(f"--out={out} must end in .png, as the sheet is written, or be a folder.")
    atomic_files.check_place(path, "--out")
    return path


def _terms(name: str, data_dir: str, path: str) -> str:
    """Citation of a data set whose licence is not known, or whose images it holds."""
    if name in MADE:
        return "drawn by this package, without a download"
    if name in OWN:
        return f"your own, {shown(path)}"
    citation = " ".join(records.find(name, data_dir).info.citation.split())
    return citation or "no licence is stated"


def _lines(title: str, source: data.Source) -> Iterator[str]:
    shape = source.take(np.arange(1)).images.shape[1:]
    size = len(source) * int(np.prod(shape)) / 2**20
    yield f"{title}: {len(source):,} images, {'x'.join(map(str, shape))}, {size:,.1f} MiB of pixels, {source.stored}"
    yield f"  digest {source.digest()}"
    if captions := source.captions(np.arange(min(CAPTIONS, len(source)))):
        yield "  captions: " + "; ".join(captions) + "; ..."
    if source.labels is None:
        yield "  no classes"
        return
    classes, counts = np.unique(source.labels, return_counts=True)
    spread = f"{counts.min():,}" if counts.min() == counts.max() else f"{counts.min():,} to {counts.max():,}"
    yield f"  {len(classes)} classes of {spread} images"
    if len(classes) <= NAMED:
        names = [source.class_names[label] if source.class_names else str(label) for label in classes]
        yield "  " + ", ".join(f"{name} {count:,}" for name, count in zip(names, counts, strict=True))


def _at_most(pixels: np.ndarray) -> np.ndarray:
    longer = max(pixels.shape[1:3])
    if longer <= LARGEST:
        return pixels
    size = tuple(max(1, round(side * LARGEST / longer)) for side in pixels.shape[1:3])
    return np.stack([resize(image, size) for image in pixels])
