"""Evaluates one trained model: bits/dim of the test images, samples, stages of samples, and images filled in.

`python -m score_sde.experiments.transformers.draw --model=uvit --workdir=DIR --out=DIR/drawn` is a job of the
comparison. Every array is kept as it is made, so that a job that is killed goes on.
"""

import argparse
import sys
from pathlib import Path

import jax
import numpy as np
from score_sde.experiments.transformers.config import MODELS
from score_sde.experiments.transformers.models import MASKS, Model, filled_name, load

from score_sde import data
from score_sde.array_types import Keys
from score_sde.io import atomic_files, workdir
from score_sde.io.result_cache import Arrays
from score_sde.randomness import Stream, sample_keys, stream
from score_sde.runtime import backend
from score_sde.runtime.preemption import exit_status
from score_sde.training.run import load_data

SHOWN = 8  # samples whose stages are kept
SEED = 1000  # of draws, added to the training's

parser = argparse.ArgumentParser(prog="draw", description=__doc__)
parser.add_argument("--model", choices=MODELS, required=True)
parser.add_argument("--workdir", type=Path, required=True, help="of the trained model")
parser.add_argument("--out", type=Path, required=True, help="the folder of the arrays")
parser.add_argument("--num_samples", type=int, required=True)
parser.add_argument("--num_filled", type=int, required=True, help="test images that are filled in")


def draw(name: str, directory: Path, out: Path, num_samples: int, num_filled: int) -> None:
    """Writes the arrays in the folder, and at last report.json."""
    with atomic_files.locked(out, "draw"):
        trained = load(name, directory)
        config = trained.described.config
        held_out = load_data(config, train=False)
        _keep(out, "likelihoods", lambda: trained.likelihoods(held_out, out))
        root = stream(jax.random.key(SEED + config.seed), Stream.SAMPLE)
        for budget in trained.budgets:
            _samples(trained, out, budget, root, num_samples, config.eval.batch_size)
        _keep(out, "path", lambda: {"pixels": trained.path(sample_keys(root, np.arange(SHOWN)))})
        part = data.part_of(len(held_out), num_filled)
        truth, labels = held_out.take(part).images, held_out.take(part).labels
        keys = sample_keys(stream(root, 1), np.arange(len(part)))
        for mask, of_shape in MASKS.items():
            hidden = of_shape(*truth.shape[1:3])

            def filled(hidden: np.ndarray = hidden) -> Arrays:
                return {"pixels": trained.filled(keys, truth, hidden), "truth": truth, "labels": labels}

            _keep(out, filled_name(mask), filled)
        report = {"model": name, "budgets": trained.budgets, "devices": sorted({d.device_kind for d in jax.devices()})}
        workdir.write(out, "report.json", report | {"versions": workdir.versions(), "complete": True})


def _samples(trained: Model, out: Path, budget: int, root: Keys, n: int, size: int) -> None:
    """Samples in rounds of `size`; that they are drawn together moves none of them."""
    for start in range(0, n, size):
        keys = sample_keys(root, np.arange(start, min(start + size, n)))
        _keep(out, f"samples_{budget:04d}_{start:06d}", lambda keys=keys: {"pixels": trained.samples(keys, budget)})


def _keep(out: Path, stem: str, compute) -> Arrays:
    """The arrays of `compute`, from their file if an earlier call has left it."""
    path = out / f"{stem}.npz"
    if (arrays := atomic_files.read_arrays(path)) is None:
        arrays = compute()
        atomic_files.replace(path, lambda file: np.savez(file, **arrays), "--out")
    return arrays


def program(argv: list[str]) -> int:
    options = parser.parse_args(argv[1:])
    backend.keep_programs()
    draw(options.model, options.workdir, options.out, options.num_samples, options.num_filled)
    return 0


if __name__ == "__main__":
    sys.exit(exit_status(program, None))
