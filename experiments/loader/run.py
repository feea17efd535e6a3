"""Images a second that each kind of source puts on the devices, and that training takes from there, in turns."""

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from score_sde.experiments.loader.pictures import LARGE, SMALL, sources

from score_sde import data
from score_sde.cli.command_line import read_config
from score_sde.config import Config
from score_sde.errors import UsageError
from score_sde.runtime import sharding
from score_sde.runtime.progress import bar
from score_sde.training.build import Experiment
from score_sde.training.run import train_step

BATCH = 128
IMAGES = {"in memory": 50_000, "ArrayRecord": 8192, "folder of PNG": 4096, "folder of JPEG": 512}
BATCHES = {"in memory": 400, "ArrayRecord": 50, "folder of PNG": 30, "folder of JPEG": 4}  # a repetition
NETWORK = "training takes"


def run(config: Path | None, batch: int, rounds: int, workers: int) -> int:
    """Prints medians and ranges of `rounds` rounds after one that warms up, and all of them as JSON."""
    try:
        network = read_config(str(config)) if config else None
        with tempfile.TemporaryDirectory() as folder:
            kinds = sources(Path(folder), workers, IMAGES)
            cases = {name: _delivery(source, BATCHES[name]) for name, source in kinds.items()}
            if network:
                cases[NETWORK] = _consumption(network, batch)
            rates = _in_turns(cases, rounds)
    except UsageError as error:
        print(f"loader: {error}", file=sys.stderr)
        return 2
    cores = len(os.sched_getaffinity(0))
    print(f"{jax.devices()[0].device_kind}, {cores} cores, {workers or cores} threads, {rounds} rounds in turns")
    print(f"{'source':18s}{'pixels':>9s}{'images/s':>12s}{'least':>12s}{'most':>12s}{'against training':>18s}")
    for name, values in rates.items():
        median = statistics.median(values)
        size = LARGE if "JPEG" in name else SMALL
        against = f"{median / statistics.median(rates[NETWORK]):18,.0f}" if NETWORK in rates and size == SMALL else ""
        pixels = "" if name == NETWORK else f"{size}x{size}"
        print(f"{name:18s}{pixels:>9s}{median:12,.1f}{min(values):12,.1f}{max(values):12,.1f}{against}")
    facts = {"cores": cores, "workers": workers, "batch": batch, "config": str(config) if config else None}
    print(json.dumps(facts | {"images_a_second": rates}))
    return 0


def _in_turns(cases: dict[str, Callable[[], int]], rounds: int) -> dict[str, list[float]]:
    """Images a second of each case in each round; the first round, which compiles and fills caches, is left out."""
    rates: dict[str, list[float]] = {name: [] for name in cases}
    with bar("measuring", (rounds + 1) * len(cases), "run") as progress:
        for turn in range(rounds + 1):
            for name, case in cases.items():
                started = time.monotonic()
                images = case()
                if turn:
                    rates[name].append(images / (time.monotonic() - started))
                progress.update()
    return rates


def _delivery(source: data.Source, batches: int) -> Callable[[], int]:
    """Takes so many batches as a training does, and does nothing with them."""

    def take() -> int:
        with data.prefetched(data.batch_fn(source, BATCH, seed=0), range(batches)) as stream:
            for _, images, _ in stream:
                images.block_until_ready()
        return batches * BATCH

    return take


def _consumption(config: Config, batch: int) -> Callable[[], int]:
    """Makes one update of the config's network, of full size."""
    experiment = Experiment(config)
    update = sharding.pmap(train_step(experiment), in_axes=(None, 0), out_axes=(None, None), donate_argnums=(0,))
    state = sharding.pmap(experiment.init_state, in_axes=(), out_axes=None)()  # as an update gives it: one compilation
    (pixels,) = sharding.split(np.zeros((batch, *experiment.image_shape), np.uint8))

    def step() -> int:
        nonlocal state
        state, loss = update(state, pixels)
        jnp.asarray(loss).block_until_ready()
        return batch

    return step
