"""Reference statistics of a data set's features, to which samples are compared; computed once and kept."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from score_sde import data
from score_sde.errors import UsageError
from score_sde.io import atomic_files
from score_sde.metrics.distances import PAIRED, Moments
from score_sde.metrics.features import Features
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


def statistics_of(source: data.Source, features: Features, about: Mapping[str, Any]) -> Statistics:
    """Statistics of every image of a source."""
    n, size = len(source), features.batch_size
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
    if n < 2:
        raise UsageError("Statistics of one image: a distance needs at least two images of the data set.")
    return Statistics(n, moments.mean + origin, moments.covariance, np.concatenate(some), dict(about))


def load_statistics(path: Path) -> Statistics:
    """Statistics from a file: ours, `mu` and `sigma` (pytorch-fid, EDM), or `pool_3` (the paper's features).

    Raises `UsageError` for any other file.
    """
    if not Path(path).is_file():
        raise UsageError(f"No file {path} of statistics; compute them: score_sde --mode=statistics.")
    arrays = atomic_files.read_arrays(Path(path))
    if arrays is None:
        raise UsageError(f"Cannot read the statistics {path}: it is no whole .npz file; compute them again.")
    if {"mean", "covariance", "n", "about"} <= arrays.keys():
        about = json.loads(str(arrays["about"]))
        return Statistics(int(arrays["n"]), arrays["mean"], arrays["covariance"], arrays.get("features"), about)
    about = {"file": Path(path).name}
    if {"mu", "sigma"} <= arrays.keys():
        mean, covariance = (arrays[key].astype(np.float64) for key in ("mu", "sigma"))
        return Statistics(0, mean, covariance, None, about)
    if "pool_3" in arrays:
        features = arrays["pool_3"].reshape(len(arrays["pool_3"]), -1)
        moments = Moments.of(features, np.zeros(features.shape[1]))
        some = features[np.random.default_rng(0).permutation(len(features))[:PAIRED]]
        return Statistics(len(features), moments.mean, moments.covariance, some.astype(np.float32), about)
    raise UsageError(f"{path} holds {', '.join(arrays)}: no statistics, which are mu and sigma, or pool_3, or ours.")
