"""EDM's networks for CIFAR-10: trained where asked for, and measured by three sets of samples, as in the paper."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from score_sde.experiments.compare.report import aligned
from score_sde.experiments.sweep import job as program
from score_sde.experiments.sweep import results, runs
from score_sde.experiments.sweep.definition import Sweep
from score_sde.experiments.sweep.run import drive
from score_sde.experiments.sweep.runs import Job, Run
from score_sde.experiments.sweep.space import Point, Space

from score_sde.errors import UsageError, one_of
from score_sde.evaluation.sample_metrics import measure
from score_sde.io import html_page, workdir
from score_sde.metrics.features import INCEPTION
from score_sde.metrics.frechet import frechet_distance

RESULTS = "results.json"
NOT_RUN = "not run"
SETS, IN_SET = 3, 50_000
# FID of the paper, the least of three: of each network by its config. Karras et al. (2022), abstract and table 2.
PUBLISHED = {
    "edm/cifar10_ddpmpp": "1.97",
    "edm/cifar10_ncsnpp": "1.98",
    "edm/cifar10_ddpmpp_classes": "1.79",
}
SAMPLES: Point = {
    "eval.enable_loss": False,
    "eval.enable_bpd": False,
    "eval.enable_sampling": True,
    "eval.begin_ckpt": -1,
    "eval.num_samples": SETS * IN_SET,
}
HEAD = ("config", "paper, least of 3", "ours, least of 3", "each", "mean", "NFE", "hardware", "hours", "fingerprint")
ABOUT = (
    "FID of three sets of 50,000 samples by 35 evaluations against the training images. The paper prints the least of "
    "three, which is lower than their mean by construction. On other features than Inception's it is a Fréchet "
    "distance and no FID."
)
PROGRAM = Sweep(space=Space(({},))).program


def run(folder: Path, start: Any, *, networks: Sequence[str], common: Point | None = None, retries: int = 1) -> int:
    """Makes what there is not of these networks, by a launcher, and prints the table; 0, or 1 if a run has failed.

    start: None makes nothing. common: config values of all runs. Raises `UsageError` for a network that there is not.
    """
    for name in networks:
        one_of("network", name, PUBLISHED)
    planned = {name: _planned(folder, name, common or {}) for name in PUBLISHED}
    failures: dict[str, str] = {}
    if start is not None:
        chosen = {planned[name].id: name for name in networks}

        def named(each: Run, job: Job) -> str:
            return f"{chosen[each.id]}, {job.mode}"

        _, failures = drive([planned[name] for name in networks], start, retries, "edm", named)
    before = workdir.read(folder, RESULTS)
    measured = {
        name: _measured(each, before.get(name, {}), failures.get(each.id, "")) for name, each in planned.items()
    }
    workdir.write(folder, RESULTS, measured)
    print(text(measured))
    missing = [runs.line(job.command) for each in planned.values() for job in each.jobs if not job.finished]
    if missing:
        print("Cells without a run would be filled by --run, or by", *missing, sep="\n")
    print(f"{folder / RESULTS} has the figures. Open {_write(folder, measured, planned, missing)}")
    return 1 if failures else 0


def _planned(folder: Path, name: str, common: Point) -> Run:
    """The run of a network; one with classes is asked for each class in turn."""
    of_classes = {"sampling.condition": "class=all"} if name.endswith("_classes") else {}
    sweep = Sweep(space=Space(({},)), config=name, common=SAMPLES | of_classes | common, program=PROGRAM)
    return runs.resolve(sweep, {}, folder)


def _measured(run: Run, before: Mapping[str, Any], why: str) -> dict[str, Any]:
    """The figures of a network; {} with no more than why it failed where it is not run."""
    if not run.report:
        return {"failed": why} if why else {}
    if before.get("run") == run.id and "sets" in before:
        return dict(before)
    entry = run.report["checkpoints"][-1]
    seconds = [program.read(job.status).get("seconds") for job in run.jobs]
    return {
        "run": run.id,
        "sets": distances(run, entry["step"]),
        "num_samples": run.config.eval.num_samples,
        "nfe": entry["sampling"]["nfe"],
        "devices": run.report["devices"],
        "seconds": None if None in seconds else sum(seconds),
        "fingerprint": results.fingerprint_of(run),
        "features": results.protocol(run)["features"],
    }


def distances(run: Run, step: int) -> list[float]:
    """Distances of each third of the samples, by the features that the evaluation has kept.

    Raises `UsageError` if the evaluation measured no features.
    """
    measure_of = measure(run.config)
    files = sorted((run.workdir / run.jobs[-1].folder / f"step_{step:08d}").glob("features*.npz"))
    if measure_of is None or not files:
        raise UsageError("The evaluation has kept no features; run it with config.metrics.features=inception.")
    features = np.concatenate([np.load(file)["features"] for file in files]).astype(np.float64)
    reference = measure_of.statistics
    return [
        frechet_distance(part.mean(axis=0), np.cov(part, rowvar=False), reference.mean, reference.covariance)
        for part in np.array_split(features, SETS)
    ]


def rows(measured: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """A line for each network; "not run" where there is nothing."""
    lines = []
    for name, published in PUBLISHED.items():
        of = measured.get(name, {})
        if "sets" not in of:
            word = f"failed: {of['failed']}" if of.get("failed") else NOT_RUN
            lines.append([name, published, word, *["-"] * (len(HEAD) - 3)])
            continue
        sets, kinds = of["sets"], of["devices"]
        hardware = ", ".join(f"{kinds.count(kind)} x {kind}" for kind in dict.fromkeys(kinds))
        hours = f"{of['seconds'] / 3600:.3g}" if of["seconds"] else "-"
        each = ", ".join(f"{value:.2f}" for value in sets)
        ours = [f"{min(sets):.2f}", each, f"{np.mean(sets):.2f}", f"{of['nfe']:g}", hardware, hours, of["fingerprint"]]
        lines.append([name, published, *ours])
    return lines


def text(measured: Mapping[str, Mapping[str, Any]]) -> str:
    return "\n".join([ABOUT, *_unlike(measured), "", aligned(HEAD, rows(measured))])


def _unlike(measured: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Sentences on figures that do not compare with the paper's."""
    return [
        f"{name}: {of['num_samples']:,} samples on {of['features']} do not compare with the paper's."
        for name, of in measured.items()
        if "sets" in of and (of["num_samples"] != SETS * IN_SET or of["features"] != INCEPTION)
    ]


def _write(
    folder: Path, measured: Mapping[str, Mapping[str, Any]], planned: Mapping[str, Run], missing: Sequence[str]
) -> Path:
    body = [html_page.note(line) for line in (ABOUT, *_unlike(measured))]
    body.append(html_page.table(list(HEAD), rows(measured)))
    sheets = [html_page.figure(name, sheet) for name, each in planned.items() if (sheet := results.samples(each))]
    body += [html_page.heading("Samples"), html_page.division("grids", *sheets)] if sheets else []
    if missing:
        body.append(html_page.folded("Commands that fill what was not run", html_page.verbatim(missing)))
    body.append(html_page.folded("Versions", html_page.listing(workdir.versions())))
    html_page.write(folder / "report.html", "EDM on CIFAR-10", body, "--folder")
    return folder / "report.html"
