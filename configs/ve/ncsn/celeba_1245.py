"""NCSN on CelebA, 64x64 with techniques 1, 2, 4 and 5 of NCSNv2. The paper has no figure."""

from score_sde.configs.presets import annealed_langevin, celeba, compose, discrete, ncsn, ve


def get_config():
    return compose(celeba, ncsn, ve(90, 500, scale_by_sigma=False), discrete, annealed_langevin(0.128, 5))
