"""Fills a table of the paper with what was run."""

import argparse
import sys
from pathlib import Path

from score_sde.experiments.paper.run import table
from score_sde.experiments.paper.tables import SCALES, TABLES
from score_sde.experiments.sweep.flags import add_launcher, parsed, start_of

from score_sde.cli.experiment import folder
from score_sde.errors import UsageError
from score_sde.runtime.preemption import exit_status

parser = argparse.ArgumentParser(prog="score_sde --mode=experiment --name=paper", description=__doc__)
parser.add_argument("table", choices=TABLES)
parser.add_argument("--scale", choices=SCALES, default="paper", help="toy: 8x8 digits, minutes on a CPU")
parser.add_argument("--run", action="store_true", help="makes the runs that there are not")
parser.add_argument("--folder", type=folder, help="of the runs; default runs/paper or runs/paper-toy")
parser.add_argument("--seeds", type=int, default=0, help="trainings of each network, with seeds 0, 1, ...")
parser.add_argument("--best", action="store_true", help="of all snapshots the least distance counts, as in the paper")
add_launcher(parser)


def program(argv: list[str]) -> int:
    options, common = parsed(parser, argv)
    folder = options.folder or Path("runs/paper" if options.scale == "paper" else "runs/paper-toy")
    if options.seeds < 0:
        raise UsageError(f"--seeds={options.seeds} must not be negative.")
    start = start_of(options, folder)
    return table(
        options.table,
        options.scale,
        folder,
        seeds=range(options.seeds),
        common=common,
        best=options.best,
        start=start if options.run else None,
        retries=options.retries,
    )


if __name__ == "__main__":
    sys.exit(exit_status(program, None))
