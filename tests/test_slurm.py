"""Sweeps under SLURM: a real one where there is one, and one of a few lines of shell that refuses a job.

A real one of a single machine is started by slurm_of_one_machine.sh, which says how.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from score_sde.experiments.sweep import Sweep, grid, slurm
from score_sde.experiments.sweep.drive import Drive
from score_sde.experiments.sweep.local import Local
from score_sde.experiments.sweep.run import conclude
from score_sde.experiments.sweep.runs import plan
from score_sde.experiments.sweep.slurm import Slurm

from score_sde.errors import UsageError

ROOT = Path(__file__).parent.parent
FAKE = (sys.executable, "-S", str(ROOT / "tests" / "fake_program.py"))
CONFIG = str(ROOT / "configs" / "vp" / "digits_ddpmpp_continuous.py")

SBATCH = """#!/bin/sh
cd "$FAKE_SLURM"
n=$(($(cat count 2>/dev/null || echo 0) + 1)); echo $n > count
if [ $n = 2 ]; then echo "sbatch: error: Batch job submission failed: Invalid account" >&2; exit 1; fi
touch running/$n; cp "$1" script_$n
(cd %(root)s; SLURM_JOB_ID=$n sh "$1"; rm $FAKE_SLURM/running/$n) > $FAKE_SLURM/output 2>&1 &
echo "Submitted batch job $n"
"""
SQUEUE = '#!/bin/sh\nls "$FAKE_SLURM/running"\n'


def sweep(**options) -> Sweep:
    space = grid({"optim.lr": (1.0, 2.0, 3.0), "training.reduce_mean": (True, False)})
    common = {"training.n_iters": 4}
    return Sweep(space=space, config=CONFIG, seeds=(0, 1), common=common, program=FAKE, **options)


def _running() -> bool:
    return bool(shutil.which("sbatch")) and not subprocess.run(["sinfo"], capture_output=True, check=False).returncode


real = pytest.mark.skipif(not _running(), reason="no SLURM is running here; slurm_of_one_machine.sh starts one")


@pytest.fixture
def of_shell(tmp_path, monkeypatch) -> Path:
    """A SLURM that refuses the second job."""
    folder = tmp_path / "slurm_of_shell"
    (folder / "running").mkdir(parents=True)
    for name, text in (("sbatch", SBATCH % {"root": ROOT}), ("squeue", SQUEUE), ("srun", "#!/bin/sh\nexit 1\n")):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_SLURM", str(folder))
    return folder


def test_a_job_that_slurm_refuses_is_said_and_the_rest_goes_on(tmp_path, of_shell, monkeypatch):
    monkeypatch.setattr(slurm, "ASK_EVERY", 0.2)
    made = plan(sweep(modes=("train",)), tmp_path / "runs")[:3]
    launcher = Slurm(tmp_path / "runs", 1, 2, {"partition": "gpu", "time": "90", "use_srun": "False"})
    drive = Drive(made, launcher)
    drive()
    assert [run.finished for run in made] == [True, False, True]
    assert drive.failure(made[1]) == "SLURM refuses the job: Batch job submission failed: Invalid account."
    script = (of_shell / "script_1").read_text()
    for line in ("--partition=gpu", "--time=90", "--gpus-per-node=2"):
        assert f"#SBATCH {line}\n" in script


def test_what_slurm_has_not_is_said(tmp_path, of_shell, monkeypatch):
    with pytest.raises(UsageError, match=r"Unknown --slurm=partion \(did you mean 'partition'\?\)"):
        Slurm(tmp_path, options={"partion": "gpu"})
    monkeypatch.setenv("PATH", str(of_shell))
    for name in ("srun", "squeue", "sbatch"):
        (of_shell / name).unlink()
        with pytest.raises(UsageError, match=f"There is no {name} on the PATH; start this where SLURM is"):
            Slurm(tmp_path)


@real
def test_a_sweep_under_slurm_gives_the_table_of_a_local_one(tmp_path):
    here, there = plan(sweep(), tmp_path / "local"), plan(sweep(), tmp_path / "slurm")
    Drive(here, Local(os.environ, slots=2))()
    Drive(there, Slurm(tmp_path / "slurm", options={"time": "20", "cpus_per_task": "1"}))()
    for made, folder in ((here, "local"), (there, "slurm")):
        assert conclude(tmp_path / folder, "sweep", made, {}) == 0
    for name in ("table.csv", "runs.csv"):
        assert (tmp_path / "local" / name).read_bytes() == (tmp_path / "slurm" / name).read_bytes()


@real
def test_slurm_refuses_a_partition_that_it_has_not(tmp_path):
    made = plan(sweep(), tmp_path)[:1]
    drive = Drive(made, Slurm(tmp_path, options={"partition": "nowhere"}))
    drive()
    assert drive.failure(made[0]).startswith("SLURM refuses the job: ") and "partition" in drive.failure(made[0])


FILE = """
from score_sde.experiments.sweep import Sweep, grid

sweep = Sweep(
    config={config!r},
    space=grid({{"optim.lr": (1.0, 2.0)}}),
    common={{"training.n_iters": 40}},
    modes=("train",),
    program={program!r},
)
"""


@real
def test_jobs_outlive_their_launcher_and_a_preempted_one_goes_on(tmp_path):
    file, folder = tmp_path / "two.py", tmp_path / "runs"
    file.write_text(FILE.format(config=CONFIG, program=FAKE))
    command = [sys.executable, "-m", "score_sde.experiments.sweep", str(file), f"--folder={folder}", "--launcher=slurm"]
    command += ["--slurm=time=20", "--slurm=cpus_per_task=1"]
    first = subprocess.Popen(command, cwd=ROOT, env=os.environ | {"FAKE_SECONDS": "0.5"})
    while len(list(folder.glob("*/checkpoints/2"))) < 2:
        time.sleep(0.2)
    first.send_signal(signal.SIGKILL)
    first.wait()
    queued = subprocess.run(["squeue", "-h", "-o", "%A", "--me"], capture_output=True, text=True, check=True).stdout
    preempted = queued.split()[0]
    subprocess.run(["scancel", "--signal=USR2", preempted], check=True)  # as --signal in its sbatch script has SLURM do
    second = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert second.returncode == 0, second.stdout + second.stderr
    # Each once, and the preempted one once more after it had saved; none by the second launcher.
    assert sorted(path.read_text().split().count("train") for path in folder.glob("*/calls.txt")) == [1, 2]
    for path in folder.glob("*/metrics.jsonl"):
        assert len(path.read_text().splitlines()) == 40
