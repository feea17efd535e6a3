"""Our ODE solvers against a host-side loop: `python -m experiments.host_loop --workdir=runs/digits`."""

import argparse
import sys
from pathlib import Path

from experiments.host_loop.run import run

parser = argparse.ArgumentParser(prog="python -m experiments.host_loop", description=__doc__)
parser.add_argument("--workdir", type=Path, default=Path("runs/digits"), help="of a trained model")
parser.add_argument("--batch", type=int, default=64)
parser.add_argument("--rounds", type=int, default=3, help="repetitions, taken in turns")
parser.add_argument("--tolerance", type=float, default=1e-4, help="rtol = atol")
arguments = parser.parse_args()
sys.exit(run(arguments.workdir, arguments.batch, arguments.rounds, arguments.tolerance))
