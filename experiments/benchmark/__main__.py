"""Measures how fast training, sampling and likelihoods are, also beside another implementation."""

import argparse
import sys
from pathlib import Path

from score_sde.cli.experiment import count, positive
from score_sde.runtime.backend import expanded
from score_sde.runtime.preemption import exit_status

parser = argparse.ArgumentParser(prog="score_sde --mode=experiment --name=benchmark", description=__doc__)
parser.add_argument("what", nargs="?", choices=("speed", "memory", "scaling", "precision", "gpu"), default="speed")
parser.add_argument("--networks", default="", help="names, separated by ;  default: the small ones on a CPU, else all")
parser.add_argument("--tasks", default="", help="default: all; of gpu train,sample,likelihood")
parser.add_argument("--precisions", default="", help="default: tf32 on a CPU, else tf32,bfloat16")
parser.add_argument("--peer", default="", help="command of another implementation's runner (see peer.py)")
parser.add_argument("--rounds", type=count, default=7)
parser.add_argument("--batch", type=count, help="default: the case's own")
parser.add_argument("--workdir", "--out", type=expanded, default=Path("runs/benchmark"))
parser.add_argument("--minutes", type=positive, default=9.0, help="of gpu, from start to end")
parser.add_argument("--toy", action="store_true", help="gpu with tiny networks, on any device")


def program(argv: list[str]) -> int:
    arguments = parser.parse_args(argv[1:])
    from score_sde.experiments.benchmark.installed import check_installed

    check_installed()  # before anything is imported that may be missing
    import jax
    from score_sde.experiments.benchmark import gpu, memory, precision, scaling
    from score_sde.experiments.benchmark import run as speed
    from score_sde.experiments.benchmark.cases import LARGE, SMALL
    from score_sde.experiments.benchmark.tasks import TASKS

    if arguments.what == "memory":
        return memory.run(arguments.workdir)
    if arguments.what == "precision":
        return precision.run(arguments.workdir)
    if arguments.what == "scaling":
        return scaling.run(arguments.workdir)
    on_cpu = jax.default_backend() == "cpu"
    names = [name.strip() for name in arguments.networks.split(";") if name.strip()]
    if arguments.what == "gpu":
        return gpu.run(
            names,
            (arguments.tasks or "train,sample,likelihood").split(","),
            (arguments.precisions or "bfloat16,tf32").split(","),
            arguments.rounds,
            arguments.batch,
            arguments.minutes,
            arguments.toy,
            arguments.workdir,
        )
    return speed.run(
        names or list(SMALL if on_cpu else SMALL + LARGE),
        arguments.tasks.split(",") if arguments.tasks else list(TASKS),
        (arguments.precisions or ("tf32" if on_cpu else "tf32,bfloat16")).split(","),
        arguments.peer,
        arguments.rounds,
        arguments.batch,
        arguments.workdir,
    )


if __name__ == "__main__":
    sys.exit(exit_status(program, None))
