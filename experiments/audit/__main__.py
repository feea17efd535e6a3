"""Audits a trained model: memorisation, membership, extraction and balance, with intervals and pictures."""

import argparse
import sys
from pathlib import Path

from score_sde.experiments.audit.run import PARTS, SCALES, Options, check_parts, run, run_digits
from score_sde.experiments.sweep.flags import add_launcher, parsed, start_of

from score_sde.cli.experiment import count, folder
from score_sde.errors import UsageError
from score_sde.runtime.backend import expanded
from score_sde.runtime.preemption import exit_status


def scales(text: str) -> tuple[float, ...]:
    """The guidance scales of a flag."""
    try:
        numbers = tuple(float(each) for each in text.split(","))
    except ValueError:
        numbers = (-1.0,)
    if not all(0 <= number < float("inf") for number in numbers):
        raise argparse.ArgumentTypeError(f"{text} is no list of scales of 0 or more, as 1,2,4")
    return numbers


parser = argparse.ArgumentParser(prog="score_sde --mode=experiment --name=audit", description=__doc__)
parser.add_argument("--workdir", type=folder, help="of the trained model")
parser.add_argument("--digits", action="store_true", help="trains and audits two models, of 50 digits and of all")
parser.add_argument("--out", type=folder, help="of the figures; default audit in the workdir, or runs/audit")
parser.add_argument("--num_samples", type=count, default=1000, help="at each guidance scale; default 1000")
parser.add_argument("--scales", type=scales, help=f"of guidance; default {','.join(f'{w:g}' for w in SCALES)}")
parser.add_argument("--step", type=count, help="of the checkpoint; default the last")
parser.add_argument("--parts", default=",".join(PARTS), help=f"of {', '.join(PARTS)}; default all")
parser.add_argument("--attributes", type=expanded, help="a .npz of attributes NAME, and NAME_eval, to balance")
parser.add_argument("--report", action="store_true", help="makes the page of what there is, and runs nothing")
add_launcher(parser)


def program(argv: list[str]) -> int:
    options, values = parsed(parser, argv)
    if bool(options.workdir) == options.digits:
        raise UsageError("Name one trained model by --workdir=DIR, or let --digits train and audit two.")
    check_parts(options.parts.split(","))
    of_audit = Options(
        options.num_samples,
        options.parts.split(","),
        options.scales,
        options.step,
        options.attributes,
        {} if options.digits else values,
    )
    if options.digits:
        out = options.out or Path("runs/audit")
        start = None if options.report else start_of(options, out)
        return run_digits(out, start, of_audit, retries=options.retries, common=values)
    out = options.out or options.workdir / "audit"
    return run(options.workdir, out, of_audit, only_report=options.report)


if __name__ == "__main__":
    sys.exit(exit_status(program, None))
