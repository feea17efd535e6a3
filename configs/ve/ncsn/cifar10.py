"""NCSN on CIFAR-10. Paper, Table 3: FID 25.32, IS 8.87."""

from score_sde.configs.presets import annealed_langevin, cifar10, compose, discrete, ema, ncsn, ve


def get_config():
    return compose(cifar10, ncsn, ve(1, 10, scale_by_sigma=False), discrete, annealed_langevin(0.316, 100), ema(0.0))
