"""Compares runs: configs, metrics, evaluations, and samples from the same noise."""

import argparse
import functools
import sys
from pathlib import Path

from score_sde.experiments.compare.run import compare

from score_sde.cli.experiment import count
from score_sde.runtime.backend import expanded
from score_sde.runtime.preemption import exit_status

parser = argparse.ArgumentParser(prog="score_sde --mode=experiment --name=compare", description=__doc__)
parser.add_argument("directories", nargs="*", type=expanded, metavar="DIR", help="workdirs, the first the reference")
parser.add_argument("--out", type=expanded, default=Path("compare.html"), help="the page")
parser.add_argument("--num_samples", type=int, default=16, help="of each run, from the same noise")
parser.add_argument("--seed", type=functools.partial(count, least=0), default=0, help="of the noise")
parser.add_argument("--no-samples", action="store_true", help="nothing is loaded and drawn")


def program(argv: list[str]) -> None:
    options = parser.parse_args(argv[1:])
    number = 0 if options.no_samples else options.num_samples
    compare(options.directories, options.out, number, options.seed)


if __name__ == "__main__":
    sys.exit(exit_status(program, None))
