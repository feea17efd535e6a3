"""Costs of the models: operations by the compiler's count, and seconds on this machine with nothing beside them."""

import itertools
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from score_sde.experiments.sweep.runs import Run
from score_sde.experiments.transformers.models import Model, load

from score_sde.io import workdir
from score_sde.io.metrics_log import read_lines
from score_sde.randomness import batch_keys
from score_sde.training.build import parameter_counts

FILE = "costs.json"
SAMPLES, REPEATS = 64, 3


def measured(folder: Path, finished: Mapping[str, Sequence[Run]], *, may_run: bool) -> dict[str, dict[str, Any]]:
    """Costs of each model with its first seed, from costs.json where they were measured before.

    may_run: whether those that are not there are measured.
    """
    kept, costs = workdir.read(folder, FILE), {}
    for name, of_model in finished.items():
        if not of_model:
            continue
        of_run = kept.get(of_model[0].workdir.name)
        if of_run is None and may_run:
            of_run = _of(load(name, of_model[0].workdir))
            kept[of_model[0].workdir.name] = of_run
            workdir.write(folder, FILE, kept)
        seconds = [seconds_an_update(read_lines(run.workdir / "metrics.jsonl")) for run in of_model]
        costs[name] = (of_run or {}) | {"seconds_an_update": seconds}
    return costs


def _of(model: Model) -> dict[str, Any]:
    """Parameters, operations of an image, and seconds of a sample at each number of evaluations."""
    params, _ = parameter_counts(model.described.param_shapes)
    seconds = {str(budget): _seconds(model, budget) for budget in model.budgets}
    return {"parameters": params, "seconds_a_sample": seconds} | operations(model)


def operations(model: Model) -> dict[str, float]:
    """Floating-point operations for each image of a training pass forward, and of an update, as XLA counts them."""
    of, n = model.described, model.described.config.training.batch_size
    pixels = jax.ShapeDtypeStruct((n, *of.image_shape), jnp.uint8)
    keys, state = jax.eval_shape(lambda: batch_keys(jax.random.key(0), n)), of.state_shapes
    forward, update = _flops(model.loss, state.params, keys, pixels), _flops(model.update, state, pixels)
    return {"flops_forward": forward / n, "flops_update": update / n}


def _flops(fn: Any, *args: Any) -> float:
    return float(jax.jit(fn).lower(*args).compile().cost_analysis()["flops"])


def _seconds(model: Model, budget: int) -> float:
    """The least seconds of a sample of several repetitions, in a batch; compiling does not count."""
    seconds = []
    for repeat in range(REPEATS + 1):
        keys = batch_keys(jax.random.key(repeat), SAMPLES)
        started = time.monotonic()
        model.samples(keys, budget)
        seconds.append((time.monotonic() - started) / SAMPLES)
    return min(seconds[1:])


def seconds_an_update(lines: Sequence[Mapping[str, float]]) -> float | None:
    """The median seconds of an update between two lines of metrics.jsonl, without those that save or evaluate.

    from score_sde.experiments.transformers.costs import seconds_an_update

    lines = [{"step": step, "time": 2.0 * step, "training_loss": 1.0} for step in (10, 20, 30)]
    assert seconds_an_update(lines) == 2.0
    """
    marks = [(line["step"], line["time"]) for line in lines if "training_loss" in line and "time" in line]
    pairs = itertools.pairwise(marks)
    each = [(after - before) / (later - step) for (step, before), (later, after) in pairs if later > step]
    return float(np.median(each)) if each else None
