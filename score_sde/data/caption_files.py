"""Captions beside pictures: metadata.jsonl, .csv or .parquet as Hugging Face has them, or a .txt for each picture.

| where                          | captions                                                                       |
|--------------------------------|--------------------------------------------------------------------------------|
| metadata.jsonl, .csv, .parquet | a column `text` or `caption`, beside `file_name` or `file`, relative to it     |
| a.txt beside a.png             | all of its text, but not white space at its ends                               |
| in a tar                       | KEY.txt beside KEY.png, see `score_sde.data.tar_files`                         |
| in a parquet file of pictures  | a column `text` or `caption`, see `score_sde.data.parquet_files`               |

Either all pictures of a split have a caption, or none has. Of two columns the first in this table counts. A file of
labels may be the same file: see `score_sde.data.label_files`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from score_sde.data import parquet_files
from score_sde.data.containers import CAPTION_COLUMNS, NO_CAPTIONS, Container, Entry, not_utf8, text_of
from score_sde.data.label_files import csv_rows, jsonl_rows, relative
from score_sde.data.sources import each
from score_sde.errors import UsageError, shown

CAPTIONS = ("auto", "none")  # values of `loading.Options.captions`
FILE_COLUMNS = ("file_name", "file")
SUFFIX = ".txt"
THREADS = 16  # that read files, which mostly wait for the disk
OTHERWISE = f"set {NO_CAPTIONS}"


class Captions(NamedTuple):
    """Captions of pictures, in the order of these.

    source: where they come from, in words. files: names of the files that hold them. unmatched: names of pictures that
    have a caption and do not exist.
    """

    texts: list[str | None]
    source: str
    files: frozenset[str] = frozenset()
    unmatched: Sequence[str] = ()


def read(container: Container, folder: str, entries: Sequence[Entry], *, skip: bool) -> Captions | None:
    """The captions of the pictures in a folder, "FOLDER/" or "" for the whole; None if they have none.

    skip: whether captions of pictures that do not exist are left out. Raises `UsageError` for such captions otherwise,
    for a picture without a caption, captions at two places, and a file that cannot be read.
    """
    ways = (_stored(container, entries), _of_table(container, folder, entries), _of_files(container, entries))
    present, where = [captions for captions in ways if captions], shown(container.root / folder)
    if not present:
        return None
    captions, *others = present
    if others:
        raise UsageError(f"{where} has captions {captions.source} and {others[0].source}; keep one, or {OTHERWISE}.")
    if None in captions.texts:
        name = container.name(entries[captions.texts.index(None)])
        raise UsageError(f"{name} has no caption {captions.source}, and other pictures have; add it, or {OTHERWISE}.")
    if captions.unmatched and not skip:
        raise UsageError(
            f"{where} has a caption {captions.source} of {shown(captions.unmatched[0])}, a picture that is missing; "
            f"add it or remove its line, leave such lines out with config.data.corrupt=skip, or {OTHERWISE}."
        )
    return captions


def _stored(container: Container, entries: Sequence[Entry]) -> Captions | None:
    texts = [entry.caption for entry in entries]
    return None if texts.count(None) == len(texts) else Captions(texts, container.listing.captioned)


def _of_files(container: Container, entries: Sequence[Entry]) -> Captions | None:
    """The captions in a .txt beside each picture; None if no picture has one."""
    others, texts = container.listing.others, [None] * len(entries)
    names = [str(PurePosixPath(entry.path).with_suffix(SUFFIX)) for entry in entries]
    present = [i for i, name in enumerate(names) if name in others]

    def look(number: int) -> None:
        i = present[number]
        path = shown(container.root / names[i])
        texts[i] = text_of(_readable(path, lambda: container.read(others[names[i]])), path)

    if not present:
        return None
    each(look, len(present), "reading captions", THREADS)
    return Captions(texts, f"by {SUFFIX}", frozenset(names[i] for i in present))


def _of_table(container: Container, folder: str, entries: Sequence[Entry]) -> Captions | None:
    """The captions in a metadata file of the folder, else in one of the whole container; None without any."""
    for above in dict.fromkeys((folder, "")):
        tables = {name: texts for name in ROWS if (texts := _by_name(container, above + name)) is not None}
        if len(tables) > 1:
            where, names = shown(container.root / above), " and ".join(tables)
            raise UsageError(f"{where} has captions in {names}; keep one of these, or {OTHERWISE}.")
        for name, texts in tables.items():
            pictures = {entry.path for entry in container.listing.images}
            unmatched = [above + picture for picture in texts if above + picture not in pictures]
            own = [texts.get(entry.path.removeprefix(above)) for entry in entries]
            return Captions(own, f"by {name}", frozenset([above + name]), unmatched)
    return None


def _by_name(container: Container, name: str) -> dict[str, str] | None:
    """The captions of a metadata file by the names of pictures, relative to it; None without a column of captions."""
    if (place := container.listing.others.get(name)) is None:
        return None
    path, of_format = shown(container.root / name), ROWS[PurePosixPath(name).name]
    rows = [
        (number, row if isinstance(row, Mapping) else {})
        for number, row in _readable(path, lambda: list(of_format(container.read(place))))
    ]
    if not any(column in row for _, row in rows for column in CAPTION_COLUMNS):
        return None
    captions: dict[str, str] = {}
    for number, row in rows:
        picture, text = (_cell(path, number, row, columns) for columns in (FILE_COLUMNS, CAPTION_COLUMNS))
        if None in row:
            raise UsageError(
                f"Line {number} of {path} has more fields than the first line; put captions with commas in quotes, or "
                f"{OTHERWISE}."
            )
        if relative(picture) in captions:
            raise UsageError(f"{path} gives {shown(picture)} two captions; remove one, or {OTHERWISE}.")
        captions[relative(picture)] = text
    return captions


def _cell(path: str, number: int, row: Mapping[str, Any], columns: Sequence[str]) -> str:
    value = next((row[column] for column in columns if column in row), None)
    if not isinstance(value, str):
        raise UsageError(
            f"Line {number} of {path} has no text in a column {' or '.join(columns)}; add it, or {OTHERWISE}."
        )
    return value


def _readable(path: str, read: Callable[[], Any]) -> Any:
    """The result of reading a file. Raises `UsageError`, which names the file, where that fails."""
    try:
        return read()
    except UnicodeDecodeError as error:
        raise not_utf8(path, error) from error
    except Exception as error:  # JSON, CSV, parquet and file systems raise various types
        reason = str(error).strip().partition("\n")[0]
        raise UsageError(f"Cannot read {path} ({reason}); mend it, or {OTHERWISE}.") from error


def _parquet_rows(content: bytes) -> Iterator[tuple[int, Any]]:
    tables = (parquet_files.rows(content, (column, *CAPTION_COLUMNS)) for column in FILE_COLUMNS)
    yield from enumerate(next((rows for rows in tables if rows is not None), []), 1)


# Files of captions, each a function from its content to numbered rows.
ROWS: dict[str, Callable[[bytes], Iterable[tuple[int, Any]]]] = {
    "metadata.jsonl": jsonl_rows,
    "metadata.csv": csv_rows,
    "metadata.parquet": _parquet_rows,
}
