"""Reference statistics of a data set's features, to which samples are compared; computed once and kept."""

import contextlib
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from score_sde import data
from score_sde.config.arguments import check_arguments
from score_sde.errors import UsageError
from score_sde.io import atomic_files
from score_sde.io.result_cache import Arrays
from score_sde.metrics.distances import PAIRED
from score_sde.metrics.features import Features
from score_sde.metrics.frechet import Moments
from score_sde.runtime.progress import bar


class Statistics(NamedTuple):
    """Statistics of the features of n images.

    features: (m, d), those of a random part of at most 10,000 images; None if only moments are known.
    about: data set, split, features and their digests, as far as they are known.
    """

    n: int
    mean: np.ndarray  # (d,) float64
    covariance: np.ndarray  # (d, d) float64
    features: np.ndarray | None
    about: dict[str, Any]

    @property
    def digest(self) -> str:
        """A digest of the moments, 16 hexadecimal digits."""
        hashed = hashlib.sha256(np.int64(self.n).tobytes())
        for array in (self.mean, self.covariance):
            hashed.update(np.ascontiguousarray(array).tobytes())
        return hashed.hexdigest()[:16]

    def save(self, path: Path, flag: str) -> None:
        """Writes the statistics to a file. flag: the flag, for messages, that chooses another path."""
        arrays = {"n": self.n, "mean": self.mean, "covariance": self.covariance, "about": json.dumps(self.about)}
        some = {} if self.features is None else {"features": self.features}
        atomic_files.replace(path, lambda file: np.savez(file, **arrays, **some), flag)


@check_arguments
def statistics_of(source: data.Source, features: Features, about: Mapping[str, Any]) -> Statistics:
    """Statistics of every image of a source."""
    n, size = len(source), features.batch_size
    if n < 2:
        raise UsageError(f"Statistics of {n} images: a distance needs at least two images of the data set.")
    chosen = np.zeros(n, bool)
    chosen[np.random.default_rng(0).permutation(n)[:PAIRED]] = True
    moments, origin, some = None, None, []
    with bar(f"statistics ({features.name})", n, "img") as progress:
        for indices, valid in data.padded_chunks(n, size):
            indices = indices[:valid]
            of_batch = features.of(source.take(indices).images)["features"]
            origin = of_batch.mean(axis=0, dtype=np.float64) if origin is None else origin
            part = Moments.of(of_batch, origin)
            moments = part if moments is None else moments.plus(part)
            some.append(of_batch[chosen[indices]])
            progress.update(valid)
    return Statistics(n, moments.mean + origin, moments.covariance, np.concatenate(some), dict(about))


@check_arguments
def load_features(path: Path) -> Arrays:
    """Features (n, d) that were computed anywhere, to be measured: from an .npz file with `features`, or an .npy file.

    The paper's `pool_3` are features too, and `logits` beside them give an Inception score. Raises `UsageError` for any
    other file, fewer than two images, and numbers that are not finite.

        from pathlib import Path

        import numpy as np
        from score_sde import metrics

        np.save("samples.npy", np.random.default_rng(0).normal(size=(50, 8)))
        np.save("data.npy", np.random.default_rng(1).normal(size=(80, 8)))
        reference = metrics.load_statistics(Path("data.npy"))
        figures = metrics.measure("my_features", metrics.load_features(Path("samples.npy")), reference)
    """
    arrays = _arrays(path, "features")
    features = _features(path, arrays)
    if features is None:
        raise UsageError(f"{path} holds {', '.join(arrays)}: no features, which are an array (n, d) named features.")
    logits = {"logits": arrays["logits"]} if "logits" in arrays else {}
    return {"features": features, **logits}


@check_arguments
def load_statistics(path: Path) -> Statistics:
    """Statistics from a file: ours, `mu` and `sigma` (pytorch-fid, EDM), or those of features as in `load_features`.

    Raises `UsageError` for any other file.
    """
    arrays = _arrays(path, "statistics")
    if {"mean", "covariance", "n", "about"} <= arrays.keys():
        try:
            about = json.loads(str(arrays["about"]))
            n, features = int(arrays["n"]), arrays.get("features")
        except (TypeError, ValueError) as error:
            raise UsageError(f"Cannot read the statistics {path} ({error}); compute them again.") from error
        if not isinstance(about, dict):
            raise UsageError(f"Cannot read the statistics {path}: `about` is no object; compute them again.")
        return Statistics(n, *_moments(path, arrays, "mean", "covariance"), features, about)
    about = {"file": path.name}
    if {"mu", "sigma"} <= arrays.keys():
        return Statistics(0, *_moments(path, arrays, "mu", "sigma"), None, about)
    features = _features(path, arrays)
    if features is None:
        raise UsageError(
            f"{path} holds {', '.join(arrays)}: no statistics, which are mu and sigma, or features, or pool_3, or ours."
        )
    moments = Moments.of(features, np.zeros(features.shape[1]))
    some = features[np.random.default_rng(0).permutation(len(features))[:PAIRED]]
    return Statistics(len(features), moments.mean, moments.covariance, some, about)


def _arrays(path: Path, kind: str) -> Arrays:
    """The arrays of a file; one alone is called "features"."""
    if not path.is_file():
        advice = "; compute them: score_sde --mode=statistics" if kind == "statistics" else ""
        raise UsageError(f"No file {path} of {kind}{advice}.")
    if path.suffix == ".npy":
        with contextlib.suppress(OSError, ValueError):
            return {"features": np.load(path, allow_pickle=False)}
    elif (arrays := atomic_files.read_arrays(path)) is not None:
        return arrays
    raise UsageError(f"Cannot read the {kind} {path}: it is no whole .npz or .npy file; compute them again.")


def _moments(path: Path, arrays: Arrays, *names: str) -> list[np.ndarray]:
    """Mean (d,) and covariance (d, d) among the arrays, float64. Raises `UsageError` for others."""
    mean, covariance = (arrays[name] for name in names)
    fit = mean.ndim == 1 and mean.size and covariance.shape == 2 * mean.shape
    if not fit or not all(each.dtype.kind in "fiu" and np.isfinite(each).all() for each in (mean, covariance)):
        raise UsageError(
            f"{path} holds {' and '.join(names)} of shapes {mean.shape} and {covariance.shape}; they are finite, and "
            "of shapes (d,) and (d, d); compute them again."
        )
    return [mean.astype(np.float64), covariance.astype(np.float64)]


def _features(path: Path, arrays: Arrays) -> np.ndarray | None:
    """The features among the arrays, float32 (n, d); None if there are none."""
    features = arrays.get("features", arrays.get("pool_3"))
    if features is None:
        return None
    features = features.reshape(len(features), -1) if features.ndim > 1 and features.size else features
    if features.ndim != 2 or not features.size or len(features) < 2 or not np.issubdtype(features.dtype, np.floating):
        raise UsageError(
            f"{path} holds features of shape {features.shape} and type {features.dtype}; they are floating-point "
            "numbers (n, d) of at least two images."
        )
    if not np.isfinite(features).all():
        raise UsageError(f"{path} holds features that are not finite; compute them again.")
    return features.astype(np.float32)
