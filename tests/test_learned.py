"""A schedule that is learned: fixed ends, the gradient of the squared loss, and a run that trains and uses it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import score_sde
from score_sde.conditioning import Inpaint, Observation, Options, pigdm
from score_sde.errors import UsageError
from score_sde.learned import Learned, with_gradient_of_squares
from score_sde.objective import Objective
from score_sde.parameterization import KarrasF, Noise
from score_sde.process import LOST, Process, in_float64
from score_sde.randomness import batch_keys, expand, normal, sample_keys, stream
from score_sde.sampling import SAMPLERS, solve
from score_sde.times import Uniform
from score_sde.training.build import Experiment
from score_sde.training.classification import Classification
from score_sde.training.run import train
from score_sde.training.state import adam
from score_sde.weights import LikelihoodWeight, NoiseWeight, Uncertainty

KEYS = sample_keys(jax.random.key(0), jnp.arange(20_000))
VARIANCES = np.array([0.01, 0.2, 1.0, 4.0], np.float32).reshape(2, 2, 1)
UNEVEN = np.random.default_rng(0).normal(size=9).astype(np.float32)
PROCESS = Learned(noise_max=12.2, pieces=8)
OBJECTIVE = Objective(PROCESS, Noise(), Uniform(), LikelihoodWeight("half_sum"))


def of(log_rates) -> dict:
    return {"process": {"log_rates": jnp.asarray(log_rates)}}


@jax.jit
def loss(params, x0, t, eps):
    """The likelihood's loss of images N(0, VARIANCES); predicted is params["scale"] times the exact E[eps | x_t]."""
    objective = OBJECTIVE.with_params(params)
    x = objective.perturb(x0, t, eps)
    alpha, sigma = (expand(part(t), x) for part in (objective.process.alpha, objective.process.sigma))
    exact = sigma * x / (alpha**2 * VARIANCES + sigma**2)
    return objective.loss(params.get("scale", 1.0) * exact, x0, t, eps)


@jax.jit
def drawn(keys):
    return np.sqrt(VARIANCES) * normal(stream(keys, 3), (2, 2, 1)), *OBJECTIVE.draw(keys, (2, 2, 1))


@pytest.fixture(scope="module")
def draws():
    return drawn(KEYS)


def test_the_noise_level_goes_from_end_to_end_and_back():
    process, t = PROCESS.with_params({"log_rates": UNEVEN}), np.linspace(0.0, 1.0, 201)
    k = process.noise_level(t)
    assert k.dtype == np.float64 and np.all(np.diff(k) > 0)
    np.testing.assert_allclose(k[[0, -1]], [0.0013, 12.2], rtol=1e-12)
    np.testing.assert_allclose(process.time(k), t, atol=1e-12)
    np.testing.assert_allclose(process.alpha(t) ** 2 + process.sigma(t) ** 2, 1, rtol=1e-14)
    np.testing.assert_allclose(process.time(np.array([1e-4, 100.0])), [0, 1])
    np.testing.assert_allclose(process.noise_level(jnp.asarray(t, jnp.float32)), k, rtol=1e-5)
    t, h = np.linspace(0.01, 0.99, 50), 1e-6
    for part, rate in zip((process.alpha, process.sigma), process.rates(t), strict=True):
        np.testing.assert_allclose(rate, (part(t + h) - part(t - h)) / (2 * h), rtol=1e-5, atol=1e-8)
    assert process.prior_std == pytest.approx(process.sigma(np.ones(1)).item(), rel=1e-12)
    at_first = Learned(pieces=8).noise_level(np.linspace(0.0, 1.0, 9))
    np.testing.assert_allclose(at_first, np.geomspace(0.0013, 150, 9), rtol=1e-12)


@pytest.mark.parametrize("log_rates", [np.zeros(9, np.float32), UNEVEN], ids=["even", "uneven"])
def test_the_mean_loss_is_that_of_the_ends_whatever_lies_between(log_rates, draws):
    """1/2 sum ln((1 + l e^-g0) / (1 + l e^-g1)), l the variances and e^-g the signal-to-noise ratios of the ends."""
    low, high = (1 + VARIANCES / k**2 for k in (0.0013, 12.2))
    each = np.asarray(loss(of(log_rates), *draws), np.float64)
    assert abs(each.mean() - 0.5 * np.sum(np.log(low / high))) < 4 * each.std() / np.sqrt(len(each))


