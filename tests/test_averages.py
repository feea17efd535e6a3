import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_sde.ema import Constant, HalfLife, Power, Ramp
from score_sde.oracles import Gaussian
from score_sde.process import from_score
from score_sde.randomness import expand, normal, sample_keys, stream
from score_sde.sde import VE, VP, SubVP
from score_sde.times import Uniform
from score_sde.training.averages import compared, complaint, noise_size
from score_sde.training.run import _check_schedule, train
from score_sde.training.state import adam, apply_gradients, initial_state

RUN = dict(profile=Constant(0.999), updates=3000)


def of(t, predicted, z):
    """What `Trainable.evaluation` gives."""
    axes = (1, 2, 3)
    return {
        "loss": np.mean((z - predicted) ** 2, axes),
        "t": t,
        "square": np.mean(predicted**2, axes),
        "along": np.mean(predicted * z, axes),
    }


@pytest.mark.parametrize("sde", [VP(), SubVP(), VE()])
@pytest.mark.parametrize("factor", [1.0, 0.94])
def test_the_noise_of_an_exact_score_has_the_size_1_and_a_part_of_it_that_part(sde, factor):
    data = Gaussian(np.full((4, 4, 1), 0.3), 0.25)
    keys = sample_keys(jax.random.key(0), jnp.arange(4000))
    t, z, x0 = Uniform().sample(sde, stream(keys, 1)), normal(stream(keys, 2), (4, 4, 1)), data.sample(stream(keys, 3))
    x = expand(sde.alpha(t), x0) * x0 + expand(sde.sigma(t), z) * z
    predicted = factor * from_score(sde, data.score_fn(sde))(x, t).eps
    found = of(np.asarray(t), np.asarray(predicted), np.asarray(z))
    assert abs(noise_size(found) - factor) < 0.002  # z left open by x_t, over 400 images of 16 numbers


def test_a_size_is_that_at_noisy_times_and_0_of_a_network_that_predicts_nothing():
    z = np.random.default_rng(0).normal(size=(4, 2, 2, 1))
    t = np.array([0.2, 0.95, 1.0, 0.89])
    factor = np.array([9.0, 0.5, 0.5, 9.0])[:, None, None, None]
    assert noise_size(of(t, factor * z, z)) == pytest.approx(0.5)
    assert noise_size(of(t, 0 * z, z)) == 0
    assert noise_size(of(t / 2, z, z)) is None


def both(raw, averaged, noise=0.03, n=512):
    """Figures of weights that predict these parts of z, with an error that both have."""
    rng = np.random.default_rng(1)
    t = rng.uniform(size=n)
    z, wrong = rng.normal(size=(2, n, 4, 4, 3))
    return compared([of(t, raw * z + noise * wrong, z)], [of(t, averaged * z + noise * wrong, z)])


def test_an_average_that_lags_is_worse_and_the_sentence_says_why():
    found = both(1.01, 0.94)
    assert found["averaged"]["noise_size"] < found["raw"]["noise_size"]
    text = complaint(found, **RUN)
    assert "5% initial weights" in text
    assert "ema_schedule=ramp" in text
    assert "loss is" in text
    ramped = complaint(found, **RUN | {"profile": Ramp(0.999)})
    assert "reaches back some 334 of the 3,000 updates" in ramped
    power, half = (complaint(found, **RUN | {"profile": profile}) for profile in (Power(0.05), HalfLife(50)))
    assert "power:0.05 reaches back some 167 of" in power  # T / (gamma + 1)
    assert "half_life:50,0.05 reaches back some 73 of" in half  # half-lives / log 2


def test_an_average_that_is_as_good_is_not_complained_of():
    assert complaint(both(1.0, 1.0), **RUN) is None
    assert complaint(both(0.9, 0.99), **RUN) is None
    assert complaint(both(1.0, 0.999, noise=3.0), **RUN) is None  # within three standard errors, and the size's bound


def test_weights_without_a_size_are_compared_by_their_loss():
    rng = np.random.default_rng(0)
    raw = [{"loss": rng.uniform(size=50)}, {"loss": rng.uniform(size=14)}]
    worse = [{"loss": part["loss"] + 0.1 + 0.01 * rng.normal(size=len(part["loss"]))} for part in raw]
    found = compared(raw, worse)
    assert "noise_size" not in found["raw"]
    assert found["difference"]["images"] == 64
    assert found["difference"]["mean"] == pytest.approx(0.1, abs=0.005)
    assert complaint(found, **RUN)
    assert complaint(compared(worse, raw), **RUN) is None


def test_a_ramp_follows_the_weights_of_a_short_run_and_becomes_the_constant_rate():
    params, optimizer = (
        {"w": jnp.array([1.0])},
        adam(lr=1.0, beta1=0.0, eps=1e-8, weight_decay=0.0, warmup=0, grad_clip=-1.0, trainable={"w": True}),
    )
    state, ema, w = initial_state(params, optimizer), 1.0, 1.0
    for n in range(1, 6):
        state, _ = apply_gradients(state, jnp.float32(0), {"w": jnp.array([1.0])}, optimizer, (Ramp(0.5),))
        w, part = float(state.params["w"][0]), min(0.5, (1 + n) / (10 + n))
        ema = part * ema + (1 - part) * w
        np.testing.assert_allclose(state.ema_params["w"][0], ema, rtol=1e-6)
    kept, _ = Ramp(0.9999).shares(jnp.float32([80_000, 100_000]))
    assert kept[0] < np.float32(0.9999) == kept[1]


@pytest.mark.usefixtures("one_block")
def test_a_training_that_leaves_its_average_behind_says_so_at_the_end_and_one_with_too_long_a_warm_up_at_once(
    tiny_config, tmp_path, capsys
):
    config = tiny_config()
    config.training.update(n_iters=30, eval_freq=50, snapshot_freq=50, snapshot_freq_for_preemption=50, log_freq=50)
    config.optim.update(lr=3e-2, warmup=1, ema_schedule="constant", ema_rate=0.99)
    train(config, tmp_path / "constant")
    told = capsys.readouterr().err
    assert "74% initial weights" in told
    assert "warmup" not in told
    kept = json.loads((tmp_path / "constant" / "weights.json").read_text())
    assert kept["step"] == 30 and kept["averaged"]["loss"] > kept["raw"]["loss"]
    assert kept["averaged"]["noise_size"] < kept["raw"]["noise_size"]

    config.optim.warmup = 30
    _check_schedule(config)
    assert "optim.warmup=30 is no shorter than the run of 30 updates" in capsys.readouterr().err
