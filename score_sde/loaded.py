"""A network with the weights of a checkpoint: what trained scores and trained classifiers share, and the latter."""

import functools
import math
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from score_sde import checkpoints, ema, workdir
from score_sde.array_types import Array, Float, Images, Keys, PerSample, Pixels, PyTree, Times
from score_sde.build import Classification, Dequantizing, Experiment
from score_sde.cond import Cond, taken
from score_sde.config import Config, FrozenConfig
from score_sde.digest import digest
from score_sde.errors import UsageError
from score_sde.parallel import fully_sharded, place, pmap, split
from score_sde.process import Process
from score_sde.state import TrainState


def load_classifier(
    directory: str | Path, step: int | None = None, config: Config | None = None
) -> "TrainedClassifier":
    """The noise-conditional classifier of a workdir, with its EMA weights. Arguments and errors as those of `load`."""
    step = available_step(directory, step)
    return TrainedClassifier(Classification(config_of(Path(directory), config)), Path(directory), step)


def config_of(directory: Path, given: Config | None) -> FrozenConfig:
    """The workdir's, or another that describes the same run."""
    if given is not None:
        workdir.check_same_run(directory, given.to_dict())
    return FrozenConfig(stored_config(directory) if given is None else given)


def available_step(directory: str | Path, step: int | None) -> int:
    """`step`, default the last, if it has a checkpoint."""
    available = workdir.checkpoint_steps(Path(directory))
    step = available[-1] if step is None else step
    if step not in available:
        raise UsageError(f"No checkpoint of step {step} in {directory}; there are: {', '.join(map(str, available))}.")
    return step


def stored_config(directory: Path) -> Config:
    """The config that a workdir was trained with."""

    def restore(value):
        if isinstance(value, dict):
            return {key: restore(v) for key, v in value.items()}
        return tuple(value) if isinstance(value, list) else value

    stored = workdir.read(directory, "config.json")
    return Config(restore(workdir.completed(stored))).lock()


class Loaded:
    """A network with the weights of one checkpoint.

    ema: whether these are averaged; where the run has several averages, the name of this one. profile: of the average,
    or of that which raw weights are compared with.
    """

    def __init__(
        self, experiment: Experiment | Classification, directory: Path, step: int, *, average: bool | str = True
    ):
        self.experiment = experiment
        self.directory = directory
        name = average if isinstance(average, str) else experiment.config.sampling.ema
        self.profile = ema.chosen(experiment.profiles, name)
        self.ema: bool | str = self.profile.name if average and len(experiment.profiles) > 1 else bool(average)
        self.restore(step)

    def restore(self, step: int) -> None:
        """Takes the weights of another checkpoint; nothing is compiled again, unless they have a schedule of theirs."""
        self.step = step
        state, self.digest = restore_state(self.experiment, self.directory / "checkpoints", step)
        params = self._averaged(state) if self.ema else state.params
        self.params, frozen = self._placed(params), self.experiment.frozen(params)
        if frozen is not self.experiment:
            self.experiment = frozen
            self._forget_programs()

    def _forget_programs(self) -> None:
        """Drops what is made once, programs among it, which hold the numbers of a learned schedule."""
        for name in list(vars(self)):
            if isinstance(getattr(type(self), name, None), functools.cached_property):
                del vars(self)[name]

    def _averaged(self, state: TrainState) -> PyTree:
        return ema.average(self.experiment.profiles, state.ema_params, self.profile)

    def _placed(self, params: PyTree) -> PyTree:
        """Parameters on the devices. Trained on more of these, they may be loaded on fewer."""
        return place(params, fully_sharded(params, math.gcd(self.config.training.fsdp, jax.device_count())))

    @property
    def config(self) -> Config:
        return self.experiment.config

    @property
    def sde(self) -> Process:
        return self.experiment.sde

    def evaluation(
        self, params: PyTree, pixels: Pixels, number: int, indices: np.ndarray, cond: Cond | None = None
    ) -> dict[str, PerSample]:
        """`Trainable.evaluation` over all devices, of the images with what the network takes of their conditions."""
        n = len(pixels)
        pixels, indices, cond = split(pixels, indices, taken(cond, self.experiment.cond_entries))
        found = self._evaluation(params, pixels, number, indices, cond)
        return {name: values[:n] for name, values in found.items()}

    @functools.cached_property
    def _evaluation(self) -> Callable:
        return pmap(self.experiment.evaluation, in_axes=(None, 0, None, 0, 0), out_axes=None)

    def both_weights(self) -> dict[str, PyTree]:
        """The "raw" and the "averaged" weights of the checkpoint, one of them read again."""
        state, _ = restore_state(self.experiment, self.directory / "checkpoints", self.step)
        other = self._placed(state.params if self.ema else self._averaged(state))
        return {"raw": other, "averaged": self.params} if self.ema else {"raw": self.params, "averaged": other}


class TrainedClassifier(Loaded):
    """The noise-conditional classifier of a workdir."""

    def logits(self, x: Images, t: Times) -> Float[Array, "b k"]:
        """Logits of p(class | x_t) at x (model range, float32), one time in (0, 1] for each image."""
        return self._logits(self.params, *split(x, t))[: len(x)]

    @functools.cached_property
    def _logits(self) -> Callable:
        return pmap(lambda params, x, t: self.experiment.logits_fn(params)(x, t), in_axes=(None, 0, 0), out_axes=None)

    def hits(self, keys: Keys, pixels: Pixels, labels: np.ndarray, t: float) -> PerSample:
        """`Classification.hits` at one time, over all devices."""
        times = np.full(len(pixels), t, np.float32)
        return self._hits(self.params, *split(keys, pixels, labels.astype(np.int32), times))[: len(pixels)]

    @functools.cached_property
    def _hits(self) -> Callable:
        return pmap(self.experiment.hits, in_axes=(None, 0, 0, 0, 0), out_axes=None)


def restore_state(
    trainable: Experiment | Classification | Dequantizing, folder: Path, step: int
) -> tuple[TrainState, str]:
    """The state saved at `step`, and its digest."""
    with checkpoints.Checkpoints(folder) as saved:
        try:
            state = saved.load(step, checkpoints.on_host(jax.eval_shape(trainable.init_state)))
            return state, saved.digest(step) or digest(state)
        except UsageError as error:
            others = ", ".join(str(other) for other in checkpoints.steps(folder) if other != step) or "none"
            raise UsageError(
                f"{error} Other steps: {others}; training goes on from the last that can be read."
            ) from error
