"""The facts of a model card, each with the file of the workdir that it was read from.

Nothing is computed by the network and no data set is opened, so a card can be made wherever the workdir is. A fact that
no file has is `NOT_RECORDED`. A figure of another checkpoint than the card's is marked as stale, with its step.
"""

import datetime
import itertools
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from score_sde.cond import names, takes_text
from score_sde.config import Config
from score_sde.config.import_paths import is_import_path
from score_sde.errors import UsageError
from score_sde.evaluation import card_figures, report
from score_sde.evaluation.card_figures import NOT_RECORDED, Section
from score_sde.io import json_files, metrics_log, workdir
from score_sde.training import own_code, privacy, sheets
from score_sde.training.build import Classification, Experiment, parameter_counts, trainable
from score_sde.training.pieces import code_of
from score_sde.training.trainable import profiles_of, shape_of

OF_FILES = ("folder", "array")  # data sets that are a place, and no name
FACTS = ("fact", "value", "read from")


class Card(NamedTuple):
    """The facts of a model card.

    step: of the checkpoint that the card is of. author: texts by the names of `author.ENTRIES`. header: facts for the
    hub's header. picture: the sheet of samples of this step, or None.
    """

    name: str
    step: int
    header: dict[str, Any]
    sections: list[Section]
    author: Mapping[str, str]
    picture: Path | None
    caption: str


class _Run(NamedTuple):
    """The files of a workdir."""

    directory: Path
    step: int
    config: Config
    launch: dict[str, Any]
    lines: list[dict[str, Any]]
    experiment: Experiment | Classification | None  # None where it needs code that is not here
    reports: dict[str, dict[str, Any]]  # by file


def gather(directory: Path, author: Mapping[str, str]) -> Card:
    """The card of a workdir's last checkpoint. Raises `UsageError` where there is none, or a file cannot be used."""
    run = _read(directory)
    picture, caption = _picture(run)
    of_score, figures = not isinstance(run.experiment, Classification), (run.reports, run.step)
    sections = [_data(run), _network(run), _objective(run), _training(run)]
    sections.append(card_figures.losses(*figures, of_score=of_score))
    if of_score:
        audit = workdir.read(directory, card_figures.AUDIT)
        sections += [card_figures.samples(*figures), card_figures.audits(audit, run.step)]
    sections.append(_privacy(run))
    return Card(Path(directory).absolute().name, run.step, _header(run), sections, author, picture, caption)


def _read(directory: Path) -> _Run:
    step, config = workdir.checkpoint_steps(directory)[-1], workdir.stored_config(directory)
    try:
        own_code.check_same(directory, code_of(config))
        experiment = trainable(config)
    except UsageError:  # a piece of the user's own has changed, or is on another machine
        experiment = None
    files = sorted(directory.glob("*/report.json"))
    reports = {file.relative_to(directory).as_posix(): json_files.read(file) for file in files}
    reports = {file: content for file, content in reports.items() if _is_evaluation(content)}
    lines = metrics_log.read_lines(directory / "metrics.jsonl", step)
    return _Run(directory, step, config, workdir.read(directory, "launch.json"), lines, experiment, reports)


def _is_evaluation(content: Mapping[str, Any]) -> bool:
    """Whether a report.json is of an evaluation; experiments write some of their own."""
    entries = content.get("checkpoints")
    has_config = isinstance(content.get("config"), dict)
    return has_config and bool(entries) and all(isinstance(each, dict) and "step" in each for each in entries)


def _facts(title: str, rows: Mapping[str, tuple[Any, str]], *notes: str) -> Section:
    """A section of facts, {name: (value, file)}; a value that is None or empty is not recorded."""
    cells = {name: (str(value), file) for name, (value, file) in rows.items() if value not in (None, "", ())}
    return Section(title, FACTS, [(name, *cells.get(name, (NOT_RECORDED, ""))) for name in rows], list(notes))


