"""Pieces of a user's own, outside the package: a config names them by "own_pieces:NAME".

Some repeat the examples of `score_sde.config.protocols` line by line, as a user who copies them does.
"""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from score_sde.cond import Entry, read
from score_sde.data import InMemory
from score_sde.parameterization import Parameterization
from score_sde.process import Prediction, Process, library_of, velocity
from score_sde.randomness import expand
from score_sde.sampling import Solver
from score_sde.times import TimeLaw
from score_sde.weights import Weight


@dataclasses.dataclass(frozen=True)
class Power(Process):
    """alpha = 1 - 0.999 t^k, alpha^2 + sigma^2 = 1."""

    k: float = 2.0

    def alpha(self, t):
        return 1 - 0.999 * t**self.k

    def sigma(self, t):
        return library_of(t).sqrt(1 - self.alpha(t) ** 2 + 1e-8)


class Mixer(nn.Module):
    """An MLP-Mixer (Tolstikhin et al., 2021) of patches, told the noise level and an encoded condition."""

    width: int = 32
    blocks: int = 1
    patch: int = 2
    encoder: nn.Module | None = None

    @property
    def cond_entries(self):
        return {} if self.encoder is None else self.encoder.cond_entries

    @nn.compact
    def __call__(self, x, noise_cond, cond=None, *, dropout_keys=None):
        h = nn.Conv(self.width, (self.patch,) * 2, strides=self.patch)(x)
        shape = h.shape
        h = h.reshape(len(x), -1, self.width)
        told = nn.Dense(self.width)(jnp.log1p(noise_cond)[:, None])
        if self.encoder is not None:
            told = told + nn.Dense(self.width)(self.encoder(cond, len(x)))
        h = h + nn.swish(told)[:, None]
        for _ in range(self.blocks):
            tokens = nn.LayerNorm()(h).swapaxes(1, 2)
            h = h + nn.Dense(h.shape[1])(nn.gelu(nn.Dense(self.width)(tokens))).swapaxes(1, 2)
            h = h + nn.Dense(self.width)(nn.gelu(nn.Dense(2 * self.width)(nn.LayerNorm()(h))))
        return nn.ConvTranspose(x.shape[-1], (self.patch,) * 2, strides=(self.patch,) * 2)(h.reshape(shape))


@dataclasses.dataclass(frozen=True)
class Data(Parameterization):
    """The network returns x_0."""

    def target(self, process, x0, eps, t):
        return x0

    def predict(self, process, x, output, t):
        alpha, sigma = expand(process.alpha(t), x), expand(process.sigma(t), x)
        return Prediction(output, (x - alpha * output) / sigma)

    def noise_error(self, process, t):
        return -1 / process.noise_level(t)


@dataclasses.dataclass(frozen=True)
class CappedSNR(Weight):
    """min(SNR, gamma) on the error of x_0 (Hang et al., 2023)."""

    gamma: float = 5.0

    def on_noise(self, process, t):
        return jnp.minimum(1.0, self.gamma * process.noise_level(t) ** 2)


@dataclasses.dataclass(frozen=True)
class Middle(TimeLaw):
    """Every image at one time."""

    t: float = 0.5

    def sample(self, process, keys):
        return jnp.full(len(keys), self.t)

    def density(self, process, t):
        return jnp.ones_like(t)


def euler(process, model, *, eps=None, noise_removal=True, num_steps=20, stretch=1.0):
    """The probability-flow ODE by Euler's method, on times that `stretch` crowds at the end."""
    last = process.sampling_eps if eps is None else eps
    times = jnp.asarray(last + (1 - last) * np.linspace(1, 0, num_steps + 1) ** stretch, jnp.float32)

    def step(state):
        i, x = state
        t = jnp.full(len(x), times[i])
        return i + 1, x + (times[i + 1] - times[i]) * velocity(process, model(x, t), t)

    def result(state):
        return state[1], jnp.full(len(state[1]), num_steps)

    return Solver(
        init=lambda keys, x: (jnp.int32(0), x),
        step=step,
        fraction=lambda state: state[0] / num_steps,
        view=lambda state: state[1],
        result=result,
        nfe=num_steps,
        steps=num_steps,
    )


class Attributes(nn.Module):
    """A vector that comes with each image, under the name `side`."""

    size: int = 2
    features: int = 16

    @property
    def cond_entries(self):
        return {"side": Entry(jnp.float32, (self.size,))}

    @nn.compact
    def __call__(self, cond, n):
        values, null = read(cond, self.cond_entries, "side", n)
        without = self.param("null", nn.initializers.normal(), (self.features,))
        return jnp.where(null[:, None], without, nn.Dense(self.features)(values))


def rectangles(*, train, image_size, num_channels, n=64):
    """White rectangles in a corner, with their sides as a condition."""
    sides = np.random.default_rng(int(train)).integers(1, image_size, (n, 2))
    rows, columns = (np.arange(image_size) < side[:, None] for side in sides.T)
    images = 255 * (rows[:, :, None, None] & columns[:, None, :, None])
    images = np.repeat(images, num_channels, axis=3).astype(np.uint8)
    return InMemory(images, side=(sides / image_size).astype(np.float32))


class Projections:
    """Random projections of the pixels."""

    dimension = 4

    def init(self, image_shape):
        size = int(np.prod(image_shape))
        return np.random.default_rng(0).normal(size=(size, self.dimension)).astype(np.float32) / size**0.5

    def __call__(self, params, pixels):
        return (pixels.reshape(len(pixels), -1) / 255.0) @ params
