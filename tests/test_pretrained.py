"""A trained model is frozen data, made of a workdir or by hand, and does what closed forms of Gaussian data say."""

import dataclasses
import functools
import pickle
import sys
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_conditional import saved

import score_sde
from score_sde import likelihood
from score_sde.conditioning import Inpaint
from score_sde.errors import UsageError
from score_sde.images import UNIT
from score_sde.inference.pretrained import Pretrained
from score_sde.inference.sampling_plan import plan
from score_sde.inference.snapshots import PretrainedClassifier
from score_sde.io import workdir
from score_sde.objective import Objective
from score_sde.parameterization import Noise
from score_sde.paths import Linear
from score_sde.randomness import batch_keys, expand
from score_sde.sampling import SAMPLERS
from score_sde.sde import VP
from score_sde.times import Uniform
from score_sde.training import build
from score_sde.training.build import Experiment
from score_sde.weights import NoiseWeight

SHAPE, KEY = (8, 8, 1), jax.random.key(0)
MEAN, STD = 0.2, 0.3  # of independent pixels in [-1, 1]
PARAMS = {"mean": np.full(SHAPE, MEAN, np.float32), "std": np.float32(STD)}


class OfGaussian(nn.Module):
    """E[eps | x_t] = sigma (x - alpha m) / (alpha^2 s^2 + sigma^2), told 999 t."""

    process: Any

    @nn.compact
    def __call__(self, x, noise_cond, cond=None, *, dropout_keys=None):
        mean, std = self.param("mean", nn.initializers.zeros, SHAPE), self.param("std", nn.initializers.ones, ())
        alpha, sigma = (expand(scale(noise_cond / 999), x) for scale in (self.process.alpha, self.process.sigma))
        return sigma * (x - alpha * mean) / (jnp.square(alpha * std) + jnp.square(sigma))


def by_hand(process=VP(), **fields) -> Pretrained:  # noqa: B008
    objective = Objective(process, Noise(), Uniform(), NoiseWeight())
    return Pretrained(
        **dict(objective=objective, network=OfGaussian(process), params=PARAMS, image_shape=SHAPE) | fields
    )


@pytest.fixture(scope="module")
def model() -> Pretrained:
    return by_hand()


def spread(t: float) -> tuple[float, float]:
    """alpha, and the standard deviation of x_t."""
    alpha, sigma = (float(scale(np.array([t]))[0]) for scale in (VP().alpha, VP().sigma))
    return alpha, float(np.hypot(alpha * STD, sigma))


def test_a_model_made_by_hand_says_the_closed_forms_of_its_data(model):
    x, sigma = jax.random.normal(KEY, (3, *SHAPE)), np.array([0.1, 0.5, 2.0])
    alpha, std = spread(0.4)
    np.testing.assert_allclose(model.score(x, 0.4), -(x - alpha * MEAN) / std**2, rtol=1e-4, atol=1e-4)
    levels = sigma[:, None, None, None]
    expected = (STD**2 * x + levels**2 * MEAN) / (STD**2 + levels**2)
    np.testing.assert_allclose(model.denoise(x, sigma), expected, rtol=1e-3, atol=1e-3)
    np.testing.assert_array_equal(model.denoise(x, [0.5] * 3), model.denoise(x, np.float64(0.5)))


def test_its_latents_are_its_images_standardised(model):
    images = np.asarray(jax.random.uniform(KEY, (2, *SHAPE)))
    (alpha, std), (first, least) = spread(1.0), spread(1e-5)
    z = model.encode(images)
    np.testing.assert_allclose(z, alpha * MEAN + std / least * (2 * images - 1 - first * MEAN), atol=2e-3)
    np.testing.assert_allclose(model.decode(z), images, atol=1e-3)


def test_its_bits_are_those_of_the_density(model):
    pixels = np.random.default_rng(0).integers(100, 200, (2, *SHAPE)).astype(np.uint8)
    y, log_q = model.dequantize(batch_keys(KEY, 2), jnp.asarray(pixels / 255, jnp.float32))
    (alpha, std), (first, least) = spread(1.0), spread(1e-5)
    z = alpha * MEAN + std / least * (np.asarray(y) - first * MEAN)
    nats = np.mean(z**2 / 2 + np.log(2 * np.pi) / 2 - np.log(std / least), axis=(1, 2, 3))
    np.testing.assert_allclose(model.bits_per_dim(KEY, pixels), nats / np.log(2) + log_q, atol=1e-3)
    assert np.all(model.bound(KEY, pixels) > model.bits_per_dim(KEY, pixels) - 0.5)


