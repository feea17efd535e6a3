"""DDPM++ cont. (VP) with 32 channels on a folder of your own images at 16x16: a first look on two CPU cores."""

from score_sde.configs.presets import compose, ddpmpp, first_look, own_images, vp


def get_config():
    return compose(ddpmpp, vp, own_images, first_look)
