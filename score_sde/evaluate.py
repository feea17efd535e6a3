"""What is done with a trained model: loss, bits/dim and samples of its snapshots, and samples on demand."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from score_sde import data, images, parallel, workdir
from score_sde.errors import UsageError
from score_sde.parallel import pad_to_devices
from score_sde.progress import bar, reporter
from score_sde.randomness import Stream, sample_keys, stream
from score_sde.train import load_data
from score_sde.trained import DEQUANTIZER, Trained, load


def evaluate(config: ConfigDict, directory: str | Path, folder: str = "eval") -> None:
    """Evaluates snapshots `eval.begin_ckpt`..`eval.end_ckpt`, or the last checkpoint where there are none of these.

    Writes `folder`/report.json, after each checkpoint anew. Raises `UsageError` when there is no checkpoint, or
    `config` describes another run.
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
    train = options.bpd_dataset == "train"
    test_set = load_data(config, train=False)
    likelihoods = options.enable_bpd or options.enable_bound
    bpd_set = load_data(config, train=True) if likelihoods and train else test_set
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
    for step in steps:
        if step != model.step:
            model.restore(step)
        entry: dict[str, Any] = {"step": step}
        if options.enable_loss:
            entry["loss"] = loss(model, test_set)
        if options.enable_bpd:
            entry["bits_per_dim"] = bits_per_dim(model, bpd_set, repeats)
        if options.enable_bound:
            entry["bits_per_dim_bound"] = bits_per_dim_bound(model, bpd_set, repeats)
        if options.enable_sampling:
            target = directory / folder / f"step_{step:08d}"
            entry["sampling"] = draw_samples(model, options.num_samples, target)
        report["checkpoints"].append(entry)
        workdir.write(directory, f"{folder}/report.json", report)
        print(f"step {step}: {_summary(entry)}")
    print(f"Report: {directory / folder / 'report.json'}")


def sample(config: ConfigDict, directory: str | Path) -> None:
    """Writes `sampling.num_samples` samples of the last checkpoint to samples/, as .npz and as a sheet."""
    directory = Path(directory)
    model = load(directory, config=config)
    parallel.check_divisible("eval.batch_size", config.eval.batch_size)
    stem = f"step_{model.step:08d}_{config.sampling.method.lower()}"
    result = draw_samples(model, config.sampling.num_samples, directory / "samples", stem)
    print(f"{result['num_samples']} samples, {result['nfe']:g} network evaluations each")
    print(f"{directory / 'samples' / stem}.png")


def draw_samples(model: Trained, n: int, folder: Path, stem: str = "samples") -> dict[str, Any]:
    """`n` samples, in rounds of eval.batch_size: `stem`.npz if one round is enough, else one file a round; and a sheet.

    Sample i of a checkpoint depends on (seed, step, i) only, unless the sampler couples the batch.
    """
    size = min(model.config.eval.batch_size, pad_to_devices(n))
    rounds = math.ceil(n / size)
    key = stream(stream(jax.random.key(model.config.seed + 1), Stream.SAMPLE), model.step)
    folder.mkdir(parents=True, exist_ok=True)
    for stale in (folder / f"{stem}.npz", *folder.glob(f"{stem}_[0-9][0-9][0-9][0-9].npz")):
        stale.unlink(missing_ok=True)
    nfe, sheet = [], None
    with bar(f"sampling ({model.config.sampling.method})", n, "img") as progress:
        for number in range(rounds):
            valid = min(size, n - number * size)
            keys = sample_keys(key, jnp.arange(number * size, (number + 1) * size))
            x, evaluations = model.sample_with_nfe(keys, report=reporter(progress, valid, number * size))
            pixels = images.to_pixels(x)[:valid]
            nfe.append(np.asarray(evaluations)[:valid])
            name = stem if rounds == 1 else f"{stem}_{number:04d}"
            np.savez(folder / f"{name}.npz", images=pixels)
            if sheet is None:
                sheet = images.grid(pixels[:256])
    images.write_png(folder / f"{stem}.png", sheet, magnify=max(1, 64 // model.config.data.image_size))
    return {"num_samples": n, "nfe": float(np.concatenate(nfe).mean())}


def loss(model: Trained, source: data.Source) -> dict[str, Any]:
    """The training objective over a whole split, without flips and dropout: mean and standard error over images."""
    size = model.config.eval.batch_size

    def chunk(indices: np.ndarray, repeat: int, report: Callable) -> tuple[np.ndarray, ...]:
        return (np.asarray(model.eval_losses(model.params, source.images[indices], repeat, indices)),)

    return _mean_and_error(_over_split("loss", len(source), size, 1, chunk)[0])


def bits_per_dim(model: Trained, source: data.Source, repeats: int) -> dict[str, Any]:
    """Bits/dim over a whole split, each image `repeats` times with fresh dequantisation noise and probe.

    The standard error is over images, of their means over the repeats: it holds the spread of both.
    """
    root = stream(jax.random.key(model.config.seed + 1), Stream.BITS_PER_DIM)

    def chunk(indices: np.ndarray, repeat: int, report: Callable) -> tuple[np.ndarray, np.ndarray]:
        keys = sample_keys(stream(root, repeat), jnp.asarray(indices))
        bpd, nfe = model.bits_per_dim_with_nfe(keys, images.to_unit(jnp.asarray(source.images[indices])), report)
        return np.asarray(bpd), np.asarray(nfe)

    size = min(model.config.eval.batch_size, pad_to_devices(len(source)))
    bpd, nfe = _over_split("bits/dim", len(source), size, repeats, chunk)
    return {**_mean_and_error(bpd), "repeats": repeats, "nfe": float(nfe.mean())}


def bits_per_dim_bound(model: Trained, source: data.Source, repeats: int) -> dict[str, Any]:
    """The upper bound on bits/dim over a whole split, with the images, repeats and noise of `bits_per_dim`."""
    root = stream(jax.random.key(model.config.seed + 1), Stream.BITS_PER_DIM)

    def chunk(indices: np.ndarray, repeat: int, report: Callable) -> tuple[np.ndarray]:
        return (
            np.asarray(model.bound(sample_keys(stream(root, repeat), jnp.asarray(indices)), source.images[indices])),
        )

    size = min(model.config.eval.batch_size, pad_to_devices(len(source)))
    return {**_mean_and_error(_over_split("bound", len(source), size, repeats, chunk)[0]), "repeats": repeats}


def _over_split(name: str, n: int, size: int, repeats: int, chunk: Callable) -> list[np.ndarray]:
    """Arrays (repeats, n) of what `chunk(indices, repeat, report)` gives for every image."""
    rows: list[list[np.ndarray]] = []
    with bar(name, n * repeats, "img") as progress:
        for repeat in range(repeats):
            for indices, valid in data.padded_chunks(n, size):
                done = repeat * n + int(indices[0])
                values = chunk(indices, repeat, reporter(progress, valid, done))
                rows.append([value[:valid] for value in values])
                progress.update(done + valid - progress.n)
    return [np.concatenate(column).reshape(repeats, n) for column in zip(*rows, strict=True)]


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
    print(
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
