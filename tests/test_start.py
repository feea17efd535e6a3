"""Samples that start from images with noise (SDEdit), against the Gaussian law that they have for Gaussian data."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from optimised import solve
from test_pretrained import KEY, by_hand

from score_sde.conditioning import Inpaint
from score_sde.errors import UsageError
from score_sde.oracles import Gaussian
from score_sde.paths import Linear
from score_sde.randomness import Stream, batch_keys, normal, sample_keys, stream
from score_sde.sampling import GRIDS, SAMPLERS
from score_sde.sampling.grids import time_grid
from score_sde.sampling.predictor_corrector import time_steps
from score_sde.sde import VE, VP

SHAPE, MEAN, VARIANCE, X0 = (4, 4, 2), 0.3, 0.25, -0.9
DATA = Gaussian(np.full(SHAPE, MEAN), VARIANCE)
KEYS = sample_keys(jax.random.key(0), jnp.arange(256))
N = len(KEYS) * np.prod(SHAPE)
TIMES = {"vp": (VP(num_scales=1000), 0.4), "ve": (VE(sigma_max=5.0, num_scales=1000), 0.75), "linear": (Linear(), 0.5)}


def noisy(process, t, keys=KEYS):
    """x_t of the start image, whose numbers are all `X0`."""
    return process.alpha(np.float32(t)) * X0 + process.sigma(np.float32(t)) * normal(keys, SHAPE)


def sampled(process, name, t, keys=KEYS, **options):
    solver = SAMPLERS[name](process, DATA.model(process), start_time=t, **options)
    return np.asarray(solve(solver, keys, noisy(process, t, keys))[0])


def law(process, t, *, reverses_noise):
    """Mean and variance of a sample given its start image: by the ODE, or by the reverse SDE, which draws anew."""
    m, s = (float(part(np.array([t]))[0]) for part in (process.alpha, process.sigma))
    v = m**2 * VARIANCE + s**2
    gain = m * VARIANCE / v if reverses_noise else np.sqrt(VARIANCE / v)
    return MEAN + gain * m * (X0 - MEAN), (gain * s) ** 2 + reverses_noise * VARIANCE * s**2 / v


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ode", {}),
        ("unipc_3", dict(num_steps=10)),
        ("dpmpp_2m", dict(num_steps=20, grid="karras")),
        ("dpmpp_2m_sde", dict(num_steps=60)),
        ("ddim", dict(num_steps=200, eta=1.0)),
        ("adaptive", dict(rtol=0.01, atol=1e-3)),
        ("pc", {}),
        ("pc", dict(predictor="reverse_diffusion", corrector="ald", snr=0.01)),
        ("pc", dict(predictor="exponential")),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(map(str, value.values())),
)
@pytest.mark.parametrize("process", ["vp", "ve"])
def test_samples_have_the_law_that_the_start_image_implies(process, name, options):
    """Within four standard errors, and 2 % of the deviation for the steps of `pc`."""
    (process, t), steps = TIMES[process], 0.02 * (name == "pc")
    mean, variance = law(process, t, reverses_noise=name not in ("ode", "unipc_3", "dpmpp_2m"))
    x = sampled(process, name, t, **options)
    assert abs(x.mean() - mean) < (4 / np.sqrt(N) + steps) * np.sqrt(variance)
    assert abs(x.std() / np.sqrt(variance) - 1) < 4 / np.sqrt(2 * N) + steps


@pytest.mark.parametrize("process", TIMES)
def test_a_deterministic_sampler_keeps_its_order_from_any_time(process):
    process, t = TIMES[process]
    x = noisy(process, t, KEYS[:8])
    exact = DATA.flow(process, x, jnp.full(8, t), jnp.full(8, process.sampling_eps))
    options = dict(name="dpm_solver_2", keys=KEYS[:8], noise_removal=False)
    coarse, fine = (np.abs(sampled(process, t=t, num_steps=n, **options) - exact).max() for n in (16, 32))
    assert 3.7 < coarse / fine < 4.5  # order 2


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("process", TIMES)
def test_a_grid_runs_from_the_start_to_the_end(process, grid):
    process, t = TIMES[process]
    times = time_grid(process, grid, 7, eps=1e-3, start_time=t)
    assert (times[0], times[-1], len(times)) == (t, 1e-3, 8) and np.all(np.diff(times) < 0)


def test_steps_of_pc_are_as_long_as_those_from_noise_and_on_the_chain():
    process = VP(num_scales=1000)
    grid = time_steps(process, None, start_time=0.5)
    assert len(grid.t) == 500 and (grid.t[0], grid.t[-1]) == (0.5, process.sampling_eps)
    assert sorted(process.chain_index(jnp.asarray(grid.t, jnp.float32)).tolist()) == list(range(500))
    assert len(time_steps(process, 0.2, start_time=0.5).t) == 500


# Of a model.


@pytest.fixture(scope="module")
def model():
    return by_hand()


IMAGES = np.random.default_rng(0).integers(90, 160, (3, 8, 8, 1)).astype(np.uint8)


def test_the_image_comes_back_from_a_start_near_the_data(model):
    x = model.sample(KEY, 3, "ddim", num_steps=2, start=IMAGES, start_time=0.002)
    assert np.std(x - IMAGES / 255) < 1.1 * VP().sigma(np.array([0.002]))[0] / 2  # half: images in [0, 1]


def test_a_start_at_time_one_is_noise_with_what_the_process_leaves_of_the_image(model):
    keys, x0 = batch_keys(KEY, 3), 2 * (IMAGES / 255) - 1
    z = np.asarray(normal(stream(keys, Stream.PRIOR), IMAGES.shape[1:]))
    alpha, sigma = (float(part(np.ones(1))[0]) for part in (VP().alpha, VP().sigma))
    start = model.experiment.prior(keys, jnp.asarray(IMAGES / 255, jnp.float32))
    np.testing.assert_allclose(start, alpha * x0 + sigma * z, atol=1e-6)
    linear = by_hand(Linear())  # whose alpha(1) is 0
    options = dict(sampler="heun", num_steps=3)
    np.testing.assert_array_equal(linear.sample(KEY, 3, start=IMAGES, **options), linear.sample(KEY, 3, **options))


def test_one_start_is_for_all_samples_and_files_are_taken_in_turn(model, tmp_path):
    def drawn(start):
        return np.asarray(model.sample(KEY, 4, "ddim", num_steps=3, start=start, start_time=0.4))

    np.testing.assert_allclose(drawn(IMAGES[0]), drawn(np.repeat(IMAGES[:1], 4, axis=0) / 255), atol=1e-6)
    np.save(tmp_path / "starts.npy", IMAGES)
    np.testing.assert_array_equal(drawn(tmp_path / "starts.npy"), drawn(IMAGES[np.arange(4) % 3]))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(start_time=0.5), "give them as start=images"),
        (dict(start=IMAGES, start_time=0.0), r"sampling\.start_time=0\.0 must be in \(0, 1\]"),
        (dict(start=IMAGES, start_time=1e-4), r"start_time=0\.0001 must be in \(0\.001, 1\]"),
        (dict(start=IMAGES[:2], start_time=0.5), r"shape \(2, 8, 8, 1\); give one of shape \(8, 8, 1\)"),
        (dict(start=IMAGES[:, :4], start_time=0.5), r"shape \(3, 4, 8, 1\)"),
        (dict(start=IMAGES.astype(np.float32), start_time=0.5), r"floats in \[0, 1\]"),
        (dict(start="no.png", start_time=0.5), "is no file; give a picture, a folder"),
    ],
)
def test_a_start_that_does_not_fit_is_one_sentence(options, words, model):
    with pytest.raises(UsageError, match=words):
        model.sample(KEY, 3, "ddim", **options)


def test_an_observation_and_a_start_exclude_each_other(model):
    known = Inpaint(jnp.ones((3, 8, 8, 1)))
    with pytest.raises(UsageError, match="not both"):
        observed = known, jnp.asarray(IMAGES / 255, jnp.float32), 0.0
        model.draw(batch_keys(KEY, 3), "ddim", observed=observed, start=jnp.asarray(IMAGES / 255), start_time=0.5)


# A sampler that is a function.


def one_step(process, model, *, eps=None, noise_removal=True, num_steps=1):
    return SAMPLERS["ddim"](process, model, eps=eps, noise_removal=noise_removal, num_steps=num_steps)


def test_a_function_is_a_sampler_with_the_options_that_it_takes(model):
    expected = model.sample(KEY, 2, "ddim", num_steps=3)
    np.testing.assert_array_equal(model.sample(KEY, 2, one_step, num_steps=3), expected)
    for sampler, options, words in (
        (len, {}, "is no sampler: it lacks"),
        (one_step, dict(eta=0.5), "the sampler one_step, as it is set, takes .*num_steps"),
        (one_step, dict(start=IMAGES[0], start_time=0.5), "keyword argument start_time"),
    ):
        with pytest.raises(UsageError, match=words):
            model.sample(KEY, 2, sampler, **options)
