"""The table as text, and one self-contained page with the plots inside."""

import json
import os
import platform
from pathlib import Path

import jax
import matplotlib
import numpy as np
from score_sde.experiments.compare.report import aligned
from score_sde.experiments.truth_table.measure import ORDER_WITHIN, Record
from score_sde.experiments.truth_table.orders import STARTS
from score_sde.experiments.truth_table.rows import BIAS, FIRST_ORDER_BIAS, FLOW, KNOWN_BIAS, LAW, ROWS, SNR

from score_sde.io import html_page, workdir
from score_sde.io.html_page import COLOURS, INK, LINE, SHEET

matplotlib.use("Agg")
from matplotlib import pyplot as plt

COLUMNS = (
    "sampler",
    "SDE",
    "against",
    "theory",
    "order, Gaussian",
    "order, mixture",
    "error, Gaussian",
    "error, mixture",
    "NFE",
    "counted",
    "",
)
MARKERS = "osD^vPX*"
# The plots: title -> (x axis, which samplers). At most as many samplers in one as there are colours.
PLOTS = {
    "First order": ("steps", lambda row: row.order == 1 and row.against == FLOW),
    "Second order": ("steps", lambda row: row.order == 2 and row.against == FLOW and row.at_defaults),
    "Third and fourth order": ("steps", lambda row: (row.order or 0) > 2 and row.at_defaults),
    "First steps: methods over many steps, with the data seen at t = 1": ("steps", lambda row: not row.at_defaults),
    "Stochastic samplers: distance between laws": ("steps", lambda row: row.against == LAW),
    "Annealed Langevin steps: bias by snr": ("snr", lambda row: row.against == SNR),
    "Probability-flow ODE by tolerance": ("tolerance", lambda row: row.name.startswith("ode")),
    "Adaptive SDE solver by tolerance, along fixed Brownian paths": ("tolerance", lambda row: row.name == "adaptive"),
}


def cells(record: Record) -> list[str]:
    """One line of the table."""
    if not record.defined:
        return [record.sampler, record.sde, "not defined", *[""] * (len(COLUMNS) - 3)]

    def of(values: dict, form: str) -> list[str]:
        return [form.format(values[name]) if name in values else "-" for name in ("Gaussian", "mixture")]

    def error(name: str) -> str:
        d = record.distance.get(name)
        return f"{d['error']:.4f} ± {d['standard_error']:.4f}" if d else "-"

    against = f"{record.against}, {record.grid}" if record.against else "-"
    return [
        record.sampler,
        record.sde,
        against,
        " / ".join(dict.fromkeys(str(order) for order in record.expected.values() if order is not None)) or "-",
        *of(record.observed, "{:.2f}"),
        error("Gaussian"),
        error("mixture"),
        *(map(str, record.nfe) if record.nfe else "--"),
        "MISS" if record.misses else "ok, biased" if (record.sampler, record.sde) in KNOWN_BIAS else "ok",
    ]


def text_table(records: list[Record]) -> str:
    return aligned(COLUMNS, [cells(record) for record in records])


def machine() -> str:
    devices = ", ".join(f"{device.platform} ({device.device_kind})" for device in jax.devices())
    return f"{devices}; {os.cpu_count()} cores; {platform.machine()} {platform.system()}"


def write_json(folder: Path, records: list[Record], seconds: float) -> None:
    content = {
        "machine": machine(),
        "versions": dict(workdir.versions()),
        "seconds": round(seconds),
        "records": [record._asdict() for record in records],
    }
    (folder / "truth_table.json").write_text(json.dumps(content, indent=1), encoding="utf-8")


def write_page(folder: Path, records: list[Record], seconds: float) -> Path:
    """Writes `folder`/report.html and returns its path."""
    misses = [miss for record in records for miss in record.misses]
    marks = {(row, None): "miss" for row, record in enumerate(records) if record.misses}
    limits = {"bias": BIAS, "first_order_bias": FIRST_ORDER_BIAS}
    body = [
        html_page.warning(f"{len(misses)} miss: {'; '.join(misses)}.") if misses else html_page.note("Nothing misses."),
        html_page.note(ABOUT.format(starts=STARTS, within=ORDER_WITHIN)),
        html_page.heading("Error against steps"),
    ]
    for title, drawing in plots(records):
        if drawing is not None:
            body += [html_page.heading(title, 3), html_page.svg(drawing, f"Errors of samplers: {title}")]
    body += [
        html_page.heading("Table"),
        html_page.note(OF_TABLE.format(**limits)),
        html_page.table(COLUMNS, [cells(record) for record in records], marks=marks),
        html_page.note(f"{machine()}; {seconds:.0f} s; seed fixed; 1 repetition."),
        html_page.folded("Versions", html_page.listing(dict(workdir.versions()))),
    ]
    path = folder / "report.html"
    html_page.write(path, "Truth table: does every sampler solve the equation it claims to?", body)
    return path


