"""Training for some seconds, in a workdir that the next call goes on with."""

import os
import signal
import statistics
import threading
from itertools import pairwise
from pathlib import Path
from typing import Any

from score_sde.config import Config
from score_sde.data.datasets import dataset, directory_of, is_prepared
from score_sde.io.metrics_log import read_lines
from score_sde.io.workdir import saved_steps
from score_sde.runtime.preemption import Stopped, stoppable
from score_sde.training.run import train


def missing_data(config: Config) -> str:
    """The sentence that says which data are missing; "" where the training can begin."""
    name, folder = config.data.dataset, directory_of(config.data.data_dir)
    if dataset(name).ours or is_prepared(name, folder):
        return ""
    return f"{folder} has no {name}; put the prepared data set there, or name its folder in TFDS_DATA_DIR"


def train_for(seconds: float, config: Config, folder: Path) -> dict[str, Any]:
    """Trains in the workdir until the seconds are over, and is then stopped as a scheduler stops a run.

    Returns the updates made before this call and after it, the curve of the loss since the first update, and the median
    of images a second in this call. Raises `Stopped` where it is stopped from outside.
    """
    before, over = max(saved_steps(folder), default=0), threading.Event()

    def ring() -> None:
        over.set()
        os.kill(os.getpid(), signal.SIGUSR1)

    alarm = threading.Timer(seconds, ring)
    try:
        with stoppable():
            alarm.start()
            try:
                train(config, folder)
            finally:
                alarm.cancel()
                alarm.join()
    except Stopped:
        if not over.is_set():
            raise
    lines = [line for line in read_lines(folder / "metrics.jsonl") if "training_loss" in line]
    rates = [
        config.training.batch_size * (b["step"] - a["step"]) / (b["time"] - a["time"])
        for a, b in pairwise(line for line in lines if line["step"] > before)
        if b["time"] > a["time"]
    ]
    return {
        "from": before,
        "updates": max(saved_steps(folder), default=0),
        "images_a_second": statistics.median(rates) if rates else None,
        "curve": [(line["step"], line["training_loss"]) for line in lines],
    }
