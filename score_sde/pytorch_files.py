"""Reads what `torch.save` writes, without PyTorch and without running anything from the file.

A .pth file is a zip: a pickle of plain containers, and one raw file for each tensor's storage. The pickle may name only
the few things below, each of which is rebuilt by a function of this module; any other name refuses the file.
"""

import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from score_sde.errors import UsageError

STORAGES = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}
BEFORE_1_6 = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the magic number that older files begin with


def is_pytorch(path: Path) -> bool:
    """Whether a file looks like one of `torch.save`'s, of any version."""
    with Path(path).open("rb") as file:
        start = file.read(len(BEFORE_1_6))
    return start == BEFORE_1_6 or zipfile.is_zipfile(path)


def read(path: Path) -> Any:
    """The saved object, with tensors as numpy arrays.

    Raises `UsageError` if the file is damaged, older than PyTorch 1.6, or holds anything but plain containers, numbers
    and tensors.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            (name,) = (n for n in archive.namelist() if n.count("/") == 1 and n.endswith("/data.pkl"))
            with archive.open(name) as file:
                return _Unpickler(file, archive, name.removesuffix("data.pkl")).load()
    except UsageError as error:
        raise UsageError(f"Refused {path}: {error}") from None
    except Exception as error:
        with Path(path).open("rb") as file:
            old = file.read(len(BEFORE_1_6)) == BEFORE_1_6
        if old:
            advice = "save it again with a newer one: torch.save(torch.load(FILE, weights_only=True), NEW)"
            raise UsageError(f"{path} is in the format of PyTorch before 1.6; {advice}.") from None
        raise UsageError(f"{path} is not a whole PyTorch file ({type(error).__name__}: {error}).") from error


class _Unpickler(pickle.Unpickler):
    def __init__(self, file, archive: zipfile.ZipFile, root: str):
        super().__init__(file)
        self.archive, self.root = archive, root
        self.storages: dict[str, np.ndarray] = {}
        # Made anew for each file: whatever a pickle does to them ends with it.
        self.allowed: dict[str, Callable] = {
            "torch._utils._rebuild_tensor_v2": _tensor,
            "torch._utils._rebuild_parameter": lambda data, *_: data,
            "collections.OrderedDict": type("OrderedDict", (dict,), {}),
            "numpy.dtype": type("dtype", (_DType,), {}),
            "numpy.core.multiarray.scalar": _scalar,
            "numpy._core.multiarray.scalar": _scalar,
            "_codecs.encode": _encode,
        }

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        if f"{module}.{name}" in self.allowed:
            return self.allowed[f"{module}.{name}"]
        raise UsageError(f"it asks for {module}.{name}, and no code is run for a file's sake.")

    def persistent_load(self, pid: tuple) -> np.ndarray:
        kind, dtype, key, _, size = pid
        if kind != "storage" or not re.fullmatch(r"\w+", key):
            raise UsageError(f"it refers to {kind} {key!r}, which is no tensor.")
        if key not in self.storages:
            storage = np.frombuffer(self.archive.read(f"{self.root}data/{key}"), np.dtype(dtype))
            if len(storage) != size:
                raise UsageError(f"it is cut short: storage {key} holds {len(storage)} of {size} numbers.")
            self.storages[key] = storage
        return self.storages[key]


def _tensor(storage: np.ndarray, offset: int, shape: tuple, strides: tuple, *_) -> np.ndarray:
    last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    if min((offset, *shape, *strides)) < 0 or (0 not in shape and last >= len(storage)):
        raise UsageError(f"a tensor of shape {shape} reaches beyond its storage.")
    steps = [stride * storage.itemsize for stride in strides]
    return np.lib.stride_tricks.as_strided(storage[offset:], shape, steps).copy()


class _DType:
    """What numpy pickles a scalar's type as: its name, and a state that begins (version, byte order)."""

    def __init__(self, name: str, *_):
        self.name, self.order = name, "<"

    def __setstate__(self, state: tuple) -> None:
        self.order = state[1]


def _scalar(dtype: _DType, data: bytes) -> float | int | bool:
    if not re.fullmatch(r"[biuf][1248]", dtype.name):
        raise UsageError(f"it holds a numpy scalar of type {dtype.name}, which is no number.")
    return np.frombuffer(data, np.dtype(dtype.name).newbyteorder(dtype.order))[0].item()


def _encode(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise UsageError(f"it holds bytes in the encoding {encoding}.")
    return text.encode(encoding)
