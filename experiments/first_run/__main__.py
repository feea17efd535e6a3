"""Trains on CIFAR-10 as a new user would, and draws samples with both weights by several samplers."""

import argparse
import sys
from pathlib import Path

from score_sde.experiments.first_run.config import CONFIGS
from score_sde.experiments.first_run.run import run

from score_sde.cli.experiment import folder
from score_sde.runtime.preemption import exit_status

parser = argparse.ArgumentParser(prog="score_sde --mode=experiment --name=first_run", description=__doc__)
parser.add_argument("--workdir", type=folder, default=Path("runs/first"))
parser.add_argument("--sde", choices=CONFIGS, default="vp", help="DDPM++ under VP, or NCSN++ under VE")
parser.add_argument("--data_dir", default="", help="of tensorflow-datasets; default: its own")


def program(argv: list[str]) -> int | None:
    options = parser.parse_args(argv[1:])
    return run(options.workdir, options.data_dir, options.sde)


if __name__ == "__main__":
    sys.exit(exit_status(program, None))
