"""How do runs differ? `python -m experiments.compare DIR DIR [DIR ...] [--out=compare.html]`. See README.md."""

import argparse
import sys
from pathlib import Path

from experiments.compare.run import compare
from score_sde.runtime.preemption import exit_status


def main(argv: list[str] | None = None) -> int:
    """See `exit_status`."""
    return exit_status(_program, argv)


def _program(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m experiments.compare", description=__doc__)
    parser.add_argument("directories", nargs="*", type=Path, metavar="DIR", help="workdirs, the first the reference")
    parser.add_argument("--out", type=Path, default=Path("compare.html"), help="the page")
    parser.add_argument("--num_samples", type=int, default=16, help="of each run, from the same noise")
    parser.add_argument("--seed", type=int, default=0, help="of the noise")
    parser.add_argument("--no-samples", action="store_true", help="nothing is loaded and drawn")
    options = parser.parse_args(argv[1:])
    number = 0 if options.no_samples else options.num_samples
    compare(options.directories, options.out, number, options.seed)


if __name__ == "__main__":
    sys.exit(main())
