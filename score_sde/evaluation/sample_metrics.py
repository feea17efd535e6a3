"""Measurement of a config's samples: features of images, and their statistics over the config's data set."""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from score_sde import data, metrics
from score_sde.array_types import Float, Pixels
from score_sde.conditioning.grammar import ALL, chosen_class, chosen_split, parts
from score_sde.config import Config, protocols
from score_sde.config.import_paths import choose, is_import_path, lowered, source_digest
from score_sde.errors import UsageError, one_of, warn
from score_sde.io import workdir
from score_sde.io.result_cache import Arrays
from score_sde.metrics import ends
from score_sde.runtime.backend import cache_folder, expanded
from score_sde.runtime.sharding import all_agree
from score_sde.training.pieces import piece_arguments
from score_sde.training.run import load_data
from score_sde.training.sampler_options import clip_of
from score_sde.training.trainable import shape_of

Load = Callable[[bool], data.Source]  # the training split, or the one for evaluation


class Measure(NamedTuple):
    """Metrics of samples.

    baselines: figures of noise and of held-out images for a number of samples, computed now or by an earlier call.
    inception_splits: parts over which the Inception score is averaged.
    """

    features: metrics.Features
    statistics: metrics.Statistics
    baselines: Callable[[int], metrics.Baselines]
    inception_splits: int = 1

    def __call__(self, arrays: Arrays, protocol: Mapping[str, Any]) -> dict[str, Any]:
        """The metrics of features and logits.

        protocol: everything that they depend on besides features and statistics, which are added here.
        """
        of = self.statistics.about
        of_all = dict(protocol) | {
            "features": self.features.name,
            "weights": self.features.digest,
            "statistics": self.statistics.digest,
            "statistics_of": {key: of.get(key) for key in ("data_set", "split", "file")}
            | {key: of[key] for key in ("train_images",) if key in of},
            "pixels": "clipped, times 255, rounded down to uint8",
        }
        figures = metrics.measure(self.features.name, arrays, self.statistics, self.inception_splits)
        baselines = self.baselines(len(arrays["features"]))
        warning = baselines.warning(arrays["features"], self.statistics)
        figures |= {"fingerprint": metrics.fingerprint(of_all), "protocol": of_all, "baselines": baselines.rows}
        return figures | ({"warning": warning} if warning else {})


def measure(config: Config) -> Measure | None:
    """The measure of config.metrics; None if it names no features. Raises `UsageError` if an input is not available."""
    if config.metrics.features == "none":
        return None
    load = functools.cache(lambda train: load_data(config, train=train))  # both may need the same split
    of = _features(config, load)
    statistics = _statistics(config, of, load)
    baselines = functools.cache(lambda n: _baselines(config, n, of, statistics, load))
    return Measure(of, statistics, baselines, config.metrics.inception_splits)


def ends_of_data(config: Config) -> Float[np.ndarray, " n"] | None:
    """Shares of `metrics.at_the_ends` for evaluation images; None where there are no `real_images`."""
    pixels = real_images(config, ends.IMAGES)
    return None if pixels is None else metrics.at_the_ends(pixels)


