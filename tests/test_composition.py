"""What a user composes is a part of any JAX program, and what would silently be something else is refused."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_conditional import saved

from score_sde import data
from score_sde.cli.describe import planned_nfe
from score_sde.config import Config
from score_sde.errors import UsageError
from score_sde.evaluation.evaluate import evaluate, sample
from score_sde.inference.pretrained import load
from score_sde.inference.snapshots import load_classifier
from score_sde.likelihood import bits_per_dim
from score_sde.oracles import Gaussian
from score_sde.process import from_score
from score_sde.randomness import batch_keys, sample_keys
from score_sde.runtime.sharding import split
from score_sde.sampling import SAMPLERS, advance, solve
from score_sde.sde import VP
from score_sde.training.build import Experiment, trainable
from score_sde.training.source_checks import check_source

pytestmark = pytest.mark.usefixtures("one_block")
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {}, tmp_path_factory.mktemp("composition")


@pytest.fixture
def folder(folders, tiny_config):
    """name -> a workdir of random weights."""
    done, root = folders

    def make(name, config="vp/digits_ddpmpp_continuous", **changes):
        if name not in done:
            built = tiny_config(config)
            if "ddpmpp" in config:
                built.model.attn_resolutions = ()
            built.update_from_flattened_dict(changes)
            done[name] = saved(built, root / name)
        return done[name]

    return make


@pytest.fixture
def model(folder):
    return load(folder("plain"))


@pytest.fixture
def told_all(folder):
    """A network with classes that was never told that there is none."""
    return load(folder("told_all", **{"model.num_classes": 10, "training.label_dropout": 0.0}))


def transformed(fn, x, t):
    """By each of jit, grad, scan and vmap; what it is to be; and how large its terms are."""
    value = np.asarray(fn(x, t))
    size = np.abs(value).max()
    yield jax.jit(fn)(x, t), value, size
    _, along = jax.jvp(lambda x: fn(x, t), (x,), (x,))
    gradient = jax.grad(lambda x: jnp.sum(jnp.square(fn(x, t))) / 2)(x)
    yield jnp.vdot(gradient, x), np.vdot(value, along), np.linalg.norm(gradient) * np.linalg.norm(x)
    yield jax.lax.scan(lambda c, _: (c, fn(c, t)), x, None, length=2)[1][1], value, size
    yield jax.vmap(fn)(jnp.stack([x, 2 * x]), jnp.stack([t, t]))[0], value, size


def test_a_models_score_and_a_classifiers_logits_are_parts_of_any_program(model, folder):
    x, t = jax.random.normal(KEY, (2, 8, 8, 1)), jnp.array([0.3, 0.7])
    classifier = load_classifier(folder("classifier", "vp/digits_wideresnet"))
    for fn in (model.score, classifier.logits):
        for found, expected, size in transformed(fn, x, t):
            np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-4 * size)
    constant = jax.jit(lambda: model.score(x, t))()  # of arrays that are known while it is traced
    np.testing.assert_allclose(constant, model.score(x, t), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["pc", "ode", "dpmpp_2m"])
def test_solvers_take_a_models_score_and_are_parts_of_programs(name, model):
    options = {"ode": dict(rtol=1e-2, atol=1e-2), "dpmpp_2m": dict(num_steps=3)}.get(name, {})
    keys = sample_keys(KEY, jnp.arange(2))
    prior = model.experiment.prior(keys)
    solver = SAMPLERS[name](model.sde, from_score(model.sde, model.score), **options)
    x, _ = solve(solver, keys, prior)
    again, _ = jax.jit(lambda x: solve(solver, keys, x))(prior)
    np.testing.assert_allclose(again, x, rtol=1e-4, atol=1e-4 * np.abs(x).max())


SAMPLERS_OF_STEPS = {
    "pc": dict(predictor="reverse_diffusion", corrector="langevin"),
    "edm_stochastic": dict(num_steps=3),
    "unipc_3": dict(num_steps=5),
}


@pytest.mark.parametrize("name", SAMPLERS_OF_STEPS)
def test_samplers_of_a_known_number_of_steps_are_derived_mapped_and_scanned(name):
    """Of Gaussian data; langevin's norm couples the batch."""
    sde, keys = VP(num_scales=25), sample_keys(KEY, jnp.arange(2))
    data = Gaussian(np.full((2, 2, 1), 0.3), 0.25)
    solver = SAMPLERS[name](sde, data.model(sde), **SAMPLERS_OF_STEPS[name])
    x = sde.prior_sample(keys, (2, 2, 1))

    def sample(x):
        return solve(solver, keys, x)[0]

    value, along = jax.jvp(sample, (x,), (x,))
    found = advance(solver, solver.init(keys, x), solver.steps)
    assert float(solver.fraction(found)) == 1
    np.testing.assert_allclose(solver.result(found)[0], value, rtol=1e-4, atol=1e-5)
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(jnp.square(sample(x))) / 2))(x)
    np.testing.assert_allclose(jnp.vdot(gradient, x), jnp.vdot(value, along), rtol=1e-4)
    np.testing.assert_allclose(jax.vmap(sample)(jnp.stack([x, 2 * x]))[0], value, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(jax.lax.scan(lambda c, _: (c, sample(c)), x, None, 2)[1][1], value, rtol=1e-4, atol=1e-5)


def test_likelihoods_latents_and_samples_are_parts_of_a_program(model):
    pixels = jax.random.uniform(KEY, (2, 8, 8, 1))
    # A difference in the last bits of a level: within what one of a thousandth of them makes.
    np.testing.assert_allclose(jax.jit(model.bound)(KEY, pixels), model.bound(KEY, pixels), rtol=1e-4)
    of_ode = (model.bits_per_dim, lambda key, x: model.encode(x))
    for run in (*of_ode, lambda key, x: model.sample(key, 2, "ddim", num_steps=3, start=x, start_time=0.5)):
        np.testing.assert_allclose(jax.jit(run)(KEY, pixels), run(KEY, pixels), rtol=1e-3, atol=1e-4)


def test_rows_that_do_not_belong_together_are_refused(model):
    x, t = jnp.zeros((3, 8, 8, 1)), np.full(2, 0.5)
    with pytest.raises(UsageError, match=r"\(3, 8, 8, 1\), \(2,\)"):
        split(x, t)  # by which a model's score, likelihoods and samples take all that they are given
    keys = sample_keys(KEY, jnp.arange(2))
    with pytest.raises(UsageError, match=r"\(2,\) for 4 images"):
        model.sample(keys, 4, "ddim", num_steps=2)
    with pytest.raises(UsageError, match=r"\(2,\) for 3 images"):
        solve(bits_per_dim(model.sde, model.score, offset_bits=0), keys, x)
    assert batch_keys(keys, 2) is keys
    assert model.sample(keys, 2, "ddim", num_steps=2).shape == (2, 8, 8, 1)


@pytest.mark.parametrize(
    ("method", "options", "words"),
    [
        ("heun", dict(snr=0.3), "snr=0.3 would change nothing: the sampler heun"),
        ("pc", dict(snr=0.3), "the sampler pc, as it is set, takes"),
        (
            "ode",
            dict(num_steps=7),
            "takes eps, start_time, noise_removal, temperature, precision, clip, rtol, atol, ode_method",
        ),
        ("ddim", dict(rho=5.0), "num_steps, grid, eta"),
        ("ddim", dict(method="heun"), "method='heun' would change nothing"),
        ("ddim", dict(inverse="dps"), "given an observation"),
        ("ddim", dict(scale=4.0), r"guidance\.scale=4\.0 guides towards a class"),
        ("ddim", dict(interval=(0.1, 0.5)), "none is asked for"),
        ("ddim", dict(noise=0.1), "posterior takes noise"),
    ],
)
def test_options_that_would_change_nothing_are_refused(method, options, words, model):
    with pytest.raises(UsageError, match=words):
        model.sample(KEY, 1, method, **options)


def test_no_class_is_asked_only_of_a_network_that_was_trained_without(told_all, folder):
    words = r"training\.label_dropout=0\) and is no score without a class"
    x, t = jnp.zeros((2, 8, 8, 1)), jnp.full(2, 0.5)
    asks = [
        lambda: told_all.score(x, t),
        lambda: told_all.sample(KEY, 2, "ddim", num_steps=2),
        lambda: told_all.sample(KEY, 2, "ddim", num_steps=2, labels=3, scale=2.0),
        lambda: told_all.bits_per_dim(KEY, np.zeros((2, 8, 8, 1), np.uint8)),
        lambda: told_all.encode(np.zeros((2, 8, 8, 1), np.uint8)),
        lambda: told_all.bound(KEY, np.zeros((2, 8, 8, 1), np.uint8)),
    ]
    for ask in asks:
        with pytest.raises(UsageError, match=words):
            ask()
    assert np.isfinite(told_all.score(x, t, np.array([3, 9]))).all()
    assert np.isfinite(told_all.sample(KEY, 2, "ddim", num_steps=2, labels=3)).all()
    assert planned_nfe(told_all.experiment) == told_all.sde.num_scales
    config = Config(told_all.config).copy_and_resolve_references()
    config.eval.enable_bpd = True
    for program in (evaluate, sample):
        with pytest.raises(UsageError, match=words):
            program(config, told_all.directory)
    assert not (told_all.directory / "eval").exists() and not (told_all.directory / "samples").exists()


def test_snapshots_of_a_network_that_was_told_every_label_are_of_its_classes_in_turn(told_all, model):
    experiment = told_all.experiment
    assert experiment.cond_in_turn(12)["labels"].tolist() == [*range(10), 0, 1]
    assert model.experiment.cond_in_turn(12) is None
    x, t = jnp.ones((3, 8, 8, 1)), jnp.full(3, 0.5)
    solver = experiment.sampler(told_all.params, cond=experiment.cond_in_turn(3))
    assert solver.nfe == told_all.sde.num_scales
    assert np.isfinite(told_all.score(x, t, cond=experiment.cond_in_turn(3))).all()


def test_a_network_has_the_classes_that_it_is_trained_on_and_no_others(tiny_config):
    config = tiny_config()
    config.model.num_classes = 10
    experiment = trainable(config)
    assert isinstance(experiment, Experiment)
    pixels = np.zeros((3, 8, 8, 1), np.uint8)
    three = data.InMemory(pixels, np.array([0, 1, 2]))
    check_source(experiment, three)  # a split to evaluate on may have fewer
    with pytest.raises(UsageError, match=r"3 classes; set model\.num_classes=3 instead of 10"):
        check_source(experiment, three, all_of_them=True)
    gaps = data.InMemory(pixels, np.array([0, 1, 9]))
    with pytest.raises(UsageError, match="no image of class 2, 3, 4, 5, 6, 7, 8"):
        check_source(experiment, gaps, all_of_them=True)


NUMBERS = """
import jax.numpy as jnp, numpy as np
from score_sde.runtime import sharding as parallel
from score_sde.oracles import Gaussian
from score_sde.randomness import batch_keys
from score_sde.sampling import fast_solver, predictor_corrector, solve
from score_sde.sde import VP
import jax

def samples(real, whole):
    process = VP(beta_min=real(0.125), beta_max=real(20), num_scales=whole(30))
    model = Gaussian(np.full((2, 2, 1), 0.5), 0.25).model(process)
    table = fast_solver(process, model, name="ddim", num_steps=whole(4), rho=real(7), eta=real(0.5), grid="karras")
    chain = predictor_corrector(process, model, corrector="langevin", snr=real(0.125), n_steps_each=whole(1))
    return [solve(solver, jax.random.key(0), jnp.ones((4, 2, 2, 1)))[0] for solver in (table, chain)]

expected = samples(float, int)
for kinds in ((np.float32, np.int64), (jnp.float32, jnp.int32)):
    for ours, theirs in zip(samples(*kinds), expected):
        np.testing.assert_array_equal(ours, theirs)
"""


def test_numbers_of_numpy_and_jax_are_taken_as_pythons():
    subprocess.run([sys.executable, "-c", NUMBERS], check=True)  # without the checks of annotations under pytest
