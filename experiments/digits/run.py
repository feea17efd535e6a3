"""Trains DDPM++ (small) under the VP SDE on handwritten digits, samples, with conditions too, and computes bits/dim."""

import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from score_sde.experiments.digits import conditional
from score_sde.experiments.digits.config import SCHEDULE, get_config
from score_sde.experiments.digits.report import TIMES, SamplerResult, write_report

from score_sde import images
from score_sde.array_types import Keys
from score_sde.errors import UsageError
from score_sde.evaluation import sample_metrics
from score_sde.evaluation.evaluate import bits_per_dim
from score_sde.inference.pretrained import Pretrained, load
from score_sde.randomness import Stream, sample_keys, stream
from score_sde.runtime.progress import bar, reporter
from score_sde.sampling import advance
from score_sde.training.run import load_data, train

SAMPLES = 40
TRAJECTORIES = 8
TITLE = "DDPM++ (small) under the VP SDE on handwritten digits"


def run(workdir: Path) -> int:
    """Goes on from what an earlier call left in the workdir."""
    config = get_config()
    config.data.data_dir = str(workdir.parent / "tensorflow_datasets")
    started = time.monotonic()
    try:
        train(config, workdir, overrides=SCHEDULE)
        conditional.train_classifier(workdir, config.data.data_dir)
        model = load(workdir)
        train_set, held_out = load_data(config, train=True), load_data(config, train=False)
        by_pc, trajectory = _trajectory(model)
        samplers = [by_pc, _sample(model, "ode")]
        bpd = bits_per_dim(model, held_out, config.eval.bpd_num_repeats)
        classes = conditional.of_classes(workdir, train_set, held_out)
        halves = conditional.halves(workdir, held_out)
        measured = _measured(workdir, samplers)
    except UsageError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 2
    real = held_out.images[:SAMPLES]
    page = write_report(workdir, TITLE, model, real, samplers, trajectory, bpd, classes, halves, measured)
    for result in samplers:
        print(f"{result.name}: {result.nfe:g} network evaluations, {result.seconds:.1f} s for {SAMPLES} images")
    print(f"held-out bits/dim: {bpd['mean']:.3f} +- {bpd['standard_error']:.3f}")
    print(f"class asked for, recognised by scikit-learn: {classes.accuracy:.1%} +- {classes.standard_error:.1%}")
    print(f"{time.monotonic() - started:.0f} s in all. Open {page}")
    return 0


def _measured(workdir: Path, samplers: list[SamplerResult]) -> dict[str, dict[str, Any]]:
    """The "metrics" of each sampler's samples, by the sampler's name."""
    config = get_config()
    config.data.data_dir, config.metrics.dir = str(workdir.parent / "tensorflow_datasets"), str(workdir / "features")
    measure = sample_metrics.measure(config)
    return {each.name: measure(measure.features.of(each.pixels), {"sampler": each.name}) for each in samplers}


def _keys(model: Pretrained) -> Keys:
    return sample_keys(stream(jax.random.key(model.config.seed + 1), Stream.SAMPLE), jnp.arange(SAMPLES))


def _sample(model: Pretrained, method: str) -> SamplerResult:
    """Draws samples, and times them without compilation, which is done first."""
    keys = _keys(model)
    model.draw(keys, method, compile_only=True)
    with bar(f"sampling ({method})", SAMPLES, "img") as progress:
        started = time.monotonic()
        x, nfe, _ = model.draw(keys, method, reporter(progress, SAMPLES))
        x = np.asarray(x)
        seconds = time.monotonic() - started
    return SamplerResult(method, images.to_pixels(x), float(np.mean(nfe)), seconds)


def _trajectory(model: Pretrained) -> tuple[SamplerResult, np.ndarray]:
    """The predictor-corrector sampler in parts, timed without compilation, and how the first samples come about.

    That is pixels (samples x times), from noise to the result, at evenly spaced times.
    """
    experiment, keys = model.experiment, _keys(model)
    x = experiment.prior(keys)
    solver = experiment.sampler(model.params, "pc")
    state, frames = solver.init(keys, x), [x]
    parts = [experiment.sampling_sde.num_scales // (TIMES - 1)] * (TIMES - 2) + [jnp.iinfo(jnp.int32).max]

    @jax.jit
    def go_on(params, state, steps):
        solver = experiment.sampler(params, "pc")
        state = advance(solver, state, steps)
        return state, solver.view(state), solver.result(state)

    go_on = go_on.lower(model.params, state, 0).compile()
    started = time.monotonic()
    with bar("sampling (pc)", len(parts), "frame") as progress:
        for steps in parts:
            state, frame, (x, nfe) = go_on(model.params, state, steps)
            frames.append(jax.block_until_ready(frame))
            progress.update()
    seconds = time.monotonic() - started
    frames[-1] = x
    pixels = [images.to_pixels(experiment.scaling.to_unit(frame)) for frame in frames]
    shown = np.stack([frame[:TRAJECTORIES] for frame in pixels], axis=1)
    return SamplerResult("pc", pixels[-1], float(np.mean(nfe)), seconds), shown.reshape(-1, *experiment.image_shape)
