"""A trained model, for notebooks and scripts: `model = score_sde.load(workdir)`.

A `Pretrained` is frozen data. The functions of this module take it as their first argument, and are its methods too, as
are those of `likelihoods`, `latents` and `bayes_classifier`.

| function                                | result                                                               |
|-----------------------------------------|----------------------------------------------------------------------|
| `predict`, `score`, `denoise`           | predictions for noisy images; usable inside any JAX program          |
| `sample`, `posterior`                   | images; images given an observation                                  |
| `encode`, `decode`, `interpolate`       | latents of images by the probability-flow ODE, and back              |
| `bits_per_dim`, `bound`                 | likelihoods of images, and a bound on them                           |
| `draw`, `likelihoods`                   | the same with a key for each image, and their numbers of evaluations |
| `classify`                              | the likeliest class or caption of images, by log p(image, class)     |

The functions take images in [0, 1] or uint8, NHWC; x and latents are in model range.
"""

import dataclasses
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from score_sde import images
from score_sde.array_types import Array, Key, Keys, ModelImages, PyTree, Real, Times, UnitImages
from score_sde.cond import Cond, fitted, rows, with_labels
from score_sde.conditioning import Operator
from score_sde.config import AnyConfig
from score_sde.config.arguments import check_arguments
from score_sde.config.kinds import is_abstract
from score_sde.errors import UsageError, moved_names, renamed
from score_sde.inference import inputs
from score_sde.inference.bayes_classifier import classify
from score_sde.inference.captions import towards_caption
from score_sde.inference.conditional_samplers import Towards, UnitObservation, finished, unused_option
from score_sde.inference.dequantizer import dequantize, dequantizer_params
from score_sde.inference.inputs import AnyLabels, AnyText, AnyTimes, Levels, NoisyTimes, Report
from score_sde.inference.latents import decode, encode, interpolate
from score_sde.inference.likelihoods import bits_per_dim, bound, likelihoods
from score_sde.inference.sampling_plan import each_label, plan
from score_sde.inference.snapshots import Snapshot, config_of
from score_sde.inference.start_images import AnyStart, check_start, for_samples
from score_sde.io import workdir
from score_sde.process import Prediction
from score_sde.randomness import batch_keys, expand
from score_sde.runtime import backend
from score_sde.runtime.sharding import is_traced, pad_to_devices, pmap, split
from score_sde.sampling.solver import Counts
from score_sde.training.sampler_options import Method, name_of


@check_arguments
def load(
    directory: Path, step: int | None = None, config: AnyConfig | None = None, *, ema: bool | str | float = True
) -> "Pretrained":
    """The model trained in a workdir, with averaged weights, or the raw ones where `ema` is False.

    step: of the checkpoint; default the last. config: default the workdir's; another may differ in `sampling` and
    `eval`. ema: the name of an average, "power:0.05"; True is that of config.sampling.ema, by default the run's first.
    A number 0.075 is the width of a power average, and "power:0.075" in short: if the run did not keep this one, it is
    made after the fact, of its snapshots of averages, and `step` is by default the last of these. Raises `UsageError`
    when there is no such checkpoint or average, or `config` describes another run.
    """
    directory = backend.expanded(directory)
    workdir.checkpoint_steps(directory)
    return Pretrained.of_run(config_of(directory, config), directory, step, average=ema)


# Predictions for noisy images.


@renamed("classes", "labels")
@check_arguments
def score(
    model: "Pretrained",
    x: ModelImages,
    t: NoisyTimes,
    labels: AnyLabels = None,
    cond: Cond | None = None,
    text: AnyText = None,
) -> ModelImages:
    """The score of p_t at x, of x's shape: -E[eps | x_t = x] / sigma(t).

    x: images in model range, float32. t: a time in (0, 1] for each image, or one for all. labels: numbers or names of
    classes, short for cond={"labels": labels}. text: a caption for all, or one for each. cond: arrays of b rows, see
    `score_sde.cond`; default the null condition. Composes with `jit`, `grad`, `scan`, `vmap`. Raises `UsageError` for
    other arguments, as uint8 images.

        s = model.score(jnp.zeros((2, *model.image_shape)), 0.5)
    """
    return _applied(model, "score_fn", x, t, labels, cond, text)


@renamed("classes", "labels")
@check_arguments
def predict(
    model: "Pretrained",
    x: ModelImages,
    t: AnyTimes,
    labels: AnyLabels = None,
    cond: Cond | None = None,
    text: AnyText = None,
) -> Prediction:
    """The prediction E[x_0 | x_t] and E[eps | x_t] at x, which samplers and likelihoods take.

    Arguments as for `score`.

        x0, eps = model.predict(jnp.zeros((2, *model.image_shape)), 0.5)
    """
    return _applied(model, "model", x, t, labels, cond, text)


