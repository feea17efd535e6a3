"""The page of an evaluation: samples beside real images, a table of its checkpoints, and curves over them."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from score_sde import images
from score_sde.array_types import Pixels
from score_sde.config import Config
from score_sde.evaluation import sample_metrics
from score_sde.evaluation.figure_names import best_of, short_names
from score_sde.io import atomic_files, html_page, workdir
from score_sde.metrics.figures import ALL_PAIRS
from score_sde.runtime.sharding import is_first
from score_sde.training.trainable import shape_of

LABELS = {
    "loss": "loss",
    "accuracy": "accuracy, mean over noise levels",
    "bits_per_dim": "bits/dim",
    "bits_per_dim_bound": "bound on bits/dim",
}
OVER_BLOCKS = ", over blocks"
SIDE = 768  # pixels of a grid in the page
CAPTIONED = 6  # the most columns with captions
REAL = "real.npz"  # real images beside a report


def write(folder: Path, report: Mapping[str, Any]) -> Path:
    """Writes `folder`/report.html of a report and of the samples beneath the folder; returns its path."""
    entries = report["checkpoints"]
    protocols = {m["fingerprint"]: m["protocol"] for m in map(metrics_of, entries) if m}
    by_step = {entry["step"]: figures(entry, apart=len(protocols) > 1) for entry in entries}
    names = list(dict.fromkeys(name for of_step in by_step.values() for name in of_step))
    short, _ = short_names(names)
    body = [
        html_page.warning(f"Warning, step {entry['step']:,}: {said}") for entry in entries for said in warnings(entry)
    ]
    body += _samples(folder, report)
    body += [html_page.heading("Figures"), *_figures(by_step, baselines(entries, apart=len(protocols) > 1))]
    body += [html_page.note(line) for line in dict.fromkeys(line for entry in entries for line in parts(entry))]
    if len(entries) > 1:
        curves = [_curve(by_step, name, short[name]) for name in names]
        body += [html_page.heading("Over checkpoints"), html_page.division("grids", *curves)]
    body += _weights([entry for entry in entries if "weights" in entry])
    body += _by_noise_level([entry for entry in entries if "accuracy" in entry])
    body.append(html_page.heading("Settings"))
    for fingerprint, protocol in protocols.items():
        note = html_page.note("A distance compares with others of this fingerprint only.")
        listing = html_page.listing(workdir.flatten(protocol))
        body.append(html_page.folded(f"Protocol {fingerprint} of the distances", note, listing))
    versions = report["versions"] | {"devices": ", ".join(report["devices"])}
    body.append(html_page.folded("Versions and devices", html_page.listing(versions)))
    body.append(html_page.folded("Config", html_page.listing(report["config"])))
    html_page.write(folder / "report.html", f"Evaluation of {folder.parent.name}", body)
    return folder / "report.html"


def _samples(folder: Path, report: Mapping[str, Any]) -> list[html_page.Element]:
    """The samples of the last checkpoint beside real images, and those of earlier ones; nothing without samples."""
    entries = report["checkpoints"]
    pictures = [html_page.figure(_caption(entry, report), grid) for entry in entries if (grid := sheet(folder, entry))]
    if not pictures:
        return []
    *earlier, last = pictures
    real = real_sheet(folder)
    beside = [html_page.figure("Real images of the evaluation split", real)] if real else []
    body = [html_page.heading("Samples"), html_page.division("pair", last, *beside)]
    body += [html_page.note(f"Step {entry['step']:,}, {ends(ends_of(entry))}.") for entry in entries if ends_of(entry)]
    if report.get("licence"):
        body.append(html_page.note(f"Images that the model was trained on: {report['licence']}"))
    if earlier:
        body += [html_page.heading("Samples of earlier checkpoints", 3), html_page.division("small", *earlier)]
    return body


def _caption(entry: Mapping[str, Any], report: Mapping[str, Any]) -> str:
    """Step, condition, sampler and number of evaluations of a checkpoint's samples, as far as the report has them."""
    parts, config = [f"Samples at step {entry['step']:,}"], report["config"]
    parts += [f"given {report['condition']}"] if report.get("condition") else []
    parts += [str(config["sampling.method"])] if config.get("sampling.method") else []
    parts += [f"{entry['sampling']['nfe']:g} network evaluations"] if "nfe" in entry["sampling"] else []
    return ", ".join(parts)


def _figures(
    by_step: Mapping[int, Mapping[str, Any]], beside: Mapping[str, Mapping[str, Any]]
) -> list[html_page.Element]:
    """The table of figures, with the best checkpoint of each marked, and its footnotes. beside: rows of baselines."""
    names = list(dict.fromkeys(name for of_step in by_step.values() for name in of_step))
    rows = [[f"{step:,}", *(text(of_step.get(name)) for name in names)] for step, of_step in by_step.items()]
    rows += [[row, *(text(of_row[name]) if name in of_row else "" for name in names)] for row, of_row in beside.items()]
    means = {name: [of_step.get(name, {}).get("mean") for of_step in by_step.values()] for name in names}
    best = [(best_of(name, of_name), column) for column, (name, of_name) in enumerate(means.items(), 1)]
    marks = {(row, column): "best" for row, column in best if row is not None}
    short, footnotes = short_names(names)
    said = "EMA weights. ± is one standard error." + (" A star marks the best checkpoint." if marks else "")
    return [
        html_page.table(["step", *short.values()], rows, marks=marks),
        html_page.note(said),
        *map(html_page.note, footnotes),
    ]


