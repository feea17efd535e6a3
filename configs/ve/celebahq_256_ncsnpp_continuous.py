"""NCSN++ cont. (VE) on CelebA-HQ, 256x256. The paper has samples only."""

from score_sde.configs.presets import celebahq_256, compose, ncsnpp_256, ve


def get_config():
    return compose(celebahq_256, ncsnpp_256, ve(348, 2000))
