"""Self-contained HTML pages: pictures and curves inside, nothing loaded from elsewhere, nothing shown unescaped."""

import base64
import html
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from score_sde import files, images

COLOURS = ["#0b559f", "#c2410c", "#15803d", "#7e22ce", "#b91c1c", "#0f766e", "#a16207", "#444444"]
LEGEND = 12  # curves; of more, none is told apart by its colour
Curve = tuple[Sequence[float], Sequence[float], Sequence[float] | None]  # x, y, standard errors if known


def picture(sheet: np.ndarray, magnify: int = 4) -> str:
    """uint8 (H, W, 3) as an image element."""
    buffer = io.BytesIO()
    images.write_png(buffer, sheet, magnify)
    return f'<img src="data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}">'


def figure(caption: str, element: str) -> str:
    return f"<figure>{element}<figcaption>{html.escape(caption)}</figcaption></figure>"


def chart(curves: Mapping[str, Curve], x_label: str, y_label: str, *, log: bool = False, log_x: bool = False) -> str:
    """Curves by their names as an SVG element, with bars of two standard errors where these are known."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    drawing, axes = plt.subplots(figsize=(7.5, 3.2), layout="constrained")
    for (label, (x, y, errors)), colour in zip(curves.items(), COLOURS * len(curves), strict=False):
        marker = "o" if len(x) < 40 else None
        bars = None if errors is None else 2 * np.asarray(errors)
        axes.errorbar(x, y, bars, label=label, color=colour, linewidth=1.2, marker=marker, markersize=4, capsize=3)
    scales = {"xscale": "log" if log_x else "linear", "yscale": "log" if log else "linear"}
    axes.set(xlabel=x_label, ylabel=y_label, **scales)
    if 1 < len(curves) <= LEGEND:
        axes.legend(frameon=False, fontsize="small" if len(curves) > 4 else None)
    axes.spines[["top", "right"]].set_visible(False)
    return svg(drawing)


def svg(drawing: Any) -> str:
    """A figure of matplotlib as an element; the same one is the same bytes."""
    import matplotlib
    from matplotlib import pyplot as plt

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "score_sde"}):
        drawing.savefig(buffer, format="svg", metadata={"Date": None})
    plt.close(drawing)
    return buffer.getvalue()[buffer.getvalue().index("<svg") :]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    return f"<table>{line(head, 'th')}{''.join(line(row, 'td') for row in rows)}</table>"


def note(text: str) -> str:
    return f'<p class="note">{html.escape(text)}</p>'


def listing(values: Mapping[str, object]) -> str:
    """A line for each."""
    return "<pre>" + html.escape("\n".join(f"{key} = {value}" for key, value in values.items())) + "</pre>"


def write(path: Path, title: str, body: str) -> None:
    """Replaces the page whole. body: elements, such as those above. Raises `UsageError` if it cannot."""
    title = html.escape(title)
    text = (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>{title}</title>\n'
        f"<style>{STYLE}</style>\n<h1>{title}</h1>\n{body}\n</html>\n"
    )
    files.replace(path, lambda file: file.write(text.encode()))


STYLE = """
  body { font: 16px/1.5 system-ui, sans-serif; color: #1c1c1c; max-width: 84rem; margin: 2rem auto; padding: 0 1.5rem; }
  h1 { font-size: 1.6rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
  figure { margin: 0; } figcaption { color: #555; padding-top: .3rem; }
  .grids { display: flex; flex-wrap: wrap; gap: 1.2rem; } .grids figure { flex: 1 1 16rem; max-width: 34rem; }
  .grids img { width: 100%; } img { image-rendering: pixelated; max-width: 100%; }
  svg { max-width: 100%; height: auto; }
  table { border-collapse: collapse; }
  th, td { text-align: left; padding: .35rem 1rem .35rem 0; border-bottom: 1px solid #ddd; }
  .figure { font-size: 1.7rem; font-weight: 600; } .note { color: #555; max-width: 60rem; }
  pre { background: #f5f5f5; padding: 1rem; overflow-x: auto; font-size: .8rem; }
"""
