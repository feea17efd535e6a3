"""Self-contained HTML pages: pictures and curves inside, nothing loaded from elsewhere, nothing shown unescaped.

A page is a list of elements, which `element` makes from templates. A template escapes whatever is no element.
"""

import base64
import functools
import io
import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup as Element

from score_sde import images
from score_sde.io import atomic_files

COLOURS = ["#0b559f", "#c2410c", "#15803d", "#7e22ce", "#b91c1c", "#0f766e", "#a16207", "#444444"]
LEGEND = 16  # curves at most; more cannot be told apart
DASHES = ["-", "--", ":"]  # for the first curve in each colour, the second, the third
Curve = tuple[Sequence[float], Sequence[float], Sequence[float] | None]  # x, y, standard errors if known

template = functools.cache(Environment(autoescape=True, undefined=StrictUndefined).from_string)


def element(source: str, **values: Any) -> Element:
    """The element that a Jinja template makes of values, which are escaped unless they are elements themselves."""
    return Element(template(source).render(values))


def picture(sheet: np.ndarray, magnify: int = 4) -> Element:
    """An image element of uint8 (H, W, 3)."""
    buffer = io.BytesIO()
    images.write_png(buffer, sheet, magnify)
    return element('<img src="data:image/png;base64,{{ data }}">', data=base64.b64encode(buffer.getvalue()).decode())


def figure(caption: str, shown: str) -> Element:
    return element("<figure>{{ shown }}<figcaption>{{ caption }}</figcaption></figure>", shown=shown, caption=caption)


def heading(text: str, level: int = 2) -> Element:
    return element("<h{{ level }}>{{ text }}</h{{ level }}>", text=text, level=level)


def division(style: str, *elements: str) -> Element:
    """Elements laid out by a class of `STYLE`: grids, charts or wide."""
    source = '<div class="{{ style }}">{% for each in elements %}{{ each }}{% endfor %}</div>'
    return element(source, style=style, elements=elements)


def chart(
    curves: Mapping[str, Curve],
    x_label: str,
    y_label: str,
    *,
    log: bool = False,
    log_x: bool = False,
    size: tuple[float, float] = (7.5, 3.2),
) -> Element:
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


def svg(drawing: Any) -> Element:
    """A matplotlib figure, which escapes its text itself, as an SVG element; the same figure gives the same bytes."""
    import matplotlib
    from matplotlib import pyplot as plt

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "score_sde"}):
        drawing.savefig(buffer, format="svg", metadata={"Date": None})
    plt.close(drawing)
    return Element(buffer.getvalue()[buffer.getvalue().index("<svg") :])


def _as_it_is(label: str) -> str:
    """The label, escaped: matplotlib takes a dollar for a formula, and hides names with an underscore first."""
    return (" " if label.startswith("_") else "") + label.replace("$", r"\$")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Element:
    return element(TABLE, head=head, rows=rows)


def note(text: str) -> Element:
    return element('<p class="note">{{ text }}</p>', text=text)


def listing(values: Mapping[str, object]) -> Element:
    """A list with a line for each value."""
    return verbatim(f"{key} = {value}" for key, value in values.items())


def verbatim(lines: Iterable[str]) -> Element:
    return element("<pre>{{ text }}</pre>", text="\n".join(lines))


def write(path: Path, title: str, body: Sequence[str], flag: str = "--workdir") -> None:
    """Replaces the page as a whole. body: elements as above. flag: the flag, for messages, that chooses another path.

    Raises `UsageError` if it cannot.
    """
    text = element(PAGE, title=title, style=Element(STYLE), body=body)
    atomic_files.replace(path, lambda file: file.write(text.encode(errors="backslashreplace")), flag)


TABLE = """\
<table><tr>{% for cell in head %}<th>{{ cell }}</th>{% endfor %}</tr>
{%- for row in rows %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>{% endfor %}</table>"""
PAGE = """\
<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{{ title }}</title>
<style>{{ style }}</style>
<h1>{{ title }}</h1>
{% for each in body %}{{ each }}
{% endfor %}</html>
"""
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
