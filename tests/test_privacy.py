"""A private training: what its updates compute, what its batches are, and what they spend."""

import json
import math
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies
from scipy import special, stats

from score_sde.array_types import PyTree
from score_sde.cli.describe import describe
from score_sde.data import poisson_batch
from score_sde.errors import UsageError
from score_sde.io import workdir
from score_sde.runtime.memory import tree_bytes
from score_sde.training import accountant, privacy
from score_sde.training import run as training
from score_sde.training.accountant import Mechanism, capacity_for, epsilon, most_updates
from score_sde.training.build import trainable
from score_sde.training.memory_estimate import kept_bytes
from score_sde.training.private_step import clipped_sum, example_gradient, gaussian, private_step

PIXELS = np.random.default_rng(0).integers(0, 256, (16, 8, 8, 1)).astype(np.uint8)
WORDS = np.array([1, 2], np.uint32)


pytestmark = pytest.mark.usefixtures("one_block")


@pytest.fixture
def config(tiny_config):
    """A private run of seconds."""
    config = tiny_config()
    config.training.update(privacy=True, n_iters=4, snapshot_sampling=False)
    config.privacy.update(noise_multiplier=1.0, times=2, secret_seed=3, delta=1e-4)
    config.optim.warmup = 0
    return config


def flat(tree: PyTree) -> np.ndarray:
    return np.concatenate([np.asarray(leaf, np.float64).ravel() for leaf in jax.tree.leaves(tree)])


def state_of(experiment, seed=0):
    """At parameters that no zero hides."""
    state = experiment.init_state()
    draw = np.random.default_rng(seed)
    return state._replace(params=jax.tree.map(lambda p: p + 0.1 * draw.standard_normal(p.shape, "f4"), state.params))


def test_clipped_gradients_equal_a_loops(config):
    experiment = trainable(config)
    gradient, params = example_gradient(experiment), state_of(experiment).params
    keys, present, pixels = jax.random.split(jax.random.key(0), 16), jnp.arange(16) % 3 > 0, jnp.asarray(PIXELS)
    expected = 0.0
    for i in np.flatnonzero(present):
        grads = flat(gradient(params, keys[i], pixels[i], None))
        expected += grads * min(1, 0.5 / np.linalg.norm(grads))
    total = jax.jit(clipped_sum(gradient, 0.5))(params, present, keys, pixels, None)
    np.testing.assert_allclose(flat(total), expected, atol=1e-6 * np.linalg.norm(expected))


def test_memory_counts_each_draw_of_an_image_and_its_gradient(config, capsys):
    kept, gradient = kept_bytes(private := trainable(config)), tree_bytes(private.param_shapes)
    config.privacy.times = 5
    assert kept_bytes(trainable(config)) == 5 * (kept - gradient) / 2 + gradient
    config.privacy.times, config.training.privacy = 2, False
    assert kept_bytes(trainable(config)) == (kept - gradient) / 2
    config.training.update(privacy=True, accumulate=2)
    config.privacy.capacity = 32
    describe(config)
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("kept for"))
    assert f"{kept / 2**20:,.1f} MiB an image, {kept * 16 / 2**20:,.0f} MiB on each of 1 device(s) at 32 places" in line
    assert line.endswith("for images, each with a gradient of its own, in 2 parts")


def test_without_noise_and_clipping_it_is_the_ordinary_update(config):
    config.privacy.times = 1
    experiment = trainable(config)
    config.privacy.update(clip=1e9, noise_multiplier=1e-20)
    state, numbers = state_of(experiment), np.arange(16, dtype=np.int32)
    private, _ = jax.jit(private_step(experiment, training.accumulated))(state, PIXELS, None, numbers, 0, WORDS)
    ordinary, _ = jax.jit(training.train_step(experiment))(state, PIXELS)
    for name in ("params", "ema_params"):
        np.testing.assert_allclose(flat(getattr(private, name)), flat(getattr(ordinary, name)), atol=1e-6)


