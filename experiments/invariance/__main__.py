"""Compares the numbers of other devices, processes, rounds and restarts with those of one device."""

import argparse
import sys

from score_sde.experiments.invariance.run import table

from score_sde.runtime.preemption import exit_status

parser = argparse.ArgumentParser(prog="score_sde --mode=experiment --name=invariance", description=__doc__)


def program(argv: list[str]) -> int:
    parser.parse_args(argv[1:])
    return table()


if __name__ == "__main__":
    sys.exit(exit_status(program, None))
