"""Runs side by side: what differs is shown, what does not compare is not compared, and noise is the same."""

import base64
import io
import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image
from score_sde.experiments.compare import curves, figures
from score_sde.experiments.compare.__main__ import program
from score_sde.experiments.compare.report import EACH, write
from score_sde.experiments.compare.run import compare
from score_sde.experiments.compare.runs import names, read
from score_sde.experiments.compare.samples import Drawn

from score_sde.runtime.preemption import exit_status
from score_sde.training.run import train

CONFIG = {
    "data": {"dataset": "digits", "data_dir": "/here", "image_size": 8, "num_channels": 1},
    "sde": {"name": "vpsde", "beta_max": 20.0},
    "model": {"name": "ncsnpp", "nf": 8},
    "optim": {"lr": 1e-3},
    "training": {"batch_size": 4, "reduce_mean": True, "likelihood_weighting": False, "continuous": True},
}
SCRIPT = "<script>alert(1)</script>"


@pytest.fixture
def run(tmp_path):
    """(name, section=changes) -> a workdir without a checkpoint."""

    def make(name: str, /, **changes):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        config = {section: values | changes.get(section, {}) for section, values in CONFIG.items()}
        (folder / "config.json").write_text(json.dumps(config))
        return folder

    return make


def log(folder, *lines) -> None:
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def evaluated(folder, *entries, into="eval", **config) -> None:
    """Entries are (step, {figure: (mean, error)}, {"fid": ..., "fingerprint": ...} or nothing)."""
    found = []
    for step, of_step, *measured in entries:
        entry = {"step": step} | {name: figure(*values) for name, values in of_step.items()}
        found.append(entry | ({"sampling": {"metrics": measured[0]}} if measured else {}))
    (folder / into).mkdir(exist_ok=True)
    (folder / into / "report.json").write_text(json.dumps({"config": config, "checkpoints": found}))


def figure(mean: float, error: float | None) -> dict:
    return {"mean": mean, "standard_error": error}


def distance(mean: float, fingerprint: str, **protocol) -> dict:
    return {"fid": figure(mean, 0.3), "fingerprint": fingerprint, "protocol": {"sampler": "pc"} | protocol}


def shown(tmp_path, capsys, *folders) -> tuple[str, str]:
    """What the terminal and the page say."""
    compare(folders, tmp_path / "page.html", num_samples=0)
    return capsys.readouterr().out, (tmp_path / "page.html").read_text()


def row(text: str, name: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if line.split("  ")[0] == name]
    return [cell.strip() for cell in line.split("  ") if cell.strip()][1:]


def test_a_row_for_each_key_that_differs_those_of_places_last(run, tmp_path, capsys):
    changes = {"optim": {"lr": 5e-4}, "data": {"data_dir": "/there"}, "model": {"progressive": "none"}}
    terminal, page = shown(tmp_path, capsys, run("a"), run("b", **changes))
    assert row(terminal, "optim.lr") == ["0.001", "0.0005"]
    assert row(terminal, "model.progressive") == ["-", "none"]
    assert terminal.index("optim.lr") < terminal.index("data.data_dir")
    assert "<tr><td>optim.lr</td><td>0.001</td><td>0.0005</td></tr>" in page
    assert "model.nf" not in terminal + page and "sampling." not in terminal + page


def test_equal_configs_are_said_to_be(run, tmp_path, capsys):
    terminal, page = shown(tmp_path, capsys, run("a"), run("b"))
    assert "Configs do not differ." in terminal
    assert "Nothing differs" in page and "<svg" not in page


def test_a_key_that_was_added_since_a_run_has_the_value_it_meant(run, tmp_path, capsys):
    terminal, _ = shown(tmp_path, capsys, run("a"), run("b", training={"fsdp": 1}, model={"num_classes": 10}))
    assert "training.fsdp" not in terminal
    assert row(terminal, "model.num_classes") == ["0", "10"]


