"""Our DDPM++ on CIFAR-10 by flow matching with optimal coupling, at uniform times (Tong et al., 2023)."""

from score_sde.configs.flow_presets import flow_matching, optimal, uniform_times
from score_sde.configs.presets import cifar10, compose, ddpmpp, flow


def get_config():
    return compose(cifar10, ddpmpp, flow, uniform_times, flow_matching, optimal(128))