def test_the_schedule_has_the_gradient_of_the_squared_loss_and_the_network_that_of_the_loss(draws):
    """By finite differences of fixed draws."""
    with jax.enable_x64(True):
        params = of(UNEVEN.astype(np.float64)) | {"scale": jnp.float64(0.7)}
        few = [jnp.asarray(np.asarray(values[:40], np.float64)) for values in draws]

        def plain(params):
            return loss(params, *few)

        @jax.jit
        @jax.value_and_grad
        def surrogate(params):
            return jnp.mean(with_gradient_of_squares(plain, params))

        value, gradient = surrogate(params)
        np.testing.assert_allclose(value, jnp.mean(plain(params)), rtol=1e-14)
        h = 1e-5

        def slope(of_loss, move):
            ahead, behind = (plain(jax.tree.map(lambda p, m, s=s: p + s * h * m, params, move)) for s in (1, -1))
            return jnp.mean(of_loss(ahead) - of_loss(behind)) / (2 * h)

        none = jax.tree.map(jnp.zeros_like, params)
        np.testing.assert_allclose(gradient["scale"], slope(lambda x: x, none | {"scale": 1.0}), rtol=1e-7)
        found = [slope(jnp.square, none | of(np.eye(9)[i])) for i in range(9)]
        np.testing.assert_allclose(gradient["process"]["log_rates"], found, rtol=1e-6)
        assert abs(sum(found)) < 1e-6 * np.abs(found).max()  # a constant changes nothing


def test_training_the_schedule_lowers_the_variance_to_the_least_there_is_and_keeps_the_mean(draws):
    """The loss is S d log k / dt, S = sum v z^2 with v = l / (l + k^2), and E loss^2 >= (int sqrt(E S^2) d log k)^2."""
    log_k = np.linspace(*np.log([0.0013, 12.2]), 2001)
    v = VARIANCES.ravel() / (VARIANCES.ravel() + np.exp(2 * log_k)[:, None])
    of_squares = np.sum(v, axis=1) ** 2 + 2 * np.sum(v**2, axis=1)
    least, mean = (np.trapezoid(each, log_k) for each in (np.sqrt(of_squares), np.sum(v, axis=1)))
    optimizer = optax.adam(0.05)

    @jax.jit
    def trained(params):
        def update(carry, number):
            params, state = carry
            batch = drawn(stream(KEYS[:64], 100 + number))
            gradient = jax.grad(lambda p: jnp.mean(with_gradient_of_squares(lambda p: loss(p, *batch), p)))(params)
            updates, state = optimizer.update(gradient, state)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(update, (params, optimizer.init(params)), jnp.arange(300))[0][0]

    start = of(np.zeros(9, np.float32))
    before, after = (np.asarray(loss(params, *draws), np.float64) for params in (start, trained(start)))
    gained, possible = before.var() - after.var(), before.var() - (least**2 - mean**2)
    assert 0.75 * possible < gained < 1.05 * possible
    assert abs(after.mean() - before.mean()) < 4 * np.sqrt((before.var() + after.var()) / len(before))


def test_the_schedules_gradient_does_not_clip_the_networks():
    optimizer = adam(lr=1.0, beta1=0.0, eps=1.0, weight_decay=0.0, warmup=0, grad_clip=1.0, trainable=True)
    params = {"net": jnp.ones(1), "process": {"log_rates": jnp.ones(2)}}
    gradient = {"net": jnp.full(1, 0.5), "process": {"log_rates": jnp.full(2, 1e6)}}
    updates, _ = optimizer.update(gradient, optimizer.init(params), params)
    np.testing.assert_allclose(updates["net"], -0.5 / 1.5, rtol=1e-5)
    np.testing.assert_allclose(updates["process"]["log_rates"], -np.sqrt(0.5) / (np.sqrt(0.5) + 1), rtol=1e-5)


def test_tables_are_not_made_of_traced_numbers_and_the_sentence_says_what_to_do():
    with pytest.raises(UsageError, match=r"experiment\.frozen"):
        jax.eval_shape(lambda params: PROCESS.with_params(params).sigma(np.ones(1)), {"log_rates": UNEVEN})


VALUES = {"process.name": "learned", "process.pieces": 8, "parameterization.name": "noise", "weight.name": "likelihood"}


