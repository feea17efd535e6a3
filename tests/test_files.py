"""Files of a run: known by what they hold, owned by what made them, readable and writable wherever they are."""

import ast
import dataclasses
import io
import json
import os
import pwd
import shutil
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image
from test_conditional import saved

import score_sde.evaluation.evaluate as evaluation
from score_sde import data
from score_sde.cli.command_line import overrides, parse
from score_sde.cli.main import main
from score_sde.conditioning.grammar import observation_of
from score_sde.data.datasets import directory_of
from score_sde.errors import UsageError
from score_sde.evaluation.evaluate import sample
from score_sde.inference.pretrained import load
from score_sde.inference.snapshots import restore_state
from score_sde.io import html_page, workdir
from score_sde.io.checkpoints import Checkpoints, Retention, on_host
from score_sde.io.digest import digest
from score_sde.io.result_cache import Rounds
from score_sde.runtime import backend
from score_sde.runtime.preemption import exit_status
from score_sde.training import run as training
from score_sde.training.build import Experiment
from score_sde.training.run import train

pytestmark = pytest.mark.usefixtures("one_block")
ROOT = Path(__file__).parent.parent
CONFIG = f"--config={ROOT / 'configs/vp/digits_ddpmpp_continuous.py'}"
NOT_TEXT = os.fsdecode(b"r\xfcn")


@pytest.fixture(scope="module")
def workdirs(tmp_path_factory):
    return tmp_path_factory.mktemp("workdirs")


@pytest.fixture
def few(tiny_config):
    """Few steps of few samples."""

    def build(**sampling):
        config = tiny_config()
        config.model.num_classes = 10
        config.sampling.update(method="ddim", num_steps=2, num_samples=4, **sampling)
        config.guidance.samples_each = 1
        return config

    return build


@pytest.fixture
def run(workdirs, few, tmp_path):
    """A copy of the workdir of random weights."""
    if not (workdirs / "run").exists():
        saved(few(), workdirs / "run")
    return shutil.copytree(workdirs / "run", tmp_path / "run")


def paint(path: Path, hidden) -> str:
    known = np.full((8, 8), 255, np.uint8)
    known[hidden] = 0
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(known).save(path)
    return f"inpaint={path}"


LEFT, TOP = np.s_[:, :4], np.s_[:4]


# What is read is known by what it holds.


def test_a_repainted_mask_is_another_condition(run, few, tmp_path, monkeypatch):
    config, found = few(condition=paint(tmp_path / "mask.png", LEFT)), []
    model = load(run, config=config)  # compiled once
    monkeypatch.setattr(evaluation, "load", lambda *_, **__: model)
    pixels = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 1), np.uint8)
    monkeypatch.setattr(evaluation, "load_data", lambda *_, **__: data.InMemory(pixels))
    for hidden in (LEFT, TOP):
        paint(tmp_path / "mask.png", hidden)
        sample(config, run)
        (name,) = workdir.read(run / "samples", "index.json").keys() - {name for name, _ in found}
        found.append((name, np.load(run / "samples" / f"{name}.npz")))
    for (_, arrays), hidden in zip(found, (LEFT, TOP), strict=True):
        known = np.ones((8, 8), bool)
        known[hidden] = False
        np.testing.assert_array_equal(arrays["images"][:, known], arrays["truth"][:, known])
        assert np.any(arrays["images"][:, ~known] != arrays["truth"][:, ~known])


def test_a_condition_is_known_by_the_mask_wherever_it_is(tmp_path):
    def identity(condition):
        return observation_of(condition, (8, 8, 1)).identity

    here, there = (paint(tmp_path / name / "mask.png", LEFT) for name in ("here", "there"))
    assert identity(here) == identity(there) == identity("inpaint=left_half") != identity("inpaint=right_half")
    assert identity("deblur=2.0") == "deblur=2.0" != identity("deblur=1.0")


def test_a_checkpoint_without_a_digest_is_known_by_its_numbers(run, few, monkeypatch):
    monkeypatch.setattr(Checkpoints, "digest", lambda *_: None)
    state, found = restore_state(Experiment(few()), run / "checkpoints", 4)
    assert found == digest(state)


def of_file(path: Path, dataset: str, in_memory_gib: float) -> str:
    source = data.load(
        dataset, train=True, image_size=8, num_channels=1, path=str(path), in_memory_gib=in_memory_gib, held_out=0
    )
    return source.digest()


