"""A day on a GPU, rehearsed: parts in their order, what fails or does not fit, and a second call that goes on."""

import json
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
from score_sde.experiments.benchmark import __main__ as command
from score_sde.experiments.benchmark import gpu, gpu_checks, gpu_training, installed
from score_sde.experiments.benchmark.gpu_checks import Outcome, Subject

import score_sde
from score_sde.errors import UsageError
from score_sde.runtime.preemption import Stopped

CALLED = []
CHECKS = {
    "one that passes": lambda _: CALLED.append("passes") or Outcome(True, {"apart": 0.5, "of": {"it": 12345.0}}),
    "one that does not": lambda _: CALLED.append("does not") or Outcome(False, {"apart": 2.0}, "2 is more than 1"),
    "one that breaks": lambda _: {}["the driver"],
    "one for GPUs": lambda _: Outcome(None, {}, "this is a CPU"),
}
CURVE = [(50, 1.0), (100, 0.5)]
TRAINED = {"from": 0, "updates": 100, "images_a_second": 1234.5, "curve": CURVE}


@pytest.fixture
def day(tmp_path, monkeypatch):
    """minutes, tasks -> (status, results) of a day whose parts take no time."""
    CALLED.clear()
    monkeypatch.setattr(gpu, "CHECKS", CHECKS)
    monkeypatch.setattr(gpu, "train_for", lambda seconds, config, folder: TRAINED | {"seconds left": seconds})
    monkeypatch.setattr(gpu.speed, "rate_in", lambda precision: 2e12)
    monkeypatch.setattr(gpu, "_cell", _cell)
    monkeypatch.setattr(gpu, "_free", lambda: None)

    def run(minutes=60.0, tasks=("train",)):
        status = gpu.run([], tasks, ["tf32", "bfloat16"], 1, None, minutes, True, tmp_path)
        return status, json.loads((tmp_path / gpu.RESULTS).read_text())

    return run


def _cell(name, case, task, precision, batch, rounds, left):
    CALLED.append(f"{task} {precision}")
    row = gpu.speed.row_of(name, task, f"score_sde, {precision}", batch)
    return {"status": "measured", "row": row | {"seconds": [0.5], "evaluations": 1, "images": batch, "flops": 10**12}}


def test_a_part_that_fails_does_not_stop_the_rest_and_all_of_it_is_on_the_page(day, tmp_path, capsys):
    status, results = day()
    assert status == 1
    statuses = {name: entry["status"] for name, entry in results["parts"].items()}
    assert [statuses[name] for name in CHECKS] == ["passed", "failed", "failed", "skipped"]
    assert list(statuses.values())[4:] == ["measured", "measured", "measured", "trained"]
    assert results["parts"]["one that breaks"]["reason"] == "KeyError: 'the driver'"
    said, page = capsys.readouterr().out, (tmp_path / gpu.PAGE).read_text()
    for shown in ("KeyError", "2 is more than 1", "this is a CPU", "12,345", "100.0%", "1,23"):
        assert shown in said and shown.replace("'", "&#39;") in page
    assert "<svg" in page and results["facts"]["driver"] in page


def test_a_second_call_keeps_what_is_done_tries_the_rest_again_and_trains_on(day):
    day()
    CALLED.clear()
    _, results = day(tasks=("train", "sample"))
    assert CALLED == ["does not", "sample bfloat16", "sample tf32"] and len(results["calls"]) == 2
    assert results["parts"]["one that passes"]["figures"]["apart"] == 0.5


def test_parts_for_which_no_time_is_left_are_skipped_and_the_table_leaves_a_third_to_the_training(day):
    status, results = day(minutes=0.05)  # 3 s: 2 before the training, of which a part of a second is gone
    assert status == 1 and [each["status"] for each in results["parts"].values()][-1] == "skipped"
    assert "are left" in list(results["parts"].values())[-1]["reason"]
    status, results = day(minutes=0.5)
    assert 20 < results["parts"]["training of DDPM++ 8x8, tiny in bfloat16"]["seconds left"] <= 28


def test_the_part_in_which_a_process_ended_is_tried_after_the_others(day, tmp_path):
    _, results = day(tasks=())
    results["parts"]["one that passes"] = {"group": "checks", "status": "running"}
    (tmp_path / gpu.RESULTS).write_text(json.dumps(results))
    CALLED.clear()
    _, results = day(tasks=())
    assert CALLED == ["does not"] and "ended in this part" in results["parts"]["one that passes"]["reason"]
    _, results = day(tasks=())
    assert results["parts"]["one that passes"]["status"] == "passed"


def test_a_day_that_is_stopped_says_so_and_goes_on(day, tmp_path, monkeypatch):
    def stopped(subject):
        raise Stopped(15)

    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setitem(CHECKS, "one that does not", stopped)
        day(tasks=())
    results = json.loads((tmp_path / gpu.RESULTS).read_text())["parts"]
    assert [results[name]["status"] for name in CHECKS] == ["passed", *["not run"] * 3]
    assert "SIGTERM" in results["one that does not"]["reason"]
    CALLED.clear()
    day(tasks=())
    assert CALLED == ["does not"]


def test_the_table_begins_with_an_update_in_bfloat16_and_its_neighbours():
    cells = gpu.ordered(["A", "B"], ["train", "sample", "likelihood"], ["tf32", "bfloat16"])
    assert cells[0] == ("A", "train", "bfloat16")
    assert set(cells[1:4]) == {("A", "train", "tf32"), ("A", "sample", "bfloat16"), ("B", "train", "bfloat16")}
    assert len(cells) == 10 and not any(cell[1:] == ("likelihood", "bfloat16") for cell in cells)


