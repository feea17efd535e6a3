"""The distribution over images that a config describes: bits/dim and samples as functions of the network's parameters.

An image's bytes in raster order, channels innermost, are its tokens x_1 ... x_n, and log p(x) is the sum of the
log p(x_i | x_1 ... x_{i-1}) of a causal transformer, so that bits/dim are exact.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from score_sde.experiments.autoregressive.config import NETWORK
from score_sde.experiments.autoregressive.network import Logits, PixelTransformer, Tokens

from score_sde import ema
from score_sde.array_types import Array, Float, Int, Keys, Labels, PerSample, Pixels, PyTree
from score_sde.cond import Entries, Entry
from score_sde.config import AnyConfig, check
from score_sde.config.import_paths import arguments
from score_sde.errors import UsageError
from score_sde.models import PRECISIONS
from score_sde.models.transformer import check_transformer
from score_sde.randomness import Stream, stream, uniform
from score_sde.training.state import TrainState, adam, initial_state
from score_sde.training.trainable import profiles_of, shape_of, warmup_of


class Rule(NamedTuple):
    """An option of other models that this one has no use for. sentence: the advice, with the config in braces."""

    broken: Callable[[Any], bool]
    sentence: str


RULES = (
    Rule(
        lambda config: config.model.name != NETWORK,
        "model.name={config.model.name} is no transformer over pixels; start from "
        "--config=experiments/autoregressive/config.py.",
    ),
    Rule(
        lambda config: config.data.uniform_dequantization,
        "The transformer is a distribution over bytes, without noise; set data.uniform_dequantization=False.",
    ),
    Rule(
        lambda config: config.data.augment_p > 0,
        "The transformer is not told how an image was transformed; set data.augment_p=0.",
    ),
    Rule(
        lambda config: config.training.coupling != "independent",
        "The transformer is trained without noise, which images could be coupled with; set "
        "training.coupling=independent.",
    ),
    Rule(
        lambda config: config.training.start_from,
        "The transformer begins with fresh weights; leave training.start_from empty.",
    ),
)
OF_OTHERS = ("name", "scale_by_sigma")  # keys of the section `model` that are no arguments


class Density:
    """The distribution over images of a config, as functions of parameters. Raises `UsageError` for what it cannot be.

    labels are of shape (b,) if the network has classes, and None otherwise.

        import jax
        import numpy as np
        from score_sde.experiments.autoregressive.config import get_config
        from score_sde.experiments.autoregressive.density import Density

        config = get_config()
        config.model.update(width=8, depth=1)
        density = Density(config)
        bits = density.bits_per_dim(density.init_params(), np.zeros((2, 8, 8, 1), np.uint8))  # (2,), at first 8
    """

    def __init__(self, config: AnyConfig):
        check(config)
        for rule in RULES:
            if rule.broken(config):
                raise UsageError(rule.sentence.format(config=config))
        values = {name: value for name, value in dict(config.model).items() if name not in OF_OTHERS}
        if unknown := values.keys() - arguments(PixelTransformer, ("name", "parent", "compute", "length")).keys():
            raise UsageError(f"model.{min(unknown)} is no argument of the transformer over pixels; leave it out.")
        self.config, self.image_shape = config, shape_of(config)
        self.network = PixelTransformer(length=math.prod(self.image_shape), **values)
        check_transformer(self.network.width, self.network.num_heads, 1, *self.image_shape[:2])

    @functools.cached_property
    def param_shapes(self) -> PyTree:
        """Shapes of `init_params`."""
        return jax.eval_shape(self.init_params)

    @property
    def num_classes(self) -> int:
        return self.network.num_classes

    @property
    def cond_entries(self) -> Entries:
        """The entries of the data that the network takes."""
        return {"labels": Entry(jnp.int32, below=self.num_classes)} if self.num_classes else {}

    @property
    def profiles(self) -> ema.Profiles:
        """Profiles of the averages of the parameters that are kept."""
        return profiles_of(self.config)

    @functools.cached_property
    def optimizer(self) -> optax.GradientTransformation:
        """AdamW; matrices decay, and biases and the scales of normalisations do not."""
        optim = self.config.optim
        keys = ("lr", "beta1", "beta2", "eps", "weight_decay", "decay_after", "grad_clip")
        matrices = jax.tree.map(lambda leaf: len(leaf.shape) > 1, self.param_shapes)
        return adam(**{key: optim[key] for key in keys}, warmup=warmup_of(self.config), trainable=matrices)

    def init_params(self) -> PyTree:
        """Fresh parameters, a function of config.seed."""
        key = stream(jax.random.key(self.config.seed), Stream.INIT)
        return self.network.init(key, jnp.zeros((1, self.network.length), jnp.int32))["params"]

    def init_state(self) -> TrainState:
        """The state of a training before its first update."""
        return initial_state(self.init_params(), self.optimizer, self.profiles)

    @property
    def state_shapes(self) -> TrainState:
        """Shapes of `init_state`."""
        return jax.eval_shape(self.init_state)

    def tokens(self, pixels: Pixels) -> Tokens:
        """The bytes of images (b, h, w, c) in their order."""
        return jnp.asarray(pixels).reshape(len(pixels), -1).astype(jnp.int32)

    def pixels(self, tokens: Tokens) -> Pixels:
        """The images of bytes (b, h w c): the inverse of `tokens`."""
        return tokens.astype(jnp.uint8).reshape(-1, *self.image_shape)

    def logits(
        self,
        params: PyTree,
        pixels: Pixels,
        labels: Labels | None = None,
        dropout_keys: Keys | None = None,
        precision: str | None = None,
    ) -> Logits:
        """Logits (b, h w c, levels) of each byte from those before it.

        dropout_keys: given in training, one for each image. precision: default `eval.precision`, and in training that
        of config.training.
        """
        training = self.config.training
        if dropout_keys is None:
            compute = PRECISIONS[precision or self.config.eval.precision]
        else:
            compute = PRECISIONS[precision or training.precision]._replace(remat=training.remat, fused=True)
        options = dict(labels=labels, dropout_keys=dropout_keys)
        return compute.apply(self.network, {"params": params}, self.tokens(pixels), **options)

    def bits_per_dim(
        self, params: PyTree, pixels: Pixels, labels: Labels | None = None, dropout_keys: Keys | None = None
    ) -> PerSample:
        """-log2 p(x) / (h w c) of each image, also the loss: exact, over bytes 0 ... 255."""
        logits = self.logits(params, pixels, labels, dropout_keys)
        nats = optax.softmax_cross_entropy_with_integer_labels(logits, self.tokens(pixels))
        return nats.mean(axis=1) / math.log(2)

    def sample(
        self,
        params: PyTree,
        keys: Keys,
        labels: Labels | None,
        pixels: Pixels,
        count: Int[Array, ""] | int,
        temperature: Float[Array, ""] | float,
    ) -> Pixels:
        """Images whose first `count` bytes are those of `pixels`, and whose others are drawn, one after the other.

        keys: one for each image. temperature: divides the logits. The keys and values of a token are computed once.
        """
        tokens = self.tokens(pixels)
        compute = PRECISIONS[self.config.sampling.precision]

        def apply(cache: PyTree, token: Tokens, at: Int[Array, ""]) -> tuple[Logits, PyTree]:
            variables = {"params": params, **cache}
            return compute.apply(self.network, variables, token, labels=labels, at=at, mutable=["cache"])

        def step(carry: tuple[PyTree, Tokens], inputs: tuple) -> tuple[tuple[PyTree, Tokens], Array]:
            cache, before = carry
            at, u, known = inputs
            logits, cache = apply(cache, before, at)
            token = jnp.where(at < count, known, quantile(logits[:, 0] / temperature, u))
            return (cache, token[:, None]), token

        positions, u = jnp.arange(self.network.length), self.uniforms(keys)
        _, shapes = jax.eval_shape(apply, {}, tokens[:, :1], positions[0])
        empty = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        _, drawn = jax.lax.scan(step, (empty, jnp.zeros_like(tokens[:, :1])), (positions, u.T, tokens.T))
        return self.pixels(drawn.T)

    def uniforms(self, keys: Keys) -> Float[Array, "b n"]:
        """The uniform number by which each byte of a sample is drawn."""
        return uniform(stream(keys, Stream.NOISE), (self.network.length,))


def cumulative(logits: Float[Array, "b levels"]) -> Float[Array, "b levels"]:
    """The cumulative probabilities of the levels, of which the last is 1."""
    sums = jnp.cumsum(jax.nn.softmax(logits), axis=-1)
    return sums / sums[:, -1:]


def quantile(logits: Float[Array, "b levels"], u: PerSample) -> Int[Array, " b"]:
    """The level at which the cumulative probability first exceeds u in [0, 1): a draw, if u is uniform."""
    return jnp.argmax(cumulative(logits) > u[:, None], axis=-1).astype(jnp.int32)


def check_levels(density: Density, pixels: np.ndarray) -> None:
    """Raises `UsageError` for images with a byte to which the distribution gives no probability."""
    if (most := int(np.max(pixels, initial=0))) >= density.network.levels:
        raise UsageError(
            f"An image has the byte {most}, and model.levels={density.network.levels} are 0 to "
            f"{density.network.levels - 1}; set model.levels={most + 1} or more."
        )
