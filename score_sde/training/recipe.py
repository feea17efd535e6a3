"""Recipes: the objective that a config describes.

Sections `process`, `parameterization`, `times` and `weight` each name a row of a dictionary and give arguments of it;
arguments that are not set have the row's defaults. Where a section names no row, the keys of the paper's configs apply:
`sde`, `model.scale_by_sigma`, `training.continuous`, `likelihood_weighting` and `reduce_mean`.
"""

from collections.abc import Collection

from score_sde.config import REPLACED, Config
from score_sde.errors import UsageError
from score_sde.objective import Objective
from score_sde.parameterization import PARAMETERIZATIONS, Parameterization
from score_sde.process import Process
from score_sde.sde import VE, Chain, LinearBeta
from score_sde.times import TIMES, OnChain, TimeLaw
from score_sde.training.pieces import construct, named
from score_sde.weights import WEIGHTS, Weight


def objective_of(config: Config) -> Objective:
    """The objective of a config. Raises `UsageError` for settings that are made twice or do not go together."""
    process, times = process_of(config), times_of(config)
    if config.model.name == "ncsn" and not isinstance(process, Chain):
        raise UsageError(
            f"NCSN has an embedding for each level of a chain, and {type(process).__name__} has none; choose another "
            "model.name, or process.name=ve."
        )
    parameterization, weight = named(config, "parameterization"), _weight(config)
    if process.learned and (type(times), type(weight)) != (TIMES["uniform"], WEIGHTS["likelihood"]):
        raise UsageError(
            f"process.name={config.process.name} learns the schedule that makes the loss vary the least, and needs "
            "a loss whose mean does not depend on it; set weight.name=likelihood and times.name=uniform."
        )
    _check_coupling(config, process)
    if parameterization is None:
        scaled = config.model.get("scale_by_sigma", False)
        parameterization = _of_paper(process, times, scale_by_sigma=scaled)
    noise_cond, model = parameterization.noise_cond, config.model
    if model.get("embedding_type") == "fourier" and noise_cond not in ("time", "sigma"):
        raise UsageError(
            f"A Fourier embedding takes the logarithm of its input, and parameterization.noise_cond={noise_cond} is "
            "not always positive; set model.embedding_type=positional, or fourier_linear."
        )
    if model.name == "ncsn" and noise_cond != "level_index":
        name = "" if config.parameterization.name else "parameterization.name=noise and "
        raise UsageError(
            f"NCSN has an embedding for each noise level; set {name}parameterization.noise_cond=level_index."
        )
    return Objective(process, parameterization, times, weight)


def _check_coupling(config: Config, process: Process) -> None:
    """Raises `UsageError` where training.coupling would not leave the prior, or the loss, its meaning."""
    coupling = config.training.coupling
    if coupling == "independent":
        return
    if not process.begins_in_noise:
        raise UsageError(
            f"Under {type(process).__name__} x_1 holds a part of the image, which training.coupling={coupling} ties to "
            "the noise, so that x_1 is not of the law that samplers begin with; set process.name to linear, cosine or "
            "trigonometric, or training.coupling=independent."
        )
    if config.training.likelihood_weighting or "likelihood" in (config.weight.name, config.weight.get("base")):
        raise UsageError(
            f"The likelihood weight makes the loss of a score a bound, and training.coupling={coupling} trains no "
            "score; set weight.name=velocity, say, or training.coupling=independent."
        )


def process_of(config: Config) -> Process:
    """The process in section `process`, or of the paper's `sde`."""
    return named(config, "process") or construct("sde", dict(config.sde))


def times_of(config: Config) -> TimeLaw:
    """The law of times in section `times`, or of the paper's `training.continuous`."""
    times, continuous = named(config, "times"), config.training.continuous
    if times is not None and not continuous:
        raise UsageError(
            f"training.continuous=False is times.name=chain, and times.name={config.times.name}; set "
            "training.continuous=True, so that times.name alone counts."
        )
    return times or TIMES["uniform" if continuous else "chain"]()


def replaced(config: Config) -> dict[str, str]:
    """Keys and sections without effect, each with the setting "KEY=VALUE" that replaces it."""
    values = {new: config[new.split(".")[0]][new.split(".")[1]] for new in REPLACED}
    return {old: f"{new}={value}" for new, value in values.items() if value for old in REPLACED[new]}


def check_overrides(config: Config, overrides: Collection[str]) -> None:
    """Raises `UsageError` if an overridden key of the paper's configs has no effect because a section replaces it."""
    for old, new in replaced(config).items():
        if twice := [key for key in overrides if key == old or key.startswith(old + ".")]:
            raise UsageError(f"{twice[0]} has no effect, because {new} replaces it; set one of the two.")


def _weight(config: Config) -> Weight:
    """The weight in section `weight`, or of the paper's `training.likelihood_weighting` and `reduce_mean`."""
    training = config.training
    if config.weight.name and training.likelihood_weighting:
        raise UsageError(
            "training.likelihood_weighting=True is weight.name=likelihood; set training.likelihood_weighting=False, so "
            "that weight.name alone counts."
        )
    reduction = config.weight.reduction or ("mean" if training.reduce_mean else "half_sum")
    weight = named(config, "weight", reduction=reduction)
    return weight or WEIGHTS["likelihood" if training.likelihood_weighting else "noise"](reduction)


def _of_paper(process: Process, times: TimeLaw, *, scale_by_sigma: bool) -> Parameterization:
    """The parameterization of the paper's networks, for continuous times or the positions in a chain."""
    discrete = isinstance(times, OnChain)
    if isinstance(process, VE):
        row = PARAMETERIZATIONS["scaled_score" if scale_by_sigma else "score"]
        return row("level_index" if discrete else "sigma")
    if not isinstance(process, LinearBeta):
        raise UsageError(
            f"The paper trains no network under {type(process).__name__}; set what it learns by parameterization.name: "
            f"{', or '.join(PARAMETERIZATIONS)}."
        )
    if scale_by_sigma:
        raise UsageError("model.scale_by_sigma=True belongs to the VE SDE; set model.scale_by_sigma=False for others.")
    return PARAMETERIZATIONS["noise"]("chain_index" if discrete else "time")
