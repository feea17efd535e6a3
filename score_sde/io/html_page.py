"""Self-contained HTML pages: pictures and curves inside, nothing loaded from elsewhere, nothing shown unescaped."""

import base64
import html
import io
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from score_sde import images
from score_sde.io import atomic_files

COLOURS = ["#0b559f", "#c2410c", "#15803d", "#7e22ce", "#b91c1c", "#0f766e", "#a16207", "#444444"]
LEGEND = 16  # curves; more cannot be told apart
DASHES = ["-", "--", ":"]  # for the first curve in each colour, the second, the third
Curve = tuple[Sequence[float], Sequence[float], Sequence[float] | None]  # x, y, standard errors if known


def picture(sheet: np.ndarray, magnify: int = 4) -> str:
    """An image element of uint8 (H, W, 3)."""
    buffer = io.BytesIO()
    images.write_png(buffer, sheet, magnify)
    return f'<img src="data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}">'


def figure(caption: str, element: str) -> str:
    return f"<figure>{element}<figcaption>{html.escape(caption)}</figcaption></figure>"


def chart(
    curves: Mapping[str, Curve],
    x_label: str,
    y_label: str,
    *,
    log: bool = False,
    log_x: bool = False,
    size: tuple[float, float] = (7.5, 3.2),
) -> str:
    """An SVG element of named curves, with bars of two standard errors where these are known.

    A curve without points is not drawn; the others keep their colours. size: in inches of 96 pixels.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    drawing, axes = plt.subplots(figsize=size, layout="constrained")
    styles = itertools.cycle(itertools.product(DASHES, COLOURS))
    for (label, (x, y, errors)), (dash, colour) in zip(curves.items(), styles, strict=False):
        if not len(x):
            continue
        style = dict(color=colour, linestyle=dash, linewidth=1.2, marker="o" if len(x) < 40 else None, markersize=4)
        bars = None if errors is None else 2 * np.asarray(errors)
        axes.errorbar(x, y, bars, label=_as_it_is(label), capsize=3, **style)
    scales = {"xscale": "log" if log_x else "linear", "yscale": "log" if log else "linear"}
    axes.set(xlabel=_as_it_is(x_label), ylabel=_as_it_is(y_label), **scales)
    if not log_x:
        axes.ticklabel_format(axis="x", scilimits=(-4, 5))  # longer labels would overlap
    if 1 < len(curves) <= LEGEND and axes.containers:
        axes.legend(frameon=False, fontsize="small" if len(curves) > 4 else None)
    axes.spines[["top", "right"]].set_visible(False)
    return svg(drawing)


def svg(drawing: Any) -> str:
    """A matplotlib figure as an SVG element; the same figure gives the same bytes."""
    import matplotlib
    from matplotlib import pyplot as plt

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "score_sde"}):
        drawing.savefig(buffer, format="svg", metadata={"Date": None})
    plt.close(drawing)
    return buffer.getvalue()[buffer.getvalue().index("<svg") :]


def _as_it_is(label: str) -> str:
    """The label, escaped: matplotlib takes a dollar for a formula, and hides names with an underscore first."""
    return (" " if label.startswith("_") else "") + label.replace("$", r"\$")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    return f"<table>{line(head, 'th')}{''.join(line(row, 'td') for row in rows)}</table>"


def note(text: str) -> str:
    return f'<p class="note">{html.escape(text)}</p>'


def listing(values: Mapping[str, object]) -> str:
    """A list with a line for each value."""
    return "<pre>" + html.escape("\n".join(f"{key} = {value}" for key, value in values.items())) + "</pre>"


def write(path: Path, title: str, body: str, flag: str = "--workdir") -> None:
    """Replaces the page as a whole. body: elements as above. flag: the flag, for messages, that chooses another path.

    Raises `UsageError` if it cannot.
    """
    title = html.escape(title)
    text = (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>{title}</title>\n'
        f"<style>{STYLE}</style>\n<h1>{title}</h1>\n{body}\n</html>\n"
    )
    atomic_files.replace(path, lambda file: file.write(text.encode(errors="backslashreplace")), flag)


STYLE = """
  body { font: 16px/1.5 system-ui, sans-serif; color: #1c1c1c; max-width: 84rem; margin: 2rem auto; padding: 0 1.5rem; }
  h1 { font-size: 1.6rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
  figure { margin: 0; } figcaption { color: #555; padding-top: .3rem; }
  .grids { display: flex; flex-wrap: wrap; gap: 1.2rem; } .grids figure { flex: 1 1 16rem; max-width: 34rem; }
  .grids img { width: 100%; } img { image-rendering: pixelated; max-width: 100%; }
  svg { max-width: 100%; height: auto; }
  .charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(24rem, 1fr)); gap: 1.2rem; }
  table { border-collapse: collapse; }
  .wide { overflow-x: auto; font-size: .85rem; } .wide td, .wide th { white-space: nowrap; }
  th, td { text-align: left; padding: .35rem 1rem .35rem 0; border-bottom: 1px solid #ddd; }
  .figure { font-size: 1.7rem; font-weight: 600; } .note { color: #555; max-width: 60rem; }
  pre { background: #f5f5f5; padding: 1rem; overflow-x: auto; font-size: .8rem; }
"""
