"""A day on a GPU in one command: checks, the table of speeds, and a training with what is left of the time.

Parts run one after the other, the most valuable first, and a part that fails is recorded and does not stop the rest.
Each result is on disk before the next part begins. The same command goes on from there: what has passed or is measured
stays, the rest is tried again, and the training goes on.
"""

import functools
import gc
import itertools
import math
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.experimental.compilation_cache import compilation_cache
from ml_collections import ConfigDict
from score_sde.experiments.benchmark import gpu_page
from score_sde.experiments.benchmark import run as speed
from score_sde.experiments.benchmark.cases import LARGE, TINY, Case
from score_sde.experiments.benchmark.gpu_checks import CHECKS, Subject, configured, first_line
from score_sde.experiments.benchmark.gpu_training import missing_data, train_for
from score_sde.experiments.benchmark.memory import shares

from score_sde.errors import UsageError, tell
from score_sde.io import workdir
from score_sde.runtime.memory import device_bytes
from score_sde.runtime.preemption import Notice, Stopped

RESULTS, PAGE = "gpu.json", "gpu.html"
KEPT = ("passed", "measured")  # are not run again
TRAINING = "training"
SHARE = 1 / 3  # of the minutes is left to the training, if its data are there
MEASURING = 15.0  # seconds after which a cell of the table begins no further repetition


class Size(NamedTuple):
    """Networks by their names in `cases`, and the seconds that a part is expected to take.

    checked: the network of the checks; memory: bytes of the device that these may fill. table: default of --networks.
    trained: the network of the training. saving: seconds before the end at which the training stops.
    """

    checked: str
    memory: int
    table: tuple[str, ...]
    trained: str
    check: float
    cell: float
    training: float
    saving: float


class Part(NamedTuple):
    """A part of the day. group: checks, table or training. expected: its seconds. run: seconds left -> its result.

    programs: folder of its compiled programs. needless: the reason to skip it, if there is one. row: the columns of the
    table that are known before it runs.
    """

    name: str
    group: str
    expected: float
    run: Callable[[float], dict[str, Any]]
    programs: str = "checks"
    needless: str = ""
    row: dict[str, Any] | None = None


def run(
    networks: Sequence[str],
    tasks: Sequence[str],
    precisions: Sequence[str],
    rounds: int,
    batch: int | None,
    minutes: float,
    toy: bool,
    folder: Path,
) -> int:
    """Writes gpu.json and gpu.html to the folder and prints a summary; returns 1 if a part has failed, else 0.

    Raises `UsageError` for minutes that are not positive, for choices that there are not, without a GPU unless `toy`,
    and for a folder with results of another device, of other versions or of the other size.
    """
    ends = time.monotonic() + 60 * minutes
    if not 0 < minutes < math.inf:
        raise UsageError(f"--minutes={minutes:g} must be a number above 0, such as 9.")
    if not toy and jax.default_backend() != "gpu":
        raise UsageError(
            f"JAX has no GPU here, only: {jax.default_backend()}; rehearse with --toy, or install JAX for the GPU."
        )
    size = SIZES["toy" if toy else "full"]()
    chosen = speed.checked(networks or size.table, tasks, precisions, rounds, batch)
    parts = _parts(size, chosen, tasks, precisions, rounds, batch, folder)
    call = {"started": datetime.now(UTC).isoformat(timespec="seconds"), "minutes": minutes, "rounds": rounds}
    facts = machine() | {"size": "toy" if toy else "full", "rounds": rounds, "command": speed.command()}
    record = _opened(folder, facts, call, parts)
    reserved = 0 if parts[-1].needless else SHARE * 60 * minutes
    for number, part in enumerate(parts, 1):
        left = ends - time.monotonic() - (0 if part.group == TRAINING else reserved)
        title = f"{number} of {len(parts)}, {part.name}"
        _take(record, part, left, folder, title)
    print(gpu_page.text(record))
    print(f"Open {folder / PAGE}")
    return int(any(record["parts"][part.name]["status"] == "failed" for part in parts))


def machine() -> dict[str, Any]:
    """Facts of the machine, its driver, and what runs on it."""
    runtime = " ".join(jax.devices()[0].client.platform_version.split())
    return speed.machine() | {"memory": device_bytes(), "runtime": runtime, "driver": _driver(), "peer": None}


