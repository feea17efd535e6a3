"""Measures whether generated images help a classifier: real, generated and both, at equal updates."""

import argparse
import sys
from pathlib import Path

from score_sde.experiments.augmentation.classifier import Options
from score_sde.experiments.augmentation.config import COUNTS
from score_sde.experiments.augmentation.run import Plan, run

from score_sde.cli.experiment import count, folder
from score_sde.errors import UsageError
from score_sde.runtime.preemption import exit_status

ALL = "all"
parser = argparse.ArgumentParser(prog="score_sde --mode=experiment --name=augmentation", description=__doc__)
parser.add_argument(
    "--folder", type=folder, default=Path("runs/augmentation"), help="of what is made; default runs/augmentation"
)
parser.add_argument("--workdir", type=folder, help="of a class-conditional model; default: the digits' is trained")
parser.add_argument("--samples", type=Path, help="labelled samples from elsewhere, a .npz of images and labels")
parser.add_argument(
    "--counts",
    default=",".join(str(each or ALL) for each in COUNTS),
    help="real images of each class to learn from; all for all of them",
)
parser.add_argument("--seeds", type=count, default=5, help="repetitions, with seeds 0, 1, ...; default 5")
parser.add_argument("--each", type=count, default=200, help="generated images of each class; default 200")
parser.add_argument("--updates", type=count, default=Options().updates, help="of each classifier; default 600")


def program(argv: list[str]) -> int:
    options = parser.parse_args(argv[1:])
    training = Options(updates=options.updates)
    plan = Plan(counts_of(options.counts), options.seeds, options.each, training, options.workdir, options.samples)
    return run(options.folder, plan)


def counts_of(text: str) -> tuple[int, ...]:
    """The numbers of --counts, the fewest first, 0 for all. Raises `UsageError` for others."""
    words = text.split(",")
    if not all(word == ALL or (word.isdecimal() and int(word)) for word in words) or len(set(words)) < len(words):
        raise UsageError(f"--counts={text} must be different whole numbers of 1 or more, or {ALL}, as 5,50,{ALL}.")
    numbers = sorted(int(word) for word in words if word != ALL)
    return (*numbers, 0) if ALL in words else tuple(numbers)


if __name__ == "__main__":
    sys.exit(exit_status(program, None))
