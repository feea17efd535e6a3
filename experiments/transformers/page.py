"""The page of the comparison, for readers who know neither kind of model: pictures first, then figures."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from score_sde.experiments.recipes.panels import drawing
from score_sde.experiments.transformers import measure, report
from score_sde.experiments.transformers.config import AUTOREGRESSIVE
from score_sde.experiments.transformers.measure import AllDrawn, Drawn
from score_sde.experiments.transformers.models import FRAMES, MASKS, filled_name
from score_sde.experiments.transformers.report import NAMES, PAIRS, Result

from score_sde import images
from score_sde.array_types import Pixels
from score_sde.io import atomic_files, html_page, workdir
from score_sde.io.html_page import Element

GREY = 128  # of what is hidden
SHEET, COLUMNS = 40, 10
ROWS, NEIGHBOURS = 4, 6

INTRODUCTION = (
    "A diffusion model makes a picture out of noise. It is a network that was trained to remove noise, and it removes "
    "all of it in a number of small steps. A transformer is a kind of network: it cuts its input into pieces, and lets "
    "every piece look at every other. So “diffusion model or transformer?” compares two different things, a principle "
    "of generation and an architecture of networks.",
    "This page takes the question apart. A U-Net, a U-ViT and a DiT are the network inside the same diffusion model: "
    "the first is made of convolutions, the other two are transformers. The autoregressive transformer replaces "
    "diffusion. It writes a picture pixel by pixel, each one drawn from a distribution that depends on the pixels "
    "before it, as language models write text. All four have about as many parameters, and saw the same images "
    "equally often.",
)
HOW = (
    "Each row is one sample. A diffusion model has the whole picture in every step, and removes noise from it. The "
    "autoregressive transformer finishes one pixel after another; grey pixels are not drawn yet."
)
CAN = (
    "Half of each test image is hidden, and filled in. Diffusion models fill any mask by the library's posterior "
    "sampler (tmpd). The autoregressive transformer knows only what comes earlier in its order, row by row. If the "
    "lower half is hidden, that is all there is to know, and its answer is exact. With other masks it cannot see the "
    "known pixels that come later."
)
COPIES = (
    "The nearest training image beneath each of the first samples, by the mean square of pixels. A model that copies "
    "would show the same picture twice."
)


def write(folder: Path, result: Result, drawn: AllDrawn, commands: Sequence[str]) -> Path:
    """Writes `folder`/table.md and report.html, and returns the latter's path."""
    content = report.markdown(result)
    atomic_files.replace(folder / report.TABLE, lambda file: file.write(content.encode()), "--folder")
    shown = {name: of_model[0] for name, of_model in drawn.items()}
    tables = report.tables(result)
    body = [html_page.warning(f"Failed: {why}") for why in dict.fromkeys(result["failed"].values())]
    body += [html_page.element("<p>{{ text }}</p>", text=text) for text in INTRODUCTION]
    body += [*_samples(result, shown), *_paths(shown), html_page.heading("Figures")]
    body += [html_page.note(report.settings(result)), html_page.table(*tables["Figures"])]
    body += [*map(html_page.note, report.notes(result)), *_charts(result), *_found(result)]
    body += [html_page.heading("What each can do: fill in a hidden half"), html_page.note(CAN), *_filled(shown)]
    body += [html_page.table(*tables["Half of an image filled in"])]
    body += [html_page.heading("Has it copied?"), html_page.note(COPIES), *_neighbours(folder, shown)]
    body += [html_page.heading("What it costs"), html_page.table(*tables["Costs"]), html_page.note(costs_note(result))]
    if commands:
        body.append(html_page.folded("Commands", html_page.verbatim(commands)))
    body.append(html_page.folded("Versions", html_page.listing(workdir.flatten(dict(result["versions"])))))
    html_page.write(folder / "report.html", "Diffusion models and transformers", body, "--folder")
    return folder / "report.html"


