"""Modes and mistakes: files of other programs, folders without a run, backends and memory that are not there.

Each ends in one sentence and status 2, without a traceback, and nothing is written.
"""

import errno
import json
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

import score_sde
from score_sde.cli.command_line import parse
from score_sde.cli.main import main
from score_sde.config import Config
from score_sde.config.import_paths import source_digest
from score_sde.errors import UsageError
from score_sde.io import checkpoints, workdir
from score_sde.io.metrics_log import Writer, read_lines
from score_sde.runtime import backend, failures
from score_sde.runtime.memory import enough_memory
from score_sde.runtime.preemption import UNREAD, exit_status
from score_sde.training import memory_estimate
from score_sde.training.build import Experiment

pytestmark = pytest.mark.usefixtures("one_block")
ROOT = Path(__file__).parent.parent


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
@pytest.mark.parametrize("mode", ["train", "sample"])
def test_a_config_that_is_no_json_object_is_named(mode, content, words, run, capsys, tmp_path):
    (run / "config.json").write_bytes(content)
    error = said([f"--mode={mode}", f"--workdir={run}"], tmp_path, capsys)
    assert words in error and f"{run}/config.json" in error and "restore it" in error


@pytest.mark.parametrize(("change", "words"), CONFIGS)
@pytest.mark.parametrize("mode", ["train", "describe"])
def test_a_config_of_another_shape_is_named(mode, change, words, run, capsys, tmp_path):
    stored = {} if "model_type" in change else json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(stored | change))
    assert words in said([f"--mode={mode}", f"--workdir={run}"], tmp_path, capsys)


@pytest.mark.parametrize(("content", "words"), [*FILES, *((json.dumps(c).encode(), words) for c, words in LAUNCHES)])
@pytest.mark.parametrize("mode", ["sample"])
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
    with pytest.raises(UsageError, match=r"Cannot open the checkpoints in .*; remove what others have put there"):
        checkpoints.Checkpoints(tmp_path)
    with pytest.raises(UsageError, match="is a file, and checkpoints are to be in a folder there"):
        checkpoints.Checkpoints(tmp_path / "4" / checkpoints.METADATA)


@pytest.mark.parametrize("mode", ["sample", "eval", "train_dequantizer", "describe"])
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


def test_a_backend_that_is_missing_is_named_at_once(run, monkeypatch, capsys, tmp_path):
    def devices():
        raise RuntimeError("Unable to initialize backend 'tpu': libtpu.so is missing (set JAX_PLATFORMS='' to choose)")

    monkeypatch.setattr(jax, "devices", devices)
    monkeypatch.setenv("JAX_PLATFORMS", "tpu")
    for mode in ("train", "sample", "describe"):
        error = said([f"--mode={mode}", f"--workdir={run}"], tmp_path, capsys)
        assert "JAX_PLATFORMS=tpu asks for a backend that is not there (libtpu.so is missing); unset it, or" in error
        assert 'pip install "jax[tpu]"' in error
    with pytest.raises(UsageError, match="JAX_PLATFORMS=tpu asks"):
        score_sde.load(run)
    assert 'pip install "jax[cuda12]"' in missing("cuda", monkeypatch) and "no such device" in missing(
        "gpu", monkeypatch
    )
    assert "choose cpu, cuda or tpu" in missing("cdua", monkeypatch)
    assert "set JAX_PLATFORMS=cpu, or uninstall" in missing("", monkeypatch)


def missing(platforms: str, monkeypatch) -> str:
    """The sentence on a backend of JAX_PLATFORMS, of which JAX asserts that there is one."""
    monkeypatch.setenv("JAX_PLATFORMS", platforms)
    return failures.missing_backend(AssertionError())


def test_a_plugin_that_cannot_be_loaded_is_one_warning(capsys):
    log = failures.PluginFailures()
    try:
        raise ImportError("libcudart.so.12: cannot open shared object file")
    except ImportError as error:
        info = (type(error), error, error.__traceback__)
    record = failures.logging.LogRecord("jax", 40, "", 0, "Jax plugin configuration error", (), info)
    assert not log.filter(record)
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "(libcudart.so.12: cannot open shared object file)" in told
    assert log.filter(failures.logging.LogRecord("jax", 20, "", 0, "plugin", (), None))


