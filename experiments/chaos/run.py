"""The undisturbed run, then lives that are killed: a table, chaos.json, and 1 if anything differs."""

import functools
import os
import platform
import shutil
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict
from score_sde.experiments.chaos.compare import Contents, contents, differences
from score_sde.experiments.chaos.life import (
    PHASES,
    Aim,
    Kill,
    Run,
    averaging,
    begun,
    drawing,
    evaluating,
    files,
    finish,
    live,
    pictures,
    saving,
)

from score_sde.array_types import PyTree
from score_sde.cli.command_line import parse
from score_sde.cli.modes import define
from score_sde.errors import UsageError
from score_sde.io import workdir
from score_sde.io.checkpoints import on_host
from score_sde.runtime.progress import bar
from score_sde.training.average_snapshots import schedule
from score_sde.training.build import Experiment

COLUMNS = ("life", "phase", "aimed at", "hit", "went on from", "lost", "equal")


class Life(NamedTuple):
    number: int
    kills: list[Kill]
    differences: list[str]
    seconds: float

    def equal(self, phase: str) -> bool:
        """Whether what training leaves is equal: all but eval/."""
        return not any(said.startswith("eval") == (phase == "eval") for said in self.differences)


def run(folder: Path, kills: int, seed: int = 0, workers: int = 2, overrides: Sequence[str] = ()) -> int:
    """Runs the experiment; returns 0, or 1 if anything differs, or 2 with one sentence if that cannot be judged.

    overrides: --config.KEY=VALUE, for a shorter run.
    """
    started = time.monotonic()
    try:
        lives, interval = _run(folder, kills, seed, workers, overrides)
    except UsageError as error:
        print(f"chaos: {error}", file=sys.stderr)
        return 2
    print(text_table(lives))
    print(summary(lives, interval))
    write_json(folder, lives, interval, seed, workers, time.monotonic() - started)
    print(f"{time.monotonic() - started:.0f} s in all, {np.mean([life.seconds for life in lives]):.0f} s a life.")
    wrong = [f"life {life.number}: {said}" for life in lives for said in life.differences]
    if wrong:
        print(f"{len(wrong)} differ; the folders are kept in {folder}:", *wrong, sep="\n  ", file=sys.stderr)
    return 1 if wrong else 0


def _run(folder: Path, kills: int, seed: int, workers: int, overrides: Sequence[str]) -> tuple[list[Life], int]:
    if kills < 1 or workers < 1:
        raise UsageError("Give --kills and --workers of at least 1.")
    for path in [folder / "undisturbed", *folder.glob("life_[0-9]*")]:
        shutil.rmtree(path, ignore_errors=True)
    first = Run((folder / "undisturbed").absolute(), (folder / "tensorflow_datasets").absolute(), tuple(overrides))
    config = _config(first)
    interval = config.training.snapshot_freq_for_preemption
    with bar("chaos", 2 * kills, "kill") as progress:
        progress.set_postfix_str("undisturbed, twice", refresh=True)
        experiment = Experiment(config)
        like = on_host(jax.eval_shape(experiment.init_state))
        planned = schedule(experiment.profiles, config.ema.snapshot_freq)
        trees = like, planned.of(like) if planned else None
        expected, seconds = _undisturbed(first, trees)
        shots = aims(first, config, seconds)

        def one(number: int) -> Life:
            began = time.monotonic()
            run = first._replace(folder=first.folder.with_name(f"life_{number:03d}"))
            kills = live(run, shots, np.random.default_rng([seed, number]))
            said = [kill.problem for kill in kills if kill.problem]
            said = said or differences(expected, contents(run.workdir, *trees))
            if (lost := most_lost(kills)) > 2 * interval:
                said.append(f"training lost {lost} steps")
            if not said:
                shutil.rmtree(run.folder)
            return Life(number, kills, said, time.monotonic() - began)

        lives = []
        with ThreadPoolExecutor(workers) as pool:
            try:
                for future in as_completed([pool.submit(one, number) for number in range(1, kills + 1)]):
                    lives.append(future.result())
                    different = sum(bool(life.differences) for life in lives)
                    progress.set_postfix_str(f"{different} lives differ", refresh=False)
                    progress.update(len(PHASES))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
    return sorted(lives), interval


