"""Figures of images of which it is known what they are, by features trained on a data set."""

import argparse
import sys
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from score_sde import data, metrics
from score_sde.array_types import Pixels
from score_sde.errors import UsageError
from score_sde.metrics.baselines import NOISES, noise


class Row(NamedTuple):
    name: str
    distance: float
    precision: float
    recall: float


def run(options: argparse.Namespace) -> int:
    """Prints a row for each kind of images."""
    of = {"image_size": options.image_size, "num_channels": options.num_channels, "data_dir": options.data_dir}
    try:
        train, held_out = (data.load(options.dataset, train=train, **of) for train in (True, False))
        others = {}
        if options.other:
            others[options.other] = data.load(options.other, train=False, convert=True, archives=options.archives, **of)
    except UsageError as error:
        print(f"features: {error}", file=sys.stderr)
        return 2
    source = data.InMemory(train.take(np.arange(len(train))).images) if options.turns else train
    features = metrics.trained_features(source, metrics.Options(n_iters=options.n_iters), options.dir, 256)
    reference = metrics.statistics_of(source, features, {})
    some = {name: each.take(np.arange(min(options.images, len(each)))).images for name, each in others.items()}
    images = held_out.take(np.arange(min(options.images, len(held_out)))).images
    print(f"| {len(images)} images against {reference.n}, {features.name} | distance | precision | recall |")
    print("|---|---|---|---|")
    for row in rows(features, reference, images, some):
        print(f"| {row.name} | {row.distance:.4g} | {row.precision:.3f} | {row.recall:.3f} |", flush=True)
    return 0


def rows(
    features: metrics.Features, reference: metrics.Statistics, held_out: Pixels, others: dict[str, Pixels]
) -> Iterator[Row]:
    """Rows of held-out images as they are, of these spoilt, of noise and of other data."""
    for name, pixels in {**kinds(held_out), **others}.items():
        measured = metrics.measure(features.name, features.of(pixels), reference)
        means = {key.split("[")[0]: figure["mean"] for key, figure in measured.items()}
        yield Row(name, means["frechet_distance"], means["precision"], means["recall"])


def kinds(held_out: Pixels) -> dict[str, Pixels]:
    """Images, and what is made of them. Blur is by another filter than that of the features' training."""
    rng, (n, height, *_), x = np.random.default_rng(0), held_out.shape, held_out.astype(np.float64)

    def pixels(x: np.ndarray) -> Pixels:
        return np.clip(x, 0, 255).astype(np.uint8)

    def blurred(part: int) -> Pixels:
        return pixels(ndimage.gaussian_filter(x, (0, height / part, height / part, 0), mode="nearest"))

    flat = held_out.reshape(n, -1, held_out.shape[-1])
    shuffled = np.take_along_axis(flat, rng.permuted(np.indices(flat.shape[:2])[1], axis=1)[:, :, None], axis=1)
    colours = rng.integers(0, 256, (n, 1, 1, held_out.shape[-1]))
    return {
        "held-out images": held_out,
        **{name: noise(name, np.arange(n), held_out.shape[1:]) for name in NOISES},
        **{f"noise of {levels} levels added": pixels(x + rng.normal(0, levels, x.shape)) for levels in (10, 26, 64)},
        **{f"blurred by 1/{part} of the side": blurred(part) for part in (32, 16, 8)},
        "pixels shuffled": shuffled.reshape(held_out.shape),
        "one colour": np.broadcast_to(colours, held_out.shape).astype(np.uint8),
        "half another image": pixels((x + np.roll(x, 1, axis=0)) / 2),
    }
