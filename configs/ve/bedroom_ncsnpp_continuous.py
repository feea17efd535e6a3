"""NCSN++ cont. (VE) on LSUN bedrooms, 256x256. The paper has samples only."""

from score_sde.configs.presets import compose, lsun, ncsnpp_256, ve


def get_config():
    return compose(lsun("bedroom"), ncsnpp_256, ve(378, 2000))
