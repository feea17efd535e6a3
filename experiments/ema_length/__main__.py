"""Draws a run's loss and Fréchet distance against the width of its average, made after the fact."""

import argparse
import sys
from pathlib import Path

from score_sde.experiments.ema_length.run import run

from score_sde.cli.experiment import count, folder
from score_sde.runtime.preemption import exit_status


def widths(text: str) -> tuple[float, ...]:
    """The widths of a flag."""
    try:
        return tuple(float(width) for width in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} is no list of numbers, as 0.05,0.075") from None


parser = argparse.ArgumentParser(prog="score_sde --mode=experiment --name=ema_length", description=__doc__)
parser.add_argument(
    "--workdir", type=folder, default=Path("runs/ema_length"), help="of the figures, and of its own run"
)
parser.add_argument("--run", type=folder, help="a workdir with snapshots of averages; default: train on the digits")
parser.add_argument("--sigma_rel", type=widths, default=(0.03, 0.05, 0.075, 0.1, 0.125, 0.15, 0.2))
parser.add_argument("--seeds", type=count, default=3, help="sets of samples for each width")
parser.add_argument("--num_samples", type=count, default=250, help="in each set")


def program(argv: list[str]) -> int | None:
    options = parser.parse_args(argv[1:])
    return run(options.workdir, options.run, options.sigma_rel, options.seeds, options.num_samples)


if __name__ == "__main__":
    sys.exit(exit_status(program, None))
