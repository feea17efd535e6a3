"""`score_sde.configs` and `score_sde.experiments` in a clone. Imports nothing heavy.

A wheel has these two folders inside the package. A clone has them beside it, and there the finder of this module
answers for them, so that a config or an experiment has one name wherever it is run.
"""

import importlib.util
import sys
from pathlib import Path

PACKAGE = Path(__file__).parent.parent
BESIDE = ("configs", "experiments")


def folder(name: str) -> Path:
    """The folder of `configs` or `experiments`, inside the package or beside it."""
    inside = PACKAGE / name
    return inside if inside.is_dir() else PACKAGE.parent / name


def located(path: str | Path) -> Path:
    """The path where it is a file, else that of the package's own `configs/...` or `experiments/...`."""
    first, *rest = Path(path).parts or ("",)
    return folder(first).joinpath(*rest) if first in BESIDE and not Path(path).is_file() else Path(path)


class Finder:
    """A finder of `sys.meta_path` for the two packages; Python finds what is inside them by itself."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        """The package in its folder beside `score_sde`; None for any other name."""
        package, _, last = name.partition(".")
        if package != PACKAGE.name or last not in BESIDE:
            return None
        init = folder(last) / "__init__.py"
        return importlib.util.spec_from_file_location(name, init, submodule_search_locations=[str(init.parent)])


def register():
    """Lets the two packages be imported from here on, from this clone and not from another that is installed."""
    if Finder not in sys.meta_path:
        sys.meta_path.insert(0, Finder)