@given(
    strategies.lists(strategies.floats(width=32), min_size=3, max_size=3), strategies.floats(2**-20, 2**20, width=32)
)
@settings(max_examples=200, deadline=None)
def test_one_image_more_moves_the_sum_by_no_more_than_the_clip(row, clip):
    total = clipped_sum(lambda params, grads: {"a": grads[:1], "b": grads[1:]}, clip)
    rows = np.array([[1, 2, 3], row, [4, -5, 6]], np.float32)
    with_it, without = (flat(total({}, jnp.array([True, there, True]), rows)) for there in (True, False))
    assert np.linalg.norm(with_it - without) <= clip * (1 + 1e-5)


def test_the_keys_of_an_image_are_its_own_wherever_it_stands_in_the_batch(config):
    experiment = trainable(config)
    config.privacy.noise_multiplier = 1e-20
    step = jax.jit(private_step(experiment, training.accumulated))
    numbers, order = np.arange(16, dtype=np.int32), np.random.default_rng(1).permutation(16)
    numbers[3] = -1
    norms = [step(state_of(experiment), PIXELS[i], None, numbers[i], 0, WORDS)[1] for i in (slice(None), order)]
    np.testing.assert_allclose(*norms, rtol=1e-5)


def test_the_noise_has_its_size_and_is_a_function_of_its_key():
    like = {"a": jnp.zeros((100, 100)), "b": jnp.zeros(100)}
    first, again, other = (gaussian(jnp.asarray(WORDS + np.uint32(i)), like, 3.0) for i in (0, 0, 1))
    np.testing.assert_array_equal(flat(first), flat(again))
    assert abs(np.corrcoef(flat(first), flat(other))[0, 1]) < 4 / math.sqrt(10_100)
    assert stats.kstest(flat(first) / 3, "norm").pvalue > 1e-3


def test_every_image_joins_with_the_rate_and_independently():
    n, rate, updates = 50, 0.2, 2000
    joined = np.zeros((updates, n), bool)
    for step in range(updates):
        indices = poisson_batch(n, rate, n, seed=7, step=step)
        joined[step, indices[indices >= 0]] = True
    counts = joined.sum(0)
    assert stats.chisquare(counts, np.full(n, updates * rate), sum_check=False).pvalue > 1e-3
    sizes = np.bincount(joined.sum(1), minlength=n + 1)  # binomial, if the coins are independent
    expected = updates * stats.binom.pmf(np.arange(n + 1), n, rate)
    common = expected > 10
    assert stats.chisquare(sizes[common], expected[common] * sizes[common].sum() / expected[common].sum()).pvalue > 1e-3


def test_places_stay_empty_or_leave_the_last_images_out():
    whole = poisson_batch(100, 0.3, 100, seed=0, step=1)
    few = poisson_batch(100, 0.3, 10, seed=0, step=1)
    np.testing.assert_array_equal(few, whole[:10])
    assert (whole[(whole >= 0).sum() :] == -1).all()


def published_bound(rate: float, noise: float, updates: int, delta: float) -> float:
    """The moments accountant of Abadi et al. (2016): the bound of Renyi divergences of integer orders, which add."""
    bounds = []
    for order in range(2, 65):
        k = np.arange(order + 1)
        logs = np.log(special.comb(order, k)) + (order - k) * math.log1p(-rate) + k * math.log(rate)
        renyi = special.logsumexp(logs + k * (k - 1) / (2 * noise**2)) / (order - 1)
        bounds.append(updates * renyi + math.log(1 / delta) / (order - 1))
    return min(bounds)


# Abadi et al. (2016), figure 2; the README of TensorFlow Privacy's tutorials, 60 and 10 epochs of MNIST.
PUBLISHED = [
    (Mechanism(60_000, 600, 4.0, 60_000), 10_000, 1.26),
    (Mechanism(60_000, 256, 1.12, 60_000), 14_062, 2.92),
    (Mechanism(60_000, 256, 1.2, 60_000), 2_343, 1.20),
]


@pytest.mark.parametrize(("mechanism", "updates", "figure"), PUBLISHED)
def test_epsilon_agrees_with_published_figures(mechanism, updates, figure):
    from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent, rdp

    bound = published_bound(mechanism.rate, mechanism.noise_multiplier, updates, 1e-5)
    assert round(bound, 2) == figure
    renyi = rdp.RdpAccountant()
    renyi.compose(PoissonSampledDpEvent(mechanism.rate, GaussianDpEvent(mechanism.noise_multiplier)), updates)
    assert 0.6 * bound < epsilon(((mechanism, updates),), 1e-5) < renyi.get_epsilon(1e-5) < bound