def test_mistakes_are_answered_before_anything_is_written(tmp_path, monkeypatch, day):
    arguments = (["train"], ["tf32"], 1, None)
    for minutes in (0, -1, float("nan"), float("inf")):
        with pytest.raises(UsageError, match="--minutes"):
            gpu.run([], *arguments, minutes, True, tmp_path)
    with pytest.raises(UsageError, match="no GPU here, only: cpu; rehearse with --toy"):
        gpu.run([], *arguments, 9, False, tmp_path)
    with pytest.raises(UsageError, match="--networks"):
        gpu.run(["DDPM"], *arguments, 9, True, tmp_path)
    assert not list(tmp_path.iterdir())
    day(tasks=())
    monkeypatch.setattr(gpu.speed, "machine", lambda: {"device": "another", "versions": {}})
    with pytest.raises(UsageError, match=r"results of the device cpu, not another; use a new --out"):
        day(tasks=())


def test_missing_packages_are_named_together(monkeypatch, capsys):
    assert installed.missing(["jax>=0.1", "no-such_package>=2"]) == {"no-such-package": "score_sde"}
    monkeypatch.setattr(installed, "requirements", lambda: ["no_such", "jax", "neither"])
    with pytest.raises(UsageError, match="lacks no-such, neither; install them"):
        command.program(["benchmark", "gpu"])
    monkeypatch.setattr(installed, "requirements", lambda: ["jax"])
    monkeypatch.setattr(installed.importlib.metadata, "requires", _requires)
    installed.check_installed()
    assert "lacks of-jax (for jax)" in capsys.readouterr().err


def _requires(name):
    if name == "jax":
        return ["of_jax", 'of_an_extra; extra == "x"']
    raise installed.importlib.metadata.PackageNotFoundError


def test_without_its_data_the_training_is_skipped_with_the_folder_that_lacks_them(tmp_path):
    config = gpu.speed.cases()["DDPM++ CIFAR-10"].config
    config.data.data_dir = str(tmp_path)
    assert gpu_training.missing_data(config).startswith(f"{tmp_path} has no cifar10; put the prepared data set there")


class AlarmAtTheFirstLoss(threading.Thread):
    """A timer that rings when a training has written a loss, however long compiling takes."""

    metrics = None

    def __init__(self, seconds, ring):
        super().__init__(daemon=True)
        self.ring, self.before = ring, self._written()

    def _written(self) -> int:
        return self.metrics.stat().st_size if self.metrics.exists() else 0

    def run(self):
        while self._written() <= self.before:
            time.sleep(0.01)
        self.ring()

    def cancel(self):
        pass


def test_a_training_that_is_stopped_from_outside_ends_the_day(tmp_path, monkeypatch):
    def stopped(config, folder):
        raise Stopped(15)

    monkeypatch.setattr(gpu_training, "train", stopped)
    with pytest.raises(Stopped):
        gpu_training.train_for(60.0, gpu.speed.cases()[gpu.TINY].config, tmp_path)


def test_attention_of_a_cpu_is_near_float32_and_says_that_cudnn_is_for_gpus(monkeypatch):
    monkeypatch.setattr(gpu_checks, "TOKENS", ((16, 8),))
    outcome = gpu_checks.attention(Subject(None, 0, 0))
    assert outcome.passed is None and "NVIDIA" in outcome.reason
    [figures] = outcome.figures.values()
    assert figures["by"] == "XLA" and 0 < figures["output"] < 2**-7 and 0 < figures["gradient"] < 2**-6


def test_the_distance_of_trees_is_relative_to_the_second():
    a, b = {"a": np.array([3.0, 0.0]), "b": np.array([1.0])}, {"a": np.zeros(2), "b": np.array([5.0])}
    assert gpu_checks.apart(a, b) == 1.0


@pytest.mark.long
@pytest.mark.usefixtures("one_block")
def test_a_rehearsal_measures_and_trains_beside_a_part_that_fails_and_goes_on(tmp_path, data_dir, monkeypatch):
    (tmp_path / "tensorflow_datasets").symlink_to(data_dir)
    monkeypatch.setattr(gpu.speed, "rate_in", lambda precision: 2e12)
    monkeypatch.setitem(gpu.CHECKS, "tf32 against float32", CHECKS["one that breaks"])
    monkeypatch.setattr(AlarmAtTheFirstLoss, "metrics", tmp_path / "training" / "metrics.jsonl")
    monkeypatch.setattr(gpu_training, "threading", SimpleNamespace(Timer=AlarmAtTheFirstLoss, Event=threading.Event))
    day = ["benchmark", "gpu", "--toy", "--minutes=30", "--rounds=2", f"--out={tmp_path}"]
    assert command.program(day) == 1
    parts = json.loads((tmp_path / gpu.RESULTS).read_text())["parts"]
    statuses = {name: entry["status"] for name, entry in parts.items()}
    assert statuses.pop("attention by cuDNN") == "skipped" and statuses.pop("tf32 against float32") == "failed"
    assert set(statuses.values()) == {"passed", "measured", "trained"}
    rows = [entry["row"] for entry in parts.values() if "row" in entry]
    assert len(rows) == 5 and all(len(row["seconds"]) == 2 and row["bytes"] > 0 for row in rows)
    assert all(row["predicted_bytes"] > 0 for row in rows if row["task"] == "train")
    first = trained(parts)
    assert command.program(day) == 1
    second = trained(json.loads((tmp_path / gpu.RESULTS).read_text())["parts"])
    assert first["from"] == 0 < first["updates"] == second["from"] < second["updates"]
    assert second["curve"][: len(first["curve"])] == first["curve"] and second["images_a_second"] is None
    assert score_sde.load(tmp_path / "training").step == second["updates"]


def trained(parts) -> dict:
    return parts["training of DDPM++ 8x8, tiny in bfloat16"]
