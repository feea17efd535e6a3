"""The adaptive reverse SDE with the exact score of a Gaussian."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from optimised import solve

from score_sde.errors import UsageError
from score_sde.oracles import Gaussian
from score_sde.randomness import Stream, sample_keys, stream
from score_sde.sampling import adaptive
from score_sde.sde import EDM, VE, VP, SubVP

SHAPE = (2, 2, 1)
DATA = Gaussian(np.full(SHAPE, 0.3), 0.25)
KEYS = sample_keys(jax.random.key(0), jnp.arange(1024))


def start(sde, keys=KEYS):
    return sde.prior_sample(stream(keys, Stream.PRIOR), SHAPE)


@pytest.mark.parametrize("sde", [VP(), SubVP(), VE(), EDM()], ids=["vp", "subvp", "ve", "edm"])
def test_samples_have_the_moments_of_the_data_with_few_evaluations(sde):
    x, nfe = solve(adaptive(sde, DATA.model(sde), atol=1 / 256, noise_removal=False), KEYS, start(sde))
    t = np.array(sde.sampling_eps)
    mean, variance = sde.alpha(t) * 0.3, 0.25 * sde.alpha(t) ** 2 + sde.sigma(t) ** 2
    assert abs(np.mean(x) - mean) < 4 * np.sqrt(variance / x.size)
    assert abs(np.var(x) / variance - 1) < 4 * np.sqrt(2 / x.size)
    assert 100 < nfe.mean() < 700
    assert len(np.unique(nfe)) > 5  # every sample has its own steps


def test_denoising_returns_the_posterior_mean():
    sde = VP()
    plain, nfe = solve(adaptive(sde, DATA.model(sde), noise_removal=False), KEYS[:4], start(sde, KEYS[:4]))
    denoised, nfe_denoised = solve(adaptive(sde, DATA.model(sde)), KEYS[:4], start(sde, KEYS[:4]))
    expected = DATA.posterior_mean(sde, plain, jnp.full(4, sde.sampling_eps))
    np.testing.assert_allclose(denoised, expected, atol=1e-5)
    np.testing.assert_array_equal(nfe_denoised, nfe + 1)


def test_tighter_tolerances_refine_the_same_sample():
    """The noise is one path whatever the steps, so that samples converge and not only their distribution."""
    sde = VP()
    samples = [
        solve(adaptive(sde, DATA.model(sde), rtol=rtol, atol=rtol / 2), KEYS[:64], start(sde, KEYS[:64]))[0]
        for rtol in (0.1, 0.02, 0.004)
    ]
    coarse, fine = (np.sqrt(np.mean(np.square(x - samples[2]))) for x in samples[:2])
    assert fine < 0.5 * coarse
    assert coarse < 0.3 * np.std(samples[2])


def test_a_sample_does_not_notice_the_others():
    sde = VE()
    sampler = adaptive(sde, DATA.model(sde))
    x_T = start(sde, KEYS[:8])
    whole, nfe = solve(sampler, KEYS[:8], x_T)
    wild, wild_nfe = solve(sampler, KEYS[:8], x_T.at[0].mul(20.0))
    np.testing.assert_array_equal(whole[1:], wild[1:])
    np.testing.assert_array_equal(nfe[1:], wild_nfe[1:])


def test_a_sample_that_fails_is_nan_and_leaves_the_others_alone():
    sde = VP()
    x_T = start(sde, KEYS[:4]).at[0].set(jnp.nan)
    x, _ = solve(adaptive(sde, DATA.model(sde)), KEYS[:4], x_T)
    assert np.all(np.isnan(x[0]))
    assert np.all(np.isfinite(x[1:]))


@pytest.mark.parametrize("options", [dict(rtol=0.0), dict(atol=-1.0)])
def test_tolerances_must_be_positive(options):
    with pytest.raises(UsageError, match=r"[ra]tol must be a number above 0"):
        adaptive(VP(), DATA.model(VP()), **options)
    with pytest.raises(UsageError, match="eps"):
        adaptive(VP(), DATA.model(VP()), eps=0.0)
