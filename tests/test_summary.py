"""Words of a training on stderr at its start, the record of a launch, and refusals before data are read."""

import os
import shutil

import jax
import numpy as np
import pytest

from score_sde.config import check
from score_sde.data import InMemory
from score_sde.errors import UsageError
from score_sde.io import atomic_files, workdir
from score_sde.training import launch, summary
from score_sde.training.build import trainable
from score_sde.training.run import train


@pytest.fixture
def said(tiny_config, tmp_path, capsys, one_block):
    """Words at the start of a training with these values of the section `training`, after `start` updates."""

    def words(start: int = 0, **values) -> list[str]:
        config = tiny_config()
        config.training.update(values)
        source = InMemory(np.zeros((40, 8, 8, 1), np.uint8), labels=np.arange(40) % 2)
        source.class_names = ["ant", "bee"]
        summary.at_start(trainable(config), tmp_path, source, source, start)
        return capsys.readouterr().err.splitlines()

    return words


def test_a_start_says_devices_data_network_updates_and_where_checkpoints_go(said, tmp_path):
    lines = said(n_iters=10, snapshot_freq=8, snapshot_freq_for_preemption=2)
    assert lines[0] == f"Training in {tmp_path}"
    rows = {line[2:14].strip(): line[15:] for line in lines[1:]}
    assert rows["devices"] == "cpu, precision tf32, which is float32 here"
    assert rows["data"].startswith("digits, 40 images of 8x8x1 in 2 classes (ant, bee), not used by the network")
    assert rows["data"].endswith("; 40 to evaluate on")
    assert rows["updates"] == "10 of 16 images each, a new run"
    every = "every 2 updates (the last 2 are kept) and every 8 updates (kept for ever)"
    assert rows["checkpoints"] == f"{tmp_path}/checkpoints, {every}"
    assert rows["to stop"] == "Ctrl-C saves a checkpoint; the same command goes on from it"


def test_a_start_says_whether_the_run_goes_on_and_when_nothing_is_saved_before_its_end(said):
    lines = said(start=5, n_iters=10, snapshot_freq=8, snapshot_freq_for_preemption=100)
    assert "  updates      10 of 16 images each, going on from step 5" in lines
    assert any("every 8 updates (kept for ever)" in line for line in lines)
    lines = said(start=8, n_iters=10, snapshot_freq=8, snapshot_freq_for_preemption=100)
    assert any("none before the end, as training.snapshot_freq_for_preemption=100" in line for line in lines)
    lines = said(start=10, n_iters=10)
    assert "  updates      all 10 are made; a larger training.n_iters goes on from there" in lines
    assert not any("to stop" in line for line in lines)


def test_a_copied_workdir_is_known_and_a_moved_one_is_the_same(tmp_path):
    first = tmp_path / "first"
    first.mkdir()
    before = launch.place(first)
    assert not launch.is_copy(before, launch.place(first))
    assert not launch.is_copy(None, launch.place(first))  # of an older version
    shutil.copytree(first, tmp_path / "copy")
    assert launch.is_copy(before, launch.place(tmp_path / "copy"))
    first.rename(tmp_path / "moved")
    assert not launch.is_copy(before, launch.place(tmp_path / "moved"))
    assert not launch.is_copy(before | {"inode": -1}, before)  # of a file system that is mounted anew


def test_a_copy_has_a_run_of_its_own_and_an_older_one_keeps_its_own(tmp_path, capsys):
    def recorded(folder, **options):
        folder.mkdir(exist_ok=True)
        content = launch.record(folder, {}, {}, {}, {}, ["ant", "bee"], **{"mirrored": True} | options)
        workdir.write(folder, launch.NAME, content)
        return content["run_id"]

    own = recorded(tmp_path / "first")
    assert recorded(tmp_path / "first") == own
    assert workdir.class_names(tmp_path / "first") == ("ant", "bee")
    assert workdir.read(tmp_path / "first", launch.NAME)["devices"] == {"cpu": jax.device_count()}
    shutil.copytree(tmp_path / "first", tmp_path / "copy")
    other = recorded(tmp_path / "copy")
    assert other != own and recorded(tmp_path / "copy") == other
    assert "first, and gets a run of its own at Weights & Biases.\n" in capsys.readouterr().err
    workdir.write(tmp_path / "copy", launch.NAME, {"run_id": "1234"})
    assert recorded(tmp_path / "copy") == "1234"


@pytest.mark.parametrize("place", ["file", "file/run"])
def test_a_workdir_in_a_file_is_refused_before_data_are_read(tiny_config, tmp_path, place, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr("score_sde.training.run.load_data", None)
    with pytest.raises(UsageError, match=r"file is a file; choose a --workdir that can be written\."):
        train(tiny_config(), tmp_path / place)


def test_a_workdir_without_permission_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    atomic_files.check_writable(tmp_path / "new" / "run")
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # as root may do everything
    with pytest.raises(UsageError, match=rf"Cannot write in {tmp_path} \(no permission"):
        atomic_files.check_writable(tmp_path / "new" / "run")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("key", "value"), [("seed", -1), ("seed", 2**63 - 1), ("metrics.seed", -1)])
def test_a_seed_that_no_generator_takes_is_refused(tiny_config, key, value):
    config = tiny_config()
    config.update_from_flattened_dict({key: value})
    with pytest.raises(UsageError, match=rf"{key}=-?\d+ must be in \[0, 9e18\]"):
        check(config)


@pytest.mark.parametrize("seed", [0, 2**32 - 1, 2**32, 9 * 10**18])
def test_a_seed_of_the_range_is_taken_by_every_generator(tiny_config, seed):
    import jax

    config = tiny_config()
    config.seed = seed
    check(config)
    jax.random.key(config.seed + 1)
    np.random.default_rng([config.seed, 0])
