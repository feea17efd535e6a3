"""Trains EDM's networks on CIFAR-10 on GPUs, and puts FID of three sets of samples beside the paper's."""

import argparse
import sys
from pathlib import Path

from score_sde.experiments.edm.run import PUBLISHED, run
from score_sde.experiments.sweep.flags import add_launcher, parsed, start_of

from score_sde.cli.experiment import folder
from score_sde.runtime.preemption import exit_status

parser = argparse.ArgumentParser(prog="score_sde --mode=experiment --name=edm", description=__doc__)
parser.add_argument("--folder", type=folder, default=Path("runs/edm"), help="of the runs; default runs/edm")
parser.add_argument("--networks", default=next(iter(PUBLISHED)), help=f"configs, of {', '.join(PUBLISHED)}")
parser.add_argument("--run", action="store_true", help="makes the runs that there are not")
add_launcher(parser)


def program(argv: list[str]) -> int:
    options, common = parsed(parser, argv)
    start = start_of(options, options.folder)
    networks = options.networks.split(",")
    return run(
        options.folder, start if options.run else None, networks=networks, common=common, retries=options.retries
    )


if __name__ == "__main__":
    sys.exit(exit_status(program, None))
