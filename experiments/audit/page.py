"""The page of an audit: each part with what it asks, a sentence on the answer, pictures, charts, and all figures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from score_sde.experiments.audit import report
from score_sde.experiments.audit.charts import Points, chart
from score_sde.experiments.audit.report import Result, there

from score_sde import images
from score_sde.array_types import Pixels
from score_sde.io import atomic_files, html_page, workdir
from score_sde.io.html_page import Element

WIDE = 640  # screen pixels of a sheet
Pictures = Mapping[str, Mapping[str, np.ndarray]]  # of each audit, by name

INTRODUCTION = (
    "Does a generative model repeat the pictures that it was trained on? Do its errors tell who was in the training "
    "set? Does it show every class as often as the data do? This page answers with figures that have intervals, and "
    "with the pictures that prove them."
)
ABOUT = {
    "Near-duplicates inside the training set": (
        "A picture that is there several times is learned by heart first, and its copies hide each other from ratios "
        "of distances. Each row is one group; small groups repeat. Near is nearer than a third of the median distance "
        "of a training image to its nearest other one."
    ),
    "Memorisation": (
        "The most suspicious samples first, by the ratio of the distances to the nearest and to the second nearest "
        "training image. From above: the sample, the nearest training image, the second nearest, and the nearest by "
        "trained features. A copy is equal to the picture beneath it. Gu's ratio calls a sample memorised below 1/3; "
        "Carlini's criterion below half of the mean distance to its nearest training images. AuthPct counts samples "
        "that are further from their nearest training image than that is from its own. C_T compares the samples' "
        "distances to training images with those of held-out images."
    ),
    "Do the samples know the training images?": (
        "If a model has learned the law of the data alone, training and held-out images are exchangeable, and the "
        "nearest real image of a sample is a training image by chance. The p-value permutes the labels of the images, "
        "with all samples kept together. The chart is the power of this test: how often it detects k copies that were "
        "planted among samples which know nothing."
    ),
    "Where on the schedule": (
        "At each noise level, the denoiser is compared with two memorisers: the best denoiser of the training images, "
        "on these, and that of as many held-out images, on those. A ratio of distances of 1 means that the model "
        "treats both alike; 0 is a memoriser of its training set. At high noise a ratio below 1 need be no copying, "
        "since any fit follows the mean of its data."
    ),
    "Membership": (
        "An attacker who can compute losses calls an image a member of the training set if its denoising loss is "
        "small. The AUC is the probability that a member's loss is below that of a held-out image, 0.5 by chance. "
        "Noise is fixed for each image, so that the same audit gives the same losses. Levels are shown together, never "
        "the best alone."
    ),
    "Extraction": (
        "Without the training images, one can look for samples that come again: clusters of nearly the same. The "
        "pictures are clusters, the largest first; beneath each is its nearest training image."
    ),
    "Balance": (
        "A classifier of real images judges what each sample shows. Its errors on held-out images are known, and the "
        "frequencies are corrected for them, with intervals that have both uncertainties. Amplification is the "
        "corrected frequency minus that of the training images. Guided samples have the frequencies of the guided ODE."
    ),
}


def write(folder: Path, result: Result, pictures: Pictures, commands: Sequence[str]) -> Path:
    """Writes `folder`/table.md and report.html, and returns the latter's path."""
    content = report.markdown(result)
    atomic_files.replace(folder / report.TABLE, lambda file: file.write(content.encode()), "--out")
    audits, tables = result["audits"], report.tables(result)
    body = [html_page.warning(f"Failed: {why}") for why in dict.fromkeys(result["failed"].values())]
    body += [_paragraph(INTRODUCTION)]
    for name, of in audits.items():
        body += [html_page.heading(name, 3), html_page.note(report.settings(of))]
        body += [html_page.element("<ul>{% for s in all %}<li>{{ s }}</li>{% endfor %}</ul>", all=report.sentences(of))]
        body += [html_page.note(of["licence"])] if of["licence"] else []
    body.append(html_page.note(report.NOTE))
    shown = {
        "Near-duplicates inside the training set": (["Near-duplicates among the training images"], _duplicates),
        "Memorisation": (["Memorisation"], _memorised),
        "Do the samples know the training images?": (["Power of the permutation test"], _power),
        "Where on the schedule": (["By noise level"], _denoiser),
        "Membership": (["Membership, all noise levels together"], _membership),
        "Extraction": (["Extraction"], _clusters),
        "Balance": (["Balance", "Recall and distance by class"], _balance),
    }
    for title, (of_part, drawn) in shown.items():
        there_are = [tables[name] for name in of_part if name in tables]
        if there_are:
            body += [html_page.heading(title), _paragraph(ABOUT[title]), *drawn(audits, pictures)]
            body += [html_page.table(*table) for table in there_are]
    if commands:
        body.append(html_page.folded("Commands", html_page.verbatim(commands)))
    body.append(html_page.folded("Versions", html_page.listing(workdir.flatten(dict(result["versions"])))))
    title = f"Audit of {' and '.join(audits)}"
    html_page.write(folder / "report.html", title, body, "--out")
    return folder / "report.html"


