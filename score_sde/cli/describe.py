"""Description of a config before training: network, memory, sampler, NFE."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from absl.flags import FlagValues

from score_sde.array_types import PyTree
from score_sde.cond import MASK, TEXT, Cond, blank
from score_sde.conditioning.grammar import ALL, chosen_class, chosen_rows, chosen_texts, observation_of, parts
from score_sde.config import Config, check
from score_sde.config.explanation import explained
from score_sde.config.import_paths import is_import_path, lowered
from score_sde.errors import UsageError
from score_sde.inference.class_choice import with_any_name
from score_sde.inference.conditional_samplers import Conditional, Conditions, Towards
from score_sde.inference.snapshots import available_step
from score_sde.inference.start_images import check_start
from score_sde.io import workdir
from score_sde.io.workdir import stored_config
from score_sde.runtime.backend import expanded
from score_sde.training import privacy
from score_sde.training.build import Classification, Experiment, parameter_counts, trainable
from score_sde.training.memory_estimate import Disk, disk_use, kept_bytes, state_bytes
from score_sde.training.pieces import piece_arguments
from score_sde.training.recipe import replaced
from score_sde.training.run import load_data
from score_sde.training.text import of_described

MIB = 2**20


def run(values: FlagValues) -> None:
    """Describes the config of a command line."""
    describe(values.config, values.explain, Path(values.workdir) if values.workdir else None)


def describe(config: Config, explain: str | None = None, directory: Path | None = None) -> None:
    """Prints the resolved config, the network layer by layer, memory and sampler if any; the last line is JSON.

    explain: a section or key, "" for all; then only these keys are printed, each with its explanation. directory: the
    workdir of the config, if there is one.
    """
    if explain is not None:
        check(config)
        print("\n".join(explained(workdir.flatten(config.to_dict()), explain)))
        return
    experiment = trainable(with_any_name(config, directory), traced=False)
    if isinstance(experiment, Experiment):
        _asked_for(experiment)
        _evaluated(experiment)
    layers, taken = _layers(experiment), replaced(config)
    for key, value in workdir.flatten(config.to_dict()).items():
        instead = taken.get(key) or taken.get(key.partition(".")[0])
        print(f"{key} = {value}" + (f"  (no effect: {instead} replaces it)" if instead else ""))
    print(layers)

    learned, total = parameter_counts(experiment.param_shapes)
    images = len(load_data(config, train=True)) if config.training.privacy else 0
    print(f"parameters: {learned:,} trainable, {total:,} in all")
    average = "EMA" if len(experiment.profiles) == 1 else f"{len(experiment.profiles)} EMAs"
    state = f"training state (parameters, two Adam moments, {average})"
    print(f"{state}: {state_bytes(experiment) / MIB:,.1f} MiB on each device")
    print(_backward(experiment, images))
    print(_disk(disk_use(experiment)))
    if line := of_described(config, directory):
        print(line)
    if config.training.privacy:
        print(privacy.report(config, images))
    nfe = None
    if isinstance(experiment, Experiment):
        nfe = planned_nfe(experiment)
        print("objective: " + ", ".join(f"{part} {row}" for part, row in vars(experiment.objective).items()))
        if experiment.coupled:
            blocks = f" of blocks of {config.training.coupling_block} rows" * (config.training.coupling == "optimal")
            print(f"coupling: {config.training.coupling}{blocks}; the network has a velocity, and no score")
        evaluations = f"{'adaptive' if nfe is None else nfe} network evaluations a sample"
        print(f"sampler: {_sampler(experiment, config.sampling.condition)}, {evaluations}")
    print(json.dumps({"trainable_parameters": learned, "total_parameters": total, "nfe": nfe}))


def _backward(experiment: Experiment | Classification, images: int) -> str:
    """The memory for the backward pass. images: number in the data set, for a private training."""
    config, devices, each = experiment.config, jax.device_count(), kept_bytes(experiment) / MIB
    batch, parts_of_batch = config.training.batch_size, config.training.accumulate
    size = f"batch size {batch}"
    if config.training.privacy:
        batch = privacy.segment_of(config, images)["capacity"]
        size = f"{batch} places for images, each with a gradient of its own"
    size += f", in {parts_of_batch} parts" if parts_of_batch > 1 else ""
    return (
        f"kept for the backward pass, before the compiler's savings: {each:,.1f} MiB an image, "
        f"{each * batch / devices / parts_of_batch:,.0f} MiB on each of {devices} device(s) at {size}"
    )


def _disk(disk: Disk) -> str:
    """The disk that checkpoints and snapshots of averages use."""
    parts = [f"up to {disk.checkpoints:,} checkpoints of {disk.checkpoint_bytes / MIB:,.1f} MiB"]
    if disk.averages:
        parts += [f"{disk.averages:,} snapshots of averages of {disk.averages_bytes / MIB:,.1f} MiB"]
    return f"disk: {' and '.join(parts)}, {disk.bytes / MIB:,.1f} MiB in all"


def _layers(experiment: Experiment | Classification) -> str:
    """The table of the network's layers and blocks, in order: name, class, inputs, outputs and parameters.

    The network is traced for it, which takes long, and `experiment.param_shapes` is set by the way.
    """
    shapes: PyTree = {}

    def keep_shapes(call: Callable, args: tuple, kwargs: dict, context: nn.module.InterceptorContext) -> Any:
        outputs = call(*args, **kwargs)
        if not context.module.path:  # the network itself
            params = context.module.variables.get("params", {})
            shapes.update(jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), params))
        return outputs

    look = {"table_kwargs": {"box": None}, "console_kwargs": {"width": 140, "force_terminal": False}}
    tabulated = nn.tabulate(experiment.network, jax.random.key(0), depth=1, **look)
    x, noise_cond = jnp.zeros((1, *experiment.image_shape), jnp.float32), jnp.ones(1, jnp.float32)
    with nn.intercept_methods(keep_shapes):
        table = tabulated(x, noise_cond, *experiment.blank_cond(1))
    experiment.param_shapes = shapes | jax.eval_shape(lambda: experiment.objective.init_params(jax.random.key(0)))
    return "\n".join(line.rstrip() for line in table.splitlines() if line.strip())


def planned_nfe(experiment: Experiment) -> int | None:
    """Evaluations of a sample by the config's sampler, condition and guidance; None for adaptive samplers.

    For the networks that config.guidance names, only the configs are read.
    """
    conditional, conditions, networks = _asked_for(experiment)
    params = {name: network.param_shapes for name, network in (networks | {"score": experiment}).items()}
    return conditional.sampler(params, conditions).nfe


def _asked_for(experiment: Experiment) -> tuple[Conditional, Conditions, dict[str, Experiment | Classification]]:
    """The samplers under the config's condition, the condition of one sample, and the networks that guide it.

    Traces no network. Raises `UsageError` for a condition with which these networks cannot sample.
    """
    condition, guidance = experiment.config.sampling.condition, experiment.config.guidance
    named = parts(condition).keys()
    networks: dict[str, Experiment | Classification] = {}
    if guidance.classifier:
        networks["classifier"] = Classification(stored_config(expanded(guidance.classifier)))
    if guidance.weak:
        networks["weak"] = Experiment(stored_config(weak := expanded(guidance.weak)))
        available_step(weak, guidance.weak_step)
    caption = _any_caption(experiment) if guidance.negative or not named.isdisjoint(("text", "texts")) else {}
    conditional = Conditional(experiment, **networks, negative=caption if guidance.negative else None)
    observe, chosen, cond = observation_of(condition, experiment.image_shape), chosen_class(condition), {}
    if chosen is not None:
        cond = {"labels": jnp.full(1, 0 if chosen == ALL else chosen, jnp.int32)}
    elif (rows := chosen_rows(condition)) is not None:
        cond = {name: array[:1] for name, array in rows.items()}
    elif not (observe or named):
        cond = experiment.cond_in_turn(1)
    if not named.isdisjoint(("text", "texts")):
        chosen_texts(condition)  # raises for a file of captions that cannot be read
        cond |= caption
    towards = Towards(cond, jnp.full(1, 0.5)) if "towards" in named else None
    sampling, observed = experiment.config.sampling, None
    check_start(sampling.start_time, started=bool(sampling.start), observed=bool(observe))
    if observe:
        operator = observe(1)
        observed = operator, operator.forward(jnp.zeros((1, *experiment.image_shape))), 0.0
    method = lowered(sampling.method)
    return conditional, conditional.conditions(cond or None, observed, 1, method, towards), networks


def _any_caption(experiment: Experiment) -> Cond:
    """The entries of some caption. Raises `UsageError` for a network that takes no text."""
    entries = {name: entry for name, entry in experiment.cond_entries.items() if name.removesuffix(MASK) in TEXT}
    if not entries:
        raise UsageError(
            "This network takes no text; set encoder.name=text and text.tokenizer=words to train one that does, or ask "
            "for no caption."
        )
    return blank(entries, 1)


def _evaluated(experiment: Experiment) -> None:
    """Raises `UsageError` for figures of config.eval that this network cannot have."""
    options, params = experiment.config.eval, experiment.objective.init_params(jax.random.key(0))
    cond = (blank(experiment.cond_entries, 1) or None) if options.bpd_with_cond else None
    if options.enable_bpd:
        experiment.frozen(params).bits_per_dim(params, cond)
    if options.enable_bound:
        experiment.frozen(params).bound(params, cond)


def _sampler(experiment: Experiment, condition: str) -> str:
    return _unconditional(experiment) + (f", {condition}" if condition else "")


def _unconditional(experiment: Experiment) -> str:
    sampling = experiment.config.sampling
    method = lowered(sampling.method)
    if method == "pc":
        return (
            f"predictor {sampling.predictor}, corrector {sampling.corrector} x {sampling.n_steps_each}, "
            f"snr {sampling.snr:g}, {experiment.sampling_sde.num_scales} times"
        )
    if method == "ode":
        return f"probability-flow ODE by {sampling.ode_method}, rtol {sampling.rtol:g}, atol {sampling.atol:g}"
    if method == "adaptive":
        return f"reverse SDE with adaptive steps, rtol {sampling.sde_rtol:g}"
    if is_import_path(method):
        taken = piece_arguments("sampling.method", method, sampling)
        return ", ".join([method, *(f"{name} {value}" for name, value in taken.items())])
    return f"{method}, {sampling.num_steps} steps on the {sampling.grid} grid"
