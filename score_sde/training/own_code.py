"""Checks of the files that define a user's own pieces, which are part of a run like its config.

launch.json holds, for each import path of the config, the file that defines it and the file's digest. Only that file is
compared, and not its imports.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from score_sde import __version__
from score_sde.config import FREE_SECTIONS, Config
from score_sde.errors import UsageError, warn
from score_sde.io.workdir import CODE, before_and_now, read, saved_steps
from score_sde.runtime.sharding import is_first
from score_sde.training.pieces import code_of


def check_same(
    workdir: Path, code: Mapping[str, Mapping[str, str]], allowed: Collection[str] = ()
) -> dict[str, tuple[Any, Any]]:
    """The allowed changes of files of import paths since the workdir's last launch: {CODE: (before, now)}, {} if none.

    code: from `pieces.code_of`. Raises `UsageError` if the workdir has checkpoints, and the file that defines its
    process, network or another part of its training has changed.
    """
    if not saved_steps(workdir):
        return {}
    changed = _changed(workdir, code)
    for key, (before, now) in changed.items():
        if CODE not in allowed:
            raise UsageError(
                f"{now['file']}, which defines {key}={now['path']}, has changed since {workdir} was last trained with "
                f"it (then {before['file']}); restore it, or train in another --workdir; or go on with it, by "
                f"--allow_change={CODE}."
            )
    return before_and_now(CODE, changed)


def _changed(workdir: Path, code: Mapping[str, Mapping[str, str]]) -> dict[str, tuple[Any, Any]]:
    """The entries of launch.json for a training's import paths that have changed, and those of now."""
    recorded = read(workdir, "launch.json").get("code", {})
    return {
        key: (recorded[key], now)
        for key, now in code.items()
        if key in recorded and key.split(".")[0] not in FREE_SECTIONS and recorded[key]["digest"] != now["digest"]
    }


def is_as_launched(workdir: Path, config: Config) -> bool:
    """Whether the code is that of the workdir's last launch: the same version, and the same files of import paths.

    Then the network has the parameters that were saved, and need not be traced to compare their shapes.
    """
    version = read(workdir, "launch.json").get("versions", {}).get("score_sde")
    return version == __version__ and not _changed(workdir, code_of(config))


def check_code(workdir: Path, config: Config) -> None:
    """Warns of a file that has changed since the training. Raises `UsageError` if a piece cannot be imported."""
    try:
        code = code_of(config)
    except UsageError as error:
        recorded = read(workdir, "launch.json").get("code", {}).values()
        where = "".join(f" {each['path']} was in {each['file']}." for each in recorded if each["path"] in str(error))
        raise UsageError(f"{error}{where}") from error
    for key, (_, now) in _changed(workdir, code).items():
        if is_first():
            warn(f"{now['file']}, which defines {key}={now['path']}, has changed since {workdir} was trained with it.")
