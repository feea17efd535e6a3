"""Training of a score network or a classifier in a workdir: checks, data, and its part of the loop."""

import functools
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from score_sde import data, ema, images
from score_sde.array_types import Array, Keys, PyTree
from score_sde.cond import Cond
from score_sde.config import AnyConfig, Config
from score_sde.config.arguments import check_arguments
from score_sde.data.captioned import captioned
from score_sde.errors import UsageError, warn
from score_sde.io import atomic_files, workdir
from score_sde.io.checkpoints import Retention
from score_sde.randomness import sample_keys
from score_sde.runtime import sharding
from score_sde.runtime.backend import expanded
from score_sde.runtime.memory import enough_memory
from score_sde.training import averages, launch, own_code, privacy, sheets, sigma_data, summary, text
from score_sde.training.average_snapshots import schedule
from score_sde.training.build import Classification, Experiment, trainable
from score_sde.training.coupling import coupling_of, update_key
from score_sde.training.loop import Running, Training, fit
from score_sde.training.memory_estimate import advice, disk_use
from score_sde.training.nan_guard import DivergenceError
from score_sde.training.pieces import code_of, complete
from score_sde.training.private_step import private_step
from score_sde.training.recipe import check_overrides
from score_sde.training.source_checks import check_source
from score_sde.training.start import beginning
from score_sde.training.state import NAN_GRADIENTS, TrainState, apply_gradients
from score_sde.training.trainable import warmup_of


def train_step(experiment: Experiment | Classification) -> Callable[..., tuple[TrainState, Array]]:
    """Update (state, pixels, cond=None, numbers=None) -> (state, mean loss or NaN).

    Its randomness depends on seed, the state's step and the batch only. numbers: those of the noise, of a coupling.
    """
    config, coupling = experiment.config, coupling_of(experiment)

    def mean_loss(params: PyTree, keys: Keys, x: Array, cond: Cond | None, noise_keys: Keys | None) -> Array:
        options = {} if noise_keys is None else {"noise_keys": noise_keys}
        if x.dtype == jnp.uint8:  # images of pairs are as the teacher drew them
            x = experiment.augment(keys, images.to_unit(x))
            options |= experiment.augment_labels(keys)
        return experiment.loss(params, keys, x, cond, training=True, **options).mean()

    def step(
        state: TrainState, pixels: Array, cond: Cond | None = None, numbers: Array | None = None
    ) -> tuple[TrainState, Array]:
        keys = sample_keys(update_key(config.seed, state.step), jnp.arange(len(pixels)))
        batch = keys, pixels, cond, None if numbers is None else coupling.keys(keys, numbers)
        loss, grads = accumulated(jax.value_and_grad(mean_loss), config.training.accumulate)(state.params, *batch)
        grads = NAN_GRADIENTS[config.optim.nan_gradients](grads)
        return apply_gradients(state, loss, grads, experiment.optimizer, experiment.profiles, experiment.normalized)

    return step


def compiled_step(
    experiment: Experiment | Classification, placement: PyTree
) -> Callable[..., tuple[TrainState, Array]]:
    """The update `train_step`, compiled over all devices; the state, with the shardings `placement`, is donated."""
    if experiment.config.training.privacy:
        step, of_batch = private_step(experiment, accumulated), (0, 0, 0, None, None)
    else:
        step, of_batch = train_step(experiment), (0, 0) if coupling_of(experiment).numbers is None else (0, 0, 0)
    return sharding.pmap(step, in_axes=(placement, *of_batch), out_axes=(placement, None), donate_argnums=(0,))


def accumulated(fn: Callable[..., PyTree], parts: int) -> Callable[..., PyTree]:
    """The mean of fn(params, *part) over `parts` equal parts of a batch, computed one after the other to save memory.

    Each part has rows from all devices, so that no row moves. On CPUs the loop is unrolled, and saves no memory: in a
    loop XLA computes the gradient of a convolution's weights without its library, fifty times as slowly.
    """
    if parts == 1:
        return fn
    unroll = parts if jax.default_backend() == "cpu" else 1

    def mean(params: PyTree, *batch: PyTree) -> PyTree:
        split = jax.tree.map(lambda rows: rows.reshape(-1, parts, *rows.shape[1:]).swapaxes(0, 1), batch)

        def add(total: PyTree, part: PyTree) -> tuple[PyTree, None]:
            return jax.tree.map(lambda a, b: a + b / parts, total, fn(params, *part)), None

        like = jax.eval_shape(fn, params, *jax.tree.map(lambda rows: rows[0], split))
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), like)
        return jax.lax.scan(add, zeros, split, unroll=unroll)[0]

    return mean


