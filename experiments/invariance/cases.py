"""Cases to compare: the same work on other devices, in other processes and rounds, from others' checkpoints."""

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from score_sde.runtime.clone import PACKAGE

WORKER = ("-m", "score_sde.experiments.invariance.worker")


class Case(NamedTuple):
    """Place where the worker runs, and its network. save, restore: names of checkpoints that cases leave for others."""

    devices: int = 1  # of each process
    processes: int = 1
    fsdp: int = 1
    batch: int = 16
    save: str | None = None
    restore: str | None = None
    network: str = "ddpmpp"


REFERENCE = Case(save="1")
REFERENCES = {"ddpmpp": REFERENCE, "uvit": Case(network="uvit"), "dit": Case(network="dit")}  # on one device
CASES = {
    "2 devices": Case(2),
    "4 devices": Case(4),
    "8 devices": Case(8, save="8"),
    "8 devices, fsdp=4": Case(8, fsdp=4, save="8, fsdp=4"),
    "2 processes": Case(processes=2),
    "4 processes": Case(processes=4),
    "2 processes of 2 devices, fsdp=4": Case(2, processes=2, fsdp=4),
    "rounds of 8": Case(batch=8),
    "rounds of 4": Case(batch=4),
    "checkpoint of 8 on 1": Case(restore="8"),
    "checkpoint of 8, fsdp=4, on 1": Case(restore="8, fsdp=4"),
    "checkpoint of 1 on 8": Case(8, restore="1"),
    "checkpoint of 1 on 8, fsdp=8": Case(8, fsdp=8, restore="1"),
    "U-ViT, 8 devices, fsdp=4": Case(8, fsdp=4, network="uvit"),
    "DiT, 8 devices, fsdp=4": Case(8, fsdp=4, network="dit"),
}


class WorkerError(RuntimeError):
    """A worker's process ended with another status than 0."""


def run(case: Case, folder: Path, worker: Sequence[str] = WORKER) -> dict[str, np.ndarray]:
    """The result of `worker.measure` on virtual CPU devices. folder: of checkpoints; worker: Python's arguments."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={case.devices}"
    environment = os.environ | {"XLA_FLAGS": flags, "PYTHONPATH": str(PACKAGE.parent), "JAX_PLATFORMS": "cpu"}
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "out.npz"
        command = [sys.executable, *worker, f"--out={out}"]
        command += [f"--network={case.network}", f"--fsdp={case.fsdp}", f"--batch={case.batch}"]
        command += [f"--{name}={folder / value}" for name, value in case._asdict().items() if name in PATHS and value]
        if case.processes > 1:
            command += [f"--coordinator=localhost:{free_port()}", f"--num_processes={case.processes}"]
        running = []
        for number in range(case.processes):
            own = [f"--process_id={number}"] if case.processes > 1 else []
            path = Path(scratch) / f"log{number}"
            with path.open("w", encoding="utf-8") as log:
                running.append((subprocess.Popen([*command, *own], env=environment, stdout=log, stderr=log), path))
        failed = [path for process, path in running if process.wait()]
        if failed:
            raise WorkerError(failed[0].read_text(encoding="utf-8")[-3000:])
        with np.load(out) as result:
            return dict(result)


PATHS = ("save", "restore")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


class Difference(NamedTuple):
    """Largest differences, relative to the reference's largest value; of losses, of those made in both."""

    noise_equal: bool
    losses: float
    parameters: float
    samples: float
    coupled: float
    bits: float


BOUNDS = dict.fromkeys(("losses", "parameters", "samples", "coupled", "bits"), 1e-5)


def difference(result: dict[str, np.ndarray], reference: dict[str, np.ndarray]) -> Difference:
    def relative(name: str) -> float:
        rows, expected = result[name], reference[name]
        expected = expected[-len(rows) :]
        return float(np.abs(rows - expected).max() / np.abs(expected).max())

    noise_equal = result["noise"].tobytes() == reference["noise"].tobytes()
    return Difference(noise_equal, *(relative(name) for name in Difference._fields[1:]))


def missed(measured: Difference) -> list[str]:
    """The quantities that are not within their bounds."""
    values = measured._asdict()
    return [name for name, bound in BOUNDS.items() if not values[name] <= bound] + ["noise"] * (
        not measured.noise_equal
    )
