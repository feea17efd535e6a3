"""NCSN on CelebA, 64x64 with techniques 1, 2 and 4 of NCSNv2: noise levels and steps. The paper has no figure."""

from score_sde.configs.presets import annealed_langevin, celeba, compose, discrete, ema, ncsn, ve


def get_config():
    return compose(celeba, ncsn, ve(90, 500, scale_by_sigma=False), discrete, annealed_langevin(0.128, 5), ema(0.0))
