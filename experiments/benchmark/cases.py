"""The networks that are timed: tiny for a rehearsal, small for CPUs, those of CIFAR-10 at full size, and 256x256."""

from typing import NamedTuple

from ml_collections import ConfigDict
from score_sde.configs.ve import celebahq_256_ncsnpp_continuous, cifar10_ncsnpp_continuous, digits_ncsnpp_continuous
from score_sde.configs.vp import cifar10_ddpmpp_continuous, digits_ddpmpp_continuous
from score_sde.configs.vp.ddpm import cifar10_continuous


class Case(NamedTuple):
    config: ConfigDict
    batch: int  # on a CPU
    large_batch: int  # on an accelerator


def cases() -> dict[str, Case]:
    """The cases by name."""
    return {
        TINY: Case(_tiny(), 16, 16),
        "DDPM++ 8x8": Case(_small(digits_ddpmpp_continuous, 8, (1, 2), 1, 4), 128, 4096),
        "NCSN++ 8x8": Case(_small(digits_ncsnpp_continuous, 8, (1, 2), 1, 4), 128, 4096),
        "DDPM++ 8x8, 4 images": Case(_small(digits_ddpmpp_continuous, 8, (1, 2), 1, 4), 4, 4),
        "NCSN++ 8x8, 4 images": Case(_small(digits_ncsnpp_continuous, 8, (1, 2), 1, 4), 4, 4),
        "DDPM++ 16x16": Case(_small(cifar10_ddpmpp_continuous, 16, (1, 2, 2), 2, 8), 64, 1024),
        "NCSN++ 16x16": Case(_small(cifar10_ncsnpp_continuous, 16, (1, 2, 2), 2, 8), 64, 1024),
        "DDPM++ CIFAR-10": Case(cifar10_ddpmpp_continuous.get_config(), 4, 128),
        "NCSN++ CIFAR-10": Case(cifar10_ncsnpp_continuous.get_config(), 4, 128),
        "DDPM CIFAR-10": Case(cifar10_continuous.get_config(), 4, 128),
        "NCSN++ 256x256": Case(celebahq_256_ncsnpp_continuous.get_config(), 1, 8),
    }


TINY = "DDPM++ 8x8, tiny"
SMALL = ("DDPM++ 8x8", "NCSN++ 8x8", "DDPM++ 8x8, 4 images", "NCSN++ 8x8, 4 images", "DDPM++ 16x16", "NCSN++ 16x16")
LARGE = ("DDPM++ CIFAR-10", "NCSN++ CIFAR-10", "DDPM CIFAR-10", "NCSN++ 256x256")


def _tiny() -> ConfigDict:
    """The digits' network with 8 channels at one resolution, which compiles in seconds."""
    config = _small(digits_ddpmpp_continuous, 8, (1,), 1, 4)
    config.model.nf = 8
    config.training.batch_size = 16
    return config


def _small(module, size: int, ch_mult: tuple[int, ...], num_res_blocks: int, attention: int) -> ConfigDict:
    """A config's network with 32 channels, for images of another size, with dropout as at full size."""
    config = module.get_config()
    config.data.image_size = size
    config.model.update(
        nf=32, ch_mult=ch_mult, num_res_blocks=num_res_blocks, attn_resolutions=(attention,), dropout=0.1
    )
    return config
