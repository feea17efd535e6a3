"""Tables of a card's figures: those of evaluations, from their reports, and of an audit.

A figure of another checkpoint than the card's is marked as stale, with its step. Digits are those of an evaluation's
page.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from score_sde.evaluation import report
from score_sde.evaluation.figure_names import short_names
from score_sde.metrics.features import INCEPTION

NOT_RECORDED = "not recorded"
AUDIT = "audit/results.json"
FIGURES = ("figure", "value", "computed on", "step", "read from")
AUDITS = ("figure", "value and interval", "step", "read from")
TITLES = {  # of an audit's keys; others are shown as they are
    "gu": "Gu's ratio",
    "carlini": "Carlini's criterion",
    "auth_pct": "AuthPct",
    "held_out": "held-out images in the place of samples",
    "null": "share by chance",
    "p": "p-value",
    "asked": "nearest to the training image whose condition was asked for",
    "auc": "AUC",
}
Row = tuple[str, ...]
Reports = Mapping[str, Mapping[str, Any]]  # by the file in the workdir


class Section(NamedTuple):
    """A part of a card: a table whose last column is the file that the row was read from, and sentences beneath it."""

    title: str
    head: Row
    rows: list[Row]
    notes: Sequence[str] = ()


def shown(reports: Reports, step: int) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """File, report and entry of each evaluation: that of the card's step, or else the last one."""
    for file, content in reports.items():
        entries = content["checkpoints"]
        yield file, content, next((each for each in entries if each["step"] == step), entries[-1])


def _step(of: int, step: int) -> str:
    return f"{of:,}" + ("" if of == step else f" (stale: the card is of step {step:,})")


def losses(reports: Reports, step: int, *, of_score: bool) -> Section:
    """Loss, bits/dim and bound of each evaluation, and a classifier's accuracy.

    step: of the card. of_score: whether the network has a likelihood.
    """
    rows, notes = [], []
    for file, content, entry in shown(reports, step):
        for name, label in report.LABELS.items():
            if name in entry:
                on = _of_images(name, entry[name], content["config"])
                rows.append((label, report.text(entry[name]), on, _step(entry["step"], step), file))
        notes += [f"{file}: {said}" for said in report.warnings(entry)]
    notes += [f"{file} is not complete." for file, content in reports.items() if content.get("complete") is False]
    command = "score_sde --mode=eval --workdir=DIR --config.eval.enable_bpd=True"
    if of_score and all(row[0] != report.LABELS["bits_per_dim"] for row in rows):
        notes.append(f"The likelihood is not evaluated; `{command}` does.")
    return Section("Loss and likelihood", FIGURES, rows, notes + ["± is one standard error."] * bool(rows))


