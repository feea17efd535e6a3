"""Do devices, processes, rounds or restarts move a number? `python -m experiments.invariance`."""

import argparse
import sys

from experiments.invariance.run import table

argparse.ArgumentParser(prog="python -m experiments.invariance", description=__doc__).parse_args()
sys.exit(table())
