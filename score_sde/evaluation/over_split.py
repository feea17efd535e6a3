"""Figures of a whole split, or of a fixed part of it: loss, averaged against raw weights, accuracy, bits/dim, bound.

`config.eval.max_images` limits all but the weights to that many images. Which ones depends on the number of images in
the split alone, and the images of a smaller limit are among those of a larger one. They are not the first ones, which
may be of one class. An image's figure does not depend on the limit, because its random numbers are those of its place
in the whole split.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from score_sde import data, images
from score_sde.cond import Cond, names, restricted
from score_sde.errors import UsageError
from score_sde.evaluation import identities
from score_sde.inference.pretrained import Pretrained, Report
from score_sde.inference.snapshots import PretrainedClassifier, Snapshot
from score_sde.io.result_cache import Arrays, Keep, Rounds, compute_anew, mean_and_error
from score_sde.process import LEAST_TIME
from score_sde.randomness import Stream, sample_keys, stream
from score_sde.runtime.memory import enough_memory
from score_sde.runtime.progress import bar, reporter
from score_sde.runtime.sharding import pad_to_devices
from score_sde.sampling.grids import time_grid
from score_sde.training import averages
from score_sde.training.source_checks import check_source

NOISE_LEVELS = 10  # number of those at which a classifier's accuracy is evaluated


def loss(model: Snapshot, source: data.Source, folder: Path | None = None) -> dict[str, Any]:
    """The training objective over a split, without flips and dropout: mean and standard error over images.

    folder: where to keep the rounds; None keeps none.
    """
    size, part = model.config.eval.batch_size, _part(model, source)
    rounds = kept_rounds(folder, "loss", ["loss"], model, lambda: _identity(source, part))

    def chunk(indices: np.ndarray, repeat: int, report: Report) -> Arrays:
        pixels, cond = source.take(indices)
        return {"loss": np.asarray(model.evaluation(model.params, pixels, repeat, indices, cond)["loss"])}

    return _figure(_over_split(rounds, "loss", part, size, 1, chunk)["loss"], source)


def weights(model: Snapshot, source: data.Source, folder: Path | None = None) -> dict[str, Any]:
    """Compares averaged and raw weights on the first `averages.IMAGES` images of a split: see `averages.compared`.

    The result has a "warning" if the average is worse. folder: as for `loss`.
    """
    n = min(len(source), averages.IMAGES)
    fields = [f"{name}_{field}" for name in ("raw", "averaged") for field in model.experiment.evaluated]
    rounds = kept_rounds(folder, "weights", fields, model, lambda: {"images": source.digest()})
    both = functools.cache(model.both_weights)  # read only where a round is missing

    def chunk(indices: np.ndarray, repeat: int, report: Report) -> Arrays:
        pixels, cond = source.take(indices)
        results = {name: model.evaluation(params, pixels, repeat, indices, cond) for name, params in both().items()}
        return {f"{name}_{field}": np.asarray(values[field]) for name, values in results.items() for field in values}

    arrays = _over_split(rounds, "weights", np.arange(n), model.config.eval.batch_size, 1, chunk)
    of_both = {
        name: [{field: arrays[f"{name}_{field}"][0] for field in model.experiment.evaluated}]
        for name in ("raw", "averaged")
    }
    result = averages.compared(**of_both)
    problem = averages.complaint(result, profile=model.profile, updates=model.step)
    return result | ({"warning": problem} if problem else {})


def accuracy(model: PretrainedClassifier, source: data.Source, folder: Path | None = None) -> dict[str, Any]:
    """The share of a split's images whose likeliest class is their label (paper, Fig. 13).

    It is evaluated at noise levels from the least to the largest, equidistant in their logarithm: the mean, and each
    separately. folder: as for `loss`.
    """
    experiment, part = model.experiment, _part(model, source)
    size = min(model.config.eval.batch_size, pad_to_devices(len(part)))
    times = time_grid(experiment.sde, "log_snr", NOISE_LEVELS - 1, eps=LEAST_TIME)[::-1]
    of_split = _identity(source, part) | {"times": times.tolist()}
    rounds = kept_rounds(folder, "accuracy", ["hits"], model, lambda: of_split)
    root = stream(jax.random.key(model.config.seed + 1), Stream.EVAL)

    def chunk(indices: np.ndarray, level: int, report: Report) -> Arrays:
        keys, batch = sample_keys(stream(root, level), jnp.asarray(indices)), source.take(indices)
        return {"hits": np.asarray(model.hits(keys, batch.images, batch.labels, times[level]))}

    hits = _over_split(rounds, "accuracy", part, size, NOISE_LEVELS, chunk)["hits"]
    sigmas = experiment.noise_level(jnp.asarray(times, jnp.float32))
    levels = [
        {"t": float(t), "noise_level": float(sigma), **mean_and_error(hits[i : i + 1])}
        for i, (t, sigma) in enumerate(zip(times, sigmas, strict=True))
    ]
    return {**_figure(hits, source), "chance": 1 / experiment.num_classes, "by_noise_level": levels}


def bits_per_dim(model: Pretrained, source: data.Source, repeats: int, folder: Path | None = None) -> dict[str, Any]:
    """Bits/dim over a split, each image `repeats` times with fresh dequantization noise and probe.

    They are of p(x), or with eval.bpd_with_cond of p(x | c) under each image's own condition. The standard error is
    over images, of means over repeats, and contains the spread of both. folder: as for `loss`.
    """
    part = _part(model, source)
    rounds = kept_rounds(folder, "bits_per_dim", ["bits_per_dim", "nfe"], model, _of_likelihood(model, source, repeats))
    root = stream(jax.random.key(model.config.seed + 1), Stream.BITS_PER_DIM)

    def chunk(indices: np.ndarray, repeat: int, report: Report) -> Arrays:
        keys = sample_keys(stream(root, repeat), jnp.asarray(indices))
        pixels, cond = source.take(indices)
        x, own = images.to_unit(jnp.asarray(pixels)), _own_cond(model, cond)
        bpd, nfe = model.likelihoods(keys, x, report, cond=own)
        return {"bits_per_dim": np.asarray(bpd), "nfe": np.asarray(nfe)}

    size = min(model.config.eval.batch_size, pad_to_devices(len(part)))
    arrays = _over_split(rounds, "bits/dim", part, size, repeats, chunk)
    figure = _figure(arrays["bits_per_dim"], source) | {"repeats": repeats, "nfe": float(arrays["nfe"].mean())}
    return figure | _entries(model)


def bits_per_dim_bound(
    model: Pretrained, source: data.Source, repeats: int, folder: Path | None = None
) -> dict[str, Any]:
    """The upper bound on bits/dim over a split, with the images, repeats and noise of `bits_per_dim`."""
    part = _part(model, source)
    rounds = kept_rounds(folder, "bits_per_dim_bound", ["bound"], model, _of_likelihood(model, source, repeats))
    root = stream(jax.random.key(model.config.seed + 1), Stream.BITS_PER_DIM)

    def chunk(indices: np.ndarray, repeat: int, report: Report) -> Arrays:
        keys = sample_keys(stream(root, repeat), jnp.asarray(indices))
        pixels, cond = source.take(indices)
        return {"bound": np.asarray(model.bound(keys, pixels, cond=_own_cond(model, cond)))}

    size = min(model.config.eval.batch_size, pad_to_devices(len(part)))
    arrays = _over_split(rounds, "bound", part, size, repeats, chunk)
    return _figure(arrays["bound"], source) | {"repeats": repeats} | _entries(model)


def check_own_cond(model: Pretrained, source: data.Source) -> Cond | None:
    """The condition under which the likelihood of a split's first image is evaluated; None is the null condition.

    Raises `UsageError` for eval.bpd_with_cond of a network or of images without conditions.
    """
    if not model.config.eval.bpd_with_cond:
        return None
    if not model.experiment.cond_entries:
        raise UsageError("eval.bpd_with_cond=True: this network takes no condition; set it to False.")
    check_source(model.experiment, source)
    return _own_cond(model, source.take(np.arange(1)).cond)


def _own_cond(model: Pretrained, cond: Cond | None) -> Cond | None:
    """The condition under which likelihoods of images with this condition are evaluated."""
    return restricted(cond, model.experiment.cond_entries) if model.config.eval.bpd_with_cond else None


def _entries(model: Pretrained) -> dict[str, list[str]]:
    """The entries of the condition under which likelihoods are evaluated, for a report; {} for those of p(x)."""
    return {"given": names(model.experiment.cond_entries)} if model.config.eval.bpd_with_cond else {}


def _part(model: Snapshot, source: data.Source) -> np.ndarray:
    """Indices of the images that are evaluated, of a split."""
    return data.part_of(len(source), model.config.eval.max_images)


def _identity(source: data.Source, part: np.ndarray) -> dict[str, Any]:
    """The images of a part of a split, in a cache key."""
    return {"images": source.digest()} | ({} if len(part) == len(source) else {"of_these": len(part)})


def _of_likelihood(model: Pretrained, source: data.Source, repeats: int) -> Callable[[], dict[str, Any]]:
    """The cache key of bits/dim, and of their bound, of a part of a split."""
    return lambda: identities.of_likelihood(model, source, repeats) | _identity(source, _part(model, source))


def _figure(values: np.ndarray, source: data.Source) -> dict[str, Any]:
    """Mean and standard error over images, and the number of images in the split where a part of it is evaluated."""
    figure = mean_and_error(values)
    return figure | ({} if figure["images"] == len(source) else {"of": len(source)})


def kept_rounds(
    folder: Path | None, stem: str, arrays: list[str], model: Snapshot, identity: Callable[[], dict[str, Any]]
) -> Keep:
    """Rounds in the folder, for the model's weights and `identity`; without a folder none are kept."""
    if folder is None:
        return compute_anew
    return Rounds(folder, stem, identities.of_model(model) | identity(), arrays)


def _over_split(rounds: Keep, name: str, part: np.ndarray, size: int, repeats: int, chunk: Callable) -> Arrays:
    """Arrays (repeats, n) of the results of `chunk(indices, repeat, report)` for the images of a part of a split."""
    chunks: list[Arrays] = []
    n = len(part)
    memory = enough_memory(f"{name} at eval.batch_size={size}", lambda: "lower eval.batch_size")
    with memory, bar(name, n * repeats, "img") as progress:
        for repeat in range(repeats):
            for indices, valid in data.padded_chunks(n, size):
                done = repeat * n + int(indices[0])

                def compute(repeat: int = repeat, indices: np.ndarray = indices, valid: int = valid) -> Arrays:
                    report = reporter(progress, valid, repeat * n + int(indices[0]))
                    return {key: value[:valid] for key, value in chunk(part[indices], repeat, report).items()}

                chunks.append(rounds(f"{repeat:02d}_{indices[0] // size:04d}", compute))
                progress.update(done + valid - progress.n)
    return {key: np.concatenate([arrays[key] for arrays in chunks]).reshape(repeats, n) for key in chunks[0]}
