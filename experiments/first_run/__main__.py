"""`python -m experiments.first_run`: trains, and draws samples with both weights by several samplers."""

import argparse
import sys
from pathlib import Path

from experiments.first_run.config import CONFIGS
from experiments.first_run.run import run

parser = argparse.ArgumentParser(prog="python -m experiments.first_run", description=__doc__)
parser.add_argument("--workdir", type=Path, default=Path("runs/first"))
parser.add_argument("--sde", choices=CONFIGS, default="vp", help="DDPM++ under VP, or NCSN++ under VE")
parser.add_argument("--data_dir", default="", help="of tensorflow-datasets; default: its own")
options = parser.parse_args()
sys.exit(run(options.workdir, options.data_dir, options.sde))
