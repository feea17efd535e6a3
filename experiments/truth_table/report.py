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

from score_sde.io import workdir
from score_sde.io.html_page import element, svg

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
INK = "#1c1c1c"
COLOURS = ["#0b559f", "#c2410c", "#15803d", "#7e22ce", "#b91c1c", "#0f766e", "#a16207", "#444444"]
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
    page = element(
        PAGE,
        verdict="Nothing misses." if not misses else f"{len(misses)} miss: {'; '.join(misses)}.",
        starts=STARTS,
        within=ORDER_WITHIN,
        bias=BIAS,
        first_order_bias=FIRST_ORDER_BIAS,
        plots=[(title, svg(figure)) for title, figure in plots(records) if figure is not None],
        head=COLUMNS,
        rows=[(record.misses, cells(record)) for record in records],
        machine=f"{machine()}; {seconds:.0f} s; seed fixed; 1 repetition",
        versions=workdir.versions(),
    )
    path = folder / "report.html"
    path.write_text(page, encoding="utf-8")
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
                hollow = dict(markerfacecolor="white", linestyle="--") if data == "mixture" else {}
                panel.plot(record.sizes, errors, linewidth=1.2, **style, **hollow)
        _theory(panel, [record for record in group if record.sde == sde], axis)
        panel.set(xscale="log", yscale="log", xlabel=axis)
        panel.set_title(sde, fontsize=11, color=INK)
        ticks = sorted({size for record in group for size in record.sizes})
        panel.set_xticks(ticks, [f"{tick:g}" if tick >= 0.01 else f"{tick:.0e}" for tick in ticks], fontsize=8)
        panel.minorticks_off()
        panel.tick_params(colors=INK, labelsize=8)
        panel.grid(color="#e4e4e4", linewidth=0.6)
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
            plt.Line2D([], [], color=INK, linestyle="--", marker="o", markerfacecolor="white", label="mixture")
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


PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Truth table of the samplers</title>
<style>
  body { font: 16px/1.5 system-ui, sans-serif; color: #1c1c1c; }
  body { max-width: 84rem; margin: 2rem auto; padding: 0 1.5rem; }
  h1 { font-size: 1.6rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; } h3 { font-size: 1rem; }
  svg { max-width: 100%; height: auto; }
  table { border-collapse: collapse; font-size: .85rem; }
  th, td { text-align: left; padding: .25rem .9rem .25rem 0; border-bottom: 1px solid #ddd; white-space: nowrap; }
  th { position: sticky; top: 0; background: #fff; }
  .miss td { background: #fde8e8; } .wide { overflow-x: auto; }
  p { max-width: 60rem; } .verdict { font-weight: 600; }
  pre { background: #f5f5f5; padding: 1rem; overflow-x: auto; font-size: .8rem; }
</style>
<h1>Truth table: does every sampler solve the equation it claims to?</h1>
<p class="verdict">{{ verdict }}</p>
<p>Scores are exact, so what is left is the sampler's own error. Orders are measured in float64: deterministic samplers
against the exact probability flow from {{ starts }} fixed points; stochastic ones, on the Gaussian, by the
2-Wasserstein distance between the exact law of their output, from unit impulses of noise, and the exact p_eps. Neither
has a sampling error. An observed order further than {{ within }} from the theory is a miss.</p>
<h2>Error against steps</h2>
{% for title, plot in plots %}<h3>{{ title }}</h3>{{ plot }}{% endfor %}
<h2>Table</h2>
<p>The last columns are at the library's default settings, in float32: the root mean square error of the samples'
characteristic function, and its standard error, which is what exact samples show. The bias, the root of the difference
of their squares, may be {{ bias }}, and {{ first_order_bias }} for 20 steps of first order; "biased" are the two
that are known to have a larger one: 20 Euler steps under VE, and Langevin steps by a sample's own norm, off by O(1/D),
where D = 2.
NFE: evaluations of the score that the sampler reports, and those counted by the score itself, for one sample.</p>
<div class="wide"><table><tr>{% for cell in head %}<th>{{ cell }}{% endfor %}</tr>
{%- for misses, row in rows %}<tr{% if misses %} class=miss{% endif %}>
{%- for cell in row %}<td>{{ cell }}{% endfor %}</tr>
{%- endfor %}</table></div>
<p>{{ machine }}</p>
<h2>Versions</h2>
<pre>{% for name, version in versions.items() %}{{ name }} {{ version }}
{% endfor %}</pre>
</html>
"""
