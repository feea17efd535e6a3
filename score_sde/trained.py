"""A trained model, for notebooks and scripts: `model = score_sde.load(workdir)`."""

import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict, FrozenConfigDict

from score_sde import checkpoints, images, workdir
from score_sde.array_types import Array, Float, Images, Key, Keys, PerSample, Pixels, PyTree, Times
from score_sde.build import Classification, Dequantizing, Experiment
from score_sde.errors import UsageError, one_of
from score_sde.parallel import fully_sharded, pad_to_devices, place, pmap, split
from score_sde.progress import Runner
from score_sde.randomness import Stream, batch_keys, stream
from score_sde.sampling import SAMPLERS, slerp
from score_sde.sde import SDE
from score_sde.state import TrainState

Report = Callable[[float], None]
DEQUANTIZER = "dequantizer"  # its folder in a workdir


def load(
    directory: str | Path, step: int | None = None, config: ConfigDict | None = None, *, ema: bool = True
) -> "Trained":
    """The model trained in a workdir, with its EMA weights, or without averaging where `ema` is False.

    step: default the last checkpoint. config: default the workdir's; another may differ in `sampling` and `eval`.
    Raises `UsageError` when there is no such checkpoint, or `config` describes another run.
    """
    step = _available(directory, step)
    return Trained(Experiment(_config(Path(directory), config)), Path(directory), step, ema=ema)


def load_classifier(
    directory: str | Path, step: int | None = None, config: ConfigDict | None = None
) -> "TrainedClassifier":
    """The noise-conditional classifier of a workdir, with its EMA weights. Arguments and errors as those of `load`."""
    step = _available(directory, step)
    return TrainedClassifier(Classification(_config(Path(directory), config)), Path(directory), step)


def _config(directory: Path, given: ConfigDict | None) -> FrozenConfigDict:
    """The workdir's, or another that describes the same run."""
    if given is not None:
        workdir.check_same_run(directory, given.to_dict(), workdir.MOVABLE)
    return FrozenConfigDict(stored_config(directory) if given is None else given)


def _available(directory: str | Path, step: int | None) -> int:
    """`step`, default the last, if it has a checkpoint."""
    available = workdir.checkpoint_steps(Path(directory))
    step = available[-1] if step is None else step
    if step not in available:
        raise UsageError(f"No checkpoint of step {step} in {directory}; there are: {', '.join(map(str, available))}.")
    return step


def stored_config(directory: Path) -> ConfigDict:
    """The config that a workdir was trained with."""

    def restore(value):
        if isinstance(value, dict):
            return {key: restore(v) for key, v in value.items()}
        return tuple(value) if isinstance(value, list) else value

    stored = workdir.read(directory, "config.json")
    return ConfigDict(restore(workdir.completed(stored))).lock()


class _Loaded:
    """A network with the weights of one checkpoint."""

    def __init__(self, experiment: Experiment | Classification, directory: Path, step: int, *, ema: bool = True):
        self.experiment = experiment
        self.directory = directory
        self.ema = ema
        self.restore(step)

    def restore(self, step: int) -> None:
        """Takes the weights of another checkpoint; nothing is compiled again."""
        self.step = step
        state, self.digest = _restore(self.experiment, self.directory / "checkpoints", step)
        params = state.ema_params if self.ema else state.params
        # Trained on more devices, it may be loaded on fewer.
        self.params = place(params, fully_sharded(params, math.gcd(self.config.training.fsdp, jax.device_count())))

    @property
    def config(self) -> ConfigDict:
        return self.experiment.config

    @property
    def sde(self) -> SDE:
        return self.experiment.sde

    def eval_losses(
        self, params: PyTree, pixels: Pixels, number: int, indices: np.ndarray, labels: np.ndarray | None = None
    ) -> PerSample:
        """`Experiment.eval_losses` over all devices, of the images with their labels if the network takes these."""
        n, of_labels = len(pixels), (labels.astype(np.int32),) if self.experiment.takes_labels else ()
        pixels, indices, *of_labels = split(pixels, indices, *of_labels)
        return self._eval_losses(params, pixels, number, indices, *of_labels)[:n]

    @functools.cached_property
    def _eval_losses(self) -> Callable:
        of_labels = (0,) if self.experiment.takes_labels else ()
        return pmap(self.experiment.eval_losses, in_axes=(None, 0, None, 0, *of_labels), out_axes=None)


