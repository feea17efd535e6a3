"""Labels in a file beside the images: dataset.json of EDM and StyleGAN, metadata.jsonl or .csv of Hugging Face.

Where there is such a file, the folders of the images are shards, not classes.
"""

import csv
import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from score_sde.errors import UsageError

Label = int | str
NUMBER = re.compile(r"-?\d{1,9}")
OTHERWISE = "config.data.labels=folders, or none"


class Table(NamedTuple):
    """The labels of a file.

    labels: by the path of an image relative to the file's folder; None if the file has none.
    """

    name: str
    labels: dict[str, Label] | None


def read(folder: Path) -> Table | None:
    """The table in a folder; None without one. Raises `UsageError` for one that cannot be read, and for two."""
    tables = []
    for name, rows_of in READERS.items():
        path = folder / name
        if not path.is_file():
            continue
        try:
            rows = rows_of(path)
        except UsageError:
            raise
        except Exception as error:  # JSON, CSV and codecs raise various types
            raise UsageError(f"Cannot read {path} ({error}); mend it, or set {OTHERWISE}.") from error
        if rows is not None:
            tables.append(Table(name, _labels(path, rows)))
    if len(tables) > 1:
        names = " and ".join(table.name for table in tables)
        raise UsageError(f"{folder} has {names}; keep the one that holds the labels, or set {OTHERWISE}.")
    return tables[0] if tables else None


def _labels(path: Path, rows: Iterable[tuple[str, Any]]) -> dict[str, Label] | None:
    """Labels by name of the image: integers, also where they are written as text, or names."""
    labels: dict[str, Any] = {}
    for name, label in rows:
        if isinstance(label, bool) or not isinstance(label, int | str) or label == "":
            raise UsageError(
                f"{path} gives {name} the label {json.dumps(label)[:40]}, which is no integer or name; mend it, or set "
                f"{OTHERWISE}."
            )
        if labels.setdefault(name, label) != label:
            raise UsageError(f"{path} gives {name} two labels; remove one, or set {OTHERWISE}.")
    texts = [label for label in labels.values() if isinstance(label, str)]
    if all(NUMBER.fullmatch(text) for text in texts):
        labels = {name: int(label) for name, label in labels.items()}
    elif len(texts) < len(labels):
        raise UsageError(f"{path} has integers and names as labels; use one of these, or set {OTHERWISE}.")
    return labels or None


def _dataset_json(path: Path) -> list[tuple[str, Any]] | None:
    """Rows of {"labels": [["00000/img00000000.png", 6], ...]}, or null; None for another program's file."""
    content = json.loads(path.read_text(encoding="utf-8-sig"))
    if not isinstance(content, dict) or "labels" not in content:
        return None
    return [(_relative(name), label) for name, label in content["labels"] or ()]


def _jsonl(path: Path) -> list[tuple[str, Any]] | None:
    with path.open(encoding="utf-8-sig") as lines:
        return _of_rows([json.loads(line) for line in lines if line.strip()])


def _csv(path: Path) -> list[tuple[str, Any]] | None:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return _of_rows(list(csv.DictReader(file)))


def _of_rows(rows: list[Mapping[str, Any]]) -> list[tuple[str, Any]] | None:
    """Rows of file_name and, if any row has it, label; None for another program's file."""
    if not all("file_name" in row for row in rows):
        return None
    labelled = any("label" in row for row in rows)
    return [(_relative(row["file_name"]), row.get("label")) for row in rows] if labelled else []


def _parquet(path: Path) -> None:
    raise UsageError(f"{path} is not read; write it as metadata.csv, or set {OTHERWISE}.")


def _relative(name: str) -> str:
    return Path(name.replace("\\", "/")).as_posix()


READERS: dict[str, Callable[[Path], list[tuple[str, Any]] | None]] = {
    "dataset.json": _dataset_json,
    "metadata.jsonl": _jsonl,
    "metadata.csv": _csv,
    "metadata.parquet": _parquet,
}
