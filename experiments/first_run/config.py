"""CIFAR-10 at 16x16 with a network of 32 channels: what a first run of twenty minutes on two CPU cores gives."""

from ml_collections import ConfigDict
from score_sde.configs.ve.cifar10_ncsnpp_continuous import get_config as ncsnpp
from score_sde.configs.vp.cifar10_ddpmpp_continuous import get_config as ddpmpp

RUN = {
    "data.image_size": 16,
    "model.nf": 32,
    "model.ch_mult": (1, 2, 2),
    "model.num_res_blocks": 2,
    "model.attn_resolutions": (8,),
    "training.batch_size": 64,
    "training.n_iters": 3000,
    "training.snapshot_freq": 1000,
    "training.snapshot_freq_for_preemption": 500,
    "training.snapshot_sampling": False,
    "optim.lr": 1e-3,
    "optim.warmup": 300,
    "optim.ema_rate": 0.999,
    "eval.begin_ckpt": -1,
    "sampling.method": "dpmpp_2m_sde",
    "sampling.num_steps": 40,
}


CONFIGS = {"vp": ddpmpp, "ve": ncsnpp}


def get_config(sde: str = "vp") -> ConfigDict:
    config = CONFIGS[sde]()
    config.update_from_flattened_dict(RUN)
    return config
