"""A config of the paper, shrunk to 8x8 digits: `--config=experiments/paper/toy.py:vp/cifar10_ddpmpp_continuous`.

SDE, training objective, network and sampler stay what they are; data, size of the network, and number of noise levels
and of updates become those of minutes on two CPU cores.
"""

import importlib

from score_sde.configs.presets import digits

NUM_SCALES = 50  # N
UPDATES = 1500
# r of Langevin steps after ancestral sampling, reverse diffusion, probability flow, and alone: the best of toy_snr.py.
SNR = {"VE": (0.3, 0.3, 0.3, 0.6), "VP": (0.3, 0.45, 0.6, 0.6)}
SIGMA_MAX = 5.0  # the two most distant digits are 4.8 apart


def get_config(name: str):
    config = importlib.import_module("score_sde.configs." + name.replace("/", ".")).get_config()
    digits(config)
    config.model.update(nf=32, attn_resolutions=(4,), dropout=0.0)
    deep = config.model.num_res_blocks == 8
    config.model.update(ch_mult=(1, 1), num_res_blocks=2 if deep else 1)
    config.sde.num_scales = NUM_SCALES
    if config.sde.name == "vesde":
        config.sde.sigma_max = SIGMA_MAX
    config.training.update(n_iters=UPDATES, snapshot_freq=UPDATES)
    config.eval.update(batch_size=512, num_samples=1024, enable_bpd=False, enable_loss=False)
    return config