@check_arguments
def train(
    config: AnyConfig, directory: str | Path, overrides: Mapping[str, Any] | None = None, allowed: Sequence[str] = ()
) -> None:
    """Trains until `n_iters` updates are made, from the last checkpoint that can be read, if there is one.

    overrides: values changed on the command line, kept in launch.json so that `eval` and `sample` need not repeat them.
    allowed: keys of `workdir.CHANGEABLE` that may differ from the checkpoint's; launch.json records them. Batches
    are a function of seed, step and batch size: after a change of size, or of the data, their order is that of a run
    with these values from its start, so that some images of the current epoch come twice, and some not at all.
    Raises `UsageError` before anything is written, when the loss or a gradient is no longer finite, and when the last
    checkpoint cannot be saved; `Stopped` after SIGTERM, SIGUSR1 or Ctrl-C, with a last checkpoint.
    """
    directory = expanded(directory)
    check_overrides(config, overrides or {})
    if config.sampling.start or config.sampling.start_time != 1:
        raise UsageError(
            "sampling.start and sampling.start_time are for --mode=sample and --mode=eval; leave them out in training, "
            "whose sheets show samples from noise."
        )
    complete(config)
    sigma_data.inherit(directory, config)
    sigma_data.check(config)
    experiment, code = trainable(config), code_of(config)
    ema.chosen(experiment.profiles, config.sampling.ema)
    sharding.check_divisible("training.batch_size", config.training.batch_size, config.training.accumulate)
    sharding.check_groups(config.training.fsdp)
    workdir.check_allowed(allowed)
    workdir.inherit(directory, config, overrides or {})
    workdir.check_same_run(directory, config.to_dict(), allowed)
    own_code.check_same(directory, code, allowed)
    _check_schedule(config)
    atomic_files.check_writable(directory)
    load_train = functools.cache(lambda: load_data(config, train=True))  # learning words and training need the same
    of_text = text.of_training(directory, config, load_train)
    train_set = coupling_of(experiment).source or captioned(load_train(), of_text)
    eval_set = captioned(load_data(config, train=False), of_text)
    check_source(experiment, train_set, all_of_them=True)
    check_source(experiment, eval_set)
    if sigma_data.measure(config, train_set):
        experiment = trainable(config)
    init = beginning(experiment, directory, sharding.fully_sharded(experiment.state_shapes, config.training.fsdp))
    with atomic_files.locked(directory, "train"):
        changed = workdir.check_same_run(directory, config.to_dict(), allowed)
        described = {"training": _described(train_set), "evaluation": _described(eval_set)}
        changed |= own_code.check_same(directory, code, allowed)
        changed |= workdir.check_same_data(directory, config.data.path, described, allowed)
        if plan := privacy.planned(config, directory, described["training"], changed):
            config.training.n_iters = plan.updates
        if max(workdir.saved_steps(directory), default=0) < config.training.n_iters:
            _check_space(directory, experiment)
        mirrored = config.wandb.mode != "disabled"
        of_data = dict(class_names=train_set.class_names, licence=train_set.licence or eval_set.licence)
        facts = of_data | dict(mirrored=mirrored, text=of_text.digest() if of_text else "")
        record = launch.record(directory, overrides or {}, described, code, changed, **facts)
        # The config is written last: after a kill between the two writes the same command finds the same changes.
        if of_text:
            workdir.write(directory, text.NAME, of_text.to_json())
        workdir.write(directory, launch.NAME, record)
        plan = plan and privacy.recorded(plan, config, directory)
        workdir.write(directory, "config.json", config.to_dict())
        imported = [record["imported"]["step"]] if "imported" in record else []
        options = config.training
        retention = Retention(options.keep_last, options.snapshot_freq, options.keep_best, tuple(imported))
        rows = plan.segments[-1]["capacity"] if plan else options.batch_size
        with enough_memory(f"a training at training.batch_size={options.batch_size}", lambda: advice(experiment, rows)):
            _fit(experiment, directory, retention, record["run_id"], train_set, eval_set, init, plan)