def _data(run: _Run) -> Section:
    data, launch = run.config.data, "launch.json"
    splits, classes = run.launch.get("data", {}), workdir.class_names(run.directory)
    shape = "{} x {} x {}, height, width and channels".format(*shape_of(run.config))
    rows: dict[str, tuple[Any, str]] = {"data set": (data.dataset, "config.json"), "images": (shape, "config.json")}
    for split in ("training", "evaluation"):
        of_split = splits.get(split, {})
        n = of_split.get("images")
        rows[f"{split} images"] = (None if n is None else f"{n:,}", launch)
        digests = [f"{value} ({kind})" for kind, value in of_split.items() if kind != "images"]
        rows[f"digest of the {split} images"] = (", ".join(digests), launch)
    if classes:
        rows["classes"] = (f"{len(classes):,}: {', '.join(classes)}", launch)
    rows["licence of the images"] = (workdir.licence(run.directory), launch)
    return _facts("Data", rows)


def _network(run: _Run) -> Section:
    config, file = run.config, "config.json"
    rows: dict[str, tuple[Any, str]] = {"network": (config.model.name, file), "parameters": (None, file)}
    notes = []
    if run.experiment is None:
        notes.append("The parameters are not counted, since the run's own code has changed or is not on this machine.")
    else:
        learned, total = parameter_counts(run.experiment.param_shapes)
        rows["parameters"] = (f"{learned:,} trainable, {total:,} in all", file)
        rows["condition"] = (", ".join(names(run.experiment.cond_entries)) or "none", file)
    average = config.sampling.ema or profiles_of(config)[0].name
    rows["weights of this card"] = (f"average {average} after update {run.step:,}", f"checkpoints/{run.step}")
    if code := run.launch.get("code"):
        rows["own code"] = (", ".join(each["path"] for each in code.values()), "launch.json")
    return _facts("Network", rows, *notes)


def _objective(run: _Run) -> Section:
    config, file = run.config, "config.json"
    if isinstance(run.experiment, Classification):
        return _facts("Objective", {"objective": ("cross-entropy of the classes of noisy images", file)})
    by_name = {part: config[part].name for part in ("process", "parameterization", "times", "weight")}
    by_name["process"] = by_name["process"] or config.sde.name
    parts = by_name if run.experiment is None else vars(run.experiment.objective)
    rows: dict[str, tuple[Any, str]] = {part: (parts[part], file) for part in by_name}
    rows["coupling"] = (config.training.coupling, file)
    return _facts("Objective", rows)


def _training(run: _Run) -> Section:
    options, optim, log = run.config.training, run.config.optim, "metrics.jsonl"
    rows: dict[str, tuple[Any, str]] = {"updates": (f"{run.step:,}", f"checkpoints/{run.step}")}
    imported, notes = run.launch.get("imported", {}), []
    if imported:
        notes.append(f"The weights of update {imported['step']:,} were imported from {imported.get('file', 'a file')}.")
        notes.append("How those were trained is not recorded.")
    if run.step > _begin(run):
        if run.step < options.n_iters:
            notes.append(f"The training has not ended: {run.step:,} of {options.n_iters:,} updates are made.")
        since = " since the import" * bool(imported)
        rows[f"images seen{since}"] = (f"{_images_seen(run):,}", "launch.json, config.json")
        rows["batch"] = (f"{options.batch_size:,} images", "config.json")
        rows["optimizer"] = (f"{optim.optimizer}, learning rate {optim.lr:g}", "config.json")
        rows["seed"] = (run.config.seed, "config.json")
        if options.start_from:
            rows["began with the weights of"] = (Path(options.start_from).name, "config.json")
        rows |= {f"hours of training{since}, about": (_hours(run), log), "hours of the log": (_span(run.lines), log)}
        last = {key: (value, line["step"]) for line in run.lines for key, value in line.items() if key.endswith("loss")}
        rows |= {f"last {key.replace('_', ' ')}": (f"{x:.4g} at step {at:,}", log) for key, (x, at) in last.items()}
    devices, versions = run.launch.get("devices", {}), run.launch.get("versions", {})
    rows["hardware of the last launch"] = (", ".join(f"{n} x {kind}" for kind, n in devices.items()), "launch.json")
    rows["versions"] = (", ".join(f"{name} {version}" for name, version in versions.items()), "launch.json")
    for change in run.launch.get("changes", []):
        of = "" if change["key"] in (workdir.DATA, workdir.CODE) else f" from {change['from']} to {change['to']}"
        notes.append(f"At step {change['step']:,} the training's {change['key']} was changed{of}.")
    return _facts("Training", rows, *notes)


