"""Draws what the audit looks at, in rounds that are kept: samples under conditions of training images, and losses.

Sample i is asked for with the condition of training image `scattered(n, i)`, if the network takes conditions, so that
the conditions have the frequencies of the data. Its noise depends on the seed and on i alone, at every scale.
"""

import functools
from pathlib import Path

import jax
import numpy as np
from score_sde.experiments.audit.subject import Subject

from score_sde import data, images
from score_sde.array_types import Key, Pixels
from score_sde.cond import Cond, restricted
from score_sde.evaluation import identities
from score_sde.io.result_cache import Arrays, Rounds
from score_sde.randomness import Stream, sample_keys, stream
from score_sde.runtime.progress import bar
from score_sde.runtime.sharding import pad_to_devices

SEED = 2000  # of draws, added to the training's


def root(of: Subject, use: Stream) -> Key:
    """The key of all draws of one use."""
    return stream(jax.random.key(SEED + of.model.config.seed), use)


def identity(of: Subject) -> dict[str, object]:
    """The cache key that all figures of a subject share: checkpoint, data, features."""
    return identities.of_model(of.model) | {"data": of.digests, "features": of.features.digest}


def samples(of: Subject, out: Path, n: int, scale: float | None = None) -> Arrays:
    """n samples: "pixels", uint8 (n, h, w, c), and "asked", the indices of the training images of their conditions.

    scale: of guidance, in place of the config's.
    """
    model = of.model
    size = pad_to_devices(min(n, model.config.eval.batch_size))
    options = {} if scale is None else {"scale": scale}
    of_samples = identity(of) | identities.of_samples(model, 0) | options | {"at_once": size}
    stem = "samples" if scale is None else f"scale_{scale:g}"
    rounds = Rounds(out, stem, of_samples, ("pixels", "asked"))
    parts = []
    with bar(f"sampling{'' if scale is None else f' at scale {scale:g}'}", n, "img") as progress:
        for start in range(0, n, size):
            numbers = np.arange(start, start + size)
            parts.append(rounds(f"{start:06d}", functools.partial(_drawn, of, numbers, options)))
            progress.update(min(size, n - start))
    return {name: np.concatenate([part[name] for part in parts])[:n] for name in parts[0]}


def _drawn(of: Subject, numbers: np.ndarray, options: dict[str, float]) -> Arrays:
    asked = data.scattered(len(of.train.images), numbers)
    drawn = of.model.draw(sample_keys(root(of, Stream.SAMPLE), numbers), cond=condition(of, asked), **options)
    return {"pixels": images.to_pixels(drawn.images), "asked": asked}


def condition(of: Subject, indices: np.ndarray) -> Cond | None:
    """The condition of the training images at these indices, as the network takes it."""
    entries = of.model.experiment.cond_entries
    cond = restricted(of.train.cond, entries)
    return None if cond is None else jax.tree.map(lambda rows: rows[indices], cond)


def features(of: Subject, pixels: Pixels) -> np.ndarray:
    """Features (n, d) of images."""
    return of.features.of(pixels)["features"]
