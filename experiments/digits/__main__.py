"""The demo: train, sample, measure, and one page to look at. `python -m experiments.digits [--workdir=runs/digits]`."""

import argparse
import sys
from pathlib import Path

from experiments.digits.run import run

parser = argparse.ArgumentParser(prog="python -m experiments.digits", description=__doc__)
parser.add_argument("--workdir", type=Path, default=Path("runs/digits"))
sys.exit(run(parser.parse_args().workdir))