def _paragraph(text: str) -> Element:
    return html_page.element("<p>{{ text }}</p>", text=text)


def _sheet(pixels: Pixels, columns: int, alt: str) -> Element:
    return html_page.picture(images.grid(pixels, columns), alt, max(1, WIDE // (columns * pixels.shape[2])))


def _side_by_side(audits: Mapping[str, Any], make: Any) -> list[Element]:
    """A figure of each audit that has one, beside one another."""
    figures = [html_page.figure(caption, sheet) for name in audits for caption, sheet in make(name)]
    return [html_page.division("pair", *figures)] if figures else []


def _duplicates(audits: Mapping[str, Any], pictures: Pictures) -> list[Element]:
    def make(name: str) -> list[tuple[str, Element]]:
        pixels, of = pictures[name].get("duplicates"), audits[name].get("duplicates")
        if pixels is None or not of["near"]["groups"]:
            return []
        columns = len(pixels) // len(of["near"]["shown"])
        words = f"{name}: the first groups of nearly the same training images, a row each"
        return [(words, _sheet(pixels, columns, words))]

    return _side_by_side(there(audits, "duplicates"), make)


def _memorised(audits: Mapping[str, Any], pictures: Pictures) -> list[Element]:
    def make(name: str) -> list[tuple[str, Element]]:
        rows = [pictures[name][key] for key in ("samples", "nearest", "second", "by_features")]
        ratios = audits[name]["memorised"]["most_suspicious"]["ratio"]
        words = (
            f"{name}: the most suspicious samples; beneath each the nearest training image, the second nearest, and "
            f"the nearest by features. Ratios from {ratios[0]:.2f} to {ratios[-1]:.2f}"
        )
        return [(words, _sheet(np.concatenate(rows), len(rows[0]), words))]

    return _side_by_side(there(audits, "memorised"), make)


def _clusters(audits: Mapping[str, Any], pictures: Pictures) -> list[Element]:
    def make(name: str) -> list[tuple[str, Element]]:
        if "clusters" not in pictures[name]:
            return []
        rows = [pictures[name][key] for key in ("clusters", "cluster_nearest")]
        sizes = audits[name]["extracted"]["shown"]["size"]
        words = (
            f"{name}: a sample of each cluster, and its nearest training image; {', '.join(map(str, sizes))} samples"
        )
        return [(words, _sheet(np.concatenate(rows), len(rows[0]), words))]

    return _side_by_side(there(audits, "extracted"), make)


def _power(audits: Mapping[str, Any], pictures: Pictures) -> list[Element]:
    curves = {name: Points(of["copies"], of["detected"]) for name, of in there(audits, "power").items()}
    return _charts(chart(curves, "planted copies", "detected at 5 %", level=0.05))


def _denoiser(audits: Mapping[str, Any], pictures: Pictures) -> list[Element]:
    found = {name: of for name, of in there(audits, "levels").items() if "denoiser" in of}
    if not found:
        return []
    ratios = {name: Points(of["noise_level"], of["denoiser"]["ratio"]) for name, of in found.items()}
    errors = {
        f"{name}, {words}": Points(of["noise_level"], of["denoiser"][key])
        for name, of in found.items()
        for key, words in (("error_train", "training"), ("error_held_out", "held-out"))
    }
    return _charts(
        chart(ratios, "noise level", "ratio of distances to the memorisers", level=1.0, log_x=True),
        chart(errors, "noise level", "denoising error", log_x=True, log=True),
    )


def _membership(audits: Mapping[str, Any], pictures: Pictures) -> list[Element]:
    found = {name: of for name, of in there(audits, "levels").items() if "membership" in of}
    areas = {name: Points(of["noise_level"], of["membership"]["auc"]) for name, of in found.items()}
    return _charts(chart(areas, "noise level", "membership AUC", level=0.5, log_x=True))


def _balance(audits: Mapping[str, Any], pictures: Pictures) -> list[Element]:
    drawn: dict[str, dict[str, Points]] = {}
    for name, attribute, scale, of, names in report.shown_classes(audits):
        at = f"{name}, scale {scale}" if scale else name
        ends = [{end: 100 * of["amplification"][end][i] for end in ("value", "low", "high")} for i in range(len(names))]
        drawn.setdefault(attribute, {})[at] = Points(list(names), ends)
    return _charts(*(chart(curves, name, "amplification, %", level=0.0) for name, curves in drawn.items()))


def _charts(*made: Element) -> list[Element]:
    return [html_page.division("pair", *(html_page.figure("", each) for each in made))]
