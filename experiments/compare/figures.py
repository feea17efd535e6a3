"""Figures of evaluations side by side, and their differences from the first run's."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from score_sde.experiments.compare.runs import Run, differing, is_place

from score_sde.config import FREE_SECTIONS
from score_sde.evaluation.figure_names import best_of, short_names
from score_sde.evaluation.report import LABELS, figures, text
from score_sde.io import workdir
from score_sde.io.html_page import Curve
from score_sde.models import CLASSIFIERS

LOSS, BITS_PER_DIM, BOUND = (LABELS[name] for name in ("loss", "bits_per_dim", "bits_per_dim_bound"))
OBJECTIVE = ("training.continuous", "training.likelihood_weighting", "training.reduce_mean")
DATA = ("data.dataset", "data.path", "data.image_size", "data.image_width", "data.num_channels", "data.held_out")
LIKELIHOOD = ("eval.bpd_dataset", "eval.dequantization")
Figures = dict[str, dict[str, Any]]


class Evaluation(NamedTuple):
    """One report of a run, or none: a column. checkpoints: figures by their names, by step."""

    column: str
    run: str
    folder: str
    config: dict[str, Any]
    checkpoints: dict[int, Figures]
    protocols: dict[str, dict[str, Any]]  # flattened, by fingerprint

    @property
    def last(self) -> Figures:
        return self.checkpoints[max(self.checkpoints)] if self.checkpoints else {}


def evaluations(runs: Sequence[Run]) -> list[Evaluation]:
    """All there are, in the order of the runs; of a run without any an empty one."""
    return [_evaluation(run, folder) for run in runs for folder in (run.reports or ["-"])]


def _evaluation(run: Run, folder: str) -> Evaluation:
    report = run.reports.get(folder, {})
    entries = report.get("checkpoints", [])
    measured = [entry.get("sampling", {}).get("metrics", {}) for entry in entries]
    return Evaluation(
        f"{run.name}, {folder}" if len(run.reports) > 1 else run.name,
        run.name,
        folder,
        run.config | report.get("config", {}),
        {entry["step"]: figures(entry, apart=True) for entry in entries},
        {of["fingerprint"]: workdir.flatten(of["protocol"]) for of in measured if of},
    )


def table(evaluations: Sequence[Evaluation]) -> list[list[str]]:
    """A row for each figure of the last checkpoints, a column for each evaluation."""
    rows = [
        ["folder", *(each.folder for each in evaluations)],
        ["step", *(f"{max(each.checkpoints):,}" if each.checkpoints else "-" for each in evaluations)],
    ]
    short, _ = names(evaluations)
    for name in _names(evaluations, last=True):
        rows.append([short[name], *(text(each.last.get(name)) if each.checkpoints else "-" for each in evaluations)])
    return rows


def best(evaluations: Sequence[Evaluation]) -> dict[str, int]:
    """The place of the best evaluation by each figure, where it is one quantity in all that have it."""
    places = {}
    for name in _names(evaluations, last=True):
        those = [each.config for each in evaluations if name in each.last]
        place = best_of(name, [each.last.get(name, {}).get("mean") for each in evaluations])
        if place is not None and not unlike(name, those):
            places[name] = place
    return places


def options(evaluations: Sequence[Evaluation]) -> list[list[str]]:
    """Rows of `differing`: how evaluations were made, where they differ. Those that were not are left out."""
    of_evaluations = [
        {key: value for key, value in each.config.items() if key.split(".")[0] in FREE_SECTIONS}
        for each in evaluations
        if each.checkpoints
    ]
    return [row for row in differing(of_evaluations) if not is_place(row[0])]


def against_first(evaluations: Sequence[Evaluation]) -> tuple[list[str], list[list[str]]]:
    """Columns, and a row for each figure: evaluations of the other runs minus the first run's.

    Of several of the first run, that of the same folder, or the first that compares. A figure that none compares with
    says why.
    """
    first = [each for each in evaluations if each.run == evaluations[0].run]
    others = [each for each in evaluations if each.run != evaluations[0].run and each.checkpoints]
    short, _ = names(evaluations)
    rows = [[short[name], *(_minus(first, other, name) for other in others)] for name in _names(first, last=True)]
    return [each.column for each in others], [row for row in rows if any(cell != "-" for cell in row[1:])]


def _minus(first: Sequence[Evaluation], other: Evaluation, name: str) -> str:
    references = [each for each in first if name in each.last]
    if name not in other.last or not references:
        return "-"
    same_folder_first = sorted(references, key=lambda each: each.folder != other.folder)
    reasons = [unlike(name, [each.config, other.config]) for each in same_folder_first]
    if all(reasons):
        return f"not comparable: {', '.join(reasons[0])}"
    return difference(same_folder_first[reasons.index([])].last[name], other.last[name])


def difference(a: Mapping[str, Any], b: Mapping[str, Any]) -> str:
    """b - a, with the error of a difference of independent figures."""
    errors = a["standard_error"], b["standard_error"]
    mean, error = b["mean"] - a["mean"], None if None in errors else math.hypot(*errors)
    return ("+" if mean > 0 else "") + text({"mean": mean, "standard_error": error})


def unlike(name: str, configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Keys for which a figure is not the same quantity under all configs.

    Distances of one name have one protocol, so they always are.
    """
    return [row[0] for row in differing([_quantity(name, config) for config in configs])]


def _quantity(name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """The config values that decide which quantity the figure is."""
    keys = DATA if name in LABELS.values() else ()
    parts: dict[str, Any] = {}
    if name == LOSS:
        keys += OBJECTIVE
        chosen = {key: value for key, value in config.items() if value not in (None, "")}  # older runs lack the rest
        for section in ("sde", "process", "parameterization", "times", "weight"):
            parts[f"{section}.*"] = {key: value for key, value in chosen.items() if key.startswith(f"{section}.")}
        if config.get("model.name") in CLASSIFIERS:
            parts["model.name"] = "classifier"
    if name in (BITS_PER_DIM, BOUND):
        keys += LIKELIHOOD
        parts["eval.bpd_with_cond"] = bool(config.get("eval.bpd_with_cond"))  # older reports lack it
    return parts | {key: config.get(key) for key in keys}


def over_checkpoints(evaluations: Sequence[Evaluation]) -> dict[str, dict[str, Curve]]:
    """Curves by figure and column; nothing where no evaluation has more than one checkpoint."""
    if all(len(each.checkpoints) < 2 for each in evaluations):
        return {}
    short, _ = names(evaluations)
    return {short[name]: {each.column: _curve(each, name) for each in evaluations} for name in _names(evaluations)}


def names(evaluations: Sequence[Evaluation]) -> tuple[dict[str, str], list[str]]:
    """Short names of all figures, the same in every table, and their footnotes."""
    return short_names(_names(evaluations))


def _curve(evaluation: Evaluation, name: str) -> Curve:
    points = {step: of_step[name] for step, of_step in sorted(evaluation.checkpoints.items()) if name in of_step}
    errors = [point["standard_error"] for point in points.values()]
    return list(points), [point["mean"] for point in points.values()], None if None in errors else errors


def protocols(evaluations: Sequence[Evaluation]) -> dict[str, dict[str, Any]]:
    return {fingerprint: of for each in evaluations for fingerprint, of in each.protocols.items()}


def _names(evaluations: Sequence[Evaluation], *, last: bool = False) -> list[str]:
    """Names of all figures, or of those of last checkpoints, each once."""
    all_of = (of_step for each in evaluations for of_step in ([each.last] if last else each.checkpoints.values()))
    return list(dict.fromkeys(name for of_step in all_of for name in of_step))
