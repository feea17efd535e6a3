"""Comparison of averaged weights with the raw ones: which are better, and why an average can be the worse.

Samples are drawn with the average, which in a short run still contains weights that had learned little. The loss hardly
shows it: where an image is nearly all noise, an error of 6 % in the predicted noise is 0.4 % of the loss; but a sampler
multiplies it by the noise level, and it exceeds the image. The size of the predicted noise is therefore compared too.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from score_sde.ema import Profile, weights

Arrays = Mapping[str, np.ndarray]

IMAGES = 512  # the most that are compared
NOISY = 0.9  # the size is measured at times from here on
WRONG = 0.02  # error of a size that samples begin to show


def compared(raw: Sequence[Arrays], averaged: Sequence[Arrays]) -> dict[str, Any]:
    """Figures of both weights, from the results of `Trainable.evaluation` for the same batches and noise.

    "loss": the mean; "noise_size", of scores: see `noise_size`. difference: the averaged loss less the raw one, with
    its standard error over images.
    """
    figures: dict[str, Any] = {}
    whole = {name: _joined(batches) for name, batches in (("raw", raw), ("averaged", averaged))}
    for name, arrays in whole.items():
        figures[name] = {"loss": float(np.mean(arrays["loss"], dtype=np.float64))}
        if "t" in arrays:
            figures[name]["noise_size"] = noise_size(arrays)
    each = np.asarray(whole["averaged"]["loss"], np.float64) - whole["raw"]["loss"]
    error = float(each.std(ddof=1) / math.sqrt(len(each))) if len(each) > 1 else None
    return figures | {"difference": {"mean": float(each.mean()), "standard_error": error, "images": len(each)}}


def _joined(batches: Sequence[Arrays]) -> Arrays:
    return {key: np.concatenate([batch[key] for batch in batches]) for key in batches[0]}


def noise_size(arrays: Arrays) -> float | None:
    """Size of the predicted noise, |predicted|^2 / <predicted, z> over images at t >= `NOISY`; None without any.

    It is 1 for the exact score at any t, because E[z | x_t] is orthogonal to z - E[z | x_t]. A prediction c z has
    the size c.
    """
    noisy = arrays["t"] >= NOISY
    if not noisy.any():
        return None
    square, along = (float(np.sum(arrays[key][noisy], dtype=np.float64)) for key in ("square", "along"))
    return square / along if along > 0 else 0.0


def complaint(figures: Mapping[str, Any], *, profile: Profile, updates: int) -> str | None:
    """A sentence saying that the averaged weights are worse than the raw ones, and why; None if they are not.

    figures: result of `compared`. profile: that of the average. updates: number of updates made by the run.
    """
    raw, averaged, difference = figures["raw"], figures["averaged"], figures["difference"]
    error = difference["standard_error"]
    reasons = []
    if error and difference["mean"] > 3 * error:
        reasons.append(f"their loss is {averaged['loss']:.4g} against {raw['loss']:.4g}")
    off, raw_off = (
        None if weights.get("noise_size") is None else abs(weights["noise_size"] - 1) for weights in (averaged, raw)
    )
    if off is not None and raw_off is not None and off > max(WRONG, 2 * raw_off):
        reasons.append(
            f"the noise they predict at t >= {NOISY} has {averaged['noise_size']:.2f} of its size, and "
            f"{raw['noise_size']:.2f} by the raw ones"
        )
    if not reasons:
        return None
    return (
        f"The averaged weights, which samples are drawn with, are worse than the raw ones: {' and '.join(reasons)}. "
        f"{_why(profile, updates)}; train longer, or with a shorter average (a lower optim.ema_rate, or another of "
        "ema.profiles). "
        "score_sde.load(workdir, ema=False) has the raw ones."
    )


def _why(profile: Profile, updates: int) -> str:
    initial = weights(profile, updates)[0]
    if initial > 0.01:
        return (
            f"After {updates:,} updates the average {profile.name} is {initial:.0%} initial weights, which one with a "
            "ramp forgets (optim.ema_schedule=ramp)"
        )
    _, new = profile.shares(np.asarray(updates, np.float64))
    return (
        f"The average {profile.name} reaches back some {1 / new:,.0f} of the {updates:,} updates, and the weights have "
        "changed since"
    )