def test_versions_and_data_that_differ_are_listed(run, tmp_path, capsys):
    folders = [run("a"), run("b")]
    for folder, jax in zip(folders, ("0.10.1", "0.10.2"), strict=True):
        launch = {"run_id": folder.name, "versions": {"jax": jax, "flax": "1"}, "data": {"training": {"images": 9}}}
        (folder / "launch.json").write_text(json.dumps(launch))
    terminal, _ = shown(tmp_path, capsys, *folders)
    assert row(terminal, "launch.versions.jax") == ["0.10.1", "0.10.2"]
    assert "flax" not in terminal and "run_id" not in terminal and "images" not in terminal


def test_hours_leave_out_a_pause_and_nothing_else():
    steps, times = [2, 2, 4, 6, 8, 9], [100, 101, 103, 105, 9105, 9106]
    hours = curves.hours([{"step": step, "time": time} for step, time in zip(steps, times, strict=True)])
    pause = curves.PAUSE * 2  # two updates at a second each, the median
    np.testing.assert_allclose(hours * 3600, [0, 1, 3, 5, 5 + pause, 6 + pause])
    assert len(curves.hours([])) == 0


def test_curves_are_against_updates_images_and_hours(run):
    folder = run("a", training={"batch_size": 4})
    log(folder, {"step": 1, "loss": 3.0, "time": 0.0}, {"step": 1, "other": 1.0, "time": 0.0}, {"step": 3, "loss": 1.0})
    (folder / "metrics.jsonl").write_text((folder / "metrics.jsonl").read_text() + '{"step": 4, "lo')  # cut short
    (found, _) = read([folder, run("b")])
    assert curves.scalars([found]) == ["loss", "other"]
    for axis, expected in (("updates", [1, 3]), ("images seen", [4, 12])):
        x, y, _ = curves.curve(found, "loss", axis)
        assert (list(x), list(y)) == (expected, [3.0, 1.0])
    assert list(curves.curve(found, "loss", "hours")[0]) == [0]  # of the line that has a time


