"""Measures how fast training, sampling and likelihoods are, also beside another implementation."""

import argparse
import sys
from pathlib import Path

import jax
from score_sde.experiments.benchmark import memory, precision, scaling
from score_sde.experiments.benchmark import run as speed
from score_sde.experiments.benchmark.cases import SMALL, cases

from score_sde.runtime.preemption import exit_status

parser = argparse.ArgumentParser(prog="score_sde --mode=experiment --name=benchmark", description=__doc__)
parser.add_argument("what", nargs="?", choices=("speed", "memory", "scaling", "precision"), default="speed")
parser.add_argument("--networks", default="", help="names, separated by ;  default: the small ones on a CPU, else all")
parser.add_argument("--tasks", default="forward,train,sample,likelihood,load,save")
parser.add_argument("--precisions", default="", help="default: tf32 on a CPU, else tf32,bfloat16")
parser.add_argument("--peer", default="", help="command of another implementation's runner (see peer.py)")
parser.add_argument("--rounds", type=int, default=7)
parser.add_argument("--batch", type=int, help="default: the case's own")
parser.add_argument("--workdir", type=Path, default=Path("runs/benchmark"))


def program(argv: list[str]) -> int:
    arguments = parser.parse_args(argv[1:])
    if arguments.what == "memory":
        return memory.run(arguments.workdir)
    if arguments.what == "precision":
        return precision.run(arguments.workdir)
    if arguments.what == "scaling":
        return scaling.run(arguments.workdir)
    on_cpu = jax.default_backend() == "cpu"
    names = [name.strip() for name in arguments.networks.split(";") if name.strip()]
    return speed.run(
        names or list(SMALL if on_cpu else cases()),
        arguments.tasks.split(","),
        (arguments.precisions or ("tf32" if on_cpu else "tf32,bfloat16")).split(","),
        arguments.peer,
        arguments.rounds,
        arguments.batch,
        arguments.workdir,
    )


if __name__ == "__main__":
    sys.exit(exit_status(program, None))