def _check_schedule(config: Config) -> None:
    """Warns of a run that ends before its learning rate has reached its full value."""
    warmup, updates = warmup_of(config), config.training.n_iters
    if warmup >= updates and sharding.is_first():
        images = config.optim.warmup_images
        key = f"optim.warmup_images={images:,}, {warmup:,.0f} updates," if images else f"optim.warmup={warmup:,}"
        warn(
            f"{key} is no shorter than the run of {updates:,} updates, whose learning rate never "
            f"reaches optim.lr={config.optim.lr:g}; set it to a tenth of the run, say."
        )


def _fit(
    experiment: Experiment | Classification,
    directory: Path,
    retention: Retention,
    run_id: str,
    train_set: data.Source,
    eval_set: data.Source,
    init: Callable[[], TrainState],
    plan: privacy.Plan | None = None,
) -> None:
    """Runs the training loop. init: makes the state before the first update. plan: of a private training."""
    config, training = experiment.config, experiment.config.training
    shapes, entries, n = experiment.state_shapes, experiment.cond_entries, training.batch_size
    coupling = coupling_of(experiment)
    placement = sharding.fully_sharded(shapes, training.fsdp)
    profile = ema.chosen(experiment.profiles, config.sampling.ema)

    def averaged(state: TrainState) -> PyTree:
        return ema.average(experiment.profiles, state.ema_params, profile)

    evaluate, compare = _evaluations(experiment, directory, eval_set, averaged, profile)

    def diverged(problem: DivergenceError) -> UsageError:
        if problem.updated:
            reason = f"the evaluation loss or a parameter is {problem.value}"
            return _divergence(reason, problem.step, directory)
        if plan:  # the images of a batch are not private
            return _divergence("the gradient is NaN or infinite", problem.step, directory)
        indices = data.batch_indices(len(train_set), n, seed=config.seed, step=problem.step - 1)
        kept = _keep_batch(directory, problem.step, indices)
        reason = "the loss or a gradient is NaN or infinite"
        return _divergence(reason, problem.step, directory, kept, skipping=training.nonfinite == "skip")

    sample = sheets.sampler(experiment) if training.snapshot_sampling and isinstance(experiment, Experiment) else None

    def draw(state: TrainState, step: int, run: Running) -> None:
        """Draws the sheet of a snapshot or of the last step, unless an earlier launch has finished it."""
        if step % training.snapshot_freq and step != training.n_iters:
            return
        if step == run.start and sharding.all_agree(sheets.path_of(directory, step).exists()):
            return
        params = averaged(state)
        frozen = experiment.frozen(params)
        runner = sample if frozen is experiment else sheets.sampler(frozen)
        sheets.draw(experiment, runner, eval_set, params, step, directory, run)

    def begin(start: int) -> None:
        if sharding.is_first():
            summary.at_start(experiment, directory, train_set, eval_set, start, plan.in_words(start) if plan else "")

    ordinary = Training(
        "training",
        init=init,
        like=sharding.like(shapes, placement),
        batch=data.batch_fn(train_set, n, seed=config.seed, entries=entries, numbers=coupling.numbers),
        update=compiled_step(experiment, placement),
        diverged=diverged,
        n_iters=training.n_iters,
        log_freqs=(training.log_freq,),
        save_freqs=(training.snapshot_freq, training.snapshot_freq_for_preemption),
        eval_freqs=(training.eval_freq,),
        skip=training.nonfinite == "skip",
        evaluate=evaluate,
        begin=begin,
        finish=compare,
        draw=draw if sample else None,
        averages=schedule(experiment.profiles, config.ema.snapshot_freq),
    )
    fit(
        plan.of(ordinary, train_set, entries, jax.device_count() * training.accumulate) if plan else ordinary,
        directory,
        retention,
        wandb=config.wandb.to_dict() | {"id": run_id},
        config=config.to_dict(),
        profile=config.profile,
    )
    if sharding.is_first():
        last = max(workdir.saved_steps(directory))
        summary.at_end(experiment, directory, sheets.path_of(directory, last), plan.in_words(last) if plan else "")


