"""U-ViT-S/2 (VP): FID 3.11 (Bao et al., 2022)."""

from score_sde.configs.presets import cifar10, compose, vp
from score_sde.configs.transformer_presets import uvit, uvit_cifar10


def get_config():
    return compose(cifar10, uvit("s", 2), vp, uvit_cifar10)
