"""Trains a transformer over pixels, measures bits/dim of held-out images, and draws samples and completions."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags
from score_sde.experiments.autoregressive.model import Autoregressive, bits_per_dim, load, train

from score_sde import images
from score_sde.cli import command_line
from score_sde.config import AnyConfig
from score_sde.errors import one_of
from score_sde.io import atomic_files, workdir
from score_sde.randomness import sample_keys
from score_sde.training.run import load_data

STEPS = ("train", "bits", "sample")
CONFIG = "experiments/autoregressive/config.py"
RESULTS = "results.json"
SHEET, COMPLETED = 100, 10  # images of a sheet; images of which one is completed in a row


def run(directory: Path, steps: Sequence[str], temperature: float, argv: Sequence[str]) -> None:
    """Takes these of `STEPS`. argv: flags of the config; without --config it is the workdir's, or the default."""
    for step in steps:
        one_of("step", step, STEPS)
    config, overrides = _config(directory, argv)
    if "train" in steps:
        train(config, directory, overrides)
    if "bits" in steps or "sample" in steps:
        model = load(directory, config=config)
        facts = {"step": model.step, "digest": model.digest, "parameters": model.num_params, "seed": config.seed}
        facts |= {"evaluations": model.evaluations, "flops_per_image": model.flops_per_image()}
        held_out = load_data(config, train=False)
        if "bits" in steps:
            facts["bits_per_dim"] = bits_per_dim(model, held_out)
            print(f"bits/dim: {facts['bits_per_dim']}")
        if "sample" in steps:
            facts["samples"] = _sample(directory, model, config, temperature)
            _complete(directory, model, config, held_out, temperature)
            print(f"samples: {facts['samples']}; see {directory / 'samples.png'}")
        earlier = workdir.read(directory, RESULTS)
        kept = earlier if earlier.get("digest") == model.digest else {}
        workdir.write(directory, RESULTS, kept | facts | {"versions": workdir.versions()})


def _config(directory: Path, argv: Sequence[str]) -> tuple[AnyConfig, dict[str, Any]]:
    """The config of a command line, and its overrides."""
    named = any(name == "config" for name, _ in command_line.arguments(["", *argv]))
    own = [] if named or (directory / "config.json").exists() else [f"--config={CONFIG}"]

    def define(values: Any) -> None:
        flags.DEFINE_string("workdir", None, "", values)

    written = ["autoregressive", f"--workdir={directory}", *own, *argv]
    values = command_line.parse(written, define, workdir.stored_config)
    return values.config, command_line.overrides(values)


def _labels(model: Autoregressive, n: int) -> np.ndarray | None:
    """Classes in turn for n images, None without classes."""
    return np.arange(n) % model.density.num_classes if model.density.num_classes else None


def _sample(directory: Path, model: Autoregressive, config: AnyConfig, temperature: float) -> dict[str, Any]:
    """Writes samples.npz and samples.png, and returns what they cost."""
    n, key = config.sampling.num_samples, jax.random.key(config.seed)
    options = dict(temperature=temperature, labels=_labels(model, n))
    model.sample(key, n, **options)  # compiles
    start = time.monotonic()
    pixels = model.sample(key, n, **options)
    seconds = (time.monotonic() - start) / n
    sheet = images.grid(pixels[:SHEET])
    atomic_files.replace(directory / "samples.npz", lambda file: np.savez(file, images=pixels))
    atomic_files.replace(directory / "samples.png", lambda file: images.write_png(file, sheet, 4))
    return {"images": n, "temperature": temperature, "seconds_each": seconds, "evaluations_each": model.evaluations}


def _complete(directory: Path, model: Autoregressive, config: AnyConfig, source: Any, temperature: float) -> None:
    """Writes completed.png: in each row a held-out image, and completions of its upper half."""
    batch = source.take(np.arange(min(COMPLETED, len(source))))
    pixels, n = np.repeat(batch.images, COMPLETED - 1, axis=0), len(batch.images)
    labels = None if not model.density.num_classes else np.repeat(batch.labels, COMPLETED - 1)
    h, w, _ = model.image_shape
    keys = sample_keys(jax.random.key(config.seed + 1), np.arange(len(pixels)))
    drawn = model.complete(keys, pixels, h // 2 * w, temperature=temperature, labels=labels)
    rows = np.concatenate([batch.images[:, None], drawn.reshape(n, COMPLETED - 1, *model.image_shape)], axis=1)
    sheet = images.grid(rows.reshape(-1, *model.image_shape), COMPLETED)
    atomic_files.replace(directory / "completed.png", lambda file: images.write_png(file, sheet, 4))
