"""Audits trained models, one or several side by side, and writes results.json, table.md and the page."""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from score_sde.experiments.audit import classes, draw, measure, noise, page, report
from score_sde.experiments.audit.config import MODELS
from score_sde.experiments.audit.measure import Compared, Figures
from score_sde.experiments.audit.subject import Subject, opened
from score_sde.experiments.sweep import runs
from score_sde.experiments.sweep.run import commands, drive
from score_sde.experiments.sweep.runs import Job, Run
from score_sde.experiments.sweep.space import Point

from score_sde.array_types import Pixels
from score_sde.audit.denoiser import condition_numbers
from score_sde.cond import restricted
from score_sde.errors import UsageError, one_of
from score_sde.evaluation import sample_metrics
from score_sde.io import atomic_files, workdir
from score_sde.metrics.features import TRAINED

RESULTS, PICTURES = "results.json", "pictures.npz"
PARTS = ("memorisation", "denoiser", "membership", "extraction", "balance")
SCALES = (1.0, 2.0, 4.0)  # of guidance, for models that take conditions
CONFIG = "experiments/audit/config.py"
GROUP = 6  # images of a group of near-duplicates that are kept for the page


def check_parts(parts: Sequence[str]) -> None:
    """Raises `UsageError` for a part that there is not."""
    for part in parts:
        one_of("--parts", part, PARTS)


class Options(NamedTuple):
    """Options of an audit.

    scales: of guidance; None stands for `SCALES`, if the model takes conditions. step: of the checkpoint, None for the
    last. attributes: a file, see `classes.attributes`. values: of config keys.
    """

    num_samples: int = 1000
    parts: Sequence[str] = PARTS
    scales: Sequence[float] | None = None
    step: int | None = None
    attributes: Path | None = None
    values: Mapping[str, str] = {}


def run(directory: Path, out: Path, options: Options, *, only_report: bool = False) -> int:
    """Audits one workdir. only_report: makes the page of what an earlier call left. Raises `UsageError`."""
    return _finish(out, {directory.name: directory}, {directory.name: out}, options, only_report, {}, ())


def run_digits(folder: Path, start: Any, options: Options, *, retries: int = 1, common: Point | None = None) -> int:
    """Trains the digits' models by a launcher, and audits both side by side; 0, or 1 if a training has failed.

    start: None trains nothing and makes the page of what there is. common: config values of both trainings.
    """
    planned = {name: plan(folder, name, common or {}) for name in MODELS}
    failures: dict[str, str] = {}
    if start is not None:
        _, failures = drive(list(planned.values()), start, retries, "audit", lambda run, job: run.point["model"])
    trained = {name: each.workdir for name, each in planned.items() if each.finished}
    if not trained:
        why = next(iter(failures.values()), "run without --report")
        raise UsageError(f"No model is trained, so there is nothing to audit: {why.rstrip('.')}.")
    outs = {name: directory / "audit" for name, directory in trained.items()}
    return _finish(folder, trained, outs, options, start is None, failures, commands(list(planned.values())))


def plan(folder: Path, name: str, common: Point) -> Run:
    """The training of a model; its folder is known by the values that it depends on."""
    flags = [runs.flag(key, value) for key, value in common.items()]
    file = f"{CONFIG}:{name}"
    config = runs.parsed(file, flags)
    directory, until = folder / f"{name}-{runs.digest(workdir.flatten(config.to_dict()))}", config.training.n_iters
    command = (sys.executable, "-m", "score_sde", "--mode=train", f"--config={file}", f"--workdir={directory}", *flags)
    return Run({"model": name}, config, (Job("train", f"train-{until}", directory, "", until, command),))


def _finish(
    folder: Path,
    directories: Mapping[str, Path],
    outs: Mapping[str, Path],
    options: Options,
    only_report: bool,
    failures: Mapping[str, str],
    trained_by: Sequence[str],
) -> int:
    if only_report:
        result = workdir.read(folder, RESULTS)
        if not result:
            raise UsageError(f"{folder} has no {RESULTS} to report; run without --report.")
    else:
        subjects = {name: opened(each, options.step, options.values) for name, each in directories.items()}
        audits = {name: audited(of, outs[name], options) for name, of in subjects.items()}
        result = {"audits": audits, "failed": dict(failures), "versions": workdir.versions()}
        workdir.write(folder, RESULTS, result)
    pictures = {name: atomic_files.read_arrays(outs[name] / PICTURES) or {} for name in result["audits"]}
    print(report.text(result))
    shown = page.write(folder, result, pictures, trained_by)
    print(f"{folder / RESULTS} has the figures, {folder / report.TABLE} the tables. Open {shown}")
    return 1 if failures else 0


