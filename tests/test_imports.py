"""An import changes nothing of the process; `configure`, which programs, `load` and `train` call, does."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OTHERS = """
import absl.app, array_record, flax.linen, jax, jax.numpy, matplotlib.figure, ml_collections, numpy, optax
import orbax.checkpoint, PIL.Image, rich.console, scipy.linalg, submitit, tensorflow_datasets, tqdm, wandb, yaml
"""
STATE = """
import ctypes, json, os, sys
asked = []
library = ctypes.CDLL
class Spy(library):
    def __getattr__(self, name):
        asked.append(name)
        return super().__getattr__(name)
ctypes.CDLL = Spy
def state():
    from jax._src import xla_bridge
    options = {name: str(value) for name, value in jax.config.values.items()}
    started = xla_bridge.backends_are_initialized()
    return dict(os.environ), options, {name: 1 for name in asked if name == "mallopt"}, {"started": started}
"""
EVERY = """
import importlib, pkgutil, score_sde, score_sde.configs, score_sde.experiments
for package in (score_sde, score_sde.configs, score_sde.experiments):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if module.name != "score_sde.__main__":  # which runs when it is imported
            importlib.import_module(module.name)
"""


def computed(program: str, environment: dict[str, str] | None = None):
    """What a fresh process prints last, as JSON."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("XLA_", "JAX_", "SCORE_SDE"))}
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=kept | (environment or {}), capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


def test_no_import_changes_the_environment_jax_or_the_allocator_and_none_starts_jax():
    shown = "print(json.dumps([sorted(a.items() ^ b.items()) for a, b in zip(before, state())]))\n"
    counted = "assert len([name for name in sys.modules if name.startswith('score_sde.')]) > 200"
    assert computed(f"{OTHERS}{STATE}before = state()\n{EVERY}{shown}{counted}") == [[], [], [], []]


CONFIGURED = """
import json, os, sys
{first}
import score_sde
score_sde.configure()
import jax
print(json.dumps([os.environ.get("XLA_FLAGS", ""), jax.config.jax_compilation_cache_dir]))
"""


@pytest.mark.parametrize(
    "first", ["", "import jax", "import jax; jax.numpy.ones(3)"], ids=["new", "imported", "started"]
)
def test_configure_keeps_programs_and_sets_up_the_cpu_where_jax_has_not_started(first, tmp_path):
    flags, folder = computed(CONFIGURED.format(first=first), {"SCORE_SDE_CACHE": str(tmp_path)})
    assert ("ynn_fusion" in flags) == ("ones" not in first)
    assert Path(folder).parent == tmp_path and folder.startswith(f"{tmp_path}/programs-")


@pytest.mark.parametrize(
    ("environment", "first", "kept"),
    [
        ({"JAX_COMPILATION_CACHE_DIR": "/tmp/mine"}, "", "/tmp/mine"),
        ({"SCORE_SDE_NO_CACHE": "1"}, "", None),
        ({}, "import jax; jax.config.update('jax_compilation_cache_dir', '/tmp/mine')", "/tmp/mine"),
        ({"XLA_FLAGS": "--xla_cpu_experimental_ynn_fusion_type=none"}, "", ...),
    ],
)
def test_what_the_user_has_chosen_stays(environment, first, kept, tmp_path):
    flags, folder = computed(CONFIGURED.format(first=first), {"SCORE_SDE_CACHE": str(tmp_path)} | environment)
    if kept is ...:
        assert flags == environment["XLA_FLAGS"]
    else:
        assert folder == kept


LOADED = """
import json, os
import jax, numpy as np
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.random.key(0)  # which compiles: JAX has looked for a cache, and found none
import score_sde
try:
    score_sde.load("none")
except ValueError:
    pass
jax.jit(lambda x: x * 3 + 1)(np.ones(7))
print(json.dumps(len(os.listdir(jax.config.jax_compilation_cache_dir))))
"""


def test_load_keeps_programs_even_after_jax_has_compiled(tmp_path):
    assert computed(LOADED, {"SCORE_SDE_CACHE": str(tmp_path)}) > 0


PROGRAM = """
import json, os, sys
from score_sde.runtime.preemption import exit_status
{program}
import jax
print(json.dumps(["JAX_COMPILATION_CACHE_DIR" in os.environ, jax.config.jax_compilation_cache_dir]))
"""


def test_the_command_keeps_programs_and_an_experiment_does_not_and_neither_says_so_to_its_children(tmp_path):
    command = "from score_sde.cli.main import main; main(['score_sde', '--mode=describe', '--explain=sde', CONFIG])"
    command = command.replace("CONFIG", "'--config=vp/digits_ddpmpp_continuous'")
    inherited, folder = computed(PROGRAM.format(program=command), {"SCORE_SDE_CACHE": str(tmp_path)})
    assert not inherited and folder.startswith(f"{tmp_path}/programs-")
    own = PROGRAM.format(program="exit_status(lambda _: None, [])")
    assert computed(own, {"SCORE_SDE_CACHE": str(tmp_path)}) == [False, None]
