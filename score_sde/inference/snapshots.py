"""Snapshots: a network with the weights of one checkpoint, the base of trained scores and of classifiers.

A snapshot is frozen data. Another checkpoint or average of its run is another value, `snapshot.at(step)`, which shares
the compiled programs, because these belong to the experiment: objective and network as functions of parameters.
"""

import contextlib
import dataclasses
import functools
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

import jax
import numpy as np

from score_sde import ema, images
from score_sde.array_types import (
    Array,
    Float,
    ImageShape,
    Integer,
    Keys,
    ModelImages,
    PerSample,
    Pixels,
    PyTree,
    Times,
    UInt8,
)
from score_sde.cond import Cond, restricted
from score_sde.config import AnyConfig, Config, FrozenConfig, base
from score_sde.config.arguments import check_arguments
from score_sde.config.kinds import described
from score_sde.data.text_cond import TextCond
from score_sde.ema import Profile
from score_sde.errors import UsageError, moved_names
from score_sde.inference import posthoc_weights
from score_sde.inference.inputs import NoisyTimes, check_taken, for_each, of_shape
from score_sde.io import checkpoints, workdir
from score_sde.io.digest import digest
from score_sde.objective import Objective
from score_sde.process import Process
from score_sde.runtime.backend import expanded
from score_sde.runtime.sharding import fully_sharded, mesh, on_host, place, pmap, split
from score_sde.training import own_code, sigma_data
from score_sde.training import text as run_text
from score_sde.training.build import Classification, Dequantizing, Experiment, parameter_counts
from score_sde.training.pieces import complete
from score_sde.training.state import TrainState, average_part, misfit


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Snapshot:
    """A network with the weights of one checkpoint, or with your own.

    objective: process, parameterization, law of times and weight that the network was trained by.
    network: a flax module, see `score_sde.config.protocols.Network`.
    params: its parameters, `network.init(...)["params"]`, on the devices; NumPy arrays are copied there.
    image_shape: (height, width, channels). image_range: model range, (low, high), or `images.CENTERED`, which is
    (-1, 1); with `images.UNIT`, which is (0, 1), the network gets 2x - 1.
    config: its sections `sampling`, `guidance` and `eval` are the defaults of the functions; default the base config.
    step, digest, directory: the update after which the weights were saved, their digest, and the workdir, if any.
    ema: whether the weights are averaged; the name of the average where the run has several, or it was made after the
    fact.
    experiment: objective and network as functions of parameters, made from the above and shared with other snapshots.
    class_names: names of the classes, which may stand for their numbers in labels. text: turns captions into entries
    of the condition, `model.text.cond(["a red star"])`; None for a network without text.

    Raises `UsageError` for parameters that do not fit the network.
    """

    objective: Objective
    network: Any
    params: PyTree
    image_shape: ImageShape
    image_range: images.Scaling | tuple[float, float] = images.CENTERED
    config: AnyConfig | None = None
    step: Annotated[int, "[0, inf)"] = 0
    digest: str = ""
    directory: Path | None = None
    ema: bool | str = False
    experiment: Experiment | Classification | None = None
    class_names: Sequence[str] = ()
    text: TextCond | None = None
    _experiment_class: ClassVar[type] = Experiment

    def __post_init__(self):
        if isinstance(self.network, type) or not (hasattr(self.network, "init") and hasattr(self.network, "apply")):
            raise UsageError(
                f"network must be a flax module, as Denoiser() of a class Denoiser, and is {described(self.network)}."
            )
        if not isinstance(self.image_range, images.Scaling):
            low, high = self.image_range
            if not -np.inf < low < high < np.inf:
                raise UsageError(f"image_range={self.image_range} must be (low, high) with low < high.")
            self._set("image_range", images.Scaling(float(high - low), float(low)))
        self._set("image_shape", tuple(self.image_shape))
        config = _base(self.image_shape, self.image_range) if self.config is None else self.config
        self._set("config", config if isinstance(config, FrozenConfig) else FrozenConfig(config))
        experiment = self.experiment
        if experiment is None or not self._is_of(experiment):
            of_images = dict(image_shape=self.image_shape, scaling=self.image_range)
            experiment = type(self)._experiment_class(self.config, self.objective, self.network, **of_images)
        _check_fit(self.params, experiment.param_shapes)
        self._set("params", self._placed(self.params))
        self._set("experiment", experiment.frozen(self.params))
        self._set("objective", self.experiment.objective)  # with the numbers of a schedule that is learned

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def _is_of(self, experiment: Experiment | Classification) -> bool:
        """Whether the experiment was made from this snapshot's objective, network, config and images."""
        same = experiment.objective is self.objective and experiment.network is self.network
        same = same and experiment.config is self.config
        return same and (experiment.image_shape, experiment.scaling) == (self.image_shape, self.image_range)

    @classmethod
    def of_run(
        cls, config: FrozenConfig, directory: Path, step: int | None, *, average: bool | str | float = True
    ) -> "Snapshot":
        """The network of a workdir with the weights of a checkpoint, or an average of them. Arguments as for `load`."""
        experiment = cls._experiment_class(config)
        _, name = _average(experiment, average)
        step = _step(experiment, directory, step, name)
        params, saved_digest = _weights(experiment, directory, step, name)
        if own_code.is_as_launched(directory, config):
            experiment.param_shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), params)
        parts = {name: getattr(experiment, name) for name in ("objective", "network", "image_shape", "config")}
        parts |= dict(image_range=experiment.scaling, experiment=experiment)
        parts |= dict(class_names=workdir.class_names(directory), text=run_text.stored(directory, config.text.frozen))
        return cls(**parts, params=params, step=step, digest=saved_digest, directory=directory, ema=name)

    def at(self, step: int | None = None, *, ema: bool | str | float | None = None) -> "Snapshot":
        """The same network with the weights of another checkpoint or average of its run; nothing compiles again.

        step: default this one's. ema: as for `load`; default as these weights. A learned schedule changes with the
        weights, and then programs compile again. Raises `UsageError` where there is no such checkpoint or average.

            early = model.at(1000)
        """
        if self.directory is None:
            raise UsageError("This model was made from parameters, and has no workdir with other checkpoints.")
        _, name = _average(self.experiment, self.ema if ema is None else ema)
        step = _step(self.experiment, self.directory, self.step if step is None else step, name)
        params, saved_digest = _weights(self.experiment, self.directory, step, name)
        return dataclasses.replace(self, params=params, step=step, digest=saved_digest, ema=name)

    def __repr__(self) -> str:
        h, w, c = self.image_shape
        kind, process = type(self.network).__name__, type(self.sde).__name__
        parts = [f"{h}x{w}x{c}", kind, process, f"{parameter_counts(self.params)[1]:,} parameters"]
        if self.directory is not None:
            parts[0] = f"{self.config.data.dataset} {parts[0]}"
            weights = f"average {self.profile.name}" if self.ema else "raw weights"
            parts += [f"step {self.step} of {self.directory}", weights]
        return f"{type(self).__name__}({', '.join(parts)})"

    def __reduce__(self) -> tuple:
        """Pickles the data, with parameters as NumPy arrays; programs compile again where it is unpickled."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return functools.partial(type(self), **fields | {"params": on_host(self.params), "experiment": None}), ()

    def _placed(self, params: PyTree) -> PyTree:
        """Parameters on the devices; ones that are not there yet are copied.

        The number of devices may differ from training.
        """
        if all(isinstance(leaf, jax.Array) and _is_placed(leaf) for leaf in jax.tree.leaves(params)):
            return params
        return place(params, fully_sharded(params, math.gcd(self.config.training.fsdp, jax.device_count())))

    @property
    def sde(self) -> Process:
        return self.experiment.sde

    @property
    def profile(self) -> Profile:
        """The profile of these weights, or for raw weights of the average that they are compared with."""
        return _average(self.experiment, self.ema or True)[0]

    def evaluation(
        self, params: PyTree, pixels: Pixels, number: int, indices: np.ndarray, cond: Cond | None = None
    ) -> dict[str, PerSample]:
        """`Trainable.evaluation` over all devices, with those entries of the condition that the network takes."""
        n, experiment = len(pixels), self.experiment
        pixels, indices, cond = split(pixels, indices, restricted(cond, experiment.cond_entries))
        axes = dict(in_axes=(None, 0, None, 0, 0), out_axes=None)
        program = experiment.once("evaluation", lambda: pmap(experiment.evaluation, **axes))
        return {name: values[:n] for name, values in program(params, pixels, number, indices, cond).items()}

    def both_weights(self) -> dict[str, PyTree]:
        """The "raw" and the "averaged" weights of the checkpoint; one of them is read again."""
        other_average = False if self.ema else self.profile.name
        other = self._placed(_weights(self.experiment, self.directory, self.step, other_average)[0])
        return {"raw": other, "averaged": self.params} if self.ema else {"raw": self.params, "averaged": other}


@check_arguments
def load_classifier(
    directory: Path, step: int | None = None, config: AnyConfig | None = None
) -> "PretrainedClassifier":
    """The noise-conditional classifier of a workdir, with averaged weights. Arguments and errors as for `load`.

    `PretrainedClassifier` has an example of its use.
    """
    directory = expanded(directory)
    return PretrainedClassifier.of_run(config_of(directory, config), directory, available_step(directory, step))


@check_arguments
def logits(model: "PretrainedClassifier", x: ModelImages, t: NoisyTimes) -> Float[Array, "b k"]:
    """Logits of p(class | x_t) at x, of shape (b, classes).

    x: images in model range, float32. t: a time in (0, 1] for each image, or one for all. Composes with `jit`, `grad`,
    `scan`, `vmap`.

        p = jax.nn.softmax(classifier.logits(x, 0.5))
    """
    experiment = model.experiment

    def of(params: PyTree, x: ModelImages, t: Times) -> Float[Array, "b k"]:
        return experiment.logits_fn(params)(x, t)

    t = for_each(t, len(x))
    check_taken(of, model.image_shape, model.params, x, t)
    program = experiment.once("logits", lambda: pmap(of, in_axes=(None, 0, 0), out_axes=None))
    return program(model.params, *split(x, t))[: len(x)]


@check_arguments
def hits(
    model: "PretrainedClassifier",
    keys: Keys,
    pixels: UInt8[Array, "b h w c"],
    labels: Annotated[Integer[Array, " b"], "[0, inf)"],
    t: Annotated[float, "(0, 1]"],
) -> PerSample:
    """Indicator for each image, over all devices: 1 if its label is the likeliest class at x_t, else 0.

    keys: of the noise on each image. pixels: uint8. labels: int (b,). t: one time for all.
    """
    experiment, times = model.experiment, np.full(len(pixels), t, np.float32)
    of_shape(pixels, model.image_shape)
    program = experiment.once("hits", lambda: pmap(experiment.hits, in_axes=(None, 0, 0, 0, 0), out_axes=None))
    return program(model.params, *split(keys, pixels, labels.astype(np.int32), times))[: len(pixels)]


@check_arguments
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class PretrainedClassifier(Snapshot):
    """A noise-conditional classifier with the weights of a checkpoint, or with your own: see `Snapshot`.

    `load_classifier` makes it of a workdir. A network of your own needs none:

        import flax.linen as nn
        import jax
        import jax.numpy as jnp
        from score_sde.inference.snapshots import PretrainedClassifier
        from score_sde.objective import Objective
        from score_sde.parameterization import Noise
        from score_sde.sde import VP
        from score_sde.times import Uniform
        from score_sde.weights import NoiseWeight

        class Linear(nn.Module):  # takes x_0 + noise, x_0 in [0, 1]
            num_outputs: int = 10

            @nn.compact
            def __call__(self, x, noise_level):
                return nn.Dense(self.num_outputs)(x.reshape(len(x), -1))

        network, x = Linear(), jnp.zeros((2, 8, 8, 1))
        params = network.init(jax.random.key(0), x, jnp.ones(2))["params"]
        objective = Objective(VP(), Noise(), Uniform(), NoiseWeight())
        classifier = PretrainedClassifier(objective, network, params, image_shape=(8, 8, 1))
        p = jax.nn.softmax(classifier.logits(x, 0.5))  # (2, 10)
    """

    _experiment_class: ClassVar[type] = Classification
    logits = logits
    hits = hits


@check_arguments
def available_step(directory: Path, step: int | None) -> int:
    """The step `step`, default the last. Raises `UsageError` if it has no checkpoint."""
    available = workdir.checkpoint_steps(Path(directory))
    step = available[-1] if step is None else step
    if step not in available:
        raise UsageError(f"No checkpoint of step {step} in {directory}; there are: {', '.join(map(str, available))}.")
    return int(step)


def config_of(directory: Path, other: Config | None) -> FrozenConfig:
    """The workdir's config, or another config that describes the same run."""
    if other is not None:
        complete(other := Config(other))
        sigma_data.inherit(directory, other)
        workdir.check_same_run(directory, other.to_dict())
    config = workdir.stored_config(directory) if other is None else other
    own_code.check_code(directory, config)
    return FrozenConfig(config)


