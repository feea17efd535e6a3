"""Trains, unless a run is named, makes an average of each width, measures it, and draws the curves."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from scipy import stats
from score_sde.experiments.ema_length.config import SCHEDULE, get_config

from score_sde import images
from score_sde.errors import UsageError
from score_sde.evaluation.over_split import loss
from score_sde.evaluation.sample_metrics import Measure, measure
from score_sde.inference import posthoc_weights
from score_sde.inference.pretrained import Pretrained, load
from score_sde.io import atomic_files, html_page, workdir
from score_sde.metrics import measure as figures_of
from score_sde.randomness import batch_keys
from score_sde.runtime.progress import bar, reporter
from score_sde.training.run import load_data, train

COLUMNS = ("width", "predicted error", "loss", "s.e.", "Fréchet distance", "s.e.")


class Row(NamedTuple):
    """Figures of one width. distances: of each set of samples, in the order of the seeds, which all widths share."""

    width: float
    predicted_error: float
    loss: float
    loss_error: float | None
    distances: list[float]

    @property
    def distance(self) -> float:
        return float(np.mean(self.distances))

    @property
    def distance_error(self) -> float | None:
        """The standard error over sampling seeds."""
        n = len(self.distances)
        return float(np.std(self.distances, ddof=1) / np.sqrt(n)) if n > 1 else None


def run(folder: Path, directory: Path | None, widths: Sequence[float], seeds: int, n: int) -> int:
    """Writes ema_length.json and ema_length.html in the folder. directory: of a run; None trains one on the digits."""
    try:
        rows, facts = _measured(folder, directory, sorted(set(widths)), seeds, n)
    except UsageError as error:
        print(f"ema_length: {error}", file=sys.stderr)
        return 2
    print(text_table(rows))
    best = min(rows, key=lambda row: row.distance)
    print(f"The least Fréchet distance is that of the width {best.width:g}; {about(rows, best)}.")
    write(folder, rows, facts)
    print(f"Open {folder / 'ema_length.html'}")
    return 0


def _measured(
    folder: Path, directory: Path | None, widths: Sequence[float], seeds: int, n: int
) -> tuple[list[Row], dict[str, Any]]:
    atomic_files.check_writable(folder)
    if directory is None:
        directory, config = folder / "run", get_config()
        config.data.data_dir = str(folder.absolute().parent / "tensorflow_datasets")
        train(config, directory, SCHEDULE)
    made: dict[float, Pretrained] = {width: load(directory, ema=width) for width in widths}  # refused before any work
    first = next(iter(made.values()))
    config = first.config
    if config.metrics.features == "none":
        raise UsageError(f"{directory} has metrics.features=none, and distances need features; name another run.")
    of, held_out = measure(config), load_data(config, train=False)
    rows = [_row(directory, width, model, of, held_out, seeds, n) for width, model in made.items()]
    facts = {"run": str(directory), "step": first.step, "seed": config.seed, "sampling_seeds": list(range(seeds))}
    facts |= {"num_samples": n, "features": of.features.name, "sampler": config.sampling.method}
    return rows, facts | {"held_out_images": len(held_out), "versions": workdir.versions()}


def _row(directory: Path, width: float, model: Pretrained, of: Measure, held_out: Any, seeds: int, n: int) -> Row:
    profile, profiles = model.profile, model.experiment.profiles
    error = 0.0 if profile in profiles else posthoc_weights.planned(directory, profiles, profile, model.step).error
    of_images, distances = loss(model, held_out), []
    for seed in range(seeds):
        with bar(f"sampling {model.ema or profile.name}, seed {seed}", n, "img") as progress:
            x, _, _ = model.draw(batch_keys(jax.random.key(seed), n), report=reporter(progress, n))
        arrays = of.features.of(images.to_pixels(x))
        figures = figures_of(of.features.name, arrays, of.statistics)
        distances.append(next(value["mean"] for name, value in figures.items() if name.startswith(("frechet", "fid"))))
    return Row(width, error, of_images["mean"], of_images["standard_error"], distances)


def text_table(rows: Sequence[Row]) -> str:
    lines = [COLUMNS]
    for row in rows:
        errors = [f"{error:.2g}" if error is not None else "" for error in (row.loss_error, row.distance_error)]
        lines.append(
            (
                f"{row.width:g}",
                f"{row.predicted_error:.1e}",
                f"{row.loss:.5f}",
                errors[0],
                f"{row.distance:.2f}",
                errors[1],
            )
        )
    widths = [max(len(line[i]) for line in lines) for i in range(len(COLUMNS))]
    return "\n".join("  ".join(cell.rjust(w) for cell, w in zip(line, widths, strict=True)) for line in lines)


def about(rows: Sequence[Row], best: Row) -> str:
    """Words on which other widths are worse, by Student's t of the differences over sampling seeds."""
    n = len(best.distances)
    if n < 2:
        return "one set of samples gives no interval"
    apart, close = [], []
    for row in rows:
        difference = np.subtract(row.distances, best.distances)  # of the same noise
        half = stats.t.ppf(0.975, n - 1) * difference.std(ddof=1) / np.sqrt(n)
        if row is not best:
            (apart if difference.mean() > half else close).append(f"{row.width:g}")
    return f"worse, with 95 % confidence: {', '.join(apart) or 'none'}; not: {', '.join(close) or 'none'}"


def write(folder: Path, rows: Sequence[Row], facts: dict[str, Any]) -> None:
    """Writes the figures and the page."""
    workdir.write(folder, "ema_length.json", facts | {"rows": [row._asdict() for row in rows]})
    widths = [row.width for row in rows]
    distances, distance_errors = [row.distance for row in rows], [row.distance_error for row in rows]
    losses, loss_errors = [row.loss for row in rows], [row.loss_error for row in rows]
    charts = {
        "Fréchet distance on trained features": (widths, distances, _bars(distance_errors)),
        "loss on held-out images": (widths, losses, _bars(loss_errors)),
    }
    body = [
        html_page.figure(name, html_page.chart({name: curve}, "width of the average (sigma_rel)", name))
        for name, curve in charts.items()
    ]
    body += [html_page.verbatim(text_table(rows).splitlines()), html_page.listing(facts)]
    note = (
        "Bars are two standard errors: of the distance over sampling seeds, which all widths share; of the loss over "
        "images, which are the same for all widths, so that differences are more certain than the bars say."
    )
    html_page.write(
        folder / "ema_length.html", "Quality against the length of the average", [html_page.note(note), *body]
    )


def _bars(errors: Sequence[float | None]) -> list[float] | None:
    return None if None in errors else list(errors)
