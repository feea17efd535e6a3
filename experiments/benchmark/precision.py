"""The curve of the loss in bfloat16 against float32: does it move by more than another seed moves it?"""

import json
import statistics
from pathlib import Path

from score_sde.configs.vp.digits_ddpmpp_continuous import get_config

from score_sde.io import html_page
from score_sde.io.metrics_log import read_lines
from score_sde.training.run import train

SEEDS = (0, 1, 2)
UPDATES, EVERY = 300, 25
PRECISIONS = ("tf32", "bfloat16")


def run(folder: Path) -> int:
    """Trains the digits' network with each seed and precision, and compares evaluation losses from half-way on."""
    curves = {(seed, precision): _curve(folder, seed, precision) for seed in SEEDS for precision in PRECISIONS}
    means = {key: statistics.mean(loss for step, loss in curve if step > UPDATES // 2) for key, curve in curves.items()}
    moved = [means[seed, "bfloat16"] - means[seed, "tf32"] for seed in SEEDS]
    between = statistics.stdev(means[seed, "tf32"] for seed in SEEDS)
    summary = {
        "loss": {p: statistics.mean(means[seed, p] for seed in SEEDS) for p in PRECISIONS},
        "bfloat16 less tf32, by seed": moved,
        "their mean": statistics.mean(moved),
        "its standard error": statistics.stdev(moved) / len(moved) ** 0.5,
        "standard deviation between seeds": between,
    }
    (folder / "precision.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    drawn = {
        f"{precision}, seed {seed}": (*zip(*curve, strict=True), None) for (seed, precision), curve in curves.items()
    }
    figure = html_page.figure(
        "Evaluation loss of the digits' network", html_page.chart(drawn, "updates", "loss", log=True)
    )
    html_page.write(folder / "precision.html", "bfloat16 against float32", [figure, html_page.listing(summary)])
    print("\n".join(f"{name}: {value}" for name, value in summary.items()))
    return 0


def _curve(folder: Path, seed: int, precision: str) -> list[tuple[int, float]]:
    """Steps and evaluation losses."""
    config = get_config()
    config.seed = seed
    config.training.update(precision=precision, n_iters=UPDATES, eval_freq=EVERY, snapshot_freq=UPDATES)
    workdir = folder / f"{precision}_{seed}"
    train(config, workdir)
    lines = read_lines(workdir / "metrics.jsonl", UPDATES)
    return [(line["step"], line["eval_loss"]) for line in lines if "eval_loss" in line]
