"""The demo: train, sample, measure, and one page to look at. `python -m experiments.digits [--workdir=runs/digits]`."""

from score_sde.backend import configure

configure()

import argparse  # noqa: E402
import sys  # noqa: E402
from pathlib import Path  # noqa: E402

from experiments.digits.run import run  # noqa: E402

parser = argparse.ArgumentParser(prog="python -m experiments.digits", description=__doc__)
parser.add_argument("--workdir", type=Path, default=Path("runs/digits"))
sys.exit(run(parser.parse_args().workdir))
