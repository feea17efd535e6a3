"""NCSN on CelebA, 64x64 with technique 5 of NCSNv2, the moving average. The paper has no figure."""

from score_sde.configs.presets import annealed_langevin, celeba, compose, discrete, ncsn, ve


def get_config():
    return compose(celeba, ncsn, ve(1, 10, scale_by_sigma=False), discrete, annealed_langevin(0.316, 100))
