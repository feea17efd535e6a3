"""The classifier of `ve/cifar10_wideresnet` under sub-VP: it guides samples of `subvp/cifar10_ddpmpp_continuous`."""

from score_sde.configs.presets import cifar10, compose, subvp, wideresnet


def get_config():
    return compose(cifar10, wideresnet, subvp)
