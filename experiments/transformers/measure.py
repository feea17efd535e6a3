"""Figures of the models, from the arrays that `draw` has left, and which differences between models are significant."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from score_sde.experiments.recipes import comparisons
from score_sde.experiments.sweep.runs import Run
from score_sde.experiments.transformers.models import EVALUATIONS, MASKS, filled_name

from score_sde import data
from score_sde.array_types import Pixels
from score_sde.audit import neighbours
from score_sde.evaluation import sample_metrics
from score_sde.evaluation.sample_metrics import Measure
from score_sde.io import atomic_files
from score_sde.io.result_cache import Arrays
from score_sde.metrics import measure as figures_of
from score_sde.metrics.judge import OPTIONS, Judge
from score_sde.metrics.judge import judge as judge_of
from score_sde.training.run import load_data

JUDGE = OPTIONS  # another training than that of the features by which distances are measured
MOST = 50_000, 10_000  # images of either split that are looked at
CERTAIN = 0.5  # the judge's probability from which on it recognises an image
NEIGHBOURS, SHOWN = "neighbours.npz", 16  # the nearest training images of the first samples of each model
Drawn = dict[str, Arrays]  # of one trained model, by the names of `draw`
AllDrawn = dict[str, list[Drawn]]  # of each model, in the order of the seeds
Curve = list[tuple[int, float]]  # distances by the number of evaluations, fewest first


class Data(NamedTuple):
    """The images of the two splits, and their labels where there are any."""

    train: data.Batch
    test: data.Batch
    judge: Judge | None
    measure: Measure | None


def read(finished: Sequence[Run]) -> list[Drawn]:
    """The arrays of each run; rounds of samples are put together."""
    return [_arrays(run.workdir / run.jobs[-1].folder) for run in finished]


def _arrays(folder: Path) -> Drawn:
    drawn: dict[str, list[Arrays]] = {}
    for file in sorted(folder.glob("*.npz")):
        name, _, first = file.stem.rpartition("_")
        part = name.startswith("samples_") and first.isdigit()
        if not file.stem.startswith("bits_per_dim"):
            drawn.setdefault(name if part else file.stem, []).append(atomic_files.read_arrays(file))
    return {name: {key: np.concatenate([part[key] for part in of]) for key in of[0]} for name, of in drawn.items()}


def collected(folder: Path, finished: Mapping[str, Sequence[Run]], drawn: AllDrawn) -> dict[str, Any]:
    """Figures of the models, of real images beside them, and the comparisons of models with all of their seeds."""
    first = next(run for of_model in finished.values() for run in of_model)
    images = _data(folder, first.config)
    figures: dict[str, dict[str, list[float]]] = {}
    curves = {name: [_curve(images, one) for one in of_model] for name, of_model in drawn.items()}
    for name, of_model in drawn.items():
        for one, curve in zip(of_model, curves[name], strict=True):
            for figure, value in _figures(images, one, curve).items():
                figures.setdefault(figure, {}).setdefault(name, []).append(value)
    _keep_neighbours(folder, images, drawn)
    seeds = max(map(len, drawn.values()))
    bits = {name: [one["likelihoods"]["bits"] for one in of_model] for name, of_model in drawn.items()}
    compared = {figure: compare(figure, rows, seeds, bits) for figure, rows in figures.items()}
    return {
        "updates": first.config.training.n_iters,
        "batch_size": first.config.training.batch_size,
        "num_samples": len(_last(next(iter(drawn.values()))[0])),
        "num_filled": len(next(iter(drawn.values()))[0]["filled_lower_half"]["truth"]),
        "features": images.measure.features.name if images.measure else "",
        "accuracy": images.judge.accuracy if images.judge else None,
        "evaluations": {name: [budget for budget, _ in samples(of_model[0])] for name, of_model in drawn.items()},
        "nfe_of_bits": {name: float(np.mean([one["likelihoods"]["nfe"] for one in of])) for name, of in drawn.items()},
        "bound": {
            name: [float(one["likelihoods"]["bound"].mean()) for one in of]
            for name, of in drawn.items()
            if "bound" in of[0]["likelihoods"]
        },
        "curves": curves,
        "levels": len(np.unique(images.train.images)),
        "reference": _reference(images, len(_last(next(iter(drawn.values()))[0]))),
        "figures": figures,
        "comparisons": {figure: of["comparisons"] for figure, of in compared.items()},
        "unequal": {figure: of["unequal"] for figure, of in compared.items()},
        "versions": first.report["versions"],
        "devices": first.report["devices"],
    }


def _data(folder: Path, config: Any) -> Data:
    splits = [load_data(config, train=train) for train in (True, False)]
    parts = [source.take(data.part_of(len(source), most)) for source, most in zip(splits, MOST, strict=True)]
    judge = judge_of(*splits, folder / "judge", options=JUDGE) if splits[0].num_classes > 1 else None
    return Data(*parts, judge, sample_metrics.measure(config))


def samples(drawn: Drawn) -> list[tuple[int, Pixels]]:
    """Numbers of evaluations, and the samples drawn with them, fewest evaluations first."""
    named = sorted(name for name in drawn if name.startswith("samples_"))
    return [(int(name.removeprefix("samples_")), drawn[name]["pixels"]) for name in named]


def _last(drawn: Drawn) -> Pixels:
    return samples(drawn)[-1][1]


def _figures(images: Data, drawn: Drawn, curve: Curve) -> dict[str, float]:
    """Every figure of one trained model that is tested."""
    best = _last(drawn)
    values = {"bits": float(drawn["likelihoods"]["bits"].mean(dtype=np.float64))}
    if curve:
        values["distance"] = curve[-1][1]
    values |= _judged(images, best)
    values["copies"] = nearness(best, images.train.images, images.test.images)
    if curve:
        at = dict(curve)
        values |= {f"distance_{budget}": at.get(budget, values["distance"]) for budget in EVALUATIONS[:-1]}
    if images.judge:
        for mask in MASKS:
            filled = drawn[filled_name(mask)]
            right = images.judge.of(filled["pixels"]).argmax(axis=1) == filled["labels"]
            values[f"filled_{mask}"] = 100 * float(right.mean())
    return values


def _of_samples(images: Data, pixels: Pixels) -> dict[str, float]:
    """Figures of images alone, such as real ones."""
    distance = {"distance": _distance(images.measure, pixels)} if images.measure else {}
    return distance | _judged(images, pixels)


def _judged(images: Data, pixels: Pixels) -> dict[str, float]:
    """Figures of images in the eyes of the judge, none without a judge."""
    if not images.judge:
        return {}
    p = images.judge.of(pixels)
    recognised = 100 * float((p.max(axis=1) > CERTAIN).mean())
    return {"recognised": recognised, "classes": class_distance(p.argmax(axis=1), images.train.labels)}


def _distance(measure: Measure, pixels: Pixels) -> float:
    figures = figures_of(measure.features.name, measure.features.of(pixels), measure.statistics)
    return next(value["mean"] for name, value in figures.items() if name.startswith(("frechet", "fid")))


def _curve(images: Data, drawn: Drawn) -> Curve:
    """Distances by the number of evaluations."""
    if images.measure is None:
        return []
    return [(budget, _distance(images.measure, pixels)) for budget, pixels in samples(drawn)]


def class_distance(classes: np.ndarray, labels: np.ndarray) -> float:
    """Total variation between the shares of classes among samples and among labels: 0 if equal, 1 if disjoint.

    import numpy as np
    from score_sde.experiments.transformers.measure import class_distance

    assert class_distance(np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1])) == 0.25
    """
    k = int(max(classes.max(), labels.max())) + 1
    shares = [np.bincount(each, minlength=k) / len(each) for each in (classes, labels)]
    return float(np.abs(shares[0] - shares[1]).sum() / 2)


def nearest(pixels: Pixels, among: Pixels) -> tuple[np.ndarray, np.ndarray]:
    """Index of the nearest of other images to each image, and the distance: a root mean square of pixels in [0, 1]."""
    of = neighbours.nearest(pixels, among)
    return of.indices[:, 0], of.distances[:, 0] / math.sqrt(pixels[0].size)


def nearness(pixels: Pixels, train: Pixels, test: Pixels) -> float:
    """Mean distance to the nearest training image over that to the nearest of as many test images.

    1 for a model that has copied nothing, 0 for one that copies. The training images are taken in parts of as many as
    there are test images, since the nearest of more images is nearer.
    """
    parts = np.array_split(np.arange(len(train)), max(1, round(len(train) / len(test))))
    to_train = np.mean([nearest(pixels, train[part])[1].mean() for part in parts])
    return float(to_train / nearest(pixels, test)[1].mean())


def _keep_neighbours(folder: Path, images: Data, drawn: AllDrawn) -> None:
    """Writes the nearest training images of the first samples of each model."""
    first = {name: _last(of_model[0])[:SHOWN] for name, of_model in drawn.items()}
    found = {name: images.train.images[nearest(pixels, images.train.images)[0]] for name, pixels in first.items()}
    atomic_files.replace(folder / NEIGHBOURS, lambda file: np.savez(file, **found), "--folder")


def _reference(images: Data, n: int) -> dict[str, dict[str, float]]:
    """Figures of test images and of noise in the place of samples, and bits/dim of independent pixels."""
    shape = images.test.images.shape[1:]
    noise = np.random.default_rng(0).integers(0, 256, (n, *shape), np.uint8)
    half = len(images.test.images) // 2
    test = _of_samples(images, images.test.images) | {
        "copies": nearness(images.test.images[:half], images.train.images, images.test.images[half:])
    }
    if images.judge:
        right = images.judge.of(images.test.images).argmax(axis=1) == images.test.labels
        test |= {f"filled_{mask}": 100 * float(right.mean()) for mask in MASKS}
    pixels = {"bits": independent_bits(images.train.images, images.test.images)}
    return {"real test images": test, "noise": _of_samples(images, noise), "independent pixels": pixels}


def independent_bits(train: Pixels, test: Pixels) -> float:
    """Bits/dim of test images if each pixel is drawn by itself, from its own histogram of training images.

    One image more is spread over all 256 levels, so that no byte is impossible.
    """
    x, y = (each.reshape(len(each), -1) for each in (train, test))
    counts = np.stack([np.bincount(column, minlength=256) for column in x.T]) + 1 / 256
    p = counts / counts.sum(axis=1, keepdims=True)
    return float(-np.log2(p[np.arange(y.shape[1]), y]).mean())


def compare(
    figure: str, rows: Mapping[str, Sequence[float]], seeds: int, bits: Mapping[str, Sequence[np.ndarray]]
) -> dict[str, Any]:
    """Comparisons of the models that have all seeds: distances by logarithms, bits/dim with errors over images too."""
    names = [name for name, values in rows.items() if len(values) == seeds]
    if len(names) < 2 or seeds < 2:
        return {"comparisons": [], "unequal": None}
    values, of_images = np.array([rows[name] for name in names]), None
    if figure == "bits":
        of_images = np.array([bits[name] for name in names])
    elif figure.startswith("distance"):
        values = np.log(values)
    pairs = comparisons.compare(names, values, of_images)
    return {"comparisons": comparisons.as_values(pairs), "unequal": comparisons.unequal(values)}
