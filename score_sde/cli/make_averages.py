"""Averages after the fact: `score_sde --mode=ema` makes those of any widths from a run's snapshots of averages."""

from collections.abc import Sequence
from pathlib import Path

from absl.flags import FlagValues

from score_sde import ema
from score_sde.errors import UsageError, warn
from score_sde.inference import posthoc_weights
from score_sde.inference.snapshots import config_of
from score_sde.io import atomic_files, metrics_log, workdir
from score_sde.runtime.backend import expanded
from score_sde.training.trainable import profiles_of


def run(values: FlagValues) -> None:
    """Makes the averages of a command line."""
    make_averages(values.workdir, [_number(text) for text in values.sigma_rel], values.step)


def make_averages(directory: str | Path, widths: Sequence[float], step: int | None = None) -> list[Path]:
    """Writes a file in ema/ of the workdir for the power average of each width, and prints its predicted error.

    widths: sigma_rel of each. step: default that of the last snapshot of averages. Raises `UsageError` before anything
    is written if one of them cannot be made.
    """
    directory = expanded(directory)
    workdir.checkpoint_steps(directory)
    config = config_of(directory, None)
    profiles = profiles_of(config)
    tracked = ", ".join(each.name for each in posthoc_weights.tracked(directory, profiles))
    wanted = [ema.Power(width) for width in widths]
    step = posthoc_weights.last_step(directory) if step is None else step
    if step < 1:
        raise UsageError(f"--step={step} is no update of a run; the last snapshot is the default.")
    for profile in wanted:
        posthoc_weights.planned(directory, profiles, profile, step)
    atomic_files.check_writable(directory / posthoc_weights.MADE)
    lines = metrics_log.read_lines(directory / "metrics.jsonl")
    if skipped := max((line.get("skipped_updates", 0) for line in lines), default=0):
        warn(
            f"{skipped:,} updates of this run were skipped (training.nonfinite=skip); the predicted errors count them "
            "as if their weights were in the averages."
        )
    paths = []
    for profile in wanted:
        average = posthoc_weights.made(directory, profiles, profile, step)
        paths.append(posthoc_weights.write(directory, profile, step, average))
        steps = sorted({each["step"] for each in average.facts["averages"]})
        of = f"{len(steps)} snapshots of {tracked}" if len(steps) > 1 else "the snapshot of that step"
        print(f"{profile.name} at step {step:,}: predicted profile error {average.error:.2g}, from {of}; {paths[-1]}")
    first = wanted[0]
    print(f"Load it:     score_sde.load({str(directory)!r}, {step}, ema={first.sigma_rel:g})")
    print(f"Evaluate it: score_sde --mode=eval --workdir={directory} --config.sampling.ema={first.name}")
    return paths


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UsageError(
            f"--sigma_rel={text} is no number; write --sigma_rel=0.075 or --sigma_rel=0.05,0.075."
        ) from None
