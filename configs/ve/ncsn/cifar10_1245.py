"""NCSN on CIFAR-10 with techniques 1, 2, 4 and 5 of NCSNv2. The paper has no figure."""

from score_sde.configs.presets import annealed_langevin, cifar10, compose, discrete, ncsn, ve


def get_config():
    return compose(cifar10, ncsn, ve(50, 232, scale_by_sigma=False), discrete, annealed_langevin(0.176, 5))
