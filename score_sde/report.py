"""The page of an evaluation: a table of its checkpoints, curves over them, and samples of each."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from score_sde import images, page

LABELS = {"loss": "loss", "bits_per_dim": "bits/dim", "bits_per_dim_bound": "bound on bits/dim"}
SIDE = 768  # of a grid in the page, in pixels


def write(folder: Path, report: Mapping[str, Any]) -> Path:
    """Writes `folder`/report.html of a report and of the samples beneath the folder; returns its path."""
    entries = report["checkpoints"]
    found = [{"step": entry["step"]} | figures(entry) for entry in entries]
    names = list(dict.fromkeys(name for figures in found for name in figures if name != "step"))
    rows = [[f"{each['step']:,}", *(text(each.get(name)) for name in names)] for each in found]
    body = [page.note("EMA weights. ± is one standard error."), page.table(["step", *names], rows)]
    if len(entries) > 1:
        body += ["<h2>Over checkpoints</h2>", '<div class="grids">']
        body += [page.figure(f"{name}, ± two standard errors", _curve(found, name)) for name in names]
        body.append("</div>")
    grids = [(entry["step"], _grid(folder / f"step_{entry['step']:08d}")) for entry in entries]
    if any(grid for _, grid in grids):
        body += ["<h2>Samples</h2>", '<div class="grids">']
        body += [page.figure(f"step {step:,}", grid) for step, grid in grids if grid]
        body.append("</div>")
    for fingerprint, protocol in {
        entry["metrics"]["fingerprint"]: entry["metrics"]["protocol"] for entry in entries if "metrics" in entry
    }.items():
        body.append(f"<h2>Protocol {fingerprint}</h2>")
        body.append(page.note("Compare distances with those of the same fingerprint only."))
        body.append(page.listing(protocol))
    body += ["<h2>Versions</h2>", page.listing(report["versions"] | {"devices": ", ".join(report["devices"])})]
    body += ["<h2>Config</h2>", page.listing(report["config"])]
    page.write(folder / "report.html", f"Evaluation of {folder.parent.name}", "\n".join(body))
    return folder / "report.html"


def figures(entry: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The figures of a checkpoint by their names, each with its mean and standard error."""
    found = {label: entry[name] for name, label in LABELS.items() if name in entry}
    measured = entry.get("metrics", {})
    return found | {name: value for name, value in measured.items() if isinstance(value, dict) and "mean" in value}


def text(figure: Mapping[str, Any] | None) -> str:
    if figure is None:
        return "not run"
    error = figure["standard_error"]
    return f"{figure['mean']:.4g}" if error is None else f"{figure['mean']:.{_decimals(error)}f} ± {error:.2g}"


def _decimals(error: float) -> int:
    """Of a number with that error, which has two digits."""
    return min(8, max(0, 1 - math.floor(math.log10(error)))) if 0 < error < math.inf else 4


def _curve(found: list[dict[str, Any]], name: str) -> str:
    points = [(each["step"], each[name]["mean"], each[name]["standard_error"]) for each in found if name in each]
    steps, means, errors = zip(*points, strict=True)
    return page.chart({name: (steps, means, None if None in errors else errors)}, "step", name)


def _grid(folder: Path) -> str:
    """A square of the first samples of a checkpoint, "" if it has none."""
    files = sorted(folder.glob("samples*.npz"))
    if not files:
        return ""
    with np.load(files[0], allow_pickle=False) as stored:
        pixels = stored["images"]
    size = pixels.shape[1]
    columns = min(10, max(1, SIDE // size), math.isqrt(len(pixels)))
    return page.picture(images.grid(pixels[: columns**2], columns), max(1, SIDE // (size * columns)))
