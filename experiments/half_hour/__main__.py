"""Trains VP, EDM and flow on Fashion-MNIST and CIFAR-10, 25 minutes each on two CPU cores."""

import argparse
import sys
from pathlib import Path

from score_sde.experiments.half_hour.config import CELLS
from score_sde.experiments.half_hour.run import run
from score_sde.experiments.sweep.flags import parsed
from score_sde.experiments.sweep.run import launcher

from score_sde.cli.experiment import count, folder
from score_sde.runtime.preemption import exit_status

parser = argparse.ArgumentParser(prog="score_sde --mode=experiment --name=half_hour", description=__doc__)
parser.add_argument("--folder", type=folder, default=Path("runs/half_hour"), help="of the runs; default runs/half_hour")
parser.add_argument("--cells", default=",".join(CELLS), help=f"to make, of {', '.join(CELLS)}; default all")
parser.add_argument("--data_dir", default="", help="prepared data sets, as config.data.data_dir")
parser.add_argument("--archives", default="", help="original archives to prepare them from, as config.data.archives")
parser.add_argument("--all_images", action="store_true", help="bits/dim of the whole test set, for 1,000 images of it")
parser.add_argument("--report", action="store_true", help="only reports what there is, and runs nothing")
parser.add_argument("--slots", type=count, default=1, help="jobs at a time")
parser.add_argument("--retries", type=int, default=1)


def program(argv: list[str]) -> int:
    options, common = parsed(parser, argv)
    places = {"data.data_dir": options.data_dir, "data.archives": options.archives}
    start = launcher("local", options.folder, options.slots, None, {})
    return run(
        options.folder,
        None if options.report else start,
        cells=options.cells.split(","),
        all_images=options.all_images,
        common={key: place for key, place in places.items() if place} | common,
        retries=options.retries,
    )


if __name__ == "__main__":
    sys.exit(exit_status(program, None))
