"""Reader of safetensors files: 8 bytes of length, a header in JSON, and the tensors' numbers one after the other.

It is by hand, since the format is these three parts, and the library would be a dependency for files of which a user
reads one or two.
"""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from score_sde.errors import UsageError
from score_sde.io.unpickler import widened

LARGEST_HEADER = 100_000_000  # bytes; the library's limit too
TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "U8": "u1", "BOOL": "?"}


def is_safetensors(path: Path) -> bool:
    """Whether a file looks like a safetensors file. Raises `OSError` if it cannot be read."""
    with Path(path).open("rb") as file:
        start = file.read(9)
    return len(start) == 9 and start[8:] == b"{" and int.from_bytes(start[:8], "little") < LARGEST_HEADER


def read(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a file by name; bfloat16 as float32.

    Raises `UsageError` if the file is damaged or has numbers of another type; `OSError` if it cannot be read.
    """
    content = memoryview(Path(path).read_bytes())
    try:
        length = int.from_bytes(content[:8], "little")
        if length > len(content) - 8:
            raise UsageError("it is cut short: its header is longer than the file.")
        header, numbers = json.loads(bytes(content[8 : 8 + length])), content[8 + length :]
        if type(header) is not dict:
            raise UsageError("its header is no table of tensors.")
        return {name: _tensor(name, value, numbers) for name, value in header.items() if name != "__metadata__"}
    except UsageError as error:
        raise UsageError(f"Refused {path}: {error}") from None
    except Exception as error:
        raise UsageError(f"{path} is not a whole safetensors file ({type(error).__name__}: {error}).") from error


def _tensor(name: str, value: dict[str, Any], numbers: memoryview) -> np.ndarray:
    kind, shape, (start, end) = value["dtype"], value["shape"], value["data_offsets"]
    if kind not in TYPES:
        raise UsageError(f"its {name} has numbers of type {kind}; convert them to F32.")
    dtype = np.dtype(TYPES[kind])
    if any(type(n) is not int or n < 0 for n in (start, end, *shape)):
        raise UsageError(f"its {name} has a size that is no number.")
    if end > len(numbers) or end - start != math.prod(shape) * dtype.itemsize:
        raise UsageError(f"it is cut short, or {name} is of another shape than it says.")
    array = np.frombuffer(numbers[start:end], dtype)
    return (widened(array) if kind == "BF16" else array).reshape(shape)