def figures(entry: Mapping[str, Any], *, apart: bool = False) -> dict[str, dict[str, Any]]:
    """The figures of a checkpoint by their names, each with its mean and standard error.

    apart: whether names of distances carry the fingerprint of their protocol, for reports with several.
    """
    labelled = {label: entry[name] for name, label in LABELS.items() if name in entry}
    measured = metrics_of(entry)
    suffix = f" ({measured['fingerprint']})" if apart and measured else ""
    return labelled | means(measured, suffix)


def parts(entry: Mapping[str, Any]) -> list[str]:
    """Sentences on the figures of a checkpoint that are of a part of the split, or of p(x | c) and not of p(x)."""
    said = []
    for label, figure in {label: entry[name] for name, label in LABELS.items() if name in entry}.items():
        if "of" in figure:
            said.append(f"{label}: on {figure['images']:,} of {figure['of']:,} images (eval.max_images).")
        if "given" in figure:
            said.append(f"{label}: of each image given its {' and '.join(figure['given'])} (eval.bpd_with_cond).")
    return said


def warnings(entry: Mapping[str, Any]) -> list[str]:
    """Warnings about a checkpoint that concern all of its figures."""
    said = [part.get("warning") for part in (entry.get("weights", {}), metrics_of(entry), ends_of(entry))]
    return [warning for warning in said if warning]


def baselines(entries: Sequence[Mapping[str, Any]], *, apart: bool = False) -> dict[str, dict[str, dict[str, Any]]]:
    """Rows of noise and of held-out images, to stand beside those of checkpoints: their figures, as from `figures`."""
    rows: dict[str, dict[str, dict[str, Any]]] = {}
    for measured in map(metrics_of, entries):
        for name, of_row in measured.get("baselines", {}).items():
            row = rows.setdefault(f"{name} ({of_row['images']:,})", {})
            row |= means(of_row, f" ({measured['fingerprint']})" if apart else "")
    return rows


