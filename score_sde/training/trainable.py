"""Trainables: the parts that scores and classifiers share, made from a config: SDE, network, optimizer, images."""

import abc
import copy
import dataclasses
import functools
import inspect
from collections.abc import Callable, Hashable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import traverse_util

from score_sde import ema, images
from score_sde.array_types import Array, Keys, ModelImages, PerSample, Pixels, PyTree, Times, UnitImages
from score_sde.cond import Cond, Entries, blank
from score_sde.config import Config
from score_sde.errors import UsageError
from score_sde.models import PRECISIONS, Compute, check_computes, is_trainable
from score_sde.objective import Objective, network_params
from score_sde.process import Process
from score_sde.randomness import Stream, sample_keys, stream
from score_sde.runtime.sharding import on_host
from score_sde.training import augmentation, text
from score_sde.training.pieces import construct, named
from score_sde.training.state import TrainState, adam, initial_state


class Trainable(abc.ABC):
    """Base class of experiments that the training loop trains. evaluated: names of the arrays of `evaluation`."""

    evaluated: tuple[str, ...] = ("loss",)
    is_frozen = False  # whether `sde` has the numbers of its parameters

    def __init__(
        self,
        config: Config,
        choices: dict[str, Any],
        objective: Objective,
        network: Any = None,
        image_shape: tuple[int, int, int] | None = None,
        scaling: images.Scaling | None = None,
    ):
        self.config = config
        self.scaling = scaling or (images.CENTERED if config.data.centered else images.UNIT)
        self.image_shape = image_shape or shape_of(config)
        self.objective, self.sde = objective, objective.process
        self.network = _network(config, choices, self.sde) if network is None else network
        _check_network(self.network, *self.image_shape[:2])
        text.check_network(config, self.cond_entries)
        augmentation.check(self.network, config.data.augment_p, config.data.augment_transforms)
        check_computes(self.network, config.training.precision, remat=config.training.remat)
        self._programs: dict[Hashable, Any] = {}

    # Tracing a network takes longer than reading its weights, which need neither of these.
    @functools.cached_property
    def param_shapes(self) -> PyTree:
        """Shapes of `init_params`."""
        return jax.eval_shape(self.init_params)

    @functools.cached_property
    def optimizer(self) -> optax.GradientTransformation:
        return _optimizer(self.config, self.param_shapes)

    def once(self, name: Hashable, make: Callable[[], Any]) -> Any:
        """The compiled program with this name, made once for all that share the experiment."""
        if name not in self._programs:
            self._programs[name] = make()
        return self._programs[name]

    def with_config(self, config: Config) -> "Trainable":
        """The same objective and network under another config, which may differ only in how they are used."""
        other = copy.copy(self)
        other.config, other._programs = config, {}
        return other

    def init_params(self) -> PyTree:
        """Fresh parameters, a function of config.seed."""
        x, noise_cond = jnp.zeros((1, *self.image_shape), jnp.float32), jnp.ones(1, jnp.float32)
        key = stream(jax.random.key(self.config.seed), Stream.INIT)
        layers = self.network.init(key, x, noise_cond, *self.blank_cond(1)).get("params", {})
        return self.normalized(layers) | self.init_owned()

    def init_owned(self) -> dict[str, PyTree]:
        """Fresh parameters of the process and the weight, which are part of `init_params`; {} if they learn none."""
        return self.objective.init_params(stream(stream(jax.random.key(self.config.seed), Stream.INIT), 1))

    def normalized(self, params: PyTree) -> PyTree:
        """The parameters as the network's own `normalized` returns them, for networks with forced normalisation.

        Those of process and weight stay. Raises `UsageError` if that changes names, shapes or types.
        """
        if not hasattr(self.network, "normalized"):
            return params
        before = network_params(params)
        after = self.network.normalized(before)
        like = [jax.tree.map(lambda leaf: (jnp.shape(leaf), jnp.result_type(leaf)), tree) for tree in (before, after)]
        if like[0] != like[1]:
            raise UsageError(
                f"{type(self.network).__name__}.normalized returns parameters of other names, shapes or types than it "
                "gets; it may change values alone."
            )
        return params | after

    def frozen(self, params: PyTree) -> "Trainable":
        """A copy with the learned schedule of these parameters, as NumPy numbers; itself if none is learned.

        Fast solvers, time grids and bounds need such numbers. params: as for `init_params`, not traced.
        """
        if "process" not in params:
            return self
        numbers = on_host(params["process"])
        if self.is_frozen and jax.tree.all(jax.tree.map(np.array_equal, self.sde.params, numbers)):
            return self
        held = Trainable.with_config(self, self.config)
        held.is_frozen, held.sde = True, self.sde.with_params(numbers)
        held.objective = dataclasses.replace(self.objective, process=held.sde)
        return held

    def process_of(self, params: PyTree) -> Process:
        """The process with its parameters among these, or frozen; at its initial schedule where they are shapes."""
        own = params.get("process", {})
        shapes = any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(own))
        return self.sde if self.is_frozen or shapes or not own else self.sde.with_params(own)

    def init_state(self) -> TrainState:
        return initial_state(self.init_params(), self.optimizer, self.profiles)

    @property
    def state_shapes(self) -> TrainState:
        """Shapes of `init_state`, without tracing the network again."""
        return jax.eval_shape(lambda params: initial_state(params, self.optimizer, self.profiles), self.param_shapes)

    @property
    def centered(self) -> bool:
        """Whether images enter the network unchanged; images in [0, 1] enter as 2x - 1."""
        return self.scaling != images.UNIT

    @property
    def profiles(self) -> ema.Profiles:
        """Profiles of the averages that are kept, by the current config: training inherits values from its workdir."""
        return profiles_of(self.config)

    @property
    def cond_entries(self) -> Entries:
        """Entries of the condition that come with the images in training and evaluation."""
        return getattr(self.network, "cond_entries", {})

    @property
    def num_classes(self) -> int:
        """Number of classes in the labels; 0 without labels."""
        labels = self.cond_entries.get("labels")
        return labels.below or 0 if labels else 0

    def blank_cond(self, n: int) -> tuple[Cond, ...]:
        """The network's arguments for a condition of n samples with arbitrary values; () if it takes none."""
        entries = getattr(self.network, "cond_entries", {})
        return (blank(entries, n),) if entries else ()

    @abc.abstractmethod
    def loss(
        self, params: PyTree, keys: Keys, x: UnitImages, cond: Cond | None = None, *, training: bool = False
    ) -> PerSample:
        """The loss of images in [0, 1], each perturbed by its own key.

        training: with dropout, computed as in training.
        """

    def evaluation(
        self, params: PyTree, pixels: Pixels, number: Array | int, indices: Array, cond: Cond | None = None
    ) -> dict[str, PerSample]:
        """The "loss" of each image, without flips and dropout, and the other arrays of `_evaluation`.

        number: of the pass over the images. indices: number of each image.
        """
        keys = sample_keys(stream(stream(jax.random.key(self.config.seed), Stream.EVAL), number), indices)
        return self._evaluation(params, keys, self._dequantize(keys, images.to_unit(pixels)), cond)

    def _evaluation(self, params: PyTree, keys: Keys, x: UnitImages, cond: Cond | None) -> dict[str, PerSample]:
        return {"loss": self.loss(params, keys, x, cond)}

    def compute(self, training: bool) -> Compute:
        """Options of the network's computation, in training, or for losses and likelihoods."""
        options = self.config.training
        if not training:
            return PRECISIONS[self.config.eval.precision]
        return PRECISIONS[options.precision]._replace(remat=options.remat, fused=True)

    def draw(self, keys: Keys, x0: ModelImages, noise_keys: Keys | None = None) -> tuple[Times, ModelImages]:
        """A time and standard normal noise for each image. noise_keys: those of the noise, default `keys`."""
        return self.objective.draw(keys, x0.shape[1:], noise_keys)

    def augment(self, keys: Keys, x: UnitImages) -> UnitImages:
        """Images in [0, 1] as training takes them: flipped, transformed and dequantized, if the config says so."""
        if self.config.data.random_flip:
            x = images.random_flip(stream(keys, Stream.FLIP), x)
        if self.config.data.augment_p:
            x = augmentation.transformed(self._drawn(keys), x, middle=0.5)
        return self._dequantize(keys, x)

    def augment_labels(self, keys: Keys) -> dict[str, Array]:
        """The argument `augment` of the loss of images from `augment` with these keys; {} without the pipe."""
        if not self.config.data.augment_p:
            return {}
        return {"augment": augmentation.labels(self._drawn(keys), self.config.data.augment_transforms)}

    def _drawn(self, keys: Keys) -> augmentation.Drawn:
        options = self.config.data
        return augmentation.draw(stream(keys, Stream.AUGMENT), options.augment_p, options.augment_transforms)

    def _dequantize(self, keys: Keys, x: UnitImages) -> UnitImages:
        if not self.config.data.uniform_dequantization:
            return x
        return images.dequantize(stream(keys, Stream.DEQUANTIZE), x)


