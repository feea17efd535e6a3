"""Rows of numbers by key, that are costly to compute: the last ones in memory, and all in one SQLite file on disk.

Several processes may use one file at a time, and a kill leaves it whole. Both parts are bounded in bytes.
"""

import contextlib
import sqlite3
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path

import numpy as np

from score_sde.errors import warn

MEMORY_BYTES = 2**28
DISK_BYTES = 2**30
WAIT = 30.0  # seconds for another process that writes
AT_ONCE = 500  # keys of a query; SQLite's limit was 999 for long
Row = tuple[bytes, bytes]  # key, and the numbers of an array


class Newest:
    """The arrays that were used last, up to so many bytes; the newest stays in any case.

    import numpy as np
    from score_sde.io.array_cache import Newest

    newest = Newest(80)  # bytes
    for name in "abc":
        newest.put(name, np.zeros(5))  # 40 bytes each
    newest.get("a"), newest.get("c")  # None, and the array
    """

    def __init__(self, max_bytes: int = MEMORY_BYTES):
        self.max_bytes, self.bytes = max_bytes, 0
        self._arrays: OrderedDict[Hashable, np.ndarray] = OrderedDict()

    def get(self, key: Hashable) -> np.ndarray | None:
        """The array of a key, which is the newest now; None if it is not kept."""
        if key in self._arrays:
            self._arrays.move_to_end(key)
        return self._arrays.get(key)

    def put(self, key: Hashable, array: np.ndarray) -> None:
        """Keeps an array, and leaves out the oldest ones that are too many."""
        self.bytes += array.nbytes - self._arrays.get(key, array[:0]).nbytes
        self._arrays[key] = array
        self._arrays.move_to_end(key)
        while self.bytes > self.max_bytes and len(self._arrays) > 1:
            self.bytes -= self._arrays.popitem(last=False)[1].nbytes


class RowFile:
    """Arrays (any, size) of one type by key in a file, up to so many bytes.

    path: the file, which is made with its folders if it is missing. A file that is full, damaged, or cannot be read or
    written is warned of once and not tried again; the caller computes what `get` does not have.

        import tempfile
        from pathlib import Path

        import numpy as np
        from score_sde.io.array_cache import RowFile

        with tempfile.TemporaryDirectory() as folder:
            rows = RowFile(Path(folder) / "rows.sqlite", size=3, dtype="<f2")
            rows.put({b"first": np.ones((2, 3))})
            rows.get([b"first", b"second"])  # {b"first": an array of shape (2, 3)}
    """

    def __init__(self, path: Path, size: int, dtype: str, max_bytes: int = DISK_BYTES):
        self.path, self._size, self._dtype, self._max_bytes = Path(path), size, np.dtype(dtype), max_bytes
        self._failed: set[Callable] = set()

    def get(self, keys: Sequence[bytes]) -> dict[bytes, np.ndarray]:
        """The arrays of those keys that the file has."""
        rows = self._tried(_select, keys) if keys else []
        return {key: np.frombuffer(numbers, self._dtype).reshape(-1, self._size) for key, numbers in rows}

    def put(self, arrays: Mapping[bytes, np.ndarray]) -> None:
        """Adds arrays; those of keys that the file has stay."""
        rows = [(key, np.asarray(array, self._dtype).tobytes()) for key, array in arrays.items()]
        if rows:
            self._tried(_insert, rows)

    def _tried(self, work: Callable[[sqlite3.Connection, Sequence], list[Row]], values: Sequence) -> list[Row]:
        """The result of work on the file, in one transaction; none if it fails, or has failed before."""
        if work in self._failed:
            return []
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.closing(sqlite3.connect(self.path, WAIT)) as connection, connection:
                (page,) = connection.execute("PRAGMA page_size").fetchone()
                connection.execute(f"PRAGMA max_page_count = {max(1, self._max_bytes // page)}")
                connection.execute("CREATE TABLE IF NOT EXISTS arrays (key BLOB PRIMARY KEY, numbers BLOB NOT NULL)")
                return work(connection, values)
        except (sqlite3.Error, OSError) as error:
            self._failed.add(work)
            warn(f"{self.path} cannot be used ({error}): its results are computed each time; remove it to start anew.")
            return []


def _select(connection: sqlite3.Connection, keys: Sequence[bytes]) -> list[Row]:
    parts = (keys[start : start + AT_ONCE] for start in range(0, len(keys), AT_ONCE))
    query = "SELECT key, numbers FROM arrays WHERE key IN ({})".format
    return [row for part in parts for row in connection.execute(query(", ".join("?" * len(part))), part)]


def _insert(connection: sqlite3.Connection, rows: Sequence[Row]) -> list[Row]:
    return connection.executemany("INSERT OR IGNORE INTO arrays VALUES (?, ?)", rows).fetchall()
