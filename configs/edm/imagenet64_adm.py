"""ADM's U-Net by EDM's training on ImageNet at 64x64: FID 1.36 at 511 evaluations in the paper. Not run."""

from score_sde.configs.edm_presets import adm, compose, imagenet, images64


def get_config():
    return compose(adm, images64, imagenet)
