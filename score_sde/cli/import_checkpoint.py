"""Import of a published checkpoint as a workdir: `score_sde --mode=import`.

The file is the paper's, EDM's or EDM2's, OpenAI's, U-ViT's, DiT's, or diffusers'
(`score_sde.inference.checkpoint_formats`). Where it says its network, the config is made from it, with which a --config
is compared.
"""

import functools
import hashlib
import secrets
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl.flags import FlagValues

from score_sde import ema
from score_sde.cli.command_line import overrides
from score_sde.cli.fitting_config import built, compare, fitting
from score_sde.config import Config
from score_sde.errors import UsageError
from score_sde.inference import checkpoint_formats
from score_sde.inference.checkpoint_formats import Published, located
from score_sde.inference.published_tensors import leaf_shapes
from score_sde.inference.reference_checkpoints import Reference
from score_sde.io import workdir
from score_sde.io.checkpoints import Checkpoints, Retention
from score_sde.runtime.backend import expanded
from score_sde.sde import VE
from score_sde.training.build import Classification, Experiment, parameter_counts, trainable
from score_sde.training.state import TrainState

WITHOUT_IMAGES = (
    "The file does not hold its images: --mode=train and --mode=eval need them; import with "
    "--config.data.dataset=NAME, or --config.data.path=FOLDER."
)


def run(values: FlagValues) -> None:
    """Imports the checkpoint of a command line."""
    source, model_flags = values["from"].value, values["model_flags"].value
    import_checkpoint(values.config, source, values.workdir, overrides(values), model_flags=model_flags)


def config_of_file(written: dict[str, str | None]) -> Config:
    """The config of a command line without --config, from the file in --from."""
    return _config_of(_read(expanded(written["from"]), written.get("model_flags") or ""))


def import_checkpoint(
    config: Config | None,
    source: str | Path,
    directory: str | Path,
    overrides: dict[str, Any] | None = None,
    *,
    model_flags: str = "",
) -> None:
    """Makes `directory` the workdir of a run that stopped at the checkpoint `source`, and prints a summary.

    config: None makes it from the file. model_flags: of OpenAI's networks, see `checkpoint_formats.read`. Raises
    `UsageError` before anything is written if the file does not fit the config, leaf by leaf, or the workdir is not
    empty.
    """
    source, directory = expanded(source), expanded(directory)
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise UsageError(f"{directory} is not an empty folder; import into a --workdir of its own.")
    published = _read(source, model_flags)
    config = _config_of(published) if config is None else config
    compare(config, published)
    experiment = trainable(config)
    shapes = functools.cache(lambda: leaf_shapes(experiment.init_params))
    reference = published.restore(experiment.network, experiment.image_shape, shapes)
    _check_noise_levels(experiment, reference)
    state, anew = _state(experiment, reference)

    weights = located(source).weights
    with weights.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    facts = {"file": weights.name, "sha256": digest, "format": published.kind, "step": reference.step}
    facts |= {"says": dict(published.facts)} if published.facts else {}
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
    print(f"{source}: {published.kind}, step {reference.step}")
    print(f"SHA-256 {digest}")
    for name, fact in (dict(published.facts) | _facts_of(experiment)).items():
        print(f"{name[0].upper()}{name[1:]}: {fact}")
    print(f"{len(jax.tree.leaves(experiment.param_shapes))} leaves, {total:,} parameters, {learned:,} trainable")
    print(f"EMA weights: {_averages(reference)}; Adam's moments: {_moments(reference)}")
    for sentence in (*anew, *published.unknown, *([WITHOUT_IMAGES] if _lacks_images(config) else [])):
        print(sentence)
    print(f"Workdir: {directory}")


@functools.lru_cache(maxsize=1)
def _read_once(source: Path, model_flags: str, _: tuple) -> Published:
    return checkpoint_formats.read(source, model_flags)


def _read(source: Path, model_flags: str) -> Published:
    """The checkpoint in a file, which is read once for its config and its weights."""
    try:
        weights = located(source).weights.stat()
    except OSError as error:
        raise UsageError(f"Cannot read {source} ({error.strerror or error}).") from error
    return _read_once(source, model_flags, (weights.st_mtime_ns, weights.st_size))


def _config_of(published: Published) -> Config:
    """The config that a file says, or the package's one whose network it fits."""
    return fitting(published) if published.values is None else built(published)


def _facts_of(experiment: Experiment | Classification) -> dict[str, str]:
    """The network, objective, classes and sampler of the config, in a line each."""
    config = experiment.config
    height, width, channels = experiment.image_shape
    facts = {"images": f"{height}x{width}, {channels} channels, in {'[-1, 1]' if experiment.centered else '[0, 1]'}"}
    if isinstance(experiment, Classification):
        return facts
    objective = experiment.objective
    parts = (objective.process, objective.parameterization, objective.times, objective.weight)
    facts["objective"] = ", ".join(type(part).__name__ for part in parts)
    if hasattr(objective.parameterization, "sigma_data"):
        facts["objective"] += f", sigma_data {objective.parameterization.sigma_data:g}"
    classes = experiment.num_classes
    facts["condition"] = f"{classes} classes" if classes else "none"
    facts["model"] = f"{config.model.name}, model.nf={config.model.nf}" if "nf" in config.model else config.model.name
    facts["sampler"] = config.sampling.method
    return facts


def _lacks_images(config: Config) -> bool:
    """Whether neither the file nor the command line says where the images are."""
    return config.data.dataset == "folder" and not config.data.path


def _averages(reference: Reference) -> str:
    return "the same" if reference.params is reference.ema_params else "in the file"


def _moments(reference: Reference) -> str:
    if reference.moments:
        return f"of {reference.moments[0]} updates"
    return "not in the file; training starts them anew"


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


def _state(experiment: Experiment | Classification, reference: Reference) -> tuple[TrainState, list[str]]:
    """The state of a training that stopped there, and sentences on parts of it that are not in the file."""
    profiles, owned, anew = experiment.profiles, {}, []
    if not isinstance(experiment, Classification):
        owned = {name: tree for name, tree in experiment.init_owned().items() if name not in reference.params}
    if owned:
        anew.append(f"Learned parameters of {' and '.join(owned)} are not in the file; training starts them anew.")
    params, averaged = (dict(tree) | owned for tree in (reference.params, reference.ema_params))
    if len(profiles) > 1 and reference.params is not reference.ema_params:
        raise UsageError("The file has raw weights and one average; import it with one of ema.profiles.")
    opt_state = experiment.optimizer.init(params)
    if reference.moments:
        count, mu, nu = reference.moments
        opt_state = optax.tree_utils.tree_set(opt_state, count=jnp.int32(count), mu=mu, nu=nu)
    averages = ema.initial(profiles, averaged)
    return TrainState(jnp.int32(reference.step), params, opt_state, averages), anew
