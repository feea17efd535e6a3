"""Runs in more than one process, by the command line, over gloo on this machine."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from score_sde.experiments.invariance.cases import free_port

from score_sde.cli.main import main
from score_sde.errors import UsageError
from score_sde.io.checkpoints import steps
from score_sde.runtime import multihost

pytestmark = pytest.mark.usefixtures("one_block")
ROOT = Path(__file__).parent.parent
CONFIG = f"--config={ROOT / 'configs/vp/digits_ddpmpp_continuous.py'}"
EVERY = 8  # steps are a snapshot and an evaluation
SLURM = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
TINY = {
    "model.nf": 8,
    "model.num_res_blocks": 1,
    "model.ch_mult": "(1,)",
    "model.attn_resolutions": "()",
    "sde.num_scales": 10,
    "training.batch_size": 16,
    "training.n_iters": 10**6,  # until it is stopped
    "training.snapshot_freq": EVERY,
    "training.snapshot_freq_for_preemption": 4,
    "training.log_freq": 1,
    "training.eval_freq": EVERY,
}
EVAL = {
    "eval.begin_ckpt": -1,
    "eval.batch_size": 100,
    "eval.enable_bpd": False,  # by a solver whose steps rounding may move
    "eval.enable_bound": True,
    "eval.enable_sampling": True,
    "eval.num_samples": 7,
    "metrics.n_iters": 4,
}
DEQUANTIZER = {"dequantizer.nf": 4, "dequantizer.batch_size": 8, "dequantizer.n_iters": 2}

# On CPUs JAX gives the same program another key in each process, and the first one alone writes the cache, so that the
# others would compile all at every start. By the same key, which is still of the whole program, one compiles for all.
SHARING = "from jax._src import cache_key; cache_key._hash_accelerator_config = lambda *_: None"
SHARE = {"JAX_SHARE_BINARY_BETWEEN_HOSTS": "1"}
SHARED = f"""
{SHARING}
import gc
import sys
gc.set_threshold(100_000)
sys.path.append("tests")
import one_block
from score_sde.cli import main
from score_sde.runtime import multihost
one_block.use()
{{}}
sys.exit(main.main())
"""
IMPATIENT = SHARED.format("multihost.HEARTBEAT_SECONDS = 10")
DEQUANTIZER_AND_EVAL = """
from score_sde.cli import runs
evaluate = runs.evaluate
def both(values):
    runs.train_dequantizer(values)
    evaluate(values)
