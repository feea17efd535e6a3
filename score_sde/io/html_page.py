"""Self-contained HTML pages of one look: pictures and curves inside, nothing loaded from elsewhere, nothing unescaped.

A page is a list of elements, which `element` makes from templates. A template escapes whatever is no element. Every
page follows the reader's light or dark scheme, charts too: their colours are variables of `STYLE`.
"""

import base64
import functools
import hashlib
import io
import itertools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup as Element

from score_sde import images
from score_sde.array_types import UInt8
from score_sde.config.arguments import check_arguments
from score_sde.errors import UsageError
from score_sde.io import atomic_files

COLOURS = ["#0b559f", "#c2410c", "#15803d", "#7e22ce", "#b91c1c", "#0f766e", "#a16207", "#444444"]
DARK_COLOURS = ["#74b3f5", "#ff9d66", "#63d18b", "#cb9cf7", "#ff8a8a", "#55d3c6", "#e2bd4e", "#b9bec6"]
INK, LINE, SOFT, SHEET = "#1c1c1c", "#e4e4e4", "#999999", "#ffffff"  # text, grid, what stands back, page
LEGEND = 16  # curves at most; more cannot be told apart
TICKS = 8  # places on a logarithmic axis that are named one by one
DASHES = ["-", "--", ":"]  # for the first curve in each colour, the second, the third
CHART = (5.2, 3.3)  # inches of 96 pixels: two or three in a row of a page, and legible on a phone
BROAD = 7.5  # inches from which a chart keeps its size on a phone, where it can be moved sideways
WIDE = 3  # times as wide as high: a picture that takes the whole width of a page
EVEN = 4  # screen pixels an image's pixel from which on these need no smoothing to look equally large
COLUMNS = 10  # of a table at most, before it is set in smaller letters
LONGEST_WORD = 24  # characters of a table's words that are not broken
Inches = Annotated[float, "[1, 100]"]
Curve = tuple[Sequence[float], Sequence[float], Sequence[float] | None]  # x, y, standard errors if known

template = functools.cache(Environment(autoescape=True, undefined=StrictUndefined).from_string)


def element(source: str, **values: Any) -> Element:
    """The element that a Jinja template makes of values, which are escaped unless they are elements themselves."""
    return Element(template(source).render(values))


@check_arguments
def picture(sheet: UInt8[np.ndarray, "h w 3"], alt: str, magnify: Annotated[int, "[1, 1024]"] = 4) -> Element:
    """An image element of uint8 (H, W, 3).

    alt: the sentence for who does not see it. magnify: pixels of the file that each pixel of the sheet is wide.
    """
    if not sheet.size:
        raise UsageError(f"A picture of shape {sheet.shape} has no pixels.")
    buffer = io.BytesIO()
    images.write_png(buffer, sheet, magnify)
    height, width = (magnify * side for side in sheet.shape[:2])
    data = base64.b64encode(buffer.getvalue()).decode()
    styles = ["even"] * (magnify >= EVEN) + ["wide"] * (width > WIDE * height)
    return element(PICTURE, data=data, alt=alt, width=width, height=height, styles=" ".join(styles))


@check_arguments
def figure(caption: Element | str, shown: Element | str) -> Element:
    """An element with its caption beneath."""
    return element("<figure>{{ shown }}<figcaption>{{ caption }}</figcaption></figure>", shown=shown, caption=caption)


@check_arguments
def heading(text: Element | str, level: Literal[1, 2, 3, 4, 5, 6] = 2) -> Element:
    """A heading of a part (2), or of a piece of one (3)."""
    return element("<h{{ level }}>{{ text }}</h{{ level }}>", text=text, level=level)


@check_arguments
def division(style: str, *elements: Element | str) -> Element:
    """Elements laid out by a class of `STYLE`: `grids` beside one another, `pair` as two large ones, `small`."""
    source = '<div class="{{ style }}">{% for each in elements %}{{ each }}{% endfor %}</div>'
    return element(source, style=style, elements=elements)


@check_arguments
def folded(summary: Element | str, *elements: Element | str) -> Element:
    """Elements that the reader unfolds: configs, versions, commands, and whatever is looked up rather than read."""
    source = "<details><summary>{{ summary }}</summary>{% for each in elements %}{{ each }}{% endfor %}</details>"
    return element(source, summary=summary, elements=elements)


