"""Modes and mistakes: files of other programs, folders without a run, backends and memory that are not there.

Each ends in one sentence and status 2, without a traceback, and nothing is written.
"""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import score_sde
from score_sde.cli.main import main
from score_sde.config import Config
from score_sde.config.import_paths import source_digest
from score_sde.errors import UsageError
from score_sde.io import checkpoints, workdir
from score_sde.io.metrics_log import Writer, read_lines
from score_sde.runtime import backend, failures, multihost
from score_sde.runtime.memory import enough_memory
from score_sde.runtime.preemption import exit_status
from score_sde.training.build import Experiment
from score_sde.training.memory_estimate import advice

ROOT = Path(__file__).parent.parent
OF_RUNS = ("train", "sample", "eval", "train_dequantizer", "describe", "data", "statistics")


@pytest.fixture
def run(tiny_config, tmp_path):
    """A workdir that has all that is read before a checkpoint is."""
    folder = tmp_path / "run"
    (folder / "checkpoints" / "4").mkdir(parents=True)
    workdir.write(folder, "config.json", tiny_config().to_dict())
    workdir.write(folder, "launch.json", {"run_id": "a", "overrides": {}, "versions": {}})
    return folder


def listing(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def said(arguments: list[str], folder: Path, capsys) -> str:
    """The sentence on a command line with a mistake, which writes nothing to the folder."""
    before = listing(folder)
    assert main(["score_sde", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("score_sde: ") and error.count("\n") == 1, error
    assert listing(folder) == before
    return error


FILES = [
    (b"", "is not valid JSON"),
    (b'{"seed": 4', "is not valid JSON"),
    (b"\xff\xfe\x00", "is not valid JSON"),
    (b"[" * 100_000, "is not valid JSON"),
    (b"[1]", "it is a list, not an object"),
    (b"null", "it is null, not an object"),
    (b"NaN", "it is a number, not an object"),
]
CONFIGS = [
    ({"model_type": "bert"}, "it has no 'training'"),
    ({"data": [1]}, "'data' is a list, not an object"),
    ({"model": None}, "'model' is null, not an object"),
    ({"training": "x"}, "'training' is text, not an object"),
    ({"model": {}}, "'model' has no 'name'"),
    ({"sde": {"beta_max": 2.0}}, "'sde' has no 'name'"),
    ({"seed": "x"}, "cannot be used: seed='x' is not an integer"),
    ({"training": {"batch_size": {"a": 1}}}, "cannot be used: training.batch_size"),
    ({"model": {"name": 3}}, "'name' is a number, not text"),
]
LAUNCHES = [
    ({"overrides": [1]}, "'overrides' is a list, not an object"),
    ({"run_id": 5}, "'run_id' is a number, not text"),
    ({"data": {"training": "x"}}, "'training' is text, not an object"),
    ({"data": {"training": {"digest": "a"}}}, "'training' has no 'images'"),
    ({"code": {"model.name": {"path": "a:B"}}}, "'model.name' has no 'file'"),
    ({"changes": "abc"}, "'changes' is text, not a list"),
    ({"imported": []}, "'imported' is a list, not an object"),
    ({"versions": None}, "'versions' is null, not an object"),
]


@pytest.mark.parametrize(("content", "words"), FILES)
@pytest.mark.parametrize("mode", OF_RUNS)
def test_a_config_that_is_no_json_object_is_named(mode, content, words, run, capsys, tmp_path):
    (run / "config.json").write_bytes(content)
    error = said([f"--mode={mode}", f"--workdir={run}"], tmp_path, capsys)
    assert words in error and f"{run}/config.json" in error and "restore it" in error


@pytest.mark.parametrize(("change", "words"), CONFIGS)
@pytest.mark.parametrize("mode", ["train", "sample", "describe"])
def test_a_config_of_another_shape_is_named(mode, change, words, run, capsys, tmp_path):
    stored = {} if "model_type" in change else json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(stored | change))
    assert words in said([f"--mode={mode}", f"--workdir={run}"], tmp_path, capsys)


@pytest.mark.parametrize(("content", "words"), [*FILES, *((json.dumps(c).encode(), words) for c, words in LAUNCHES)])
@pytest.mark.parametrize("mode", ["train", "sample"])
def test_a_launch_of_another_shape_is_named(mode, content, words, run, capsys, tmp_path):
    (run / "launch.json").write_bytes(content)
    assert words in said([f"--mode={mode}", f"--workdir={run}"], tmp_path, capsys)


def test_what_is_no_file_or_a_link_to_none_is_named(run):
    (run / "launch.json").unlink()
    assert workdir.read(run, "launch.json") == {}
    (run / "launch.json").symlink_to("gone")
    with pytest.raises(UsageError, match="is a link to a file that is gone"):
        workdir.read(run, "launch.json")
    (run / "launch.json").unlink()
    (run / "launch.json").mkdir()
    with pytest.raises(UsageError, match=r"Cannot read .*launch.json \(Is a directory\)"):
        workdir.read(run, "launch.json")


def test_lines_of_others_are_left_out_of_the_metrics(tmp_path):
    lines = ['{"step": 1, "loss": 2.0}', "[1]", '{"step": "x"}', '{"step": null}', '{"step": 2, "time": "x"}', "3"]
    (tmp_path / "metrics.jsonl").write_bytes("\n".join([*lines, '{"step": 3, "loss": NaN}', '{"st']).encode() + b"\xff")
    assert [line["step"] for line in read_lines(tmp_path / "metrics.jsonl")] == [1, 3]
    wandb = {"mode": "disabled", "project": "p", "name": "", "id": "1"}
    with Writer(tmp_path, 1, wandb, {}) as writer:
        writer.scalars(2, loss=1.0)
    assert [line["step"] for line in read_lines(tmp_path / "metrics.jsonl")] == [1, 2]


def test_only_folders_named_by_a_number_are_checkpoints(tmp_path):
    for name in ("2", "10", "007", "²", "10.damaged", "notes"):
        (tmp_path / name).mkdir()
    (tmp_path / "12").touch()
    assert checkpoints.steps(tmp_path) == [2, 10]
    assert checkpoints.steps(tmp_path / "12") == checkpoints.steps(tmp_path / "missing") == []


def test_checkpoints_that_cannot_be_opened_are_named(tmp_path):
    (tmp_path / "4").mkdir()
    (tmp_path / "4" / checkpoints.METADATA).write_text("[1]")
    with pytest.raises(UsageError, match="Cannot open the checkpoints in .*; remove what others have put there"):
        checkpoints.Checkpoints(tmp_path)
    with pytest.raises(UsageError, match="is a file, and checkpoints are to be in a folder there"):
        checkpoints.Checkpoints(tmp_path / "4" / checkpoints.METADATA)


@pytest.mark.parametrize("mode", [mode for mode in OF_RUNS if mode != "train"])
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ran", "there is no such folder (did you mean '{}/run'?)"),
        ("run/checkpoints", "it has no config.json (did you mean '{}/run'?)"),
        ("", "it has no config.json (did you mean '{}/run'?)"),
        ("run/config.json", "it is a file (did you mean '{}/run'?); name the folder of a run"),
        ("elsewhere", "there is no such folder; train first"),
    ],
)
def test_a_folder_without_a_run_names_the_nearest(mode, name, words, run, capsys, tmp_path):
    error = said([f"--mode={mode}", f"--workdir={tmp_path}/{name}"], tmp_path, capsys)
    assert f"There is no run in {tmp_path}" in error and words.format(tmp_path) in error


def test_a_new_training_without_a_config_names_the_nearest_run_too(run, capsys, tmp_path):
    error = said(["--mode=train", f"--workdir={tmp_path}/rum"], tmp_path, capsys)
    assert "--config=NAME is missing, since" in error and f"(did you mean '{run}'?)" in error
