"""Configs of transformers over pixels: `--config=experiments/autoregressive/config.py:digits`, or `:cifar10`."""

from ml_collections import ConfigDict
from score_sde.configs.presets import cifar10, compose, digits, network

from score_sde.errors import one_of

NETWORK = "score_sde.experiments.autoregressive.network:PixelTransformer"
SCHEDULE = {
    "data.uniform_dequantization": False,  # the model is of bytes
    "training.snapshot_sampling": False,
    "optim.beta2": 0.95,
    "optim.weight_decay": 0.1,
}
DIGITS = {  # minutes on two CPU cores
    "training.batch_size": 64,
    "training.n_iters": 1500,
    "training.snapshot_freq": 500,
    "training.snapshot_freq_for_preemption": 250,
    "training.log_freq": 25,
    "training.eval_freq": 100,
    "optim.lr": 2e-3,
    "optim.warmup": 100,
    "optim.ema_rate": 0.99,
    "sampling.num_samples": 250,
}
CIFAR10 = {  # 3,072 tokens an image: for accelerators
    "training.batch_size": 128,
    "training.n_iters": 200_000,
    "training.precision": "bfloat16",
    "training.remat": True,
    "optim.lr": 3e-4,
    "optim.ema_rate": 0.9999,
    "eval.batch_size": 128,
}
DATA = {
    "digits": (digits, dict(width=64, depth=3, num_heads=4, dropout=0.1), DIGITS),
    "cifar10": (cifar10, dict(width=512, depth=12, num_heads=8, dropout=0.1), CIFAR10),
}


def get_config(dataset: str = "digits") -> ConfigDict:
    data, arguments, schedule = DATA[one_of("data set", dataset, DATA)]
    config = compose(data, network(NETWORK, levels=256, num_classes=0, **arguments))
    config.update_from_flattened_dict(SCHEDULE | schedule)
    return config
