"""Jobs on this machine: so many at a time, each with devices of its own."""

import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping

from score_sde.experiments.sweep.runs import Job

from score_sde.errors import UsageError


class Process:
    """A job under way. It ends with the launcher, at the latest with the checkpoint that it then saves."""

    def __init__(self, process: subprocess.Popen, slot: int):
        self._process, self.slot = process, slot

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    def stop(self) -> None:
        """Asks it to save and end."""
        if not self.ended:
            self._process.send_signal(signal.SIGTERM)

    def wait(self) -> None:
        self._process.wait()


class Local:
    """Launcher on this machine. slots: jobs at a time; default one for each set of `devices` GPUs, or one on CPUs.

    environment: that the jobs get.
    """

    def __init__(self, environment: Mapping[str, str], slots: int | None = None, devices: int = 1):
        self._environment = dict(environment)
        self._devices, gpus = devices, _gpus(environment)
        groups = [gpus[i : i + devices] for i in range(0, len(gpus) - devices + 1, devices)]
        if gpus and (slots or 1) > len(groups):
            raise UsageError(
                f"--slots={slots or 1} --devices={devices} need {(slots or 1) * devices} GPUs, and there are "
                f"{len(gpus)}; choose fewer."
            )
        self.slots = slots or len(groups) or 1
        self._groups = groups[: self.slots]
        self._held: list[Process] = []

    @property
    def free(self) -> bool:
        self._held = [process for process in self._held if not process.ended]
        return len(self._held) < self.slots

    def adopt(self, job: Job) -> None:
        """Adopts nothing, since jobs end with the launcher that started them."""

    def start(self, job: Job) -> Process:
        slot = min(set(range(self.slots)) - {process.slot for process in self._held})
        environment = dict(self._environment)
        if self._groups:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(self._groups[slot])
        elif self._devices > 1:
            flag = f"--xla_force_host_platform_device_count={self._devices}"
            environment["XLA_FLAGS"] = f"{environment.get('XLA_FLAGS', '')} {flag}".strip()
        command = (sys.executable, "-m", "score_sde.experiments.sweep.job", str(job.status), str(job.log), *job.command)
        # A session of its own: Ctrl-C is the launcher's, which stops them.
        process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, start_new_session=True)
        self._held.append(Process(process, slot))
        return self._held[-1]


def _gpus(environment: Mapping[str, str]) -> list[str]:
    """The GPUs as CUDA_VISIBLE_DEVICES names them."""
    if environment.get("JAX_PLATFORMS", "").startswith("cpu"):
        return []
    if "CUDA_VISIBLE_DEVICES" in environment:
        return [name for name in environment["CUDA_VISIBLE_DEVICES"].split(",") if name.strip()]
    if not shutil.which("nvidia-smi"):
        return []
    listed = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True, check=False)
    return [str(i) for i in range(sum(line.startswith("GPU ") for line in listed.stdout.splitlines()))]