def restore_state(
    trainable: Experiment | Classification | Dequantizing, folder: Path, step: int
) -> tuple[TrainState, str]:
    """The state saved at `step`, and its digest."""
    with _readable(folder, step) as saved:
        state = saved.load(step, checkpoints.on_host(trainable.state_shapes))
        return state, saved.digest(step) or digest(state)


def saved_weights(
    trainable: Experiment | Classification | Dequantizing, folder: Path, step: int, name: str
) -> tuple[PyTree, str]:
    """The weights "params", "ema_params" or "ema_params/NAME" of the state saved at `step`, and the state's digest.

    The rest of the state is read only from a checkpoint of an older version, whose parts have no digests of their own.
    """
    with _readable(folder, step) as saved:
        if (weights := saved.load_part(step, name)) is not None:
            return weights, saved.digest(step)
    state, saved_digest = restore_state(trainable, folder, step)
    field, _, average = name.partition("/")
    weights = getattr(state, field)
    return weights[average] if average else weights, saved_digest


@contextlib.contextmanager
def _readable(folder: Path, step: int) -> Iterator[checkpoints.Checkpoints]:
    """The checkpoints of a folder; the error of one that cannot be read names the others."""
    with checkpoints.Checkpoints(folder) as saved:
        try:
            yield saved
        except UsageError as error:
            others = ", ".join(str(other) for other in checkpoints.steps(folder) if other != step) or "none"
            raise UsageError(f"{error} Other steps: {others}; training goes on from the last readable one.") from error