def test_its_samples_have_the_mean_and_spread_of_its_data(model):
    x = np.asarray(2 * model.sample(KEY, 64, "dpmpp_2m", num_steps=15) - 1)
    assert x.shape == (64, *SHAPE)
    assert abs(x.mean() - MEAN) < 4 * STD / 64 and abs(x.std() / STD - 1) < 0.05


def test_its_posterior_keeps_what_is_observed_and_draws_independent_pixels_as_ever(model):
    left = Inpaint(jnp.ones((4, *SHAPE)).at[:, :, 4:].set(0))
    y = left.forward(jnp.full((4, *SHAPE), 0.25))
    x = model.posterior(KEY, left, np.asarray(y), np.float32(0), "dpmpp_2m", num_steps=15)
    np.testing.assert_array_equal(x[:, :, :4], 0.25)
    np.testing.assert_allclose(x[:, :, 4:], model.sample(KEY, 4, "dpmpp_2m", num_steps=15)[:, :, 4:], atol=1e-4)


def test_a_process_without_a_chain_and_another_range_are_made_by_hand_too():
    model = by_hand(Linear(), image_range=(0.0, 1.0))
    with pytest.raises(UsageError, match=r"sampling\.predictor"):
        model.sample(KEY, 2)
    assert model.sample(KEY, 2, "heun", num_steps=2).shape == (2, *SHAPE)
    assert not model.config.data.centered and model.image_range == UNIT


def test_what_does_not_fit_is_one_sentence(model):
    for fields, words in (
        (dict(params={"mean": PARAMS["mean"]}), r"\['std'\] has the shape None, and the network's \(\)"),
        (dict(params={"params": PARAMS}), "params=network.init"),
        (dict(image_range=(1.0, 1.0)), r"image_range=\(1\.0, 1\.0\)"),
    ):
        with pytest.raises(UsageError, match=words):
            by_hand(**fields)
    with pytest.raises(UsageError, match="no workdir"):
        model.at(3)


def test_a_model_is_frozen_and_its_parameters_are_never_copied(model):
    with pytest.raises(dataclasses.FrozenInstanceError):
        model.step = 3
    later = dataclasses.replace(model, step=3)
    assert later.experiment is model.experiment and len({model, later, model}) == 2
    assert all(a is b for a, b in zip(*map(jax.tree.leaves, (model.params, later.params)), strict=True))
    other = dataclasses.replace(model, network=OfGaussian(Linear()))
    assert other.experiment is not model.experiment  # nor its programs


def test_a_model_is_derived_by_its_parameters(model):
    x = jax.random.normal(KEY, (2, *SHAPE))

    def size(std):
        return jnp.sum(dataclasses.replace(model, params=model.params | {"std": std}).score(x, 0.2) ** 2)

    (alpha, std), squares = spread(0.2), float(jnp.sum((x - spread(0.2)[0] * MEAN) ** 2))
    np.testing.assert_allclose(jax.jit(jax.grad(size))(STD), -4 * alpha**2 * STD * squares / std**6, rtol=1e-3)


def test_a_pickled_model_samples_the_same_images(model):
    kept = pickle.dumps(model)
    again = pickle.loads(kept)
    for a, b in zip(*(each.sample(KEY, 2, "ddim", num_steps=2) for each in (model, again)), strict=True):
        np.testing.assert_array_equal(a, b)
    assert all(type(leaf) is np.ndarray for leaf in jax.tree.leaves(model.__reduce__()[0].keywords["params"]))
    assert repr(again) == repr(model) == "Pretrained(8x8x1, OfGaussian, VP, 65 parameters)"


def test_numbers_of_any_kind_are_options(model):
    expected = model.sample(KEY, 2, "ddim", num_steps=3, eta=0.5)
    for kind in (np.int64, jnp.int32, np.array):
        np.testing.assert_array_equal(expected, model.sample(KEY, 2, "ddim", num_steps=kind(3), eta=jnp.float32(0.5)))
    np.testing.assert_array_equal(expected, model.sample(KEY, np.int8(2), "ddim", num_steps=3, eta=np.float32(0.5)))
    for interval in ([0.25, 0.5], np.array([0.25, 0.5]), jnp.array([0.25, 0.5])):
        assert plan(model, "ddim", {"interval": interval}).conditional.options.interval == (0.25, 0.5)


