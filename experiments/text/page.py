"""The page of the experiment: captions, pictures, and what the decoder read, then figures by scale and by update."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from score_sde.experiments.text import judge, prompts, report
from score_sde.experiments.text.draw import PARTS, SCALES
from score_sde.experiments.text.measure import NEIGHBOURS, Drawn
from score_sde.experiments.text.pictures import shown
from score_sde.experiments.text.prompts import HALVES, OF_HALVES
from score_sde.experiments.text.report import FIGURES, TITLES, Result

from score_sde import images
from score_sde.array_types import Pixels
from score_sde.data.scene_captions import Scene, asked, lies
from score_sde.data.scene_decoder import decode
from score_sde.io import atomic_files, html_page, workdir
from score_sde.io.html_page import Element

CAPTIONS = 8  # of each half in the table of pictures by scale, the first ones
PAIRS = 10  # swaps of each pair of captions
ROW = 10  # pictures with and without a negative caption
ORDER = ("size", "colour", "shape", "place")  # of words
UNBROKEN = "\N{NO-BREAK SPACE}"
ORDINALS = ("first", "second", "third")

INTRODUCTION = (
    "Small diffusion models were trained to draw what a caption says. The pictures on this page are samples, and "
    "nothing was selected: captions and noises are the first ones of their lists, or evenly spaced in them."
)
EXACT = (
    "A scene can be read from its pixels exactly, without a network: its objects, and their shape, colour, size and "
    "place. Beneath each picture stands what was read. ✓ marks a word that the caption asks for and the picture has, "
    "✗ one that it asks for and the picture has otherwise. Words without a mark were not asked for. “No scene” means "
    "that no arrangement of objects is near the picture."
)
SCALE = (
    "The scale of guidance says how far samples are moved towards their caption: 0 draws without the caption, 1 from "
    "the distribution that was learned, more than 1 towards pictures that fit the caption better, with less variety."
)
SWAP = (
    "Each column is one noise under two captions, which name shape and colour alone. So place and size are the "
    "noise's choice. If the two pictures share them more often than by chance, a changed word leaves the rest in "
    "place."
)
BETWEEN = (
    "Each row is one noise. Its prediction is a mixture of those under two captions, from the first alone on the left "
    "to the second alone on the right."
)
NEGATIVE = (
    "The same noises, guided away from no caption (above) and from a negative caption (below). Where a "
    "decoder reads them, the table counts pictures that show all of the negative caption, and those that show all of "
    "the caption."
)
BAYES = (
    "The model as a classifier: for a real image, the likelihood under captions with each value of one attribute, the "
    "others being true. The answer is the value with the largest likelihood. Captions with held-out pairs are among "
    "the candidates. Likelihoods are the variational bound with times and noises that all candidates share, or the "
    "ODE's with --exact."
)
EMOJI = (
    "No decoder reads these pictures. “Nearest to its own picture” counts samples to which, of all pictures whose "
    "captions were asked for, the caption's own is nearest in mean square. “Tone of skin” does so among the pictures "
    "that have the same name but for the tone."
)


def write(folder: Path, result: Result, drawn: Mapping[str, Drawn], commands: Sequence[str]) -> Path:
    """Writes `folder`/table.md and report.html, and returns the latter's path."""
    content = report.markdown(result)
    atomic_files.replace(folder / report.TABLE, lambda file: file.write(content.encode()), "--folder")
    body = [html_page.warning(f"Failed: {why}") for why in dict.fromkeys(result["failed"].values())]
    body += [_paragraph(INTRODUCTION), html_page.note(report.NOTE)]
    versions: dict[str, Any] = {}
    for name, of in result["sets"].items():
        body += _set(folder / name, name, of, drawn[name])
        versions = of["versions"]
    if commands:
        body.append(html_page.folded("Commands", html_page.verbatim(commands)))
    body.append(html_page.folded("Versions", html_page.listing(workdir.flatten(dict(versions)))))
    html_page.write(folder / "report.html", "Are captions followed?", body, "--folder")
    return folder / "report.html"


