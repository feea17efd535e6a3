"""Pairs of noise and image that a trained model's ODE joins: the folder that holds them, and the images as a source.

FOLDER/pairs.json          seed and number of the noise, teacher, and the digest of each shard
FOLDER/images-00000.npy    float32 (n, h, w, c), in [0, 1] up to what the teacher overshoots
FOLDER/labels-00000.npy    another array of each entry of the condition that the teacher was given

The noise is not stored, because it is a function of the pair's index: see `pair_keys`. A shard is written as a whole,
and entered in pairs.json after it, so that a program that was killed goes on with the next one.
"""

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np

from score_sde.array_types import Float, Keys
from score_sde.config.arguments import check_arguments
from score_sde.config.keys import SEEDS
from score_sde.data.sources import Batch, Source, check_inside, hashed
from score_sde.errors import UsageError
from score_sde.io import atomic_files, json_files
from score_sde.randomness import Indices, Stream, sample_keys, stream

NAME = "pairs.json"
FORM = {"seed": int, "number": int, "shape": list, "size": int, "teacher": dict, "shards": list}
ADVICE = "make the pairs again by score_sde --mode=pairs, in another folder"


@check_arguments
def pair_keys(seed: Annotated[int, SEEDS], number: Annotated[int, "[0, 4294967296)"], indices: Indices) -> Keys:
    """Keys of the noise of pairs, one for each index; `Stream.NOISE` of a key draws it.

    number: tells the teachers of one seed apart.

        import numpy as np
        from score_sde.data.pairs import pair_keys
        from score_sde.randomness import Stream, normal, stream

        eps = normal(stream(pair_keys(42, 0, np.arange(4)), Stream.NOISE), (8, 8, 1))
    """
    return sample_keys(stream(stream(jax.random.key(seed), Stream.PRIOR), number), indices)


def described(folder: Path) -> dict[str, Any]:
    """The content of a folder's pairs.json; {} without one. Raises `UsageError` for another file."""
    return json_files.read(folder / NAME, FORM, tuple(FORM), ADVICE)


def write_shard(folder: Path, description: dict[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Writes the next shard, and enters it in pairs.json and in the description. arrays: `images` and entries."""
    number, shards = len(description["shards"]), description["shards"]
    for name, array in arrays.items():
        path = _file(folder, name, number)
        atomic_files.replace(path, lambda file, array=array: np.save(file, array), "--out")
    shards.append({"pairs": len(arrays["images"]), "digests": {name: _digest(each) for name, each in arrays.items()}})
    write_description(folder, description)


def write_description(folder: Path, description: dict[str, Any]) -> None:
    """Replaces pairs.json."""
    text = json.dumps(description, indent=1).encode()
    atomic_files.replace(folder / NAME, lambda file: file.write(text), "--out")


@check_arguments
class Pairs(Source):
    """The images of a folder of pairs, float32 in [0, 1], and their conditions; they are read as they are needed.

    seed, number: of the noise, for `pair_keys`. Raises `UsageError` for a folder without pairs, and for a shard that is
    not the one that was written.
    """

    digested = "pairs"

    def __init__(self, folder: Path):
        self._description = described(folder)
        if not self._description.get("shards"):
            raise UsageError(f"{folder} holds no pairs; make them by score_sde --mode=pairs --out={folder}.")
        self.seed, self.number = self._description["seed"], self._description["number"]
        self.image_shape = tuple(self._description["shape"])
        self._arrays = [_opened(folder, i, shard) for i, shard in enumerate(self._description["shards"])]
        self._first = np.cumsum([0, *(len(arrays["images"]) for arrays in self._arrays)])

    def __len__(self) -> int:
        return int(self._first[-1])

    def take(self, indices: np.ndarray) -> Batch:
        check_inside(indices, len(self))
        taken = {name: self._rows(name, indices) for name in self._arrays[0]}
        return Batch(taken.pop("images"), taken or None)

    def _rows(self, name: str, indices: np.ndarray) -> np.ndarray:
        first = self._arrays[0][name]
        rows = np.empty((len(indices), *first.shape[1:]), first.dtype)
        shards = np.searchsorted(self._first, indices, side="right") - 1
        for shard in np.unique(shards):
            own = shards == shard
            rows[own] = self._arrays[shard][name][indices[own] - self._first[shard]]
        return rows

    @functools.cached_property
    def labels(self) -> np.ndarray | None:
        """The label of each pair, int (n,); None without any."""
        if "labels" not in self._arrays[0]:
            return None
        return np.concatenate([arrays["labels"] for arrays in self._arrays])

    def digest(self) -> str:
        """The digest of all images, conditions and noise."""
        return hashed([self.seed, self.number, self._description["shards"]])


def _opened(folder: Path, number: int, shard: Mapping[str, Any]) -> dict[str, Float[np.ndarray, "..."]]:
    """The arrays of a shard, on disk. Raises `UsageError` unless they are those that were written."""
    arrays = {}
    for name, digest in shard["digests"].items():
        path = _file(folder, name, number)
        try:
            arrays[name] = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise UsageError(f"Cannot read {path} ({error}); {ADVICE}.") from error
        if _digest(arrays[name]) != digest:
            raise UsageError(f"{path} has changed since it was written; {ADVICE}.")
    return arrays


def _digest(array: np.ndarray) -> str:
    return hashed([list(array.shape), str(array.dtype)], np.ascontiguousarray(array))


def _file(folder: Path, name: str, number: int) -> Path:
    return folder / f"{name}-{number:05d}.npy"