def test_a_long_curve_is_of_means(run):
    folder, n = run("a"), 2 * curves.POINTS + 1
    log(folder, *({"step": i, "loss": float(i % 2), "time": i} for i in range(n)))
    x, y, _ = curves.curve(read([folder, run("b")])[0], "loss", "updates")
    assert len(x) <= curves.POINTS
    assert list(x[:2]) == [1, 4] and y[0] == pytest.approx(1 / 3)
    assert x[-1] == np.mean(range(3 * ((n - 1) // 3), n))  # the last is of what is left


def test_losses_of_different_objectives_are_said_not_to_compare(run, tmp_path, capsys):
    weighted = run("weighted", training={"likelihood_weighting": True})
    folders = [run("a"), run("b", optim={"lr": 1.0}), weighted, run("ve", sde={"name": "vesde"})]
    for folder in folders:
        log(folder, {"step": 1, "training_loss": 1.0, "time": 0.0})
    assert "not comparable" not in shown(tmp_path, capsys, *folders[:2])[1]
    assert "differ in training.likelihood_weighting." in shown(tmp_path, capsys, folders[0], weighted)[1]
    assert "differ in sde.*." in shown(tmp_path, capsys, folders[0], folders[3])[1]


def test_figures_of_last_checkpoints_and_their_differences_with_errors(run, tmp_path, capsys):
    a, b = run("a"), run("b")
    evaluated(a, (2, {"bits_per_dim": (6.0, 0.03)}), (4, {"bits_per_dim": (5.0, 0.03), "loss": (1.0, None)}))
    evaluated(b, (4, {"bits_per_dim": (5.5, 0.04)}), into="eval-1a2b3c")
    terminal, page = shown(tmp_path, capsys, a, b)
    assert row(terminal, "folder") == ["eval", "eval-1a2b3c"]
    table, minus = terminal.split("minus a")
    assert row(table, "bits/dim") == ["5.000 ± 0.030", "5.500 ± 0.040"]
    assert row(table, "loss") == ["1", "not run"]
    assert row(minus, "bits/dim") == ["+0.500 ± 0.050"]
    assert "loss" not in minus
    assert page.count("<svg") == 2  # bits/dim and loss over checkpoints
    assert "conservative" in page


def test_distances_of_different_protocols_share_no_row(run, tmp_path, capsys):
    folders = [run("a"), run("b"), run("c")]
    for folder, fid, print_, nfe in zip(folders, (3.0, 4.0, 5.0), ("aa", "aa", "bb"), (10, 10, 20), strict=True):
        evaluated(folder, (4, {}, distance(fid, print_, nfe=nfe)))
    terminal, page = shown(tmp_path, capsys, *folders)
    table, minus = terminal.split("minus a")
    assert row(table, "fid (aa)") == ["3.00 ± 0.30", "4.00 ± 0.30", "not run"]
    assert row(table, "fid (bb)") == ["not run", "not run", "5.00 ± 0.30"]
    assert row(minus, "fid (aa)") == ["+1.00 ± 0.42", "-"]
    assert "fid (bb)" not in minus
    assert "<tr><td>nfe</td><td>10</td><td>20</td></tr>" in page and "<td>sampler</td>" not in page


def test_figures_that_are_not_of_one_quantity_have_no_difference(run, tmp_path, capsys):
    a, ve, other_data = run("a"), run("ve", sde={"name": "vesde"}), run("c", data={"dataset": "cifar10"})
    for folder in (a, ve, other_data):
        evaluated(folder, (4, {"loss": (1.0, 0.1), "bits_per_dim": (5.0, 0.1)}))
    evaluated(ve, (4, {"bits_per_dim": (5.5, 0.1)}), into="tight", **{"eval.dequantization": "variational"})
    minus = shown(tmp_path, capsys, a, ve, other_data)[0].split("minus a")[1]
    different = "not comparable: data.dataset"
    assert row(minus, "loss") == ["not comparable: sde.*", "-", different]
    assert row(minus, "bits/dim") == ["0.00 ± 0.14", "not comparable: eval.dequantization", different]


def test_of_several_evaluations_of_the_first_run_that_is_taken_which_compares(run, tmp_path, capsys):
    a, b = run("a"), run("b")
    tight = {"eval.dequantization": "variational"}
    evaluated(a, (4, {"bits_per_dim": (5.0, 0.0)}))
    evaluated(a, (4, {"bits_per_dim": (4.0, 0.0)}), into="tight", **tight)
    evaluated(b, (4, {"bits_per_dim": (3.0, 0.0)}), into="other", **tight)
    terminal, page = shown(tmp_path, capsys, a, b)
    assert row(terminal.split("minus a")[1], "bits/dim") == ["-1.0000 ± 0"]
    assert "<tr><td>eval.dequantization</td><td>uniform</td><td>variational</td><td>variational</td></tr>" in page


def test_the_loss_of_a_classifier_is_another_than_that_of_a_score(run):
    score, classifier = read([run("score"), run("classifier", model={"name": "wideresnet"})])
    assert figures.unlike(figures.LOSS, [score.config, classifier.config]) == ["model.name"]
    assert figures.unlike(figures.LOSS, [score.config, score.config | {"model.name": "ddpm"}]) == []


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["r/lr1", "r/lr2"], ["lr1", "lr2"]),
        (["r/lr1/s0", "r/lr2/s0", "r/x"], ["lr1/s0", "lr2/s0", "x"]),
        (["/s0", "/r/s0"], ["/s0", "r/s0"]),
        (["r/a/", "r/a/../b"], ["a", "b"]),
    ],
)
def test_runs_are_named_by_the_shortest_ends_that_tell_them_apart(paths, expected, tmp_path):
    assert names([tmp_path / path for path in paths]) == expected


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "name two workdirs or more"),
        (["a"], "name two workdirs or more"),
        (["a", "a"], "named twice"),
        (["a", "b", "b/../a"], "named twice"),
        (["a", "missing"], "missing is no workdir"),
        (["a", "empty"], "empty is no workdir"),
        (["a", "b", "--num_samples=-1"], "--num_samples=-1"),
        (["a", "b", "--out=empty"], "empty is a folder"),
        (["a", "broken"], "config.json is not valid JSON"),
    ],
)
def test_a_mistake_is_one_sentence_and_nothing_is_written(arguments, words, run, tmp_path, capsys, monkeypatch):
    run("a"), run("b"), (tmp_path / "empty").mkdir()
    (run("broken") / "config.json").write_text("{")
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert exit_status(program, ["compare", *arguments]) == 2
    output = capsys.readouterr()
    assert words in output.err and output.err.count("\n") == 1 and output.out == ""
    assert sorted(tmp_path.rglob("*")) == before


