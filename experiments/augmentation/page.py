"""The page of the experiment: the learning curve, the share of generated images, samples beside real ones, tests."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from score_sde.experiments.augmentation import report
from score_sde.experiments.augmentation.measure import ROWS
from score_sde.experiments.augmentation.splits import Pool, Splits

from score_sde import images
from score_sde.io import atomic_files, html_page, workdir
from score_sde.io.html_page import Curve, Element

COLUMNS = 8  # images of each class that are shown
MOST_CLASSES = 20
TITLE = "Do generated images help a classifier?"


def write(folder: Path, result: Mapping[str, Any], splits: Splits, generated: Mapping[str, Pool]) -> Path:
    """Writes `folder`/table.md and report.html, and returns the latter's path.

    generated: images of the first seed by their caption.
    """
    content = report.markdown(result)
    atomic_files.replace(folder / report.TABLE, lambda file: file.write(content.encode()), "--folder")
    body = [html_page.element("<p>{{ text }}</p>", text=report.settings(result))]
    body += [html_page.element("<p>{{ text }}</p>", text=line) for line in report.findings(result)]
    body.append(html_page.division("grids", *charts(result)))
    for title, table in report.tables(result).items():
        body += [html_page.heading(title), html_page.table(*table)]
    body += [html_page.note(text) for text in (*report.notes(result), report.copies(result), report.shares(result))]
    body += [html_page.heading("Generated images beside real ones"), *_samples(splits, generated)]
    body += [html_page.heading("What differs"), *map(html_page.note, report.sentences(result))]
    body += [html_page.folded("Every difference", *_differences(result))]
    body.append(html_page.folded("Versions", html_page.listing(workdir.flatten(dict(result["versions"])))))
    html_page.write(folder / "report.html", TITLE, body, "--folder")
    return folder / "report.html"


def charts(result: Mapping[str, Any]) -> list[Element]:
    """The learning curve of each row, and accuracy by share for each number of real images."""
    counts = result["counts"]
    classes = len(result["names"])
    curves: dict[str, Curve] = {}
    for name, row in ROWS.items():
        points = [(of["images"] / classes, of["rows"][name]) for of in counts.values() if name in of["rows"]]
        curves[row.words] = [x for x, _ in points], *_percent([figure for _, figure in points])
    learning = html_page.chart(curves, "real images of each class", "accuracy, %", log_x=True)
    by_share = {
        f"{count} a class": ([100 * float(share) for share in of["shares"]], *_percent(list(of["shares"].values())))
        for count, of in counts.items()
    }
    share = html_page.chart(by_share, "generated images in a batch, %", "accuracy, %")
    return [
        html_page.figure("Learning curve on test images. Bars are two standard errors over seeds.", learning),
        html_page.figure("Equal updates, more and more of them on generated images.", share),
    ]


def _percent(figures: list[Mapping[str, Any]]) -> tuple[list[float], list[float] | None]:
    """Means and, with two seeds or more, their standard errors, in percent."""
    values = [100 * np.array(figure["values"]) for figure in figures]
    errors = [float(each.std(ddof=1) / np.sqrt(len(each))) for each in values if len(each) > 1]
    return [float(each.mean()) for each in values], errors or None


def _samples(splits: Splits, generated: Mapping[str, Pool]) -> list[Element]:
    """A sheet of real images, and one of each generator, a row for each class."""
    pools = {"Real training images": splits.train, **generated}
    names = splits.names[:MOST_CLASSES]
    figures = []
    for caption, pool in pools.items():
        rows = [pool.images[np.flatnonzero(pool.labels == label)] for label in range(len(names))]
        columns = min(COLUMNS, *map(len, rows))
        sheet = images.grid(np.concatenate([row[:columns] for row in rows]), columns)
        alt = f"{caption}; rows are the classes {', '.join(names)}"
        figures.append(
            html_page.figure(caption, html_page.picture(sheet, alt, images.magnification(pool.images) // 2 + 1))
        )
    return [html_page.division("grids", *figures)]


def _differences(result: Mapping[str, Any]) -> list[Element]:
    shown = []
    for count, of in result["counts"].items():
        lines = [
            [
                ROWS[each.first].words,
                ROWS[each.second].words,
                f"{100 * each.difference:+.2f} ± {100 * each.half:.2f}",
                f"{each.p:.2g}",
                f"{each.holm:.2g}",
            ]
            for each in report.compared(of)
        ]
        head = ["first", "second", "first minus second, points", "p", "p by Holm"]
        shown += [html_page.note(f"{count} real images of each class"), html_page.table(head, lines)]
    return shown
