"""DiT-S/2 by rectified flow: the network and optimizer of Peebles and Xie (2022), who have no recipe for CIFAR-10."""

from score_sde.configs.presets import cifar10, compose, flow
from score_sde.configs.transformer_presets import dit, dit_training


def get_config():
    return compose(cifar10, dit("s", 2), flow, dit_training)
