"""The launch files do what they say, as far as a machine without a cluster can tell."""

import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from score_sde.experiments.invariance.cases import free_port
from test_processes import SHARE, SHARED

from score_sde.io.checkpoints import steps

ROOT = Path(__file__).parent.parent
LAUNCH = ROOT / "experiments" / "launch"
TINY = {
    "model.nf": 8,
    "model.ch_mult": "(1,)",
    "sde.num_scales": 5,
    "training.batch_size": 16,
    "training.snapshot_freq": 100000,
    "training.snapshot_freq_for_preemption": 100000,
    "training.log_freq": 1,
}


def flags(workdir: Path, data_dir: str, **values) -> list[str]:
    given = TINY | {"data.data_dir": data_dir} | {key.replace("__", "."): value for key, value in values.items()}
    config = ROOT / "configs" / "vp" / "digits_ddpmpp_continuous.py"
    texts = [f"--config.{key}={value}" for key, value in given.items()]
    return [f"--config={config}", f"--workdir={workdir}", "--mode=train", *texts]


PYTHON = """#!/bin/bash
test "$1 $2" = "-m score_sde" && exec {python} -c {program} "${{@:3}}"
"""


def test_a_jobset_starts_a_process_of_one_run_in_each_pod(tmp_path, data_dir):
    content = yaml.safe_load((LAUNCH / "jobset.yaml").read_text())
    (job,) = content["spec"]["replicatedJobs"]
    of_job = job["template"]["spec"]
    (container,) = of_job["template"]["spec"]["containers"]
    given = {each["name"]: each["value"] for each in container["env"]}
    assert str(of_job["parallelism"]) == str(of_job["completions"]) == given["NODES"]
    host, port = given["COORDINATOR"].split(":")
    assert host == f"{content['metadata']['name']}-{job['name']}-0-0.{content['metadata']['name']}"
    assert container["ports"] == [{"containerPort": int(port)}]
    # The pods, here: their command with this Python, a network and a run of seconds, and a free port of this machine.
    program = shlex.quote(SHARED.format("pass"))
    (tmp_path / "python").write_text(PYTHON.format(python=sys.executable, program=program))
    (tmp_path / "python").chmod(0o755)
    workdir, (command, option) = tmp_path / "run", container["command"]
    text = container["args"][0].replace("--workdir=/runs/cifar10", "").replace("--mode=train", "")
    text = text.replace(
        "--config=configs/vp/cifar10_ddpmpp_continuous.py", " ".join(map(repr, flags(workdir, data_dir)))
    )
    environment = os.environ | given | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "VIRTUAL_ENV": sys.prefix}
    environment |= {"COORDINATOR": f"localhost:{free_port()}", "PYTHONPATH": _site()} | SHARE
    pods = [
        subprocess.Popen(
            [command, option, text + " --config.training.n_iters=2"],
            cwd=ROOT,
            env=environment | {"JOB_COMPLETION_INDEX": str(index)},
        )
        for index in range(2)
    ]
    assert [pod.wait() for pod in pods] == [0, 0]
    assert steps(workdir / "checkpoints") == [2]


GCLOUD = """#!/bin/sh
printf '%s\\n' "$@" > "$CALLS/$(ls "$CALLS" | wc -l)"
test $(ls "$CALLS" | wc -l) -lt 3 && exit 75
exit ${LAST:-0}
"""


@pytest.mark.parametrize("last", [0, 2])
def test_a_pod_slice_is_started_again_until_it_has_ended(tmp_path, last):
    (tmp_path / "calls").mkdir()
    (tmp_path / "gcloud").write_text(GCLOUD)
    (tmp_path / "gcloud").chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "CALLS": str(tmp_path / "calls"), "PAUSE": "0"}
    arguments = ["pod", "us-east1-d", "--config=a b.py", "--config.model.ch_mult=(1, 2)"]
    command = ["bash", str(LAUNCH / "tpu_pod.sh"), *arguments]
    done = subprocess.run(command, env=environment | {"LAST": str(last)}, check=False)
    assert done.returncode == last
    calls = [path.read_text().splitlines() for path in sorted((tmp_path / "calls").iterdir())]
    assert len(calls) == 3 and calls[0] == calls[1] == calls[2]
    assert calls[0][:7] == ["compute", "tpus", "tpu-vm", "ssh", "pod", "--zone=us-east1-d", "--worker=all"]
    program = calls[0][7].removeprefix("--command=cd score_sde && exec python3 -m score_sde")
    read = subprocess.run(["bash", "-c", f"printf '%s\\n' {program}"], capture_output=True, text=True, check=True)
    assert read.stdout.splitlines() == arguments[2:]
    usage = subprocess.run(["bash", str(LAUNCH / "tpu_pod.sh"), "pod"], capture_output=True, text=True, check=False)
    assert usage.returncode == 2 and usage.stderr.startswith("usage: ")


def test_the_script_for_slurm_is_requeued_after_a_stop_and_at_no_other_end(tmp_path):
    (tmp_path / "calls").mkdir()
    for name in ("srun", "scontrol"):
        text = f'#!/bin/sh\necho "$@" > "$CALLS/{name}"\n' + ("exit $STATUS\n" if name == "srun" else "")
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    for status, requeued in ((75, True), (0, False), (2, False), (130, False)):
        environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "CALLS": str(tmp_path / "calls")}
        environment |= {"STATUS": str(status), "SLURM_JOB_ID": "7"}
        command = ["bash", str(LAUNCH / "slurm.sbatch"), "--config=c.py", "--mode=train"]
        assert subprocess.run(command, env=environment, check=False).returncode == status
        assert (tmp_path / "calls" / "srun").read_text() == "python -m score_sde --config=c.py --mode=train\n"
        found = tmp_path / "calls" / "scontrol"
        assert found.exists() == requeued
        if requeued:
            assert found.read_text() == "requeue 7\n"
            found.unlink()


def _running() -> bool:
    return bool(shutil.which("sbatch")) and not subprocess.run(["sinfo"], capture_output=True, check=False).returncode


@pytest.mark.skipif(not _running(), reason="no SLURM is running here; slurm_of_one_machine.sh starts one")
def test_two_tasks_under_slurm_are_stopped_requeued_and_go_on_to_the_end(tmp_path, data_dir):
    workdir = tmp_path / "run"
    options = ["--nodes=1", "--ntasks-per-node=2", "--cpus-per-task=1", "--gpus-per-node=0", "--parsable"]
    options += [f"--output={tmp_path}/log"]
    command = ["sbatch", *options, str(LAUNCH / "slurm.sbatch"), *flags(workdir, data_dir, training__n_iters=400)]
    environment = os.environ | {"PYTHON": sys.executable}
    job = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout.strip()

    def until(true, seconds: float = 240) -> None:
        end = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < end, (tmp_path / "log").read_text()
            time.sleep(0.5)

    until(lambda: (workdir / "metrics.jsonl").exists() and len((workdir / "metrics.jsonl").read_text()) > 0)
    subprocess.run(["scancel", "--signal=USR1", job], check=True)  # as SLURM does, by --signal
    until(lambda: len(steps(workdir / "checkpoints")) > 0)
    (stopped,) = steps(workdir / "checkpoints")
    assert 0 < stopped < 400
    until(lambda: steps(workdir / "checkpoints")[-1] == 400)
    until(lambda: "COMPLETED" in _state(job))


def _state(job: str) -> str:
    return subprocess.run(["squeue", "-h", "-t", "all", "-j", job, "-o", "%T"], capture_output=True, text=True).stdout


def _site() -> str:
    return os.pathsep.join(path for path in sys.path if path.endswith("site-packages"))
