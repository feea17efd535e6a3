"""Reader of files by `torch.save`, without PyTorch and without running anything from the file.

A .pth file is a zip: a pickle of plain containers, and a raw file for each tensor's storage. Before PyTorch 1.6 it was
a sequence of pickles, one of them the object's, followed by the storages. The names that a pickle may have are those of
`unpickler.TENSORS`; any other refuses the file. The result consists of plain containers, numbers and arrays.
"""

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from score_sde.errors import UsageError
from score_sde.io import unpickler
from score_sde.io.unpickler import TENSORS, Names, StorageType, Unpickler, check_plain, numbers

# By hand: PyTorch would be the largest dependency of all, for files of which a user reads one or two.

BEFORE_1_6 = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # magic number at the start of older files


def is_pytorch(path: Path) -> bool:
    """Whether a file looks like the output of `torch.save`, of any version. Raises `OSError` if it cannot be read."""
    with Path(path).open("rb") as file:
        start = file.read(len(BEFORE_1_6))
    return start == BEFORE_1_6 or zipfile.is_zipfile(path)


def read(path: Path, names: Names = TENSORS, kinds: tuple[type, ...] = ()) -> Any:
    """The saved object, with tensors as numpy arrays.

    names: the names that its pickle may have. kinds: further classes of objects in the result.
    Raises `UsageError` if the file is damaged, or holds anything but plain containers, numbers and tensors; `OSError`
    if it cannot be read.
    """
    size = Path(path).stat().st_size
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                content = _read_zip(archive, size, names)
        else:
            with Path(path).open("rb") as file:
                content = read_before_1_6(file, size, names)
        check_plain(content, kinds)
    except UsageError as error:
        raise UsageError(f"Refused {path}: {error}") from None
    except OSError:
        raise
    except Exception as error:
        raise UsageError(f"{path} is not a whole PyTorch file ({type(error).__name__}: {error}).") from error
    return content


def _read_zip(archive: zipfile.ZipFile, file_size: int, names: Names) -> Any:
    pickles = [n for n in archive.namelist() if n.count("/") == 1 and n.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise UsageError("it is a zip, but not a PyTorch file; if the file is inside it, unpack it first.")
    (name,) = pickles
    root, left = name.removesuffix("data.pkl"), file_size

    def part(name: str) -> bytes:
        nonlocal left
        left -= _stored_size(archive, name)
        if left < 0:
            raise UsageError("its parts are larger than the file.")
        return archive.read(name)

    def storage(key: str, kind: StorageType, size: int) -> np.ndarray:
        return numbers(part(f"{root}data/{key}"), kind, key, size)

    return Unpickler(io.BytesIO(part(name)), names, storage).load()


def read_before_1_6(file: Any, file_size: int, names: Names = TENSORS) -> Any:
    """The object in the older format: magic number, version and machine; the object; keys, sizes and numbers."""
    if not file.read(len(BEFORE_1_6)) == BEFORE_1_6:
        raise UsageError("it is not a PyTorch file.")
    version, machine = Unpickler(file, {}).load(), Unpickler(file, {}).load()
    if version != 1001 or type(machine) is not dict or machine.get("little_endian") is not True:
        raise UsageError("its format is neither that of PyTorch 1.6 nor the one before.")
    start, kinds, storages = file.tell(), {}, {}

    def note(key: str, kind: StorageType, size: int) -> None:
        if size * unpickler.width(kind) > file_size:
            raise UsageError(f"it is cut short: storage {key} of {size} numbers is larger than the file.")
        kinds[key] = kind, size

    without_tensors = {**names, "torch._utils._rebuild_tensor_v2": lambda *_: None}
    Unpickler(file, without_tensors, note).load()
    for key in Unpickler(file, {}).load():
        kind, size = kinds[key]
        stored = int.from_bytes(file.read(8), "little")
        content = file.read(min(size, stored) * unpickler.width(kind))
        storages[key] = numbers(content, kind, key, size)
    file.seek(start)
    return Unpickler(file, names, lambda key, *_: storages[key]).load()


def _stored_size(archive: zipfile.ZipFile, name: str) -> int:
    """Bytes of a part.

    Raises `UsageError` for a compressed one: `torch.save` compresses nothing, so no file can grow when read.
    """
    info = archive.getinfo(name)
    if info.compress_type != zipfile.ZIP_STORED:
        raise UsageError(f"its part {name} is compressed, which torch.save never does.")
    return info.file_size
