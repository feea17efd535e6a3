"""Pictures in parquet files, as Hugging Face's datasets writes them: columns of {bytes, path}, of labels, of captions.

The rows of a parquet file are compressed in groups, so a group is read whole for any picture in it. Groups that were
read last stay in memory.
"""

import io
import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NamedTuple

from score_sde.data.containers import (
    CAPTION_COLUMNS,
    Archive,
    Entry,
    Listing,
    Shard,
    Window,
    check_size,
    pieces,
    unreadable,
)
from score_sde.errors import UsageError, shown

CACHE_BYTES = 2**28  # of the groups that stay in memory; the newest stays in any case
GROUP_BYTES = 2**31  # of one group
ROWS = 8  # that are read at once: bytes are counted before all of a group is in memory
IMAGES, CLASSES = ("image", "img"), ("label", "labels")  # names of the column that is meant among several
Pictures = list[tuple[bytes | None, str | None]]  # (bytes, path)


class Place(NamedTuple):
    """Position of a picture: number of the file, number of the group of rows in it, and row in that."""

    shard: int
    group: int
    row: int


class Table(NamedTuple):
    """A file's metadata and the names of its columns of images, labels and captions.

    class_names: as datasets stores them. unread: other columns.
    """

    metadata: Any
    image: str
    label: str | None
    class_names: list[str] | None
    caption: str | None
    unread: list[str]


class Parquet(Archive):
    """Parquet files of one table.

    Raises `UsageError` for files that are damaged, that have no column of images, or several that could be it.
    """

    kind = "parquet"
    classes_are_folders = False

    def __init__(self, root: Path, shards: Sequence[Shard], *, labels: bool = True, captions: bool = True):
        super().__init__(root, shards)
        self._tables = [_table(shard.path, labels, captions) for shard in shards]
        i = next((i for i, table in enumerate(self._tables) if table.label), 0)
        first = self._tables[i]
        for table, shard in zip(self._tables, shards, strict=True):
            if table.image != first.image or (table.label and table[2:4] != first[2:4]):
                raise UsageError(
                    f"{shown(shard.path)} has other columns of images and labels, or other classes, than "
                    f"{shown(shards[i].path)}; give the files of one table as config.data.path."
                )
        self._groups = _Groups(self._group)
        self._identities: dict[tuple[int, int], tuple[int, int]] = {}
        images = [entry for i, shard in enumerate(shards) for entry in self._entries(i, shard)]
        labelled = f"by column {first.label}" if any(entry.label is not None for entry in images) else ""
        captioned = next((f"by column {table.caption}" for table in self._tables if table.caption), "")
        unread = [f"column {shown(name)}" for name in first.unread]
        names = first.class_names if labelled else None
        self.listing = Listing(images, {}, self.split_folders(), 0, labelled, (), names, captioned, unread)

    def open(self, place: Place) -> io.BufferedIOBase:
        content, path = self._groups.of(place[:2])[place.row]
        if content is None:
            raise ValueError(f"it has no bytes, only the path {shown(path)}" if path else "it is empty")
        check_size(len(content))
        return io.BytesIO(content)

    def identity(self, place: Place) -> tuple[int, int]:
        group = place[:2]
        if group not in self._identities:  # twice by two threads does no harm
            window = Window(self._path(place), *_extent(self._tables[place.shard], place.group))
            with io.BufferedReader(window) as file:
                self._identities[group] = pieces(file)
        return self._identities[group]

    def name(self, entry: Entry) -> str:
        return f"row {entry.path.rpartition('#')[2]} of {shown(self._path(entry.place))}"

    def close(self) -> None:
        self._groups.clear()

    def _number(self, place: Place) -> int:
        return place.shard

    def _entries(self, i: int, shard: Shard) -> Iterator[Entry]:
        table = self._tables[i]
        labels, captions, number = _labels(shard.path, table), _of_rows(shard.path, table, table.caption), 0
        for group in range(table.metadata.num_row_groups):
            for row in range(table.metadata.row_group(group).num_rows):
                label = labels[number] if labels else None
                caption = captions[number] if captions else None
                yield Entry(f"{shard.folder}{shard.path.stem}#{number}", Place(i, group, row), label, caption)
                number += 1

    def _group(self, key: tuple[int, int]) -> Pictures:
        shard, group = key
        table, size = self._tables[shard], 0
        result: Pictures = []
        try:
            for value in _values(self.shards[shard].path, table.image, table.metadata, [group]):
                pair = (value.get("bytes"), value.get("path")) if isinstance(value, Mapping) else (value, None)
                size += len(pair[0] or b"")
                if size > GROUP_BYTES:
                    raise ValueError(f"there are more than {GROUP_BYTES:,} bytes")
                result.append(pair)
            if len(result) != table.metadata.row_group(group).num_rows:
                raise ValueError("rows are missing")
        except Exception as error:  # various types for what is damaged
            reason = str(error).partition("\n")[0]
            raise ValueError(f"in its group of rows: {reason}") from error
        return result


