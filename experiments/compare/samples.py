"""Samples of runs from the same noise."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from score_sde.experiments.compare.runs import Run

import score_sde
from score_sde import images
from score_sde.array_types import Pixels
from score_sde.errors import UsageError, warn
from score_sde.randomness import batch_keys
from score_sde.runtime.progress import bar, reporter


class Drawn(NamedTuple):
    """Samples of one run. about: checkpoint and sampler."""

    run: str
    pixels: Pixels
    about: str


def draw(runs: Sequence[Run], n: int, seed: int) -> tuple[list[Drawn], dict[str, str]]:
    """`n` samples of the last checkpoint of each, by its own config.sampling; and why there are none, by run."""
    drawn, missing = [], {}
    for run in runs:
        try:
            drawn.append(_draw(run, n, seed))
        except UsageError as error:
            missing[run.name] = str(error)
            warn(f"No samples of {run.name}: {error}")
    return drawn, missing


def _draw(run: Run, n: int, seed: int) -> Drawn:
    model = score_sde.load(run.directory)
    with bar(f"sampling {run.name}", n, "img") as progress:
        x, nfe, _ = model.draw(batch_keys(jax.random.key(seed), n), report=reporter(progress, n))
        progress.update(n - progress.n)
    method, condition = model.config.sampling.method.lower(), model.config.sampling.condition
    about = f"step {model.step:,}, {method}, {np.mean(nfe):g} evaluations"
    return Drawn(run.name, images.to_pixels(x), about + (f", without {condition}" if condition else ""))
