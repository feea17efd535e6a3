"""Weights to begin a training with: the averaged ones of another run, as a reflow begins with its teacher's."""

from collections.abc import Callable
from pathlib import Path

import jax

from score_sde import ema
from score_sde.array_types import PyTree
from score_sde.errors import UsageError, tell
from score_sde.io import workdir
from score_sde.io.checkpoints import Checkpoints
from score_sde.runtime.backend import expanded, program
from score_sde.runtime.sharding import is_first
from score_sde.training.build import Classification, Experiment
from score_sde.training.state import TrainState, initial_state


def beginning(
    experiment: Experiment | Classification, directory: Path, placement: PyTree
) -> Callable[[], TrainState]:
    """The function that makes the state before the first update, by training.start_from.

    directory: workdir of the training. placement: shardings of the state. Raises `UsageError`, unless the training
    goes on from a checkpoint, for a run without a checkpoint and for weights that do not fit the network.
    """
    source = experiment.config.training.start_from
    if not source or workdir.saved_steps(directory):
        return program(experiment.init_state, out_shardings=placement)
    params = _averaged(expanded(source))
    _check_fit(params, experiment.param_shapes, source)
    make = program(
        lambda params: initial_state(params, experiment.optimizer, experiment.profiles), out_shardings=placement
    )
    return lambda: make(params)


def _averaged(source: Path) -> PyTree:
    """The weights of a run's last checkpoint that it samples with, as NumPy arrays."""
    step = workdir.checkpoint_steps(source)[-1]
    config = workdir.stored_config(source)
    profiles = ema.profiles_of(config.ema.profiles, config.optim.ema_rate, config.optim.ema_schedule)
    average = ema.chosen(profiles, config.sampling.ema)
    name = f"ema_params/{average.name}" if len(profiles) > 1 else "ema_params"
    with Checkpoints(source / "checkpoints") as saved:
        params = saved.load_part(step, name)
    if params is None:
        raise UsageError(
            f"The checkpoint of step {step} in {source} is of a version before 0.6, which does not list its parts; go "
            "on with that training for an update, which saves it anew, or leave training.start_from empty."
        )
    if is_first():
        tell(f"beginning with the averaged weights of step {step:,} of {source}")
    return params


def _check_fit(params: PyTree, shapes: PyTree, source: str) -> None:
    """Raises `UsageError` unless the weights have the names and shapes of the network's."""
    own, expected = (
        {jax.tree_util.keystr(path): leaf.shape for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
        for tree in (params, shapes)
    )
    for name in sorted(own.keys() | expected.keys()):
        if own.get(name) != expected.get(name):
            raise UsageError(
                f"The weights of training.start_from={source} do not fit this network: {name} has the shape "
                f"{own.get(name)} there, and {expected.get(name)} here; choose the same model.* as that run's."
            )
