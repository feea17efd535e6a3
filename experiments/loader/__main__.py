"""Times how fast data reach the device, against how fast a network trains on them."""

import argparse
import functools
import sys
from pathlib import Path

from score_sde.experiments.loader.run import run

from score_sde.cli.experiment import count
from score_sde.runtime.backend import expanded
from score_sde.runtime.preemption import exit_status

at_least_0 = functools.partial(count, least=0)
parser = argparse.ArgumentParser(prog="score_sde --mode=experiment --name=loader", description=__doc__)
parser.add_argument(
    "--config", type=expanded, default=Path("configs/vp/cifar10_ddpmpp_continuous.py"), help="the network's"
)
parser.add_argument("--batch", type=count, default=4, help="of a training step")
parser.add_argument("--rounds", type=count, default=5, help="repetitions, taken in turns")
parser.add_argument("--workers", type=at_least_0, default=0, help="threads that decode; 0: one for each core")
parser.add_argument("--data_only", action="store_true", help="without the network")


def program(argv: list[str]) -> int | None:
    arguments = parser.parse_args(argv[1:])
    return run(None if arguments.data_only else arguments.config, arguments.batch, arguments.rounds, arguments.workers)


if __name__ == "__main__":
    sys.exit(exit_status(program, None))