@pytest.mark.parametrize("in_memory_gib", [0.0, 1.0])
def test_data_are_known_by_their_numbers_and_not_by_their_place(in_memory_gib, tmp_path):
    pixels, labels = np.random.default_rng(0).integers(0, 256, (9, 8, 8), np.uint8), np.arange(9)

    def array(name, pixels, labels=labels):
        np.savez(tmp_path / f"{name}.npz", images=pixels, labels=labels)
        return of_file(tmp_path / f"{name}.npz", "array", in_memory_gib)

    def folder(name, pixels):
        (tmp_path / name).mkdir()
        for i, image in enumerate(pixels):
            Image.fromarray(image).save(tmp_path / name / f"{i}.png", compress_level=0)  # all of one size
        return of_file(tmp_path / name, "folder", in_memory_gib)

    other = pixels.copy()
    other[7, 3, 3] ^= 1
    assert array("a", pixels) == array("b", pixels) != array("a", other)
    assert array("a", pixels, labels[::-1]) != array("b", pixels)
    assert folder("here", pixels) == folder("there", pixels) != folder("changed", other)


# What was made by one computation is no other's.


def test_rounds_remove_their_own_files_and_no_others(tmp_path):
    own = ["bits.npz", "bits.0000.npz", "bits.00_0001.npz", "bits.png", "bits.figures.json"]
    others = ["bits_5.png.npz", "bits_5.npz", "bits_0001.npz", "bits.0000.npz.bak", "bits_bound.0000.npz"]
    others += ["bits.png.npz", "bitsx.npz", "rabbits.npz"]
    Rounds(tmp_path, "bits", {"rtol": 1}, ["x"])
    for name in own + others:
        (tmp_path / name).touch()
    Rounds(tmp_path, "bits", {"rtol": 1}, ["x"])
    assert {path.name for path in tmp_path.iterdir()} == {*own, *others, "bits.json"}
    Rounds(tmp_path, "bits", {"rtol": 2}, ["x"])
    assert {path.name for path in tmp_path.iterdir()} == {*others, "bits.json"}


def test_samples_of_other_settings_have_other_names_and_the_same_ones_the_same(run, few, tmp_path, monkeypatch):
    made, model = [], load(run)

    def draw(model, n, folder, stem, starts=None):
        made.append(stem)
        return {"num_samples": n, "nfe": 3.0}

    def loaded(_, config):
        return dataclasses.replace(model, config=config)

    monkeypatch.setattr(evaluation, "load", loaded)
    monkeypatch.setattr(evaluation, "draw_samples", draw)
    monkeypatch.setattr(evaluation, "reconstruct", lambda model, source, observe, n, *rest: draw(model, n, *rest[:2]))
    changes = [{}, {"num_samples": 36}, {"num_steps": 5}, {"method": "pc"}, {"condition": "class=all"}, {"scale": 4.0}]
    changes += [{"condition": paint(tmp_path / "5.png", LEFT), "scale": 1.0}, {"condition": "inpaint=left_half"}]
    changes += [{"condition": "class=3;inpaint=left_half"}]
    config = few()
    for change in [*changes, {}]:
        config = config if change else few()
        for name, value in change.items():
            config["guidance" if name == "scale" else "sampling"][name] = value
        sample(config, run)
    assert len(set(made)) == len(changes) and made[-1] == made[0]
    assert [name[len("step_00000004_") : -len("_01234567")] for name in made] == [
        *("ddim_2", "ddim_2", "ddim_5", "pc", "pc_class_all", "pc_class_all_scale_4"),
        *("pc_inpaint_5.png", "pc_inpaint_left_half", "pc_class_3_inpaint_left_half", "ddim_2"),
    ]
    index = workdir.read(run / "samples", "index.json")
    assert list(index) == made[:-1]
    assert index[made[1]].items() >= {"step": 4, "method": "ddim", "num_samples": 36, "nfe": 3.0}.items()
    assert index[made[2]]["options"]["num_steps"] == 5 and index[made[5]]["guidance"]["scale"] == 4


# Training goes on with the same data wherever they are, and with other values if it is told to.


@pytest.fixture
def going_on(few, tmp_path, monkeypatch):
    """(a function that launches a training of no updates, the config of one that has come to step 7)"""

    def no_updates(_, directory, *__, **___):
        (directory / "checkpoints" / "7").mkdir(parents=True, exist_ok=True)

    monkeypatch.setattr(training, "fit", no_updates)
    config = few()
    config.model.num_classes = 0
    config.data.update(dataset="array", path=str(tmp_path / "a.npy"))
    np.save(config.data.path, np.zeros((9, 8, 8), np.uint8))

    def launch(allowed=(), **overrides):
        config.update_from_flattened_dict(overrides)
        train(config, tmp_path / "run", overrides, allowed)
        return workdir.read(tmp_path / "run", "launch.json")["changes"]

    assert launch() == []
    return launch, config


