"""Results of a day on a GPU, for the terminal and as a page."""

import functools
from pathlib import Path
from typing import Any

from score_sde.experiments.benchmark import report
from score_sde.experiments.benchmark.run import summarised
from score_sde.experiments.compare.report import aligned

from score_sde.io import html_page

RATES = "rate of matrix products"
COLUMNS = {key: title for key, title in report.COLUMNS.items() if key != "speed_against_peer"} | {
    "predicted_bytes": "MiB by the trace",
    "repetitions": "repetitions",
}
CHECK_COLUMNS = ("check", "result", "figures", "seconds")


def text(record: dict[str, Any]) -> str:
    """The summary for a terminal: checks, table, training, and what was skipped or failed."""
    facts, entries = _facts(record), record["parts"]
    shown = [report.about(facts), _lines(entries, "checks")]
    shown.append(aligned(*_table(record, facts)))
    shown += [_lines(entries, "training"), "\n".join(_left_out(entries)) or "Nothing was skipped, and nothing failed."]
    return "\n\n".join(shown)


def write(path: Path, record: dict[str, Any]) -> None:
    """The page."""
    facts, entries = _facts(record), record["parts"]
    about = {"measured on": report.about(facts), "driver": facts["driver"], "runtime": facts["runtime"]}
    about |= {"memory of the device": f"{facts['memory'] / 2**30:.1f} GiB", "size": facts["size"]}
    about |= {"versions": ", ".join(f"{name} {version}" for name, version in facts["versions"].items())}
    for number, call in enumerate(record["calls"], 1):
        about[f"call {number}"] = f"{call['started']}, {call['minutes']:g} minutes"
    body = [
        html_page.note(f"Measured on {report.about(facts)}."),
        html_page.heading("Checks"),
        html_page.table(CHECK_COLUMNS, _checks(entries)),
        html_page.heading("Speed"),
        html_page.table(*_table(record, facts)),
        html_page.note(f"{report.NOTE} By the trace: before the compiler's savings."),
        html_page.heading("Training"),
    ]
    for name, entry in _of(entries, "training").items():
        body.append(html_page.note(f"{name}: {in_a_line(entry)}"))
        if entry.get("curve"):
            chart = _chart(tuple(map(tuple, entry["curve"])))
            body.append(html_page.figure("Loss of single batches", chart))
    if left_out := _left_out(entries):
        body += [html_page.heading("Skipped, failed or not run"), html_page.verbatim(left_out)]
    body.append(
        html_page.folded("Machine, versions and command", html_page.listing(about | {"command": facts["command"]}))
    )
    html_page.write(path, "A day on a GPU" if facts["size"] == "full" else "A day on a GPU, at toy size", body, "--out")


def in_a_line(entry: dict[str, Any]) -> str:
    """Status, figures and reason of a part."""
    said = [entry["status"]]
    if entry.get("figures"):
        said.append(_figures(entry["figures"]))
    if entry.get("rates"):
        said.append(", ".join(f"{rate / 1e12:.3g} TFLOP/s in {name}" for name, rate in entry["rates"].items()))
    if entry["status"] == "measured" and "row" in entry:
        seconds = sorted(entry["row"]["seconds"])
        said.append(f"{1e3 * seconds[len(seconds) // 2]:.4g} ms")
    if entry["status"] == "trained":
        said.append(f"from update {entry['from']:,} to {entry['updates']:,}, goes on in {entry['workdir']}")
        said += [f"{entry['images_a_second']:,.0f} images/s"] if entry["images_a_second"] else []
        said += [f"loss {entry['curve'][-1][1]:.4g}"] if entry["curve"] else []
    return "; ".join(said + ([entry["reason"]] if entry.get("reason") else []))


def _facts(record: dict[str, Any]) -> dict[str, Any]:
    return record["facts"] | {"matrix_rate": record["parts"].get(RATES, {}).get("rates", {})}


def _of(entries: dict[str, Any], group: str) -> dict[str, Any]:
    return {name: entry for name, entry in entries.items() if entry["group"] == group}


def _checks(entries: dict[str, Any]) -> list[list[str]]:
    return [
        [name, entry["status"], _figured(entry), f"{entry.get('seconds', '')}"]
        for name, entry in _of(entries, "checks").items()
    ]


def _figured(entry: dict[str, Any]) -> str:
    """Figures and reason of a part."""
    said = [_figures(entry.get("figures", {})), entry.get("reason", "")]
    return "; ".join(each for each in said if each)


def _figures(figures: dict[str, Any]) -> str:
    return ", ".join(f"{name} {_figure(value)}" for name, value in figures.items())


def _figure(value: Any) -> str:
    if isinstance(value, dict):
        return f"({_figures(value)})"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return str(value)


@functools.lru_cache(1)  # the page is written after each part
def _chart(curve: tuple[tuple[int, float], ...]) -> html_page.Element:
    return html_page.chart({"loss": (*zip(*curve, strict=True), None)}, "updates", "training loss", log=True)


def _lines(entries: dict[str, Any], group: str) -> str:
    return "\n".join(f"{name}: {in_a_line(entry)}" for name, entry in _of(entries, group).items())


def _table(record: dict[str, Any], facts: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Head and cells of the table of speeds; a row that is not measured says so."""
    rows = []
    for entry in _of(record["parts"], "table").values():
        if "row" in entry:
            done = entry["status"] == "measured"
            rows.append(dict(entry["row"]) if done else entry["row"] | {"missing": "not run"})
    return list(COLUMNS.values()), report.cells(summarised(rows, facts), COLUMNS)


def _left_out(entries: dict[str, Any]) -> list[str]:
    return [
        f"{name}: {entry['status']}" + (f", {entry['reason']}" if entry.get("reason") else "")
        for name, entry in entries.items()
        if entry["status"] in ("skipped", "failed", "not run")
    ]
