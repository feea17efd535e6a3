"""What goes wrong while a run trains, made to happen: each is survived or ends in one sentence."""

import errno
import fcntl
import gc
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from one_block import PROGRAM
from test_end_to_end import differences, metrics

import score_sde
from score_sde.cli.main import main
from score_sde.data import InMemory, batch_indices
from score_sde.errors import UsageError
from score_sde.evaluation import evaluate as evaluation
from score_sde.io import atomic_files
from score_sde.io import checkpoints as ckpt
from score_sde.io.checkpoints import Checkpoints, Retention
from score_sde.io.metrics_log import Writer
from score_sde.io.result_cache import Rounds
from score_sde.runtime.preemption import Notice, Stopped
from score_sde.training.build import Experiment
from score_sde.training.nan_guard import DivergenceError, Losses
from score_sde.training.run import load_data, train

pytestmark = pytest.mark.usefixtures("one_block", "compiled_once")
DISABLED = {"mode": "disabled", "project": "p", "name": "", "id": "1"}
STATE = {"w": np.arange(200_000, dtype=np.float32)}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A workdir of six steps, made by the first test that needs it, with a checkpoint every two."""
    return tmp_path_factory.mktemp("undisturbed") / "run"


@pytest.fixture
def run(undisturbed, tiny_config, tmp_path):
    """(a copy of a finished run's workdir to damage, its config)"""
    config = tiny_config()
    config.training.update(n_iters=6, keep_last=3, snapshot_sampling=False, snapshot_freq=100)
    if not undisturbed.exists():
        train(config, undisturbed)
    shutil.copytree(undisturbed, tmp_path / "run")
    return tmp_path / "run", config


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 4 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], capture_output=True).returncode:
        pytest.skip("no permission to mount a tmpfs")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path, leave: int = 0) -> Path:
    """A file that takes all of a disk but some bytes."""
    path = disk / "filler"
    with path.open("wb", buffering=0) as file:
        try:
            file.write(bytes(max(shutil.disk_usage(disk).free - leave, 0)))
            while leave == 0:
                file.write(bytes(4096))
        except OSError:
            pass
    return path


def array_file(workdir: Path, step: int) -> Path:
    """The largest file of a checkpoint, which holds its arrays."""
    files = [path for path in (workdir / "checkpoints" / str(step)).rglob("*") if path.is_file()]
    return max(files, key=lambda path: path.stat().st_size)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def leaves(workdir: Path) -> list[np.ndarray]:
    return jax.tree.leaves(score_sde.load(workdir).params)


@pytest.fixture
def in_vain():
    """Orbax leaves coroutines of a read that failed, which complain once they are collected: not in a later test."""
    yield
    gc.collect()


IN_VAIN = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@IN_VAIN
@pytest.mark.usefixtures("in_vain")
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_it_taken(run, undisturbed, capsys):
    folder, config = run
    flip(array_file(folder, 6))
    train(config, folder)
    told = capsys.readouterr().err
    assert "Cannot read the checkpoint of step 6" in told
    assert "Going on from step 4; the damaged one is now 6.damaged." in told
    assert ckpt.steps(folder / "checkpoints") == [2, 4, 6]
    assert (folder / "checkpoints" / "6.damaged").is_dir()
    assert metrics(folder) == metrics(undisturbed)
    for ours, theirs in zip(leaves(folder), leaves(undisturbed), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("damage", [flip, truncate, Path.unlink], ids=lambda damage: damage.__name__)
def test_the_last_checkpoint_that_can_be_read_is_loaded(damage, tmp_path, capsys):
    with Checkpoints(tmp_path / "checkpoints", Retention()) as saved:
        for step in (1, 2):
            saved.save(step, {"w": STATE["w"] + step})
    damage(array_file(tmp_path, 2))
    with Checkpoints(tmp_path / "checkpoints", Retention()) as saved:
        np.testing.assert_array_equal(saved.load_last(ckpt.on_host(STATE))["w"], STATE["w"] + 1)
        assert "the damaged one is now 2.damaged" in capsys.readouterr().err
        saved.save(2, {"w": STATE["w"] + 2})
    assert ckpt.steps(tmp_path / "checkpoints") == [1, 2]


@IN_VAIN
@pytest.mark.usefixtures("in_vain")
def test_where_all_checkpoints_are_damaged_nothing_is_touched(run):
    folder, config = run
    for step in (2, 4, 6):
        flip(array_file(folder, step))
    with pytest.raises(UsageError, match="Cannot read the checkpoint of step 6"):
        train(config, folder)
    assert ckpt.steps(folder / "checkpoints") == [2, 4, 6]


def test_any_flipped_bit_of_the_state_is_noticed(tmp_path):
    with Checkpoints(tmp_path, Retention()) as saved:
        saved.save(1, STATE)
        saved.wait()
        path = max((p for p in (tmp_path / "1").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
        whole = path.read_bytes()
        rng, noticed = np.random.default_rng(0), 0
        for place in rng.integers(0, len(whole), 12):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << int(rng.integers(8))]) + whole[place + 1 :])
            try:
                found = saved.load(1, ckpt.on_host(STATE))
            except UsageError as error:
                noticed += "Cannot read the checkpoint of step 1" in str(error)
            else:
                np.testing.assert_array_equal(found["w"], STATE["w"])  # a byte that means nothing
        assert noticed > 6


