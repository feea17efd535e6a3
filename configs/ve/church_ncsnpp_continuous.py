"""NCSN++ cont. (VE) on LSUN churches, 256x256. The paper has samples only."""

from score_sde.configs.presets import compose, lsun, ncsnpp_256, ve


def get_config():
    return compose(lsun("church_outdoor"), ncsnpp_256, ve(380, 2000))
