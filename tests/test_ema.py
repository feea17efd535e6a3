"""Profiles of the weights' averages, by the closed forms of what each weighs; and a run that keeps two of them."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import score_sde
from score_sde import ema
from score_sde.cli.describe import describe
from score_sde.cli.main import main
from score_sde.cli.runs import _of_workdir
from score_sde.ema import Constant, HalfLife, Power, Ramp, weights
from score_sde.errors import UsageError
from score_sde.evaluation import identities
from score_sde.inference.pretrained import load
from score_sde.inference.snapshots import restore_state
from score_sde.runtime.sharding import fully_sharded
from score_sde.training.build import Experiment
from score_sde.training.run import train

ALL = (Constant(0.9), Ramp(0.99), HalfLife(20), Power(0.1))
TWO = ("power:0.1", "half_life:3,0.5")


@pytest.mark.parametrize("sigma_rel", [0.01, 0.05, 0.1, 0.25])
def test_a_power_average_weighs_updates_by_a_power_function_of_the_run(sigma_rel):
    total, g = 1000, ema.gamma(sigma_rel) + 1
    s = np.arange(total + 1) / total
    expected = np.append(0.0, np.diff(s**g))
    np.testing.assert_allclose(weights(Power(sigma_rel), total), expected, rtol=0, atol=1e-12)


def test_the_exponent_is_that_of_the_paper_and_the_width_what_it_says():
    assert ema.gamma(0.05) == pytest.approx(16.9722, abs=1e-4)
    assert ema.gamma(0.10) == pytest.approx(6.9372, abs=1e-4)
    total, s = 20_000, np.arange(20_001)
    for sigma_rel in (0.05, 0.1, 0.2):
        w = weights(Power(sigma_rel), total)
        deviation = np.sqrt(w @ s**2 - (w @ s) ** 2)
        assert deviation / total == pytest.approx(sigma_rel, rel=1e-3)  # of sums for integrals


def test_weights_in_single_precision_are_those_of_the_closed_form():
    total = 300

    def step(averages, n):  # the parameters after update n are the n-th unit vector
        params = {"w": jnp.arange(total + 1) == n}
        return ema.updated(ALL, averages, params, n), None

    start = ema.initial(ALL, {"w": jnp.zeros(total + 1).at[0].set(1.0)})
    found, _ = jax.jit(lambda start: jax.lax.scan(step, start, jnp.arange(1, total + 1)))(start)
    for profile in ALL:
        each = found[profile.name]["w"]
        assert each.dtype == jnp.float32
        np.testing.assert_allclose(each, weights(profile, total), rtol=0, atol=1e-6)


@pytest.mark.parametrize("n", [1e4, 1e6])
def test_the_share_of_new_weights_is_exact_late_in_a_long_run_where_it_is_small(n):
    for profile in (HalfLife(1e5), Power(0.05)):
        (_, single), (_, double) = (profile.shares(np.asarray(n, dtype)) for dtype in (np.float32, np.float64))
        assert single.dtype == np.float32
        np.testing.assert_allclose(single, double, rtol=3e-7)


@pytest.mark.parametrize("profile", ALL)
def test_the_weights_of_an_average_add_up_to_one(profile):
    w = weights(profile, 500)
    assert w.min() >= 0
    assert w.sum() == pytest.approx(1, abs=1e-12)


def test_the_half_life_of_edm_is_that_of_its_images_one_update_later():
    """EDM's beta is 0.5^(B / max(min(H, r N), 1e-8)) with the N images seen before the update of B, so 0 at the first.

    A profile counts the update itself. In the ramp, of 10 million images, a rate is that of one update later.
    """
    half_life, ratio, batch = 500_000, 0.05, 512
    n = np.arange(1.0, 30_000.0)
    kept, new = HalfLife(half_life / batch, ratio).shares(n)
    theirs = 0.5 ** (batch / np.maximum(np.minimum(half_life, ratio * batch * n), 1e-8))  # at update n + 1
    np.testing.assert_allclose(kept, theirs, rtol=1e-12)
    np.testing.assert_allclose(new, 1 - theirs, rtol=1e-8)
    before = 0.5 ** (batch / np.maximum(np.minimum(half_life, ratio * batch * (n - 1)), 1e-8))
    assert before[0] == 0 and kept[0] == 2.0**-20
    assert np.abs(kept - before).max() < 0.04 and np.abs(kept - before)[19_532:].max() == 0


def test_a_half_life_halves_what_is_there_and_begins_as_a_part_of_the_run():
    w = weights(HalfLife(20, 0.1), 400)
    assert w[360] / w[380] == pytest.approx(0.5)
    kept, _ = HalfLife(20, 0.1).shares(np.array([50.0, 199.0, 200.0, 5000.0]))
    np.testing.assert_allclose(kept, 0.5 ** (1 / np.array([5.0, 19.9, 20.0, 20.0])), rtol=1e-14)
    images, batch = 500_000, 512  # of EDM: 0.5^(batch / min(half-life, 0.05 of the images seen))
    for n in (100, 40_000):
        kept, _ = HalfLife(images / batch).shares(np.asarray(float(n)))
        assert kept == pytest.approx(0.5 ** (batch / min(images, 0.05 * n * batch)), rel=1e-14)


def test_the_papers_averages_are_what_they_were_to_the_last_bit():
    rng = np.random.default_rng(0)
    before, params = (jnp.asarray(rng.normal(size=1000), jnp.float32) for _ in range(2))
    for profile in (Constant(0.999), Ramp(0.999)):
        rates = jax.jit(lambda n: jnp.minimum(jnp.float32(0.999), (1 + n).astype(jnp.float32) / (10 + n)))
        for n in (1, 37, 100_000):
            rate = rates(jnp.int32(n)) if isinstance(profile, Ramp) else 0.999
            expected = rate * before + (1 - rate) * params
            np.testing.assert_array_equal(ema.updated((profile,), before, params, jnp.int32(n)), expected)


def test_a_weight_that_stays_the_same_stays_the_same_in_karras_averages_however_long_the_run():
    profiles = (ema.Power(0.05), ema.HalfLife(2000.0))
    params = {"w": jnp.float32([0.1, 16.7, -3.3])}

    def step(averages, n):
        return ema.updated(profiles, averages, params, n), None

    averages, _ = jax.lax.scan(step, ema.initial(profiles, params), jnp.arange(1, 200_001))
    for profile in profiles:
        np.testing.assert_array_equal(ema.average(profiles, averages, profile)["w"], params["w"])


def test_a_profile_is_named_as_it_is_written_with_all_its_numbers():
    for text in ("constant:0.999", "ramp:0.9999", "half_life:2000,0.05", "half_life:2000,inf", "power:0.05"):
        assert ema.parse(text).name == text
    assert ema.parse("half_life:2000") == ema.parse("half_life:2e3,0.05")
    profiles = ema.profiles_of(("power:0.1", "half_life:2000"), 0.999, "ramp")
    assert ema.chosen(profiles) is ema.chosen(profiles, "power:0.10") is profiles[0]
    assert ema.chosen(profiles, "half_life:2000") is profiles[1]
    assert ema.profiles_of((), 0.999, "constant") == (Constant(0.999),)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["powr:0.1"], "did you mean 'power'?"),
        (["power"], "write power:SIGMA_REL"),
        (["power:"], "write power:SIGMA_REL"),
        (["power:0.3"], "in [0.0001, 0.2886]"),
        (["power:0.1,0.2"], "write power:SIGMA_REL"),
        (["constant:1"], "RATE in [0, 1)"),
        (["ramp:nan"], "RATE in [0, 1)"),
        (["half_life:0"], "both positive"),
        (["half_life:5,-1"], "both positive"),
        ([""], "Unknown profile"),
        ([3], "Unknown profile"),
        (["power:0.1", "power:0.10"], "power:0.1 twice"),
    ],
)
def test_a_profile_that_is_none_is_one_sentence(names, words):
    with pytest.raises(UsageError) as mistake:
        ema.profiles_of(names, 0.999, "ramp")
    assert words in str(mistake.value)
    assert str(mistake.value).count(". ") == 0


PRESET = "--config=configs/vp/digits_ddpmpp_continuous.py"
PROFILES = [f"--config.ema.profiles={name}" for name in ("power:0.05", "power:0.1")]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([*PROFILES, "--config.optim.ema_rate=0.99"], "optim.ema_rate has no effect, because ema.profiles=("),
        ([*PROFILES, "--config.optim.ema_schedule=ramp"], "optim.ema_schedule has no effect, because ema.profiles=("),
        ([*PROFILES, "--config.sampling.ema=power:0.2"], "no average 'power:0.2'; this run has power:0.05, power:0.1."),
        (["--config.sampling.ema=power:0.2"], "this run has ramp:0.995."),
    ],
)
def test_two_ways_to_say_one_thing_and_an_average_that_there_is_not_are_refused(flags, words, tmp_path, capsys):
    assert main(["score_sde", PRESET, f"--workdir={tmp_path / 'run'}", "--mode=train", *flags]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("two")


@pytest.fixture
def two(folder, one_block, compiled_once, tiny_config):
    """(workdir, config) of a run of two averages, trained for 3 updates the first time, each of which is kept."""
    config = tiny_config()
    config.ema.profiles = TWO
    config.training.update(n_iters=3, snapshot_freq_for_preemption=1, keep_last=3, snapshot_sampling=False)
    config.optim.update(lr=1e-2, warmup=0)
    if not (folder / "run").exists():
        train(config, folder / "run", {"ema.profiles": TWO})
    return folder / "run", config


def test_a_run_of_two_averages_stopped_and_gone_on_is_the_undisturbed_one_bit_for_bit(two, tmp_path):
    workdir, config = two
    again = shutil.copytree(workdir, tmp_path / "run")
    shutil.rmtree(again / "checkpoints" / "3")
    train(config, again)
    whole, resumed = (restore_state(Experiment(config), path / "checkpoints", 3) for path in (workdir, again))
    assert whole[1] == resumed[1]  # the digests
    jax.tree.map(np.testing.assert_array_equal, whole[0], resumed[0])
    assert whole[0].ema_params.keys() == {"power:0.1", "half_life:3,0.5"}


def test_each_average_of_a_run_weighs_the_parameters_after_each_update_by_its_profile(two):
    workdir, config = two
    experiment = Experiment(config)
    states = [restore_state(experiment, workdir / "checkpoints", step)[0] for step in (1, 2, 3)]
    for profile in experiment.profiles:
        first, *_, last = (ema.average(experiment.profiles, state.ema_params, profile) for state in states)
        initial, one, *later = weights(profile, 3)
        history = first, states[1].params, states[2].params
        expected = jax.tree.map(
            lambda *leaves, w=(initial + one, *later): np.tensordot(w, np.stack(leaves), 1), *history
        )
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), last, expected)
        if isinstance(profile, Power):
            jax.tree.map(np.testing.assert_array_equal, first, states[0].params)


def test_the_config_or_the_call_chooses_the_average_and_what_is_kept_tells_them_apart(two):
    workdir, config = two
    with pytest.raises(UsageError, match=r"no average 'ramp:0.9'; this run has power:0.1, half_life:3,0.5\."):
        score_sde.load(workdir, ema="ramp:0.9")
    config.ema.profiles = ()  # the command of the training need not be repeated
    config.sampling.ema = "half_life:3,0.5"
    config = _of_workdir(workdir, config, {"sampling.ema": "half_life:3,0.5"})
    models = score_sde.load(workdir), load(workdir, config=config), load(workdir, config=config, ema=False)
    assert [model.ema for model in models] == ["power:0.1", "half_life:3,0.5", False]
    names = []
    for model in models:
        identity = identities.of_model(model)
        assert identity["checkpoint"].pop("ema") == model.ema
        names.append(identities.name_of(model, identities.of_model(model) | identities.of_samples(model, 8)))
    assert [name.rpartition("_")[0] for name in names] == [
        "step_00000003_power_0.1_pc",
        "step_00000003_half_life_3_0.5_pc",
        "step_00000003_pc",
    ]


def test_a_run_goes_on_with_its_own_averages_only(two):
    workdir, config = two
    config.ema.profiles = TWO[:1]
    with pytest.raises(UsageError, match=r"was trained with ema\.profiles="):
        train(config, workdir)


def test_every_average_is_divided_among_the_devices_and_counted_in_the_memory(tiny_config, one_block, capsys):
    config = tiny_config()
    config.ema.profiles = TWO
    shapes = Experiment(config).state_shapes
    trees = {"power:0.1": shapes.params, "half_life:3,0.5": shapes.params}
    assert jax.tree.structure(shapes.ema_params) == jax.tree.structure(trees)
    assert jax.tree.structure(fully_sharded(shapes, 1)) == jax.tree.structure(shapes)
    describe(config)
    assert "Adam moments, 2 EMAs)" in capsys.readouterr().out