def test_a_full_disk_costs_a_checkpoint_and_not_the_training(small_disk, capfd):
    with Checkpoints(small_disk / "checkpoints", Retention()) as saved:
        saved.save(1, STATE)
        assert saved.wait()
        filler = fill(small_disk, leave=100_000)
        saved.save(2, STATE)
        assert not saved.wait()
        told = capfd.readouterr().err
        assert (
            "The checkpoint of step 2 could not be saved (no space left on device); the last one is of step 1." in told
        )
        assert "Traceback" not in told
        np.testing.assert_array_equal(saved.load(1, ckpt.on_host(STATE))["w"], STATE["w"])
        filler.unlink()
        saved.save(3, STATE)
        assert saved.wait()
    assert ckpt.steps(small_disk / "checkpoints") == [1, 3]
    assert not list((small_disk / "checkpoints").glob("*tmp*"))


def test_a_training_whose_last_checkpoint_finds_no_space_says_so_and_goes_on_later(tiny_config, small_disk, capfd):
    config = tiny_config()
    config.training.update(n_iters=2, snapshot_sampling=False)
    train(config, small_disk / "run")
    filler = fill(small_disk, leave=100_000)
    config.training.n_iters = 4
    with pytest.raises(UsageError, match="The last checkpoint is not saved; free space"):
        train(config, small_disk / "run")
    assert [line["step"] for line in metrics(small_disk / "run")] == [1, 2, 2, 3, 4, 4]
    filler.unlink()
    train(config, small_disk / "run")
    assert ckpt.steps(small_disk / "run" / "checkpoints") == [2, 4]
    fill(small_disk, leave=20_000)
    config.training.n_iters = 6
    with pytest.raises(UsageError, match=r"A checkpoint takes .* MB free; free space"):
        train(config, small_disk / "run")


def test_lines_that_find_no_space_are_written_later(small_disk, capsys):
    with Writer(small_disk, 0, DISABLED, {}) as writer:
        writer.scalars(1, loss=1.0)
        filler = fill(small_disk)
        for step in range(2, 300):  # until the block that the file has is full
            writer.scalars(step, loss=step)
        assert json.loads((small_disk / "metrics.jsonl").read_text().splitlines()[-1])["step"] < 299
        filler.unlink()
        writer.scalars(300, loss=300)
    assert [line["step"] for line in metrics(small_disk)] == list(range(1, 301))
    assert capsys.readouterr().err.count("its lines are kept until there is space again") == 1


def test_a_workdir_that_cannot_be_written_is_one_sentence(small_disk, tiny_config):
    (small_disk / "file").touch()
    with pytest.raises(UsageError, match=r"file is a file; choose a --workdir that can be written"):
        train(tiny_config(), small_disk / "file" / "run")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(UsageError, match=r"Cannot write in .*read-only disk.*choose a --workdir that can be written"):
        train(tiny_config(), small_disk / "run")


def test_two_runs_on_one_workdir_are_one_too_many(run, capsys):
    folder, config = run
    code = f"""
from pathlib import Path
from score_sde.io.atomic_files import locked
with locked(Path({str(folder)!r}), "train"):
    print("locked", flush=True)
    input()
"""
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as first:
        assert first.stdout.readline() == "locked\n"
        with pytest.raises(UsageError, match=f"in use by process {first.pid} on .*; wait until it has ended"):
            train(config, folder)
        first.kill()
    train(config, folder)  # a lock ends with its process
    with atomic_files.locked(folder / "eval", "eval"):
        train(config, folder)  # an evaluation is no training


