"""Compares every sampler with closed forms, and its order of convergence with theory."""

import argparse
import sys
from pathlib import Path

from score_sde.experiments.truth_table.run import run

from score_sde.cli.experiment import folder
from score_sde.runtime.preemption import exit_status

parser = argparse.ArgumentParser(prog="score_sde --mode=experiment --name=truth_table", description=__doc__)
parser.add_argument("--workdir", type=folder, default=Path("runs/truth_table"))
parser.add_argument("--small", action="store_true", help="a few samplers under two SDEs, in a minute")


def program(argv: list[str]) -> int | None:
    options = parser.parse_args(argv[1:])
    return run(options.workdir, options.small)


if __name__ == "__main__":
    sys.exit(exit_status(program, None))