@pytest.mark.parametrize("in_memory_gib", [0.0, 1.0])
def test_training_goes_on_with_the_same_data_elsewhere(going_on, in_memory_gib, tmp_path, monkeypatch):
    launch, _ = going_on
    launch(**{"data.in_memory_gib": in_memory_gib})
    shutil.move(tmp_path / "a.npy", tmp_path / "scratch.npy")
    monkeypatch.chdir(tmp_path)
    for path in (f"{tmp_path}/scratch.npy", f"{tmp_path}/./scratch.npy", "scratch.npy"):
        assert launch(**{"data.path": path}) == []
    np.save("scratch.npy", np.ones((9, 8, 8), np.uint8))
    with pytest.raises(UsageError, match=r"training data have changed.*--allow_change=data\."):
        launch()


def test_data_that_cannot_be_compared_are_taken_from_the_same_place_only(going_on, tmp_path):
    launch, _ = going_on
    launch(**{"data.in_memory_gib": 0.0})  # read otherwise, which has another digest, at the same place
    shutil.move(tmp_path / "a.npy", tmp_path / "b.npy")
    with pytest.raises(UsageError, match=r"Nothing tells whether data\.path='.*b\.npy' holds the training data"):
        launch(**{"data.in_memory_gib": 1.0, "data.path": str(tmp_path / "b.npy")})


def test_other_values_are_refused_without_the_flag_and_recorded_with_it(going_on, tmp_path):
    launch, config = going_on
    before = {name: (tmp_path / "run" / name).read_bytes() for name in ("config.json", "launch.json")}
    np.save(config.data.path, np.zeros((12, 8, 8), np.uint8))
    with pytest.raises(UsageError, match=r"optim\.lr=.*or go on with it, by --allow_change=optim\.lr,training\.batch"):
        launch(**{"optim.lr": 0.5, "training.batch_size": 8})
    with pytest.raises(UsageError, match=r"batch_size=16, not 8.*--allow_change=optim\.lr,training\.batch_size\."):
        launch(["optim.lr"])
    with pytest.raises(UsageError, match=r"8 images then, 11 now; .*--allow_change=data\."):
        launch(["optim.lr", "training.batch_size"])
    assert before == {name: (tmp_path / "run" / name).read_bytes() for name in before}
    with pytest.raises(UsageError, match=r"Unknown key of --allow_change 'model\.nf'"):
        launch(["model.nf"])

    given = {"optim.lr": 0.5, "training.batch_size": 8}
    changes = launch(["optim.lr", "training.batch_size", "data"], **given)
    assert [change["key"] for change in changes] == ["optim.lr", "training.batch_size", "data"]
    assert changes[1] == {"step": 7, "key": "training.batch_size", "from": 16, "to": 8}
    assert [changes[2][side]["training"]["images"] for side in ("from", "to")] == [8, 11]
    assert launch(["optim.lr"], **given) == launch(**given) == changes  # nothing has changed since
    with pytest.raises(UsageError, match=r"optim\.lr=0\.5, not 0\.25"):
        launch(**{"optim.lr": 0.25})


def test_what_a_state_means_cannot_be_changed_by_a_flag(going_on):
    launch, _ = going_on
    with pytest.raises(UsageError) as refused:
        launch(workdir.CHANGEABLE, **{"sde.beta_max": 10.0, "optim.lr": 0.5})
    assert "sde.beta_max=20.0, not 10.0" in str(refused.value) and "allow_change" not in str(refused.value)


def test_samples_are_drawn_of_a_run_that_went_on_with_other_values(run, few, monkeypatch):
    config, asked = few(), []
    config.optim.lr = 0.5
    workdir.write(run, "config.json", config.to_dict())
    base = parse(["score_sde", CONFIG]).config
    own, defaults = (workdir.flatten(each.to_dict()) for each in (config, base))
    given = {key: value for key, value in own.items() if value != defaults[key]}
    workdir.write(run, "launch.json", {"overrides": given})
    monkeypatch.setattr(evaluation, "sample", lambda config, *_: asked.append(config.optim.lr))
    assert main(["score_sde", CONFIG, f"--workdir={run}", "--mode=sample"]) == 0
    assert asked == [0.5]


# Places.


def test_a_workdir_is_only_read_where_samples_and_reports_go_elsewhere(run, few, tmp_path, monkeypatch):
    def state():
        return {path: path.stat().st_mtime_ns for path in (run, *run.rglob("*"))}

    before, config = state(), few()
    config.eval.update(begin_ckpt=-1, enable_bpd=False, enable_loss=False, enable_sampling=True, num_samples=4)
    model = load(run, config=config)  # compiled once
    monkeypatch.setattr(evaluation, "load", lambda *_, **__: model)
    sample(config, run, tmp_path / "out")
    evaluation.evaluate(config, run, out=tmp_path / "out")
    assert state() == before
    assert len(list((tmp_path / "out" / "samples").glob("*.npz"))) == 1
    assert json.loads((tmp_path / "out" / "eval" / "report.json").read_text())["complete"]


