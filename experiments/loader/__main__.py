"""Does the data keep up with the network? `python -m experiments.loader`. See README.md."""

import argparse
import sys
from pathlib import Path

from experiments.loader.run import run

parser = argparse.ArgumentParser(prog="python -m experiments.loader", description=__doc__)
parser.add_argument(
    "--config", type=Path, default=Path("configs/vp/cifar10_ddpmpp_continuous.py"), help="the network's"
)
parser.add_argument("--batch", type=int, default=4, help="of a training step")
parser.add_argument("--rounds", type=int, default=5, help="repetitions, taken in turns")
parser.add_argument("--workers", type=int, default=0, help="threads that decode; 0: one for each core")
parser.add_argument("--data_only", action="store_true", help="without the network")
arguments = parser.parse_args()
sys.exit(run(None if arguments.data_only else arguments.config, arguments.batch, arguments.rounds, arguments.workers))
