"""Our DDPM++ on CIFAR-10 by the recipe of flow_matching's example, which has ADM's U-Net: see cifar10_adm_velocity."""

from score_sde.configs.flow_presets import flow_matching, heun, skewed_times
from score_sde.configs.presets import cifar10, compose, ddpmpp, flow


def get_config():
    return compose(cifar10, ddpmpp, flow, skewed_times, flow_matching, heun)
