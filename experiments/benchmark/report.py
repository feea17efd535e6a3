"""The table of a benchmark, for the terminal and as a page."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from score_sde.experiments.compare.report import aligned

from score_sde.io import html_page

COLUMNS = {
    "network": "network",
    "task": "task",
    "by": "by",
    "batch": "batch",
    "milliseconds_an_evaluation": "ms an evaluation",
    "images_a_second": "images/s",
    "flops_a_second": "GFLOP/s",
    "utilisation": "of the matrix rate",
    "bytes": "MiB",
    "compilation": "compile s",
    "speed_against_peer": "speed against the peer",
}
FORMATS = {
    "milliseconds_an_evaluation": lambda v: f"{v:.2f}",
    "images_a_second": lambda v: f"{v:,.1f}",
    "flops_a_second": lambda v: f"{v / 1e9:,.1f}",
    "utilisation": lambda v: f"{v:.1%}",
    "bytes": lambda v: f"{v / 2**20:,.0f}",
    "predicted_bytes": lambda v: f"{v / 2**20:,.0f}",
    "compilation": lambda v: f"{v:.1f}",
    "speed_against_peer": lambda v: f"{v:.2f}",
}

NOTE = (
    "Medians. An evaluation of train is an update. Operations are those of convolutions and matrix products, an update "
    "being three passes; memory is what the compiled program needs on a device."
)


def text(facts: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """The table for a terminal."""
    return f"{about(facts)}\n{aligned(list(COLUMNS.values()), cells(rows, COLUMNS))}"


def write(path: Path, facts: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """The page."""
    body = [
        html_page.note(f"Measured on {about(facts)}."),
        html_page.table(list(COLUMNS.values()), cells(rows, COLUMNS), sortable=True),
        html_page.note(NOTE),
        html_page.folded("Command", html_page.verbatim([str(facts["command"])])),
    ]
    html_page.write(path, "Speed", body)


def about(facts: dict[str, Any]) -> str:
    """The machine, versions, repetitions and matrix rates in a line."""
    versions = facts["versions"]
    peer = f"; peer: {facts['peer']['name']}, {facts['peer']['versions']}" if facts["peer"] else ""
    rates = ", ".join(f"{rate / 1e9:,.0f} GFLOP/s in {name}" for name, rate in facts["matrix_rate"].items())
    return (
        f"{facts['devices']} x {facts['device']}, {facts['cores']} cores, JAX {versions['jax']}, Python "
        f"{versions['python']}, medians of {facts['rounds']} in turns{peer}; matrix products: {rates or 'not run'}"
    )


def cells(rows: list[dict[str, Any]], columns: Iterable[str]) -> list[list[str]]:
    """Texts of the table's cells; a row that was not timed says why in its first column of figures."""
    return [[_cell(row, key) for key in columns] for row in rows]


def _cell(row: dict[str, Any], key: str) -> str:
    if key not in row:
        return row.get("missing", "") if key == "milliseconds_an_evaluation" else ""
    return FORMATS.get(key, str)(row[key])
