"""A small network that two CPU cores train in 25 minutes: `--config=experiments/half_hour/config.py:cifar10_edm`."""

from ml_collections import ConfigDict
from score_sde.configs.presets import cifar10, compose, ddpmpp, edm, flow, vp

from score_sde.errors import one_of

RUN = {
    "model.nf": 32,
    "model.ch_mult": (1, 2, 2),
    "model.num_res_blocks": 1,
    "model.attn_resolutions": (8,),
    "model.dropout": 0.0,
    "data.uniform_dequantization": True,
    "training.batch_size": 32,
    "training.n_iters": 4500,
    "training.snapshot_freq": 4500,
    "training.snapshot_freq_for_preemption": 250,
    "training.snapshot_sampling": False,
    "optim.lr": 1e-3,
    "optim.warmup": 300,
    "optim.ema_rate": 0.999,
    "eval.begin_ckpt": -1,
    "eval.enable_loss": False,
    "eval.batch_size": 250,
    "eval.num_samples": 1000,
    "eval.bpd_num_repeats": 1,
    "eval.rtol": 1e-3,
    "eval.atol": 1e-3,
    "metrics.features": "trained",
}
FASHION_MNIST = {
    "data.dataset": "fashion_mnist",
    "data.image_size": 28,
    "data.num_channels": 1,
    "data.random_flip": False,
    "training.n_iters": 6000,
    "training.snapshot_freq": 6000,
    "model.attn_resolutions": (7,),
}
MEASURED = {"data.sigma_images": 60_000}  # sigma_data is that of the training images
DATA = {"fashion_mnist": FASHION_MNIST, "cifar10": {}}
RECIPES = {"vp": vp, "edm": edm, "flow": flow}
OF_RECIPE = {"edm": MEASURED}
CELLS = tuple(f"{data}_{recipe}" for data in DATA for recipe in RECIPES)


def get_config(name: str) -> ConfigDict:
    data, recipe = one_of("cell", name, CELLS).rsplit("_", 1)
    config = compose(cifar10, ddpmpp, RECIPES[recipe])
    config.update_from_flattened_dict(RUN | DATA[data] | OF_RECIPE.get(recipe, {}))
    return config
