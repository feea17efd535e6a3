"""Trains DDPM++ (small) under the VP SDE on handwritten digits, samples, with conditions too, and computes bits/dim."""

import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from experiments.digits import conditional
from experiments.digits.config import SCHEDULE, get_config
from experiments.digits.report import TIMES, SamplerResult, write_report
from score_sde import images
from score_sde.errors import UsageError
from score_sde.evaluate import bits_per_dim
from score_sde.progress import bar, reporter
from score_sde.randomness import Stream, sample_keys, stream
from score_sde.sampling import advance
from score_sde.train import load_data, train
from score_sde.trained import Trained, load

SAMPLES = 64
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
        samplers = [_sample(model, "pc"), _sample(model, "ode")]
        trajectory = _trajectory(model)
        bpd = bits_per_dim(model, held_out, config.eval.bpd_num_repeats)
        classes = conditional.of_classes(workdir, train_set, held_out)
        halves = conditional.halves(workdir, held_out)
    except UsageError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 2
    real = held_out.images[:SAMPLES]
    page = write_report(workdir, TITLE, model, real, samplers, trajectory, bpd, classes, halves)
    for result in samplers:
        print(f"{result.name}: {result.nfe:g} network evaluations, {result.seconds:.1f} s for {SAMPLES} images")
    print(f"held-out bits/dim: {bpd['mean']:.3f} +- {bpd['standard_error']:.3f}")
    print(f"class asked for, recognised by scikit-learn: {classes.accuracy:.1%} +- {classes.standard_error:.1%}")
    print(f"{time.monotonic() - started:.0f} s in all. Open {page}")
    return 0


def _sample(model: Trained, method: str) -> SamplerResult:
    """Timed without compilation, which is done first."""
    keys = sample_keys(stream(jax.random.key(model.config.seed + 1), Stream.SAMPLE), jnp.arange(SAMPLES))
    model.sample_with_nfe(keys, method, compile_only=True)
    with bar(f"sampling ({method})", SAMPLES, "img") as progress:
        started = time.monotonic()
        x, nfe = model.sample_with_nfe(keys, method, reporter(progress, SAMPLES))
        x = np.asarray(x)
        seconds = time.monotonic() - started
    return SamplerResult(method, images.to_pixels(x), float(np.mean(nfe)), seconds)


def _trajectory(model: Trained) -> np.ndarray:
    """Pixels (samples x times) of PC sampling from noise, at evenly spaced times, the denoised image last."""
    experiment, n, times = model.experiment, TRAJECTORIES, TIMES
    keys = sample_keys(stream(jax.random.key(model.config.seed + 1), Stream.SAMPLE), jnp.arange(n))
    x = experiment.prior(keys)
    stride = experiment.sampling_sde.num_scales // (times - 1)

    @jax.jit
    def go_on(params, state):
        solver = experiment.sampler(params, "pc")
        state = advance(solver, state, stride)
        return state, solver.view(state)

    solver = experiment.sampler(model.params, "pc")
    state, frames = solver.init(keys, x), [x]
    with bar("trajectory", times - 1, "frame") as progress:
        for _ in range(times - 2):
            state, frame = go_on(model.params, state)
            frames.append(frame)
            progress.update()
        while float(solver.fraction(state)) < 1:
            state, _ = go_on(model.params, state)
        frames.append(solver.result(state)[0])
        progress.update()
    pixels = [images.to_pixels(experiment.scaling.to_unit(frame)) for frame in frames]
    return np.stack(pixels, axis=1).reshape(n * times, *experiment.image_shape)
