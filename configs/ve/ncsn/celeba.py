"""NCSN on CelebA, 64x64. The paper has no figure."""

from score_sde.configs.presets import annealed_langevin, celeba, compose, discrete, ema, ncsn, ve


def get_config():
    return compose(celeba, ncsn, ve(1, 10, scale_by_sigma=False), discrete, annealed_langevin(0.316, 100), ema(0.0))