# Koskela, Jalko and Honkela (2020), by Fourier transforms: delta of 10,000 updates for one image more, in the tests of
# their Fourier accountant. Rate, noise, epsilon, delta.
FOURIER = [
    (0.01, 2.0, 1.0, 0.010224911209),
    (0.01, 2.0, 0.8, 0.022850339596),
    (0.01, 1.0, 1.0, 0.239176394736),
    (0.02, 2.0, 1.0, 0.149917329693),
]


@pytest.mark.parametrize(("rate", "noise", "value", "delta"), FOURIER)
def test_epsilon_equals_that_of_an_independent_accountant(rate, noise, value, delta):
    mechanism = Mechanism(60_000, round(60_000 * rate), noise, 60_000)
    assert epsilon(((mechanism, 10_000),), delta) == pytest.approx(value, abs=1e-3)


def test_one_update_without_sampling_is_the_gaussian_mechanism():
    def delta(value: float) -> float:  # Balle and Wang (2018), theorem 5, at noise 2
        return stats.norm.cdf(1 / 4 - 2 * value) - math.exp(value) * stats.norm.cdf(-1 / 4 - 2 * value)

    value = epsilon(((Mechanism(100, 100, 2.0, 101), 1),), 1e-5)
    assert delta(value) <= 1e-5 < delta(value - 2e-4)
    assert value == pytest.approx(1.99, abs=0.01)


def test_images_that_are_left_out_are_counted_in_delta():
    tight, roomy = (Mechanism(1000, 100, 2.0, places) for places in (140, 1000))
    value = epsilon(((tight, 10),), 1e-2)
    lost = 10 * (1 + math.exp(value)) * stats.binom.sf(140, 1001, 0.1)
    assert value == pytest.approx(epsilon(((roomy, 10),), 1e-2 - lost), rel=1e-9)
    assert epsilon(((tight, 10_000),), 1e-5) == math.inf
    chosen = Mechanism(1000, 100, 2.0, capacity_for(1000, 100, 3.0, 1e-5))
    assert 0 < 1e6 * (1 + math.exp(3.0)) * chosen.overflow <= 1e-8
    assert 1e6 * (1 + math.exp(3.0)) * chosen._replace(capacity=chosen.capacity - 1).overflow > 1e-8


def test_the_most_updates_are_within_the_budget_and_one_more_is_not():
    mechanism = Mechanism(1000, 100, 2.0, 200)
    before = ((mechanism._replace(noise_multiplier=3.0), 2),)
    most = most_updates(mechanism, 1.0, 1e-5, before)
    spent, beyond = (epsilon((*before, (mechanism, n)), 1e-5) for n in (most, most + 1))
    assert spent <= 1.0 < beyond
    assert most_updates(mechanism, 0.01, 1e-5) == 0


def lines_of(directory):
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


def test_a_run_that_is_stopped_and_goes_on_is_the_undisturbed_run_and_spends_the_same(config, tmp_path):
    training.train(config, tmp_path / "whole")
    for n_iters in (2, 4):
        config.training.n_iters = n_iters
        training.train(config, tmp_path / "parts")
    whole, parts = (privacy.spent(tmp_path / name) for name in ("whole", "parts"))
    assert whole == parts
    assert whole.updates == 4
    assert whole.epsilon == epsilon(whole.segments, config.privacy.delta)
    lines = [
        [{k: v for k, v in line.items() if k != "time"} for line in lines_of(tmp_path / name)]
        for name in ("whole", "parts")
    ]
    norms = [[line["gradient_norm"] for line in each if "gradient_norm" in line] for each in lines]
    assert norms[0] == norms[1]
    assert [line["epsilon"] for line in lines[0] if "epsilon" in line][-1] == whole.epsilon
    assert not any("training_loss" in line for line in lines[0])


# Trains by the config.json of one workdir in another.
AGAIN = """
import json, sys, one_block
from score_sde.config import Config
from score_sde.training.run import train
one_block.use()
train(Config(json.load(open(sys.argv[1]))), sys.argv[2])
"""


