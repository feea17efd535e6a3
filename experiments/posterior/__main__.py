"""Do conditional samplers have the conditional law? `python -m experiments.posterior [--small] [--workdir=...]`."""

import argparse
import sys
from pathlib import Path

from experiments.posterior.run import run

parser = argparse.ArgumentParser(prog="python -m experiments.posterior", description=__doc__)
parser.add_argument("--workdir", type=Path, default=Path("runs/posterior"))
parser.add_argument("--small", action="store_true", help="one row of each kind, in a minute")
options = parser.parse_args()
sys.exit(run(options.workdir, options.small))