@pytest.mark.parametrize(
    ("n", "options", "words"),
    [
        (2, dict(num_steps=2.5), r"sampling\.num_steps=2\.5 is not an integer"),
        (2, dict(eta="half"), "sampling.eta='half' is not a number"),
        (2, dict(num_steps=[3]), r"num_steps=\(3,\)"),
        (0, {}, "n must be an integer"),
        (jnp.float32(2), {}, "n must be an integer"),
        (3, dict(labels=[1, 2]), r"Labels of shape \(2,\) for 3 images"),
    ],
)
def test_a_wrong_argument_is_one_sentence(n, options, words, model):
    with pytest.raises(UsageError, match=words):
        model.sample(KEY, n, "ddim", **options)


# From a call to the solver.


def frames() -> int:
    """Those of the package between a test and the function that asks."""
    frame, count = sys._getframe(1), 0
    while (frame and Path(frame.f_code.co_filename) != Path(__file__)) or frame.f_code.co_name == "counting":
        name = frame.f_code.co_filename
        count += "score_sde/" in name and "config/arguments" not in name  # where a door checks its arguments
        frame = frame.f_back
    return count


@pytest.mark.parametrize(
    ("module", "name", "call"),
    [
        (SAMPLERS, "ddim", lambda model: model.sample(KEY, 2, "ddim", num_steps=2)),
        (likelihood, "bits_per_dim", lambda model: model.bits_per_dim(KEY, np.zeros((2, *SHAPE), np.uint8))),
        (build, "probability_flow", lambda model: model.encode(np.zeros((2, *SHAPE), np.uint8))),
    ],
)
def test_at_most_five_frames_are_between_a_call_and_its_solver(module, name, call, monkeypatch):
    found, make = [], module[name] if isinstance(module, dict) else getattr(module, name)

    def counting(*args, **options):
        found.append(frames())
        return make(*args, **options)

    patch = monkeypatch.setitem if isinstance(module, dict) else monkeypatch.setattr
    patch(module, name, counting)
    call(by_hand())
    assert len(found) > 2 and max(found) <= 5


# Of a workdir.


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return tmp_path_factory.mktemp("pretrained")


def test_another_checkpoint_or_average_is_another_value_and_compiles_nothing(run, tiny_config, one_block, monkeypatch):
    made, make = [], SAMPLERS["ddim"]
    monkeypatch.setitem(SAMPLERS, "ddim", lambda *args, **options: made.append(1) or make(*args, **options))
    config = tiny_config()
    config.ema.profiles = ("constant:0.9", "power:0.1")
    model = score_sde.load(saved(config, run / "score", (2, 4)))
    assert repr(model).endswith(f"step 4 of {run}/score, average constant:0.9)")
    assert repr(model).startswith("Pretrained(digits 8x8x1, OneBlock, VP, ")
    x = model.sample(KEY, 2, "ddim", num_steps=2)
    traced = len(made)
    others = model.at(2), model.at(ema="power:0.1"), model.at(ema=False)
    assert np.any(others[0].sample(KEY, 2, "ddim", num_steps=2) != x)
    assert len(made) == traced and (model.step, model.ema) == (4, "constant:0.9")
    assert [(other.step, other.ema) for other in others] == [(2, "constant:0.9"), (4, "power:0.1"), (4, False)]
    assert model.digest == others[1].digest != others[0].digest
    for wrong in (lambda: model.at(3), lambda: model.at(ema="power:0.3")):
        with pytest.raises(UsageError):
            wrong()


class Brightness(nn.Module):
    """Logits of two classes: x in [0, 1] plus noise, its mean, and that of 1 - x."""

    num_outputs: int = 2

    @nn.compact
    def __call__(self, x, noise_cond, *rest, **options):
        mean = self.param("scale", nn.initializers.ones, ()) * x.mean(axis=(1, 2, 3))
        return jnp.stack([mean, 1 - mean], axis=-1)


