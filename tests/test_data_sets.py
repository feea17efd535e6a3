"""Four data sets go through the whole program by config values alone, where TensorFlow cannot be imported."""

import hashlib
import json
import shutil
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_data import prepare_cifar10
from test_preparers import make_mnist

from score_sde.cli.main import main
from score_sde.data import preparers

# They share compiled programs.
pytestmark = pytest.mark.usefixtures("one_block", "compiled_once")
FORMATS = Path(__file__).parent / "files" / "formats"
CONFIG = Path(__file__).parent.parent / "configs/vp/cifar10_ddpmpp_continuous.py"
SMALL = {
    "model.nf": 8,
    "model.num_res_blocks": 1,
    "model.ch_mult": "(1,)",
    "model.attn_resolutions": "()",
    "sde.num_scales": 10,
    "data.image_size": 8,
    "training.batch_size": 4,
    "training.n_iters": 2,
    "training.snapshot_freq": 2,
    "training.log_freq": 1,
    "training.snapshot_sampling": False,
    "sampling.num_samples": 8,
    "eval.batch_size": 8,
    "eval.begin_ckpt": 1,
    "eval.enable_sampling": True,
    "eval.num_samples": 12,
    "metrics.features": "trained",
    "metrics.n_iters": 2,
}


def cifar10(folder, monkeypatch) -> dict:
    prepare_cifar10(folder)
    return {"data.data_dir": folder}


def fashion_mnist(folder, monkeypatch) -> dict:
    archives = folder / "archives"
    archives.mkdir(parents=True)
    make_mnist(archives)
    recorded = preparers.recorded

    def of_these(builder):
        files = {name: (archives / name).read_bytes() for name in recorded(builder)}
        return {
            name: download._replace(size=len(files[name]), sha256=hashlib.sha256(files[name]).hexdigest())
            for name, download in recorded(builder).items()
        }

    monkeypatch.setattr(preparers, "recorded", of_these)
    return {"data.dataset": "fashion_mnist", "data.data_dir": folder, "data.archives": archives, "data.num_channels": 1}


def digits(folder, monkeypatch) -> dict:
    return {"data.dataset": "digits", "data.data_dir": folder, "data.num_channels": 1}


def pictures(folder, monkeypatch) -> dict:
    rng = np.random.default_rng(0)
    for i in range(12):
        size = rng.integers(9, 40, 2)
        path = folder / "pictures" / f"{i % 2}" / f"{i}.{'png' if i % 3 else 'jpg'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (*size, 3)).astype(np.uint8)).save(path)
    return {"data.dataset": "folder", "data.path": folder / "pictures", "data.held_out": 0.3}


def of_file(path: str):
    """A set of tests/files/formats, with the classes of its pictures."""
    shared = {"data.dataset": "folder", "data.path": FORMATS / path, "data.held_out": 0.3, "data.convert": True}
    return lambda folder, monkeypatch: shared


FILES = {"parquet": "parquet", "edm": "edm.zip", "zip": "digits.zip", "tar": "digits.tar", "json": "json.tar"}
FILES |= {"webdataset": "webdataset", "pattern": "webdataset/digits-{train,test}-000000.tar"}


class WithoutTensorFlow:
    """Finds all but that."""

    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] == "tensorflow" else self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)


MADE = [cifar10, pictures, digits, fashion_mnist]
MADE += [pytest.param(of_file(path), id=name) for name, path in FILES.items()]


@pytest.mark.parametrize("make", MADE)
def test_a_data_set_trains_samples_and_evaluates_by_config_values_alone(make, tmp_path, monkeypatch, capsys):
    assert "tensorflow" not in sys.modules
    monkeypatch.setattr(sys, "meta_path", [WithoutTensorFlow(finder) for finder in sys.meta_path])
    values = SMALL | make(tmp_path / "data", monkeypatch) | {"metrics.dir": tmp_path / "cache"}
    run = ["score_sde", f"--config={CONFIG}", f"--workdir={tmp_path / 'run'}"]
    run += [f"--config.{key}={value}" for key, value in values.items()]
    for mode in ("train", "sample", "eval"):
        assert main([*run, f"--mode={mode}"]) == 0, capsys.readouterr().err
    (entry,) = json.loads((tmp_path / "run/eval/report.json").read_text())["checkpoints"]
    assert np.isfinite(entry["loss"]["mean"])
    found = entry["sampling"]["metrics"]
    (name,) = (name for name in found if name.startswith("frechet_distance["))
    assert found[name]["mean"] > 0
    assert list(found["baselines"])[:2] == ["uniform noise", "Gaussian noise"] and len(found["baselines"]) == 3
    assert all(row[name]["mean"] > 0 for row in found["baselines"].values())
    assert found["protocol"]["statistics_of"]["data_set"] == values.get("data.dataset", "cifar10")


def test_a_run_whose_data_have_changed_is_not_gone_on_with(tmp_path, monkeypatch, capsys):
    values = SMALL | pictures(tmp_path / "data", monkeypatch) | {"training.n_iters": 4}
    run = ["score_sde", f"--config={CONFIG}", f"--workdir={tmp_path / 'run'}", "--mode=train"]
    run += [f"--config.{key}={value}" for key, value in values.items()]
    assert main([*run, "--config.training.n_iters=2"]) == 0
    before = (tmp_path / "run/launch.json").read_bytes()
    Image.new("RGB", (9, 9)).save(tmp_path / "data/pictures/1/new.png")
    capsys.readouterr()
    assert main(run) == 2
    error = capsys.readouterr().err
    assert "data have changed since" in error and "restore them, or train in another --workdir" in error
    assert (tmp_path / "run/launch.json").read_bytes() == before
    (tmp_path / "data/pictures/1/new.png").unlink()
    assert main(run) == 0


def test_a_run_whose_zip_has_changed_is_not_gone_on_with(tmp_path, capsys):
    """Also one that is read from the disk, by the checksums in it."""
    shutil.copy(FORMATS / "edm.zip", tmp_path / "own.zip")
    values = SMALL | {"data.dataset": "folder", "data.path": tmp_path / "own.zip", "data.convert": True}
    values |= {"data.in_memory_gib": 0}
    run = ["score_sde", f"--config={CONFIG}", f"--workdir={tmp_path / 'run'}", "--mode=train"]
    run += [f"--config.{key}={value}" for key, value in values.items()]
    assert main(run) == 0
    with zipfile.ZipFile(FORMATS / "edm.zip") as old, zipfile.ZipFile(tmp_path / "own.zip", "w") as new:
        first, second, *_ = names = old.namelist()
        for name in names:
            new.writestr(name, old.read({first: second, second: first}.get(name, name)))
    capsys.readouterr()
    assert main([*run, "--config.training.n_iters=4"]) == 2
    assert "data have changed since" in capsys.readouterr().err
    shutil.copy(FORMATS / "edm.zip", tmp_path / "moved.zip")
    assert main([*run, f"--config.data.path={tmp_path / 'moved.zip'}", "--config.training.n_iters=4"]) == 0
