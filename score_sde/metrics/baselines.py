"""Baselines: the figures of noise, and of held-out images of the data set, beside which those of samples stand."""

import contextlib
import functools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np

from score_sde import data, images
from score_sde.array_types import ImageShape, Pixels
from score_sde.config.arguments import check_arguments
from score_sde.io import atomic_files
from score_sde.io.result_cache import Arrays
from score_sde.metrics.distances import PAIRED
from score_sde.metrics.features import Features
from score_sde.metrics.figures import measure
from score_sde.metrics.frechet import Frechet, Moments
from score_sde.metrics.reference import Statistics
from score_sde.runtime.progress import bar

HELD_OUT = "held-out images"
HALF = "half of the images, by the other half"
NOISES: dict[str, Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]] = {  # in [0, 1], once clipped
    "uniform noise": lambda rng, shape: rng.random(shape),
    "Gaussian noise": lambda rng, shape: 0.5 + 0.5 * rng.normal(size=shape),  # standard normal in [-1, 1]
}
PARTS = ("mean", "covariance")
FRECHET = ("fid", "frechet_distance")  # their names among the figures


class Baselines(NamedTuple):
    """Figures of several kinds of noise and of held-out images.

    rows: by name, the number of "images" and their figures. noises: mean and covariance of each noise's features.
    """

    rows: dict[str, dict[str, Any]]
    noises: dict[str, tuple[np.ndarray, np.ndarray]]

    def save(self, path: Path, about: Mapping[str, Any], flag: str) -> None:
        """Keeps them in a file. about: everything they depend on.

        flag: the flag, for messages, that chooses another path.
        """
        moments = {
            f"{part} of {name}": x for name, of in self.noises.items() for part, x in zip(PARTS, of, strict=True)
        }
        text = json.dumps({"about": about, "rows": self.rows})
        atomic_files.replace(path, lambda file: np.savez(file, text=text, **moments), flag)

    def warning(self, samples: np.ndarray, reference: Statistics) -> str | None:
        """A warning if the samples are closer to a noise than to the data, or no closer to the data than noise is.

        Closeness is by the Frechet distance of features. None if there is nothing to warn of.
        """
        if len(samples) < 2:
            return None
        to_data = Frechet(reference.mean, reference.covariance).value(samples)
        for name, noise in self.noises.items():
            to_noise = Frechet(*noise).value(samples)
            of_noise = next(of["mean"] for key, of in self.rows[name].items() if key.split("[")[0] in FRECHET)
            if to_data >= min(to_noise, of_noise):
                return (
                    f"The samples are closer to {name} than to the data: their distance from the data is "
                    f"{to_data:.4g} and from the noise {to_noise:.4g}, where the noise's own from the data is "
                    f"{of_noise:.4g}. Look at them before their other figures."
                )
        return None


@check_arguments
def load_baselines(path: Path, about: Mapping[str, Any]) -> Baselines | None:
    """The baselines that `save` has kept with the same `about`; None without any, or if the file is damaged."""
    arrays = atomic_files.read_arrays(path)
    content = {}
    with contextlib.suppress(ValueError):
        content = json.loads(str(arrays["text"])) if arrays and "text" in arrays else {}
    if not isinstance(content, dict) or content.get("about") != dict(about):
        return None
    return Baselines(content["rows"], {name: tuple(arrays[f"{part} of {name}"] for part in PARTS) for name in NOISES})


@check_arguments
def baselines_of(
    n: Annotated[int, "[1, inf)"],
    image_shape: ImageShape,
    held_out: data.Source | None,
    of: Features,
    reference: Statistics,
    inception_splits: Annotated[int, "[1, inf)"] = 1,
) -> Baselines:
    """Figures of n images, or of as many as there are, measured like n samples.

    Noise is at most 10,000 images: more would move none of its significant digits. held_out: images without a part in
    the reference; None if there are none. Then one half of the reference's images is measured by the other half.
    """
    figures = functools.partial(_row, of, inception_splits)
    rows, noises, n = {}, {}, max(n, 2)  # a single image has no covariance
    for name in NOISES:
        arrays = _features(name, of, min(n, PAIRED), lambda numbers, name=name: noise(name, numbers, image_shape))
        rows[name] = figures(arrays, reference)
        noises[name] = _moments(arrays["features"])
    if held_out is not None and len(held_out) > 1:
        chosen = np.sort(np.random.default_rng(0).permutation(len(held_out))[:n])  # they may be sorted by class
        arrays = _features(HELD_OUT, of, len(chosen), lambda numbers: held_out.take(chosen[numbers]).images)
        rows[HELD_OUT] = figures(arrays, reference)
    elif reference.features is not None and len(reference.features) >= 4:
        first, second = np.array_split(np.random.default_rng(0).permutation(reference.features), 2)
        half = Statistics(len(first), *_moments(first), first, reference.about)
        rows[HALF] = figures({"features": second[:n]}, half)
    return Baselines(rows, noises)


def noise(name: str, numbers: np.ndarray, image_shape: tuple[int, ...]) -> Pixels:
    """Images of this noise; each is a function of its number."""
    drawn = [NOISES[name](np.random.default_rng([list(NOISES).index(name), i]), image_shape) for i in numbers]
    return images.to_pixels(np.stack(drawn))


def _features(name: str, of: Features, n: int, take: Callable[[np.ndarray], Pixels]) -> Arrays:
    parts = []
    with bar(f"features of {name}", n, "img") as progress:
        for numbers, valid in data.padded_chunks(n, of.batch_size):
            parts.append(of.of(take(numbers[:valid])))
            progress.update(valid)
    return {key: np.concatenate([part[key] for part in parts]) for key in of.arrays}


def _row(of: Features, inception_splits: int, arrays: Arrays, reference: Statistics) -> dict[str, Any]:
    return {"images": len(arrays["features"]), **measure(of.name, arrays, reference, inception_splits)}


def _moments(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of features."""
    origin = features.mean(axis=0, dtype=np.float64)
    moments = Moments.of(features, origin)
    return moments.mean + origin, moments.covariance