def shape_of(config: Config) -> tuple[int, int, int]:
    """Height, width and channels of a config's images."""
    options = config.data
    return options.image_size, options.image_width or options.image_size, options.num_channels


def _check_network(network: Any, height: int, width: int) -> None:
    """Calls the network's `check`, if it has one.

    One of a user's own that takes one side checks both.
    """
    if not hasattr(network, "check"):
        return
    if height == width:
        network.check(height)
    elif "image_width" in inspect.signature(network.check).parameters:
        network.check(height, width)
    else:
        network.check(height)
        network.check(width)


def _network(config: Config, choices: dict[str, Any], process: Process) -> Any:
    """The network that a config describes."""
    levels = {"num_levels": process.num_scales} if config.model.name == "ncsn" else {}  # an embedding for each
    encoder = named(config, "encoder", **text.encoder_arguments(config))
    if hasattr(encoder, "check"):
        encoder.check()
    arguments = {} if encoder is None else {"encoder": encoder}
    return construct("model", dict(config.model) | levels, choices, **arguments)


def _optimizer(config: Config, param_shapes: PyTree) -> optax.GradientTransformation:
    optim = config.optim
    mask = traverse_util.path_aware_map(lambda path, _: is_trainable(path), param_shapes)
    options = {key: optim[key] for key in ("lr", "beta1", "beta2", "eps", "weight_decay", "decay_after", "grad_clip")}
    return adam(**options, warmup=warmup_of(config), trainable=mask)


def profiles_of(config: Config) -> ema.Profiles:
    """Profiles of the averages that a config's run keeps."""
    return ema.profiles_of(config.ema.profiles, config.optim.ema_rate, config.optim.ema_schedule)


def warmup_of(config: Config) -> float:
    """Number of updates in which a config's learning rate rises; it need not be whole."""
    optim = config.optim
    return optim.warmup_images / config.training.batch_size if optim.warmup_images else optim.warmup
