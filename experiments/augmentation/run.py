"""Trains generators and classifiers, tests them, and writes results.json, table.md and the page."""

import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
from score_sde.experiments.augmentation import generator, page, report, splits
from score_sde.experiments.augmentation.classifier import Options
from score_sde.experiments.augmentation.config import get_config, transform_of
from score_sde.experiments.augmentation.generator import Generator
from score_sde.experiments.augmentation.measure import Learner, measured
from score_sde.experiments.augmentation.splits import Splits

from score_sde.config import Config
from score_sde.io import atomic_files, workdir

RESULTS = "results.json"


class Plan(NamedTuple):
    """Options of the experiment. counts: real images of each class, 0 for all. each: generated images of each class.

    workdir: of a class-conditional model; None for the digits' that is trained here. samples: a file of samples, in the
    place of those of a model; the workdir then names the data set only.
    """

    counts: tuple[int, ...]
    seeds: int
    each: int
    training: Options
    workdir: Path | None = None
    samples: Path | None = None


def run(folder: Path, plan: Plan) -> int:
    """Makes what there is not, and returns 0. Raises `UsageError` for data and samples that do not suffice."""
    started = time.monotonic()
    atomic_files.check_writable(folder)
    config = _config(folder, plan)
    parts = splits.load(config)
    for count in plan.counts:  # refused before anything is trained
        splits.subset(parts.train, parts.names, count, 0)
    most = transform_of(config.data.dataset)
    generated, own, saw = _generator(folder, plan, parts)
    learner = Learner(folder, plan.training, parts, most)
    by_count = measured(learner, generated, plan.counts, plan.seeds, own)
    result: dict[str, Any] = {
        "dataset": config.data.dataset,
        "names": parts.names,
        "images": {name: len(part.labels) for name, part in zip(Splits._fields[:3], parts, strict=False)},
        "seeds": plan.seeds,
        "each": plan.each,
        "training": plan.training._asdict(),
        "transform": most._asdict(),
        "generator": saw,
        "counts": by_count,
        "seconds": time.monotonic() - started,
        "devices": [device.device_kind for device in jax.devices()],
        "versions": workdir.versions(),
    }
    workdir.write(folder, RESULTS, result)
    print(report.text(result))
    of_counts = {f"Generated, of {count or 'all'} real images of each class": count for count in plan.counts}
    shown = {words: generated(count, 0) for words, count in (of_counts if own else {"Generated": 0}).items()}
    path = page.write(folder, result, parts, shown)
    print(f"{folder / RESULTS} has the figures, {folder / report.TABLE} the tables for a README. Open {path}")
    return 0


def _config(folder: Path, plan: Plan) -> Config:
    """The config whose data set is used."""
    if plan.workdir is not None:
        return workdir.stored_config(plan.workdir)
    config = get_config()
    config.data.data_dir = str(folder.absolute().parent / "tensorflow_datasets")
    return config


def _generator(folder: Path, plan: Plan, parts: Splits) -> tuple[Generator, bool, str]:
    """The generator, whether it is another for each number of real images, and words on the images it has seen."""
    if plan.samples is not None:
        saw = f"Nothing is known of the images from which the samples of {plan.samples} were learned."
        return generator.of_file(plan.samples, parts, plan.each), False, saw
    if plan.workdir is not None:
        file = generator.drawn(plan.workdir, folder, plan.each, len(parts.names))
        saw = (
            f"The generator of {plan.workdir} has seen its own training images in every row: in rows with few real "
            "images it knows more of them than the classifier, and it has seen the validation images that choose the "
            "share."
        )
        return generator.of_file(file, parts, plan.each), False, saw
    saw = (
        "Each generator has seen exactly the real images of its classifier, of the same seed, except in the rows of "
        "the generator of all images, which has seen every training image but the validation part."
    )
    return generator.trained_here(folder, parts, plan.each), True, saw
