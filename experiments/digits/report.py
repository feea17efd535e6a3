"""The page of a run: samples beside real images, a trajectory, figures and curves."""

import json
import os
import platform
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from score_sde.experiments.digits.conditional import EACH, FILLED, SAMPLER, SCALE, STEPS, Halves, OfClasses

from score_sde import images
from score_sde.evaluation.figure_names import short_names
from score_sde.evaluation.report import baselines, figures
from score_sde.evaluation.report import text as page_text
from score_sde.inference.pretrained import Pretrained
from score_sde.io import html_page, workdir

TIMES = 10  # columns of the trajectory
NAMES = {"pc": "Predictor-corrector", "ode": "Probability-flow ODE"}


class SamplerResult(NamedTuple):
    name: str
    pixels: np.ndarray
    nfe: float
    seconds: float


def write_report(
    folder: Path,
    title: str,
    model: Pretrained,
    real: np.ndarray,
    samplers: list[SamplerResult],
    trajectory: np.ndarray,
    bpd: dict[str, Any],
    classes: OfClasses,
    halves: Halves,
    measured: dict[str, dict[str, Any]],
) -> Path:
    """Writes `folder`/report.html and returns its path."""
    config = model.config
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    grids = [("Real, held out", real)] + [(NAMES[s.name], s.pixels) for s in samplers]
    devices = ", ".join(f"{device.platform} ({device.device_kind})" for device in jax.devices())
    body = html_page.element(
        BODY,
        step=model.step,
        grids=[
            html_page.figure(name, html_page.picture(images.grid(pixels, 10), f"{len(pixels)} digits: {name}", 6))
            for name, pixels in grids
        ],
        trajectory=html_page.picture(
            images.grid(trajectory, TIMES),
            f"{len(trajectory) // TIMES} samples at {TIMES} times from noise to digit",
            6,
        ),
        bpd=f"{bpd['mean']:.3f} ± {bpd['standard_error']:.3f}",
        bpd_note=f"{bpd['images']} held-out images, {bpd['repeats']} pass(es) with fresh dequantization noise and "
        f"Rademacher probes, rtol = atol = {config.eval.rtol:g}; {bpd['nfe']:.0f} evaluations on average. "
        "The error is one standard error over images.",
        samplers=html_page.table(
            ["sampler", "settings", "network evaluations", "seconds", "images/s"],
            [_row(sampler, config) for sampler in samplers],
        ),
        machine=f"{devices}; {os.cpu_count()} cores; {platform.platform()}; seed {config.seed}; 1 repetition",
        classes=_classes(classes),
        halves=_halves(halves),
        figures=_figures(measured),
        loss=_loss_curves(metrics),
        versions=html_page.folded("Versions", html_page.listing(workdir.versions())),
        settings=html_page.folded("Config", html_page.listing(workdir.flatten(config.to_dict()))),
    )
    html_page.write(folder / "report.html", title, [body])
    return folder / "report.html"


def _row(sampler: SamplerResult, config) -> list[str]:
    rate = len(sampler.pixels) / sampler.seconds
    settings = _describe(sampler.name, config)
    return [NAMES[sampler.name], settings, f"{sampler.nfe:.1f}", f"{sampler.seconds:.1f}", f"{rate:.2f}"]


def _describe(method: str, config) -> str:
    sampling = config.sampling
    if method == "ode":
        return f"Dormand-Prince 5(4), rtol = atol = {sampling.rtol:g}, a step size for each image"
    corrector = (
        "no corrector" if sampling.corrector == "none" else f"corrector {sampling.corrector}, snr {sampling.snr:g}"
    )
    return f"predictor {sampling.predictor}, {corrector}, {sampling.num_scales or config.sde.num_scales} steps"


