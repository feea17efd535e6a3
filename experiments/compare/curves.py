"""Scalars of metrics.jsonl as curves: against updates, images and hours."""

from collections.abc import Sequence

import numpy as np
from score_sde.experiments.compare.runs import Run

from score_sde.io.html_page import Curve

AXES = ("updates", "images seen", "hours")
PAUSE = 10  # times what updates take at the median, from which on time between two lines is none of the run's
POINTS = 400  # of a curve


def scalars(runs: Sequence[Run]) -> list[str]:
    """Names of what was logged by any of the runs."""
    logged = (name for run in runs for line in run.metrics for name in line)
    return [name for name in dict.fromkeys(logged) if name not in ("step", "time")]


def curve(run: Run, name: str, axis: str) -> Curve:
    """One scalar of a run, without points if it has none; `POINTS` means of consecutive lines where it has more."""
    logged = np.array([name in line for line in run.metrics], bool)
    y = np.array([line[name] for line in run.metrics if name in line], float)
    x = _axis(run, axis)[logged]
    finite = np.isfinite(x)
    x, y = _thinned(x[finite], y[finite])
    return x.tolist(), y.tolist(), None


def _axis(run: Run, axis: str) -> np.ndarray:
    if axis == "hours":
        return hours(run.metrics)
    steps = np.array([line["step"] for line in run.metrics], float)
    return steps if axis == "updates" else steps * run.config.get("training.batch_size", np.nan)


def hours(lines: Sequence[dict[str, float]]) -> np.ndarray:
    """Hours since the first line, without pauses; NaN for lines without a time.

    Time between lines of two steps counts up to `PAUSE` times what so many updates take at the median. Between lines of
    one step it counts whole: a run that is stopped goes on with a later one.
    """
    steps = np.array([line["step"] for line in lines], float)
    times = np.array([line.get("time", np.nan) for line in lines], float)
    gaps, updates = np.diff(times), np.diff(steps)
    later = updates > 0
    if later.any():
        usual = np.median(gaps[later] / updates[later])
        gaps[later] = np.minimum(gaps[later], PAUSE * usual * updates[later])
    return np.concatenate([np.zeros(min(1, len(lines))), np.cumsum(gaps)]) / 3600


def _thinned(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    size = -(-len(x) // POINTS)
    if size <= 1:
        return x, y
    starts = np.arange(0, len(x), size)
    counts = np.diff(np.append(starts, len(x)))
    return np.add.reduceat(x, starts) / counts, np.add.reduceat(y, starts) / counts
