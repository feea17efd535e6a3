"""Trains EDM's networks on CIFAR-10 on GPUs, and puts FID of three sets of samples beside the paper's."""

import argparse
import sys
from pathlib import Path

from score_sde.experiments.edm.run import PUBLISHED, run
from score_sde.experiments.sweep.run import LAUNCHERS, launcher, named

from score_sde.cli.experiment import count, folder
from score_sde.errors import UsageError
from score_sde.runtime.preemption import exit_status

parser = argparse.ArgumentParser(prog="score_sde --mode=experiment --name=edm", description=__doc__)
parser.add_argument("--folder", type=folder, default=Path("runs/edm"), help="of the runs; default runs/edm")
parser.add_argument("--networks", default=next(iter(PUBLISHED)), help=f"configs, of {', '.join(PUBLISHED)}")
parser.add_argument("--run", action="store_true", help="makes the runs that there are not")
parser.add_argument("--launcher", choices=LAUNCHERS[:2], default="local")
parser.add_argument("--slots", type=count, help="as of experiments.sweep, like the next three")
parser.add_argument("--devices", type=count)
parser.add_argument("--retries", type=int, default=1)
parser.add_argument("--slurm", action="append", default=[], metavar="NAME=VALUE")


def program(argv: list[str]) -> int:
    options, rest = parser.parse_known_args(argv[1:])
    for argument in rest:
        if not argument.startswith("--config.") or "=" not in argument:
            raise UsageError(f"Unknown argument {argument}; --help shows those there are, besides --config.KEY=VALUE.")
    if options.retries < 0:
        raise UsageError(f"--retries={options.retries} must not be negative.")
    common = dict(argument.removeprefix("--config.").split("=", 1) for argument in rest)
    start = launcher(options.launcher, options.folder, options.slots, options.devices, named(options.slurm))
    networks = options.networks.split(",")
    return run(
        options.folder, start if options.run else None, networks=networks, common=common, retries=options.retries
    )


if __name__ == "__main__":
    sys.exit(exit_status(program, None))