def _driver() -> str:
    """Version of NVIDIA's driver."""
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, timeout=30, check=True).stdout.split()[0]
    except (OSError, subprocess.SubprocessError, IndexError):
        return "no NVIDIA driver answers"


def _keep_programs(part: Part, folder: Path) -> None:
    """Keeps compiled programs in a folder of the part, or leaves them in that of the user's environment.

    The training reads those of the table's cell for its update. A cell compiles anew, so that its time is of that.
    """
    chosen, own = jax.config.jax_compilation_cache_dir, folder.absolute() / "programs"
    if chosen and not Path(chosen).is_relative_to(own):
        return
    if part.row:
        shutil.rmtree(own / part.programs, ignore_errors=True)
    jax.config.update("jax_compilation_cache_dir", str(own / part.programs))
    compilation_cache.reset_cache()  # JAX looks for a folder once


def _opened(folder: Path, facts: dict[str, Any], call: dict[str, Any], parts: Sequence[Part]) -> dict[str, Any]:
    """The folder's record with this call's facts and parts. Raises `UsageError` if it is of another machine."""
    earlier = workdir.read(folder, RESULTS)
    for key in ("device", "versions", "size") if earlier else ():
        was, now = earlier["facts"][key], facts[key]
        if was != now:
            raise UsageError(f"{folder} has results of the {key} {was}, not {now}; use a new --out.")
    before = earlier.get("parts", {})
    for entry in before.values():
        if entry["status"] == "running":
            entry |= {"status": "failed", "reason": "the process ended in this part", "ended": len(earlier["calls"])}
    entries = {part.name: before.get(part.name) or _blank(part) for part in parts}
    record = {"facts": facts, "calls": [*earlier.get("calls", []), call], "parts": entries | before}
    _write(folder, record)
    return record


def _blank(part: Part) -> dict[str, Any]:
    return {"group": part.group, "status": "not run"} | ({"row": part.row} if part.row else {})


def _take(record: dict[str, Any], part: Part, left: float, folder: Path, title: str) -> None:
    """Runs a part, unless that is done or there is no time for it, and writes what came of it."""
    entry = record["parts"][part.name]
    just_ended = entry.get("ended") == len(record["calls"]) - 1 and part.group != TRAINING
    if entry["status"] in KEPT or just_ended:  # what ended the process is not tried again before the rest has run
        return
    reason = part.needless or (_too_little(part, left) if left < part.expected else "")
    if reason:
        if entry["status"] != "trained":
            record["parts"][part.name] = _blank(part) | {"status": "skipped", "reason": reason}
        tell(f"{title}: skipped, {reason}")
    else:
        tell(f"{title}, {left / 60:.1f} minutes left ...")
        record["parts"][part.name] = _blank(part) | {"status": "running"}
        _write(folder, record)
        _keep_programs(part, folder)
        started = time.monotonic()
        try:
            result = part.run(left)
        except Stopped as stopped:
            record["parts"][part.name] = _blank(part) | {"reason": str(stopped)}
            _write(folder, record)
            raise
        except Exception as error:  # whatever it is: the rest goes on
            result = {"status": "failed", "reason": f"{type(error).__name__}: {first_line(error)}"}
        record["parts"][part.name] = _blank(part) | result | {"seconds": round(time.monotonic() - started, 1)}
        tell(f"{title}: {gpu_page.in_a_line(record['parts'][part.name])}")
        _free()
    _write(folder, record)


def _too_little(part: Part, left: float) -> str:
    before = "" if part.group == TRAINING else " before the training's share"
    return f"it takes about {part.expected:.0f} s, and {max(left, 0):.0f} are left{before}"


def _free() -> None:
    """Gives back the memory of a part: its arrays and programs."""
    with Notice() as notice:  # in a callback of the garbage collector an exception would be lost
        jax.clear_caches()
        gc.collect()
    if notice.number:
        raise Stopped(notice.number)


def _write(folder: Path, record: dict[str, Any]) -> None:
    workdir.write(folder, RESULTS, record)
    gpu_page.write(folder / PAGE, record)