def test_a_classifier_is_frozen_data_too(model):
    classifier = PretrainedClassifier(model.objective, Brightness(), {"scale": np.float32(1)}, SHAPE)
    alpha, _ = spread(0.5)
    x = alpha * jnp.stack([jnp.ones(SHAPE), jnp.zeros(SHAPE), -jnp.ones(SHAPE)])
    np.testing.assert_allclose(classifier.logits(x, 0.5), [[1, 0], [0.5, 0.5], [0, 1]], atol=1e-5)
    pixels = np.stack([np.full(SHAPE, 255, np.uint8), np.zeros(SHAPE, np.uint8)])
    assert classifier.hits(batch_keys(KEY, 2), pixels, np.array([0, 0]), np.float32(0.01)).tolist() == [1, 0]
    assert repr(pickle.loads(pickle.dumps(classifier))) == "PretrainedClassifier(8x8x1, Brightness, VP, 1 parameters)"
    with pytest.raises(dataclasses.FrozenInstanceError):
        classifier.params = {}


def test_loading_a_run_of_this_version_traces_no_network(tiny_config, tmp_path, monkeypatch):
    folder = saved(tiny_config(), tmp_path)
    first = score_sde.load(folder)  # nothing says which version wrote it, so that its shapes are compared
    monkeypatch.setattr(Experiment, "init_params", lambda self: {})
    workdir.write(folder, "launch.json", {"versions": {"score_sde": score_sde.__version__}})
    again = score_sde.load(folder)
    jax.tree.map(np.testing.assert_array_equal, again.params, first.params)
    assert again.experiment.param_shapes == first.experiment.param_shapes
    workdir.write(folder, "launch.json", {"versions": {"score_sde": "0.1.0"}})
    with pytest.raises(UsageError, match="do not fit the network"):
        score_sde.load(folder)


# Derivatives of calls: for Gaussian data a sample is linear in the noisy image that it starts from.


STARTS = np.full((2, *SHAPE), 0.5, np.float32)


def slope_of_samples(t: float) -> float:
    """The derivative of a sample by its start image: alpha, the ODE's factor, and that of the last denoising."""
    (alpha, first), (least, last) = spread(t), spread(VP().sampling_eps)
    return alpha * last / first * least * STD**2 / last**2


NO_CLIP = dict(start_time=0.3, clip="none", temperature=0.5)  # no sample leaves [0, 1], where its derivative is 0


def test_a_sample_is_derived_by_its_start_image_as_the_closed_form_says(model):
    def total(start, **options):
        return jnp.sum(model.sample(KEY, 2, start=start, **NO_CLIP, **options))

    fixed = functools.partial(total, sampler="dpmpp_2m", num_steps=40)
    slopes = jax.jit(jax.grad(fixed))(STARTS)
    np.testing.assert_allclose(slopes, slope_of_samples(0.3), rtol=2e-3)
    differences = (fixed(STARTS + 0.01) - fixed(STARTS - 0.01)) / 0.02
    np.testing.assert_allclose(differences, jnp.sum(slopes), rtol=1e-3)


def test_an_adaptive_sampler_is_derived_forwards_and_says_so_backwards(model):
    def drawn(start):
        return model.sample(KEY, 2, "ode", start=start, rtol=1e-5, atol=1e-5, noise_removal=False, **NO_CLIP)

    _, along = jax.jvp(drawn, (STARTS,), (np.ones_like(STARTS),))
    (alpha, first), (_, last) = spread(0.3), spread(VP().sampling_eps)
    np.testing.assert_allclose(along, alpha * last / first, rtol=1e-3)
    with pytest.raises(UsageError, match="no derivative in reverse mode"):
        jax.grad(lambda start: jnp.sum(drawn(start)))(STARTS)


def test_samples_and_denoised_images_are_derived_by_the_parameters(model):
    def of_mean(mean):
        return dataclasses.replace(model, params=model.params | {"mean": mean})

    def total(mean):
        return jnp.sum(2 * of_mean(mean).sample(KEY, 2, "dpmpp_2m", num_steps=40, start=STARTS, **NO_CLIP)) / 2

    slopes = jax.grad(total)(PARAMS["mean"])  # each mean is that of a pixel of both images; samples are in [0, 1]
    np.testing.assert_allclose(slopes, 1 - slope_of_samples(0.3), rtol=2e-3)
    noisy, sigma = jax.random.normal(KEY, (2, *SHAPE)), 0.5
    slopes = jax.grad(lambda x: jnp.sum(model.denoise(x, sigma)))(noisy)
    np.testing.assert_allclose(slopes, STD**2 / (STD**2 + sigma**2), rtol=1e-3)
