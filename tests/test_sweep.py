"""Sweeps: what runs there are, that each is made once whatever happens, and what the table says of them."""

import contextlib
import csv
import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from one_block import PROGRAM
from score_sde.experiments.sweep import (
    Halving,
    Sweep,
    choice,
    grid,
    integers,
    log_uniform,
    random,
    results,
    runs,
    uniform,
    zipped,
)
from score_sde.experiments.sweep.__main__ import program
from score_sde.experiments.sweep.definition import read
from score_sde.experiments.sweep.drive import Drive
from score_sde.experiments.sweep.local import Local
from score_sde.experiments.sweep.run import commands, halved
from score_sde.experiments.sweep.runs import plan, resolve
from score_sde.experiments.sweep.space import Space

from score_sde.errors import UsageError
from score_sde.io import workdir

ROOT = Path(__file__).parent.parent
FAKE = (sys.executable, "-S", str(ROOT / "tests" / "fake_program.py"))
CONFIG = str(ROOT / "configs" / "vp" / "digits_ddpmpp_continuous.py")


def sweep(space: Space, **options) -> Sweep:
    options = {"config": CONFIG, "common": {"training.n_iters": 4}, "program": FAKE} | options
    return Sweep(space=space, **options)


def calls(folder: Path) -> list[str]:
    """What the program was called for, of each workdir together."""
    return sorted(" ".join(path.read_text().split()) for path in folder.glob("*/calls.txt"))


def driven(runs_made, **options) -> Drive:
    drive = Drive(runs_made, Local(os.environ, **({"slots": 2} | options)))
    drive()
    return drive


def test_a_grid_has_every_combination_and_products_and_sums_are_of_spaces():
    space = grid({"a": (1, 2), "b": ("x", "y")})
    assert space.points == ({"a": 1, "b": "x"}, {"a": 1, "b": "y"}, {"a": 2, "b": "x"}, {"a": 2, "b": "y"})
    assert (grid({"a": (1, 2)}) * grid({"b": ("x", "y")})).points == space.points
    both = zipped({"a": (1, 2), "b": (3, 4)}) + grid({"c": (5,)})
    assert both.points == ({"a": 1, "b": 3}, {"a": 2, "b": 4}, {"c": 5})


def test_more_random_points_keep_those_there_were():
    draws = {"lr": log_uniform(1e-4, 1e-2), "b": uniform(-1, 1), "nf": integers(8, 9), "act": choice("elu", "swish")}
    few, many = random(5, draws, seed=3), random(300, draws, seed=3)
    assert many.points[:5] == few.points
    assert random(5, draws, seed=4).points != few.points
    lr = np.log10([point["lr"] for point in many.points])
    assert -4 <= lr.min() < -3.9 and -2.1 < lr.max() <= -2 and abs(lr.mean() + 3) < 0.12  # 3.6 standard errors
    assert {point["nf"] for point in many.points} == {8, 9}
    assert {point["act"] for point in many.points} == {"elu", "swish"}


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: grid({}), "grid: there are no keys, so there is nothing to run; give at least one."),
        (lambda: grid({"a": ()}), "grid: a has no values, so there is nothing to run; give at least one."),
        (lambda: grid({"a": "swish"}), "grid: the values of a are 'swish'; give a list of them."),
        (lambda: zipped({"a": (1, 2), "b": (3,)}), "zipped: the keys have different numbers of values (a has 2, b has"),
        (lambda: grid({"a": (1,)}) * grid({"a": (2,)}), "'a' is in both factors of a product of spaces"),
        (lambda: random(3, {"a": 0.5}), "random: a=0.5 is no distribution; give uniform(low, high) or another."),
        (lambda: log_uniform(0, 1), "log_uniform(0, 1): 0 < low <= high must hold."),
        (lambda: Sweep(space=Space(())), "The space of the sweep has no points, so there is nothing to run."),
        (lambda: Sweep(space=grid({"a": (1,)}), seeds=(1, 1)), "The seed 1 is there twice; each run is made once."),
        (
            lambda: Sweep(space=grid({"a": (1,)}), modes=("trian",)),
            "Unknown mode of a sweep 'trian' (did you mean 'train'",
        ),
        (lambda: Halving(by="loss", budgets=(3, 2)), "Halving: the budgets (3, 2) must ascend, and be at least one."),
    ],
)
def test_a_space_of_nothing_is_refused_in_one_sentence(make, said):
    with pytest.raises(UsageError) as error:
        make()
    assert str(error.value).startswith(said)


