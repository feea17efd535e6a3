"""Calls, with arguments that do not fit, of all public functions that are neither mathematics nor models.

A public function is a name of a room's `__all__`, a public function or class of the modules in `MODULES`, or a method
that users call. Each has valid arguments in `CALLS`, which the fuzz changes, or a reason in `EXCEPTIONS`.
"""

import functools
import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fuzzing import quick, survives
from hypothesis import given, strategies

from score_sde import config, data, metrics
from score_sde.metrics import distances, frechet, kernels

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (6, 8, 8, 1), np.uint8)
SOURCE = data.InMemory(IMAGES, labels=np.arange(6) % 2)
F1, F2 = RNG.normal(size=(40, 3)), RNG.normal(size=(30, 3))
MEAN, COVARIANCE = F1.mean(axis=0), np.cov(F1, rowvar=False)
STATISTICS = metrics.Statistics(40, MEAN, COVARIANCE, F1, {"split": "train"})


class Pixels:
    """Features of a user's own: the first three pixels."""

    dimension = 3

    def init(self, image_shape):
        return np.float32(1)

    def __call__(self, params, pixels):
        return params * pixels.reshape(len(pixels), -1)[:, :3]


@functools.cache
def folder() -> Path:
    """A folder with an array of images, features and baselines."""
    import tempfile

    path = Path(tempfile.mkdtemp())
    np.save(path / "images.npy", IMAGES)
    np.savez(path / "features.npz", features=F1.astype(np.float32), logits=F1)
    return path


@functools.cache
def own() -> metrics.Features:
    return metrics.own_features(Pixels(), "0", (8, 8, 1), 4)


# name -> (function, its valid arguments), made when it is called.
CALLS: dict[str, Callable[[], tuple[Callable, dict[str, Any]]]] = {
    "metrics.at_the_ends": lambda: (metrics.at_the_ends, dict(pixels=IMAGES)),
    "metrics.baselines_of": lambda: (
        metrics.baselines_of,
        dict(n=4, image_shape=(8, 8, 1), held_out=SOURCE, of=own(), reference=STATISTICS, inception_splits=1),
    ),
    "metrics.check_comparable": lambda: (metrics.check_comparable, dict(first={"a": 1}, second={"a": 1})),
    "metrics.compared": lambda: (
        metrics.compared,
        dict(samples=np.array([0.5, 0.1]), data=np.array([0.2]), remedy="train longer"),
    ),
    "metrics.fingerprint": lambda: (metrics.fingerprint, dict(protocol={"a": 1})),
    "metrics.inception_features": lambda: (
        metrics.inception_features,
        dict(weights=str(folder() / "none.pth"), folder=folder(), batch_size=2),
    ),
    "metrics.load_baselines": lambda: (metrics.load_baselines, dict(path=folder() / "none.npz", about={"a": 1})),
    "metrics.load_features": lambda: (metrics.load_features, dict(path=folder() / "features.npz")),
    "metrics.load_statistics": lambda: (metrics.load_statistics, dict(path=folder() / "features.npz")),
    "metrics.measure": lambda: (
        metrics.measure,
        dict(features_name="mine", arrays={"features": F1}, reference=STATISTICS, inception_splits=1),
    ),
    "metrics.own_features": lambda: (
        metrics.own_features,
        dict(network=Pixels(), code="0", image_shape=(8, 8, 1), batch_size=2),
    ),
    "metrics.statistics_of": lambda: (
        metrics.statistics_of,
        dict(source=SOURCE, features=own(), about={"split": "train"}),
    ),
    "metrics.trained_features": lambda: (
        metrics.trained_features,
        dict(source=SOURCE, options=metrics.Options(4, 4, 1, 2), folder=folder() / "trained", batch_size=2),
    ),
    "metrics.Features.of": lambda: (own().of, dict(pixels=IMAGES)),
    "metrics.distances.inception_score": lambda: (distances.inception_score, dict(logits=F1, splits=2)),
    "metrics.distances.precision_recall": lambda: (distances.precision_recall, dict(features=F1, reference=F2)),
    "metrics.kernels.cmmd": lambda: (kernels.cmmd, dict(features1=F1, features2=F2)),
    "metrics.kernels.kernel_distance": lambda: (kernels.kernel_distance, dict(features1=F1, features2=F2)),
    "metrics.frechet.Frechet": lambda: (frechet.Frechet, dict(mean=MEAN, covariance=COVARIANCE)),
    "metrics.frechet.Frechet.__call__": lambda: (frechet.Frechet(MEAN, COVARIANCE), dict(features=F1)),
    "metrics.frechet.Frechet.value": lambda: (frechet.Frechet(MEAN, COVARIANCE).value, dict(features=F1)),
    "metrics.frechet.Frechet.of_infinitely_many": lambda: (
        frechet.Frechet(MEAN, COVARIANCE).of_infinitely_many,
        dict(features=F1),
    ),
    "metrics.frechet.frechet_distance": lambda: (
        frechet.frechet_distance,
        dict(mean1=MEAN, cov1=COVARIANCE, mean2=MEAN, cov2=COVARIANCE),
    ),
    "data.InMemory": lambda: (data.InMemory, dict(images=IMAGES, labels=np.arange(6), attributes=np.zeros((6, 2)))),
    "data.InMemory.take": lambda: (SOURCE.take, dict(indices=np.array([0, 3]))),
    "data.batch_fn": lambda: (
        lambda **options: data.batch_fn(**options)(0),
        dict(source=SOURCE, batch_size=2, seed=0, entries={}),
    ),
    "data.batch_indices": lambda: (data.batch_indices, dict(n=6, batch_size=4, seed=0, step=3)),
    "data.batches": lambda: (data.batches, dict(source=SOURCE, batch_size=2, seed=0, start_step=1)),
    "data.dataset": lambda: (data.dataset, dict(name="digits", data_dir=str(folder()))),
    "data.extent": lambda: (data.extent, dict(pixels=IMAGES, width=2.0)),
    "data.load": lambda: (
        data.load,
        dict(
            name="array",
            path=str(folder() / "images.npy"),
            train=True,
            image_size=8,
            num_channels=1,
            image_width=None,
            held_out=0.5,
            in_memory_gib=1.0,
            num_workers=1,
            corrupt="refuse",
            convert=False,
            labels="auto",
            array_range=None,
        ),
    ),
    "data.on_devices": lambda: (data.on_devices, dict(source=SOURCE, indices=np.array([0, 3]), entries={})),
    "data.padded_chunks": lambda: (data.padded_chunks, dict(n=6, size=4)),
    "data.part_of": lambda: (data.part_of, dict(n=6, most=4)),
    "data.prefetched": lambda: (data.prefetched, dict(batch=lambda step: (step,), steps=range(3))),
    "data.summary": lambda: (data.summary, dict(name="array", train=SOURCE, evaluation=SOURCE)),
}
ROOMS = {"data": data, "metrics": metrics, "config": config}
EXCEPTIONS: dict[str, str] = {}


def test_every_public_name_is_called_or_has_a_reason():
    public = {
        f"{room}.{name}" for room, module in ROOMS.items() for name in module.__all__ if callable(getattr(module, name))
    }
    assert public - CALLS.keys() == EXCEPTIONS.keys()


@pytest.mark.parametrize("name", CALLS)
@quick
@given(strategies.data())
def test_arguments_that_do_not_fit_are_named(name, data):
    function, valid = CALLS[name]()
    survives(function, valid, data, 8)
