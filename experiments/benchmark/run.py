"""Times of the package's programs, and of a peer's beside them, in turns."""

import contextlib
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from score_sde.experiments.benchmark.cases import Case, cases
from score_sde.experiments.benchmark.peer import Peer
from score_sde.experiments.benchmark.report import text, write
from score_sde.experiments.benchmark.tasks import TASKS, Task, matrix_rate

from score_sde.errors import UsageError, one_of
from score_sde.io import workdir
from score_sde.models import PRECISIONS
from score_sde.runtime.progress import bar
from score_sde.training.build import Experiment


def run(
    networks: Sequence[str],
    tasks: Sequence[str],
    precisions: Sequence[str],
    peer: str,
    rounds: int,
    batch: int | None,
    folder: Path,
) -> int:
    """Prints a table, and writes benchmark.json and benchmark.html to the folder."""
    accelerator = jax.default_backend() != "cpu"
    try:
        chosen = checked(networks, tasks, precisions, rounds, batch)
        with contextlib.ExitStack() as until_done:
            other = until_done.enter_context(contextlib.closing(Peer(peer))) if peer else None
            rows, timed = [], {}
            for name, case in chosen.items():
                for task in tasks:
                    size = batch or (case.large_batch if accelerator else case.batch)
                    for precision in precisions:
                        row, program = prepared(name, case, task, precision, size)
                        rows.append(row)
                        if program:
                            timed[len(rows) - 1] = program
                    if other and other.prepare(f"{name} {task}", task, case.config.to_dict(), size):
                        timed[len(rows)] = other
                        rows.append(row_of(name, task, other.about["name"], size))
            in_turns(rows, timed, rounds)
    except UsageError as error:
        print(f"benchmark: {error}", file=sys.stderr)
        return 2
    facts = machine() | {
        "rounds": rounds,
        "peer": other.about if other else None,
        "matrix_rate": {precision: rate_in(precision) for precision in precisions},
        "command": command(),
    }
    summaries = summarised(rows, facts)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "benchmark.json").write_text(
        json.dumps({"facts": facts, "rows": summaries}, indent=2) + "\n", encoding="utf-8"
    )
    write(folder / "benchmark.html", facts, summaries)
    print(text(facts, summaries))
    print(f"Open {folder / 'benchmark.html'}")
    return 0


def checked(
    networks: Sequence[str], tasks: Sequence[str], precisions: Sequence[str], rounds: int, batch: int | None
) -> dict[str, Case]:
    """The cases of these names. Raises `UsageError` for choices that there are not."""
    available = cases()
    for task in tasks:
        one_of("--tasks", task, TASKS)
    for precision in precisions:
        one_of("--precisions", precision, PRECISIONS)
    if rounds < 1 or (batch is not None and batch < 1):
        raise UsageError(f"--rounds={rounds} and --batch={batch} must be at least 1.")
    return {one_of("--networks", name, available): available[name] for name in networks}


def machine() -> dict[str, Any]:
    """Facts of the machine and of what runs on it."""
    return {
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "cores": len(os.sched_getaffinity(0)),
        "versions": workdir.versions(),
    }


def command() -> str:
    """The command line of this process."""
    return " ".join(["score_sde --mode=experiment --name=benchmark", *sys.argv[1:]])


def rate_in(precision: str) -> float:
    """Operations a second of a square matrix product in the numbers that a precision multiplies."""
    return matrix_rate(jnp.bfloat16 if precision == "bfloat16" else jnp.float32)


def prepared(name: str, case: Case, task: str, precision: str, batch: int) -> tuple[dict[str, Any], Task | None]:
    """A row without its times, and the program that gives them; none where it needs more memory than there is."""
    config = case.config.copy_and_resolve_references()
    config.training.precision = config.sampling.precision = precision
    if precision != "bfloat16":
        config.eval.precision = precision
    row = row_of(name, task, f"score_sde, {precision}", batch)
    if precision == "bfloat16" and task in ("likelihood", "load", "save"):
        return row | {"missing": "not in bfloat16"}, None
    try:
        program = TASKS[task](Experiment(config), batch)
    except jax.errors.JaxRuntimeError as error:
        return row | {"missing": str(error).splitlines()[0][:200]}, None
    keys = ("images", "evaluations", "flops", "bytes", "compilation")
    return row | {key: getattr(program, key) for key in keys if getattr(program, key) is not None}, program


def row_of(network: str, task: str, by: str, batch: int) -> dict[str, Any]:
    """A row before anything is measured."""
    return {"network": network, "task": task, "by": by, "batch": batch, "seconds": []}


def in_turns(rows: list[dict[str, Any]], timed: dict[int, Task | Peer], rounds: int, enough: float = math.inf) -> None:
    """Adds the seconds of each repetition; the first round warms up.

    enough: seconds after which no further round begins, except the first that is measured.
    """
    begun = time.perf_counter()
    with bar("measuring", (rounds + 1) * len(timed), "run") as progress:
        for turn in range(rounds + 1):
            if turn > 1 and time.perf_counter() - begun > enough:
                break
            for number, program in timed.items():
                row = rows[number]
                if isinstance(program, Peer):
                    seconds, row["evaluations"] = program.seconds(f"{row['network']} {row['task']}")
                    row["images"] = row["batch"]
                else:
                    program.before()
                    started = time.perf_counter()
                    program.run()
                    seconds = time.perf_counter() - started
                if turn:
                    row["seconds"].append(seconds)
                progress.update()


def summarised(rows: list[dict[str, Any]], facts: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows with medians, rates, use of the device, and how much faster ours is than the peer in the same round."""
    peers = {(row["network"], row["task"]): row for row in rows if not row["by"].startswith("score_sde")}
    for row in rows:
        if not row["seconds"]:
            continue
        median, row["repetitions"] = statistics.median(row["seconds"]), len(row["seconds"])
        row["milliseconds_an_evaluation"] = 1e3 * median / row["evaluations"]
        if row["task"] == "save":
            continue
        row["images_a_second"] = row["images"] * (row["evaluations"] if row["task"] == "sample" else 1) / median
        if "flops" in row:
            row["flops_a_second"] = row["flops"] / median
            if rate := facts["matrix_rate"].get(row["by"].split(", ")[1]):
                row["utilisation"] = row["flops_a_second"] / (rate * facts["devices"])
        peer = peers.get((row["network"], row["task"]))
        if peer and row is not peer and peer["seconds"]:
            # Of the same round, by evaluation: what disturbs both cancels.
            own, theirs = row["evaluations"], peer["evaluations"]
            ratios = [(b / theirs) / (a / own) for a, b in zip(row["seconds"], peer["seconds"], strict=True)]
            row["speed_against_peer"] = statistics.median(ratios)
    return rows
