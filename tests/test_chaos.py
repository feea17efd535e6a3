"""Killed runs are the undisturbed one, and what is not would be noticed and named."""

import json
import subprocess
import sys

import numpy as np
import pytest
from one_block import PROGRAM
from PIL import Image
from score_sde.experiments.chaos import life
from score_sde.experiments.chaos.compare import contents, differences
from score_sde.experiments.chaos.life import Aim, Kill, Run
from score_sde.experiments.chaos.run import Life, run, summary, text_table

LINES = [{"step": 1, "training_loss": 1.5}, {"step": 2, "training_loss": 1.25}, {"step": 2, "eval_loss": 1.0}]


def write(folder, lines=LINES, time=0.0):
    """What a run leaves, but for its checkpoints."""
    (folder / "eval").mkdir(parents=True)
    (folder / "config.json").write_text('{"seed": 42}\n')
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line | {"time": time}) + "\n" for line in lines))
    np.savez(folder / "eval" / "samples.npz", images=np.zeros((2, 8, 8, 1), np.uint8))
    Image.new("L", (8, 8)).save(folder / "eval" / "samples.png")
    return folder


def found(tmp_path, folder):
    return differences(contents(write(tmp_path / "whole"), None), contents(folder, None))


def test_times_working_files_and_the_runs_own_number_are_no_difference(tmp_path):
    folder = write(tmp_path / "run", time=9.0)
    for name in ("launch.json", "config.json.tmp", "train.lock", "eval/samples.npz.tmp", "eval/eval.lock"):
        (folder / name).write_text("anything")
    assert found(tmp_path, folder) == []


def test_a_flipped_bit_of_a_sample_is_named(tmp_path):
    folder = write(tmp_path / "run")
    file = folder / "eval" / "samples.npz"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert found(tmp_path, folder) == ["eval/samples.npz differs"]


def test_missing_and_surplus_files_are_named(tmp_path):
    folder = write(tmp_path / "run")
    (folder / "eval" / "samples.png").rename(folder / "eval" / "other.png")
    assert found(tmp_path, folder) == ["eval/samples.png is missing", "eval/other.png should not be there"]


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([*LINES, LINES[1]], 'metrics.jsonl has twice: {"step": 2, "training_loss": 1.25}'),
        (LINES[1:], 'metrics.jsonl lacks {"step": 1, "training_loss": 1.5}'),
        (LINES[::-1], "metrics.jsonl has its lines in another order"),
        ([*LINES, {"step": 3}], 'metrics.jsonl has what it should not: {"step": 3}'),
    ],
)
def test_lines_that_are_doubled_lost_or_moved_are_named(lines, words, tmp_path):
    assert found(tmp_path, write(tmp_path / "run", lines)) == [words]


@pytest.fixture
def sleeper(monkeypatch, tmp_path):
    """A run whose process works for a moment, in which its sign of work is there from the start."""
    work = Run(tmp_path / "life", tmp_path / "data")
    work.workdir.mkdir(parents=True)
    (work.workdir / "config.json").write_text("{}")

    def of(seconds: float, status: int = 0):
        code = f"import sys, time; time.sleep({seconds}); sys.exit({status})"
        monkeypatch.setattr(Run, "start", lambda self, phase: subprocess.Popen([sys.executable, "-c", code]))
        return work

    return of


def test_a_kill_in_time_says_where_and_one_too_late_is_none(sleeper):
    aim, rng = Aim("any time", "train", life.begun, [1], 0.01), np.random.default_rng(0)
    assert life.kill(sleeper(60), "train", aim, rng) == "step 0 reached, nothing saved"
    never = aim._replace(seen=lambda run: 0)
    assert life.kill(sleeper(0), "train", never, rng) is None
    with pytest.raises(life.UsageError, match="ended with status 3 before it was killed"):
        life.kill(sleeper(0, 3), "train", never, rng)


def test_signs_are_read_from_folders_and_logs(tmp_path):
    work = Run(tmp_path, tmp_path)
    assert [sign(work) for sign in (life.begun, life.saving, life.drawing, life.evaluating, life.files)] == [0] * 5
    (work.workdir / "checkpoints" / "6").mkdir(parents=True)
    (work.workdir / "checkpoints" / "9.orbax-checkpoint-tmp").mkdir()
    write(work.workdir / "eval" / "run")
    (work.workdir / "metrics.jsonl").write_text('{"step": 10, "training_loss": 1.0}\n{"step": 11, "tr')
    progress = "{}: {} of 9 steps"
    first = [progress.format("training", 3), progress.format("samples at step 6", 0)]
    work.log("train").write_text("\n".join(first))
    parts = [progress.format(name, 0) for name in ("loss", "bits/dim", "sampling (pc)")]
    work.log("eval").write_text("\n".join([*parts, progress.format("sampling (pc)", 4)]))
    assert (life.saving(work), life.drawing(work), life.reached(work), life.files(work)) == (9, 6, 11, 3)
    assert life.parts(work) == ["loss", "bits/dim", "sampling"]
    assert life._restored(work) == 3
    assert life._where(work, "train") == "step 11 reached, 6 saved, in the save of 9, in the samples of 6"


def test_the_summary_counts_kills_by_what_differs():
    kills = [Kill("train", "a save", "step 5", 3, 2, 0, ""), Kill("eval", "any time", "loss", None, None, 1, "")]
    lives = [Life(1, kills, [], 1.0), Life(2, kills, ["eval/report.json differs"], 1.0)]
    assert summary(lives, 3) == (
        "2 kills of training, 2 of evaluation: 3 of 4 identical; at most 2 steps lost, the save interval is 3."
    )
    assert [line.split()[-1] for line in text_table(lives).splitlines()[2:]] == ["yes", "yes", "yes", "NO"]


TINY = {"model.patch_size": 2, "model.width": 8, "model.depth": 2, "model.num_heads": 2}


@pytest.mark.usefixtures("one_block")
@pytest.mark.parametrize(
    "network",
    [{}, {"model.name": "uvit", **TINY}, {"model.name": "dit", **TINY}],
    ids=lambda network: network.get("model.name", "ncsnpp"),
)
def test_a_life_is_the_undisturbed_run(network, tmp_path, capsys, monkeypatch):
    """Training killed in its first save and evaluation in its first part (by the seed), with the config cut short."""
    monkeypatch.setattr(life, "PROGRAM", (sys.executable, "-c", PROGRAM))
    options = {"training.n_iters": 6, "training.snapshot_freq": 3, "eval.enable_bpd": False, **network}
    overrides = [f"--config.{key}={value}" for key, value in options.items()]
    assert run(tmp_path, kills=1, seed=197, workers=1, overrides=overrides) == 0, capsys.readouterr().err
    assert "1 kills of training, 1 of evaluation: 2 of 2 identical" in capsys.readouterr().out
    (record,) = json.loads((tmp_path / "chaos.json").read_text())["lives"]
    assert [kill["phase"] for kill in record["kills"]] == ["train", "eval"]
    assert not list(tmp_path.glob("life_*"))  # of equal lives nothing is kept