def test_a_page_that_cannot_be_written_is_said_with_its_flag(run, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    arguments = [str(run("a")), str(run("b")), f"--out={tmp_path / 'file' / 'page.html'}"]
    assert exit_status(program, ["compare", *arguments]) == 2
    assert "choose another --out" in capsys.readouterr().err


def test_what_runs_hold_is_shown_as_text(run, tmp_path, capsys):
    a, b = run(f"_$a$ {SCRIPT[:8]}"), run("b", data={"dataset": SCRIPT})
    for folder in (a, b):
        log(folder, {"step": 1, SCRIPT: 1.0, "time": 0.0})
        evaluated(folder, (4, {"loss": (1.0, 0.1)}, distance(1.0, SCRIPT)), **{"eval.dequantization": SCRIPT})
    _, page = shown(tmp_path, capsys, a, b)
    assert "<script>" not in page and "&lt;script&gt;" in page


def test_runs_of_one_shape_stand_in_one_sheet_and_others_by_themselves(run, tmp_path):
    runs = read([run("a"), run("b"), run("c")])
    sizes = zip(runs, (8, 8, 4), strict=True)
    drawn = [Drawn(each.name, np.zeros((17, size, size, 1), np.uint8), "") for each, size in sizes]
    write(tmp_path / "page.html", runs, drawn)
    page = (tmp_path / "page.html").read_text()
    assert page.count("<img") == 3 + 2  # 16 samples of a and b, and one
    assert "Samples 0 to 15; rows from the top: a, b" in page and "Samples 16 to 16; rows" in page
    assert "different shapes" in page


@pytest.mark.usefixtures("one_block")
def test_samples_are_of_the_same_noise_and_a_run_without_is_a_note(tiny_config, run, tmp_path, capsys):
    """Of one training: as it is, copied, up to an earlier checkpoint, and with its last one damaged."""
    folders = [tmp_path / name for name in ("a", "again", "earlier", "damaged")]
    config = tiny_config()
    config.optim.update(lr=0.05, warmup=1, ema_rate=0.0)
    config.model.attn_resolutions = ()
    config.training.update(n_iters=2, snapshot_freq=1, snapshot_sampling=False, eval_freq=100)
    config.sampling.update(method="ddim", num_steps=2)
    train(config, folders[0])
    for copy in folders[1:]:
        shutil.copytree(folders[0], copy)
    shutil.rmtree(folders[2] / "checkpoints" / "2")
    for part in (folders[3] / "checkpoints" / "2" / "state").rglob("*"):
        if part.is_file():
            part.write_bytes(b"")
    folders.append(run("untrained"))

    capsys.readouterr()
    assert (
        exit_status(program, ["compare", *map(str, folders), f"--out={tmp_path / 'page.html'}", "--num_samples=3"]) == 0
    )
    said, page = capsys.readouterr().err, (tmp_path / "page.html").read_text()
    for text in (said, page):
        assert "No samples of damaged: Cannot read the checkpoint of step 2" in text
        assert "No samples of untrained: No checkpoint in" in text
    *_, sheet = re.findall(r"base64,([^\"]*)", page)
    a, again, earlier = rows_of(sheet, 3)
    np.testing.assert_array_equal(again, a)
    alike = [[np.mean(x == y) for x in a] for y in earlier]
    assert np.all(np.diag(alike) < 1)
    assert np.all(np.diag(alike) > np.max(alike - np.eye(3), axis=0))  # its own column is that of the same noise


def rows_of(png: str, n: int) -> list[np.ndarray]:
    """The images (n, 8, 8) in each row of a sheet."""
    with Image.open(io.BytesIO(base64.b64decode(png))) as picture:
        pixels = np.asarray(picture)[:: EACH // 8, :: EACH // 8, 0]
    tops, lefts = range(2, len(pixels), 10), range(2, 2 + 10 * n, 10)
    return [np.stack([pixels[top : top + 8, left : left + 8] for left in lefts]) for top in tops]