def _of_images(name: str, figure: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """The images of a figure, and the options that a likelihood depends on."""
    of = f" of {figure['of']:,}" if "of" in figure else ""
    split = config.get("eval.bpd_dataset") if name.startswith("bits") else None
    said = [f"{figure['images']:,}{of} {'training' if split == 'train' else 'evaluation'} images"]
    said += _average(config)
    if not name.startswith("bits"):
        return ", ".join(said)
    said += [f"{figure['repeats']} draws each"] if figure.get("repeats", 1) > 1 else []
    said += [f"each given its {' and '.join(figure['given'])}"] if "given" in figure else []
    said += [f"{config['eval.dequantization']} dequantization"] if "eval.dequantization" in config else []
    if name == "bits_per_dim":
        said += [f"{key} {config[f'eval.{key}']:g}" for key in ("rtol", "atol") if f"eval.{key}" in config]
        said += [f"{figure['nfe']:g} network evaluations"] if "nfe" in figure else []
    return ", ".join(said)


def _average(config: Mapping[str, Any]) -> list[str]:
    """The average of the weights that was evaluated, where it is not the run's own choice."""
    return [f"average {config['sampling.ema']}"] if config.get("sampling.ema") else []


def samples(reports: Reports, step: int) -> Section:
    """Metrics of the samples of each evaluation, and of what they are compared with."""
    tables: list[tuple[str, Mapping[str, Any], Row]] = []  # images, their figures, and the last two cells
    notes, features = [], set()
    for file, content, entry in shown(reports, step):
        last = _step(entry["step"], step), file
        if measured := report.metrics_of(entry):
            tables.append((_of_samples(entry, content["config"]), report.means(measured), last))
            tables += [(name, figures, last) for name, figures in report.baselines([entry]).items()]
            features.add(measured.get("protocol", {}).get("features"))
        if ends := report.ends_of(entry):
            notes.append(f"{file}, step {last[0]}, {report.ends(ends)}.")
    if not tables:
        command = "score_sde --mode=eval --workdir=DIR --config.eval.enable_sampling=True"
        return Section("Samples", FIGURES, [], [*notes, f"Samples are not measured; `{command}` does."])
    short, footnotes = short_names([name for _, figures, _ in tables for name in figures])
    rows = {  # noise and held-out images of several evaluations are the same, and stand once
        (images, *(report.text(figures[name]) if name in figures else "" for name in short)): last
        for images, figures, last in reversed(tables)
    }
    notes += [*footnotes, "± is one standard error. Distances compare only where their fingerprints are equal."]
    if features - {INCEPTION, None}:
        notes.append("A Fréchet distance of features other than Inception's is no FID.")
    cells = [(*row, *last) for row, last in reversed(rows.items())]
    return Section("Samples", ("images", *short.values(), "step", "read from"), cells, notes)


def _of_samples(entry: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """The number of samples of a metric, their sampler, the images that they are compared with, and the fingerprint."""
    sampling, measured = entry["sampling"], report.metrics_of(entry)
    protocol = measured.get("protocol", {})
    said = [f"{sampling['num_samples']:,} samples"] if "num_samples" in sampling else []
    said += [f"given {protocol['condition']}"] if protocol.get("condition") else []
    said += [str(protocol["sampler"])] if "sampler" in protocol else []
    said += _average(config)
    said += [f"{sampling['nfe']:g} network evaluations"] if "nfe" in sampling else []
    against = protocol.get("statistics_of", {})
    said += [f"against the {against['split']} split of {against['data_set']}"] if against.get("split") else []
    return ", ".join([*said, f"fingerprint {measured['fingerprint']}"])


def audits(results: Mapping[str, Any], step: int) -> Section:
    """The figures of audit/results.json that have an interval, and p-values, by their names there."""
    if not results:
        command = "score_sde --mode=experiment --name=audit --workdir=DIR"
        note = f"Memorisation, membership, extraction and balance are not audited; `{command}` does."
        return Section("Audits", AUDITS, [], [note])
    rows, notes = [], []
    audited = {name: of for name, of in results.get("audits", {}).items() if isinstance(of, Mapping)}
    for name, of in audited.items():
        at = _step(of["step"], step) if isinstance(of.get("step"), int) else NOT_RECORDED
        whose = f"{name}, " * (len(audited) > 1)
        rows += [(whose + figure, text, at, AUDIT) for figure, text in _intervals(of)]
        counts = [of.get("num_samples"), *(of.get("data", {}).get(name) for name in ("train", "held_out"))]
        if all(isinstance(each, int) for each in counts):
            notes.append(whose + "{:,} samples, {:,} training images, {:,} held-out images.".format(*counts))
        notes += [f"{whose}{part}: {reason}" for part, reason in _missing(of)]
    return Section("Audits", AUDITS, rows, [*notes, "The audit's page says on how many images, and how each misleads."])


def _missing(of: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Names of the parts of an audit that could not be made, and the reasons, at any depth."""
    for key, value in of.items():
        name = prefix + TITLES.get(key, key.replace("_", " "))
        if isinstance(value, Mapping) and "missing" in value:
            yield name, str(value["missing"])
        elif isinstance(value, Mapping):
            yield from _missing(value, f"{name}, ")


def _intervals(of: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Names and texts of an audit's objects {"value", "low", "high"}, and of its shares and p-values, at any depth."""
    for key, value in of.items():
        name = prefix + TITLES.get(key, key.replace("_", " "))
        if isinstance(value, Mapping):
            figures = [value.get(each) for each in ("value", "low", "high")]
            if all(isinstance(each, int | float) for each in figures):
                yield name, "{:.4g} ({:.4g} to {:.4g})".format(*figures)
            else:
                yield from _intervals(value, f"{name}, ")
        elif key in ("share", "p") and isinstance(value, int | float):
            yield name, f"{value:.4g}"
