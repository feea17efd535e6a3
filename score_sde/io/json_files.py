"""Reading of JSON files. People edit them, kills cut them short, and other programs write files of the same name."""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from score_sde.errors import UsageError, shown

NEW = "restore it, or start in a new --workdir"
ANY = "*"  # in a form: every key


def read(
    path: Path, form: Mapping[str, Any] | None = None, needs: Collection[str] = (), advice: str = NEW
) -> dict[str, Any]:
    """The object in a JSON file; {} if there is no such file.

    form: a type for each key that the object may have, or a form of an object there, which has all its keys. needs:
    keys without which it is the file of another program. advice: what to do about a file that cannot be used. Raises
    `UsageError`, with the file and the reason, for one.

        launch = read(Path("launch.json"), {"run_id": str, "imported": {"step": int}})
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        if path.is_symlink():
            raise UsageError(f"{shown(path)} is a link to a file that is gone; {advice}.") from None
        return {}
    except OSError as error:
        raise UsageError(f"Cannot read {shown(path)} ({error.strerror}); {advice}.") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{shown(path)} is not valid JSON ({error}); {advice}.") from error
    if problem := _misfit(content, form or {}, needs, "it"):
        raise UsageError(f"{shown(path)} is not a file of this package: {problem}; {advice}.")
    return content


def _misfit(value: Any, form: Any, needs: Collection[str], name: str) -> str:
    """The first way in which a value does not have a form; "" if it has it."""
    if not isinstance(form, Mapping):
        is_right = isinstance(value, form) and not isinstance(value, bool)
        return "" if is_right else f"{name} is {_kind(value)}, not {_kind(form())}"
    if not isinstance(value, dict):
        return f"{name} is {_kind(value)}, not an object"
    if missing := [key for key in needs if key not in value and key != ANY]:
        return f"{name} has no '{missing[0]}'"
    forms = {key: form.get(key, form.get(ANY)) for key in value}
    inner = ((key, each, each if isinstance(each, Mapping) else ()) for key, each in forms.items() if each is not None)
    problems = (_misfit(value[key], each, within, f"'{key}'") for key, each, within in inner)
    return next((problem for problem in problems if problem), "")


def _kind(value: Any) -> str:
    kinds = {dict: "an object", list: "a list", str: "text", bool: "true or false", int: "a number", float: "a number"}
    return kinds.get(type(value), "null")
