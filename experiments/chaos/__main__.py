"""Is a killed run the run that was never stopped? `python -m experiments.chaos [--kills=50] [--workdir=runs/chaos]`."""

import argparse
import sys
from pathlib import Path

from experiments.chaos.run import run

parser = argparse.ArgumentParser(prog="python -m experiments.chaos", description=__doc__)
parser.add_argument("--kills", type=int, default=50, help="of training, and as many of evaluation")
parser.add_argument("--seed", type=int, default=0, help="of the moments")
parser.add_argument("--workers", type=int, default=2, help="runs at a time")
parser.add_argument("--workdir", type=Path, default=Path("runs/chaos"))
options = parser.parse_args()
sys.exit(run(options.workdir, options.kills, options.seed, options.workers))