def _config(run: Run) -> ConfigDict:
    """The run's config as the command line resolves it."""
    return parse(["chaos", *run.arguments("train")], functools.partial(define, "train")).config


def _undisturbed(run: Run, trees: tuple[PyTree, PyTree]) -> tuple[Contents, dict[str, float]]:
    """Contents of an undisturbed run and seconds of each phase; two runs, the first of which compiles, must agree."""
    outcomes, seconds = [], {}
    for _ in range(2):
        run.forget("train")
        for phase in PHASES:
            problem, seconds[phase] = finish(run, phase)
            if problem:
                raise UsageError(f"The undisturbed {problem}; look at {run.log(phase)}.")
        outcomes.append(contents(run.workdir, *trees))
    if said := differences(*outcomes):
        raise UsageError(f"Two undisturbed runs differ, so kills cannot be judged on this machine: {said[0]}.")
    return outcomes[0], seconds


def aims(run: Run, config: ConfigDict, seconds: dict[str, float]) -> list[Aim]:
    """Moments to aim kills at in a run like `run`, which has ended."""
    training = config.training
    saves = range(training.snapshot_freq_for_preemption, training.n_iters + 1, training.snapshot_freq_for_preemption)
    sheets = range(training.snapshot_freq, training.n_iters + 1, training.snapshot_freq)
    averages = range(config.ema.snapshot_freq, training.n_iters + 1, config.ema.snapshot_freq)
    return [
        Aim("any time", "train", begun, [1], seconds["train"], weight=2.0),
        Aim("a save's start", "train", saving, saves, 0.05),
        Aim("a save", "train", saving, saves, 0.7),
        Aim("a save of averages", "train", averaging, averages, 0.3),
        Aim("a snapshot's samples", "train", drawing, sheets, 1.0),
        Aim("a picture's writing", "train", pictures, range(1, pictures(run) + 1), 0.02),
        Aim("any time", "eval", evaluating, [1], seconds["eval"], weight=2.0),
        Aim("a part's start", "eval", evaluating, range(1, evaluating(run) + 1), 1.0),
        Aim("a file's writing", "eval", files, range(1, files(run) + 1), 0.02),
    ]


def most_lost(kills: Sequence[Kill]) -> int:
    return max(kill.steps_lost or 0 for kill in kills)


def text_table(lives: Sequence[Life]) -> str:
    lines = [list(COLUMNS)]
    for life in lives:
        for kill in life.kills:
            went_on = "" if kill.restored is None else str(kill.restored)
            lost = "" if kill.steps_lost is None else str(kill.steps_lost)
            equal = "yes" if life.equal(kill.phase) else "NO"
            lines.append([str(life.number), kill.phase, kill.aim, kill.hit, went_on, lost, equal])
    widths = [max(len(line[i]) for line in lines) for i in range(len(COLUMNS))]
    rendered = ["  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join([rendered[0], "-" * len(rendered[0]), *rendered[1:]])


def summary(lives: Sequence[Life], interval: int) -> str:
    """One line. A save is written behind the steps that follow, so up to two intervals are lost."""
    counts = {phase: sum(kill.phase == phase for life in lives for kill in life.kills) for phase in PHASES}
    equal = sum(life.equal(kill.phase) for life in lives for kill in life.kills)
    lost = max(most_lost(life.kills) for life in lives)
    return (
        f"{counts['train']} kills of training, {counts['eval']} of evaluation: {equal} of {sum(counts.values())} "
        f"identical; at most {lost} steps lost, the save interval is {interval}."
    )


def write_json(folder: Path, lives: Sequence[Life], interval: int, seed: int, workers: int, seconds: float) -> None:
    content = {
        "summary": summary(lives, interval),
        "seed": seed,
        "workers": workers,
        "seconds": round(seconds),
        "machine": f"{os.cpu_count()} cores; {platform.machine()} {platform.system()}",
        "versions": workdir.versions(),
        "lives": [life._asdict() | {"kills": [kill._asdict() for kill in life.kills]} for life in lives],
    }
    workdir.write(folder, "chaos.json", content)
