"""Does every sampler solve its equation? `python -m experiments.truth_table [--small] [--workdir=runs/truth_table]`."""

import argparse
import sys
from pathlib import Path

from experiments.truth_table.run import run

parser = argparse.ArgumentParser(prog="python -m experiments.truth_table", description=__doc__)
parser.add_argument("--workdir", type=Path, default=Path("runs/truth_table"))
parser.add_argument("--small", action="store_true", help="a few samplers under two SDEs, in a minute")
options = parser.parse_args()
sys.exit(run(options.workdir, options.small))
