"""How fast: `python -m experiments.benchmark [speed|memory|scaling|precision]`. See README.md."""

import argparse
import sys
from pathlib import Path

import score_sde  # noqa: F401  (sets XLA's flags before anything computes)

parser = argparse.ArgumentParser(prog="python -m experiments.benchmark", description=__doc__)
parser.add_argument("what", nargs="?", choices=("speed", "memory", "scaling", "precision"), default="speed")
parser.add_argument("--networks", default="", help="names, separated by ;  default: the small ones on a CPU, else all")
parser.add_argument("--tasks", default="forward,train,sample,likelihood,load,save")
parser.add_argument("--precisions", default="", help="default: tf32 on a CPU, else tf32,bfloat16")
parser.add_argument("--peer", default="", help="command of another implementation's runner (see peer.py)")
parser.add_argument("--rounds", type=int, default=7)
parser.add_argument("--batch", type=int, help="default: the case's own")
parser.add_argument("--workdir", type=Path, default=Path("runs/benchmark"))
arguments = parser.parse_args()

if arguments.what == "speed":
    import jax

    from experiments.benchmark.cases import SMALL, cases
    from experiments.benchmark.run import run

    on_cpu = jax.default_backend() == "cpu"
    names = [name.strip() for name in arguments.networks.split(";") if name.strip()]
    sys.exit(
        run(
            names or list(SMALL if on_cpu else cases()),
            arguments.tasks.split(","),
            (arguments.precisions or ("tf32" if on_cpu else "tf32,bfloat16")).split(","),
            arguments.peer,
            arguments.rounds,
            arguments.batch,
            arguments.workdir,
        )
    )
elif arguments.what == "memory":
    from experiments.benchmark.memory import run as memory

    sys.exit(memory(arguments.workdir))
elif arguments.what == "precision":
    from experiments.benchmark.precision import run as precision

    sys.exit(precision(arguments.workdir))
else:
    from experiments.benchmark.scaling import run as scaling

    sys.exit(scaling(arguments.workdir))