def plots(records: list[Record]):
    """(title, figure): a panel for each SDE; the Gaussian's errors solid, the mixture's hollow and dashed."""
    for title, (axis, chosen) in PLOTS.items():
        group = [record for record in records if record.defined and record.errors and chosen(ROWS[record.sampler])]
        yield title, _panels(group, axis) if group else None


def _panels(group: list[Record], axis: str) -> plt.Figure:
    sdes = list(dict.fromkeys(record.sde for record in group))
    names = list(dict.fromkeys(record.sampler for record in group))
    figure, panels = plt.subplots(
        1, len(sdes), figsize=(3.3 * len(sdes) + 2.6, 3.6), sharey=True, squeeze=False, layout="constrained"
    )
    for panel, sde in zip(panels[0], sdes, strict=True):
        for record in (record for record in group if record.sde == sde):
            i = names.index(record.sampler)
            style = dict(color=COLOURS[i % len(COLOURS)], marker=MARKERS[i % len(MARKERS)], markersize=4.5)
            for data, errors in record.errors.items():
                hollow = dict(markerfacecolor=SHEET, linestyle="--") if data == "mixture" else {}
                panel.plot(record.sizes, errors, linewidth=1.2, **style, **hollow)
        _theory(panel, [record for record in group if record.sde == sde], axis)
        panel.set(xscale="log", yscale="log", xlabel=axis)
        panel.set_title(sde, fontsize=11, color=INK)
        ticks = sorted({size for record in group for size in record.sizes})
        panel.set_xticks(ticks, [f"{tick:g}" if tick >= 0.01 else f"{tick:.0e}" for tick in ticks], fontsize=8)
        panel.minorticks_off()
        panel.tick_params(colors=INK, labelsize=8)
        panel.grid(color=LINE, linewidth=0.6)
        panel.set_axisbelow(True)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0, 0].set_ylabel("error", color=INK)
    handles = [
        plt.Line2D([], [], color=COLOURS[i % len(COLOURS)], marker=MARKERS[i % len(MARKERS)], label=name, markersize=5)
        for i, name in enumerate(names)
    ]
    if any(record.theory is not None for record in group):
        handles.append(plt.Line2D([], [], color=INK, linestyle=":", label="slope of the theory"))
    if any("mixture" in record.errors for record in group):
        handles.append(
            plt.Line2D([], [], color=INK, linestyle="--", marker="o", markerfacecolor=SHEET, label="mixture")
        )
        handles.append(plt.Line2D([], [], color=INK, marker="o", label="Gaussian"))
    figure.legend(handles=handles, loc="outside right center", frameon=False, fontsize=9, labelcolor=INK)
    return figure


def _theory(panel: plt.Axes, group: list[Record], axis: str) -> None:
    """A dotted line of each theoretical order, under the lowest error of it."""
    for order in sorted({record.theory for record in group if record.theory is not None}):
        lines = [
            (record.sizes, errors) for record in group if record.theory == order for errors in record.errors.values()
        ]
        sizes, errors = min(lines, key=lambda line: line[1][-1])
        x = np.array(sizes, float)
        power = -order if axis == "steps" else order
        panel.plot(x, 0.5 * errors[-1] * (x / x[-1]) ** power, color=INK, linestyle=":", linewidth=1.4)


ABOUT = (
    "The scores are exact, so every error is the sampler's own. Orders are measured in float64. Deterministic samplers "
    "are compared with the exact probability flow from {starts} fixed points. Stochastic samplers are compared on the "
    "Gaussian, by the 2-Wasserstein distance between the exact law of their output and the exact p_eps. Neither "
    "comparison has a sampling error. A miss is an observed order further than {within} from the theory."
)
OF_TABLE = (
    "The last columns use the library's default settings in float32. The error is the root mean square error of the "
    "samples' characteristic function; after ± stands the same error of exact samples. The bias is the root of the "
    "difference of their squares. It may be {bias}, or {first_order_bias} for 20 steps of first order. Two samplers "
    "are known to have a larger one and are called biased: 20 Euler steps under VE, and Langevin steps by a sample's "
    "own norm, which are off by O(1/D) with D = 2. NFE is the number of evaluations for one sample, first as the "
    "sampler reports it, then as the score counts it."
)
