"""Memory and disk that a training needs, estimated before it starts, as `--mode=describe` prints them."""

import contextlib
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import Literal, Var

from score_sde.array_types import Array, Keys, PyTree
from score_sde.randomness import sample_keys
from score_sde.runtime.memory import tree_bytes
from score_sde.runtime.sharding import split_dimension
from score_sde.training.average_snapshots import power_profiles
from score_sde.training.build import Classification, Experiment

GIB = 2**30


def state_bytes(experiment: Experiment | Classification) -> float:
    """Bytes of the training state on each device: parameters, Adam's moments, averages."""
    shared = experiment.config.training.fsdp
    return sum(
        tree_bytes(leaf) / (1 if split_dimension(leaf.shape, shared) is None else shared)
        for leaf in jax.tree.leaves(experiment.state_shapes)
    )


class Disk(NamedTuple):
    """Disk that a run uses: numbers, at most, of checkpoints and of snapshots of averages, and bytes of one of each."""

    checkpoints: int
    checkpoint_bytes: int
    averages: int
    averages_bytes: int

    @property
    def bytes(self) -> int:
        return self.checkpoints * self.checkpoint_bytes + self.averages * self.averages_bytes


def disk_use(experiment: Experiment | Classification) -> Disk:
    """The disk that checkpoints and snapshots of averages use in all, at the end of the training."""
    options, every = experiment.config.training, experiment.config.ema.snapshot_freq
    for_ever, to_resume = (
        range(freq, options.n_iters + 1, freq) for freq in (options.snapshot_freq, options.snapshot_freq_for_preemption)
    )
    saved = {*for_ever, *to_resume, options.n_iters}
    kept = {*for_ever, *sorted(saved)[-options.keep_last :]}
    checkpoints = min(len(kept) + options.keep_best, len(saved))
    averages = -(-options.n_iters // every) if every else 0
    each = len(power_profiles(experiment.profiles)) * tree_bytes(experiment.param_shapes)
    return Disk(checkpoints, tree_bytes(experiment.state_shapes), averages, each)


def kept_bytes(experiment: Experiment | Classification) -> int:
    """Bytes that training keeps of one image for the backward pass, before the compiler's savings.

    A private training keeps them of each of `privacy.times` draws, and the image's own gradient.
    """

    def kept(params: PyTree, x: Array, noise_cond: Array, keys: Keys, cond: tuple) -> PyTree:
        dropout = {"dropout_keys": keys} if isinstance(experiment, Experiment) else {}  # classifiers have none

        def network(params: PyTree, x: Array) -> Array:
            compute = experiment.compute(training=True)
            return compute.apply(experiment.network, {"params": params}, x, noise_cond, *cond, **dropout)

        return jax.vjp(network, params, x)[1]

    def variables(atoms: Sequence[Var | Literal]) -> list[Var]:
        return [atom for atom in atoms if isinstance(atom, Var)]

    x, noise_cond = jnp.zeros((1, *experiment.image_shape), jnp.float32), jnp.ones(1, jnp.float32)
    of_image = x, noise_cond, sample_keys(jax.random.key(0), jnp.arange(1)), experiment.blank_cond(1)
    jaxpr = jax.make_jaxpr(kept)(experiment.param_shapes, *of_image).jaxpr
    # Arrays that no part of the image reaches, such as parameters, are kept once for a batch.
    reached = set(jaxpr.invars[len(jax.tree.leaves(experiment.param_shapes)) :])
    for equation in jaxpr.eqns:
        if not reached.isdisjoint(variables(equation.invars)):
            reached.update(equation.outvars)
    kept_of_draw = sum(tree_bytes(var.aval) for var in variables(jaxpr.outvars) if var in reached)
    if not experiment.config.training.privacy:
        return kept_of_draw
    return kept_of_draw * experiment.config.privacy.times + tree_bytes(experiment.param_shapes)


def advice(experiment: Experiment | Classification, images: int) -> str:
    """The end of a sentence on a training without enough memory: the estimate, and the keys that lower it.

    images: those of an update: the batch size, or the places for images of a private training.
    """
    training, privacy, estimate = experiment.config.training, experiment.config.privacy, ""
    with contextlib.suppress(Exception):  # there may be no memory for this either
        kept = kept_bytes(experiment) * images / jax.device_count() / training.accumulate
        estimate = (
            f"--mode=describe estimates {state_bytes(experiment) / GIB:,.1f} GiB of state and {kept / GIB:,.1f} GiB "
            "for the backward pass on each device, before the compiler's savings; "
        )
    ways = ["lower privacy.capacity" if training.privacy and privacy.capacity else "lower training.batch_size"]
    if jax.default_backend() != "cpu":  # where both save nothing
        ways += [f"compute it in parts by training.accumulate={2 * training.accumulate}"]
        ways += [] if training.remat else ["set training.remat=True"]
    ways += ["lower privacy.times"] if training.privacy and privacy.times > 1 else []
    return estimate + ", or ".join(ways)
