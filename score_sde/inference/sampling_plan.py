"""Sampling plans: a model's sampler, by its config or with other options of config.sampling and config.guidance.

A plan is made once for each method and options, and holds the compiled programs.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from score_sde.array_types import Array, Key, Keys, PyTree
from score_sde.cond import Cond, numbered
from score_sde.conditioning import Operator
from score_sde.conditioning.grammar import ALL, chosen_class, chosen_rows, chosen_texts, parts
from score_sde.config import Config, FrozenConfig
from score_sde.config.import_paths import is_import_path
from score_sde.config.keys import plain
from score_sde.errors import UsageError, one_of, renaming
from score_sde.inference.captions import configured_captions, text_cond, towards_caption
from score_sde.inference.conditional_samplers import Conditional, Conditions, Towards, UnitObservation
from score_sde.inference.snapshots import Snapshot, available_step, config_of, load_classifier
from score_sde.randomness import batch_keys, sample_keys
from score_sde.runtime.backend import expanded
from score_sde.runtime.memory import largest_batch
from score_sde.runtime.sharding import check_divisible, pad_to_devices
from score_sde.sampling.runner import Runner
from score_sde.training.pieces import rename
from score_sde.training.sampler_options import Method, method_named, sampler_named


class Plan(NamedTuple):
    """A plan: the method, the experiment under a condition, its sampler's programs and parameters."""

    method: Method
    conditional: Conditional
    runner: Runner
    params: dict[str, PyTree]


def plan(model: Snapshot, sampler: Method | None = None, options: dict[str, Any] | None = None) -> Plan:
    """The plan for these options, made once. Raises `UsageError` for unknown options and missing networks."""
    experiment, options = model.experiment, {name: _plain(value) for name, value in (options or {}).items()}
    method = method_named(sampler or model.config.sampling.method)
    sampler_named(method)  # raises for an unknown one

    def make() -> tuple[Conditional, Runner]:
        changes = options or (is_import_path(method) and method != experiment.config.sampling.method)
        chosen = experiment.with_config(_changed(experiment.config, method, options)) if changes else experiment
        helpers = helpers_of(model, chosen.config)
        _check_same_text(model, helpers)
        negative = chosen.config.guidance.negative
        conditional = Conditional(
            chosen,
            **{name: helper.experiment for name, helper in helpers.items()},
            negative=text_cond(model, [negative]) if negative else None,
        )
        return conditional, Runner(functools.partial(conditional.sampler, method=method), batch_nfe=True)

    conditional, runner = experiment.once(("sampler", method, *sorted(options.items())), make)
    helpers = helpers_of(model, conditional.experiment.config)
    return Plan(method, conditional, runner, {"score": model.params} | {k: v.params for k, v in helpers.items()})


def each_label(
    model: Snapshot, labels: Any, n: int, sampler: Any = None, options: dict[str, Any] | None = None
) -> np.ndarray | None:
    """The number of the class of each of n samples, from numbers and names, one for all or one for each; None of None.

    sampler, options: of the plan, whose classifier has names of its own. Raises `UsageError` for other labels.
    """
    if labels is None:
        return None
    helper = helpers_of(model, plan(model, sampler, options).conditional.experiment.config).get("classifier")
    labels = np.asarray(numbered(labels, (helper or model).class_names))
    if labels.shape not in ((), (n,)):
        raise UsageError(f"Labels of shape {labels.shape} for {n} images; give one for all, or one for each.")
    return np.broadcast_to(labels, (n,))


def helpers_of(model: Snapshot, config: FrozenConfig) -> dict[str, Snapshot]:
    """The networks that config.guidance names, each loaded once."""
    named: dict[str, Snapshot] = {}
    classifier, weak, step = (config.guidance[key] for key in ("classifier", "weak", "weak_step"))
    if classifier:
        named["classifier"] = model.experiment.once(("classifier", classifier), lambda: load_classifier(classifier))
    if weak:
        folder = expanded(weak)
        named["weak"] = model.experiment.once(
            ("weak", weak, step),
            lambda: type(model).of_run(config_of(folder, None), folder, available_step(folder, step)),
        )
    return named


def _check_same_text(model: Snapshot, helpers: dict[str, Snapshot]) -> None:
    """Raises `UsageError` for a weaker network that reads a caption in another way."""
    if model.text is None or "weak" not in helpers:
        return
    own, other = ({} if each.text is None else each.text.to_json() for each in (model, helpers["weak"]))
    names = [name for name in {**own, **other} if name != "folder" and own.get(name) != other.get(name)]
    if names:
        raise UsageError(
            f"guidance.weak reads captions by another {names[0]} than this model; name a run, or a step, with the same "
            "text condition."
        )


