"""Reader of files by `torch.save`, without PyTorch and without running anything from the file.

A .pth file is a zip: a pickle of plain containers, and a raw file for each tensor's storage. Before PyTorch 1.6 it was
a sequence of pickles, one of them the object's, followed by the storages. A pickle may name only the few functions and
classes below, each of which this module replaces; any other name refuses the file. A pickle can change only objects
made for it, and the result consists of plain containers, numbers and arrays.
"""

import math
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from score_sde.errors import UsageError

# By hand: PyTorch would be the largest dependency of all, for files of which a user reads one or two.

BEFORE_1_6 = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # magic number at the start of older files


def is_pytorch(path: Path) -> bool:
    """Whether a file looks like the output of `torch.save`, of any version. Raises `OSError` if it cannot be read."""
    with Path(path).open("rb") as file:
        start = file.read(len(BEFORE_1_6))
    return start == BEFORE_1_6 or zipfile.is_zipfile(path)


def read(path: Path) -> Any:
    """The saved object, with tensors as numpy arrays.

    Raises `UsageError` if the file is damaged, or holds anything but plain containers, numbers and tensors; `OSError`
    if it cannot be read.
    """
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                content = _read_zip(archive)
        else:
            with Path(path).open("rb") as file:
                content = _read_before_1_6(file, Path(path).stat().st_size)
        _check_plain(content)
    except UsageError as error:
        raise UsageError(f"Refused {path}: {error}") from None
    except OSError:
        raise
    except Exception as error:
        raise UsageError(f"{path} is not a whole PyTorch file ({type(error).__name__}: {error}).") from error
    return content


