"""Trains seven recipes on the digits and says which differences between them are significant."""

import argparse
import sys
from pathlib import Path

from score_sde.experiments.recipes.config import RECIPES
from score_sde.experiments.recipes.run import run
from score_sde.experiments.sweep.run import LAUNCHERS, launcher, named

from score_sde.cli.experiment import count, folder
from score_sde.errors import UsageError
from score_sde.runtime.preemption import exit_status

parser = argparse.ArgumentParser(prog="score_sde --mode=experiment --name=recipes", description=__doc__)
parser.add_argument("--folder", type=folder, default=Path("runs/recipes"), help="of the runs; default runs/recipes")
parser.add_argument("--recipes", default=",".join(RECIPES), help="to compare; default all")
parser.add_argument("--seeds", type=count, default=3, help="trainings of each recipe, with seeds 0, 1, ...")
parser.add_argument("--report", action="store_true", help="only reports what there is, and runs nothing")
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
    return run(
        options.folder,
        None if options.report else start,
        recipes=options.recipes.split(","),
        seeds=options.seeds,
        common=common,
        retries=options.retries,
    )


if __name__ == "__main__":
    sys.exit(exit_status(program, None))
