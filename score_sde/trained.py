"""A trained model, for notebooks and scripts: `model = score_sde.load(workdir)`."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from score_sde import checkpoints, images, workdir
from score_sde.array_types import Array, Float, Images, Key, Keys, PerSample, PyTree, Times
from score_sde.build import Dequantizing, Experiment
from score_sde.cond import Cond, fitted, rows, with_labels
from score_sde.conditional import Conditional, Given, finished, unused_option
from score_sde.config import Config
from score_sde.controllable import Operator
from score_sde.controllable.conditions import ALL, chosen_class
from score_sde.errors import UsageError, one_of
from score_sde.loaded import Loaded, available_step, config_of, load_classifier, restore_state
from score_sde.memory import largest_batch
from score_sde.parallel import check_divisible, is_traced, pad_to_devices, place, pmap, split
from score_sde.process import Prediction
from score_sde.progress import Runner
from score_sde.randomness import Stream, batch_keys, expand, stream
from score_sde.sampling import SAMPLERS, Solver, slerp

Report = Callable[[float], None]
Classes = Array | np.ndarray | None
Observed = tuple[Operator, Array, float]  # operator, y and noise of `posterior`
DEQUANTIZER = "dequantizer"  # its folder in a workdir


def load(
    directory: str | Path, step: int | None = None, config: Config | None = None, *, ema: bool | str = True
) -> "Trained":
    """The model trained in a workdir, with its EMA weights, or without averaging where `ema` is False.

    step: default the last checkpoint. config: default the workdir's; another may differ in `sampling` and `eval`.
    ema: the name of an average, "power:0.05"; True is that of config.sampling.ema, by default the run's first.
    Raises `UsageError` when there is no such checkpoint or average, or `config` describes another run.
    """
    step = available_step(directory, step)
    return Trained(Experiment(config_of(Path(directory), config)), Path(directory), step, average=ema)


class Trained(Loaded):
    """A score network of a workdir. Images are in [0, 1], NHWC; x is in model range."""

    def score(self, x: Images, t: Times, classes: Classes = None, cond: Cond | None = None) -> Images:
        """The score of p_t at x (model range, float32), one time in (0, 1] for each image.

        classes: int (b,), short for cond={"labels": classes}. cond: arrays of b rows, see `score_sde.cond`; default the
        null condition. Composes with `jit`, `grad`, `scan`, `vmap`. Raises `UsageError` for what the network has not.
        """
        return self._at("score_fn", x, t, classes, cond)

    def predict(self, x: Images, t: Times, classes: Classes = None, cond: Cond | None = None) -> Prediction:
        """E[x_0 | x_t] and E[eps | x_t] at x, what samplers and likelihoods take. Arguments as of `score`."""
        return self._at("model", x, t, classes, cond)

    def denoise(self, x: Images, sigma: PerSample, classes: Classes = None, cond: Cond | None = None) -> Images:
        """E[x_0 | x] of x = x_0 + sigma eps, in model range, whatever process the network was trained under.

        sigma: one noise level for each image, > 0 and of the process: up to sigma(1) / alpha(1). Others as of `score`.
        """
        process, sigma = self.sde, jnp.asarray(sigma, jnp.float32)
        t = jnp.clip(process.time(sigma), 0.0, 1.0)
        return self.predict(expand(process.alpha(t), x) * x, t, classes, cond).x0

    def _at(self, what: str, x: Images, t: Times, classes: Classes, cond: Cond | None) -> Images | Prediction:
        """What a function of the experiment says of x_t."""
        cond = fitted(with_labels(cond, classes), self.experiment.cond_entries, len(x))
        return jax.tree.map(lambda rows: rows[: len(x)], self._said[what](self.params, *split(x, t, cond)))

    @functools.cached_property
    def _said(self) -> dict[str, Callable]:
        def said(what: str, params: PyTree, x: Images, t: Times, cond: Cond | None) -> Images | Prediction:
            return getattr(self.experiment, what)(params, cond=cond)(x, t)

        axes = dict(in_axes=(None, 0, 0, 0), out_axes=None)
        return {what: pmap(functools.partial(said, what), **axes) for what in ("score_fn", "model")}

    def sample(
        self,
        key: Key[Array, "..."],
        n: int,
        sampler: str | None = None,
        *,
        classes: int | Sequence[int] | np.ndarray | Array | None = None,
        cond: Cond | None = None,
        **options: Any,
    ) -> Images:
        """`n` images in [0, 1]; sample i depends on (key, i) only, unless the sampler couples the batch.

        key: one key, or one for each image.
        sampler: "pc", "ode", "adaptive" or a fast solver's name; default config.sampling.method. classes: one for all,
        or one for each. cond: arrays of n rows, see `score_sde.cond`, whose labels are the classes. options: other
        values for those of config.sampling and config.guidance, as num_steps=10 or scale=2.0. Raises `UsageError` for
        unknown ones, and for classes and conditions that nothing here knows.
        """
        filled = n if key.ndim else pad_to_devices(n)
        if classes is not None:
            classes = np.asarray(classes)
            if classes.shape not in ((), (n,)):
                raise UsageError(f"Classes of shape {classes.shape} for {n} images; give one for all, or one for each.")
            classes = np.broadcast_to(classes, (n,))
        conditional, _ = self._sampler(self._method(sampler), options)
        cond = fitted(with_labels(cond, classes), conditional.cond_entries, n)
        cond = rows(cond, np.minimum(np.arange(filled), n - 1))
        x, _ = self.sample_with_nfe(batch_keys(key, filled), sampler, cond=cond, **options)
        return x[:n]

    def posterior(
        self,
        key: Key[Array, "..."],
        operator: Operator,
        y: Array | np.ndarray,
        noise: float = 0.0,
        sampler: str | None = None,
        **options: Any,
    ) -> Images:
        """An image in [0, 1] for each row of y, given that `operator` makes y of it, but for noise.

        y: of images in [0, 1]. noise: its standard deviation there; without any, the images are such that the operator
        makes y of them. options: as of `sample`; inverse="pigdm" is another method. Raises `UsageError` for what does
        not fit.
        """
        keys, y = batch_keys(key, len(y)), jnp.asarray(y, jnp.float32)
        return self.sample_with_nfe(keys, sampler, observed=(operator, y, noise), **options)[0]

    def sample_with_nfe(
        self,
        keys: Keys,
        sampler: str | None = None,
        report: Report = lambda _: None,
        compile_only: bool = False,
        *,
        cond: Cond | None = None,
        observed: Observed | None = None,
        **options: Any,
    ) -> tuple[Images, Array]:
        """One image in [0, 1] and its number of network evaluations for each key. compile_only: see `Runner`.

        cond: as of `sample`. observed: operator, y and noise of `posterior`.
        """
        return self.sample_with_counts(keys, sampler, report, compile_only, cond=cond, observed=observed, **options)[:2]

    def sample_with_counts(
        self,
        keys: Keys,
        sampler: str | None = None,
        report: Report = lambda _: None,
        compile_only: bool = False,
        *,
        cond: Cond | None = None,
        observed: Observed | None = None,
        **options: Any,
    ) -> tuple[Images, Array, Array]:
        """As `sample_with_nfe`, and the evaluations made for the batch, those too for which a sample waits."""
        method = self._method(sampler)
        conditional, runner = self._sampler(method, options)
        given, experiment = _given(conditional, method, cond, observed, len(keys)), conditional.experiment
        for name in options:
            sections = experiment.config.sampling, conditional.options
            if name in ("noise", "samples_each"):
                raise UsageError(
                    f"{name} is read by --mode=sample; posterior takes noise and a row of y for each image."
                )
            if reason := unused_option(name, *sections, method, observed=observed is not None):
                raise UsageError(f"{name}={options[name]!r} would change nothing: {reason}.")
        params, x = self._all_params(conditional), experiment.prior(keys)
        x, nfe, batch_nfe = runner(params, keys, x, report, compile_only, (given,))
        _check_finite(x, f"A sample of {method}")
        x = experiment.scaling.to_unit(x)
        return (jnp.clip(x, 0, 1) if observed is None else finished(np.asarray(x), *observed)), nfe, batch_nfe

    def sampling_bytes(self, n: int, cond: Cond | None = None, observed: Observed | None = None) -> int:
        """That each device needs to draw n samples at once by the config's sampler, given what `_given` takes."""
        method, keys = self.config.sampling.method.lower(), batch_keys(jax.random.key(0), n)
        conditional, runner = self._sampler(method, {})
        given, x = _given(conditional, method, cond, observed, n), jax.eval_shape(conditional.experiment.prior, keys)
        return runner.bytes(self._all_params(conditional), keys, x, (given,))

    def samples_at_once(self, n: int, given: Callable[[int], dict[str, Any]]) -> int:
        """`sampling.batch_size`: as it is, by default that of `eval`, or as many of n as the devices have room for.

        given: the conditions of so many samples, as `sampling_bytes` takes them.
        """
        size = self.config.sampling.batch_size
        if size == 0:
            return largest_batch(lambda size: self.sampling_bytes(size, **given(size)), n)
        if size is not None:
            check_divisible("sampling.batch_size", size)
        return min(self.config.eval.batch_size if size is None else size, pad_to_devices(n))

    @property
    def num_classes(self) -> int:
        """That samples can be of, 0 if none can be chosen."""
        return self._sampler(self.config.sampling.method.lower(), {})[0].num_classes

    def asked_cond(self, indices: np.ndarray) -> Cond | None:
        """The condition of samples of these numbers that config.sampling.condition asks for."""
        chosen = chosen_class(self.config.sampling.condition)
        if chosen is None:
            return None
        return {"labels": indices % max(self.num_classes, 1) if chosen == ALL else np.full(len(indices), chosen)}

    def check_condition(self, cond: Cond | None, operator: Operator | None) -> None:
        """Raises `UsageError` for one sample of a condition and observation that the config has no way to."""
        method = self.config.sampling.method.lower()
        observed = None
        if operator is not None:
            observed = (operator, operator.forward(jnp.zeros((1, *self.experiment.image_shape), jnp.float32)), 0.0)
        _given(self._sampler(method, {})[0], method, cond, observed, 1)

    def planned_nfe(self, cond: Cond | None) -> int | None:
        """Evaluations of a sample by the config's sampler under a condition; None if it chooses its steps itself."""
        conditional, _ = self._sampler(self.config.sampling.method.lower(), {})
        return conditional.sampler(self._all_params(conditional), Given(cond)).nfe

    def helper_digests(self) -> dict[str, str]:
        """Of the networks that config.guidance names."""
        return {name: helper.digest for name, helper in self._helpers(self.config.guidance).items()}

    def _method(self, sampler: str | None) -> str:
        return one_of("sampler", (sampler or self.config.sampling.method).lower(), SAMPLERS)

    def _sampler(self, method: str, options: dict[str, Any]) -> tuple[Conditional, Runner]:
        """The experiment with these options, and the runner of its sampler: compiled once."""
        known = (method, *sorted(options.items()))
        if known not in self._samplers:
            experiment = self.experiment
            if options:
                # A copy: what is made of a frozen one shares its sections with all others that are.
                config = Config(self.config).copy_and_resolve_references()
                for name, value in options.items():
                    one_of("option of config.sampling or config.guidance", name, [*config.sampling, *config.guidance])
                    config["sampling" if name in config.sampling else "guidance"][name] = value
                experiment = Experiment(config).frozen(self.params)
            helpers = self._helpers(experiment.config.guidance)
            conditional = Conditional(experiment, **{name: helper.experiment for name, helper in helpers.items()})

            def counting(params: dict[str, PyTree], given: Given) -> Solver:
                return conditional.sampler(params, given, method).with_batch_nfe()

            self._samplers[known] = conditional, Runner(counting)
        return self._samplers[known]

    @functools.cached_property
    def _samplers(self) -> dict[tuple, tuple[Conditional, Runner]]:
        return {}

    def _all_params(self, conditional: Conditional) -> dict[str, PyTree]:
        helpers = self._helpers(conditional.options).items()
        return {"score": self.params} | {name: helper.params for name, helper in helpers}

    def _helpers(self, guidance: Any) -> dict[str, "Loaded"]:
        """The networks that config.guidance names."""
        found: dict[str, Loaded] = {}
        if guidance.classifier:
            found["classifier"] = self._helper(load_classifier, guidance.classifier, None)
        if guidance.weak:
            found["weak"] = self._helper(load, guidance.weak, guidance.weak_step)
        return found

    def _helper(self, load: Callable, directory: str, step: int | None) -> "Loaded":
        """Loaded once."""
        if (directory, step) not in self._loaded:
            self._loaded[directory, step] = load(directory, step)
        return self._loaded[directory, step]

    @functools.cached_property
    def _loaded(self) -> dict[tuple, "Loaded"]:
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
        return place(restore_state(self._dequantizing, folder, steps[-1])[0].ema_params)

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
        if not is_traced() and not bool(jnp.all((pixels >= 0) & (pixels <= 1))):
            raise UsageError("Images must be uint8, or floats in [0, 1]; these leave that range or are NaN.")
        return pixels.astype(jnp.float32)

    def _check_shape(self, x: Array) -> Array:
        if x.ndim != 4 or x.shape[1:] != self.experiment.image_shape:
            raise UsageError(f"Images of shape {x.shape}: this model takes (n, {self.experiment.image_shape}).")
        return x


def _given(conditional: Conditional, method: str, cond: Cond | None, observed: Observed | None, n: int) -> Given:
    """What n samples are given. Raises `UsageError` for what there is not, or the method has no way to."""
    observation = None if observed is None else conditional.observed(*observed)
    conditional.check(Given(cond, observation), method)
    return Given(fitted(cond, conditional.cond_entries, n), observation)


def _check_finite(x: Array, what: str) -> None:
    if not is_traced() and not bool(jnp.all(jnp.isfinite(x))):
        raise UsageError(
            f"{what} is not finite: the solver failed; try another checkpoint, looser tolerances, or more steps."
        )
