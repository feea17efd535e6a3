"""Times the ODE solvers on the device against a loop on the host."""

import argparse
import sys
from pathlib import Path

from score_sde.experiments.host_loop.run import run

from score_sde.cli.experiment import count, folder, positive
from score_sde.runtime.preemption import exit_status

parser = argparse.ArgumentParser(prog="score_sde --mode=experiment --name=host_loop", description=__doc__)
parser.add_argument("--workdir", type=folder, default=Path("runs/digits"), help="of a trained model")
parser.add_argument("--batch", type=count, default=64)
parser.add_argument("--rounds", type=count, default=3, help="repetitions, taken in turns")
parser.add_argument("--tolerance", type=positive, default=1e-4, help="rtol = atol")


def program(argv: list[str]) -> int | None:
    arguments = parser.parse_args(argv[1:])
    return run(arguments.workdir, arguments.batch, arguments.rounds, arguments.tolerance)


if __name__ == "__main__":
    sys.exit(exit_status(program, None))
