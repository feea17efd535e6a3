"""NCSNv2 on CIFAR-10. Paper, Table 3: FID 10.87, IS 8.40."""

from score_sde.configs.presets import annealed_langevin, cifar10, compose, discrete, ncsnv2, ve


def get_config():
    return compose(cifar10, ncsnv2(64), ve(50, 232), discrete, annealed_langevin(0.176, 5))