@check_arguments
def chart(
    curves: Mapping[str, Curve],
    x_label: str,
    y_label: str,
    *,
    log: bool = False,
    log_x: bool = False,
    size: tuple[Inches, Inches] = CHART,
) -> Element:
    """An SVG element of named curves, with bars of two standard errors where these are known.

    A curve without points is not drawn; the others keep their colours. size: in inches of 96 pixels. Raises
    `UsageError` for curves that are not as many numbers x as y and, if known, errors.
    """
    for label, curve in curves.items():
        _check_curve(str(label), curve)
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    drawing, axes = plt.subplots(figsize=size, layout="constrained")
    styles = itertools.cycle(itertools.product(DASHES, COLOURS))
    for (label, (x, y, errors)), (dash, colour) in zip(curves.items(), styles, strict=False):
        if not len(x):
            continue
        style = dict(color=colour, linestyle=dash, linewidth=1.4, marker="o" if len(x) < 40 else None, markersize=4)
        bars = None if errors is None else 2 * np.asarray(errors)
        axes.errorbar(x, y, bars, label=_as_it_is(label), capsize=3, **style)
    scales = {"xscale": "log" if log_x else "linear", "yscale": "log" if log else "linear"}
    axes.set(xlabel=_as_it_is(x_label), ylabel=_as_it_is(y_label), **scales)
    places = sorted({float(each) for x, _, _ in curves.values() for each in x})
    if not log_x:
        axes.ticklabel_format(axis="x", scilimits=(-4, 5))  # longer labels would overlap
    elif 0 < len(places) <= TICKS:
        axes.set_xticks(places, [f"{place:g}" for place in places])
        axes.set_xticks([], minor=True)
    if 1 < len(curves) <= LEGEND and axes.containers:
        axes.legend(frameon=False, fontsize="small" if len(curves) > 4 else None)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color=LINE, linewidth=0.6)
    axes.set_axisbelow(True)
    return svg(drawing, f"Chart: {y_label} against {x_label}; curves: {', '.join(curves)}")


def _check_curve(label: str, curve: Any) -> None:
    """Raises `UsageError` unless a curve is x, y and the errors of y, or None, of one length."""
    try:
        x, y, errors = (None if each is None else np.asarray(each, np.float64) for each in curve)
        fits = all(each is None or each.shape == (len(x),) for each in (x, y, errors)) and y is not None
    except (TypeError, ValueError):
        fits = False
    if not fits:
        raise UsageError(f"The curve {label} must be (x, y, standard errors or None), each as many numbers.")


def svg(drawing: Any, alt: str) -> Element:
    """A matplotlib figure, which escapes its text itself, as an SVG element; the same figure gives the same bytes.

    Its background is the page's, and colours of this module and black follow the page's scheme. alt: as for `picture`.
    """
    import matplotlib
    from matplotlib import pyplot as plt

    buffer, broad = io.StringIO(), drawing.get_figwidth() > BROAD
    without = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with matplotlib.rc_context({"svg.hashsalt": "score_sde"}):
        drawing.savefig(buffer, format="svg", metadata=without, transparent=True)
    plt.close(drawing)
    text = buffer.getvalue()
    text = THEMED.sub(lambda match: f"{match[1]}var(--{OF_COLOURS[match[2]]}, {match[2]})", text[text.index("<svg") :])
    start = element(
        '<svg role="img" aria-label="{{ alt }}"{% if broad %} class="broad"{% endif %}', alt=alt, broad=broad
    )
    svg_element = start + Element(text.removeprefix("<svg"))
    return element('<div class="pan">{{ svg }}</div>', svg=svg_element) if broad else svg_element


def _as_it_is(label: str) -> str:
    """The label, escaped: matplotlib takes a dollar for a formula, and hides names with an underscore first."""
    return (" " if label.startswith("_") else "") + label.replace("$", r"\$")


@check_arguments
def table(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    marks: Mapping[tuple[int, int | None], str] | None = None,
    order: tuple[int, str] | None = None,
    sortable: bool = False,
) -> Element:
    """A table that wraps its text in a window, and on a phone moves sideways beneath its first column.

    marks: a class of `STYLE`, `best` or `miss`, of the cell (row, column) or of the row (row, None). order: the column
    that the rows are sorted by, and "ascending" or "descending". sortable: whether a click on a heading sorts the rows.

        from score_sde.io.html_page import table

        text = table(["run", "loss"], [["a", "0.21"], ["b", "0.25"]], marks={(0, None): "best"}, order=(1, "ascending"))
    """

    if any(len(row) != len(head) for row in rows):
        raise UsageError(f"Each row of a table needs a cell for each of its {len(head)} columns.")

    def attributes(row: int, column: int | None, cell: str = "") -> Element:
        classes = [mark] if (mark := (marks or {}).get((row, column))) else []
        if not isinstance(cell, Element) and max(map(len, cell.split()), default=0) > LONGEST_WORD:
            classes.append("long")
        return element(' class="{{ names }}"', names=" ".join(classes)) if classes else Element("")

    column, direction = order or (None, "")
    return element(
        TABLE,
        head=head,
        rows=rows,
        attributes=attributes,
        column=column,
        direction=direction,
        sortable=sortable,
        most=COLUMNS,
    )


