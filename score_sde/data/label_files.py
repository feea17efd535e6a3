"""Labels in a file beside the images: dataset.json of EDM and StyleGAN; metadata.jsonl, .csv, .parquet of Hugging Face.

Where there is such a file, the folders of the images are shards, not classes.
"""

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from score_sde.data import parquet_files
from score_sde.data.containers import Container, Label
from score_sde.errors import UsageError, shown

NUMBER = re.compile(r"-?\d{1,9}")
OTHERWISE = "config.data.labels=folders, or none"


class Table(NamedTuple):
    """The labels of a file.

    labels: by the path of an image relative to the file's folder; None if the file has none.
    """

    name: str
    labels: dict[str, Label] | None


def read(container: Container, folder: str) -> Table | None:
    """The table in a folder, "FOLDER/" or "" for the whole; None without one.

    Raises `UsageError` for one that cannot be read, and for two.
    """
    tables = []
    for name, rows_of in READERS.items():
        place = container.listing.others.get(folder + name)
        if place is None:
            continue
        path = shown(container.root / (folder + name))
        try:
            rows = rows_of(container.read(place))
        except UsageError:
            raise
        except Exception as error:  # JSON, CSV and codecs raise various types
            reason = str(error).strip().partition("\n")[0]
            raise UsageError(f"Cannot read {path} ({reason}); mend it, or set {OTHERWISE}.") from error
        if rows is not None:
            tables.append(Table(name, _by_name(path, rows)))
    if len(tables) > 1:
        names = " and ".join(table.name for table in tables)
        where = shown(container.root / folder)
        raise UsageError(f"{where} has {names}; keep the one that holds the labels, or set {OTHERWISE}.")
    return tables[0] if tables else None


def of_one_kind(where: str, rows: Iterable[tuple[str, Any]]) -> list[Label]:
    """Labels of rows (name, label): integers, also where they are written as text, or names.

    Raises `UsageError` for other types, and for integers beside names.
    """
    labels = []
    for name, label in rows:
        if isinstance(label, bool) or not isinstance(label, int | str) or label == "":
            raise UsageError(
                f"{where} gives {name} the label {json.dumps(label, default=str)[:40]}, which is no integer or name; "
                f"mend it, or set {OTHERWISE}."
            )
        labels.append(label)
    texts = [label for label in labels if isinstance(label, str)]
    if all(NUMBER.fullmatch(text) for text in texts):
        return [int(label) for label in labels]
    if len(texts) < len(labels):
        raise UsageError(f"{where} has integers and names as labels; use one of these, or set {OTHERWISE}.")
    return labels


def _by_name(path: str, rows: Iterable[tuple[str, Any]]) -> dict[str, Label] | None:
    """Labels by name of the image; None if the file has none."""
    labels: dict[str, Label] = {}
    for name, label in rows:
        if labels.setdefault(name, label) != label:
            raise UsageError(f"{path} gives {name} two labels; remove one, or set {OTHERWISE}.")
    return dict(zip(labels, of_one_kind(path, labels.items()), strict=True)) or None


def _dataset_json(content: bytes) -> list[tuple[str, Any]] | None:
    """Rows of {"labels": [["00000/img00000000.png", 6], ...]}, or null; None for another program's file."""
    fields = json.loads(content.decode("utf-8-sig"))
    if not isinstance(fields, dict) or "labels" not in fields:
        return None
    return [(relative(name), label) for name, label in fields["labels"] or ()]


def _jsonl(content: bytes) -> list[tuple[str, Any]] | None:
    return _of_rows([row for _, row in jsonl_rows(content)])


def _csv(content: bytes) -> list[tuple[str, Any]] | None:
    return _of_rows([row for _, row in csv_rows(content)])


def _parquet(content: bytes) -> list[tuple[str, Any]] | None:
    rows = parquet_files.rows(content, ("file_name", "label"))
    return None if rows is None else _of_rows(rows)


def jsonl_rows(content: bytes) -> Iterator[tuple[int, Any]]:
    """The lines of a JSON Lines file that are not empty, each with its number from 1 on."""
    with _lines(content) as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield number, json.loads(line)


def csv_rows(content: bytes) -> Iterator[tuple[int, dict[str | None, Any]]]:
    """The rows of a CSV file by the names in its first line, each with the number of its last line, from 2 on.

    Fields beyond the last name are a list at None.
    """
    with _lines(content, newline="") as file:
        reader = csv.DictReader(file)
        for row in reader:
            yield reader.line_num, row


def _lines(content: bytes, **options: Any) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(content), encoding="utf-8-sig", **options)


def _of_rows(rows: list[Mapping[str, Any]]) -> list[tuple[str, Any]] | None:
    """Rows of file_name and, if any row has it, label; None for another program's file."""
    if not all("file_name" in row for row in rows):
        return None
    labelled = any("label" in row for row in rows)
    return [(relative(row["file_name"]), row.get("label")) for row in rows] if labelled else []


def relative(name: str) -> str:
    """The normal form of a picture's name in a file beside it, relative to the folder of both."""
    return Path(name.replace("\\", "/")).as_posix()


READERS: dict[str, Callable[[bytes], list[tuple[str, Any]] | None]] = {
    "dataset.json": _dataset_json,
    "metadata.jsonl": _jsonl,
    "metadata.csv": _csv,
    "metadata.parquet": _parquet,
}
