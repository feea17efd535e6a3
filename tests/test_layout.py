"""The package's rooms: a module imports only from the rooms below its own."""

import ast
import importlib
from pathlib import Path

import jax
import pytest

from score_sde.runtime import backend

PACKAGE = Path(__file__).parent.parent / "score_sde"

ROOMS = [
    {"array_types", "backend", "preemption"},
    {"errors"},
    {"import_paths"},
    {"config"},
    {"randomness", "pytorch_files", "parallel", "digest", "downloads", "ema"},
    {"cond", "protocols"},
    {"process", "models", "images", "data", "state", "files", "checkpoints", "memory"},
    {"sde", "learned"},
    {"paths"},
    {"parameterization", "times", "reference_checkpoints", "writer", "page"},
    {"weights"},
    {"objective", "sampling", "oracles", "dequantization"},
    {"pieces"},
    {"recipe"},
    {"controllable"},
    {"likelihood", "likelihood_bound", "progress", "workdir", "divergence", "rounds", "processes", "trainable"}
    | {"profiling", "averages"},
    {"loop"},
    {"metrics"},
    {"classification"},
    {"build"},
    {"own_code"},
    {"conditional", "source_checks", "snapshots"},
    {"sampling_plan"},
    {"pretrained", "training", "report"},
    {"measures", "identities"},
    {"reconstruct"},
    {"evaluate", "train_dequantizer", "describe"},
    {"command_line"},
    {"main", "__init__"},
    {"__main__", "import_checkpoint", "statistics"},  # programs, of whatever folder
]
ROOM = {module: number for number, room in enumerate(ROOMS) for module in room}

# A heavy dependency has one door.
DOORS = {
    "tensorflow_datasets": {"data"},
    "wandb": {"writer"},
    "matplotlib": {"page"},
    "orbax": {"checkpoints"},
    "absl": {"command_line", "main", "import_checkpoint", "statistics", "__main__"},
    "ml_collections": {"config", "command_line"},
    "flax.linen": {"models", "metrics", "describe"},
    "tqdm": {"progress", "data", "downloads"},
    "tensorflow": set(),
    "torch": set(),
}

FILES = sorted(PACKAGE.rglob("*.py"))


def module(path: Path) -> str:
    return "__main__" if path.name == "__main__.py" else path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down_only(path):
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "score_sde" and len(parts) > 1 and parts[1] in ROOM:
            assert ROOM[parts[1]] < ROOM[module(path)] or parts[1] == module(path), name


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_heavy_dependencies_have_one_door(path):
    for name in imports(path):
        for dependency, doors in DOORS.items():
            if name == dependency or name.startswith(dependency + "."):
                assert module(path) in doors, f"{name} in {path.name}"


# Others run longer than they compile, or belong to whoever calls them.
COMPILING = {"backend", "parallel", "digest", "metrics/distances", "models/compute", "sampling/solver"}


def test_what_is_mostly_compiled_has_one_door():
    found = {str(path.relative_to(PACKAGE).with_suffix("")) for path in FILES if "jax.jit" in path.read_text()}
    assert found == COMPILING


def test_a_program_has_the_options_of_the_others(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.setattr(jax, "jit", lambda _, **options: lambda: options)
    assert backend.program(len)() == {"compiler_options": backend.compiler_options(jax.default_backend())}


def test_every_module_can_be_imported():
    for path in FILES:
        if path.name != "__main__.py":  # a program
            importlib.import_module(".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts))


def test_every_module_has_its_room():
    assert {module(path) for path in FILES} == set(ROOM)


def test_files_stay_short():
    assert {path.name: n for path in FILES if (n := len(path.read_text().splitlines())) > 400} == {}