class Trained(_Loaded):
    """A score network of a workdir. Images are in [0, 1], NHWC; x is in model range."""

    def score(self, x: Images, t: Times) -> Images:
        """The score of p_t at x (model range, float32), one time in (0, 1] for each image."""
        return self._score(self.params, *split(x, t))[: len(x)]

    @functools.cached_property
    def _score(self) -> Callable:
        return pmap(lambda params, x, t: self.experiment.score_fn(params)(x, t), in_axes=(None, 0, 0), out_axes=None)

    def sample(self, key: Key[Array, ""], n: int, sampler: str | None = None, **options: Any) -> Images:
        """`n` images in [0, 1]; sample i depends on (key, i) only, unless the sampler couples the batch.

        sampler: "pc", "ode", "adaptive" or a fast solver's name; default config.sampling.method. options: other
        values for those of config.sampling, as num_steps=10. Raises `UsageError` for unknown ones.
        """
        x, _ = self.sample_with_nfe(batch_keys(key, pad_to_devices(n)), sampler, **options)
        return x[:n]

    def sample_with_nfe(
        self,
        keys: Keys,
        sampler: str | None = None,
        report: Report = lambda _: None,
        compile_only: bool = False,
        **options: Any,
    ) -> tuple[Images, Array]:
        """One image in [0, 1] and its number of network evaluations for each key. compile_only: see `Runner`."""
        method = one_of("sampler", (sampler or self.config.sampling.method).lower(), SAMPLERS)
        experiment, runner = self._sampler(method, options)
        x, nfe = runner(self.params, keys, experiment.prior(keys), report, compile_only)
        _check_finite(x, f"A sample of {method}")
        return jnp.clip(experiment.scaling.to_unit(x), 0, 1), nfe

    def _sampler(self, method: str, options: dict[str, Any]) -> tuple[Experiment, Runner]:
        """The experiment with these options, and the runner of its sampler: compiled once."""
        known = (method, *sorted(options.items()))
        if known not in self._samplers:
            experiment = self.experiment
            if options:
                config = ConfigDict(self.config)
                for name, value in options.items():
                    config.sampling[one_of("option of config.sampling", name, config.sampling)] = value
                experiment = Experiment(config)
            self._samplers[known] = experiment, Runner(functools.partial(experiment.sampler, method=method))
        return self._samplers[known]

    @functools.cached_property
    def _samplers(self) -> dict[tuple, tuple[Experiment, Runner]]:
        return {}

    def bits_per_dim(self, key: Key[Array, ""], pixels: Array | np.ndarray) -> PerSample:
        """Bits/dim of each image, uint8 or in [0, 1] on 256 levels, which are dequantised with noise from `key` first.

        The model is the probability-flow ODE, the dequantisation that of config.eval.
        """
        keys = batch_keys(key, len(pixels))
        return self.bits_per_dim_with_nfe(keys, self._in_unit_range(pixels))[0]

    def bits_per_dim_with_nfe(self, keys: Keys, x: Images, report: Report = lambda _: None) -> tuple[PerSample, Array]:
        """Bits/dim and evaluations of each image in [0, 1], everything random in it from the image's own key."""
        y, log_q = self.dequantize(keys, x)
        bpd, _, nfe = self._runners["bits_per_dim"](self.params, keys, y, report)
        _check_finite(bpd, "A likelihood")
        return bpd + log_q, nfe

    def bound(self, key: Key[Array, "..."], pixels: Array | np.ndarray) -> PerSample:
        """An upper bound on the bits/dim of each image under the reverse SDE, an estimate with noise from `key`."""
        keys, x = batch_keys(key, len(pixels)), self._in_unit_range(pixels)
        y, log_q = self.dequantize(keys, x)
        bound = self._bound(self.params, *split(keys, y))[: len(x)] + log_q
        _check_finite(bound, "A bound on bits/dim")
        return bound

    @functools.cached_property
    def _bound(self) -> Callable:
        return pmap(lambda params, *args: self.experiment.bound(params)(*args), in_axes=(None, 0, 0), out_axes=None)

    def dequantize(self, keys: Keys, x: Images) -> tuple[Images, PerSample]:
        """Points in model range for images in [0, 1], and log q of them in bits/dim: see `score_sde.dequantization`."""
        y, log_q = self._dequantize(self.dequantizer_params, *split(keys, x))
        return y[: len(x)], log_q[: len(x)]

    @functools.cached_property
    def _dequantize(self) -> Callable:
        def sample(params: PyTree, keys: Keys, x: Images) -> tuple[Images, PerSample]:
            learned = (self._dequantizing.network_fn(params),) if params else ()
            return self.experiment.dequantization(*learned).sample(stream(keys, Stream.DEQUANTIZE), x)

        return pmap(sample, in_axes=(None, 0, 0), out_axes=None)

    @functools.cached_property
    def dequantizer_params(self) -> PyTree:
        """Those of variational dequantisation, averaged; {} for other choices. Raises `UsageError` without any."""
        if self.experiment.dequantization_name != "variational":
            return {}
        folder = self.directory / DEQUANTIZER / "checkpoints"
        steps = checkpoints.steps(folder)
        if not (steps and workdir.read(folder.parent, "config.json")):
            raise UsageError(
                f"eval.dequantization=variational, and no dequantizer in {self.directory}; "
                "train it first: --mode=train_dequantizer with the same --config and --workdir."
            )
        return place(_restore(self._dequantizing, folder, steps[-1])[0].ema_params)

    @functools.cached_property
    def _dequantizing(self) -> Dequantizing:
        return Dequantizing(self.experiment, workdir.read(self.directory / DEQUANTIZER, "config.json"))

    def encode(self, pixels: Array | np.ndarray) -> Images:
        """Latents x_1 of images, uint8 or in [0, 1], by the probability-flow ODE from t = 1e-5."""
        return self._transport("encoder", self.experiment.scaling.to_model(self._in_unit_range(pixels)))

    def decode(self, z: Array | np.ndarray) -> Images:
        """Images in [0, 1] of latents: the inverse of `encode`, without a denoising step."""
        z = self._check_shape(jnp.asarray(z, jnp.float32))
        return jnp.clip(self.experiment.scaling.to_unit(self._transport("decoder", z)), 0, 1)

    def interpolate(self, first: Array | np.ndarray, last: Array | np.ndarray, n: int) -> Float[Array, "n b h w c"]:
        """`n` >= 2 images from each of `first` to each of `last`, through `slerp` of their latents."""
        if n < 2 or len(first) != len(last):
            raise UsageError(f"Interpolating {len(first)} and {len(last)} images in {n} images: pairs, and n >= 2.")
        z0, z1 = self.encode(first), self.encode(last)
        z = jnp.concatenate([slerp(z0, z1, i / (n - 1)) for i in range(n)])
        return self.decode(z).reshape(n, *z0.shape)

    def _transport(self, runner: str, x: Images) -> Images:
        keys = batch_keys(jax.random.key(0), len(x))  # an ODE draws nothing
        y, _ = self._runners[runner](self.params, keys, x)
        _check_finite(y, "A solution of the probability-flow ODE")
        return y

    @functools.cached_property
    def _runners(self) -> dict[str, Runner]:
        experiment = self.experiment
        solvers = {
            "bits_per_dim": experiment.bits_per_dim,
            "encoder": functools.partial(experiment.transport, encode=True),
            "decoder": functools.partial(experiment.transport, encode=False),
        }
        return {name: Runner(make_solver) for name, make_solver in solvers.items()}

    def _in_unit_range(self, pixels: Array | np.ndarray) -> Images:
        pixels = self._check_shape(jnp.asarray(pixels))
        if pixels.dtype == jnp.uint8:
            return images.to_unit(pixels)
        if not bool(jnp.all((pixels >= 0) & (pixels <= 1))):
            raise UsageError("Images must be uint8, or floats in [0, 1]; these leave that range or are NaN.")
        return pixels.astype(jnp.float32)

    def _check_shape(self, x: Array) -> Array:
        if x.ndim != 4 or x.shape[1:] != self.experiment.image_shape:
            raise UsageError(f"Images of shape {x.shape}: this model takes (n, {self.experiment.image_shape}).")
        return x


class TrainedClassifier(_Loaded):
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


def _restore(
    trainable: Experiment | Classification | Dequantizing, folder: Path, step: int
) -> tuple[TrainState, str | None]:
    """The state saved at `step`, and its digest."""
    with checkpoints.Checkpoints(folder) as saved:
        try:
            return saved.load(step, checkpoints.on_host(jax.eval_shape(trainable.init_state))), saved.digest(step)
        except UsageError as error:
            others = ", ".join(str(other) for other in checkpoints.steps(folder) if other != step) or "none"
            raise UsageError(
                f"{error} Other steps: {others}; training goes on from the last that can be read."
            ) from error


def _check_finite(x: Array, what: str) -> None:
    if not bool(jnp.all(jnp.isfinite(x))):
        raise UsageError(
            f"{what} is not finite: the solver failed; try another checkpoint, looser tolerances, or more steps."
        )