def test_what_another_process_makes_can_be_waited_for(tmp_path, capsys):
    """A lock belongs to an open file, so that a thread stands for the other process."""
    held, order = threading.Event(), []

    def other():
        with atomic_files.locked(tmp_path, "train"):
            held.set()
            time.sleep(0.1)
            order.append("other")

    thread = threading.Thread(target=other)
    thread.start()
    held.wait()
    with atomic_files.locked(tmp_path, "train", wait=True):
        order.append("this")
    thread.join()
    assert order == ["other", "this"]
    assert f"Waiting for process {os.getpid()} on " in capsys.readouterr().err


def test_a_file_system_without_locks_is_a_warning(tmp_path, capsys, monkeypatch):
    def flock(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    with atomic_files.locked(tmp_path, "train"), atomic_files.locked(tmp_path, "train"):
        pass
    assert capsys.readouterr().err.count("cannot be locked (No locks available): see to it that no other run") == 2


def poisoned(monkeypatch, config, *steps: int) -> None:
    """Makes the batches of these steps NaN."""
    augment = Experiment.augment
    pixels = load_data(config, train=True).images
    bad = [
        pixels[batch_indices(len(pixels), config.training.batch_size, seed=config.seed, step=step - 1)]
        for step in steps
    ]
    sums = jnp.asarray([batch.astype(np.float64).sum() for batch in bad])

    def poison(self, keys, x):
        return jnp.where((jnp.abs(x.sum() * 255 - sums) < 1).any(), jnp.nan, augment(self, keys, x))

    monkeypatch.setattr(Experiment, "augment", poison)


def test_updates_that_are_not_finite_can_be_skipped_and_are_counted(tiny_config, tmp_path, monkeypatch):
    config = tiny_config()
    config.training.update(n_iters=6, log_freq=2, snapshot_sampling=False, nonfinite="skip")
    poisoned(monkeypatch, config, 2, 5)
    train(config, tmp_path / "whole")
    lines = metrics(tmp_path / "whole")
    assert [line for line in lines if "skipped_updates" in line] == [
        {"step": 2, "skipped_updates": 1},
        {"step": 5, "skipped_updates": 2},
    ]
    assert [line["step"] for line in lines if "training_loss" in line] == [4, 6]  # that of step 2 is no number
    for config.training.n_iters in (4, 6):
        train(config, tmp_path / "stopped")
    assert metrics(tmp_path / "stopped") == lines
    for ours, theirs in zip(leaves(tmp_path / "whole"), leaves(tmp_path / "stopped"), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_too_many_skipped_updates_in_a_row_stop_the_training():
    told = []
    losses = Losses(skip=True, skipped=5, tell=lambda step, count: told.append((step, count)))
    values = [1.0, *[np.nan] * 10, 2.0, *[np.nan] * 11]
    with pytest.raises(DivergenceError) as stopped:
        for step, value in enumerate(values, start=1):
            losses.add(step, jnp.float32(value))
        losses.last()
    assert stopped.value.step == len(values)
    assert told == [(step, step + 4) for step in range(2, 12)] + [(step, step + 3) for step in range(13, 23)]


def test_a_clock_that_runs_backwards_changes_nothing(run, undisturbed, tmp_path, monkeypatch):
    _, config = run
    ticks = iter(range(10**9, 0, -60))
    monkeypatch.setattr(time, "time", lambda: float(next(ticks)))
    for config.training.n_iters in (3, 6):
        train(config, tmp_path / "again")
    assert metrics(tmp_path / "again") == metrics(undisturbed)
    assert ckpt.steps(tmp_path / "again" / "checkpoints")[-2:] == [4, 6]
    times = [json.loads(line)["time"] for line in (tmp_path / "again" / "metrics.jsonl").read_text().splitlines()]
    assert times == sorted(times)


def test_the_best_checkpoints_are_kept(tiny_config, tmp_path):
    config = tiny_config()
    config.training.update(
        n_iters=8, keep_last=1, keep_best=2, snapshot_freq=100, snapshot_freq_for_preemption=1, eval_freq=100
    )
    for config.training.n_iters in (5, 8):
        train(config, tmp_path)
    losses = {line["step"]: line["eval_loss"] for line in metrics(tmp_path) if "eval_loss" in line}
    assert sorted(losses) == list(range(1, 9))
    best = sorted(losses, key=losses.get)[:2]
    assert ckpt.steps(tmp_path / "checkpoints") == sorted({8, *best})


def test_a_notice_to_stop_leaves_a_checkpoint(run, data_dir, tmp_path):
    folder, config = run
    overrides = differences(config) | {"training.n_iters": 100_000}
    command = [sys.executable, "-c", PROGRAM, "--config=configs/vp/digits_ddpmpp_continuous.py", "--mode=train"]
    command += [f"--workdir={tmp_path / 'stopped'}", *(f"--config.{key}={value}" for key, value in overrides.items())]
    lines = tmp_path / "stopped" / "metrics.jsonl"
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and not (lines.exists() and len(lines.read_text().splitlines()) > 8):
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        told = process.communicate(timeout=60)[1]
    assert process.returncode == 75, told
    step = ckpt.steps(tmp_path / "stopped" / "checkpoints")[-1]
    assert f"Stopped by SIGTERM after step {step}, which is saved; the same command goes on from there." in told
    assert metrics(tmp_path / "stopped")[:9] == metrics(folder)
    assert metrics(tmp_path / "stopped")[-1]["step"] == step


def test_of_many_notices_the_first_is_noted_and_a_second_ctrl_c_acts():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with pytest.raises(KeyboardInterrupt), Notice() as notice:
        assert not notice.number
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            os.kill(os.getpid(), number)
        stopped = Stopped(notice.number, ", so")
        assert (str(stopped), stopped.status) == ("Stopped by Ctrl-C, so.", 130)
        assert Stopped(signal.SIGUSR1).status == 75
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)
    signal.signal(signal.SIGINT, before)


def test_an_evaluation_goes_on_from_its_last_round(run, monkeypatch):
    folder, config = run
    config.eval.update(enable_loss=True, enable_sampling=True, num_samples=20, batch_size=8)
    config.sampling.update(method="ddim", num_steps=2)
    config.metrics.update(features="trained", n_iters=5, split="test")
    few = InMemory(evaluation.load_data(config, train=False).images[:20], None)
    monkeypatch.setattr(evaluation, "load_data", lambda *_, **__: few)
    model = evaluation.load(folder, 6, config)  # compiled once
    monkeypatch.setattr(evaluation, "load", lambda *_: model)
    evaluation.evaluate(config, folder, "whole")
    drawn, draw = [], evaluation.Pretrained.draw

    def killed(self, keys, **options):
        drawn.append(len(keys))
        if len(drawn) == 2:
            raise KeyboardInterrupt
        return draw(self, keys, **options)

    monkeypatch.setattr(evaluation.Pretrained, "draw", killed)
    with pytest.raises(KeyboardInterrupt):
        evaluation.evaluate(config, folder, "killed")
    (folder / "killed/step_00000006/loss.00_0001.npz").write_bytes(b"PK half a file")
    evaluation.evaluate(config, folder, "killed")
    assert len(drawn) == 4  # one, the one that was cut short, and of three the two that were not there
    (entry,) = json.loads((folder / "whole/report.json").read_text())["checkpoints"]
    measured = [name for name in entry["sampling"]["metrics"] if "[features=trained-" in name]
    assert len(measured) == 4  # but the extrapolated one
    for path in (folder / "whole").rglob("*"):
        if path.suffix in (".json", ".npz", ".png", ".html"):
            other = folder / "killed" / path.relative_to(folder / "whole")
            assert other.read_bytes() == path.read_bytes(), path.name


def test_rounds_are_those_of_their_computation(tmp_path):
    computed = []

    def compute():
        computed.append(1)
        return {"x": np.arange(3.0)}

    for identity, made in (({"rtol": 1}, 2), ({"rtol": 1}, 2), ({"rtol": 2}, 4)):
        rounds = Rounds(tmp_path, "bits", identity, ["x"])
        for name in ("0000", "0001"):
            np.testing.assert_array_equal(rounds(name, compute)["x"], np.arange(3.0))
        assert len(computed) == made
    Rounds(tmp_path, "other", {}, ["x"])("", compute)
    flip(tmp_path / "bits.0001.npz")
    Rounds(tmp_path, "bits", {"rtol": 2}, ["x"])("0001", compute)
    assert len(computed) == 6


def test_a_notice_during_sampling_ends_it_with_the_status_for_another_try(run, data_dir, capsys, monkeypatch):
    folder, _ = run

    def stop(*_, **__):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1)

    monkeypatch.setattr(evaluation, "draw_samples", stop)
    before = signal.getsignal(signal.SIGTERM)
    command = ["score_sde", "--config=configs/vp/digits_ddpmpp_continuous.py", f"--workdir={folder}", "--mode=sample"]
    stored = json.loads((folder / "config.json").read_text())
    monkeypatch.setattr("score_sde.io.workdir.check_same_run", lambda *_: None)
    assert stored["model"]["nf"] == 8
    assert main(command) == 75
    assert "Stopped by SIGTERM; the same command goes on" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is before
