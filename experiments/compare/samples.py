"""Samples of runs from the same noise, and real images to stand beside them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from score_sde.experiments.compare.figures import DATA
from score_sde.experiments.compare.runs import Run

import score_sde
from score_sde import images
from score_sde.array_types import Pixels
from score_sde.config import Config
from score_sde.errors import UsageError, warn
from score_sde.evaluation.sample_metrics import real_images
from score_sde.randomness import batch_keys
from score_sde.runtime.progress import bar, reporter


class Drawn(NamedTuple):
    """Samples of one run, or real images. about: checkpoint and sampler, or the data set."""

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


def real(runs: Sequence[Run], n: int) -> list[Drawn]:
    """`n` images of the evaluation split of each data set, to stand beside samples; none of a set that is not here."""
    drawn: list[Drawn] = []
    sets: dict[tuple[Any, ...], Run] = {}
    for run in runs:
        sets.setdefault(tuple(run.config.get(key) for key in DATA), run)
    for run in sets.values():
        data = {key.removeprefix("data."): value for key, value in run.config.items() if key.startswith("data.")}
        pixels = real_images(Config({"data": data, "sampling": {"condition": ""}}), n)
        if pixels is not None:
            drawn.append(Drawn("real images", pixels, f"evaluation split of {data['dataset']}"))
    return drawn


def _draw(run: Run, n: int, seed: int) -> Drawn:
    model = score_sde.load(run.directory)
    with bar(f"sampling {run.name}", n, "img") as progress:
        x, nfe, _ = model.draw(batch_keys(jax.random.key(seed), n), report=reporter(progress, n))
        progress.update(n - progress.n)
    method, condition = model.config.sampling.method.lower(), model.config.sampling.condition
    about = f"step {model.step:,}, {method}, {np.mean(nfe):g} evaluations"
    return Drawn(run.name, images.to_pixels(x), about + (f", without {condition}" if condition else ""))