@check_arguments
def abbreviated(short: Element | str, whole: Element | str) -> Element:
    """A short text that shows the whole one under the mouse."""
    return element('<abbr title="{{ whole }}">{{ short }}</abbr>', short=short, whole=whole)


@check_arguments
def note(text: Element | str) -> Element:
    """A paragraph about what stands above or beneath it."""
    return element('<p class="note">{{ text }}</p>', text=text)


@check_arguments
def warning(text: Element | str) -> Element:
    """A paragraph that nobody should miss."""
    return element('<p class="warning">{{ text }}</p>', text=text)


@check_arguments
def listing(values: Mapping[str, object]) -> Element:
    """A list with a line for each value."""
    return verbatim([f"{key} = {value}" for key, value in values.items()])


@check_arguments
def verbatim(lines: Sequence[object]) -> Element:
    """Lines as they are: values, or commands to copy."""
    return element("<pre>{{ text }}</pre>", text="\n".join(map(str, lines)))


@check_arguments
def write(path: Path, title: str, body: Sequence[str], flag: str = "--workdir") -> None:
    """Replaces the page as a whole. body: elements as above. flag: the flag, for messages, that chooses another path.

    The page forbids the browser every request and every script but `SORT`, which it has if a table is sortable. Raises
    `UsageError` if it cannot be written.
    """
    sortable = any(isinstance(each, Element) and SORTABLE in each for each in body)
    text = element(
        PAGE,
        title=title,
        style=Element(STYLE),
        body=body,
        script=Element(SORT) if sortable else "",
        digest=base64.b64encode(hashlib.sha256(SORT.encode()).digest()).decode(),
    )
    atomic_files.replace(path, lambda file: file.write(text.encode(errors="backslashreplace")), flag)


OF_COLOURS = {colour: f"curve-{i}" for i, colour in enumerate(COLOURS)}
OF_COLOURS |= {INK: "ink", LINE: "line", SOFT: "soft", SHEET: "sheet", "#000000": "ink"}
THEMED = re.compile(rf"((?:fill|stroke): )({'|'.join(OF_COLOURS)})\b")
SORTABLE = '<table class="sortable">'

PICTURE = """\
<img src="data:image/png;base64,{{ data }}" alt="{{ alt }}" width="{{ width }}" height="{{ height }}"
{%- if styles %} class="{{ styles }}"{% endif %}>"""
TABLE = """\
<div class="pan{% if head|length > most %} dense{% endif %}"><table
{%- if sortable %} class="sortable"{% endif %}><thead><tr>
{%- for cell in head %}<th{% if loop.index0 == column %} aria-sort="{{ direction }}"{% endif %}>{{ cell }}</th>
{%- endfor %}</tr></thead><tbody>
{%- for row in rows %}{% set number = loop.index0 %}<tr{{ attributes(number, none) }}>
{%- for cell in row %}<td{{ attributes(number, loop.index0, cell) }}>{{ cell }}</td>{% endfor %}</tr>
{%- endfor %}</tbody></table></div>"""
PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{{ title }}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{{ digest }}'">
<style>{{ style }}</style>
</head>
<body>
<h1>{{ title }}</h1>
{% for each in body %}{{ each }}
{% endfor %}
{%- if script %}<script type="module">{{ script }}</script>
{% endif %}</body>
</html>
"""
# Without it a table stays as it was written. Cells without a number, as "not run", come last in either direction.
SORT = """
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  const sort = (head, column) => {
    const sign = head.ariaSort === "ascending" ? -1 : 1;
    heads.forEach((each) => each.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
    const text = (row) => row.cells[column].textContent.trim();
    const number = (row) => parseFloat(text(row).replaceAll(",", ""));
    const words = [...body.rows].every((row) => isNaN(number(row)));
    const compare = (a, b) => {
      if (words) return sign * text(a).localeCompare(text(b));
      if (isNaN(number(a)) || isNaN(number(b))) return isNaN(number(a)) - isNaN(number(b));
      return sign * (number(a) - number(b));
    };
    body.append(...[...body.rows].sort(compare));
  };
  heads.forEach((head, column) => {
    head.tabIndex = 0;
    head.title = "Sort by this column";
    head.addEventListener("click", () => sort(head, column));
    head.addEventListener("keydown", (event) => { if (event.key === "Enter") sort(head, column); });
  });
  table.classList.add("ready");
}
"""


def _variables(dark: bool) -> str:
    """The colours of a scheme as variables of CSS."""
    curves = dict(zip(OF_COLOURS.values(), DARK_COLOURS if dark else COLOURS, strict=False))
    others = DARK if dark else LIGHT
    return " ".join(f"--{name}: {colour};" for name, colour in (curves | others).items())


LIGHT = {"sheet": SHEET, "ink": INK, "dim": "#555b64", "soft": SOFT, "line": LINE}
LIGHT |= {"panel": "#f5f6f8", "best": "#e2f3e6", "miss": "#fde5e5", "warn": "#fff1d6"}
DARK = {"sheet": "#14171b", "ink": "#e8e6e2", "dim": "#aab0ba", "soft": "#7d848f", "line": "#343a43"}
DARK |= {"panel": "#1d2127", "best": "#1b3d28", "miss": "#4c2226", "warn": "#453513"}
STYLE = (
    f"""
  :root {{ color-scheme: light dark; {_variables(dark=False)} }}
  @media (prefers-color-scheme: dark) {{ :root {{ {_variables(dark=True)} }} }}
