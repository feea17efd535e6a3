"""Weights to begin a training with: the averaged ones of another run, as a reflow begins with its teacher's."""

from collections.abc import Callable
from pathlib import Path

from score_sde import ema
from score_sde.array_types import PyTree
from score_sde.errors import UsageError, tell
from score_sde.io import workdir
from score_sde.io.checkpoints import Checkpoints
from score_sde.runtime.backend import expanded, program
from score_sde.runtime.sharding import is_first
from score_sde.training.build import Classification, Experiment
from score_sde.training.state import TrainState, average_part, initial_state, misfit
from score_sde.training.trainable import profiles_of


def beginning(experiment: Experiment | Classification, directory: Path, placement: PyTree) -> Callable[[], TrainState]:
    """The function that makes the state before the first update, by training.start_from.

    directory: workdir of the training. placement: shardings of the state. Raises `UsageError`, unless the training
    goes on from a checkpoint, for a run without a checkpoint and for weights that do not fit the network.
    """
    source = experiment.config.training.start_from
    if not source or workdir.saved_steps(directory):
        return program(experiment.init_state, out_shardings=placement)
    params = _averaged(expanded(source))
    if problem := misfit(params, experiment.param_shapes):
        name, there, here = problem
        raise UsageError(
            f"The weights of training.start_from={source} do not fit this network: {name} has the shape {there} there, "
            f"and {here} here; choose the same model.* as that run's."
        )
    make = program(
        lambda params: initial_state(params, experiment.optimizer, experiment.profiles), out_shardings=placement
    )
    return lambda: make(params)


def _averaged(source: Path) -> PyTree:
    """The weights of a run's last checkpoint that it samples with, as NumPy arrays."""
    step = workdir.checkpoint_steps(source)[-1]
    config = workdir.stored_config(source)
    profiles = profiles_of(config)
    with Checkpoints(source / "checkpoints") as saved:
        params = saved.load_part(step, average_part(profiles, ema.chosen(profiles, config.sampling.ema)))
    if params is None:
        raise UsageError(
            f"The checkpoint of step {step} in {source} is of a version before 0.6, which does not list its parts; go "
            "on with that training for an update, which saves it anew, or leave training.start_from empty."
        )
    if is_first():
        tell(f"beginning with the averaged weights of step {step:,} of {source}")
    return params
