"""Dequantization of images for a model's likelihoods, also by the variational dequantizer of its workdir."""

from score_sde.array_types import Keys, ModelImages, PerSample, PyTree, UnitImages
from score_sde.errors import UsageError
from score_sde.inference.snapshots import Snapshot, saved_weights
from score_sde.io import checkpoints, workdir
from score_sde.randomness import Stream, stream
from score_sde.runtime.sharding import place, pmap, split
from score_sde.training.build import Dequantizing

DEQUANTIZER = "dequantizer"  # its folder in a workdir


def dequantize(model: Snapshot, keys: Keys, x: UnitImages) -> tuple[ModelImages, PerSample]:
    """Points in model range for images in [0, 1], and bits/dim of q there (`score_sde.likelihood.dequantization`)."""
    experiment = model.experiment

    def points(params: PyTree, keys: Keys, x: UnitImages) -> tuple[ModelImages, PerSample]:
        learned = (_dequantizing(model).network_fn(params),) if params else ()
        return experiment.dequantization(*learned).sample(stream(keys, Stream.DEQUANTIZE), x)

    program = experiment.once("dequantize", lambda: pmap(points, in_axes=(None, 0, 0), out_axes=None))
    y, log_q = program(dequantizer_params(model), *split(keys, x))
    return y[: len(x)], log_q[: len(x)]


def dequantizer_params(model: Snapshot) -> PyTree:
    """Averaged parameters of the variational dequantizer; {} for other choices. Raises `UsageError` if untrained."""
    if model.experiment.dequantization_name != "variational":
        return {}
    folder = None if model.directory is None else model.directory / DEQUANTIZER / "checkpoints"
    steps = checkpoints.steps(folder) if folder else []
    if not (steps and workdir.read(model.directory, f"{DEQUANTIZER}/config.json")):
        raise UsageError(
            f"eval.dequantization=variational: no dequantizer in {model.directory}; run --mode=train_dequantizer."
        )

    def read() -> PyTree:
        return place(saved_weights(_dequantizing(model), folder, steps[-1], "ema_params")[0])

    return model.experiment.once(("dequantizer", folder), read)


def _dequantizing(model: Snapshot) -> Dequantizing:
    return Dequantizing(model.experiment, workdir.read(model.directory, f"{DEQUANTIZER}/config.json"))