@renamed("classes", "labels")
@check_arguments
def denoise(
    model: "Pretrained",
    x: ModelImages,
    sigma: Levels,
    labels: AnyLabels = None,
    cond: Cond | None = None,
    text: AnyText = None,
) -> ModelImages:
    """The posterior mean E[x_0 | x] of x = x_0 + sigma eps, in model range, whatever process the network has learned.

    sigma: a noise level in (0, sigma(1) / alpha(1)] for each image, or one for all. Other arguments as for `score`.

        x0 = model.denoise(jnp.zeros((2, *model.image_shape)), 0.3)
    """
    model.experiment.check_score("A denoiser of noise that is added to an image")
    process, end = model.sde, np.ones(1, np.float32)
    with np.errstate(divide="ignore"):
        largest = np.max(np.asarray(process.sigma(end)) / np.asarray(process.alpha(end)))
    if not is_abstract(sigma) and np.max(np.asarray(sigma), initial=0) > largest * (1 + 1e-5):
        raise UsageError(
            f"denoise: sigma must be at most {largest:g}, the noise level of this model's process at t = 1."
        )
    t = jnp.clip(process.time(inputs.for_each(sigma, len(x))), 0.0, 1.0)
    return predict(model, expand(process.alpha(t), x) * x, t, labels, cond, text).x0


def _applied(
    model: "Pretrained",
    name: str,
    x: ModelImages,
    t: AnyTimes,
    labels: AnyLabels,
    cond: Cond | None,
    text: AnyText,
) -> ModelImages | Prediction:
    """The result at x and t of the experiment's function of this name."""
    experiment, cond = model.experiment, inputs.condition(model, len(x), labels, cond, text)

    def applied(params: PyTree, x: ModelImages, t: Times, cond: Cond | None) -> ModelImages | Prediction:
        return getattr(experiment, name)(params, cond=cond)(x, t)

    t = inputs.for_each(t, len(x))
    inputs.check_taken(applied, model.image_shape, model.params, x, t, cond)
    program = experiment.once(name, lambda: pmap(applied, in_axes=(None, 0, 0, 0), out_axes=None))
    return jax.tree.map(lambda rows: rows[: len(x)], program(model.params, *split(x, t, cond)))


# Samples.


class Samples(NamedTuple):
    """Samples in [0, 1], evaluations of networks for each, and those made for its batch, from start to end."""

    images: UnitImages
    nfe: Counts
    batch_nfe: Counts


@check_arguments
def sample(
    model: "Pretrained",
    key: Key[Array, "..."],
    n: Annotated[int, "[1, inf)"],
    sampler: Method | None = None,
    *,
    start: AnyStart = None,
    labels: AnyLabels = None,
    text: AnyText = None,
    towards: str | None = None,
    cond: Cond | None = None,
    same_noise: Annotated[int, "[1, inf)"] | None = None,
    **options: Any,
) -> UnitImages:
    """Draws `n` images in [0, 1]; sample i depends on (key, i) only, unless the sampler couples the batch.

    key: one key, or one for each image.
    sampler: "pc", "ode", "adaptive", a fast solver's name, or a function as `score_sde.config.protocols.Sampler`;
    default config.sampling.method.
    start: images, uint8 or in [0, 1], one for all or one for each, or a file of them; the samples begin at
    `start_time=0.5`, for example, from these with noise, and resemble them (SDEdit; Meng et al., 2022).
    labels: classes by numbers 0, 1, ... or by names, one for all, or one for each. text: a caption for all, or one for
    each. cond: arrays of n rows, see `score_sde.cond`.
    same_noise: number of consecutive images that share their noise; default config.sampling.same_noise. towards:
    another caption, which the images go towards over each row of so many, see `conditioning.interpolation`.
    options: values that replace those of config.sampling and config.guidance, as num_steps=10 or scale=2.0.
    Composes with `jit` and `grad`: samplers of fixed steps have derivatives by start images, conditions and parameters
    in both modes, `ode` and `adaptive` in forward mode (`jax.jvp`). Clipping to [0, 1] has the derivative 0 or 1.
    Raises `UsageError` for unknown options, and for labels and conditions that the networks do not know.

        x = model.sample(jax.random.key(0), 16, "dpmpp_2m", num_steps=10)
        like_x = model.sample(jax.random.key(1), 16, "dpmpp_2m", num_steps=10, start=x, start_time=0.5)
    """
    filled, each = n if key.ndim else pad_to_devices(n), same_noise or model.config.sampling.same_noise
    entries = plan(model, sampler, options).conditional.cond_entries
    numbers = np.minimum(np.arange(filled), n - 1)
    cond = with_labels(cond, each_label(model, labels, n, sampler, options))
    cond = rows(fitted(inputs.with_text(model, cond, text, n), entries, n), numbers)
    way = None if towards is None else towards_caption(model, cond, towards, numbers, each)
    start = None if start is None else for_samples(start, n, model.image_shape)[numbers]
    keys = batch_keys(key, filled, each)
    return draw(model, keys, sampler, cond=cond, towards=way, start=start, **options).images[:n]