RESOURCES = "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 17179869184 bytes."


def exhausted(*_, **__):
    raise jax.errors.JaxRuntimeError(RESOURCES)


def test_memory_that_is_used_up_names_the_batch_its_key_and_the_estimate(tiny_config, tmp_path, monkeypatch):
    from score_sde.training import run as training

    config = tiny_config()
    monkeypatch.setattr(training, "_fit", exhausted)
    monkeypatch.setattr(memory_estimate, "kept_bytes", lambda _: 2**30)
    with pytest.raises(UsageError) as caught:
        training.train(config, tmp_path / "run")
    sentence = str(caught.value)
    assert "a training at training.batch_size=16" in sentence and "(an array of 16.0 GiB has no place)" in sentence
    assert "--mode=describe estimates 0.0 GiB of state and 16.0 GiB for the backward pass" in sentence
    assert sentence.endswith("lower training.batch_size.")
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    other = memory_estimate.advice(Experiment(config), 16)
    assert "training.accumulate=2" in other and other.endswith("set training.remat=True")


def test_advice_on_memory_counts_a_private_trainings_places_for_images(tiny_config, monkeypatch):
    config = tiny_config()
    monkeypatch.setattr(memory_estimate, "kept_bytes", lambda _: 2**30)
    config.training.update(privacy=True, accumulate=2)
    config.privacy.times = 1
    sentence = memory_estimate.advice(Experiment(config), 40)
    assert "20.0 GiB for the backward pass" in sentence and sentence.endswith("lower training.batch_size")
    config.privacy.capacity = 40  # of which the batch size is no part
    assert memory_estimate.advice(Experiment(config), 40).endswith("lower privacy.capacity")


def test_an_array_larger_than_this_machine_is_out_of_memory():
    expected = r"features at metrics.batch_size=9 .* 32,768.0 GiB has no place\); lower it\."
    with pytest.raises(UsageError, match=expected), enough("features at metrics.batch_size=9"):
        jax.numpy.zeros(2**45, np.uint8)
    with pytest.raises(UsageError, match=r"2 images .* \(an array of 32.0 TiB has no place\)"), enough("2 images"):
        np.zeros(2**45, np.uint8)
    with pytest.raises(RuntimeError, match="a bug"), enough("2 images"):
        raise RuntimeError("a bug")


def enough(task: str, *, key: bool = True):
    return enough_memory(task, lambda: "lower it", key=key)


def test_of_contexts_in_each_other_the_one_with_a_key_says_it():
    outer, inner = enough("sampling.batch_size=2"), enough("2 images at a time", key=False)
    with pytest.raises(UsageError, match=r"sampling.batch_size=2"), outer, inner:
        exhausted()
    outer, inner = enough("sampling.batch_size=2"), enough("metrics.batch_size=2")
    with pytest.raises(UsageError, match=r"metrics.batch_size=2"), outer, inner:
        exhausted()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "a/b"), "Cannot use a/b (No space left on device); free"),
        (OSError(errno.ENOSPC, "No space left on device"), "Cannot use a file (No space left on device); free space"),
        (PermissionError(errno.EACCES, "Permission denied", b"a"), "(Permission denied); change its permissions"),
        (OSError(errno.EROFS, "Read-only file system", Path("a")), "name a folder on a disk that can be written"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "a"), "name a shorter path"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "Out of memory: there is too little for this program"),
        (MemoryError(), "Out of memory: there is too little for this program; lower its batch size"),
        (jax.errors.JaxRuntimeError(RESOURCES), "for this program (an array of 16.0 GiB has no place); lower"),
    ],
)
def test_a_failure_of_the_machine_is_one_sentence(error, words, capsys):
    def program(_):
        raise error

    assert exit_status(program, []) == 2
    told = capsys.readouterr().err
    assert words in told and told.count("\n") == 1


@pytest.mark.parametrize("error", [FileNotFoundError(2, "No such file"), RuntimeError("a bug"), ValueError("a bug")])
def test_a_fault_of_the_program_keeps_its_traceback(error):
    def program(_):
        raise error

    with pytest.raises(type(error)):
        exit_status(program, [])