def lines(rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Rows of baselines for a terminal."""
    short, footnotes = short_names([key for of in rows.values() for key in means(of)])
    texts = {
        name: ", ".join(f"{short[key]} {text(figure)}" for key, figure in means(of).items())
        for name, of in rows.items()
    }
    return [f"{name}: {figures}, {rows[name]['images']} images" for name, figures in texts.items()] + footnotes


def means(measured: Mapping[str, Any], suffix: str = "") -> dict[str, dict[str, Any]]:
    """The entries that have a mean, among everything that is reported of samples.

    Kernel distances over blocks, as all are in reports before 0.6, are named so: they do not compare with the others.
    """
    figures = {name: of for name, of in measured.items() if isinstance(of, Mapping) and "mean" in of}
    return {name + (OVER_BLOCKS if _over_blocks(name, of) else "") + suffix: of for name, of in figures.items()}


def _over_blocks(name: str, figure: Mapping[str, Any]) -> bool:
    return name.split("[")[0] in ("kid", "kernel_distance") and figure.get("over") != ALL_PAIRS


def metrics_of(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """The metrics of a checkpoint's samples; empty without any."""
    return entry.get("sampling", {}).get("metrics", {})


def ends_of(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """Shares of numbers at the ends of the range, in a checkpoint's samples and in the data; empty without any."""
    return entry.get("sampling", {}).get("at_the_ends", {})


def ends(shares: Mapping[str, Any]) -> str:
    """The shares at the ends of the range, in words."""
    of_data = "" if shares["data"] is None else f", {shares['data']:.1%} of the data's"
    return f"at 0 or 255: {shares['samples']:.1%} of the samples' numbers{of_data}"


def text(figure: Mapping[str, Any] | None) -> str:
    """A figure in words: "4.90 ± 0.02", rounded to its standard error, or "not run"."""
    if figure is None:
        return "not run"
    error = figure["standard_error"]
    if error is None:
        return f"{figure['mean']:.4g}"
    decimals = _decimals(error)
    rounded = f"{error:.{decimals}f}" if error > 1e-7 else f"{error:.2g}"
    return f"{figure['mean']:.{decimals}f} ± {rounded}"


def _decimals(error: float) -> int:
    """Number of decimals for a figure with this error, so that the error has two digits."""
    return min(8, max(0, 1 - math.floor(math.log10(error)))) if 0 < error < math.inf else 4


def _curve(by_step: Mapping[int, Mapping[str, Any]], name: str, short_name: str) -> html_page.Element:
    points = [
        (step, each[name]["mean"], each[name]["standard_error"]) for step, each in by_step.items() if name in each
    ]
    steps, means, errors = zip(*points, strict=True)
    errors = None if None in errors else errors
    caption = short_name + (", ± two standard errors" if errors else "")
    return html_page.figure(caption, html_page.chart({short_name: (steps, means, errors)}, "step", short_name))


def _weights(entries: Sequence[Mapping[str, Any]]) -> list[html_page.Element]:
    """The table of averaged against raw weights, for each checkpoint."""
    if not entries:
        return []
    kinds = ("averaged", "raw")
    losses_of, sizes_of = ([f"{name}, {kind}" for kind in kinds] for name in ("loss", "size of the noise"))
    head = ["step", *losses_of, "difference", *sizes_of]
    rows = []
    for entry in entries:
        of_kinds = entry["weights"]
        losses = [f"{of_kinds[kind]['loss']:.5g}" for kind in kinds]
        sizes = [of_kinds[kind].get("noise_size") for kind in kinds]
        texts = ["not defined" if size is None else f"{size:.3f}" for size in sizes]
        rows.append([f"{entry['step']:,}", *losses, text(of_kinds["difference"]), *texts])
    note = "On the same images and noise. The size of the noise that is predicted is 1 for an exact score."
    return [html_page.heading("Averaged and raw weights"), html_page.note(note), html_page.table(head, rows)]


def _by_noise_level(entries: Sequence[Mapping[str, Any]]) -> list[html_page.Element]:
    """A classifier's accuracy at each noise level, for each checkpoint; nothing for a score."""
    if not entries:
        return []
    levels = {entry["step"]: entry["accuracy"]["by_noise_level"] for entry in entries}
    sigmas, chance = [level["noise_level"] for level in levels[entries[0]["step"]]], entries[0]["accuracy"]["chance"]
    rows = [[f"{sigmas[i]:.3g}", *(text(of_step[i]) for of_step in levels.values())] for i in range(len(sigmas))]
    curves: dict[str, html_page.Curve] = {
        f"step {step:,}": (sigmas, [level["mean"] for level in of_step], [level["standard_error"] for level in of_step])
        for step, of_step in levels.items()
    }
    curves["chance"] = ([sigmas[0], sigmas[-1]], [chance, chance], None)
    return [
        html_page.heading("Accuracy by noise level"),
        html_page.note(f"Standard deviation of the noise on images in [0, 1]; chance is {chance:.3g}."),
        html_page.table(["noise level", *(f"step {step:,}" for step in levels)], rows),
        html_page.figure(
            "accuracy, ± two standard errors", html_page.chart(curves, "noise level", "accuracy", log_x=True)
        ),
    ]


def sheet(folder: Path, entry: Mapping[str, Any]) -> str:
    """A square of the first samples of a checkpoint, by its entry in the folder's report; "" if it has none."""
    if "sampling" not in entry:
        return ""  # the folder may still have some from an earlier evaluation
    stem = folder / f"step_{entry['step']:08d}" / "samples"
    file = next((path for path in (Path(f"{stem}.npz"), Path(f"{stem}.0000.npz")) if path.exists()), None)
    if file is None:
        return ""
    name = f"samples at step {entry['step']:,}"
    with np.load(file, allow_pickle=False) as stored:
        if "captions" in stored:
            return above_captions(stored["images"], stored["captions"].tolist(), name)
        return square(stored["images"], name)


def real_sheet(folder: Path) -> str:
    """A square of the images that `keep_real` has kept beside the report; "" if there are none."""
    stored = atomic_files.read_arrays(folder / REAL)
    return square(stored["images"], "real images") if stored and "images" in stored else ""


def square(pixels: Pixels, name: str) -> html_page.Element:
    """A sheet of the first images, with as many rows as columns, enlarged to about `SIDE` pixels.

    name: of the images, in words.
    """
    size = max(pixels.shape[1:3])
    columns = columns_of(size, len(pixels))
    alt = f"{columns**2} {name}, in {columns} rows of {columns}"
    return html_page.picture(images.grid(pixels[: columns**2], columns), alt, max(1, SIDE // (size * columns)))


def above_captions(pixels: Pixels, captions: Sequence[str], name: str) -> html_page.Element:
    """A sheet of the first images with their captions, as many rows as columns. name: of the images, in words."""
    columns = min(CAPTIONED, math.isqrt(len(pixels)))
    shown = images.captioned(pixels[: columns**2], captions[: columns**2], columns)
    return html_page.picture(shown, f"{columns**2} {name} with their captions, in {columns} rows of {columns}", 1)


def columns_of(size: int, n: int) -> int:
    """Number of columns of a square sheet of up to n images whose longer side is `size` pixels."""
    return min(10, max(1, SIDE // size), math.isqrt(n))


def keep_real(folder: Path, config: Config, n: int) -> None:
    """Keeps as many images of the evaluation split as a sheet of n samples shows, as `folder`/real.npz, for the page.

    Every process reads them, because all open a data set together, and the first one writes. Where the images are not
    available, or the samples are of one class only, none are kept.
    """
    path = folder / REAL
    pixels = sample_metrics.real_images(config, columns_of(max(shape_of(config)[:2]), n) ** 2)
    if not is_first():
        return
    if pixels is None:
        path.unlink(missing_ok=True)  # of another data set or condition
    else:
        atomic_files.replace(path, lambda file: np.savez(file, images=pixels))
