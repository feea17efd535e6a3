"""Makes the pictures of README and site, from trained runs and from closed forms."""

import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from score_sde.experiments.gallery import drawing, memoriser, plots, samples
from score_sde.experiments.gallery.card import png
from score_sde.experiments.gallery.config import CHANGES, get_digits

from score_sde import data, images
from score_sde.errors import UsageError, one_of
from score_sde.io import atomic_files
from score_sde.training.run import train

LARGEST = 300_000  # bytes of a file, so that clones and pages stay small
INDEX = 14  # the sample whose way out of noise is shown


class Runs(NamedTuple):
    """The workdirs that pictures are made of: of colour images, of digits with classes, of a folder of pictures.

    screenshots: the folder of a browser's pictures of pages.
    """

    workdir: Path
    digits: Path
    own: Path
    screenshots: Path


def make(runs: Runs, out: Path, only: Collection[str] = ()) -> int:
    """Writes the pictures, or those named in `only`, into the folder `out`; 2 if one of them cannot be made."""
    try:
        for name in only:
            one_of("picture in --only", name, PICTURES)
        for name, (suffix, picture) in PICTURES.items():
            if not only or name in only:
                write(out / f"{name}.{suffix}", picture(runs))
    except UsageError as error:
        print(f"gallery: {error}", file=sys.stderr)
        return 2
    return 0


def write(path: Path, content: bytes) -> None:
    """Writes a file of at most `LARGEST` bytes. Raises `UsageError` for a larger one."""
    if len(content) > LARGEST:
        raise UsageError(f"{path} would have {len(content):,} bytes, and {LARGEST:,} are the most; show less in it.")
    atomic_files.replace(path, lambda file: file.write(content), "--out")
    print(f"{path}: {len(content):,} bytes")


def _samples(runs: Runs) -> bytes:
    return png(samples.samples(*samples.load(runs.workdir), rows=6, columns=16, magnify=6).picture())


def _trajectory(runs: Runs) -> bytes:
    return png(samples.trajectory(samples.load(runs.workdir)[0], INDEX).picture())


def _posterior(runs: Runs) -> bytes:
    return png(samples.posterior(*samples.load(runs.workdir)).picture())


def _digits(runs: Runs) -> bytes:
    """The picture of classes; trains the digits first, or goes on with that, where this is not done."""
    config = get_digits()
    config.data.data_dir = str(runs.digits.parent / "tensorflow_datasets")
    train(config, runs.digits, overrides=CHANGES)
    return png(samples.classes(samples.load(runs.digits)[0]).picture())


def _own(runs: Runs) -> bytes:
    model, pictures = samples.load(runs.own)
    magnify = max(1, 112 // model.image_shape[0])
    card = samples.samples(model, pictures, rows=4, columns=12, magnify=magnify, beside="Held-out pictures")
    return png(card.picture())


def _scenes() -> bytes:
    source = data.load("scenes", train=True, image_size=32, num_channels=3)
    sheet = images.grid(source.take(np.arange(40)).images, columns=10)
    return png(Image.fromarray(sheet.repeat(2, axis=0).repeat(2, axis=1)))


def _screenshot(runs: Runs, name: str) -> bytes:
    """A browser's picture of a page with fewer colours. Raises `UsageError` where there is none."""
    path = runs.screenshots / f"{name}.png"
    if not path.is_file():
        raise UsageError(f"No screenshot {path}; make it by the commands in experiments/gallery/README.md.")
    return png(Image.open(path).convert("RGB"), colours=256)


PICTURES: dict[str, tuple[str, Callable[[Runs], bytes]]] = {
    "samples": ("png", _samples),
    "trajectory": ("png", _trajectory),
    "posterior": ("png", _posterior),
    "digits_classes": ("png", _digits),
    "own_folder": ("png", _own),
    "scenes": ("png", lambda _: _scenes()),
    "orders": ("png", lambda _: png(plots.orders(), colours=128)),
    "mixture": ("png", lambda _: png(plots.mixture(), colours=128)),
    "memoriser": ("png", lambda _: png(memoriser.memoriser(*memoriser.digits()).picture())),
    "architecture": ("svg", lambda _: drawing.architecture().encode()),
    "report": ("png", lambda runs: _screenshot(runs, "report")),
    "compare": ("png", lambda runs: _screenshot(runs, "compare")),
    "transformers": ("png", lambda runs: _screenshot(runs, "transformers")),
    "text": ("png", lambda runs: _screenshot(runs, "text")),
    "audit": ("png", lambda runs: _screenshot(runs, "audit")),
}