def _classes(samples: OfClasses) -> html_page.Element:
    """Ten samples of each class in a row of its own, and what the judge takes them for."""
    shown = samples.pixels.reshape(10, EACH, *samples.pixels.shape[1:])[:, :10]
    grid = html_page.figure(
        "Asked for: 0 in the first row, 9 in the last",
        html_page.picture(images.grid(_merged(shown), 10), "Ten samples of each class, a row for each class", 6),
    )
    rows = [[str(number), *(str(n) if n else "" for n in row)] for number, row in enumerate(samples.confusion)]
    confusion = html_page.table(["asked for \\ recognised", *map(str, range(10))], rows)
    text = (
        f"{EACH} samples of each class by the gradient of a noise-conditional classifier, scale {SCALE:g}, "
        f"{SAMPLER['method']}, {samples.nfe:g} evaluations. Whether they show it is judged by scikit-learn's "
        f"support-vector machine, trained on real digits only and right about {samples.judge:.1%} of the held-out ones."
    )
    accuracy = f"{samples.accuracy:.1%} ± {samples.standard_error:.1%} recognised"
    return html_page.element(CLASSES, grid=grid, accuracy=accuracy, confusion=confusion, note=html_page.note(text))


def _halves(halves: Halves) -> html_page.Element:
    psnr, mean, spread = (page_text(halves.figures[name]) for name in ("psnr", "psnr_of_mean", "spread"))
    text = (
        f"The right half of held-out digits is hidden, and filled in {FILLED} times (Euler-Maruyama, the paper's "
        f"projection, {STEPS} evaluations). PSNR of samples {psnr} dB, of their mean {mean} dB; spread {spread}, of "
        "pixels in [0, 1]. Errors are over images. What is known comes back as it was."
    )
    alt = f"Rows of held-out digits: truth, observed half, {FILLED} samples, their mean and spread"
    return html_page.picture(halves.sheet, alt, 1) + html_page.note(text)


def _figures(measured: dict[str, dict[str, Any]]) -> list[html_page.Element]:
    """Figures of each sampler's samples, and beneath them those of noise and of real images."""
    entries = {NAMES[name]: {"sampling": {"metrics": of}} for name, of in measured.items()}
    rows = {name: figures(entry) for name, entry in entries.items()} | baselines(list(entries.values()))
    names = list(dict.fromkeys(name for of in rows.values() for name in of))
    head = ["samples", *short_names(names)[0].values()]
    table = html_page.table(head, [[row, *(page_text(of.get(name)) for name in names)] for row, of in rows.items()])
    warnings = [html_page.note(f"Warning: {of['warning']}") for of in measured.values() if "warning" in of]
    return [table, *warnings]


def _merged(rows: np.ndarray) -> np.ndarray:
    return rows.reshape(-1, *rows.shape[2:])


def _loss_curves(metrics: list[dict[str, float]]) -> html_page.Element:
    curves = {}
    for name, label in (("training_loss", "training, one batch"), ("eval_loss", "held out, EMA weights, one batch")):
        points = [(line["step"], line[name]) for line in metrics if name in line]
        curves[label] = (*zip(*points, strict=True), None)
    return html_page.chart(curves, "step", "denoising loss an element", log=True)


CLASSES = """\
<div class="pair">{{ grid }}<div><p class="figure">{{ accuracy }}</p>{{ confusion }}</div></div>{{ note }}"""
BODY = """\
<p class="note">Checkpoint of step {{ step }}, EMA weights.</p>
<h2>Samples beside real images</h2>
<div class="grids">{% for each in grids %}{{ each }}{% endfor %}</div>
<h2>From noise to digits</h2>
{{ trajectory }}
<p class="note">Each row is one sample of the predictor-corrector sampler. Time runs from 1 on the left to its end on
the right; the last column is denoised.</p>
<h2>Samples of a class</h2>
{{ classes }}
<h2>Right half hidden, and filled in</h2>
{{ halves }}
<h2>Loss</h2>
<figure>{{ loss }}<figcaption>Loss against updates</figcaption></figure>
<h2>Bits/dim, held out</h2>
<p class="figure">{{ bpd }}</p>
<p class="note">{{ bpd_note }} These images have 17 grey levels spread over 256, which a model may learn, so the figure
is not comparable with other data sets.</p>
<h2>Distances beside those of noise and of held-out images</h2>
{% for each in figures %}{{ each }}{% endfor %}
<p class="note">The features are those of a small network trained on these digits. Each row has as many images, and the
distances compare with one another only.</p>
<h2>Samplers</h2>
{{ samplers }}
<p class="note">Wall-clock without compilation. {{ machine }}</p>
<h2>Settings</h2>
{{ versions }}
{{ settings }}"""