def _parts(
    size: Size,
    chosen: dict[str, Case],
    tasks: Sequence[str],
    precisions: Sequence[str],
    rounds: int,
    batch: int | None,
    folder: Path,
) -> list[Part]:
    """All parts in their order; the last is the training."""
    cases = speed.cases()
    subject = Subject(cases[size.checked].config, cases[size.checked].batch, size.memory)
    parts = [Part(name, "checks", size.check, functools.partial(_check, name, subject)) for name in CHECKS]
    parts.append(Part(gpu_page.RATES, "table", 0, lambda left: _rates(precisions)))
    for name, task, precision in ordered(chosen, tasks, precisions):
        images = batch or (chosen[name].large_batch if jax.default_backend() == "gpu" else chosen[name].batch)
        measure = functools.partial(_cell, name, chosen[name], task, precision, images, rounds)
        row = speed.row_of(name, task, f"score_sde, {precision}", images)
        title = f"{name}, {task}, {precision}"
        parts.append(Part(title, "table", size.cell, measure, title, row=row))
    config = training_config(cases[size.trained].config, size, folder)
    train = functools.partial(_train, config, folder, size.saving)
    update = f"{size.trained}, train, bfloat16"
    name = f"training of {size.trained} in bfloat16"
    return [*parts, Part(name, TRAINING, size.training, train, update, missing_data(config))]


def ordered(networks: Sequence[str], tasks: Sequence[str], precisions: Sequence[str]) -> list[tuple[str, str, str]]:
    """Cells of the table, the first of each list first; bfloat16 before the others, and not for likelihoods."""
    precisions = sorted(precisions, key=lambda precision: precision != "bfloat16")
    places = [list(enumerate(each)) for each in (networks, tasks, precisions)]
    cells = sorted(itertools.product(*places), key=lambda cell: sum(place for place, _ in cell))
    named = [tuple(name for _, name in cell) for cell in cells]
    return [cell for cell in named if not (cell[2] == "bfloat16" and cell[1] in ("likelihood", "load", "save"))]


def training_config(config: ConfigDict, size: Size, folder: Path) -> ConfigDict:
    """The config of the training: in bfloat16, without sheets of samples, which would take minutes."""
    config = config.copy_and_resolve_references()
    config.training.update(precision="bfloat16", snapshot_sampling=False, eval_freq=1000, n_iters=1_300_001)
    if config.data.dataset == "digits":
        config.data.data_dir = str(folder / "tensorflow_datasets")
    return config


def _check(name: str, subject: Subject, left: float) -> dict[str, Any]:
    outcome = CHECKS[name](subject)
    status = {True: "passed", False: "failed", None: "skipped"}[outcome.passed]
    return {"status": status, "figures": outcome.figures} | ({"reason": outcome.reason} if outcome.reason else {})


def _rates(precisions: Sequence[str]) -> dict[str, Any]:
    return {"status": "measured", "rates": {precision: speed.rate_in(precision) for precision in precisions}}


def _cell(name: str, case: Case, task: str, precision: str, batch: int, rounds: int, left: float) -> dict[str, Any]:
    row, program = speed.prepared(name, case, task, precision, batch)
    if program is None:
        return {"status": "failed", "reason": row["missing"]}
    speed.in_turns([row], {0: program}, rounds, min(MEASURING, left))
    if task == "train":
        image, besides = shares(configured(case.config, precision))
        row["predicted_bytes"] = besides + image * batch // jax.device_count()
    return {"status": "measured", "row": row}


def _train(config: ConfigDict, folder: Path, saving: float, left: float) -> dict[str, Any]:
    workdir_of = folder / TRAINING
    return {"status": "trained", "workdir": str(workdir_of)} | train_for(left - saving, config, workdir_of)


def _full() -> Size:
    memory = min(device_bytes(), 2**35)  # of more images a feature map would have 2^31 numbers
    return Size("DDPM++ 8x8", memory, LARGE[:3], LARGE[0], check=20, cell=60, training=75, saving=30)


def _toy() -> Size:
    return Size(TINY, 2**26, (TINY,), TINY, check=1, cell=1, training=3, saving=2)


SIZES: dict[str, Callable[[], Size]] = {"full": _full, "toy": _toy}
