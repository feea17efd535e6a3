"""Experiments of the package by their names: `score_sde --mode=experiment --name=digits`."""

import argparse
import ast
import contextlib
import importlib
import math
from pathlib import Path

from score_sde.errors import UsageError, one_of
from score_sde.runtime import clone
from score_sde.runtime.backend import expanded


def run(argv: list[str], name: str | None) -> int | None:
    """Runs an experiment with the rest of a command line, or lists all where there is no name. Raises `UsageError`."""
    programs = {path.parent.name: path for path in sorted(clone.folder("experiments").glob("*/__main__.py"))}
    if not name:
        for each, path in programs.items():
            print(f"{each:12s} {_first_sentence(path)}")
        return None
    if not programs:
        raise UsageError("This installation has no experiments; install score_sde from a clone or a wheel.")
    module = importlib.import_module(f"score_sde.experiments.{one_of('experiment', name, programs)}.__main__")
    return module.program(argv)


def count(text: str, least: int = 1) -> int:
    """The number of a flag of an experiment, `least` or more, for argparse."""
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"{text} is no whole number of {least} or more")
    return int(text)


def folder(text: str) -> Path:
    """The folder of a flag of an experiment, which may not be there yet, for argparse."""
    path = expanded(text)
    if path.is_file():
        raise argparse.ArgumentTypeError(f"{path} is a file; name a folder")
    return path


def positive(text: str) -> float:
    """The positive number of a flag of an experiment, for argparse."""
    with contextlib.suppress(ValueError):
        if 0 < float(text) < math.inf:
            return float(text)
    raise argparse.ArgumentTypeError(f"{text} is no positive number")


def _first_sentence(path: Path) -> str:
    return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))).splitlines()[0]
