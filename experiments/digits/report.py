"""One self-contained page of a run: pictures inside, nothing loaded from elsewhere."""

import base64
import html
import io
import json
import os
import platform
from pathlib import Path
from typing import Any, NamedTuple

import jax
import matplotlib
import numpy as np

from score_sde import images, workdir
from score_sde.trained import Trained

matplotlib.use("Agg")
from matplotlib import pyplot as plt

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
    model: Trained,
    real: np.ndarray,
    samplers: list[SamplerResult],
    trajectory: np.ndarray,
    bpd: dict[str, Any],
) -> Path:
    """Writes `folder`/report.html and returns its path."""
    config = model.config
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    grids = [("Real, held out", real)] + [(NAMES[s.name], s.pixels) for s in samplers]
    rows = "".join(
        f"<tr><td>{NAMES[s.name]}<td>{html.escape(_describe(s.name, config))}<td>{s.nfe:.1f}"
        f"<td>{s.seconds:.1f}<td>{len(s.pixels) / s.seconds:.2f}</tr>"
        for s in samplers
    )
    settings = "\n".join(f"{key} = {value}" for key, value in workdir.flatten(config.to_dict()).items())
    versions = "\n".join(f"{name} {version}" for name, version in workdir.versions().items())
    devices = ", ".join(f"{device.platform} ({device.device_kind})" for device in jax.devices())
    page = PAGE.format(
        title=html.escape(title),
        step=model.step,
        grids="".join(_figure(name, p) for name, p in grids),
        trajectory=_picture(images.grid(trajectory, TIMES), magnify=6),
        loss=_loss_curve(metrics),
        bpd=f"{bpd['mean']:.3f} ± {bpd['standard_error']:.3f}",
        bpd_note=f"{bpd['images']} held-out images, {bpd['repeats']} pass(es) with fresh dequantisation noise and "
        f"Rademacher probes, rtol = atol = {config.eval.rtol:g}; {bpd['nfe']:.0f} evaluations on average. "
        "The error is one standard error over images.",
        rows=rows,
        machine=html.escape(
            f"{devices}; {os.cpu_count()} cores; {platform.platform()}; seed {config.seed}; 1 repetition"
        ),
        settings=html.escape(settings),
        versions=html.escape(versions),
    )
    path = folder / "report.html"
    path.write_text(page)
    return path


def _describe(method: str, config) -> str:
    sampling = config.sampling
    if method == "ode":
        return f"Dormand-Prince 5(4), rtol = atol = {sampling.rtol:g}, a step size for each image"
    corrector = (
        "no corrector" if sampling.corrector == "none" else f"corrector {sampling.corrector}, snr {sampling.snr:g}"
    )
    return f"predictor {sampling.predictor}, {corrector}, {sampling.num_scales or config.sde.num_scales} steps"


def _picture(sheet: np.ndarray, magnify: int = 4) -> str:
    buffer = io.BytesIO()
    images.write_png(buffer, sheet, magnify)
    return f'<img src="data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}">'


def _figure(caption: str, pixels: np.ndarray) -> str:
    return f"<figure>{_picture(images.grid(pixels, 10))}<figcaption>{html.escape(caption)}</figcaption></figure>"


def _loss_curve(metrics: list[dict[str, float]]) -> str:
    figure, axes = plt.subplots(figsize=(7.5, 3.2), layout="constrained")
    for name, label in (("training_loss", "training, one batch"), ("eval_loss", "held out, EMA weights, one batch")):
        points = [(line["step"], line[name]) for line in metrics if name in line]
        axes.plot(*zip(*points, strict=True), label=label, linewidth=1.2)
    axes.set(xlabel="step", ylabel="denoising loss an element", yscale="log")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg")
    plt.close(figure)
    return buffer.getvalue()[buffer.getvalue().index("<svg") :]


PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>
  body {{ font: 16px/1.5 system-ui, sans-serif; color: #1c1c1c; }}
  body {{ max-width: 84rem; margin: 2rem auto; padding: 0 1.5rem; }}
  h1 {{ font-size: 1.6rem; }} h2 {{ font-size: 1.15rem; margin-top: 2.2rem; }}
  figure {{ margin: 0; }} figcaption {{ color: #555; padding-top: .3rem; }}
  .grids {{ display: flex; gap: 1.2rem; }} .grids figure {{ flex: 1; }} .grids img {{ width: 100%; }}
  img {{ image-rendering: pixelated; max-width: 100%; }}
  table {{ border-collapse: collapse; }}
  th, td {{ text-align: left; padding: .35rem 1rem .35rem 0; border-bottom: 1px solid #ddd; }}
  .figure {{ font-size: 1.7rem; font-weight: 600; }} .note {{ color: #555; max-width: 60rem; }}
  pre {{ background: #f5f5f5; padding: 1rem; overflow-x: auto; font-size: .8rem; }}
</style>
<h1>{title}</h1>
<p class="note">Checkpoint of step {step}, EMA weights.</p>
<h2>Samples beside real images</h2>
<div class="grids">{grids}</div>
<h2>From noise to digits</h2>
{trajectory}
<p class="note">Each row is one sample of the predictor-corrector sampler; time runs from 1 on the left to its end,
where the last column is denoised.</p>
<h2>Bits/dim, held out</h2>
<p class="figure">{bpd}</p>
<p class="note">{bpd_note} These images have 17 grey levels spread over 256, which a model may learn, so the figure is
not comparable with other data sets.</p>
<h2>Samplers</h2>
<table><tr><th>sampler<th>settings<th>network evaluations<th>seconds<th>images/s</tr>{rows}</table>
<p class="note">Wall-clock without compilation. {machine}</p>
<h2>Loss</h2>
{loss}
<h2>Versions</h2>
<pre>{versions}</pre>
<h2>Config</h2>
<pre>{settings}</pre>
</html>
"""
