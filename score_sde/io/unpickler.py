"""Unpickler that runs nothing from a file: the core of the readers of PyTorch's files and of EDM's pickles.

A pickle may name only the functions and classes in the reader's table, each of which is the reader's own; any other
name refuses the file. A pickle can change only objects made for it, and takes memory in proportion to its length.
"""

import math
import pickle
import pickletools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from score_sde.errors import UsageError

Names = Mapping[str, Any]  # "module.name" -> a function, which a pickle calls, or one of the classes of `CLASSES`


class StorageType(str):
    """Name of the type of a storage's numbers, as NumPy writes it."""

    __slots__ = ()


class PlainDict(dict):
    """A dictionary without attributes; attributes that a pickle gives it are dropped."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        pass


class Record:
    """An object of a class that is not here: the class's name, "" where nothing depends on it, and its attributes."""

    __slots__ = ("name", "state")

    def __new__(cls, name: str = "", state: Any = None):
        record = super().__new__(cls)
        record.name, record.state = name, state
        return record

    def __setstate__(self, state: Any) -> None:
        self.state = state


class Unpickler(pickle.Unpickler):
    """An unpickler that knows only the names of a table.

    storage: (key, type, size) -> the numbers of a storage, for pickles that refer to storages.
    """

    def __init__(self, file: Any, names: Names, storage: Callable | None = None):
        super().__init__(file)
        self._file, self._names, self._storage = file, names, storage
        self._storages: dict[str, np.ndarray] = {}

    def load(self) -> Any:
        """The object. Raises `UsageError` for names that are not in the table, and others for damaged pickles."""
        start = self._file.tell()
        check_memo(self._file)
        self._file.seek(start)
        return super().load()

    def find_class(self, module: str, name: str) -> Any:
        replacement = self._names.get(f"{module}.{name}")
        if replacement is None:
            raise UsageError(f"it asks for {module}.{name}, and no code is run for a file's sake.")
        if isinstance(replacement, StorageType) or replacement in CLASSES:
            return replacement
        return lambda *args: replacement(*args)  # a pickle could set attributes of the function itself

    def persistent_load(self, pid: tuple) -> np.ndarray | None:
        kind, dtype, key, _, size, *view = pid
        plain = type(dtype) is StorageType and type(key) is str and type(size) is int and view in ([], [None])
        name = key.replace("_", "") if plain else ""
        if kind != "storage" or not (name.isascii() and name.isalnum()) or self._storage is None:
            raise UsageError("it refers to something that is no tensor.")
        if key not in self._storages:
            self._storages[key] = self._storage(key, dtype, size)
        return self._storages[key]


def check_memo(file: Any) -> None:
    """Reads a pickle's instructions without following them, to its end.

    Raises `UsageError` for one whose memo has gaps: a memo takes memory up to its largest number, which a pickle can
    write in five bytes.
    """
    count = 0
    for instruction, argument, _ in pickletools.genops(file):
        if instruction.name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            if argument is not None and argument > count:
                raise UsageError(f"it numbers its object {count} as {argument}, which no pickler does.")
            count += 1


def tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_) -> np.ndarray:  # as the file has them
    """A tensor as a view of its storage, which takes no further memory."""
    places = (offset, *shape, *strides)
    if type(storage) is not np.ndarray or storage.ndim != 1 or any(type(n) is not int for n in places):
        raise UsageError("it holds a tensor without a storage.")
    last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    if min(places) < 0 or math.prod(shape) > len(storage) or (0 not in shape and last >= len(storage)):
        raise UsageError(f"a tensor of shape {shape} reaches beyond its storage.")
    steps = [stride * storage.itemsize for stride in strides]
    return np.lib.stride_tricks.as_strided(storage[offset:], shape, steps, writeable=False)


class DType:
    """A scalar's type as numpy pickles it: its name, and a state that begins with (version, byte order)."""

    __slots__ = ("name", "order")

    def __init__(self, name: str, *_):
        self.name, self.order = name, "<"

    def __setstate__(self, state: tuple) -> None:
        self.order = state[1]