runs.evaluate = both
"""


class Started(NamedTuple):
    """The processes of one program, and where they write."""

    processes: list[subprocess.Popen]
    logs: list[Path]

    def wait(self, seconds: float = 150) -> list[int]:
        """Exit statuses."""
        deadline = time.monotonic() + seconds
        try:
            return [process.wait(max(0.0, deadline - time.monotonic())) for process in self.processes]
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running: {self.said()}") from None
        finally:
            for process in self.processes:
                process.kill()
                process.wait()

    def wait_for(self, folder: Path, after: int) -> None:
        """Until there is a checkpoint of a later step than that."""
        deadline = time.monotonic() + 150
        while max(steps(folder), default=0) <= after:
            if self.processes[0].poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"{self.wait(0.1)}: {self.said()}")
            time.sleep(0.01)

    def said(self) -> list[str]:
        return [log.read_text() for log in self.logs]


def command(workdir: Path, mode: str, values: dict) -> list[str]:
    return [CONFIG, f"--workdir={workdir}", f"--mode={mode}", *(f"--config.{key}={values[key]}" for key in values)]


def start(n: int, arguments: list[str], logs: Path, program: Sequence[str] = ("-c", SHARED.format("pass"))) -> Started:
    address = [f"--coordinator=localhost:{free_port()}", f"--num_processes={n}"]
    commands = [[*program, *arguments, *address, f"--process_id={i}"] for i in range(n)]
    return launch(commands, [{}] * n, logs)


def launch(commands: list[list[str]], environments: list[dict[str, str]], logs: Path) -> Started:
    logs.mkdir(parents=True, exist_ok=True)
    paths, running = [logs / f"{i}.txt" for i in range(len(commands))], []
    for command, environment, path in zip(commands, environments, paths, strict=True):
        with path.open("w") as log:
            running.append(
                subprocess.Popen(
                    [sys.executable, *command], cwd=ROOT, env=os.environ | SHARE | environment, stdout=log, stderr=log
                )
            )
    return Started(running, paths)


def metrics(workdir: Path) -> dict[tuple[int, str], float]:
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return {(line["step"], key): line[key] for line in lines for key in line if key not in ("step", "time")}


def assert_same_metrics(here: Path, there: Path) -> None:
    a, b = metrics(here), metrics(there)
    assert a.keys() == b.keys()
    np.testing.assert_allclose(list(a.values()), list(b.values()), rtol=1e-5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("processes")


@pytest.fixture(scope="module")
def stopped(folder, data_dir) -> Started:
    """Two processes in training, of which the second is told to stop after the first checkpoint."""
    started = start(2, command(folder / "many", "train", TINY | {"data.data_dir": data_dir}), folder / "stopped")
    started.wait_for(folder / "many" / "checkpoints", after=0)
    started.processes[1].terminate()
    return started


@pytest.fixture(scope="module")
def killed(folder, data_dir, stopped) -> Started:
    """Two that go on, of which the second is killed after a checkpoint of theirs."""
    stopped.wait()
    saved = folder / "many" / "checkpoints"
    last = steps(saved)[-1]
    arguments = command(folder / "many", "train", TINY | {"data.data_dir": data_dir})
    started = start(2, arguments, folder / "killed", ["-c", IMPATIENT])
    started.wait_for(saved, after=last)
    started.processes[1].kill()
    return started


@pytest.fixture(scope="module")
def many(folder, data_dir, killed) -> tuple[Path, int]:
    """Trained by two processes, in two launches, and to the end by four that split the parameters; its steps."""
    killed.wait()
    end = EVERY * (steps(folder / "many" / "checkpoints")[-1] // EVERY + 1)
    values = TINY | {"data.data_dir": data_dir, "training.n_iters": end, "training.fsdp": 4}
    started = start(4, command(folder / "many", "train", values), folder / "resumed")
    assert started.wait() == [0] * 4, started.said()
    return folder / "many", end


@pytest.fixture
def alone(compiled_once, folder, data_dir, many) -> Path:
    """Trained by this process, as many steps."""
    values = TINY | {"data.data_dir": data_dir, "training.n_iters": many[1]}
    if not (folder / "alone").exists():
        assert main(["score_sde", *command(folder / "alone", "train", values)]) == 0
    return folder / "alone"


def test_a_notice_to_one_leaves_a_checkpoint_of_all(stopped, folder):
    assert stopped.wait() == [75, 75], stopped.said()
    step = max(step for step, _ in metrics(folder / "many"))
    assert (folder / "many" / "checkpoints" / str(step)).is_dir()
    told = f"Stopped by SIGTERM after step {step}, which is saved; the same command goes on from there."
    assert "".join(stopped.said()).count(told) == 1
    assert [said.count("Training in ") for said in stopped.said()] == [1, 0]
    assert [said.count("training: 0 of ") for said in stopped.said()] == [1, 0]


def test_all_end_soon_when_one_is_killed(killed):
    first, second = killed.wait(60)
    said = killed.said()[0]
    assert second == -9
    # The second where it is missed at the coordinator before it is missed in a collective.
    told = "of this run ended" in said and "start all of them again: training goes on from the last checkpoint" in said
    assert (first == 1 and told) or "another task died" in said
    assert "Traceback" not in said


def test_processes_started_again_give_the_numbers_of_one_never_stopped(many, alone):
    run, end = many
    assert_same_metrics(run, alone)
    assert len(metrics(run)) == end + end // EVERY


def test_two_processes_train_a_dequantizer_evaluate_and_sample_like_one(many, folder):
    run, end = many
    shutil.copytree(run, folder / "copy")
    program = ["-c", SHARED.format(DEQUANTIZER_AND_EVAL)]
    started = start(2, command(run, "eval", EVAL | DEQUANTIZER), folder / "evaluated", program)
    assert started.wait() == [0, 0], started.said()
    assert (run / "dequantizer" / "checkpoints" / "2").exists()
    # After them, by the features that they have trained.
    assert main(["score_sde", *command(folder / "copy", "eval", EVAL)]) == 0
    ours, theirs = (
        json.loads((run / "eval/report.json").read_text())["checkpoints"][0] for run in (run, folder / "copy")
    )
    for name in ("loss", "bits_per_dim_bound"):
        np.testing.assert_allclose(ours[name]["mean"], theirs[name]["mean"], rtol=1e-5, err_msg=name)
    here, there = (of["sampling"]["metrics"] for of in (ours, theirs))
    assert here["fingerprint"] == there["fingerprint"]
    (name,) = (name for name in here if name.startswith("frechet_distance["))
    np.testing.assert_allclose(here[name]["mean"], there[name]["mean"], rtol=1e-3)  # of pixels that rounding may move
    a, b = (np.load(next((run / "eval").glob("**/samples*.npz")))["images"] for run in (run, folder / "copy"))
    assert a.shape == b.shape == (7, 8, 8, 1)
    assert np.abs(a.astype(int) - b).max() <= 1
    assert (a != b).mean() < 0.02
    assert f"step {end}" in started.said()[0]
    assert f"step {end}" not in started.said()[1]  # the first one speaks


def test_a_checkpoint_of_four_processes_goes_on_in_one(many, alone, folder, data_dir):
    run, end = many
    longer = TINY | {"data.data_dir": data_dir, "training.n_iters": end + 2}
    for each in (run, alone):
        shutil.copytree(each, folder / "longer" / each.name)
        assert main(["score_sde", *command(folder / "longer" / each.name, "train", longer)]) == 0
    assert_same_metrics(folder / "longer" / "many", folder / "longer" / "alone")
    assert max(step for step, _ in metrics(folder / "longer" / "many")) == end + 2


def test_a_mistake_is_said_once_by_all(tmp_path, data_dir):
    odd = TINY | {"data.data_dir": data_dir, "training.batch_size": 3}
    started = start(2, command(tmp_path / "run", "train", odd), tmp_path, ["-m", "score_sde"])
    assert started.wait() == [2, 2], started.said()
    assert "".join(started.said()).count("batch_size=3 must be a positive multiple of the 2 devices") == 1
    assert not (tmp_path / "run").exists()


FAILING = f"""
{SHARING}
import sys
import jax
from score_sde.cli import main
from score_sde.training import run as training
def load_data(*_, **__):
    if jax.process_index() == 1:
        raise RuntimeError("the disk is on fire")
    return original(*_, **__)
