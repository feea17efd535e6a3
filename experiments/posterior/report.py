"""The table as text, and one self-contained page with the pictures inside."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
from score_sde.experiments.compare.report import aligned
from score_sde.experiments.posterior.measure import (
    FINITE,
    WITHIN,
    Errors,
    Record,
    difference,
    exact_law,
    from_limit,
    unknown_bias,
)
from score_sde.experiments.posterior.problems import LEFT, STEPS
from score_sde.experiments.posterior.rows import (
    DPS_STEP,
    GUIDED,
    PICTURED,
    PICTURED_SDE,
    PREDICTOR,
    Row,
    known_law,
    truth,
)
from score_sde.experiments.truth_table import problems as closed
from score_sde.experiments.truth_table.report import machine

from score_sde.io import html_page, workdir
from score_sde.oracles import Oracle
from score_sde.randomness import sample_keys

matplotlib.use("Agg")
from matplotlib import pyplot as plt

COLUMNS = (
    "problem",
    "SDE",
    "method",
    "sampler",
    "steps",
    "samples",
    "mean: error",
    "known",
    "covariance: error",
    "known",
    "s.e. apart",
    "distribution",
    "",
)
INK = html_page.INK
HIDDEN = [i for i in range(4) if i not in LEFT]


def cells(record: Record) -> list[str]:
    """One line of the table."""
    row, known = record.row, record.known

    def error(moment: str) -> str:
        return f"{getattr(record.error, moment):.3f} ± {getattr(record.standard_error, moment):.3f}"

    def bias(moment: str) -> str:
        return "-" if known is None else f"{getattr(known, moment):.3f}"

    apart = "-"
    if record.apart is not None:
        ratios = [d / s for d, s in zip(record.apart, record.standard_error, strict=True)]
        apart = ", ".join(f"{ratio:.1f}" for ratio in ratios)
    d = record.distance
    return [
        row.problem,
        row.sde,
        row.label,
        row.sampler,
        str(row.steps) if row.steps else "-",
        str(record.samples),
        error("mean"),
        bias("mean"),
        error("covariance"),
        bias("covariance"),
        apart,
        f"{d['error']:.3f} ± {d['standard_error']:.3f}" if d else "-",
        "MISS" if record.misses else "limit" if row.method == "particles" else "ok" if known else unknown_bias(row),
    ]


def text_table(records: list[Record]) -> str:
    return aligned(COLUMNS, [cells(record) for record in records])


def write_json(folder: Path, records: list[Record], missed: list[str], seconds: float) -> None:
    def plain(record: Record) -> dict:
        values = {
            name: value._asdict() if isinstance(value, Errors) else value for name, value in record._asdict().items()
        }
        return values | {"row": record.row._asdict()}

    content = {
        "machine": machine(),
        "versions": dict(workdir.versions()),
        "seconds": round(seconds),
        "missed": missed,
        "records": [plain(record) for record in records],
    }
    (folder / "posterior.json").write_text(json.dumps(content, indent=1), encoding="utf-8")


def write_page(
    folder: Path, records: list[Record], pictured: dict[str, np.ndarray], missed: list[str], seconds: float
) -> Path:
    """Writes `folder`/report.html and returns its path."""
    verdict = "Nothing misses." if not missed else f"{len(missed)} missed: {'; '.join(missed)}."
    steps = ", ".join(f"{step} on {sde}" for sde, step in DPS_STEP.items())
    marks = {(row, None): "miss" for row, record in enumerate(records) if record.misses}
    parts = [
        html_page.note(verdict),
        html_page.note(ABOUT.format(within=WITHIN, finite=FINITE, steps=steps)),
        html_page.heading("A posterior of two hidden pixels, and samples of it"),
        html_page.note(SCATTER.format(sde=PICTURED_SDE, steps=STEPS)),
        html_page.svg(scatter(pictured), f"Samples by {', '.join(pictured)} over contours of the posterior")
        if pictured
        else "",
        html_page.heading("More particles"),
        html_page.note("Distance of the moments from those of infinitely many; bars are two standard errors."),
        html_page.svg(of_particles(records), "Errors of mean and covariance against the number of particles"),
        html_page.heading("More steps"),
        html_page.note(
            "tmpd on the Gaussian: lines are the known bias, points are measured, with two standard errors."
        ),
        html_page.svg(of_steps(records), "Errors of mean and covariance against the number of steps"),
        html_page.heading("Table"),
        html_page.table(COLUMNS, [cells(record) for record in records], marks=marks),
        html_page.note(f"{machine()}; {seconds:.0f} s; seeds fixed; 1 repetition."),
        html_page.folded("Versions", html_page.listing(dict(workdir.versions()))),
    ]
    path = folder / "report.html"
    html_page.write(path, "Do conditional samplers have the conditional distribution?", parts)
    return path


def scatter(pictured: dict[str, np.ndarray]) -> plt.Figure:
    """A panel for each method, and one of the posterior itself."""
    data = truth(PICTURED)
    keys = sample_keys(jax.random.key(0), jnp.arange(len(next(iter(pictured.values())))))
    panels = {"exact posterior": np.asarray(jax.jit(data.sample)(keys)).reshape(len(keys), -1), **pictured}
    columns = min(5, len(panels))
    rows = -(-len(panels) // columns)
    figure, axes = plt.subplots(
        rows,
        columns,
        figsize=(2.7 * columns, 2.8 * rows),
        sharex=True,
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for panel in axes.ravel()[len(panels) :]:
        panel.set_visible(False)
    low, high = -2.0, 2.0
    grid = np.linspace(low, high, 160)
    density = marginal(data, grid)
    levels = density.max() * np.array([0.02, 0.1, 0.3, 0.6, 0.9])
    for panel, (name, x) in zip(axes.ravel(), panels.items(), strict=False):
        panel.plot(*x[:, HIDDEN].T, ".", color=html_page.COLOURS[0], markersize=4.5, alpha=0.5, markeredgewidth=0)
        panel.contour(grid, grid, density, levels=levels, colors=html_page.COLOURS[1], linewidths=0.9)
        panel.set_title(name, fontsize=11, color=INK)
        panel.set(xlim=(low, high), ylim=(low, high), aspect="equal", xticks=[-1, 0, 1], yticks=[-1, 0, 1])
        panel.tick_params(colors=INK, labelsize=8)
        panel.spines[["top", "right"]].set_visible(False)
    figure.supxlabel("hidden pixel, above", fontsize=10, color=INK)
    figure.supylabel("hidden pixel, below", fontsize=10, color=INK)
    return figure


def marginal(data: Oracle, grid: np.ndarray) -> np.ndarray:
    """The density of the hidden pixels at (grid, grid): rows are of the second."""
    points = np.stack(np.meshgrid(grid, grid), axis=-1)
    total = np.zeros(points.shape[:2])
    for weight, mean, covariance in closed.components(data):
        part = covariance[np.ix_(HIDDEN, HIDDEN)]
        offset = points - mean[HIDDEN]
        energy = np.einsum("...i,ij,...j", offset, np.linalg.inv(part), offset)
        total += weight * np.exp(-0.5 * energy) / (2 * np.pi * np.sqrt(np.linalg.det(part)))
    return total


def of_particles(records: list[Record]) -> plt.Figure:
    """Panels of particles: Gaussians above, mixtures below."""
    by_row = {record.row: record for record in records}
    groups: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        if record.row.method == "particles":
            groups.setdefault((record.row.problem, record.row.sde), []).append(record)
    numbers = sorted({record.row.number for group in groups.values() for record in group})
    figure, axes = _panels(2)
    for panels, kind in zip(axes, (False, True), strict=True):
        chosen = {key: group for key, group in groups.items() if key[0].startswith("mixture") == kind}
        for i, ((problem, sde), group) in enumerate(chosen.items()):
            own = by_row.get(group[0].row._replace(method="own score", number=0))
            for panel, moment in zip(panels, Errors._fields, strict=True):
                # Beside each other, so that bars do not hide one another.
                x = [record.row.number * 1.09 ** (i - (len(chosen) - 1) / 2) for record in group]
                y = [getattr(from_limit(record, own), moment) for record in group]
                bars = [2 * getattr(record.standard_error, moment) for record in group]
                style = dict(
                    color=html_page.COLOURS[i], linewidth=1.2, marker="o", markersize=4, capsize=2, elinewidth=0.8
                )
                panel.errorbar(x, y, bars, label=f"{problem}, {sde}", **style)
        for panel, moment in zip(panels, Errors._fields, strict=True):
            panel.axhline(0, color=INK, linewidth=0.8)
            panel.set_title(f"error of the {moment}", fontsize=10, color=INK)
            panel.set(xscale="log", xlabel="particles")
            panel.set_xticks(numbers, [str(number) for number in numbers])
            panel.minorticks_off()
        _legend(panels[1])
    return figure


def of_steps(records: list[Record]) -> plt.Figure:
    figure, [axes] = _panels(1)
    lengths = (25, 50, 100, 200, 400, 800, 1600)
    rows = [record for record in records if record.row._replace(steps=0, sde="") == Row(GUIDED, "", "tmpd", steps=0)]
    sdes = dict.fromkeys(record.row.sde for record in rows)
    for colour, sde, beside in zip(html_page.COLOURS, sdes, (0.93, 1.0, 1.07), strict=False):
        known = [_bias(Row(GUIDED, sde, "tmpd", PREDICTOR, n)) for n in lengths]
        points = [record for record in rows if record.row.sde == sde]
        for panel, moment in zip(axes, Errors._fields, strict=True):
            panel.plot(lengths, [getattr(bias, moment) for bias in known], color=colour, linewidth=1.2, label=sde)
            x = [record.row.steps for record in points]
            y = [getattr(record.error, moment) for record in points]
            bars = [2 * getattr(record.standard_error, moment) for record in points]
            style = dict(color=colour, linestyle="", marker="o", markersize=4, capsize=2, elinewidth=0.8)
            panel.errorbar(np.array(x) * beside, y, bars, **style)
    for panel, moment in zip(axes, Errors._fields, strict=True):
        panel.set_title(f"error of the {moment}", fontsize=10, color=INK)
        panel.set(xscale="log", yscale="log", xlabel="steps N", ylim=(1e-4, 1))
        panel.set_xticks(lengths, [str(n) for n in lengths])
        panel.minorticks_off()
    _legend(axes[1])
    return figure


def _bias(row: Row) -> Errors:
    exact = exact_law(row)
    return difference(known_law(row), exact, exact)


def _panels(rows: int) -> tuple[plt.Figure, np.ndarray]:
    """A figure of `rows` rows of two panels."""
    figure, axes = plt.subplots(rows, 2, figsize=(11.5, 3.4 * rows), layout="constrained", squeeze=False)
    for panel in axes.ravel():
        panel.grid(color=html_page.LINE, linewidth=0.6)
        panel.set_axisbelow(True)
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(colors=INK, labelsize=9)
    return figure, axes


def _legend(panel: plt.Axes) -> None:
    if panel.get_legend_handles_labels()[0]:
        panel.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False, fontsize=9, labelcolor=INK)


ABOUT = (
    "The scores are exact, so every error is that of the method and of the sampler. The error of the mean is the "
    "distance from the mean of the exact posterior, divided by the root of the trace of its covariance. The error of "
    "the covariance is the Frobenius distance, divided by the norm. The columns called known have the same errors of "
    "the sampler's exact law, which a recursion over its steps gives without samples; for particles it is the limit "
    "of infinitely many. A row misses if it is further than {within:g} standard errors from its known law. The "
    "largest number of particles misses if it is further than {finite:g}, and as many standard errors, from its "
    "limit. Distribution is the error of the characteristic function; after ± stands the same error of exact samples. "
    "The published step 1 of dps is for some 10^5 numbers; here it is {steps}."
)
SCATTER = (
    "Each panel shows samples of the mixture given two pixels, by one method on {sde} in {steps} steps. The contours "
    "are those of the exact posterior at 2, 10, 30, 60 and 90 % of its highest density."
)