def _set(folder: Path, name: str, of: Result, drawn: Drawn) -> list[Element]:
    """The part of a set: pictures, charts, tables."""
    tables = report.tables(of)
    body = [
        html_page.heading(TITLES[name]),
        html_page.note(report.settings(of)),
        *map(_paragraph, report.sentences(of)),
    ]
    body += [html_page.heading("Asked for, drawn, read" if of["objects"] else "Asked for and drawn", 3)]
    body += (
        [_paragraph(EXACT), _paragraph(SCALE), _scenes(drawn)]
        if of["objects"]
        else [_paragraph(EMOJI), _emoji(folder, of, drawn)]
    )
    body += [html_page.heading("How often", 3), *_charts(of)]
    for title, table in list(tables.items())[:3]:
        body += [html_page.note(title), html_page.table(*table)]
    if of["swap"]:
        body += [html_page.heading("One noise, two captions", 3), _paragraph(SWAP), *_swaps(name, drawn)]
        body += [html_page.table(*report.swaps(of))]
    body += [html_page.heading("From one caption to another", 3), _paragraph(BETWEEN), *_between(name, drawn)]
    body += [html_page.heading("Negative captions", 3), _paragraph(NEGATIVE), *_negatives(name, drawn)]
    body += [html_page.table(*report.negatives(of))] if of["negative"] else []
    if of["bayes"]:
        body += [
            html_page.heading("The model as a classifier", 3),
            _paragraph(BAYES),
            html_page.table(*report.bayes(of)),
        ]
    return body


def _paragraph(text: str) -> Element:
    return html_page.element("<p>{{ text }}</p>", text=text)