class _Groups:
    """Groups of rows that were read last; each is read by one thread while others wait for it."""

    def __init__(self, read: Callable[[tuple[int, int]], Pictures]):
        self._read, self._lock = read, threading.Lock()
        self._kept: OrderedDict[tuple[int, int], Future] = OrderedDict()

    def of(self, key: tuple[int, int]) -> Pictures:
        with self._lock:
            group, is_new = self._kept.get(key), key not in self._kept
            if is_new:
                group = self._kept[key] = Future()
            self._kept.move_to_end(key)
        if is_new:
            try:
                group.set_result(self._read(key))
            except BaseException as error:
                group.set_exception(error)
            self._trim()
        return group.result()

    def clear(self) -> None:
        with self._lock:
            self._kept.clear()

    def _trim(self) -> None:
        with self._lock:
            size = 0
            for key in reversed(list(self._kept)):
                group = self._kept[key]
                if not group.done():
                    continue
                failed = group.exception() is not None
                size += 0 if failed else sum(len(content or b"") for content, _ in group.result())
                if failed or (size > CACHE_BYTES and key != next(reversed(self._kept))):
                    del self._kept[key]


def rows(content: bytes, columns: Sequence[str]) -> list[dict[str, Any]] | None:
    """Rows of a table in memory, of those of the columns that it has; None without the first of these."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(io.BytesIO(content)) as file:
        present = [name for name in columns if name in file.schema_arrow.names]
        if columns[0] not in present:
            return None
        return [row for batch in file.iter_batches(columns=present) for row in batch.to_pylist()]


def _values(path: Path, column: str, metadata: Any, groups: Sequence[int]) -> Iterator[Any]:
    import pyarrow.parquet as pq

    # A reader for each call, since threads may not share one; to open it costs little beside a group.
    with pq.ParquetFile(path, metadata=metadata) as file:
        for batch in file.iter_batches(ROWS, row_groups=groups, columns=[column], use_threads=False):
            yield from batch.column(0).to_pylist()


def _table(path: Path, labels: bool, captions: bool) -> Table:
    import pyarrow.parquet as pq

    try:
        metadata = pq.read_metadata(path)
        schema = metadata.schema.to_arrow_schema()
    except Exception as error:  # various types for what is damaged
        raise unreadable(path, error) from error
    if metadata.num_rows > path.stat().st_size:
        raise UsageError(f"{shown(path)} claims {metadata.num_rows:,} rows, more than its bytes; make it again.")
    features = _features(schema)
    image = _column(path, schema, "images", _images(schema, features), IMAGES)
    if image is None:
        raise UsageError(_without_images(path, schema))
    classes = [name for name, feature in features.items() if feature.get("_type") == "ClassLabel"]
    classes = classes or [name for name in CLASSES if name in schema.names]
    label = _column(path, schema, "classes", classes, CLASSES) if labels else None
    names = features.get(label, {}).get("names")
    texts = [name for name in CAPTION_COLUMNS if name in schema.names and _is_text(schema.field(name).type)]
    caption = texts[0] if texts and captions and texts[0] != label else None
    unread = [name for name in schema.names if name not in (image, label, caption)]
    table = Table(metadata, image, label, names, caption, unread)
    for group in range(metadata.num_row_groups):
        size = metadata.row_group(group).column(_leaf(table)).total_uncompressed_size
        if size > GROUP_BYTES:
            raise UsageError(
                f"{shown(path)} has a group of rows of {size:,} bytes, which are read at once for any of its images; "
                "write it again with smaller ones (row_group_size=100)."
            )
    return table


def _features(schema: Any) -> dict[str, dict[str, Any]]:
    """The types of columns that datasets has stored; empty for files of other programs."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {name: of for name, of in features.items() if isinstance(of, dict) and name in schema.names}
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}