def _begin(run: _Run) -> int:
    """The number of updates that others made: those of an imported file, or none."""
    return run.launch.get("imported", {}).get("step", 0)


def _images_seen(run: _Run) -> int:
    """Updates times images a batch, over the sizes that the batch has had."""
    changes = [each for each in run.launch.get("changes", []) if each["key"] == "training.batch_size"]
    bounds = [_begin(run), *(min(each["step"], run.step) for each in changes), run.step]
    sizes = [*(each["from"] for each in changes), run.config.training.batch_size]
    return sum(size * (end - begin) for size, (begin, end) in zip(sizes, itertools.pairwise(bounds), strict=True))


def _hours(run: _Run) -> str:
    """The median time of an update times the updates, which leaves out pauses, evaluation and sheets."""
    timed = [(line["step"], line["time"]) for line in run.lines if "time" in line]
    paces = [(now - then) / (b - a) for (a, then), (b, now) in itertools.pairwise(timed) if b > a]
    if not paces:
        return ""
    pace = statistics.median(paces)
    return f"{pace * (run.step - _begin(run)) / 3600:.2g}, at {pace:.2g} s an update (median)"


def _span(lines: list[dict[str, Any]]) -> str:
    timed = [line["time"] for line in lines if "time" in line]
    if not timed:
        return ""
    day = datetime.datetime.fromtimestamp(timed[-1], datetime.UTC).date()
    return f"{(timed[-1] - timed[0]) / 3600:.2g}, pauses included; the last line is of {day}"


def _privacy(run: _Run) -> Section:
    """The budget that a private training has spent, updates after its last checkpoint included."""
    name, directory = "differential privacy", run.directory
    if not run.config.training.privacy:
        return _facts("Privacy", {name: ("trained without differential privacy", "config.json")})
    if not (directory / privacy.RECORD).exists():
        return _facts("Privacy", {name: (None, "")}, f"The workdir has no {privacy.RECORD}, which says what was spent.")
    of = privacy.spent(directory)
    guarantee = f"({of.epsilon:.4g}, {of.delta:g})-differentially private after {of.updates:,} updates"
    notes = ["Evaluations and audits look at the images again, outside of this budget."]
    if run.config.privacy.secret_seed is not None:
        notes.append("The seed of the noise is privacy.secret_seed of the config: who knows it can subtract the noise.")
    if (directory / privacy.SECRET).exists():
        notes.append(f"{privacy.SECRET} has the seed of the noise; delete it before you give the workdir to others.")
    return _facts("Privacy", {name: (guarantee, privacy.RECORD), "relation": (of.relation, privacy.RECORD)}, *notes)


def _picture(run: _Run) -> tuple[Path | None, str]:
    """The sheet of samples of the card's step, of an evaluation or of the training, and the sentence beneath it."""
    name = f"step_{run.step:08d}"
    files = [run.directory / Path(file).parent / name / "samples.png" for file in run.reports]
    files.append(sheets.path_of(run.directory, run.step))
    file = next((each for each in files if each.is_file()), None)
    if file is None:
        return None, "There is no picture of samples of this step."
    where = file.relative_to(run.directory).as_posix()
    return file, f"Samples at step {run.step:,}, not selected ({where})."


def _header(run: _Run) -> dict[str, Any]:
    """Facts for the header of a card on Hugging Face's hub; it has no entry for facts that are not known."""
    kind, task = "score-based-generative-model", ""
    if isinstance(run.experiment, Classification):
        kind, task = "noise-conditional-classifier", "image-classification"
    elif run.experiment is not None:
        entries = run.experiment.cond_entries
        task = "text-to-image" if takes_text(entries) else "" if entries else "unconditional-image-generation"
    named = run.config.data.dataset
    measured = [
        name
        for _, _, entry in card_figures.shown(run.reports, run.step)
        for name in (*(each for each in report.LABELS if each in entry), *report.means(report.metrics_of(entry)))
    ]
    kinds = list(dict.fromkeys(name.partition("[")[0].partition(",")[0] for name in measured))
    header = {"library_name": "score_sde", "tags": [kind, run.config.model.name]}
    header |= {"pipeline_tag": task} if task else {}
    header |= {} if named in OF_FILES or is_import_path(named) else {"datasets": [named]}
    return header | ({"metrics": kinds} if kinds else {})
