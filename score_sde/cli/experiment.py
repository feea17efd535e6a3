"""Experiments of the package by their names: `score_sde --mode=experiment --name=digits`."""

import ast
import importlib
from pathlib import Path

from score_sde.errors import UsageError, one_of
from score_sde.runtime import clone


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


def _first_sentence(path: Path) -> str:
    return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))).splitlines()[0]
