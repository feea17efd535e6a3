import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_sde.errors import UsageError
from score_sde.likelihood.bound import likelihood_bound
from score_sde.oracles import Gaussian
from score_sde.process import Prediction
from score_sde.randomness import sample_keys
from score_sde.sde import EDM, VE, VP, SubVP

SHAPE = (4, 2, 2)
SDES = pytest.mark.parametrize("sde", [VP(), SubVP(), VE(), EDM()], ids=["vp", "subvp", "ve", "edm"])
KEYS = sample_keys(jax.random.key(0), jnp.arange(4000))
DATA = Gaussian(
    np.random.default_rng(0).normal(size=SHAPE), 0.3 * np.exp(0.5 * np.random.default_rng(1).normal(size=SHAPE))
)
X = np.asarray(jax.jit(DATA.sample)(sample_keys(jax.random.key(1), jnp.arange(1))))


def estimates(sde, model, **options):
    """Bits/dim of one image, once for each key, in float64."""
    bound = jax.jit(likelihood_bound(sde, model, **options))
    return np.asarray(bound(KEYS, np.tile(X, (len(KEYS), 1, 1, 1))), np.float64)


def exact() -> float:
    """-log2 of the data's density / D."""
    energy = np.square(np.asarray(X, np.float64)[0] - DATA.mean).ravel() / DATA.variances
    return float(0.5 * np.mean(energy + np.log(2 * np.pi * DATA.variances)) / np.log(2))


@SDES
def test_the_exact_score_makes_the_bound_an_equality(sde):
    bits = estimates(sde, DATA.model(sde), num_times=8)
    error = bits.std() / np.sqrt(len(bits))
    assert error < 0.03
    # The decoder's variance is the kernel's at eps, where the posterior has 1e-3 of it less: far below an error.
    assert abs(bits.mean() - exact()) < 4 * error


@SDES
def test_a_wrong_score_lies_above(sde):
    right = DATA.model(sde)
    for wrong in (
        lambda x, t: Prediction(x, 1.3 * right(x, t).eps),
        lambda x, t: right(x - 0.3, t),
        lambda x, t: Prediction(x, 0 * x),
    ):
        bits = estimates(sde, wrong, num_times=8)
        assert bits.mean() > exact() + 4 * bits.std() / np.sqrt(len(bits))


def test_one_time_for_each_slice_spreads_less_than_as_many_passes():
    one, eight = (estimates(VP(), DATA.model(VP()), num_times=n).std() for n in (1, 8))
    assert eight < one / 8  # independent times would give one / sqrt(8)


def test_an_images_bound_depends_on_its_own_key_only():
    bound = jax.jit(likelihood_bound(VP(), DATA.model(VP()), num_times=2))
    x = np.concatenate([X, 3 * X])
    np.testing.assert_allclose(np.asarray(bound(KEYS[:2], x))[1:], bound(KEYS[1:2], x[1:]), rtol=1e-5)


@pytest.mark.parametrize(("options", "words"), [({"num_times": 0}, "num_times must"), ({"eps": 1.0}, "eps must")])
def test_no_times_and_no_integral_are_refused(options, words):
    with pytest.raises(UsageError, match=words):
        likelihood_bound(VP(), DATA.model(VP()), **options)
