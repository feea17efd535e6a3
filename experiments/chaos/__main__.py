"""Kills runs at random moments, and compares them with the run that was never stopped."""

import argparse
import functools
import sys
from pathlib import Path

from score_sde.experiments.chaos.run import run

from score_sde.cli.experiment import count
from score_sde.runtime.backend import expanded
from score_sde.runtime.preemption import exit_status

parser = argparse.ArgumentParser(prog="score_sde --mode=experiment --name=chaos", description=__doc__)
parser.add_argument("--kills", type=count, default=50, help="of training, and as many of evaluation")
parser.add_argument("--seed", type=functools.partial(count, least=0), default=0, help="of the moments")
parser.add_argument("--workers", type=count, default=2, help="runs at a time")
parser.add_argument("--workdir", type=expanded, default=Path("runs/chaos"))


def program(argv: list[str]) -> int | None:
    options = parser.parse_args(argv[1:])
    return run(options.workdir, options.kills, options.seed, options.workers)


if __name__ == "__main__":
    sys.exit(exit_status(program, None))
