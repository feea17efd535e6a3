"""The drawing of the architecture, an SVG of boxes and arrows with text that can be searched."""

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

WIDTH, HEIGHT = 960, 500
FAMILY = "-apple-system, 'Segoe UI', 'Noto Sans', Helvetica, Arial, sans-serif"
INK, GREY, LINE, LANE = "#1f2328", "#59636e", "#818b98", "#f6f8fa"
BLUE, ORANGE, GREEN, PURPLE = (
    ("#0072B2", "#e8f3fa"),
    ("#D55E00", "#fdf0e8"),
    ("#009E73", "#e6f6f1"),
    ("#AA4499", "#f8ecf6"),
)


class Box(NamedTuple):
    """A box: its left upper corner, its size, its title, lines below it, and its colours (border, inside)."""

    x: int
    y: int
    width: int
    height: int
    title: str
    lines: Sequence[str]
    colours: tuple[str, str]

    @property
    def left(self) -> tuple[int, int]:
        return self.x, self.y + self.height // 2

    @property
    def right(self) -> tuple[int, int]:
        return self.x + self.width, self.y + self.height // 2

    @property
    def top(self) -> tuple[int, int]:
        return self.x + self.width // 2, self.y

    @property
    def bottom(self) -> tuple[int, int]:
        return self.x + self.width // 2, self.y + self.height


LANES = (
    (26, 24, 908, 128, "A run"),
    (26, 168, 908, 128, "Training"),
    (26, 312, 908, 164, "Sampling and evaluation"),
)
BOXES = {
    "config": Box(44, 56, 190, 80, "Config", ["a few lines; every key", "has a default and a range"], BLUE),
    "objective": Box(290, 56, 330, 80, "Objective", ["process, parameterization,", "law of times, weight"], BLUE),
    "network": Box(676, 56, 240, 80, "Network", ["DDPM++, NCSN++, or your own"], BLUE),
    "data": Box(44, 200, 190, 80, "Data", ["data sets by name, or", "a folder of pictures"], ORANGE),
    "loss": Box(290, 200, 150, 80, "Loss", ["one expression", "for all objectives"], ORANGE),
    "state": Box(484, 200, 190, 80, "Training state", ["weights, their averages,", "optimizer, step"], ORANGE),
    "checkpoints": Box(722, 200, 194, 80, "Checkpoints", ["a run goes on from them", "to the same bits"], ORANGE),
    "prediction": Box(44, 358, 190, 80, "Prediction", ["of x₀ and of the noise ε", "in a noisy picture"], GREEN),
    "samplers": Box(290, 340, 190, 34, "Samplers", [], GREEN),
    "likelihoods": Box(290, 382, 190, 34, "Likelihoods", [], GREEN),
    "conditions": Box(290, 424, 190, 34, "Conditions", [], GREEN),
    "evaluation": Box(536, 358, 170, 80, "Evaluation", ["bits/dim, distances,", "with standard errors"], PURPLE),
    "report": Box(762, 358, 154, 80, "Report", ["one page; compare,", "sweep, tables"], PURPLE),
}


def architecture() -> str:
    """The drawing: a config makes objective and network, training makes checkpoints, and these predict."""
    of = BOXES
    middle = of["samplers"].x + of["samplers"].width
    under_network, over_config, between_lanes, beside_title = 160, 44, 304, 214
    arrows = [
        [of["config"].right, of["objective"].left],
        [of["config"].top, (of["config"].top[0], over_config), (of["network"].top[0], over_config), of["network"].top],
        [(of["loss"].top[0], of["objective"].bottom[1]), of["loss"].top],
        [of["network"].bottom, (of["network"].bottom[0], under_network), (410, under_network), (410, of["loss"].y)],
        [of["data"].right, of["loss"].left],
        [of["loss"].right, of["state"].left],
        [of["state"].right, of["checkpoints"].left],
        [
            of["checkpoints"].bottom,
            (of["checkpoints"].bottom[0], between_lanes),
            (beside_title, between_lanes),
            (beside_title, of["prediction"].y),
        ],
        *(_elbow(of["prediction"].right, of[name].left) for name in ("samplers", "likelihoods", "conditions")),
        *(
            _elbow((middle, of[name].right[1]), of["evaluation"].left)
            for name in ("samplers", "likelihoods", "conditions")
        ),
        [of["evaluation"].right, of["report"].left],
    ]
    body = [*(_lane(*lane) for lane in LANES), *map(_arrow, arrows), *map(_box, BOXES.values())]
    description = (
        "A config chooses objective and network. Training takes data through the loss to the training state and its "
        "checkpoints. A checkpoint's network predicts x0 and eps, which samplers, likelihoods and conditions take, and "
        "evaluation and reports follow from these."
    )
    return SVG.format(
        width=WIDTH, height=HEIGHT, family=FAMILY, ink=INK, grey=GREY, line=LINE, description=description,
        body="\n".join(body),
    )  # fmt: skip


def _elbow(start: tuple[int, int], end: tuple[int, int]) -> list[tuple[int, int]]:
    middle = (start[0] + end[0]) // 2
    return [start, (middle, start[1]), (middle, end[1]), end]


def _arrow(points: Sequence[tuple[int, int]]) -> str:
    return f'<polyline class="arrow" points="{" ".join(f"{x},{y}" for x, y in points)}"/>'


def _lane(x: int, y: int, width: int, height: int, title: str) -> str:
    return (
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="8" fill="{LANE}"/>\n'
        f'<text class="lane" x="{x + 18}" y="{y + 21}">{escape(title)}</text>'
    )


def _box(box: Box) -> str:
    border, inside = box.colours
    x, y = box.x + box.width // 2, box.y + box.height // 2 + 5 - 9 * len(box.lines)
    lines = [f'<text class="title" x="{x}" y="{y}">{escape(box.title)}</text>']
    lines += [
        f'<text class="line" x="{x}" y="{y + 19 + 17 * i}">{escape(line)}</text>' for i, line in enumerate(box.lines)
    ]
    place = f'x="{box.x}" y="{box.y}" width="{box.width}" height="{box.height}"'
    frame = f'<rect {place} rx="6" fill="{inside}" stroke="{border}"/>'
    return "\n".join([frame, *lines])


# The card is white in a dark page too, whose scheme a picture on a code host does not learn.
SVG = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">
<title>Architecture of score_sde</title>
<desc>{description}</desc>
<defs>
<marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">
<path d="M0,0 L8,4 L0,8 z" fill="{line}"/>
</marker>
</defs>
<style>
text {{ font-family: {family}; fill: {ink}; }}
.title {{ font-size: 15px; font-weight: 600; text-anchor: middle; }}
.line {{ font-size: 13px; fill: {grey}; text-anchor: middle; }}
.lane {{ font-size: 13px; font-weight: 600; fill: {grey}; }}
.arrow {{ fill: none; stroke: {line}; stroke-width: 1.6; marker-end: url(#head); }}
</style>
<rect x="1" y="1" width="958" height="498" rx="10" fill="#ffffff" stroke="#d1d9e0"/>
{body}
</svg>
"""
