"""A wheel works from any folder: its command, configs by name, training, sampling and evaluation, experiments."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from score_sde.cli.command_line import config_names

ROOT = Path(__file__).parent.parent
PARTS = ("pyproject.toml", "README.md", "LICENSE", "score_sde", "configs", "experiments")


def test_the_packages_of_the_wheel_are_the_folders():
    described = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    folders = set()
    for top, prefix in (("score_sde", ""), ("configs", "score_sde."), ("experiments", "score_sde.")):
        found = (path.parent.relative_to(ROOT) for path in (ROOT / top).rglob("__init__.py"))
        folders |= {prefix + ".".join(folder.parts) for folder in found}
    assert set(described["packages"]) == folders and len(described["packages"]) == len(folders)


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """An environment with the wheel, and beside it only what the package depends on."""
    folder = tmp_path_factory.mktemp("wheel")
    (folder / "source").mkdir()
    for part in PARTS:
        copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
        copy(ROOT / part, folder / "source" / part)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", f"--wheel-dir={folder}", str(folder / "source")], check=True)
    [wheel] = folder.glob("*.whl")
    venv.create(folder / "env", with_pip=False)
    python = folder / "env" / "bin" / "python"
    subprocess.run([*pip, "--python", str(python), "install", "--no-deps", str(wheel)], check=True)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder / "env")}))
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")  # not its .pth files, as of a clone
    shutil.rmtree(folder / "source")
    return folder / "env" / "bin"


@pytest.fixture
def call(installed, tmp_path):
    def call(*command: str, program: str = "score_sde") -> str:
        variables = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "XLA_FLAGS")}
        done = subprocess.run(
            [str(installed / program), *command], cwd=tmp_path, env=variables, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return call


IMPORTED = """
import score_sde, score_sde.configs.presets, score_sde.experiments.digits.run, importlib.util, sys
assert "site-packages" in score_sde.__file__ and "env" in score_sde.__file__, score_sde.__file__
assert all(importlib.util.find_spec(name) is None for name in ("configs", "experiments"))
print(sorted({module.__file__ for name, module in sys.modules.items() if name.startswith("score_sde.configs")}))
"""


def test_nothing_of_it_is_importable_as_configs_or_experiments(call):
    assert "score_sde/configs/presets.py" in call("-c", IMPORTED, program="python")


DESCRIBED = """
from score_sde.cli.main import main
for name in {names}:
    assert main(["score_sde", f"--config={{name}}", "--mode=describe", "--explain=data"]) == 0, name
"""


def test_every_config_is_described_by_its_name(call):
    names = config_names()
    assert call("--mode=describe").split() == names
    described = call("-c", DESCRIBED.format(names=names), program="python")
    assert described.count("data.dataset = ") == len(names)
    assert '{"trainable_parameters": ' in call("--mode=describe", "--config=vp/digits_ddpmpp_continuous")


SMALL = dict(
    **{"data.image_size": 8, "data.held_out": 0.25, "model.nf": 8, "model.ch_mult": "(1,)", "model.num_res_blocks": 1},
    **{"model.attn_resolutions": "(4,)", "training.batch_size": 4, "training.n_iters": 2, "optim.warmup": 1},
    **{"training.snapshot_freq": 2, "training.snapshot_sampling": False, "training.log_freq": 1},
)


def test_it_trains_samples_and_evaluates_a_folder_of_pictures(call, tmp_path):
    (tmp_path / "photos").mkdir()
    for i, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (12, 10, 9, 3), np.uint8)):
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{i}.png")
    values = [f"--config.{key}={value}" for key, value in (SMALL | {"data.path": "photos"}).items()]
    call("--mode=data", "--config=vp/own_images_ddpmpp_continuous", *values, "--out=sheet.png")
    call("--mode=train", "--config=vp/own_images_ddpmpp_continuous", "--workdir=run", *values)
    few = ("--config.sampling.num_samples=3", "--config.sampling.method=dpmpp_2m", "--config.sampling.num_steps=3")
    call("--mode=sample", "--workdir=run", *few)
    bits = ("--config.eval.enable_bpd=True", "--config.eval.rtol=0.1", "--config.eval.atol=0.1")
    call("--mode=eval", "--workdir=run", "--config.eval.bpd_num_repeats=1", *bits)
    assert (tmp_path / "sheet.png").exists()
    [samples] = (tmp_path / "run" / "samples").glob("*.npz")
    with np.load(samples) as file:
        assert file["images"].shape == (3, 8, 8, 3)
    [report] = json.loads((tmp_path / "run" / "eval" / "report.json").read_text())["checkpoints"]
    assert np.isfinite(report["bits_per_dim"]["mean"])


def test_its_experiments_run_by_name(call, tmp_path):
    assert "truth_table" in call("--mode=experiment")
    sweep = call("--mode=experiment", "--name=sweep", "experiments/sweep/example.py", "--launcher=print")
    assert sweep.count("--config=") > 10
    assert "not run" in call("--mode=experiment", "--name=paper", "table2")