def _average(experiment: Experiment | Classification, average: bool | str | float) -> tuple[Profile, bool | str]:
    """The average that is asked for, and its name as `Snapshot.ema` has it: a bool for the run's only one, or none."""
    profiles, name = experiment.profiles, experiment.config.sampling.ema
    if not isinstance(average, bool):
        name = average if isinstance(average, str) else ema.Power(float(average)).name
    profile = ema.wanted(profiles, name)
    named = len(profiles) > 1 or profile not in profiles
    return profile, profile.name if average and named else bool(average)


def _step(experiment: Experiment | Classification, directory: Path, step: int | None, average: bool | str) -> int:
    """The step `step`, by default the last, that has this average. Raises `UsageError` if it has none."""
    profile = _average(experiment, average)[0]
    if average and profile not in experiment.profiles:
        return posthoc_weights.last_step(directory) if step is None else step
    return available_step(directory, step)


def _weights(
    experiment: Experiment | Classification, directory: Path, step: int, average: bool | str
) -> tuple[PyTree, str]:
    """Raw or averaged weights of a step, and the digest of its checkpoint, or of weights made after the fact."""
    profile, profiles = _average(experiment, average)[0], experiment.profiles
    if average and profile not in profiles:
        made = posthoc_weights.made(directory, profiles, profile, step)
        return made.params, made.digest
    averaged = average_part(profiles, profile)
    return saved_weights(experiment, directory / "checkpoints", step, averaged if average else "params")


def _base(image_shape: tuple[int, int, int], image_range: images.Scaling) -> FrozenConfig:
    """The base config, for images of this shape and range."""
    config = base()
    height, width, num_channels = image_shape
    config.data.update(image_size=height, num_channels=num_channels)
    config.data.image_width = None if width == height else width
    config.data.centered = image_range != images.UNIT
    return FrozenConfig(config)


def _is_placed(leaf: jax.Array) -> bool:
    """Whether an array is traced, or on all devices."""
    return isinstance(leaf, jax.core.Tracer) or leaf.sharding.device_set == set(mesh().devices.flat)


def _check_fit(params: PyTree, shapes: PyTree) -> None:
    """Raises `UsageError` unless the parameters have the names and shapes of the network's."""
    if problem := misfit(params, shapes):
        name, own, expected = problem
        raise UsageError(
            f"The parameters do not fit the network: {name} has the shape {own}, and the network's {expected}; give "
            'params=network.init(...)["params"], trained.'
        )


__getattr__ = moved_names(__name__, {"AnyTimes": "score_sde.inference.inputs.AnyTimes"})
