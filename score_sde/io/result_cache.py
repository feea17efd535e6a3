"""Rounds of long computations, one file each, so that a killed computation is not repeated from its start."""

import json
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from score_sde.io.atomic_files import read_arrays, replace
from score_sde.runtime.sharding import all_agree, is_first

Arrays = dict[str, np.ndarray]
Keep = Callable[[str, Callable[[], Arrays]], Arrays]  # a `Rounds`, or `compute_anew`


def compute_anew(name: str, compute: Callable[[], Arrays]) -> Arrays:
    """Computes a round and keeps nothing."""
    return compute()


class Rounds:
    """The rounds `folder`/`stem`.NAME.npz of one computation, and `stem`.json with its identity.

    identity: what the numbers depend on, with files by their content. Rounds of another identity are removed, with
    the files made from them: `stem`.png, `stem`.figures.json, and those of `evaluation.exports`. arrays: names of the
    arrays in each round.
    """

    def __init__(self, folder: Path, stem: str, identity: Mapping[str, Any], arrays: Collection[str]):
        self.folder, self.stem, self.arrays = Path(folder), stem, set(arrays)
        text = json.dumps(identity, indent=2, sort_keys=True) + "\n"
        path = self.folder / f"{stem}.json"
        same = path.exists() and path.read_text(encoding="utf-8", errors="replace") == text
        if not all_agree(same):
            if is_first():
                for stale in list(self._own()):
                    stale.unlink(missing_ok=True)
            replace(path, lambda file: file.write(text.encode()))
            all_agree(True)  # the other processes wait

    def _own(self) -> Iterator[Path]:
        """The existing files of this stem, but not those of longer stems."""
        own = re.compile(re.escape(self.stem) + r"((\.[0-9_]+)?\.npz|\.arr_0\.npz|\.png|\.figures\.json)")
        names = self.folder.iterdir() if self.folder.is_dir() else ()
        yield from (path for path in names if own.fullmatch(path.name))
        yield from (path for path in (self.folder / self.stem).rglob("*.png") if path.stem.isdigit())

    def __call__(self, name: str, compute: Callable[[], Arrays]) -> Arrays:
        """The result of `compute`, from the round's file if that is there and whole.

        name: digits, "" for a single round.
        """
        path = self.folder / (f"{self.stem}.{name}.npz" if name else f"{self.stem}.npz")
        stored = self._read(path)
        if all_agree(stored is not None):
            return stored
        arrays = compute()
        replace(path, lambda file: np.savez(file, **arrays))
        return arrays

    def _read(self, path: Path) -> Arrays | None:
        arrays = read_arrays(path)
        return arrays if arrays is not None and arrays.keys() == self.arrays else None


def mean_and_error(values: np.ndarray) -> dict[str, Any]:
    """Mean and standard error over images of values (repeats, n), from their means over the repeats."""
    per_image = values.mean(axis=0, dtype=np.float64)
    error = float(per_image.std(ddof=1) / math.sqrt(len(per_image))) if len(per_image) > 1 else None
    return {"mean": float(per_image.mean()), "standard_error": error, "images": len(per_image)}
