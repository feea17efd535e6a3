"""EDM2-M on ImageNet at 64x64, as published but in bfloat16; the images are your own files, at config.data.path."""

from score_sde.configs.edm2_presets import compose, imagenet64


def get_config():
    return compose(imagenet64("m"))
