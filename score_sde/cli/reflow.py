"""Pairs of noise and image of a trained model, for a reflow: `score_sde --mode=pairs`."""

from pathlib import Path

import jax
import numpy as np
from absl.flags import FlagValues

from score_sde.cli.runs import of_workdir
from score_sde.data import pairs
from score_sde.inference import class_choice
from score_sde.inference.pretrained import load
from score_sde.inference.reflow import MEASURED, straightness, write_pairs
from score_sde.inference.sampling_plan import check_condition, configured_cond
from score_sde.runtime.backend import expanded


def run(values: FlagValues) -> None:
    """Makes the pairs of a command line, and prints how straight the teacher's paths are."""
    directory, folder = Path(values.workdir), expanded(values.out)
    model = load(directory, config=class_choice.with_numbers(of_workdir(values), directory))
    check_condition(model)
    description = write_pairs(model, values.n, folder)
    made = sum(shard["pairs"] for shard in description["shards"])
    print(f"{made:,} pairs, {description['nfe']:g} network evaluations each, in {folder}")
    n = min(made, MEASURED)
    s = straightness(model, jax.random.key(model.config.seed), n, configured_cond(model, np.arange(n)))
    pairs.write_description(folder, description | {"straightness": s})
    print(f"straightness {s:.4g} (0: straight paths), of {n} paths of this model")
    print(f"reflow: --config.training.coupling=pairs --config.training.pairs={folder}")
