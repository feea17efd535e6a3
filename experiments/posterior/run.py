"""Measures every row, prints the table, and writes it down."""

import sys
import time
from pathlib import Path

import numpy as np
from score_sde.experiments.posterior import report
from score_sde.experiments.posterior.measure import Record, measure, missed_together
from score_sde.experiments.posterior.rows import PICTURED, PICTURED_SDE, table

from score_sde.runtime.progress import bar

SCATTERED = 700  # samples in a panel


def run(folder: Path, small: bool = False) -> int:
    """Runs all rows; returns 0, or 1 if a row misses."""
    folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    rows, records, pictured = table(small), [], {}
    with bar("posterior", len(rows), "row") as progress:
        for row in rows:
            progress.set_postfix_str(str(row), refresh=False)
            record, x = measure(row, small)
            records.append(record)
            if (row.problem, row.sde) == (PICTURED, PICTURED_SDE):
                pictured[row.label] = x[:SCATTERED]
            progress.update()
    seconds = time.monotonic() - started
    missed = [*(miss for record in records for miss in record.misses), *missed_together(records)]
    return _write(folder, records, pictured, missed, seconds)


def _write(
    folder: Path, records: list[Record], pictured: dict[str, np.ndarray], missed: list[str], seconds: float
) -> int:
    print(report.text_table(records))
    report.write_json(folder, records, missed, seconds)
    page = report.write_page(folder, records, pictured, missed, seconds)
    print(f"{seconds:.0f} s in all. Open {page}")
    if missed:
        print(f"{len(missed)} missed:", *missed, sep="\n  ", file=sys.stderr)
    return 1 if missed else 0
