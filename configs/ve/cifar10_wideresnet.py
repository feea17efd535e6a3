"""The classifier that guides samples of `ve/cifar10_ncsnpp_continuous` to a class. Paper, appendix I."""

from score_sde.configs.presets import cifar10, compose, ve, wideresnet


def get_config():
    return compose(cifar10, wideresnet, ve(50, scale_by_sigma=False))