def _picture(pixels: Pixels, columns: int, alt: str) -> Element:
    return html_page.picture(images.grid(pixels, columns), alt, max(1, 40 // pixels.shape[2]))


def _samples(result: Result, shown: dict[str, Drawn]) -> list[Element]:
    """Samples of each model beside real images."""
    real = next(iter(shown.values()))["filled_lower_half"]["truth"][:SHEET]
    figures = [html_page.figure("Real test images", _picture(real, COLUMNS, f"{len(real)} real images"))]
    for name, drawn in shown.items():
        budget, pixels = measure.samples(drawn)[-1]
        alt = f"{len(pixels[:SHEET])} samples of {NAMES[name]}"
        caption = f"{report.capitalised(NAMES[name])}, {budget} evaluations of the network"
        figures.append(html_page.figure(caption, _picture(pixels[:SHEET], COLUMNS, alt)))
    return [html_page.heading("Samples"), html_page.division("grids", *figures)]


def _paths(shown: dict[str, Drawn]) -> list[Element]:
    """Stages of samples: of the first model, and of the autoregressive one."""
    chosen = list(dict.fromkeys([next(iter(shown)), *(name for name in shown if name == AUTOREGRESSIVE)]))
    figures = []
    for name in chosen:
        frames = shown[name]["path"]["pixels"][:ROWS]
        alt = f"{len(frames)} samples of {NAMES[name]} in {FRAMES} stages"
        picture = _picture(frames.reshape(-1, *frames.shape[2:]), FRAMES, alt)
        figures.append(html_page.figure(report.capitalised(NAMES[name]), picture))
    return [html_page.heading("How a picture comes about"), html_page.division("grids", *figures), html_page.note(HOW)]


def _charts(result: Result) -> list[Element]:
    """Bits/dim with intervals, and distances against evaluations."""
    bits = {name: {"values": values} for name, values in result["figures"]["bits"].items()}
    panel = drawing({"bits/dim": bits}, NAMES.__getitem__, lambda figure: False)
    caption = "Bits/dim: every dot is a seed, the bar a 95 % interval. Less is better."
    charts = [html_page.figure(caption, panel)]
    curves = {}
    for name, of_seeds in result["curves"].items():
        if not of_seeds[0]:
            continue
        values = np.array([[value for _, value in curve] for curve in of_seeds])
        budgets = [budget for budget, _ in of_seeds[0]]
        errors = values.std(axis=0, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else None
        curves[NAMES[name]] = budgets, values.mean(axis=0).tolist(), None if errors is None else errors.tolist()
    if curves:
        x = sorted({budget for budgets, _, _ in curves.values() for budget in budgets})
        held_out = result["reference"]["real test images"]["distance"]
        curves["real test images"] = [x[0], x[-1]], [held_out, held_out], None
        chart = html_page.chart(curves, "evaluations of the network for a sample", "distance", log=True, log_x=True)
        caption = "Distance of samples from the training images. Bars are two standard errors over seeds."
        charts.append(html_page.figure(caption, chart))
    return [html_page.division("grids", *charts)]


def _found(result: Result) -> list[Element]:
    """A table of verdicts, and the sentences of the tests."""
    head = ["", *(f"{NAMES[first]} against {NAMES[second]}" for first, second in PAIRS)]
    rows = []
    for figure in result["figures"]:
        words = [report.verdict(result, figure, *pair) or "no difference shown" for pair in PAIRS]
        rows.append([report.capitalised(report.FIGURES[figure].words), *words])
    note = (
        "A difference counts if its p value, corrected by Holm for all pairs in one line, is at most 5 %. Seeds are "
        "blocks, and for bits/dim the error over test images is added. “No difference shown” does not mean equal: with "
        "few seeds, only large differences pass."
    )
    body = [html_page.heading("What differs"), html_page.table(head, rows), html_page.note(note)]
    body += [html_page.element("<p>{{ text }}</p>", text=text) for text in report.findings(result)]
    details = [html_page.note(text) for text in report.sentences(result)]
    for figure in result["figures"]:
        if pairs := report.compared(result, figure):
            title = report.capitalised(report.FIGURES[figure].words)
            lines = [_pair(figure, each) for each in pairs]
            details.append(html_page.note(title))
            details.append(html_page.table(["first", "second", "first minus second", "p", "p by Holm"], lines))
    return [*body, html_page.folded("Every difference", *details)]


def _pair(figure: str, each: report.Comparison) -> list[str]:
    kind = " (of logarithms)" if figure.startswith("distance") else ""
    shown = f"{each.difference:+.3g} ± {each.half:.2g}{kind}"
    return [NAMES[each.first], NAMES[each.second], shown, f"{each.p:.2g}", f"{each.holm:.2g}"]


def _filled(shown: dict[str, Drawn]) -> list[Element]:
    """Rows of truth, what is known, and each model's answer, for each mask."""
    figures = []
    for mask, of_shape in MASKS.items():
        filled = {name: drawn[filled_name(mask)] for name, drawn in shown.items()}
        truth = next(iter(filled.values()))["truth"][:COLUMNS]
        known = np.where(of_shape(*truth.shape[1:3])[..., None], truth, GREY).astype(np.uint8)
        rows = [truth, known, *(of["pixels"][:COLUMNS] for of in filled.values())]
        names = ", ".join(NAMES[name] for name in filled)
        picture = _picture(np.concatenate(rows), len(truth), f"Rows: truth, known pixels, {names}")
        figures.append(html_page.figure(f"{report.capitalised(mask)} hidden. Rows: truth, known, {names}", picture))
    return [html_page.division("grids", *figures)]


def _neighbours(folder: Path, shown: dict[str, Drawn]) -> list[Element]:
    """Samples with the nearest training image beneath each."""
    stored = atomic_files.read_arrays(folder / measure.NEIGHBOURS)
    figures = []
    for name, drawn in shown.items():
        pairs = np.concatenate([measure.samples(drawn)[-1][1][:NEIGHBOURS], stored[name][:NEIGHBOURS]])
        alt = f"Samples of {NAMES[name]}, and beneath each the nearest training image"
        picture = _picture(pairs, len(pairs) // 2, alt)
        figures.append(html_page.figure(f"{report.capitalised(NAMES[name])}: sample, nearest training image", picture))
    return [html_page.division("grids", *figures)]


def costs_note(result: Result) -> str:
    """A paragraph on how costs were measured."""
    return (
        "FLOP are floating-point operations as the compiler counts them (cost_analysis of XLA), divided by the images "
        "of a batch. Seconds of updates are those of the trainings as they ran, two at a time with --slots=2. Seconds "
        "of samples are the least of three repetitions of a batch of 64, with nothing beside them and without "
        "compiling. One evaluation of the autoregressive transformer is that of a single token, because keys and "
        "values of earlier ones are kept."
    )