def real_images(config: Config, n: int) -> Pixels | None:
    """Images of the evaluation split, `n` at most and evenly spread; None if they are not available.

    They are decoded now, and nothing else is. Samples of one class or of captions have none, as these images may not
    show it; samples with captions of the split have the images of these captions.

        from score_sde.configs.vp.digits_ddpmpp_continuous import get_config
        from score_sde.evaluation.sample_metrics import real_images

        pixels = real_images(get_config(), 16)  # uint8 (16, 8, 8, 1), the same ones at every call
    """
    condition = config.sampling.condition
    named, split = parts(condition), chosen_split(condition)
    if chosen_class(condition) not in (None, ALL) or "text" in named or ("texts" in named and split != "test"):
        return None
    options = config.data.to_dict() | {"in_memory_gib": 0.0}  # only these are decoded
    try:
        source = load_data(Config({"data": options}), train=False)
        n = min(len(source), n)
        of_captions = data.scattered(len(source), np.arange(n))
        return source.take(of_captions if split else np.arange(n) * len(source) // n).images
    except UsageError:
        return None


def remedy(sampling: Any) -> str:
    """Advice for samples of a barely trained network, without what config.sampling does already."""
    method = lowered(sampling.method)
    clips = clip_of(sampling, method) == "none"
    draws = method in ("adaptive", "dpmpp_2m_sde", "edm_stochastic") or (method == "ddim" and sampling.eta > 0)
    draws |= method == "pc" and not (sampling.probability_flow or sampling.diffusion == 0)
    ways = ["set sampling.clip=range"] * clips + ["sample by a stochastic method, as dpmpp_2m_sde"] * (not draws)
    return ", ".join([*ways, "or train longer" if ways else "train longer"])


def folder(config: Config) -> Path:
    """The folder of weights, trained features and statistics."""
    return expanded(config.metrics.dir) if config.metrics.dir else cache_folder()


def _features(config: Config, load: Load) -> metrics.Features:
    """The features of config.metrics. Raises `UsageError` if they are not available."""
    options = config.metrics
    if is_import_path(options.features):
        network = choose("metrics.features", options.features, {}, protocols.FeatureNetwork)
        network = network(**piece_arguments("metrics.features", options.features, options))
        _, code = source_digest("metrics.features", options.features)
        return metrics.own_features(network, code, shape_of(config), options.batch_size)
    if one_of("metrics.features", options.features, ("inception", "trained")) == "inception":
        return metrics.inception_features(options.weights, folder(config), options.batch_size)
    small = metrics.Options(options.nf, options.dimension, options.n_iters, lr=options.lr, seed=options.seed)
    return metrics.trained_features(load(True), small, folder(config), options.batch_size)


def _statistics(config: Config, of: metrics.Features, load: Load) -> metrics.Statistics:
    """The statistics of config.metrics: from a file, or of a split of the data, computed now or by an earlier call."""
    options = config.metrics
    if options.statistics:
        statistics = metrics.load_statistics(expanded(options.statistics))
        if statistics.about.get("features_digest", of.digest) != of.digest:
            raise UsageError(
                f"{options.statistics} holds statistics of the features {statistics.about.get('features')}, and these "
                f"are {of.name}; set config.metrics.features, or compute them: score_sde --mode=statistics."
            )
        if statistics.covariance.shape != (of.dimension, of.dimension) or statistics.mean.shape != (of.dimension,):
            raise UsageError(
                f"{options.statistics} holds statistics of {statistics.mean.size} features, and {of.name} has "
                f"{of.dimension}; set config.metrics.features, or compute them: score_sde --mode=statistics."
            )
        return statistics
    source = load(options.split == "train")
    about = {
        "data_set": config.data.dataset,
        "split": options.split,
        "images": [len(source), *shape_of(config)],
        "data_digest": source.digest(),
        "features": of.name,
        "features_digest": of.digest,
    } | ({"train_images": n} if (n := config.data.train_images) and options.split == "train" else {})
    path = folder(config) / f"statistics_{metrics.fingerprint(about)}.npz"
    statistics = _kept(path, about)
    if statistics is None:
        statistics = metrics.statistics_of(source, of, about | {"versions": workdir.versions()})
        statistics.save(path, "config.metrics.dir")
    return statistics


def _baselines(
    config: Config, n: int, of: metrics.Features, statistics: metrics.Statistics, load: Load
) -> metrics.Baselines:
    """Baselines for n samples, computed now or by an earlier call."""
    held_out, shape = _held_out(config, statistics, load), shape_of(config)
    about = {
        "images": [n, *shape],
        "features_digest": of.digest,
        "statistics": statistics.digest,
        "held_out": None if held_out is None else held_out.digest(),
        "figures": {"version": metrics.VERSION, "inception_splits": config.metrics.inception_splits},
    }
    path = folder(config) / f"baselines_{metrics.fingerprint(about)}.npz"
    baselines = metrics.load_baselines(path, about)
    if not all_agree(baselines is not None):
        baselines = metrics.baselines_of(n, shape, held_out, of, statistics, config.metrics.inception_splits)
        baselines.save(path, about, "config.metrics.dir")
    return baselines


def _held_out(config: Config, statistics: metrics.Statistics, load: Load) -> data.Source | None:
    """The split that is not in the statistics; None if it has the same images, or is not available."""
    try:
        split = load((statistics.about.get("split") or config.metrics.split) == "test")
    except UsageError as error:
        warn(f"The figures of held-out images are missing beside those of samples. {error}")
        return None
    return None if split.digest() == statistics.about.get("data_digest") else split


def _kept(path: Path, about: Mapping[str, Any]) -> metrics.Statistics | None:
    """Statistics that an earlier call kept, if all processes can read them."""
    try:
        statistics = metrics.load_statistics(path) if path.exists() else None
    except UsageError as error:
        warn(f"{error} They are computed again.")
        statistics = None
    same = statistics is not None and {key: statistics.about.get(key) for key in about} == dict(about)
    return statistics if all_agree(same) else None