def test_a_folder_that_cannot_be_written_to_is_answered_by_the_flag(run, few, monkeypatch):
    (run / "samples").write_text("a file, for want of a disk that not even root writes to")
    with pytest.raises(UsageError, match=r"name a folder to write to by --out=DIR"):
        sample(few(), run)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--mode=train", "--out=elsewhere"], "--out is for --mode=eval, sample"),
        (["--mode=sample", "--allow_change=optim.lr"], "--allow_change is for --mode=train"),
        (["--mode=train", "--allow_change=optim.rl"], "did you mean 'optim.lr'"),
    ],
)
def test_flags_of_other_modes_are_refused(arguments, words, tmp_path, capsys):
    assert main(["score_sde", CONFIG, f"--workdir={tmp_path / 'run'}", *arguments]) == 2
    assert words in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_user_without_a_home_and_without_an_entry_has_folders(tmp_path, monkeypatch):
    def nobody(_):
        raise KeyError

    for name in ("HOME", "SCORE_SDE_CACHE", "TFDS_DATA_DIR"):
        monkeypatch.setenv(name, "")  # which is undone with the test, whatever is set in it
        monkeypatch.delenv(name)
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    monkeypatch.setattr(pwd, "getpwnam", nobody)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    mine = tmp_path / f"score_sde-{os.getuid()}"
    assert backend.cache_folder() == mine / ".cache/score_sde"
    assert directory_of("") == mine / "tensorflow_datasets"
    assert mine.stat().st_mode & 0o77 == 0
    assert backend.expanded("~/a") == Path("~/a")
    with pytest.raises(UsageError, match=r"No mask ~/mask\.png"):
        observation_of("inpaint=~/mask.png", (8, 8, 1))
    backend.find_home()
    assert os.environ["HOME"] == str(mine)


def test_a_home_is_used_where_it_is_there_or_can_be_made(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert backend.in_home("a/b") == tmp_path / "home/a/b"
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert backend.in_home("a/b").is_relative_to(Path(backend.tempfile.gettempdir()))
    (tmp_path / "home/a/b").mkdir(parents=True)
    assert backend.in_home("a/b") == tmp_path / "home/a/b"


@pytest.mark.parametrize("name", ["a:b.py", "c:d/a.py"])
def test_a_config_may_have_a_colon_in_its_path(name, tmp_path):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    body = "from ml_collections import ConfigDict\ndef get_config(a='none'):\n    return ConfigDict({'a': a, 'b': 1})\n"
    path.write_text(body)
    for argument, a in (("", "none"), (":some", "some"), (":x:y", "x:y")):
        values = parse(["score_sde", f"--config={path}{argument}", "--config.b=2"])
        assert values.config.to_dict() == {"a": a, "b": 2}
        assert overrides(values) == {"b": 2}
    with pytest.raises(UsageError, match="No config file"):
        parse(["score_sde", f"--config={tmp_path}/no:{name}"])


def test_what_a_locale_has_no_letters_for_is_printed_all_the_same(tmp_path, monkeypatch):
    ascii_only = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", ascii_only)
    assert exit_status(lambda _: print(f"1.0 ± 0.1 {NOT_TEXT}"), []) == 0
    ascii_only.flush()
    assert ascii_only.buffer.getvalue() == rb"1.0 \xb1 0.1 r\udcfcn" + b"\n"
    html_page.write(tmp_path / "page.html", f"± {NOT_TEXT}", [])
    assert r"± r\udcfcn" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_checkpoints_are_kept_in_a_folder_whose_name_is_no_text(tmp_path):
    state = {"w": np.arange(3.0, dtype=np.float32)}
    folder = tmp_path / NOT_TEXT / "checkpoints"
    with Checkpoints(folder, Retention()) as checkpoints:
        checkpoints.save(1, jax.tree.map(jax.numpy.asarray, state))
        assert checkpoints.wait()
    with Checkpoints(folder) as checkpoints:
        np.testing.assert_array_equal(checkpoints.load(1, on_host(state))["w"], state["w"])


def test_no_text_is_read_or_written_in_the_locales_encoding():
    files = [path for folder in ("score_sde", "experiments") for path in (ROOT / folder).rglob("*.py")]
    found = [
        f"{path.relative_to(ROOT)}:{call.lineno}"
        for path in files
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(call, ast.Call) and _is_text(call) and "encoding" not in {word.arg for word in call.keywords}
    ]
    assert found == []


def _is_text(call: ast.Call) -> bool:
    name = getattr(call.func, "attr", getattr(call.func, "id", ""))
    modes = [a.value for a in call.args if isinstance(a, ast.Constant)]
    if name == "open":
        return modes in (["r"], ["w"], ["a"]) or not call.args
    return name in ("read_text", "write_text")
