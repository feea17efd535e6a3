"""Protocols: the members that a user's own pieces, named in a config by an import path, must have.

`b` is the number of images, `h w c` their size; images are float32 in model range, times float32 in (0, 1]. A class has
arguments with defaults, which are values of its section in the config: `--config.model.width=64` for `width: int = 32`
of a network. Each example is a whole module, to be copied, as tests/own_pieces.py copies parts of them.

| key                     | protocol           | its arguments are in |
|-------------------------|--------------------|----------------------|
| `process.name`          | `Process`          | `process`            |
| `parameterization.name` | `Parameterization` | `parameterization`   |
| `times.name`            | `TimeLaw`          | `times`              |
| `weight.name`           | `Weight`           | `weight`             |
| `model.name`            | `Network`          | `model`              |
| `encoder.name`          | `Encoder`          | `encoder`            |
| `sampling.method`       | `Sampler`          | `sampling`           |
| `data.dataset`          | `DataSet`          | `data`               |
| `metrics.features`      | `FeatureNetwork`   | `metrics`            |
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

import numpy as np

from score_sde.array_types import Array, Float, Keys, ModelImages, PerSample, Pixels, PyTree, Times

Cond = dict[str, Any] | None


class Piece(Protocol):
    """Traits of a protocol. base: path of the class that its pieces inherit from; "" for any."""

    base: ClassVar[str] = ""
    is_function: ClassVar[bool] = False


class Process(Piece, Protocol):
    """A process x_t = alpha(t) x_0 + sigma(t) eps, a frozen dataclass with the base `score_sde.process.Process`.

    alpha, sigma: float (b,) to float (b,), for JAX and NumPy arrays; sigma / alpha increases. The rest follows.

        import dataclasses

        from score_sde.process import Process, library_of

        @dataclasses.dataclass(frozen=True)
        class Power(Process):
            k: float = 2.0

            def alpha(self, t):
                return 1 - 0.999 * t**self.k

            def sigma(self, t):
                return library_of(t).sqrt(1 - self.alpha(t) ** 2)
    """

    base: ClassVar[str] = "score_sde.process.Process"

    def alpha(self, t: Times) -> PerSample: ...
    def sigma(self, t: Times) -> PerSample: ...


# `tests/own_pieces.py` begins with these examples, as a user's file does.
class Parameterization(Piece, Protocol):
    """The target of a network, a frozen dataclass with the base `score_sde.parameterization.Parameterization`.

    target: p x0 + q eps, which the network learns; predict: x0 and eps from its output at x, each (b, h, w, c);
    noise_error: d eps / d output, (b,).

        import dataclasses

        from score_sde.parameterization import Parameterization
        from score_sde.process import Prediction
        from score_sde.randomness import expand

        @dataclasses.dataclass(frozen=True)
        class Data(Parameterization):
            def target(self, process, x0, eps, t):
                return x0

            def predict(self, process, x, output, t):
                alpha, sigma = expand(process.alpha(t), x), expand(process.sigma(t), x)
                return Prediction(output, (x - alpha * output) / sigma)

            def noise_error(self, process, t):
                return -1 / process.noise_level(t)
    """

    base: ClassVar[str] = "score_sde.parameterization.Parameterization"

    def target(self, process: Any, x0: ModelImages, eps: ModelImages, t: Times) -> ModelImages: ...
    def predict(self, process: Any, x: ModelImages, output: ModelImages, t: Times) -> Any: ...
    def noise_error(self, process: Any, t: Times) -> PerSample: ...


class TimeLaw(Piece, Protocol):
    """The distribution of training times, a frozen dataclass with the base `score_sde.times.TimeLaw`.

    sample: a time for each key, (b,) in (0, 1]; density: at times, (b,).

        import dataclasses

        from score_sde.randomness import uniform
        from score_sde.times import TimeLaw

        @dataclasses.dataclass(frozen=True)
        class Late(TimeLaw):
            k: float = 2.0

            def sample(self, process, keys):
                return (1e-5 + uniform(keys) * (1 - 1e-5)) ** (1 / self.k)

            def density(self, process, t):
                return self.k * t ** (self.k - 1)
    """

    base: ClassVar[str] = "score_sde.times.TimeLaw"

    def sample(self, process: Any, keys: Keys) -> Times: ...
    def density(self, process: Any, t: Times) -> PerSample: ...


class Weight(Piece, Protocol):
    """The factor on the squared error of eps, a frozen dataclass with the base `score_sde.weights.Weight`.

    on_noise: (b,), positive.

        import dataclasses

        import jax.numpy as jnp

        from score_sde.weights import Weight

        @dataclasses.dataclass(frozen=True)
        class Capped(Weight):
            cap: float = 5.0

            def on_noise(self, process, t):
                return jnp.minimum(1.0, self.cap * process.noise_level(t) ** 2)
    """

    base: ClassVar[str] = "score_sde.weights.Weight"

    def on_noise(self, process: Any, t: Times) -> PerSample: ...


class Network(Piece, Protocol):
    """A score network, a flax module: image (b, h, w, c) and noise condition (b,) to an image.

    cond: see `score_sde.cond`; None is the null condition. dropout_keys: one for each image, in training. A network may
    have a property `cond_entries`, the entries that it takes; a field `encoder`, for `encoder.name`; a field `compute`,
    for precisions (`score_sde.models.compute`); a method `check` that raises `UsageError`, of a side or of
    (image_size, image_width), which images have that are not square; and a method `normalized` from parameters to
    parameters, which training applies to fresh ones and after each update, as EDM2's network has.

        import flax.linen as nn

        class Mixing(nn.Module):
            width: int = 32

            @nn.compact
            def __call__(self, x, noise_cond, cond=None, *, dropout_keys=None):
                h = nn.Conv(self.width, (3, 3))(x) + nn.Dense(self.width)(noise_cond[:, None])[:, None, None]
                return nn.Conv(x.shape[-1], (3, 3), kernel_init=nn.initializers.zeros)(nn.swish(h))
    """

    base: ClassVar[str] = "flax.linen.module.Module"

    def __call__(
        self, x: ModelImages, noise_cond: PerSample, cond: Cond = None, *, dropout_keys: Keys | None
    ) -> ModelImages: ...


class Encoder(Piece, Protocol):
    """An embedding of conditions, a flax module: a condition of n samples, or None, to vectors (n, d).

    cond_entries: the entries that it takes, by name; a property. `score_sde.cond.read` gives an entry and where it is
    null. An encoder may also return a `score_sde.models.encoders.Encoded`, with tokens that networks attend to.

        import flax.linen as nn
        import jax.numpy as jnp

        from score_sde.cond import Entry, read

        class Attributes(nn.Module):
            size: int = 4

            @property
            def cond_entries(self):
                return {"attributes": Entry(jnp.float32, (self.size,))}

            @nn.compact
            def __call__(self, cond, n):
                values, null = read(cond, self.cond_entries, "attributes", n)
                without = self.param("null", nn.initializers.normal(), (32,))
                return jnp.where(null[:, None], without, nn.Dense(32)(values))
    """

    base: ClassVar[str] = "flax.linen.module.Module"

    @property
    def cond_entries(self) -> Mapping[str, Any]: ...
    def __call__(self, cond: Cond, n: int) -> Any: ...


class Sampler(Piece, Protocol):
    """A function (process, model, options) -> `score_sde.sampling.Solver`, from x_T to (samples, evaluations of each).

    model: (x, t) -> `score_sde.process.Prediction`. eps: the last time; None is `process.sampling_eps`. noise_removal:
    whether the last step is to the mean. Further keyword arguments are keys of `sampling`, such as `num_steps`.

        import jax.numpy as jnp

        from score_sde.process import velocity
        from score_sde.sampling import Solver

        def euler(process, model, *, eps=None, noise_removal=True, num_steps=20):
            def step(state):
                i, x = state
                t = jnp.full(len(x), 1 - i * h)
                return i + 1, x - h * velocity(process, model(x, t), t)

            h, counts = (1 - (eps or process.sampling_eps)) / num_steps, lambda x: jnp.full(len(x), num_steps)
            result, fraction = lambda state: (state[1], counts(state[1])), lambda state: state[0] / num_steps
            return Solver(lambda keys, x: (jnp.int32(0), x), step, fraction, lambda state: state[1], result, num_steps)
    """

    is_function: ClassVar[bool] = True

    def __call__(self, process: Any, model: Any, *, eps: float | None, noise_removal: bool) -> Any: ...


class DataSet(Piece, Protocol):
    """A function that opens a split: train or not, image_size and num_channels to a `score_sde.data.Source`.

    Images are uint8 (n, image_size, image_size, num_channels); conditions come with them as arrays of n rows. Further
    keyword arguments are keys of `data`, such as `path`. With an argument `image_width`, None for squares, it can have
    images of that width.

        import numpy as np

        from score_sde.data import InMemory

        def squares(*, train, image_size, num_channels, n=64):
            side = np.random.default_rng(int(train)).integers(1, image_size, n)
            inside = np.arange(image_size) < side[:, None]
            images = 255 * (inside[:, :, None, None] & inside[:, None, :, None])
            images = np.repeat(images, num_channels, axis=3).astype(np.uint8)
            return InMemory(images, side=side[:, None].astype(np.float32))
    """

    is_function: ClassVar[bool] = True

    def __call__(self, *, train: bool, image_size: int, num_channels: int) -> Any: ...


class FeatureNetwork(Piece, Protocol):
    """Features by which samples and data are compared: a function of parameters and images, to numbers.

    dimension: d. init: a tree of arrays, read or computed once. __call__: uint8 (b, h, w, c) to float32 (b, d).

        import numpy as np

        class Projections:
            dimension = 16

            def init(self, image_shape):
                size = int(np.prod(image_shape))
                return np.random.default_rng(0).normal(size=(size, 16)).astype(np.float32) / size**0.5

            def __call__(self, params, pixels):
                return (pixels.reshape(len(pixels), -1) / 255.0) @ params
    """

    dimension: int

    def init(self, image_shape: tuple[int, int, int]) -> PyTree: ...
    def __call__(self, params: PyTree, pixels: Pixels | np.ndarray) -> Float[Array, "b d"]: ...