def _read_zip(archive: zipfile.ZipFile) -> Any:
    pickles = [n for n in archive.namelist() if n.count("/") == 1 and n.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise UsageError("it is a zip, but not a PyTorch file; if the file is inside it, unpack it first.")
    (name,) = pickles
    root = name.removesuffix("data.pkl")

    def storage(key: str, dtype: np.dtype, size: int) -> np.ndarray:
        _check_stored(archive, f"{root}data/{key}")
        return _whole(key, archive.read(f"{root}data/{key}"), dtype, size)

    _check_stored(archive, name)
    with archive.open(name) as file:
        return _Unpickler(file, storage).load()


def _read_before_1_6(file: Any, file_size: int) -> Any:
    """Reads the older format: magic number, version and machine; the object; the storages' keys, sizes and numbers."""
    if not file.read(len(BEFORE_1_6)) == BEFORE_1_6:
        raise UsageError("it is not a PyTorch file.")
    version, machine = _Unpickler(file).load(), _Unpickler(file).load()
    if version != 1001 or type(machine) is not dict or machine.get("little_endian") is not True:
        raise UsageError("its format is neither that of PyTorch 1.6 nor the one before.")
    start, kinds, storages = file.tell(), {}, {}

    def note(key: str, dtype: np.dtype, size: int) -> None:
        if size * dtype.itemsize > file_size:
            raise UsageError(f"it is cut short: storage {key} of {size} numbers is larger than the file.")
        kinds[key] = dtype, size

    _Unpickler(file, note, without_tensors=True).load()
    for key in _Unpickler(file).load():
        dtype, size = kinds[key]
        stored = int.from_bytes(file.read(8), "little")
        storages[key] = _whole(key, file.read(min(size, stored) * dtype.itemsize), dtype, size)
    file.seek(start)
    return _Unpickler(file, lambda key, *_: storages[key]).load()


def _whole(key: str, content: bytes, dtype: np.dtype, size: int) -> np.ndarray:
    storage = np.frombuffer(content[: len(content) // dtype.itemsize * dtype.itemsize], dtype)
    if len(storage) != size:
        raise UsageError(f"it is cut short: storage {key} holds {len(storage)} of {size} numbers.")
    return storage


class _Storage(str):
    """Name of the type of a storage's numbers."""

    __slots__ = ()


STORAGES = {
    "FloatStorage": _Storage("<f4"),
    "DoubleStorage": _Storage("<f8"),
    "HalfStorage": _Storage("<f2"),
    "LongStorage": _Storage("<i8"),
    "IntStorage": _Storage("<i4"),
    "ShortStorage": _Storage("<i2"),
    "CharStorage": _Storage("i1"),
    "ByteStorage": _Storage("u1"),
    "BoolStorage": _Storage("?"),
}


class _OrderedDict(dict):
    """A dictionary without attributes; PyTorch's own attributes, versions of modules, are dropped."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        pass


class _DType:
    """A scalar's type as numpy pickles it: its name, and a state that begins with (version, byte order)."""

    __slots__ = ("name", "order")

    def __init__(self, name: str, *_):
        self.name, self.order = name, "<"

    def __setstate__(self, state: tuple) -> None:
        self.order = state[1]


class _Unpickler(pickle.Unpickler):
    """An unpickler that knows only the names of this module.

    storage: (key, dtype, size) -> the numbers of a storage. without_tensors: replace tensors by None.
    """

    def __init__(self, file: Any, storage: Callable | None = None, *, without_tensors: bool = False):
        super().__init__(file)
        self._storage, self._without_tensors = storage, without_tensors
        self._storages: dict[str, np.ndarray] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        function = REBUILD.get(f"{module}.{name}")
        if function is None:
            raise UsageError(f"it asks for {module}.{name}, and no code is run for a file's sake.")
        if function is _tensor and self._without_tensors:
            return lambda *_: None
        return lambda *args: function(*args)  # a pickle could set attributes of the function itself

    def persistent_load(self, pid: tuple) -> np.ndarray | None:
        kind, dtype, key, _, size, *view = pid
        plain = type(dtype) is _Storage and type(key) is str and type(size) is int and view in ([], [None])
        if kind != "storage" or not plain or not re.fullmatch(r"\w+", key) or self._storage is None:
            raise UsageError("it refers to something that is no tensor.")
        if key not in self._storages:
            self._storages[key] = self._storage(key, np.dtype(str(dtype)), size)
        return self._storages[key]


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_) -> np.ndarray:  # as the file has them
    numbers = (offset, *shape, *strides)
    if type(storage) is not np.ndarray or storage.ndim != 1 or any(type(n) is not int for n in numbers):
        raise UsageError("it holds a tensor without a storage.")
    last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    if min(numbers) < 0 or math.prod(shape) > len(storage) or (0 not in shape and last >= len(storage)):
        raise UsageError(f"a tensor of shape {shape} reaches beyond its storage.")
    steps = [stride * storage.itemsize for stride in strides]
    return np.lib.stride_tricks.as_strided(storage[offset:], shape, steps).copy()


def _scalar(dtype: Any, data: Any) -> float | int | bool:
    if type(dtype) is not _DType or not re.fullmatch(r"[biuf][1248]", dtype.name) or dtype.order not in ("<", ">", "|"):
        raise UsageError("it holds a numpy scalar that is no number.")
    return np.frombuffer(data, np.dtype(dtype.name).newbyteorder(dtype.order))[0].item()


def _encode(text: Any, encoding: Any) -> bytes:
    if type(text) is not str or encoding != "latin1":
        raise UsageError(f"it holds bytes in the encoding {encoding}.")
    return text.encode("latin1")


REBUILD: dict[str, Callable] = {
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": lambda data, *_: data,
    "collections.OrderedDict": _OrderedDict,
    "numpy.dtype": _DType,
    "numpy.core.multiarray.scalar": _scalar,
    "numpy._core.multiarray.scalar": _scalar,
    "_codecs.encode": _encode,
}


def _check_stored(archive: zipfile.ZipFile, name: str) -> None:
    """Raises `UsageError` for a compressed part: `torch.save` compresses nothing, so no file can grow when read."""
    if archive.getinfo(name).compress_type != zipfile.ZIP_STORED:
        raise UsageError(f"its part {name} is compressed, which torch.save never does.")


def _check_plain(value: Any) -> None:
    if type(value) in (dict, _OrderedDict):
        for key, item in value.items():
            _check_plain(key)
            _check_plain(item)
    elif type(value) in (list, tuple):
        for item in value:
            _check_plain(item)
    elif type(value) not in (str, bytes, int, float, bool, type(None), np.ndarray):
        raise UsageError("it holds something else than containers, numbers and tensors.")
