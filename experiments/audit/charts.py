"""A chart of figures with their intervals, which need not be symmetric, for each of several audits."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from score_sde.io import html_page

APART = 0.06  # of the distance of two names, by which audits stand beside one another


class Points(NamedTuple):
    """Places, which are numbers or names, and the figures there, each with "value", "low" and "high"."""

    at: Sequence[float] | Sequence[str]
    figures: Sequence[Mapping[str, float]]


def chart(
    curves: Mapping[str, Points],
    x_label: str,
    y_label: str,
    *,
    level: float | None = None,
    log: bool = False,
    log_x: bool = False,
) -> html_page.Element:
    """An SVG element of the curves, with the bars of their intervals. level: of a horizontal line, as of chance."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    drawing, axes = plt.subplots(figsize=html_page.CHART, layout="constrained")
    if level is not None:
        axes.axhline(level, color=html_page.SOFT, linewidth=1)
    for i, (label, (at, figures)) in enumerate(curves.items()):
        names = bool(len(at)) and isinstance(at[0], str)
        value, low, high = (np.array([each[end] for each in figures]) for end in ("value", "low", "high"))
        x = np.arange(len(at)) + APART * (i - (len(curves) - 1) / 2) if names else np.asarray(at, float)
        bars = np.maximum([value - low, high - value], 0)
        style = dict(color=html_page.COLOURS[i % len(html_page.COLOURS)], marker="o", markersize=4, capsize=3)
        axes.errorbar(x, value, bars, label=label, linestyle="" if names else "-", linewidth=1.4, **style)
        if names:
            axes.set_xticks(range(len(at)), at)
    axes.set(xlabel=x_label, ylabel=y_label)
    axes.set_xscale("log" if log_x else "linear")
    axes.set_yscale("log" if log else "linear")
    if len(curves) > 1:
        axes.legend(frameon=False, fontsize="small")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color=html_page.LINE, linewidth=0.6)
    axes.set_axisbelow(True)
    return html_page.svg(drawing, f"Chart: {y_label} against {x_label}; {', '.join(curves)}")