def audited(of: Subject, out: Path, options: Options) -> Figures:
    """All figures of a subject. What it draws is kept in `out`, and the pictures of the page."""
    named = classes.attributes(options.attributes)
    scales = _scales(of, options.scales)
    with atomic_files.locked(out, "audit", "choose another --out"):
        result, pictures = _facts(of, options), {}
        samples = draw.samples(of, out, options.num_samples)
        drawn, own = samples["pixels"], measure.own_distances(of.train.images)
        near = measure.near_of(own)
        mirrored = of.model.config.data.random_flip
        images = Compared.of(drawn, of.train.images, of.held_out.images, mirrored=mirrored)
        if "memorisation" in options.parts:
            result["duplicates"] = measure.duplicates(of.train.images, near)
            pictures |= _groups(of.train.images, result["duplicates"])
            known = of.from_train if of.features.name.startswith(TRAINED) else None
            parts = _part(lambda: measure.memorised(images, own, lambda x: draw.features(of, x), known))
            result["memorised"], shown = parts if isinstance(parts, tuple) else (parts, {})
            pictures |= shown
            if of.model.experiment.cond_entries:
                alike = condition_numbers(
                    restricted(of.train.cond, of.model.experiment.cond_entries), len(of.train.images)
                )
                result["asked"] = measure.asked(images.samples, of.train.images, samples["asked"], alike)
            result["power"] = _part(lambda: measure.power(images))
        if {"denoiser", "membership"} & set(options.parts):
            result["levels"] = _part(lambda: noise.by_level(of, out, options.parts))
        if "extraction" in options.parts:
            result["extracted"], shown = measure.extracted(images, near)
            pictures |= shown
        if "balance" in options.parts:
            result["balance"] = _part(lambda: _balance(of, out, drawn, scales, named, options.num_samples))
        atomic_files.replace(out / PICTURES, lambda file: np.savez(file, **pictures), "--out")
    return result


def _facts(of: Subject, options: Options) -> Figures:
    config = of.model.config
    return {
        "step": of.model.step,
        "weights": of.model.digest,
        "ema": of.model.ema,
        "data": {
            "name": config.data.dataset,
            "train": len(of.train.images),
            "of": len(of.whole),
            "held_out": len(of.held_out.images),
            "from_train": of.from_train,
            "digests": of.digests,
        },
        "num_samples": options.num_samples,
        "mirrored": bool(config.data.random_flip),
        "sampler": config.sampling.method,
        "num_steps": config.sampling.num_steps,
        "scale": config.guidance.scale if of.model.experiment.cond_entries else None,
        "conditions": sorted(of.model.experiment.cond_entries),
        "features": of.features.name,
        "licence": workdir.licence(of.model.directory),
        "devices": sorted({device.device_kind for device in jax.devices()}),
    }


def _part(figures: Callable[[], Any]) -> Any:
    """A part of an audit, or the sentence why there is none; the other parts go on."""
    try:
        return figures()
    except UsageError as error:
        return measure.missing(error)


def _groups(train: Pixels, of: Figures) -> dict[str, np.ndarray]:
    """Images of the first groups of near-duplicates, one row of `GROUP` each; groups that are smaller repeat."""
    rows = [np.resize(group, GROUP) for group in of["near"]["shown"]]
    return {"duplicates": train[np.concatenate(rows)]} if rows else {}


def _scales(of: Subject, asked: Sequence[float] | None) -> Sequence[float]:
    takes = bool(of.model.experiment.cond_entries)
    if asked and not takes:
        raise UsageError("--scales are of guidance, and this network takes no condition; leave them out.")
    return (SCALES if takes else ()) if asked is None else asked


def _balance(
    of: Subject, out: Path, drawn: Pixels, scales: Sequence[float], named: Mapping[str, Any], n: int
) -> Figures:
    """The balance of classes and of each attribute, of the samples and of those at other guidance scales."""
    by = classes.judges(of, sample_metrics.folder(of.model.config), named)
    own = of.model.config.guidance.scale
    samples = {f"{own:g}" if of.model.experiment.cond_entries else "": drawn}
    samples |= {f"{w:g}": draw.samples(of, out, n, w)["pixels"] for w in scales if w != own}
    samples = dict(sorted(samples.items(), key=lambda item: float(item[0] or 0)))
    features = {scale: draw.features(of, pixels) for scale, pixels in samples.items()}
    more, result = dict(features=features, real=draw.features(of, of.train.images)), {}
    for name, judge in by.items():
        labels = of.train.labels if name == "class" else named[name].train[of.trained_on]
        names = of.whole.class_names if name == "class" else None
        result[name] = _part(lambda judge=judge, of=labels: classes.balanced(judge, samples, of, **more))
        result[name]["names"] = list(names) if names else [str(i) for i in range(len(judge.confusion))]
    return result
