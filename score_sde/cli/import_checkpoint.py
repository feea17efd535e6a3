"""Import of a checkpoint that the paper's authors released, as a workdir: `score_sde --mode=import`."""

import hashlib
import secrets
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl.flags import FlagValues

from score_sde.cli.command_line import overrides
from score_sde.config import Config
from score_sde.errors import UsageError
from score_sde.inference.reference_checkpoints import Reference, leaf_shapes, read
from score_sde.io import workdir
from score_sde.io.checkpoints import Checkpoints, Retention
from score_sde.runtime.backend import expanded
from score_sde.sde import VE
from score_sde.training.build import Classification, Experiment, parameter_counts, trainable
from score_sde.training.state import TrainState


def run(values: FlagValues) -> None:
    """Imports the checkpoint of a command line."""
    import_checkpoint(values.config, values["from"].value, values.workdir, overrides(values))


def import_checkpoint(
    config: Config, source: str | Path, directory: str | Path, overrides: dict[str, Any] | None = None
) -> None:
    """Makes `directory` the workdir of a run that stopped at the checkpoint `source`, and prints a summary.

    Raises `UsageError` before anything is written if the file does not fit the config, leaf by leaf, or the workdir is
    not empty.
    """
    source, directory = expanded(source), expanded(directory)
    experiment = trainable(config)
    classifier = isinstance(experiment, Classification)
    if len(experiment.profiles) > 1:
        raise UsageError("A checkpoint of the paper's authors has one average; import it with one of ema.profiles.")
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise UsageError(f"{directory} is not an empty folder; import into a --workdir of its own.")
    reference = read(source, leaf_shapes(experiment.init_params), classifier=classifier)
    _check_noise_levels(experiment, reference)
    state = _state(experiment, reference)

    with source.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    facts = {"file": source.name, "sha256": digest, "format": reference.kind, "step": reference.step}
    launch = {"run_id": secrets.token_hex(4), "overrides": dict(overrides or {}), "versions": workdir.versions()}
    workdir.write(directory, "launch.json", launch | {"imported": facts})
    try:
        with Checkpoints(directory / "checkpoints", Retention(every=config.training.snapshot_freq)) as checkpoints:
            checkpoints.save(reference.step, state)
            saved = checkpoints.wait()
    except OSError as error:
        raise UsageError(f"Cannot write the checkpoint in {directory} ({error.strerror or error}).") from error
    if not saved:
        raise UsageError(f"The checkpoint is not written; free space in {directory} and start this again.")
    workdir.write(directory, "config.json", config.to_dict())

    learned, total = parameter_counts(experiment.param_shapes)
    moments = (
        f"of {reference.moments[0]} updates" if reference.moments else "not in the file; training starts them anew"
    )
    print(f"{source}: {reference.kind}, step {reference.step}")
    print(f"SHA-256 {digest}")
    print(f"{len(jax.tree.leaves(experiment.param_shapes))} leaves, {total:,} parameters, {learned:,} trainable")
    print(f"EMA weights: {'in the file' if not classifier else 'the same'}; Adam's moments: {moments}")
    print(f"Workdir: {directory}")


def _check_noise_levels(experiment: Experiment | Classification, reference: Reference) -> None:
    """Raises `UsageError` unless the noise levels in a PyTorch file are those of the config's VE SDE."""
    sde = experiment.sde
    if reference.sigmas is None or not isinstance(sde, VE):
        return
    expected = np.exp(np.linspace(np.log(sde.sigma_max), np.log(sde.sigma_min), sde.num_scales))
    sigmas = reference.sigmas
    if sigmas.shape != expected.shape or not np.allclose(sigmas, expected, rtol=1e-4):
        raise UsageError(
            f"The file's network was built for {len(sigmas)} noise levels from {sigmas[0]:.6g} to {sigmas[-1]:.6g}, "
            f"and the config's for {len(expected)} from {expected[0]:.6g} to {expected[-1]:.6g}; set config.sde to "
            "match."
        )


def _state(experiment: Experiment | Classification, reference: Reference) -> TrainState:
    opt_state = experiment.optimizer.init(reference.params)
    if reference.moments:
        count, mu, nu = reference.moments
        opt_state = optax.tree_utils.tree_set(opt_state, count=jnp.int32(count), mu=mu, nu=nu)
    return TrainState(jnp.int32(reference.step), reference.params, opt_state, reference.ema_params)
