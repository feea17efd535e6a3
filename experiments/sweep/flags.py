"""Flags of experiments that start runs by a launcher, and values of the config that apply to all of their runs."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from score_sde.experiments.sweep.run import LAUNCHERS, launcher, named

from score_sde.cli.experiment import count
from score_sde.errors import UsageError


def add_launcher(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of a launcher, from which `start_of` makes it."""
    parser.add_argument("--launcher", choices=LAUNCHERS[:2], default="local")
    parser.add_argument("--slots", type=count, help="as of experiments.sweep, like the next three")
    parser.add_argument("--devices", type=count)
    parser.add_argument("--retries", type=int, default=1)
    parser.add_argument("--slurm", action="append", default=[], metavar="NAME=VALUE")


def parsed(parser: argparse.ArgumentParser, argv: Sequence[str]) -> tuple[argparse.Namespace, dict[str, str]]:
    """The options of a command line, and its values --config.KEY=VALUE by key. Raises `UsageError` for others."""
    options, rest = parser.parse_known_args(argv[1:])
    for argument in rest:
        if not argument.startswith("--config.") or "=" not in argument:
            raise UsageError(f"Unknown argument {argument}; --help shows those there are, besides --config.KEY=VALUE.")
    if options.retries < 0:
        raise UsageError(f"--retries={options.retries} must not be negative.")
    return options, dict(argument.removeprefix("--config.").split("=", 1) for argument in rest)


def start_of(options: argparse.Namespace, folder: Path) -> Any:
    """The launcher that the options describe, for runs in a folder."""
    return launcher(options.launcher, folder, options.slots, options.devices, named(options.slurm))
