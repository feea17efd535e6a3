"""DDPM++ cont. (VP) of half the width on a folder of your own images: config.data.path, and data.image_size."""

from score_sde.configs.presets import compose, ddpmpp, medium, own_images, vp


def get_config():
    return compose(ddpmpp, vp, own_images, medium)