@pytest.mark.parametrize("mode", ["sample", "train", "describe"])
def test_a_workdir_that_cannot_be_read_is_one_sentence(mode, run, capsys, monkeypatch, tmp_path):
    read = Path.read_text

    def denied(self, *arguments, **options):
        if self.name == "config.json":
            raise PermissionError(errno.EACCES, "Permission denied", str(self))
        return read(self, *arguments, **options)

    monkeypatch.setattr(Path, "read_text", denied)
    error = said([f"--mode={mode}", f"--workdir={run}"], tmp_path, capsys)
    assert f"Cannot read {run}/config.json (Permission denied)" in error


SLURM = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "0", "SLURM_JOB_ID": "1", "SLURM_NTASKS": "2"}
OMPI = {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_MCA_orte_hnp_uri": "1.0;tcp://10.0.0.1:2", "OMPI_COMM_WORLD_RANK": "0"}


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"SLURM_STEP_NUM_TASKS": "2"}, "SLURM, but SLURM_PROCID is missing"),
        ({"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "x"}, "SLURM_PROCID=x is no number of a process"),
        ({"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "2"}, "SLURM_PROCID=2 is no number of a process"),
        (SLURM, "SLURM_LOCALID is missing"),
        (SLURM | {"SLURM_LOCALID": "0"}, "SLURM_STEP_NODELIST is missing"),
        (OMPI, "Open MPI, but OMPI_COMM_WORLD_LOCAL_RANK is missing"),
    ],
)
def test_half_of_a_launchers_environment_is_named(environment, words, run, capsys, monkeypatch, tmp_path):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    error = said(["--mode=sample", f"--workdir={run}"], tmp_path, capsys)
    assert words in error and "--num_processes=1 runs this process by itself" in error


def test_a_home_folder_is_meant_wherever_a_path_comes_in(run, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.rmtree(run / "checkpoints")
    for mode in ("sample", "eval", "train_dequantizer"):
        assert f"No checkpoint in {run}" in said([f"--mode={mode}", "--workdir=~/run"], tmp_path, capsys)
    config = "--config=vp/digits_ddpmpp_continuous"
    for arguments, words in [
        (["--mode=measure", "--samples=~/a.npy", "--reference=b.npy"], f"No file {tmp_path}/a.npy"),
        (["--mode=data", "--out=~/a.jpg", config], f"--out={tmp_path}/a.jpg must end in .png"),
        (["--mode=train", "--workdir=~/b", "--config=~/a.py"], f"No config file {tmp_path}/a.py"),
    ]:
        assert words in said(arguments, tmp_path, capsys)
    for load in (score_sde.load, score_sde.load_classifier, lambda folder: score_sde.train(None, folder)):
        with pytest.raises(UsageError, match=f"{tmp_path}/nothing"):
            load("~/nothing")
    assert backend.expanded("a/~b") == Path("a/~b")


@pytest.mark.parametrize(
    ("out", "words"),
    [("sheet.jpg", "must end in .png"), ("sheet", "must end in .png"), ("file/sheet.png", "file is a file")],
)
def test_the_sheet_of_the_data_is_a_png_in_a_folder(out, words, tmp_path, capsys):
    (tmp_path / "file").touch()
    arguments = ["--mode=data", "--config=vp/digits_ddpmpp_continuous", f"--out={tmp_path}/{out}"]
    assert words in said(arguments, tmp_path, capsys)


def test_the_sheet_of_the_data_goes_where_it_is_asked_for(tmp_path, data_dir, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = ["score_sde", "--mode=data", "--config=vp/digits_ddpmpp_continuous", f"--config.data.data_dir={data_dir}"]
    assert main(command) == 0 and listing(tmp_path) == []
    assert "--out=FILE.png draws a sheet" in capsys.readouterr().out
    assert main([*command, "--out=new/"]) == 0 and listing(tmp_path) == ["new", "new/digits.png"]


@pytest.mark.parametrize("name", ["", "..", "checkpoints", "samples", "a/b", "/tmp/a"])
def test_a_report_has_a_folder_of_its_own(name, run, tmp_path, capsys):
    assert "must name a new folder" in said(
        ["--mode=eval", f"--workdir={run}", f"--eval_folder={name}"], tmp_path, capsys
    )


def test_a_piece_of_a_notebook_is_refused_in_one_sentence(monkeypatch):
    class Piece:
        pass

    main_module = type(sys)("__main__")
    main_module.Piece = Piece
    Piece.__module__ = "__main__"
    monkeypatch.setitem(sys.modules, "__main__", main_module)
    with pytest.raises(UsageError, match=r"is defined in no file, but in a notebook.*name my_pieces:Piece"):
        source_digest("model.name", "__main__:Piece")


def test_overrides_of_a_training_may_be_numpys_and_jaxs(tiny_config, tmp_path, monkeypatch):
    from score_sde.training import run as training

    taken = {}
    monkeypatch.setattr(training, "train", lambda config, folder, overrides, allowed: taken.update(overrides))
    monkeypatch.setattr(score_sde, "load", lambda folder: folder)
    overrides = {"training.n_iters": np.int64(7), "optim.beta1": jax.numpy.float32(0.5), "model.ch_mult": [1]}
    overrides |= {"guidance.interval": np.array([0.0, 0.5]), "sampling.noise_removal": np.bool_(False)}
    score_sde.train(tiny_config(), tmp_path, overrides)
    expected = {"training.n_iters": 7, "optim.beta1": 0.5, "model.ch_mult": (1,)}
    assert taken == expected | {"guidance.interval": (0.0, 0.5), "sampling.noise_removal": False}
    assert json.dumps(taken)
    for wrong, words in [
        ([("seed", 3)], "no dictionary"),
        ({3: 3}, "no dictionary"),
        ({"seed": [1, 2]}, "not an integer"),
    ]:
        with pytest.raises(UsageError, match=words):
            score_sde.train(tiny_config(), tmp_path, wrong)
    with pytest.raises(UsageError, match="is no config; get_config"):
        score_sde.train({}, tmp_path)
    assert isinstance(tiny_config(), Config)


def test_help_that_nobody_reads_to_its_end_is_no_error():
    command = [sys.executable, "-m", "score_sde", "--help"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == UNREAD


@pytest.mark.parametrize(
    ("written", "key", "expected"),
    [
        (["--config.training.cond_dropout=labels,tokens"], "cond_dropout", ("labels", "tokens")),
        (["--config.training.cond_dropout", "labels, tokens"], "cond_dropout", ("labels", "tokens")),
        (["--config.training.cond_dropout=(labels,tokens)"], "cond_dropout", ("labels", "tokens")),
        (["--config.training.cond_dropout=('labels','tokens')"], "cond_dropout", ("labels", "tokens")),
        (["--config.training.cond_dropout=labels"], "cond_dropout", ("labels",)),
        (["--config.training.cond_dropout="], "cond_dropout", ()),
        (["--config.ema.profiles=half_life:9,0.1,power:0.2"], "profiles", ("half_life:9,0.1", "power:0.2")),
        (
            ["--config.ema.profiles=power:0.1", "--config.ema.profiles=power:0.2"],
            "profiles",
            ("power:0.1", "power:0.2"),
        ),
    ],
)
def test_several_texts_are_parted_by_commas(written, key, expected):
    config = parse(["score_sde", "--config=vp/digits_ddpmpp_continuous", *written]).config
    assert (config.training if key == "cond_dropout" else config.ema)[key] == expected


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("host_loop --batch=0", "0 is no whole number of 1 or more"),
        ("host_loop --tolerance=nan", "nan is no positive number"),
        ("features --images=1", "1 is no whole number of 2 or more"),
        ("digits --workdir={}", "is a file; name a folder"),
        ("benchmark --out={}", "is a file; name a folder"),
    ],
)
def test_flags_of_experiments_are_checked_before_anything_runs(flags, words, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["score_sde", "--mode=experiment", *f"--name={flags}".format(__file__).split()])
    assert ended.value.code == 2 and words in capsys.readouterr().err


def test_a_plain_config_of_ml_collections_is_a_config(tiny_config, tmp_path):
    plain = ConfigDict(tiny_config().to_dict())
    plain.optim.grad_clip = 0.0
    with pytest.raises(UsageError, match="no parameter moves"):
        score_sde.train(plain, tmp_path / "run")
