"""Measures every row under every SDE, prints the table, and writes it down."""

import itertools
import sys
import time
from pathlib import Path

from score_sde.experiments.truth_table import problems, report
from score_sde.experiments.truth_table.measure import Record, measure
from score_sde.experiments.truth_table.orders import Truths
from score_sde.experiments.truth_table.rows import ROWS

from score_sde.runtime.progress import bar

# One of each kind.
SMALL = ("pc euler_maruyama", "pc ancestral_sampling", "ode", "heun", "dpmpp_2m", "dpmpp_2m_sde", "unipc_3")
SMALL_SDES = ("VP", "sub-VP")


def run(folder: Path, small: bool = False) -> int:
    """Runs all rows; returns 0, or 1 if a row misses."""
    folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    names = SMALL if small else tuple(ROWS)
    jobs = list(itertools.product(names, SMALL_SDES if small else problems.DEFAULTS))
    records: list[Record] = []
    truths = Truths()
    with bar("truth table", len(jobs), "row") as progress:
        for name, sde in jobs:
            progress.set_postfix_str(f"{name} on {sde}", refresh=False)
            records.append(measure(ROWS[name], sde, truths, small))
            progress.update()
    seconds = time.monotonic() - started
    print(report.text_table(records))
    report.write_json(folder, records, seconds)
    page = report.write_page(folder, records, seconds)
    missed = [miss for record in records for miss in record.misses]
    print(f"{seconds:.0f} s in all. Open {page}")
    if missed:
        print(f"{len(missed)} missed:", *missed, sep="\n  ", file=sys.stderr)
    return 1 if missed else 0
