"""Runs a sweep, from its file to its table."""

import argparse
import sys
from pathlib import Path

from score_sde.experiments.sweep import run, runs
from score_sde.experiments.sweep.definition import read
from score_sde.experiments.sweep.weights_and_biases import export

from score_sde.cli.experiment import count, folder
from score_sde.errors import UsageError
from score_sde.runtime.backend import expanded
from score_sde.runtime.preemption import exit_status

parser = argparse.ArgumentParser(prog="score_sde --mode=experiment --name=sweep", description=__doc__)
parser.add_argument("file", type=lambda name: str(expanded(name)), metavar="SWEEP.py")
parser.add_argument("--launcher", default="local", choices=run.LAUNCHERS)
parser.add_argument("--folder", type=folder, help="of runs and table; default runs/sweeps/ and the file's name")
parser.add_argument("--slots", type=count, help="jobs at a time; default one for each group of GPUs, and 1 on a CPU")
parser.add_argument("--devices", type=count, help="GPUs of a job, or on a CPU the devices that JAX is to see")
parser.add_argument("--retries", type=int, default=1, help="of a job that crashes")
parser.add_argument("--slurm", action="append", default=[], metavar="NAME=VALUE", help="of sbatch, as partition=gpu")
parser.add_argument("--wandb_file", type=expanded, help="writes a file for `wandb sweep`, and runs nothing")
parser.add_argument("--point", type=int, help="runs this point only, counted from 0; `--config.KEY=VALUE ...` another")


def program(argv: list[str]) -> int:
    options, rest = parser.parse_known_args(argv[1:])
    for argument in rest:
        if not argument.startswith("--config.") or "=" not in argument:
            parser.error(f"unrecognized argument: {argument}")
    if options.retries < 0:
        raise UsageError(f"--retries={options.retries} must not be negative.")
    folder = options.folder or Path("runs/sweeps") / Path(options.file).stem
    sweep = read(options.file)
    if options.launcher == "print":
        print(*run.commands(run.missing(sweep, folder)), sep="\n")
        return 0
    if options.wandb_file:
        if sweep.halving:
            raise UsageError("W&B's agents do not halve as this sweep does; leave halving out for --wandb_file.")
        runs.plan(sweep, folder)  # its mistakes are said now
        export(sweep, options.file, folder, options.wandb_file)
        print(f"wandb sweep {options.wandb_file}")
        return 0
    launcher = run.launcher(options.launcher, folder, options.slots, options.devices, run.named(options.slurm))
    if options.point is not None or rest:
        return run.one(sweep, _point(sweep, options.point, rest), folder, launcher, options.retries)
    return run.run(sweep, Path(options.file), folder, launcher, options.retries)


def _point(sweep, number: int | None, rest: list[str]) -> dict:
    """That of a number, or of flags."""
    if number is None:
        return dict(argument.removeprefix("--config.").split("=", 1) for argument in rest)
    points = sweep.points()
    if rest or not 0 <= number < len(points):
        raise UsageError(f"--point={number}: the sweep has points 0 to {len(points) - 1}; and no flags go with it.")
    return points[number]


if __name__ == "__main__":
    sys.exit(exit_status(program, None))
