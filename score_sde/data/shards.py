"""Files that together hold one data set: a file, those of a folder, or those of a pattern; and their splits by name."""

import itertools
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path

from score_sde.data.containers import Shard
from score_sde.data.split_names import SPLITS, TEST, TRAINING, VALIDATION
from score_sde.errors import UsageError, shown

MOST = 100_000  # files of a pattern
FOLDERS = {TRAINING: "train/", TEST: "test/", VALIDATION: "validation/", "": ""}
BRACES = re.compile(r"\{([^{}]*)\}")
RANGE = re.compile(r"(\d+)\.\.(\d+)")


def of_pattern(pattern: str) -> list[Path]:
    """The files of a pattern such as `shards-{000..010}.tar` or `{train,test}.zip`, in its order.

    Raises `UsageError` for files that do not exist, and for more than 100,000.
    """
    texts = BRACES.split(pattern)  # every second one is inside of braces
    choices = [_choices(text) if i % 2 else [text] for i, text in enumerate(texts)]
    number = math.prod(map(len, choices))
    if number > MOST:
        raise UsageError(f"config.data.path={pattern} is a pattern of {number:,} files or more; give at most {MOST:,}.")
    paths = [Path("".join(parts)) for parts in itertools.product(*choices)]
    missing = [path for path in paths if not path.is_file()]
    if missing:
        more = f" and {len(missing) - 1:,} more" if len(missing) > 1 else ""
        raise UsageError(f"Missing {missing[0]}{more}, by config.data.path={pattern}; add files, or mend the pattern.")
    return paths


def _choices(braces: str) -> list[str]:
    """The texts that braces stand for; of a range at most one more than a pattern may have."""
    if not (bounds := RANGE.fullmatch(braces)):
        return braces.split(",")
    first, last = bounds.groups()
    width = len(first) if first.startswith("0") or last.startswith("0") else 0
    step = 1 if int(first) <= int(last) else -1
    numbers = itertools.islice(range(int(first), int(last) + step, step), MOST + 1)
    return [str(number).zfill(width) for number in numbers]


def of_folder(root: Path, files: Sequence[Path]) -> list[Shard]:
    """The files beneath a folder, with the split of each by the names of file and folders.

    Raises `UsageError` where it is not clear which files belong together, or to which split.
    """
    splits = [_split(path.relative_to(root)) for path in files]
    places = {_place(path.relative_to(root)): path for path in reversed(files)}
    if len(places) > 1:
        one, other = sorted(places.values())[:2]
        raise UsageError(
            f"{shown(root)} has {shown(one.relative_to(root))} and {shown(other.relative_to(root))}, in folders that "
            f"are no splits; give config.data.path={shown(root / sorted(places)[0])} to read one of these."
        )
    by_split = dict(zip(reversed(splits), reversed(files), strict=True))  # the first file of each
    partner = "test" if TRAINING in by_split else "train"
    evaluation = TEST in by_split or VALIDATION in by_split
    if evaluation != (TRAINING in by_split) and (evaluation or "" in by_split):
        path = next(path for split, path in by_split.items() if split)
        raise UsageError(
            f"{shown(root)} has {shown(path.relative_to(root))}, by its name of a split, and no file of a split "
            f"{partner}; add one, or give config.data.path={shown(path)} to have it alone."
        )
    return _shards(files, splits)


def of_files(files: Sequence[Path]) -> list[Shard]:
    """The files that a user names, each with its split by names of file and folders; one split alone is the whole."""
    base = os.path.commonpath([path.parent for path in files])
    splits = [_split(path.relative_to(base)) for path in files]
    if TRAINING not in splits or not {TEST, VALIDATION} & set(splits):
        return [Shard(path, "") for path in files]
    return _shards(files, splits)


def _shards(files: Sequence[Path], splits: Sequence[str]) -> list[Shard]:
    whole = len(set(splits)) == 1
    return [Shard(path, "" if whole else FOLDERS[split]) for path, split in zip(files, splits, strict=True)]


def _split(path: Path) -> str:
    """The split that the words of a file's name say, such as train-00000-of-00003; otherwise the folder nearest to it.

    Raises `UsageError` for names of two splits.
    """
    words = [SPLITS[word] for word in re.split("[^a-z]+", path.stem.lower()) if word in SPLITS]
    if len(set(words)) > 1:
        raise UsageError(f"{shown(path)} has two splits in its name; rename it.")
    above = [SPLITS[part.lower()] for part in reversed(path.parent.parts) if part.lower() in SPLITS]
    return next(iter(words + above), "")


def _place(path: Path) -> str:
    """The folder of a file, without the folders that are splits."""
    return "/".join(part for part in path.parent.parts if part.lower() not in SPLITS)
