"""The classifier of `ve/cifar10_wideresnet` under VP: it guides samples of `vp/cifar10_ddpmpp_continuous`."""

from score_sde.configs.presets import cifar10, compose, vp, wideresnet


def get_config():
    return compose(cifar10, wideresnet, vp)
