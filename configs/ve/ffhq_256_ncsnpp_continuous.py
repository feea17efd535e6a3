"""NCSN++ cont. (VE) on FFHQ, 256x256. The paper has samples only."""

from score_sde.configs.presets import compose, ffhq_256, ncsnpp_256, ve


def get_config():
    return compose(ffhq_256, ncsnpp_256, ve(348, 2000))
