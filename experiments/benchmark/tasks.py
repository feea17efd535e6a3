"""Tasks to time of a network, programs of the package: each says how much it computes, and in how much memory."""

import atexit
import itertools
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from score_sde.experiments.benchmark.flops import flops

from score_sde import data
from score_sde.io.checkpoints import Checkpoints, Retention
from score_sde.likelihood import bits_per_dim
from score_sde.process import LEAST_TIME
from score_sde.randomness import batch_keys
from score_sde.runtime import backend
from score_sde.runtime.memory import program_bytes, tree_bytes
from score_sde.runtime.sharding import fully_sharded, pmap, split
from score_sde.sampling import advance
from score_sde.training.build import Experiment
from score_sde.training.run import compiled_step

STEPS = 4  # of a sampler, in one timing


class Task(NamedTuple):
    run: Callable[[], Any]  # returns when all of it is done
    images: int
    evaluations: int = 1  # of the network for each image; a training step is one
    flops: int | None = None
    bytes: int | None = None  # that the program needs on a device: arguments, results and what lies between
    compilation: float | None = None  # seconds to trace and compile, without the cache
    before: Callable[[], Any] = lambda: None  # each repetition, and not in its time


def forward(experiment: Experiment, batch: int) -> Task:
    """The score at random points."""
    x, t = split(jax.random.normal(jax.random.key(0), (batch, *experiment.image_shape)), jnp.linspace(0.01, 1, batch))
    params = backend.program(experiment.init_params)()
    score = pmap(lambda params, x, t: experiment.model_of(params, "pc")(x, t), in_axes=(None, 0, 0), out_axes=0)
    program, spent = _compiled(score, params, x, t)
    work = _operations(experiment, batch)
    return Task(lambda: jax.block_until_ready(program(params, x, t)), batch, 1, work, program_bytes(program), spent)


def train(experiment: Experiment, batch: int) -> Task:
    """One update: loss, gradient, Adam, EMA; the operations are those of three passes, whatever is computed again."""
    (pixels,) = split(np.random.default_rng(0).integers(0, 256, (batch, *experiment.image_shape)).astype(np.uint8))
    placement = fully_sharded(experiment.state_shapes, experiment.config.training.fsdp)
    state = backend.program(experiment.init_state, out_shardings=placement)()
    program, spent = _compiled(compiled_step(experiment, placement), state, pixels, None)
    held = [state]

    def run() -> None:
        held[0], loss = program(held[0], pixels, None)
        jax.block_until_ready(loss)

    return Task(run, batch, 1, 3 * _operations(experiment, batch), program_bytes(program), spent)


def sample(experiment: Experiment, batch: int) -> Task:
    """`STEPS` steps of the config's sampler in one program."""
    keys = batch_keys(jax.random.key(0), batch)
    (keys, x), params = split(keys, experiment.prior(keys)), backend.program(experiment.init_params)()

    def steps(params, keys, x):
        solver = experiment.sampler(params, "pc")
        return solver.view(advance(solver, solver.init(keys, x), STEPS))

    program, spent = _compiled(pmap(steps, in_axes=(None, 0, 0), out_axes=0), params, keys, x)
    solver = experiment.sampler(params, "pc")
    evaluations = STEPS * solver.nfe // experiment.sampling_sde.num_scales
    work = evaluations * _operations(experiment, batch)
    return Task(
        lambda: jax.block_until_ready(program(params, keys, x)), batch, evaluations, work, program_bytes(program), spent
    )


def likelihood(experiment: Experiment, batch: int) -> Task:
    """Bits/dim at rtol = atol = 1e-3; the evaluations, with their derivatives, are those of the slowest image."""
    keys = batch_keys(jax.random.key(0), batch)
    keys, x = split(keys, jax.random.uniform(jax.random.key(1), (batch, *experiment.image_shape)))
    params = backend.program(experiment.init_params)()

    def solve(params, keys, x):
        predict = experiment.model(params)
        solver = bits_per_dim(experiment.sde, predict, offset_bits=0, rtol=1e-3, atol=1e-3, eps=LEAST_TIME)
        return solver.result(advance(solver, solver.init(keys, x), 10**6))

    program, spent = _compiled(pmap(solve, in_axes=(None, 0, 0), out_axes=None), params, keys, x)
    evaluations = int(np.max(program(params, keys, x)[2]))
    work = 2 * evaluations * _operations(experiment, batch)
    return Task(
        lambda: jax.block_until_ready(program(params, keys, x)), batch, evaluations, work, program_bytes(program), spent
    )


def load(experiment: Experiment, batch: int) -> Task:
    """Batches of 50,000 images in memory, in a training's order, onto the devices."""
    rows, (height, width, channels) = 50_000, experiment.image_shape
    source = data.InMemory(np.zeros((rows if height <= 64 else 500, height, width, channels), np.uint8))
    batches = max(8192 // batch, 2)

    def run() -> None:
        with data.prefetched(data.batch_fn(source, batch, seed=0), range(batches)) as stream:
            for _, pixels, _ in stream:
                jax.block_until_ready(pixels)

    return Task(run, batches * batch)


def save(experiment: Experiment, batch: int) -> Task:
    """A training's wait for a checkpoint: until the state is copied, and the next update may overwrite it."""
    state = backend.program(experiment.init_state)()
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    checkpoints, steps = Checkpoints(folder, Retention(last=1)), itertools.count()

    def run() -> None:
        checkpoints.save(next(steps), state)

    return Task(run, 1, bytes=tree_bytes(state), before=checkpoints.wait)


TASKS: dict[str, Callable[[Experiment, int], Task]] = {
    "forward": forward,
    "train": train,
    "sample": sample,
    "likelihood": likelihood,
    "load": load,
    "save": save,
}


def matrix_rate(dtype: Any) -> float:
    """The most operations a second of a square matrix product, in the device's quickest precision."""
    most = 0.0
    for n in (1024, 2048) if jax.default_backend() == "cpu" else (4096, 8192):
        a = jax.random.normal(jax.random.key(0), (n, n), dtype)
        product = jax.jit(lambda a: a @ a)
        product(a).block_until_ready()
        for _ in range(5):
            started = time.perf_counter()
            product(a).block_until_ready()
            most = max(most, 2 * n**3 / (time.perf_counter() - started))
    return most


def _compiled(fn: Callable, *args: Any) -> tuple[Any, float]:
    """The program, and the seconds it took to make."""
    started = time.perf_counter()
    program = fn.lower(*args).compile()
    return program, time.perf_counter() - started


def _operations(experiment: Experiment, batch: int) -> int:
    """Floating-point operations of one evaluation of the network."""
    x, t = jnp.zeros((batch, *experiment.image_shape)), jnp.ones(batch)
    return flops(lambda params: experiment.score_fn(params)(x, t), experiment.param_shapes)