def test_eight_devices_make_the_same_run(config, tmp_path):
    training.train(config, tmp_path / "one")
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
    program = [sys.executable, "-c", AGAIN, str(tmp_path / "one" / "config.json"), str(tmp_path / "eight")]
    subprocess.run(program, env=os.environ | {"XLA_FLAGS": flags, "PYTHONPATH": os.pathsep.join(sys.path)}, check=True)
    one, eight = (
        [line["gradient_norm"] for line in lines_of(tmp_path / name) if "gradient_norm" in line]
        for name in ("one", "eight")
    )
    np.testing.assert_allclose(eight, one, rtol=1e-5)
    assert privacy.spent(tmp_path / "one") == privacy.spent(tmp_path / "eight")


def test_a_training_ends_before_its_budget_is_exceeded(config, tmp_path, capsys):
    n = 1498
    mechanism = Mechanism(n, 16, 1.0, 100)
    config.privacy.update(epsilon=epsilon(((mechanism, 3),), 1e-4), delta=1e-4, capacity=100)
    training.train(config, tmp_path)
    assert workdir.saved_steps(tmp_path)[-1] == 3
    assert privacy.spent(tmp_path).epsilon <= config.privacy.epsilon
    assert "allows 3 updates" in capsys.readouterr().err


def test_a_changed_setting_is_a_segment_of_its_own(config, tmp_path):
    config.training.n_iters = 2
    training.train(config, tmp_path)
    config.privacy.noise_multiplier = 2.0
    with pytest.raises(UsageError, match=r"privacy\.noise_multiplier=1\.0, not 2\.0"):
        training.train(config, tmp_path)
    config.training.n_iters = 4
    for _ in range(2):  # the second launch has nothing to do
        training.train(config, tmp_path, allowed=("privacy.noise_multiplier",))
    (first, of_first), (second, of_second) = privacy.spent(tmp_path).segments
    assert (first.noise_multiplier, of_first, second.noise_multiplier, of_second) == (1.0, 2, 2.0, 2)


def test_updates_after_the_last_checkpoint_count_where_a_setting_changes():
    segment = {"first": 0, **Mechanism(100, 10, 1.0, 40)._asdict()}
    assert privacy.spending([segment | {"updates": 7}, segment | {"first": 5}], 9) == (
        (Mechanism(100, 10, 1.0, 40), 7),
        (Mechanism(100, 10, 1.0, 40), 4),
    )


def test_the_seed_of_the_noise_is_secret_and_in_no_other_file(config, tmp_path):
    config.privacy.secret_seed = None
    config.training.n_iters = 1
    training.train(config, tmp_path)
    path = tmp_path / privacy.SECRET
    seed = json.loads(path.read_text())["seed"]
    assert path.stat().st_mode & 0o077 == 0 and seed > 2**64
    assert not [each for each in tmp_path.glob("*.json*") if each != path and str(seed) in each.read_text()]


MISTAKES = {
    "data.sigma_images measures": {"data.sigma_images": 10},
    "set text.tokenizer=bytes": {"text.tokenizer": "words"},
    "set training.coupling=independent": {"training.coupling": "optimal", "training.coupling_block": 16},
    "set training.fsdp=1": {"training.fsdp": 2},
    "there are 1498; set it to 374": {"training.batch_size": 1600},
    "One update spends epsilon": {"privacy.epsilon": 1e-3},
}


@pytest.mark.parametrize(("message", "changes"), MISTAKES.items(), ids=MISTAKES)
def test_settings_that_would_break_the_guarantee_are_refused(message, changes, config, tmp_path):
    config.update_from_flattened_dict(changes)
    with pytest.raises(UsageError, match=message):
        training.train(config, tmp_path / "run")
    assert not (tmp_path / "run" / "config.json").exists()


def test_the_accountant_says_how_it_is_installed(monkeypatch):
    accountant._library.cache_clear()
    monkeypatch.setitem(sys.modules, "dp_accounting", None)
    with pytest.raises(UsageError, match=r'pip install "score-sde\[privacy\]"'):
        most_updates(Mechanism(100, 10, 1.0, 50), 1.2345, 1e-5)