original, training.load_data = training.load_data, load_data
sys.exit(main.main())
"""


def test_one_that_fails_ends_the_others(tmp_path, data_dir):
    """Under what SLURM says to the two tasks of a step."""
    arguments = command(tmp_path / "run", "train", TINY | {"data.data_dir": data_dir})
    step = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NODELIST": "localhost", "JAX_COORDINATOR_PORT": str(free_port())}
    tasks = [SLURM | step | {"SLURM_PROCID": i, "SLURM_LOCALID": i} for i in ("0", "1")]
    started = launch([["-c", FAILING, *arguments]] * 2, tasks, tmp_path)
    assert started.wait() == [1, 1], started.said()
    assert "Process 1 of this run ended" in started.said()[0]
    assert "RuntimeError: the disk is on fire" in started.said()[1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--coordinator=localhost:1234"], "go together"),
        (["--num_processes=2", "--process_id=0"], "go together"),
        (["--coordinator=localhost", "--num_processes=2", "--process_id=0"], "is not HOST:PORT"),
        (["--coordinator=a:1", "--num_processes=2", "--process_id=2"], "--process_id=2 must be 0, 1, ... below"),
        (["--coordinator=a:1", "--num_processes=0", "--process_id=0"], "below --num_processes=0"),
        (["--num_processes=two"], "two"),
    ],
)
def test_wrong_addresses_are_one_sentence(arguments, words, tmp_path, capsys):
    assert main(["score_sde", CONFIG, "--mode=train", f"--workdir={tmp_path / 'run'}", *arguments]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_port_in_use_is_one_sentence(capsys):
    with socket.create_server(("", 0)) as other:
        address = f"--coordinator=localhost:{other.getsockname()[1]}"
        assert main(["score_sde", CONFIG, "--mode=describe", address, "--num_processes=2", "--process_id=0"]) == 2
    assert "give another port" in capsys.readouterr().err


def test_a_coordinator_that_is_not_there_is_one_sentence():
    code = (
        "import sys; from score_sde.cli.main import main; from score_sde.runtime import multihost; "
        "multihost.START_SECONDS = 2; sys.exit(main())"
    )
    arguments = [CONFIG, "--mode=describe", f"--coordinator=localhost:{free_port()}"]
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments, "--num_processes=2", "--process_id=1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 2, result.stderr
    assert "start all of them within" in result.stderr


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        (SLURM, None),  # a batch script, or the shell of salloc
        (SLURM | {"SLURM_STEP_NUM_TASKS": "1"}, None),
        (
            SLURM | {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1"},
            {"cluster_detection_method": "slurm", "num_processes": 2, "process_id": 1},
        ),
        ({"OMPI_COMM_WORLD_SIZE": "1", "OMPI_MCA_orte_hnp_uri": "1.0;tcp://10.0.0.1:2"}, None),
        (
            {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_MCA_orte_hnp_uri": "1.0;tcp://10.0.0.1:2"},
            {"cluster_detection_method": "ompi"},
        ),
        ({"PMI_SIZE": "1"}, None),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, None),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "0"}, None),  # without jax[k8s]
    ],
)
def test_processes_are_many_only_if_their_launcher_says_so(environment, expected, monkeypatch):
    monkeypatch.setattr(multihost, "_installed", lambda package: False)
    assert multihost._launched(environment) == expected


def test_mpi_without_a_way_to_meet_is_refused(monkeypatch):
    monkeypatch.setattr(multihost, "_installed", lambda package: False)
    with pytest.raises(UsageError, match="pip install mpi4py"):
        multihost._launched({"PMI_SIZE": "2"})
    monkeypatch.setattr(multihost, "_installed", lambda package: package == "mpi4py")
    assert multihost._launched({"PMI_SIZE": "2"}) == {"cluster_detection_method": "mpi4py"}


@pytest.mark.parametrize(
    ("own", "coordinators", "expected"),
    [
        ("10.0.0.2", ["127.0.0.1", "10.0.0.1"], "10.0.0.2"),
        ("127.0.0.1", ["127.0.0.1", "10.0.0.1", "10.0.0.1"], "10.0.0.1"),  # the coordinator's host
        ("127.0.0.1", ["127.0.0.1", "127.0.1.1"], "127.0.0.1"),  # all on one
        ("::1", ["::1", "fd00::1"], "fd00::1"),
    ],
)
def test_a_process_is_met_at_an_address_that_the_others_reach(own, coordinators, expected):
    assert multihost._reached_at(own, coordinators) == expected


@pytest.mark.parametrize("coordinator", ["localhost:1234", "127.0.0.1:1234", "127.0.1.1:1234"])
def test_a_route_to_this_host_is_a_loopback_address(coordinator):
    own, other = multihost._route_to(coordinator)
    assert own.startswith("127.") and other.startswith("127.")
