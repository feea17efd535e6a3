"""ADM's U-Net on CIFAR-10 by the recipe of flow_matching's example (Lipman et al., 2024), with EDM's times."""

from score_sde.configs.flow_presets import adm, flow_matching, heun, skewed_times
from score_sde.configs.presets import cifar10, compose, flow


def get_config():
    return compose(cifar10, adm, flow, skewed_times, flow_matching, heun)