@pytest.fixture
def config(tiny_config):
    config = tiny_config()
    config.update_from_flattened_dict(VALUES | {"sampling.method": "dpmpp_2m", "sampling.num_steps": 3})
    config.optim.update(warmup=0, lr=0.02)
    config.training.update(batch_size=8, eval_freq=4, snapshot_freq=4, keep_last=2)
    return config


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"weight.name": "edm"}, "weight.name=likelihood and times.name=uniform"),
        ({"times.name": "importance"}, "weight.name=likelihood and times.name=uniform"),
        ({"process.noise_max": 1e-4}, "noise_min < noise_max"),
        ({"process.pieces": 0}, r"process\.pieces=0 must be in \[1, 65536\]"),
    ],
)
def test_what_does_not_go_with_a_learned_schedule_is_one_sentence(config, values, words):
    config.update_from_flattened_dict(values)
    with pytest.raises(UsageError, match=words):
        Experiment(config)


def test_a_classifier_learns_no_schedule(tiny_config):
    config = tiny_config("vp/digits_wideresnet")
    config.process.name = "learned"
    with pytest.raises(UsageError, match="teaches no schedule"):
        Classification(config)


@pytest.mark.usefixtures("one_block", "compiled_once")
def test_a_run_learns_its_schedule_goes_on_bit_for_bit_and_is_sampled_under_it(config, tmp_path):
    train(config, tmp_path / "whole")
    config.training.snapshot_sampling = True
    for config.training.n_iters in (2, 4):
        train(config, tmp_path / "stopped")
    model, stopped, raw = (
        score_sde.load(tmp_path / name, ema=average)
        for name, average in (("whole", True), ("stopped", True), ("whole", False))
    )
    for a, b in zip(jax.tree.leaves(model.params), jax.tree.leaves(stopped.params), strict=True):
        np.testing.assert_array_equal(a, b)
    assert model.digest == stopped.digest
    assert (tmp_path / "stopped/samples/snapshots/step_00000004.png").exists()  # by the same fast solver

    log_rates = model.sde.params["log_rates"]  # the average's, with the average of the network
    np.testing.assert_array_equal(log_rates, model.params["process"]["log_rates"])
    assert np.abs(log_rates).max() > 0.01 and np.any(log_rates != raw.sde.params["log_rates"])

    key, process = jax.random.key(0), model.experiment.sde
    keys = batch_keys(key, 2)
    assert isinstance(log_rates, np.ndarray)

    def sampled(process):
        denoiser = model.experiment.clipped(process, model.experiment.model(model.params, process=process), "dpmpp_2m")
        solver = SAMPLERS["dpmpp_2m"](process, denoiser, num_steps=3)
        return np.asarray(solve(solver, key, model.experiment.prior(keys))[0]) / 2 + 0.5

    found = np.asarray(model.sample(key, 2))
    np.testing.assert_allclose(found, np.clip(sampled(process), 0, 1), atol=2e-4)
    assert np.abs(found - np.clip(sampled(Learned(pieces=8)), 0, 1)).max() > 1e-3
    assert np.all(np.isfinite(model.bits_per_dim(key, np.full((2, 8, 8, 1), 100, np.uint8))))

    early = model.at(2)  # with the schedule that it had then, and programs of it
    assert np.any(early.sde.params["log_rates"] != log_rates)
    assert np.abs(found - np.asarray(early.sample(key, 2))).max() > 1e-4
    np.testing.assert_array_equal(model.sde.params["log_rates"], log_rates)


class Pixels(Process):
    """sigma = t and t^2: schedules of two pixels."""

    scalar = False

    def alpha(self, t):
        return 1 - self.sigma(t)

    def sigma(self, t):
        return jnp.stack([jnp.asarray(t), jnp.asarray(t) ** 2], axis=-1).reshape(*jnp.shape(t), 1, 2, 1)


def test_the_noisiest_time_is_that_of_the_pixel_that_is_lost_first():
    level = in_float64(Pixels().noise_level, np.array([Pixels().noisiest_time]))
    assert level.max() == pytest.approx(LOST, rel=1e-6)


def test_what_needs_one_noise_level_for_all_pixels_says_so():
    process, y = Pixels(), jnp.zeros((1, 1, 2, 1))
    observation = Observation(Inpaint(jnp.ones((1, 2, 1))), y, jnp.zeros(1))
    for make in (
        lambda: process.time(np.ones(1)),
        lambda: KarrasF().outputs(lambda x, noise_cond: x, process),
        lambda: Objective(process, Noise(), Uniform(), Uncertainty(base="noise")),
        lambda: pigdm(process, lambda x, t: None, observation, Options()),
    ):
        with pytest.raises(UsageError, match="Pixels has one for each; "):
            make()
    Objective(process, Noise(), Uniform(), NoiseWeight())