def _images(schema: Any, features: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Columns that can hold images: those that datasets says do, else {bytes, path}, else bytes."""
    structs = [field.name for field in schema if _is_struct(field.type)]
    plain = [field.name for field in schema if _is_binary(field.type)]
    stored = [name for name, feature in features.items() if feature.get("_type") == "Image"]
    return [name for name in stored if name in structs + plain] or structs or plain


def _is_struct(kind: Any) -> bool:
    import pyarrow as pa

    return pa.types.is_struct(kind) and any(field.name == "bytes" and _is_binary(field.type) for field in kind)


def _is_binary(kind: Any) -> bool:
    import pyarrow as pa

    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _column(path: Path, schema: Any, kind: str, candidates: Sequence[str], names: Sequence[str]) -> str | None:
    """The one candidate, or the one with such a name. Raises `UsageError` where several could be meant."""
    named = [name for name in names if name in candidates]
    if len(candidates) > 1 and not named:
        also = ", or set config.data.labels=none" if kind == "classes" else ""
        raise UsageError(
            f"{shown(path)} has {len(candidates)} columns of {kind}, {', '.join(candidates)}; rename the one to read "
            f"to {names[0]}{also}."
        )
    return next(iter([*named, *candidates]), None)


def _without_images(path: Path, schema: Any) -> str:
    columns = ", ".join(f"{field.name} ({field.type})" for field in schema)
    if any(part in name.lower() for name in schema.names for part in ("url", "uri")):
        return (
            f"{shown(path)} has addresses of images, and not images ({columns}); download them (img2dataset does) and "
            "give what that writes as config.data.path."
        )
    return (
        f"{shown(path)} has no column of images, which are bytes or {{bytes, path}}, but {columns}; give the files of "
        "a data set of images as config.data.path."
    )


def _leaf(table: Table) -> int:
    """Number of the stored column that holds the bytes of the images."""
    schema = table.metadata.schema
    paths = [schema.column(i).path for i in range(len(schema))]
    return paths.index(table.image) if table.image in paths else paths.index(f"{table.image}.bytes")


def _extent(table: Table, group: int) -> tuple[int, int]:
    """(offset, size) in the file of the images of a group."""
    column = table.metadata.row_group(group).column(_leaf(table))
    pages = [column.data_page_offset, column.dictionary_page_offset]
    return min(page for page in pages if page is not None), column.total_compressed_size


def _labels(path: Path, table: Table) -> list[Any] | None:
    """The label of each row; None for those without one, which datasets has as -1, and None if there is no column."""
    labels = _of_rows(path, table, table.label)
    if labels is not None and table.class_names is not None:
        labels = [None if label == -1 else label for label in labels]
        for row, label in enumerate(labels):
            if label is not None and not 0 <= label < len(table.class_names):
                raise UsageError(
                    f"Row {row} of {shown(path)} has the label {label}, and there are names of "
                    f"{len(table.class_names)} classes; mend it, or set config.data.labels=none."
                )
    return labels


def _of_rows(path: Path, table: Table, column: str | None) -> list[Any] | None:
    """The value of a column in each row; None without a column."""
    if column is None:
        return None
    try:
        values = list(_values(path, column, table.metadata, range(table.metadata.num_row_groups)))
        if len(values) != table.metadata.num_rows:
            raise ValueError(f"{table.metadata.num_rows:,} rows have {len(values):,} of column {column}")
    except Exception as error:  # various types for what is damaged
        raise unreadable(path, error) from error
    return values
