"""Fills a table of the paper with what was run."""

import argparse
import sys
from pathlib import Path

from score_sde.experiments.paper.run import table
from score_sde.experiments.paper.tables import SCALES, TABLES
from score_sde.experiments.sweep.run import LAUNCHERS, launcher, named

from score_sde.cli.experiment import count, folder
from score_sde.errors import UsageError
from score_sde.runtime.preemption import exit_status

parser = argparse.ArgumentParser(prog="score_sde --mode=experiment --name=paper", description=__doc__)
parser.add_argument("table", choices=TABLES)
parser.add_argument("--scale", choices=SCALES, default="paper", help="toy: 8x8 digits, minutes on a CPU")
parser.add_argument("--run", action="store_true", help="makes the runs that there are not")
parser.add_argument("--folder", type=folder, help="of the runs; default runs/paper or runs/paper-toy")
parser.add_argument("--seeds", type=int, default=0, help="trainings of each network, with seeds 0, 1, ...")
parser.add_argument("--best", action="store_true", help="of all snapshots the least distance counts, as in the paper")
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
    common = dict(argument.removeprefix("--config.").split("=", 1) for argument in rest)
    folder = options.folder or Path("runs/paper" if options.scale == "paper" else "runs/paper-toy")
    if options.seeds < 0 or options.retries < 0:
        raise UsageError("--seeds and --retries must not be negative.")
    start = launcher(options.launcher, folder, options.slots, options.devices, named(options.slurm))
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