@check_arguments
def posterior(
    model: "Pretrained",
    key: Key[Array, "..."],
    operator: Operator,
    y: Real[Array, "b ..."],
    noise: Annotated[float, "[0, inf)"] = 0.0,
    sampler: Method | None = None,
    *,
    labels: AnyLabels = None,
    text: AnyText = None,
    cond: Cond | None = None,
    same_noise: Annotated[int, "[1, inf)"] | None = None,
    **options: Any,
) -> UnitImages:
    """Draws an image in [0, 1] for each row of y, from p(x_0 | y) for y = A x_0 + n; also given a condition, if any.

    operator: A, see `score_sde.conditioning`. y: of images in [0, 1], or uint8. noise: the standard deviation of n, 0
    or more; at 0 the operator maps the images to y exactly. same_noise, options: as for `sample`; inverse="pigdm" is
    another method. Raises `UsageError` for observations and options that do not fit.

        small = Average(2)  # of score_sde.conditioning
        x = model.posterior(jax.random.key(0), small, small.forward(images), 0.1, "dpmpp_2m", num_steps=10)
    """
    y = images.to_unit(y) if y.dtype == jnp.uint8 else y.astype(jnp.float32)
    cond = with_labels(cond, each_label(model, labels, len(y), sampler, options))
    conditions = dict(cond=inputs.with_text(model, cond, text, len(y)), observed=(operator, y, noise))
    keys = batch_keys(key, len(y), same_noise or model.config.sampling.same_noise)
    return draw(model, keys, sampler, **conditions, **options).images


@check_arguments
def draw(
    model: "Pretrained",
    keys: Keys,
    sampler: Method | None = None,
    report: Report = lambda _: None,
    compile_only: bool = False,
    *,
    cond: Cond | None = None,
    towards: Towards | None = None,
    start: UnitImages | None = None,
    observed: UnitObservation | None = None,
    **options: Any,
) -> Samples:
    """Draws one sample for each key, and counts the evaluations of networks that it took.

    report: called with the fraction done. compile_only: see `Runner`. start: an image in [0, 1] for each key. observed:
    operator, y and noise as for `posterior`. towards: another condition, with each sample's share of it. Others as for
    `sample`; the number of keys must be a multiple of the number of devices.
    """
    method, conditional, runner, params = plan(model, sampler, options)
    conditions = conditional.conditions(cond, observed, len(keys), method, towards)
    experiment = conditional.experiment
    for name in options:
        sections = experiment.config.sampling, conditional.options
        if name == "same_noise":
            raise UsageError("Samples share their noise if they have the same key; give such keys, or call sample.")
        if name in ("noise", "samples_each"):
            raise UsageError(f"{name} is read by --mode=sample; posterior takes noise and a row of y for each image.")
        if reason := unused_option(name, *sections, method, observed=observed is not None):
            raise UsageError(f"{name}={options[name]!r} would change nothing: {reason}.")
    check_start(experiment.config.sampling.start_time, started=start is not None, observed=observed is not None)
    x, nfe, batch_nfe = runner(params, keys, experiment.prior(keys, start), report, compile_only, (conditions,))
    alone = experiment.once("ended", lambda: backend.program(_ended, static_argnames="clip"))
    x, finite = (_ended if is_traced() else alone)(x, experiment.scaling, clip=observed is None)
    inputs.check_finite(finite, f"A sample of {name_of(method)}")
    return Samples(x if observed is None else finished(x if is_traced() else np.asarray(x), *observed), nfe, batch_nfe)


def _ended(x: ModelImages, scaling: images.Scaling, *, clip: bool) -> tuple[UnitImages, Array]:
    """Samples in [0, 1], and whether all are finite, in one program. scaling: numbers, so that none is folded."""
    unit = scaling.to_unit(x)
    return jnp.clip(unit, 0, 1) if clip else unit, jnp.all(jnp.isfinite(x))


@check_arguments
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Pretrained(Snapshot):
    """A score network with the weights of a checkpoint, or with your own: see `Snapshot` for its fields.

    A network of your own needs no workdir:

        import flax.linen as nn
        import jax
        import jax.numpy as jnp
        from score_sde.objective import Objective
        from score_sde.parameterization import Noise
        from score_sde.inference.pretrained import Pretrained
        from score_sde.sde import VP
        from score_sde.times import Uniform
        from score_sde.weights import NoiseWeight

        class Denoiser(nn.Module):  # returns eps
            @nn.compact
            def __call__(self, x, noise_cond, cond=None, *, dropout_keys=None):
                return nn.Conv(x.shape[-1], (3, 3))(x)

        network, x = Denoiser(), jnp.zeros((1, 8, 8, 1))
        params = network.init(jax.random.key(0), x, jnp.ones(1))["params"]
        objective = Objective(VP(), Noise(), Uniform(), NoiseWeight())
        model = Pretrained(objective, network, params, image_shape=(8, 8, 1))
        images = model.sample(jax.random.key(1), 16, "dpmpp_2m", num_steps=10)
    """

    score, predict, denoise = score, predict, denoise
    sample, posterior, draw = sample, posterior, draw
    bits_per_dim, likelihoods, bound, dequantize = bits_per_dim, likelihoods, bound, dequantize
    classify = classify
    encode, decode, interpolate = encode, decode, interpolate
    dequantizer_params = property(dequantizer_params)


__getattr__ = moved_names(__name__, {"Likelihoods": "score_sde.inference.likelihoods.Likelihoods"})