def _sheet(pixels: Pixels, alt: str, columns: int) -> Element:
    return html_page.picture(images.grid(pixels, columns), alt, max(1, 80 // pixels.shape[2]))


def _picture(pixels: Pixels, alt: str) -> Element:
    """One picture without a border."""
    return html_page.picture(pixels, alt, max(1, 80 // pixels.shape[1]))


def reading(caption: str, scene: Scene | None) -> Element:
    """The words that the decoder read from a picture, marked where the caption asks for them.

    from score_sde.data.scene_captions import Object
    from score_sde.experiments.text.page import reading

    assert "✗ blue, not red" in reading("a red star", (Object("star", "blue", "small", "top"),))
    """
    if scene is None:
        return _words([("✗ no scene", "miss")])
    of = asked(caption)
    objects = judge.assigned(of, scene)
    lines = [_words(_compared(want, have)) for want, have in zip(of.objects, objects, strict=True)]
    for i, relation, j in of.relations:
        holds = lies(objects[i], relation, objects[j])
        said = f"{ORDINALS[i]} {relation} {ORDINALS[j]}"
        lines.append(_words([(f"✓ {said}", "best") if holds else (f"✗ not {said}", "miss")]))
    if len(scene) != len(of.objects):
        lines.append(_words([(f"✗ {len(scene)} object{'s' * (len(scene) != 1)}, not {len(of.objects)}", "miss")]))
    return html_page.element("{% for line in lines %}<div>{{ line }}</div>{% endfor %}", lines=lines)


def _compared(want: Any, have: Any) -> list[tuple[str, str]]:
    """The words of an object that was read, each with its class."""
    words = []
    for attribute in ORDER:
        right, read = getattr(want, attribute), getattr(have, attribute)
        if right is None:
            words += [(read, "")] if read else []
        elif right == read:
            words.append((f"✓ {read}", "best"))
        else:
            words.append((f"✗ {read or 'nothing'}, not {right}", "miss"))
    return words


def _words(words: Sequence[tuple[str, str]]) -> Element:
    source = '{% for word, mark in words %}<span class="{{ mark }}">{{ word }}</span> {% endfor %}'
    return html_page.element(source, words=[(word.replace(" ", UNBROKEN), mark) for word, mark in words])


def _cell(caption: str, pixels: Pixels, scene: Scene | None) -> Element:
    alt = f"A sample for “{caption}”"
    source = "{{ picture }}<small>{{ read }}</small>"
    return html_page.element(source, picture=_picture(pixels, alt), read=reading(caption, scene))


def _scenes(drawn: Drawn) -> Element:
    """A row for each caption, with the picture at each scale and what was read from it."""
    rows = []
    for half in HALVES:
        columns = [drawn[f"scale_{scale:g}_{half}"] for scale in SCALES]
        captions = columns[0]["captions"][:CAPTIONS].tolist()
        read = [decode(each["pixels"][:CAPTIONS]) for each in columns]
        for i, caption in enumerate(captions):
            cells = [_cell(caption, each["pixels"][i], of[i]) for each, of in zip(columns, read, strict=True)]
            rows.append(
                [html_page.element("{{ a }}<br><small>({{ b }})</small>", a=caption, b=OF_HALVES[half]), *cells]
            )
    return html_page.table(["asked for", *(f"scale {scale:g}" for scale in SCALES)], rows)


def _emoji(folder: Path, of: Result, drawn: Drawn) -> Element:
    """A row for each caption: the sample at the best scale, the caption's own picture, and the nearest for training."""
    beside, rows = atomic_files.read_arrays(folder / NEIGHBOURS), []
    for half in HALVES:
        samples = drawn[f"scale_{of['best']}_{half}"]
        at = shown(len(samples["pixels"]))
        columns = samples["captions"][at].tolist(), samples["pixels"][at], beside[f"own_{half}"], beside[half]
        for caption, sample, own, near in zip(*columns, strict=True):
            words = (f"A sample for “{caption}”", "The caption's own picture", "The nearest training picture")
            beside_it = [_picture(pixels, alt) for pixels, alt in zip((sample, own, near), words, strict=True)]
            rows.append([caption, OF_HALVES[half], *beside_it])
    head = ["asked for", "captions", f"sample at scale {of['best']}", "its own picture", "nearest training picture"]
    return html_page.table(head, rows)


def _charts(of: Result) -> list[Element]:
    """Shares by scale, and beneath them by update: seen captions on the left, held-out ones on the right."""
    rows = []
    for key, x_label in (("scales", "guidance scale"), ("curve", "updates")):
        charts = []
        for half in HALVES:
            chart = html_page.chart(_curves(of, key, half), x_label, "right, %")
            charts.append(html_page.figure(f"{OF_HALVES[half].capitalize()} captions, by {x_label}", chart))
        rows.append(html_page.division("pair", *charts))
    return rows


def _curves(of: Result, key: str, half: str) -> dict[str, html_page.Curve]:
    curves = {}
    for name in report.figures(of):
        points = [(float(x.replace(",", "")), each[half]["figures"][name]) for x, each in of[key].items()]
        points = [(x, share) for x, share in points if share["n"]]
        curves[FIGURES[name]] = [x for x, _ in points], [100 * share["share"] for _, share in points], None
    return curves


def _swaps(name: str, drawn: Drawn) -> list[Element]:
    """A sheet for each pair of captions, the second beneath the first."""
    sheets = []
    for pair in prompts.SHOWN[name].swaps:
        rows = [drawn[f"swap_{which}"] for which in ("first", "second")]
        of_pair = [
            each["pixels"][each["captions"] == caption][:PAIRS] for each, caption in zip(rows, pair, strict=True)
        ]
        if len(of_pair[0]):
            alt = f"Above: {pair[0]}. Below: {pair[1]}"
            sheets.append(html_page.figure(alt, _sheet(np.concatenate(of_pair), alt, len(of_pair[0]))))
    return [html_page.division("grids", *sheets)]


def _between(name: str, drawn: Drawn) -> list[Element]:
    pairs = prompts.SHOWN[name].between
    figures = []
    for pair, pixels in zip(pairs, np.split(drawn["between"]["pixels"], len(pairs)), strict=True):
        words = f"From “{pair[0]}” to “{pair[1]}”"
        figures.append(html_page.figure(words, _sheet(pixels, words, len(PARTS))))
    return [html_page.division("grids", *figures)]


def _negatives(name: str, drawn: Drawn) -> list[Element]:
    figures = []
    for i, (caption, negative) in enumerate(prompts.SHOWN[name].negative):
        rows = [drawn[f"{side}_{i}"]["pixels"][:ROW] for side in ("without", "with")]
        words = f"“{caption}”; below, guided away from “{negative}”"
        figures.append(html_page.figure(words, _sheet(np.concatenate(rows), words, len(rows[0]))))
    return [html_page.division("grids", *figures)]