class ArrayRecord:
    """An array as numpy pickles it; its numbers come as a state of (version, shape, type, Fortran order, bytes)."""

    __slots__ = ("state",)

    def __init__(self):
        self.state = None

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, fortran, content = state
        if type(content) is not bytes:
            raise UsageError("it holds a numpy array that is none of numbers.")
        self.state = np.frombuffer(content, number_type(dtype)).reshape(shape, order="F" if fortran is True else "C")


CLASSES = (PlainDict, Record, DType)  # what a pickle may make by itself, and all have a `__setstate__`


def number_type(dtype: Any) -> np.dtype:
    """The type of numbers that a pickle describes. Raises `UsageError` for other types."""
    plain = type(dtype) is DType and type(dtype.name) is str and type(dtype.order) is str
    if not plain or dtype.name not in NUMBERS or dtype.order not in ("<", ">", "|", "="):
        raise UsageError("it holds a numpy scalar or array that is no number.")
    return np.dtype(dtype.name).newbyteorder(dtype.order)


def scalar(dtype: Any, data: Any) -> float | int | bool:
    """A number as numpy pickles it."""
    return np.frombuffer(data, number_type(dtype))[0].item()


def encode(text: Any, encoding: Any) -> bytes:
    """Bytes as pickles before protocol 3 have them: of a number, since a pickle could have long ones copied often."""
    if type(text) is not str or encoding != "latin1" or len(text) > 1000:
        raise UsageError(f"it holds bytes in the encoding {encoding}.")
    return text.encode("latin1")


NUMBERS = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")

STORAGES = {
    "torch.FloatStorage": StorageType("<f4"),
    "torch.DoubleStorage": StorageType("<f8"),
    "torch.HalfStorage": StorageType("<f2"),
    "torch.BFloat16Storage": StorageType("bfloat16"),
    "torch.LongStorage": StorageType("<i8"),
    "torch.IntStorage": StorageType("<i4"),
    "torch.ShortStorage": StorageType("<i2"),
    "torch.CharStorage": StorageType("i1"),
    "torch.ByteStorage": StorageType("u1"),
    "torch.BoolStorage": StorageType("?"),
}
TENSORS: dict[str, Any] = {
    **STORAGES,
    "torch._utils._rebuild_tensor_v2": tensor,
    "torch._utils._rebuild_parameter": lambda data, *_: data,
    "collections.OrderedDict": PlainDict,
    "numpy.dtype": DType,
    "numpy.core.multiarray.scalar": scalar,
    "numpy._core.multiarray.scalar": scalar,
    "_codecs.encode": encode,
}


def numbers(content: bytes | memoryview, kind: StorageType, key: str, size: int) -> np.ndarray:
    """The numbers of a storage, float32 for those that NumPy lacks. Raises `UsageError` where there are fewer."""
    brain = kind == "bfloat16"
    dtype = np.dtype("<u2" if brain else str(kind))
    storage = np.frombuffer(content[: len(content) // dtype.itemsize * dtype.itemsize], dtype)
    if len(storage) != size:
        raise UsageError(f"it is cut short: storage {key} holds {len(storage)} of {size} numbers.")
    return widened(storage) if brain else storage


def widened(halves: np.ndarray) -> np.ndarray:
    """The float32 numbers of which these are the upper halves: bfloat16."""
    return (halves.astype("<u4") << 16).view("<f4")


def width(kind: StorageType) -> int:
    """Bytes of a number in a file."""
    return 2 if kind == "bfloat16" else np.dtype(str(kind)).itemsize


def check_plain(value: Any, kinds: tuple[type, ...] = ()) -> None:
    """Raises `UsageError` if a value holds anything but plain containers, numbers, arrays and objects of these kinds.

    Each object is visited once, however often it occurs.
    """
    stack, seen = [value], set()
    while stack:
        item = stack.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if type(item) in (dict, PlainDict):
            stack += [*item.keys(), *item.values()]
        elif type(item) in (list, tuple, set, frozenset):
            stack += item
        elif type(item) in kinds:
            stack.append(item.state)
        elif type(item) not in (str, bytes, int, float, bool, type(None), np.ndarray):
            raise UsageError("it holds something else than containers, numbers and tensors.")
