"""NCSNv2 on CelebA, 64x64. The paper has no figure."""

from score_sde.configs.presets import annealed_langevin, celeba, compose, discrete, ncsnv2, ve


def get_config():
    return compose(celeba, ncsnv2(64), ve(90, 500), discrete, annealed_langevin(0.128, 5))
