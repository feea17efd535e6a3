"""Trains seven recipes on the digits and says which differences between them are significant."""

import argparse
import sys
from pathlib import Path

from score_sde.experiments.recipes.config import RECIPES
from score_sde.experiments.recipes.run import run
from score_sde.experiments.sweep.flags import add_launcher, parsed, start_of

from score_sde.cli.experiment import count, folder
from score_sde.runtime.preemption import exit_status

parser = argparse.ArgumentParser(prog="score_sde --mode=experiment --name=recipes", description=__doc__)
parser.add_argument("--folder", type=folder, default=Path("runs/recipes"), help="of the runs; default runs/recipes")
parser.add_argument("--recipes", default=",".join(RECIPES), help="to compare; default all")
parser.add_argument("--seeds", type=count, default=3, help="trainings of each recipe, with seeds 0, 1, ...")
parser.add_argument("--report", action="store_true", help="only reports what there is, and runs nothing")
add_launcher(parser)


def program(argv: list[str]) -> int:
    options, common = parsed(parser, argv)
    start = start_of(options, options.folder)
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
