"""Reads the runs, prints how they differ, draws samples of each, and writes the page."""

from collections.abc import Sequence
from pathlib import Path

from score_sde.experiments.compare import report
from score_sde.experiments.compare.runs import read
from score_sde.experiments.compare.samples import draw, real

from score_sde.errors import UsageError


def compare(directories: Sequence[str | Path], out: str | Path, num_samples: int = 16, seed: int = 0) -> None:
    """Compares workdirs, the first being the reference, on the page `out`. num_samples: of each run; 0 draws none.

    Raises `UsageError` before anything is written, where they cannot be compared.
    """
    out = Path(out)
    if num_samples < 0:
        raise UsageError(f"--num_samples={num_samples} must not be negative; 0 draws none.")
    if out.is_dir():
        raise UsageError(f"{out} is a folder; --out is the file of the page.")
    runs = read([Path(directory) for directory in directories])
    print(report.text(runs))
    report.write(out, runs)  # samples take a while, and may yet fail
    if num_samples:
        drawn, missing = draw(runs, num_samples, seed)
        report.write(out, runs, drawn, missing, real(runs, num_samples) if drawn else ())
    print(f"Open {out}")
