"""The command line of the package: `score_sde --mode=...`, or `python -m score_sde --mode=...`; see README.md."""

import functools
import importlib
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from score_sde.cli import experiment, modes
from score_sde.cli.command_line import arguments, config_names, overrides, parse, without
from score_sde.config import Config
from score_sde.runtime import backend
from score_sde.runtime.preemption import exit_status

HELP = ("--help", "-h", "--helpfull")


def main(argv: list[str] | None = None) -> int:
    """Runs this command line and returns its exit status."""
    return exit_status(_program, argv)


def _program(argv: list[str]) -> int | None:
    if not {"", os.getcwd()} & set(sys.path):  # `python -m` has it there; a user's own pieces are found in it
        sys.path.append(os.getcwd())
    argv = ["--explain=" if argument in ("--explain", "-explain") else argument for argument in argv]  # of every key
    argv = [in_home(argument) for argument in argv]
    written, asks = dict(arguments(argv)), not set(HELP).isdisjoint(argv)
    if asks and "mode" not in written:
        return print(modes.overview())
    mode, name = modes.mode_of(written.get("mode")), written["mode"]
    if asks and not written.get("name"):
        return print(modes.usage(name))
    if name == "experiment":
        return experiment.run([argv[0], *without(argv, ["mode", "name"])], written.get("name"))
    modes.check_flags(name, written)
    if name == "describe" and written.keys().isdisjoint(("config", "workdir")):
        return print("\n".join(config_names()))
    of_flags = functools.partial(_config_of, mode.config_of) if mode.config_of else None
    values = parse(argv, lambda flag_values: modes.define(name, flag_values), _stored, mode.config, of_flags)

    # These imports take seconds, and neither help nor a mistake in a flag waits for them.
    from score_sde.runtime import multihost
    from score_sde.training.recipe import check_overrides

    backend.keep_programs()
    if mode.config:
        check_overrides(values.config, overrides(values))
    processes = [values[each].value for each in modes.PROCESSES] if mode.processes else (None, 1, None)
    with multihost.together(*processes):
        backend.start()
        return _function(mode.run)(values)


def in_home(argument: str) -> str:
    """A flag whose value is a path of the home folder, --workdir=~/runs/x, with that folder; others as they are.

    A shell replaces a ~ that begins a word, and not one in the middle.
    """
    flag, equals, value = argument.partition("=")
    is_path = flag.lstrip("-") == "config" or modes.FLAGS.get(flag.lstrip("-"), modes.NO_FLAG).value in modes.PATHS
    return f"{flag}={backend.expanded(value)}" if is_path and equals and value.startswith("~") else argument


def _function(path: str) -> Callable:
    """The function of `cli/` at "module:function"."""
    module, _, function = path.partition(":")
    return getattr(importlib.import_module(f"score_sde.cli.{module}"), function)


def _config_of(path: str, written: Mapping[str, str | None]) -> Config:
    """The config that a mode's function makes of the flags."""
    backend.keep_programs()
    return _function(path)(written)


def _stored(directory: Path) -> Config:
    from score_sde.io.workdir import stored_config

    return stored_config(directory)