"""
    + """\
  * { box-sizing: border-box; }
  body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--sheet);
    max-width: 84rem; margin: 0 auto; padding: 1.5rem 1.5rem 4rem; overflow-wrap: break-word; }
  h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .6rem; }
  h2 { font-size: 1.2rem; margin: 2.2rem 0 .6rem; padding-top: 1rem; border-top: 1px solid var(--line); }
  h1 + h2 { border-top: 0; margin-top: 0; padding-top: 0; }
  h3 { font-size: 1rem; margin: 1.4rem 0 .4rem; }
  p { max-width: 60rem; margin: .6rem 0; }
  .note { color: var(--dim); } .figure { font-size: 1.7rem; font-weight: 600; }
  .warning { background: var(--warn); padding: .6rem .9rem; border-radius: .4rem; }
  figure { margin: 0; min-width: 0; } figcaption { color: var(--dim); font-size: .9rem; padding-top: .3rem; }
  .grids, .pair, .small { display: grid; gap: 1.4rem; margin: .8rem 0; }
  .grids { grid-template-columns: repeat(auto-fit, minmax(min(100%, 20rem), 1fr)); }
  .pair { grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); }
  .small { grid-template-columns: repeat(auto-fill, minmax(min(100%, 15rem), 1fr)); }
  figure, .pair > * { max-width: 36rem; } figure:has(.broad, .wide) { max-width: none; }
  figure img, figure svg { width: 100%; }
  img, svg { max-width: 100%; height: auto; } img { display: block; border-radius: .3rem; }
  img.even { image-rendering: pixelated; }
  svg { fill: var(--ink); }
  .pan { overflow-x: auto; margin: .6rem 0; }
  table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .92rem; line-height: 1.35; }
  th, td { text-align: left; vertical-align: top; padding: .35rem .9rem .35rem 0; }
  th, td { border-bottom: 1px solid var(--line); }
  th { vertical-align: bottom; font-weight: 600; border-bottom-color: var(--soft); }
  .dense table { font-size: .8rem; } .dense th, .dense td { padding-right: .6rem; }
  th:first-child, td:first-child { padding-left: .4rem; }
  td.long { overflow-wrap: anywhere; min-width: 9rem; }
  .best { background: var(--best); } td.best { font-weight: 600; } .miss { background: var(--miss); }
  tr.best > td:first-child::before, td.best::before { content: "\\2605\\00a0"; }
  th[aria-sort] { border-bottom: 2px solid var(--curve-0); }
  th[aria-sort=ascending]::after { content: "\\00a0\\2191"; }
  th[aria-sort=descending]::after { content: "\\00a0\\2193"; }
  table.ready th { cursor: pointer; } table.ready th:hover { color: var(--curve-0); }
  abbr { text-decoration: underline dotted var(--soft); }
  pre { background: var(--panel); padding: .9rem; border-radius: .4rem; font-size: .8rem; line-height: 1.45;
    white-space: pre-wrap; overflow-wrap: anywhere; }
  details { border: 1px solid var(--line); border-radius: .4rem; margin: .7rem 0; padding: 0 .9rem; }
  details[open] { padding-bottom: .4rem; }
  summary { cursor: pointer; font-weight: 600; padding: .55rem 0; }
  @media (max-width: 40rem) {
    body { padding: 1rem .9rem 3rem; } h1 { font-size: 1.35rem; }
    table { font-size: .85rem; }
    th:first-child, td:first-child { position: sticky; left: 0; background: var(--sheet); }
    tr.best > td:first-child { background: var(--best); } tr.miss > td:first-child { background: var(--miss); }
    svg.broad { max-width: none; } figure:has(.wide) { overflow-x: auto; }
    figure img.wide { width: 44rem; max-width: none; }
  }
"""
)
