"""Measures whether trained features tell data from what is none."""

import argparse
import functools
import sys
from pathlib import Path

from score_sde.experiments.features.run import run

from score_sde.cli.experiment import count, folder
from score_sde.runtime.preemption import exit_status

parser = argparse.ArgumentParser(prog="score_sde --mode=experiment --name=features", description=__doc__)
parser.add_argument("--dataset", default="cifar10")
parser.add_argument("--data_dir", default="", help="as config.data.data_dir")
parser.add_argument("--image_size", type=count, default=16)
parser.add_argument("--num_channels", type=count, default=3)
parser.add_argument("--other", default="", help="another data set, in data_dir too")
parser.add_argument("--archives", default="", help="of the other data set, as config.data.archives")
parser.add_argument("--n_iters", type=count, default=1000)
parser.add_argument("--turns", action="store_true", help="as if the data set had no labels")
parser.add_argument("--images", type=functools.partial(count, least=2), default=2000, help="measured, of each kind")
parser.add_argument("--dir", type=folder, default=Path("runs/features"), help="where features are kept")


def program(argv: list[str]) -> int | None:
    return run(parser.parse_args(argv[1:]))


if __name__ == "__main__":
    sys.exit(exit_status(program, None))
