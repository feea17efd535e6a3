"""NCSN on CIFAR-10 with techniques 1, 2 and 4 of NCSNv2: noise levels and steps. The paper has no figure."""

from score_sde.configs.presets import annealed_langevin, cifar10, compose, discrete, ema, ncsn, ve


def get_config():
    return compose(cifar10, ncsn, ve(50, 232, scale_by_sigma=False), discrete, annealed_langevin(0.176, 5), ema(0.0))
