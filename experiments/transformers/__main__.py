"""Compares a U-Net and transformers inside a diffusion model, and a transformer instead of it."""

import argparse
import sys
from pathlib import Path

from score_sde.experiments.sweep.flags import add_launcher, parsed, start_of
from score_sde.experiments.transformers.config import MODELS
from score_sde.experiments.transformers.run import run

from score_sde.cli.experiment import count, folder
from score_sde.runtime.preemption import exit_status

parser = argparse.ArgumentParser(prog="score_sde --mode=experiment --name=transformers", description=__doc__)
parser.add_argument(
    "--folder", type=folder, default=Path("runs/transformers"), help="of the runs; default runs/transformers"
)
parser.add_argument("--dataset", default="digits", help="as config.data.dataset; default digits")
parser.add_argument("--models", default=",".join(MODELS), help="to compare; default all")
parser.add_argument("--seeds", type=count, default=3, help="trainings of each model, with seeds 0, 1, ...")
parser.add_argument("--num_samples", type=count, default=512, help="of each training; default 512")
parser.add_argument(
    "--num_filled", type=count, default=96, help="test images of which halves are filled in; default 96"
)
parser.add_argument("--report", action="store_true", help="only reports what there is, and runs nothing")
add_launcher(parser)


def program(argv: list[str]) -> int:
    options, common = parsed(parser, argv)
    start = start_of(options, options.folder)
    return run(
        options.folder,
        None if options.report else start,
        dataset=options.dataset,
        models=options.models.split(","),
        seeds=options.seeds,
        num_samples=options.num_samples,
        num_filled=options.num_filled,
        common=common,
        retries=options.retries,
    )


if __name__ == "__main__":
    sys.exit(exit_status(program, None))
