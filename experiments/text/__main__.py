"""Trains small text-to-image models, and judges by an exact decoder whether captions are followed."""

import argparse
import sys
from pathlib import Path

from score_sde.experiments.sweep.flags import add_launcher, parsed, start_of
from score_sde.experiments.text.config import NETWORKS, SETS
from score_sde.experiments.text.draw import Numbers
from score_sde.experiments.text.run import run

from score_sde.cli.experiment import count, folder
from score_sde.runtime.preemption import exit_status

DEFAULT = Numbers()

parser = argparse.ArgumentParser(prog="score_sde --mode=experiment --name=text", description=__doc__)
parser.add_argument("--folder", type=folder, default=Path("runs/text"), help="of the runs; default runs/text")
parser.add_argument("--sets", default="scenes", help=f"of {', '.join(SETS)}; default scenes")
parser.add_argument("--network", choices=NETWORKS, default="unet", help="of the models; default unet")
parser.add_argument("--samples", type=count, default=DEFAULT.samples, help="at each guidance scale; default 512")
parser.add_argument("--curve", type=count, default=DEFAULT.curve, help="of each snapshot; default 256")
parser.add_argument("--pairs", type=count, default=DEFAULT.pairs, help="swaps of a word; default 360")
parser.add_argument("--negatives", type=count, default=DEFAULT.negatives, help="by negative caption; default 64")
parser.add_argument("--classified", type=count, default=DEFAULT.classified, help="by Bayes' rule; default 100")
parser.add_argument("--exact", action="store_true", help="Bayes' rule by the ODE's likelihoods, not by the bound")
parser.add_argument("--report", action="store_true", help="only reports what there is, and runs nothing")
add_launcher(parser)


def program(argv: list[str]) -> int:
    options, common = parsed(parser, argv)
    numbers = Numbers(**{name: int(getattr(options, name)) for name in Numbers._fields})
    start = start_of(options, options.folder)
    return run(
        options.folder,
        None if options.report else start,
        options.sets.split(","),
        numbers,
        network=options.network,
        common=common,
        retries=options.retries,
    )


if __name__ == "__main__":
    sys.exit(exit_status(program, None))