def _evaluations(
    experiment: Experiment | Classification,
    directory: Path,
    source: data.Source,
    averaged: Callable[[TrainState], PyTree],
    profile: ema.Profile,
) -> tuple[Callable[[TrainState, int], float], Callable[[TrainState, int], None]]:
    """Functions of (state, step): the loss of one batch, and the comparison of averaged and raw weights at the end."""
    config, entries, n = experiment.config, experiment.cond_entries, experiment.config.training.batch_size
    losses_of = sharding.pmap(experiment.evaluation, in_axes=(None, 0, None, 0, 0), out_axes=None)

    def evaluate(state: TrainState, step: int) -> float:
        """The loss of one batch, chosen by the step."""
        indices = data.batch_indices(len(source), n, seed=config.seed, step=step)
        (order,) = sharding.split(np.arange(n))
        pixels, cond = data.on_devices(source, indices, entries)
        return float(losses_of(averaged(state), pixels, step, order, cond)["loss"].mean())

    def compare(state: TrainState, step: int) -> None:
        """Compares averaged and raw weights on the same images and noise; warns if the average is worse."""
        batches: dict[str, list[averages.Arrays]] = {"raw": [], "averaged": []}
        for first in range(0, min(len(source), averages.IMAGES), n):
            numbers = np.arange(first, first + n)
            (order,) = sharding.split(numbers)
            pixels, cond = data.on_devices(source, numbers % len(source), entries)
            for name, params in (("raw", state.params), ("averaged", averaged(state))):
                batches[name].append(jax.device_get(losses_of(params, pixels, step, order, cond)))
        of_both = averages.compared(**batches)
        try:
            workdir.write(directory, "weights.json", {"step": step} | of_both)
        except UsageError as error:
            warn(f"{error} Training goes on.")
        problem = averages.complaint(of_both, profile=profile, updates=config.training.n_iters)
        if problem and sharding.is_first():
            warn(problem)

    return evaluate, compare


def _check_space(directory: Path, experiment: Experiment | Classification) -> None:
    """Raises `UsageError` if there is not enough disk space for even one checkpoint and one snapshot of averages."""
    disk = disk_use(experiment)
    needed = disk.checkpoint_bytes + disk.averages_bytes * bool(disk.averages)
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise UsageError(
            f"A checkpoint{' with its averages' * bool(disk.averages)} takes {needed / 1e6:.0f} MB and {directory} has "
            f"{free / 1e6:.0f} MB free; free space, or choose another --workdir."
        )


OF_TRAINING = ("random_flip", "uniform_dequantization", "augment_p", "augment_transforms", "sigma_images")
NOT_OF_FILES = ("dataset", "centered", *OF_TRAINING)


def load_data(config: Config, *, train: bool) -> data.Source:
    """The training or evaluation split of config.data."""
    options = {key: value for key, value in config.data.items() if key not in NOT_OF_FILES}
    return data.load(config.data.dataset, train=train, **options)


def _described(source: data.Source) -> dict[str, Any]:
    """Identity of a split; in-memory and on-disk digests differ."""
    return {"images": len(source), source.digested: source.digest()}


def _keep_batch(directory: Path, step: int, indices: np.ndarray) -> str:
    """Writes diverged.json, and returns the words of the message that point to it."""
    try:
        workdir.write(directory, "diverged.json", {"step": step, "indices": indices.tolist()})
    except UsageError as error:
        warn(str(error))
        return ""
    return f" (indices of its batch: {directory / 'diverged.json'})"


def _divergence(reason: str, step: int, directory: Path, batch: str = "", *, skipping: bool = True) -> UsageError:
    saved = workdir.saved_steps(directory)
    last = f"the last good checkpoint is of step {saved[-1]}" if saved else "there is no checkpoint yet"
    skip = "" if skipping else ", or go on with training.nonfinite=skip"
    return UsageError(
        f"Training diverged: {reason} at step {step}{batch}; {last}. Train with a lower optim.lr, or with "
        f"optim.grad_clip set, in another --workdir{skip}."
    )
