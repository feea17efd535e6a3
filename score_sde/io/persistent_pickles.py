"""Reader of the pickles of EDM and EDM2, without PyTorch and without running anything from the file.

Such a file is a pickle of a dictionary, whose networks are pickled together with the source text of their classes. The
text is ignored. A network becomes a `PickledModule`: the name of its class, its constructor's arguments, its other
attributes that are plain values, and its tensors under the names of its state dict.
"""

import io
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from score_sde.errors import UsageError
from score_sde.io import pytorch_files
from score_sde.io.unpickler import TENSORS, ArrayRecord, PlainDict, Record, Unpickler, check_plain

REBUILD = "torch_utils.persistence._reconstruct_persistent_obj"
FIELDS = {"type", "version", "module_src", "class_name", "state"}  # of an object with its source text
LAYERS = re.compile(
    r"torch\.nn\.modules\.[a-z_]+\.[A-Z]\w*"
)  # PyTorch's own classes, of which only the tensors are kept
PLAIN = (str, int, float, bool, type(None), list, tuple)


class PickledModule(NamedTuple):
    """A network of a pickle: its class, the arguments that it was made with, its plain attributes, and its tensors."""

    name: str
    arguments: dict[str, Any]
    attributes: dict[str, Any]
    tensors: dict[str, np.ndarray]


class _Names(Mapping):
    """The names that these pickles may have."""

    _names: Mapping[str, Any]

    def __init__(self, names: Mapping[str, Any]):
        self._names = names

    def __getitem__(self, name: str) -> Any:
        return Record if LAYERS.fullmatch(name) else self._names[name]

    def __iter__(self):
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _object(fields: Any) -> Record:
    """An object that is stored with the source text of its class."""
    if type(fields) not in (dict, PlainDict) or set(fields) != FIELDS or type(fields["class_name"]) is not str:
        raise UsageError("it holds an object in a form that EDM's code does not write.")
    return Record(fields["class_name"], fields["state"])


def _storage(content: Any) -> np.ndarray:
    """The storage of a tensor, which is a file by `torch.save` inside the pickle."""
    if type(content) is not bytes:
        raise UsageError("it holds a storage that is no bytes.")
    storage = pytorch_files.read_before_1_6(io.BytesIO(content), len(content))
    if type(storage) is not np.ndarray or storage.ndim != 1:
        raise UsageError("it holds a file inside that is no storage of numbers.")
    return storage


NAMES = _Names(
    TENSORS
    | {
        REBUILD: _object,
        "torch.storage._load_from_bytes": _storage,
        "dnnlib.util.EasyDict": PlainDict,
        "argparse.Namespace": PlainDict,  # flags of DiT's training; a dictionary without them here
        "numpy.core.multiarray._reconstruct": lambda *_: ArrayRecord(),
        "numpy._core.multiarray._reconstruct": lambda *_: ArrayRecord(),
        "numpy.ndarray": PlainDict,  # an argument of the line above
    }
)
KINDS = (Record, ArrayRecord)  # of objects in a content besides plain ones


def is_persistent(path: Path) -> bool:
    """Whether a file looks like a pickle of EDM's code. Raises `OSError` if it cannot be read."""
    if zipfile.is_zipfile(path):
        return False
    with Path(path).open("rb") as file:
        start = file.read(65536)
    return start[:1] == b"\x80" and not start.startswith(pytorch_files.BEFORE_1_6) and b"torch_utils" in start


def read(path: Path) -> dict[str, Any]:
    """The dictionary in a pickle; its networks are `PickledModule`s, and everything else is plain.

    Raises `UsageError` if the file is damaged, or asks for anything but the names above; `OSError` if it cannot be
    read.
    """
    try:
        content = Unpickler(io.BytesIO(Path(path).read_bytes()), NAMES).load()
        check_plain(content, KINDS)
        if type(content) not in (dict, PlainDict):
            raise UsageError("it is no dictionary of networks.")
        return _with_modules(content)
    except UsageError as error:
        raise UsageError(f"Refused {path}: {error}") from None
    except OSError:
        raise
    except Exception as error:
        raise UsageError(f"{path} is not a whole pickle ({type(error).__name__}: {error}).") from error


def read_torch(path: Path) -> Any:
    """The object in a file by `torch.save`, as `pytorch_files.read` gives it; networks of EDM's training states too.

    Raises `UsageError` as `read` does, and `OSError`.
    """
    content = pytorch_files.read(path, NAMES, KINDS)
    try:
        return _with_modules(content) if type(content) in (dict, PlainDict) else content
    except UsageError as error:
        raise UsageError(f"Refused {path}: {error}") from None
    except (AttributeError, TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not a whole file of EDM's code ({type(error).__name__}: {error}).") from error


def _with_modules(content: dict[str, Any]) -> dict[str, Any]:
    """The dictionary with its networks as `PickledModule`s."""
    return {key: _module(value) if _is_module(value) else value for key, value in content.items()}


def _is_module(value: Any) -> bool:
    return type(value) is Record and type(value.state) in (dict, PlainDict) and "_modules" in value.state


def _module(record: Record) -> PickledModule:
    tensors, state = {}, record.state
    _collect(record, "", tensors, set())
    arguments = state.get("_init_kwargs")
    if type(arguments) not in (dict, PlainDict) or state.get("_init_args"):
        raise UsageError(f"its {record.name} does not say by which arguments it was made.")
    attributes = {
        name: value for name, value in state.items() if type(value) in PLAIN and not str(name).startswith("_")
    }
    return PickledModule(record.name, dict(arguments), attributes, tensors)


def _collect(module: Record, prefix: str, tensors: dict[str, np.ndarray], visited: set[int]) -> None:
    """Adds the tensors of a module and of those in it, each of which occurs once."""
    if not _is_module(module) or id(module) in visited:
        raise UsageError("its modules are no tree of modules.")
    visited.add(id(module))
    left_out = module.state.get("_non_persistent_buffers_set", ())
    for section in ("_parameters", "_buffers"):
        for name, value in module.state.get(section, {}).items():
            if value is None or name in left_out:
                continue
            if type(value) is not np.ndarray:
                raise UsageError(f"its {prefix}{name} is no tensor.")
            tensors[f"{prefix}{name}"] = value
    for name, inner in module.state["_modules"].items():
        if inner is not None:
            _collect(inner, f"{prefix}{name}.", tensors, visited)
