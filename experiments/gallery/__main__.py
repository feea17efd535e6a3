"""Makes the pictures of README and site from trained runs and closed forms."""

import argparse
import sys
from pathlib import Path

from score_sde.experiments.gallery.run import Runs, make

from score_sde.cli.experiment import folder
from score_sde.runtime.backend import expanded
from score_sde.runtime.preemption import exit_status

parser = argparse.ArgumentParser(prog="score_sde --mode=experiment --name=gallery", description=__doc__)
parser.add_argument("--workdir", type=folder, default=Path("runs/first"), help="a run on colour images, of first_run")
parser.add_argument(
    "--digits", type=expanded, default=Path("runs/classes"), help="digits with classes, made if missing"
)
parser.add_argument("--own", type=folder, default=Path("runs/photos"), help="a run on a folder of pictures")
parser.add_argument("--screenshots", type=folder, default=Path("runs/screenshots"), help="a browser's pictures")
parser.add_argument("--out", type=expanded, default=Path("docs/images"), help="the folder of the pictures")
parser.add_argument("--only", default="", help="names of pictures, as orders,mixture; default all")


def program(argv: list[str]) -> int:
    options = parser.parse_args(argv[1:])
    runs = Runs(options.workdir, options.digits, options.own, options.screenshots)
    return make(runs, options.out, [name for name in options.only.split(",") if name])


if __name__ == "__main__":
    sys.exit(exit_status(program, None))