def _changed(config: FrozenConfig, method: Method, options: dict[str, Any]) -> FrozenConfig:
    """A config with another sampler, and other values in `sampling` and `guidance`."""
    changed = Config(config).copy_and_resolve_references()  # a copy of a frozen config would share its sections
    if is_import_path(method):
        rename(changed, "sampling.method", method)
    for name, value in options.items():
        if name == "classes":
            raise UsageError(renaming("sample", "classes", "labels"))
        one_of("option of config.sampling or config.guidance", name, [*changed.sampling, *changed.guidance])
        changed["sampling" if name in changed.sampling else "guidance"][name] = value
    return FrozenConfig(changed)


def _plain(value: Any) -> Any:
    """A value in the form of configs: NumPy and JAX scalars as numbers, lists and arrays as tuples."""
    if isinstance(value, jax.core.Tracer):
        raise UsageError("Options of samplers are numbers that programs are made of, and cannot be traced by JAX.")
    value = plain(value)
    if isinstance(value, dict | set):
        raise UsageError(f"{value!s:.60} is no option of a sampler; options are numbers, texts, and lists of them.")
    return value


# The samples that a config describes.


def configured_conditions(model: Snapshot, numbers: np.ndarray) -> dict[str, Any]:
    """The condition of the samples with these numbers, and what they go towards, by config.sampling.

    They are keyword arguments of `draw`.
    """
    cond, caption = configured_cond(model, numbers), parts(model.config.sampling.condition).get("towards")
    if caption is None:
        return {"cond": cond}
    each = model.config.sampling.same_noise
    return {"cond": cond, "towards": towards_caption(model, cond, caption, numbers, each)}


def noise_keys(model: Snapshot, key: Key[Array, ""], numbers: np.ndarray) -> Keys:
    """The keys of the samples with these numbers: one for each, or for so many as share their noise."""
    return sample_keys(key, numbers // model.config.sampling.same_noise)


def configured_cond(model: Snapshot, indices: np.ndarray) -> Cond | None:
    """The condition of the samples at these indices, by config.sampling.condition."""
    condition = model.config.sampling.condition
    if (rows := chosen_rows(condition)) is not None:
        return {name: array[indices % len(array)] for name, array in rows.items()}
    labels, captions = configured_labels(model, indices), configured_captions(model, indices)
    cond = {} if labels is None else {"labels": labels}
    return (cond if captions is None else cond | text_cond(model, captions)) or None


def configured_labels(model: Snapshot, indices: np.ndarray) -> np.ndarray | None:
    """The classes of the samples at these indices, by config.sampling.condition; None where it names none."""
    condition = model.config.sampling.condition
    if (rows := chosen_rows(condition)) is not None:
        return rows["labels"][indices % len(rows["labels"])] if "labels" in rows else None
    chosen = chosen_class(condition)  # a number, by `class_choice.with_numbers`
    if chosen == ALL:
        return indices % max(plan(model).conditional.num_classes, 1)
    return None if chosen is None else np.full(len(indices), chosen)


def check_condition(model: Snapshot, operator: Operator | None = None) -> None:
    """Raises `UsageError` if the config's sampler cannot draw a sample of its condition and this observation."""
    observed = None
    if operator is not None:
        observed = (operator, operator.forward(jnp.zeros((1, *model.image_shape), jnp.float32)), 0.0)
    method, conditional, _, _ = plan(model)
    conditional.conditions(observed=observed, n=1, method=method, **configured_conditions(model, np.arange(1)))
    if texts := chosen_texts(model.config.sampling.condition):
        text_cond(model, texts)  # raises for a caption that is too long


def planned_nfe(model: Snapshot) -> int | None:
    """Evaluations of a sample by the config's sampler under its condition; None for adaptive samplers."""
    _, conditional, _, params = plan(model)
    return conditional.sampler(params, Conditions(**configured_conditions(model, np.arange(1)))).nfe


def sampling_bytes(
    model: Snapshot,
    n: int,
    cond: Cond | None = None,
    observed: UnitObservation | None = None,
    towards: Towards | None = None,
) -> int:
    """Bytes that each device needs to draw n samples at once by the config's sampler, under this condition."""
    method, conditional, runner, params = plan(model)
    keys = batch_keys(jax.random.key(0), n)
    conditions, x = (
        conditional.conditions(cond, observed, n, method, towards),
        jax.eval_shape(conditional.experiment.prior, keys),
    )
    return runner.bytes(params, keys, x, (conditions,))


def samples_at_once(model: Snapshot, n: int, conditions_of: Callable[[int], dict[str, Any]]) -> int:
    """Number of samples drawn at once: `sampling.batch_size`, by default `eval`'s, or as many of n as fit in memory.

    conditions_of: number of samples -> their condition and observation, as keyword arguments of `sampling_bytes`.
    """
    size = model.config.sampling.batch_size
    if size == 0:
        return largest_batch(lambda size: sampling_bytes(model, size, **conditions_of(size)), n)
    if size is not None:
        check_divisible("sampling.batch_size", size)
    return min(model.config.eval.batch_size if size is None else size, pad_to_devices(n))