def test_runs_are_known_by_their_resolved_config(tmp_path):
    of = sweep(grid({"optim.lr": (1e-3,)}))

    def found(point):
        return resolve(of, point, tmp_path)

    # 1e-3 is the file's own value, and a network is trained once however it is sampled afterwards.
    assert found({}).id == found({"optim.lr": 1e-3}).id == found({"data.data_dir": "/elsewhere", "seed": 42}).id
    assert found({"sampling.snr": 0.2}).workdir == found({}).workdir
    assert found({"sampling.snr": 0.2}).id != found({}).id
    trainings = [{}, {"optim.lr": 2e-3}, {"seed": 1}, {"training.n_iters": 5}, {"model.nf": 16}, {"data.path": "mine"}]
    assert len({found(point).workdir for point in trainings}) == len(trainings)


def test_one_training_has_one_command(tmp_path):
    made = plan(sweep(grid({"sampling.snr": (0.1, 0.2)})), tmp_path)
    assert made[0].jobs[0] == made[1].jobs[0]
    assert not any("snr" in word for word in made[0].jobs[0].command)
    assert "--config.sampling.snr=0.2" in made[1].jobs[1].command
    assert len(commands(made)) == 1 and commands(made)[0].count("--mode=train") == 1


@pytest.mark.parametrize(
    ("point", "said"),
    [
        ({"optim.lrr": 1}, "Unknown config key 'optim.lrr' (did you mean 'optim.lr'?)"),
        ({"training.sde": "vpsde"}, "config.training.sde is now config.sde.name."),
        ({"training.n_iters": "many"}, "--config.training.n_iters=many is not an integer."),
        (
            {"sampling.eps": None},
            "sampling.eps=None cannot be set; give a number, text, truth value, or tuple of these.",
        ),
        ({"config": "configs/no.py"}, "No config file configs/no.py"),
    ],
)
def test_a_misspelt_key_is_refused_before_anything_runs(tmp_path, point, said):
    with pytest.raises(UsageError) as error:
        plan(sweep(Space(({"optim.lr": 1e-3}, point))), tmp_path)
    assert str(error.value).startswith(said)
    assert list(tmp_path.iterdir()) == []


def test_runs_of_a_sweep_are_a_group_at_weights_and_biases(tmp_path):
    space = grid({"optim.lr": (1e-3, 1e-4)})
    silent, mirrored, named = (
        plan(sweep(space, common={"wandb.mode": mode} | more), tmp_path / "rates")
        for mode, more in (("disabled", {}), ("offline", {}), ("offline", {"wandb.group": "mine"}))
    )
    for runs_made, group in ((silent, ""), (mirrored, "rates"), (named, "mine")):
        assert [run.config.wandb.group for run in runs_made] == [group] * 2
        words = {word for run in runs_made for job in run.jobs for word in job.command if "wandb.group" in word}
        assert words == ({f"--config.wandb.group={group}"} if group else set())
        assert [run.workdir for run in runs_made] == [run.workdir for run in silent]


def test_values_reach_the_config_as_they_are(tmp_path):
    point = {"model.ch_mult": (1, 2, 2), "model.attn_resolutions": [4], "training.continuous": True, "optim.eps": 1e-12}
    config = resolve(sweep(grid({"seed": (1,)})), point, tmp_path).config
    assert config.model.ch_mult == (1, 2, 2) and config.model.attn_resolutions == (4,)
    assert config.optim.eps == 1e-12 and config.training.continuous is True


