"""Runs the demo: trains on digits, samples, measures, and writes one page to look at."""

import argparse
import sys
from pathlib import Path

from score_sde.experiments.digits.run import run

from score_sde.cli.experiment import folder
from score_sde.runtime.preemption import exit_status

parser = argparse.ArgumentParser(prog="score_sde --mode=experiment --name=digits", description=__doc__)
parser.add_argument("--workdir", type=folder, default=Path("runs/digits"))


def program(argv: list[str]) -> int | None:
    return run(parser.parse_args(argv[1:]).workdir)


if __name__ == "__main__":
    sys.exit(exit_status(program, None))
