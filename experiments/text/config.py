"""A small network that learns captions on two CPU cores: `--config=experiments/text/config.py:scenes`.

| name           | pictures                    | captions                  | training on 2 idle cores |
|----------------|-----------------------------|---------------------------|--------------------------|
| `scenes`       | 16x16, one drawn object     | its attributes, or a part | about 25 minutes         |
| `scenes_three` | 24x24, one to three objects | the same, and relations   | about 2 hours            |
| `openmoji`     | 24x24, emoji                | their English names       | about 2 hours            |
"""

from typing import Any

from ml_collections import ConfigDict
from score_sde.configs.presets import compose, ddpmpp, vp

from score_sde.errors import one_of

RUN = {
    "data.num_channels": 3,
    "data.random_flip": False,  # captions say left and right
    "data.uniform_dequantization": True,
    "model.nf": 32,
    "model.ch_mult": (1, 2, 2),
    "model.num_res_blocks": 1,
    "model.dropout": 0.0,
    "text.tokenizer": "words",
    "training.batch_size": 64,
    "training.label_dropout": 0.1,
    "training.snapshot_freq_for_preemption": 250,
    "training.snapshot_sampling": False,
    "training.log_freq": 50,
    "training.eval_freq": 250,
    "optim.warmup": 200,
    "optim.lr": 1e-3,
    "optim.ema_rate": 0.998,
    "eval.batch_size": 128,
    "eval.bound_num_times": 8,
    "eval.rtol": 1e-3,
    "eval.atol": 1e-3,
}
# training.snapshot_freq: a sixth of the updates, so that there is a learning curve. data.scene_objects: at most.
SETS: dict[str, dict[str, Any]] = {
    "scenes": {
        "data.dataset": "scenes",
        "data.image_size": 16,
        "data.scene_objects": 1,
        "text.max_tokens": 24,
        "text.vocab_size": 512,
        "training.n_iters": 2400,
        "training.snapshot_freq": 400,
    },
    "scenes_three": {
        "data.dataset": "scenes",
        "data.image_size": 24,
        "data.scene_objects": 3,
        "text.max_tokens": 64,
        "text.vocab_size": 512,
        "training.n_iters": 4800,
        "training.snapshot_freq": 800,
    },
    "openmoji": {
        "data.dataset": "openmoji",
        "data.image_size": 24,
        "text.max_tokens": 32,
        "text.vocab_size": 2048,
        "training.n_iters": 4800,
        "training.snapshot_freq": 800,
    },
}
ENCODER = {"name": "text", "features": 128, "depth": 2, "num_heads": 4}
ATTENTION = {16: (8, 4), 24: (12, 6)}  # heights at which the U-Net attends, to itself and to the caption


def get_config(name: str) -> ConfigDict:
    values = RUN | SETS[one_of("set", name, SETS)]
    config = compose(ddpmpp, vp)
    with config.unlocked():
        config.encoder = ENCODER
        config.model.cross_resolutions = ()
    config.update_from_flattened_dict(values)
    at = ATTENTION[config.data.image_size]
    config.model.update(attn_resolutions=at, cross_resolutions=at)
    return config