FILE = """
from score_sde.experiments.sweep import Sweep, grid

sweep = Sweep(
    config={config!r},
    space=grid({{"optim.lr": (1.0, 2.0, 3.0), "training.reduce_mean": (True, False)}}),
    seeds=(0, 1),
    common={{"training.n_iters": 8}},
    program={program!r},
)
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("file") / "learning_rates.py"
    path.write_text(FILE.format(config=CONFIG, program=FAKE))
    return path


@pytest.fixture(scope="module")
def whole(file, tmp_path_factory) -> tuple[Path, str]:
    """The folder of the sweep, undisturbed, and what was printed."""
    folder = tmp_path_factory.mktemp("whole") / "runs"
    with contextlib.redirect_stdout(io.StringIO()) as told:
        assert program(["sweep", str(file), f"--folder={folder}", "--slots=3"]) == 0
    return folder, told.getvalue()


def launched(file: Path, folder: Path, **options) -> subprocess.Popen:
    command = [sys.executable, "-m", "score_sde.experiments.sweep", str(file), f"--folder={folder}", "--slots=3"]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)


def test_a_sweep_that_was_killed_goes_on_and_repeats_no_finished_run(file, whole, tmp_path, capsys):
    (whole, _), torn = whole, tmp_path / "torn"
    slow = launched(file, torn, env=os.environ | {"FAKE_SECONDS": "0.05"})
    while len(list(torn.glob("*/eval-*/report.json"))) < 5:
        time.sleep(0.05)
        assert slow.poll() is None
    slow.send_signal(signal.SIGKILL)
    slow.communicate()
    done = {path.parent.parent for path in torn.glob("*/eval-*/report.json")}
    again = ["sweep", str(file), f"--folder={torn}", "--slots=3"]
    assert program(again) == 0
    for name in ("table.csv", "runs.csv"):
        assert (whole / name).read_bytes() == (torn / name).read_bytes()
    assert calls(whole) == ["train eval"] * 12
    assert {" ".join((path / "calls.txt").read_text().split()) for path in done} <= {"train eval"}
    # A run that was under way went on from what it had saved, and was not begun anew.
    for path in torn.glob("*/metrics.jsonl"):
        assert len(path.read_text().splitlines()) == 8
    capsys.readouterr()
    assert program(again) == 0
    assert "24 jobs, 24 finished before" in capsys.readouterr().out


def test_what_crashes_is_tried_again_what_is_mistaken_is_not_and_the_rest_goes_on(tmp_path):
    made = plan(sweep(grid({"optim.lr": (1.0, 13.0, 14.0, 15.0, 16.0, 17.0)})), tmp_path)
    drive = driven(made)
    why = {run.point["optim.lr"]: drive.failure(run) for run in made}
    assert why[1.0] == why[15.0] == why[16.0] == ""
    assert why[13.0] == "This learning rate brings bad luck; choose another."
    assert why[14.0].startswith("It ended with status 1, 2 times (MemoryError: no more); see ")
    assert why[17.0].startswith("It ended without having made all it was to make, 2 times; see ")
    called = {run.point["optim.lr"]: (run.workdir / "calls.txt").read_text().split() for run in made}
    assert called[13.0] == ["train"] and called[14.0] == called[17.0] == ["train"] * 2
    assert called[15.0] == called[16.0] == ["train", "train", "eval"]
    rows = results.rows(made, {run.id: why[run.point["optim.lr"]] for run in made})
    assert sum("failed" in line for line in results.table(rows)[1]) == 3


def test_a_program_that_there_is_not_is_said(tmp_path):
    made = plan(sweep(grid({"optim.lr": (1.0,)}), program=("no-such-program",)), tmp_path)
    assert "no-such-program: No such file or directory" in driven(made).failure(made[0])


def test_halving_trains_the_best_third_on_and_goes_on_where_they_were(tmp_path):
    halving = Halving(by="loss", budgets=(2, 4, 8), keep=3)
    of = sweep(grid({"optim.lr": (1.0, 2.0, 3.0, 4.0)}), seeds=(0, 1), halving=halving, common={})
    made, failures = halved(of, tmp_path, Local(os.environ, slots=3), 0)
    assert not failures
    # Of 4 points 2 go on, of these 1, each with both seeds: 8 + 4 + 2 runs in 8 workdirs.
    assert [sum(run.config.training.n_iters == budget for run in made) for budget in (2, 4, 8)] == [8, 4, 2]
    updates = {len(path.read_text().splitlines()) for path in tmp_path.glob("*/metrics.jsonl")}
    assert updates == {2, 4, 8} and len(list(tmp_path.glob("*/checkpoints"))) == 8
    assert calls(tmp_path).count("train eval train eval train eval") == 2
    rows = results.rows(made, {}, "loss")
    assert [row.updates for row in rows] == [8, 4, 2, 2]
    assert [row.point["optim.lr"] for row in rows] == [1, 2, 3, 4]
    with pytest.raises(UsageError, match=r"Halving goes by 'fid', and evaluations give: .*bits/dim.*loss"):
        other = Halving(by="fid", budgets=(2, 4))
        halved(sweep(of.space, halving=other, common={}), tmp_path, Local(os.environ, slots=3), 0)


def test_intervals_are_students_over_seeds_and_normal_over_images_of_one():
    both = results.over_seeds([{"mean": 1.0, "standard_error": 9.0}, {"mean": 3.0, "standard_error": 9.0}])
    assert both.mean == 2 and both.n == 2
    np.testing.assert_allclose(
        both.half, 12.706204736 * np.sqrt(2) / np.sqrt(2), rtol=1e-9
    )  # t of 1 degree, s = sqrt 2
    one = results.over_seeds([{"mean": 1.0, "standard_error": 0.5}])
    np.testing.assert_allclose(one.half, 1.959963985 * 0.5, rtol=1e-9)
    assert results.over_seeds([{"mean": 20.0, "standard_error": None}]).half is None


def test_table_csv_and_page_say_what_the_runs_gave(whole):
    folder, told = whole
    with (folder / "table.csv").open() as table:
        lines = list(csv.DictReader(table))
    assert len(lines) == 6 and lines[0]["optim.lr"] == "1.0" and lines[0]["seeds"] == "2"
    # Of the fake: lr x 0.16 + seed / 8, seeds 0 and 1: a mean of 0.0625 more, s = 0.125 / sqrt 2.
    np.testing.assert_allclose(float(lines[0]["loss"]), 0.16 + 0.0625, rtol=1e-12)
    np.testing.assert_allclose(float(lines[0]["loss ±"]), 12.706204736 * 0.125 / 2, rtol=1e-9)
    assert "0.22 ± 0.79" in told
    page = (folder / "report.html").read_text()
    assert page.count("<svg") == 3 and "Parallel coordinates" in page and "0.22 ± 0.79" in page
    assert len((folder / "runs.csv").read_text().splitlines()) == 1 + 12


def test_jobs_have_gpus_of_their_own(tmp_path):
    made = plan(sweep(grid({"optim.lr": (1.0, 2.0, 3.0)}), modes=("train",)), tmp_path)
    launcher = Local(
        os.environ | {"CUDA_VISIBLE_DEVICES": "4,5,6,7,8", "JAX_PLATFORMS": "", "FAKE_SECONDS": "0.1"}, devices=2
    )
    assert launcher.slots == 2
    Drive(made, launcher)()
    assert set(calls(tmp_path)) == {"train 4,5", "train 6,7"}
    with pytest.raises(UsageError, match="--slots=3 --devices=2 need 6 GPUs, and there are 5"):
        Local({"CUDA_VISIBLE_DEVICES": "4,5,6,7,8"}, slots=3, devices=2)


def test_on_a_cpu_devices_are_as_many_as_jax_is_told(tmp_path):
    (run,) = plan(sweep(grid({"optim.lr": (1.0,)}), modes=("train",)), tmp_path)
    without = {key: value for key, value in os.environ.items() if key != "CUDA_VISIBLE_DEVICES"}
    Drive([run], Local(without | {"JAX_PLATFORMS": "cpu"}, devices=4))()
    assert "--xla_force_host_platform_device_count=4" in (run.workdir / "flags.txt").read_text()


def test_printed_commands_make_the_runs_that_a_sweep_then_finds(file, tmp_path, capsys):
    folder = tmp_path / "runs"
    assert program(["sweep", str(file), f"--folder={folder}", "--launcher=print"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 12 and not folder.exists()
    script = lines[0].replace("python ", f"{sys.executable} ")
    subprocess.run(["bash", "-c", script], check=True, cwd=ROOT)
    made = plan(read(file), folder)
    assert [run.finished for run in made] == [True] + [False] * 11


def test_weights_and_biases_chooses_the_same_points(file, tmp_path, capsys):
    target, folder = tmp_path / "wandb.yaml", tmp_path / "runs"
    assert program(["sweep", str(file), f"--folder={folder}", f"--wandb_file={target}"]) == 0
    content = yaml.safe_load(target.read_text())
    assert content["method"] == "grid"
    assert content["parameters"]["config.optim.lr"] == {"values": [1.0, 2.0, 3.0]}
    assert content["parameters"]["config.seed"] == {"values": [0, 1]}
    # As an agent does: its choice takes the place of ${args}.
    chosen = ["--config.optim.lr=2.0", "--config.training.reduce_mean=True", "--config.seed=1"]
    words = content["command"][content["command"].index("score_sde.experiments.sweep") :]
    assert (
        program([*(chosen if word == "${args}" else [word] for word in words[:0]), "sweep", *words[1:-1], *chosen]) == 0
    )
    assert [run.point for run in plan(read(file), folder) if run.finished] == [
        {"optim.lr": 2.0, "training.reduce_mean": True, "seed": 1}
    ]
    assert program(["sweep", str(file), f"--folder={folder}", "--point=0"]) == 0
    assert sum(run.finished for run in plan(read(file), folder)) == 2


@pytest.mark.parametrize(
    ("text", "arguments", "said"),
    [
        (None, [], "No sweep file"),
        ("sweep = 1", [], "has no `sweep = Sweep(...)`"),
        ("import nothing_there", [], "ModuleNotFoundError: No module named 'nothing_there'"),
        (
            "from score_sde.experiments.sweep import grid\ngrid({'a': ()})",
            [],
            "a has no values, so there is nothing to run",
        ),
        (FILE, ["--slurm=partition=gpu"], "--slurm=NAME=VALUE belongs to --launcher=slurm."),
        (FILE, ["--point=12"], "--point=12: the sweep has points 0 to 11; and no flags go with it."),
    ],
)
def test_a_mistake_is_one_sentence(tmp_path, text, arguments, said):
    path = tmp_path / "mistaken.py"
    if text is not None:
        path.write_text(text.format(config=CONFIG, program=FAKE) if text is FILE else text)
    with pytest.raises(UsageError) as error:
        program(["sweep", str(path), f"--folder={tmp_path / 'runs'}", *arguments])
    assert said in str(error.value) and "\n" not in str(error.value)


def test_a_number_of_jobs_is_one_or_more(capsys):
    with pytest.raises(SystemExit, match="2"):
        program(["sweep", "file.py", "--slots=0"])
    assert "--slots: 0 is no whole number of 1 or more" in capsys.readouterr().err


def test_two_launchers_do_not_share_a_folder(file, tmp_path):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # in a background it is ignored, and inherited so
    first = launched(file, tmp_path / "runs", env=os.environ | {"FAKE_SECONDS": "2"})
    while len(list((tmp_path / "runs").glob("*/calls.txt"))) < 3:  # all of its slots
        time.sleep(0.05)
        assert first.poll() is None
    with pytest.raises(UsageError, match="is in use by process"):
        program(["sweep", str(file), f"--folder={tmp_path / 'runs'}"])
    first.send_signal(signal.SIGINT)
    assert "Stopped by Ctrl-C" in first.communicate()[0]
    # Asked to stop, it had its runs save and end: nothing goes on without it.
    assert {
        workdir.read(path.parent, path.name)["status"] for path in (tmp_path / "runs").glob("*/jobs/train*.json")
    } == {75}


def test_the_real_program_trains_once_for_two_samplers(tmp_path, data_dir):
    small = {
        "model.nf": 8,
        "model.ch_mult": (1,),
        "sde.num_scales": 5,
        "training.batch_size": 16,
        "training.n_iters": 2,
    }
    frequencies = {"training.snapshot_freq": 2, "training.log_freq": 1, "training.eval_freq": 1}
    wanted = {"eval.enable_bpd": False, "eval.enable_sampling": True, "eval.num_samples": 8, "eval.begin_ckpt": -1}
    common = small | frequencies | wanted | {"metrics.features": "none", "data.data_dir": data_dir}
    space = zipped({"sampling.method": ("pc", "ddim"), "sampling.num_steps": (5, 3)})
    made = plan(Sweep(space=space, config=CONFIG, common=common), tmp_path)
    assert runs.line(made[0].jobs[0].command).startswith("python -m score_sde --config=")
    made = plan(Sweep(space=space, config=CONFIG, common=common, program=(sys.executable, "-c", PROGRAM)), tmp_path)
    assert driven(made).failure(made[0]) == ""
    assert len({run.workdir for run in made}) == 1
    pc, ddim = (results.figures(run) for run in made)
    assert pc["loss"] == ddim["loss"]
    assert (pc["NFE"]["mean"], ddim["NFE"]["mean"]) == (5, 4)
    assert results.curve(made[0], "eval_loss")[0] == [1, 2]


def test_a_key_that_a_later_version_adds_moves_no_run():
    whole = {"seed": 3, "model.nf": 8, "encoder.depth": None, "sampling.same_noise": 1, "model.ch_mult": (1, 2)}
    before = {"seed": 3, "model.nf": 8, "model.ch_mult": [1, 2]}
    assert runs.digest(whole) == runs.digest(before) != runs.digest(before | {"sampling.same_noise": 2})
