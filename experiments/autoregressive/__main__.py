"""Trains an autoregressive transformer over pixels, and measures exact bits/dim, samples and completions."""

import argparse
import sys
from pathlib import Path

from score_sde.experiments.autoregressive.run import STEPS, run

from score_sde.cli.experiment import folder, positive
from score_sde.runtime.preemption import exit_status

parser = argparse.ArgumentParser(
    prog="score_sde --mode=experiment --name=autoregressive", description=__doc__, allow_abbrev=False
)
parser.add_argument("--workdir", type=folder, default=Path("runs/autoregressive"))
parser.add_argument("--steps", default=",".join(STEPS), help=f"to take, of {', '.join(STEPS)}; default all")
parser.add_argument("--temperature", type=positive, default=1.0, help="of samples; divides the logits; default 1")
parser.add_argument("--config", help="a file of configs; default experiments/autoregressive/config.py, the digits")


def program(argv: list[str]) -> None:
    options, rest = parser.parse_known_args(argv[1:])
    named = [f"--config={options.config}"] if options.config else []
    return run(options.workdir, options.steps.split(","), options.temperature, [*named, *rest])


if __name__ == "__main__":
    sys.exit(exit_status(program, None))
