"""What is done with a trained model: loss, bits/dim and samples of its snapshots, and samples on demand."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from score_sde import data, files, images, parallel, workdir
from score_sde.digest import digest
from score_sde.errors import UsageError
from score_sde.parallel import pad_to_devices
from score_sde.progress import bar, reporter
from score_sde.randomness import Stream, sample_keys, stream
from score_sde.rounds import Arrays, Keep, Rounds, compute_anew
from score_sde.train import load_data
from score_sde.trained import DEQUANTIZER, Report, Trained, load


def evaluate(config: ConfigDict, directory: str | Path, folder: str = "eval") -> None:
    """Evaluates snapshots `eval.begin_ckpt`..`eval.end_ckpt`, or the last checkpoint where there are none of these.

    Writes `folder`/report.json, after each checkpoint anew, and every round beneath it: the same call after a kill
    goes on from the last one. Raises `UsageError` when there is no checkpoint, or `config` describes another run.
    """
    directory, options = Path(directory), config.eval
    steps = _steps_to_evaluate(config, workdir.checkpoint_steps(directory))
    parallel.check_divisible("eval.batch_size", options.batch_size)
    if not (options.enable_loss or options.enable_bpd or options.enable_bound or options.enable_sampling):
        raise UsageError(
            "Nothing to evaluate: set eval.enable_loss, eval.enable_bpd, eval.enable_bound or eval.enable_sampling to "
            "True."
        )
    model = load(directory, steps[0], config)
    likelihoods = options.enable_bpd or options.enable_bound
    train = likelihoods and options.bpd_dataset == "train"
    test_set = load_data(config, train=False) if options.enable_loss or (likelihoods and not train) else None
    bpd_set = load_data(config, train=True) if train else test_set
    repeats = 1 if train else options.bpd_num_repeats
    if likelihoods:  # what the SDE or the workdir lacks is said now
        model.experiment.bits_per_dim(model.params)
        learned = bool(model.dequantizer_params)
    if options.enable_bound:
        model.experiment.bound(model.params)

    report: dict[str, Any] = {"config": workdir.flatten(config.to_dict()), "versions": workdir.versions()}
    report["devices"] = [device.device_kind for device in jax.devices()]
    if likelihoods and learned:
        report["dequantizer"] = workdir.read(directory / DEQUANTIZER, "config.json")
    report["checkpoints"] = []
    with files.locked(directory / folder, "eval"):
        for step in steps:
            if step != model.step:
                model.restore(step)
            target = directory / folder / f"step_{step:08d}"
            entry: dict[str, Any] = {"step": step}
            identity = _identity(model)
            if likelihoods:
                of_likelihood = _likelihood_identity(model, identity, bpd_set, repeats)
            if options.enable_loss:
                entry["loss"] = loss(
                    model, test_set, Rounds(target, "loss", identity | {"images": test_set.digest()}, ["loss"])
                )
            if options.enable_bpd:
                rounds = Rounds(target, "bits_per_dim", of_likelihood, ["bits_per_dim", "nfe"])
                entry["bits_per_dim"] = bits_per_dim(model, bpd_set, repeats, rounds)
            if options.enable_bound:
                rounds = Rounds(target, "bits_per_dim_bound", of_likelihood, ["bound"])
                entry["bits_per_dim_bound"] = bits_per_dim_bound(model, bpd_set, repeats, rounds)
            if options.enable_sampling:
                entry["sampling"] = draw_samples(model, options.num_samples, target)
            report["checkpoints"].append(entry)
            workdir.write(directory, f"{folder}/report.json", report)
            _print(f"step {step}: {_summary(entry)}")
    _print(f"Report: {directory / folder / 'report.json'}")


def sample(config: ConfigDict, directory: str | Path) -> None:
    """Writes `sampling.num_samples` samples of the last checkpoint to samples/, as .npz and as a sheet."""
    directory = Path(directory)
    model = load(directory, config=config)
    parallel.check_divisible("eval.batch_size", config.eval.batch_size)
    stem = f"step_{model.step:08d}_{config.sampling.method.lower()}"
    with files.locked(directory / "samples", "sample"):
        result = draw_samples(model, config.sampling.num_samples, directory / "samples", stem)
    _print(f"{result['num_samples']} samples, {result['nfe']:g} network evaluations each")
    _print(f"{directory / 'samples' / stem}.png")


def draw_samples(model: Trained, n: int, folder: Path, stem: str = "samples") -> dict[str, Any]:
    """`n` samples, in rounds of eval.batch_size: `stem`.npz if one round is enough, else one file a round; and a sheet.

    Sample i of a checkpoint depends on (seed, step, i) only, unless the sampler couples the batch.
    """
    size = min(model.config.eval.batch_size, pad_to_devices(n))
    key = stream(stream(jax.random.key(model.config.seed + 1), Stream.SAMPLE), model.step)
    rounds = Rounds(
        folder, stem, _identity(model) | {"samples": n, "sampling": model.config.sampling.to_dict()}, ["images", "nfe"]
    )
    nfe, first = [], None
    with bar(f"sampling ({model.config.sampling.method})", n, "img") as progress:
        for start in range(0, n, size):
            valid = min(size, n - start)

            def draw(start: int = start, valid: int = valid) -> Arrays:
                keys = sample_keys(key, jnp.arange(start, start + size))
                x, evaluations = model.sample_with_nfe(keys, report=reporter(progress, valid, start))
                return {"images": images.to_pixels(x)[:valid], "nfe": np.asarray(evaluations)[:valid]}

            found = rounds("" if n <= size else f"{start // size:04d}", draw)
            progress.update(start + valid - progress.n)
            nfe.append(found["nfe"])
            first = found["images"] if first is None else first
    sheet, magnify = images.grid(first[:256]), max(1, 64 // model.config.data.image_size)
    files.replace(folder / f"{stem}.png", lambda file: images.write_png(file, sheet, magnify))
    return {"num_samples": n, "nfe": float(np.concatenate(nfe).mean())}


def loss(model: Trained, source: data.Source, rounds: Keep = compute_anew) -> dict[str, Any]:
    """The training objective over a whole split, without flips and dropout: mean and standard error over images."""
    size = model.config.eval.batch_size

    def chunk(indices: np.ndarray, repeat: int, report: Report) -> Arrays:
        return {"loss": np.asarray(model.eval_losses(model.params, source.take(indices).images, repeat, indices))}

    return _mean_and_error(_over_split(rounds, "loss", len(source), size, 1, chunk)["loss"])


def bits_per_dim(model: Trained, source: data.Source, repeats: int, rounds: Keep = compute_anew) -> dict[str, Any]:
    """Bits/dim over a whole split, each image `repeats` times with fresh dequantisation noise and probe.

    The standard error is over images, of their means over the repeats: it holds the spread of both.
    """
    root = stream(jax.random.key(model.config.seed + 1), Stream.BITS_PER_DIM)

    def chunk(indices: np.ndarray, repeat: int, report: Report) -> Arrays:
        keys = sample_keys(stream(root, repeat), jnp.asarray(indices))
        bpd, nfe = model.bits_per_dim_with_nfe(keys, images.to_unit(jnp.asarray(source.take(indices).images)), report)
        return {"bits_per_dim": np.asarray(bpd), "nfe": np.asarray(nfe)}

    size = min(model.config.eval.batch_size, pad_to_devices(len(source)))
    found = _over_split(rounds, "bits/dim", len(source), size, repeats, chunk)
    return {**_mean_and_error(found["bits_per_dim"]), "repeats": repeats, "nfe": float(found["nfe"].mean())}


def bits_per_dim_bound(
    model: Trained, source: data.Source, repeats: int, rounds: Keep = compute_anew
) -> dict[str, Any]:
    """The upper bound on bits/dim over a whole split, with the images, repeats and noise of `bits_per_dim`."""
    root = stream(jax.random.key(model.config.seed + 1), Stream.BITS_PER_DIM)

    def chunk(indices: np.ndarray, repeat: int, report: Report) -> Arrays:
        keys = sample_keys(stream(root, repeat), jnp.asarray(indices))
        return {"bound": np.asarray(model.bound(keys, source.take(indices).images))}

    size = min(model.config.eval.batch_size, pad_to_devices(len(source)))
    found = _over_split(rounds, "bound", len(source), size, repeats, chunk)
    return {**_mean_and_error(found["bound"]), "repeats": repeats}


def _identity(model: Trained) -> dict[str, Any]:
    """What every round of a checkpoint depends on."""
    return {
        "run": workdir.identity(model.config.to_dict()),
        "checkpoint": {"step": model.step, "digest": model.digest},
        "versions": workdir.versions(),
        "devices": sorted({device.device_kind for device in jax.devices()}),
        "batch_size": model.config.eval.batch_size,
    }


def _likelihood_identity(model: Trained, identity: dict[str, Any], source: data.Source, repeats: int) -> dict[str, Any]:
    keys = ("bpd_dataset", "hutchinson_type", "num_probes", "dequantization", "bound_num_times", "rtol", "atol")
    learned = digest(model.dequantizer_params) if model.dequantizer_params else None
    options = {key: model.config.eval[key] for key in keys}
    return identity | {"images": source.digest(), "repeats": repeats, "dequantizer": learned, "eval": options}


def _over_split(rounds: Keep, name: str, n: int, size: int, repeats: int, chunk: Callable) -> Arrays:
    """Arrays (repeats, n) of what `chunk(indices, repeat, report)` gives for every image."""
    found: list[Arrays] = []
    with bar(name, n * repeats, "img") as progress:
        for repeat in range(repeats):
            for indices, valid in data.padded_chunks(n, size):
                done = repeat * n + int(indices[0])

                def compute(repeat: int = repeat, indices: np.ndarray = indices, valid: int = valid) -> Arrays:
                    report = reporter(progress, valid, repeat * n + int(indices[0]))
                    return {key: value[:valid] for key, value in chunk(indices, repeat, report).items()}

                found.append(rounds(f"{repeat:02d}_{indices[0] // size:04d}", compute))
                progress.update(done + valid - progress.n)
    return {key: np.concatenate([arrays[key] for arrays in found]).reshape(repeats, n) for key in found[0]}


def _mean_and_error(values: np.ndarray) -> dict[str, Any]:
    """Of values (repeats, n)."""
    per_image = values.mean(axis=0, dtype=np.float64)
    error = float(per_image.std(ddof=1) / math.sqrt(len(per_image))) if len(per_image) > 1 else None
    return {"mean": float(per_image.mean()), "standard_error": error, "images": len(per_image)}


def _steps_to_evaluate(config: ConfigDict, available: list[int]) -> list[int]:
    frequency, options = config.training.snapshot_freq, config.eval
    chosen = [s for s in available if s % frequency == 0 and options.begin_ckpt <= s // frequency <= options.end_ckpt]
    if chosen:
        return chosen
    _print(
        f"No snapshot from {options.begin_ckpt * frequency} to {options.end_ckpt * frequency} steps "
        f"(eval.begin_ckpt, eval.end_ckpt); evaluating the last checkpoint, of step {available[-1]}."
    )
    return available[-1:]


def _summary(entry: dict[str, Any]) -> str:
    parts = [
        f"{label} {entry[name]['mean']:.4f} +- {entry[name]['standard_error'] or math.nan:.4f}"
        for name, label in (("loss", "loss"), ("bits_per_dim", "bits/dim"), ("bits_per_dim_bound", "bound on bits/dim"))
        if name in entry
    ]
    return ", ".join(parts + ([f"{entry['sampling']['num_samples']} samples"] if "sampling" in entry else []))


def _print(line: str) -> None:
    if parallel.is_first():
        print(line)
