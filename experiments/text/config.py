"""A small network that learns captions on two CPU cores: `--config=experiments/text/config.py:scenes`.

| name           | pictures                    | captions                  | training on 2 idle cores |
|----------------|-----------------------------|---------------------------|--------------------------|
| `scenes`       | 16x16, one drawn object     | its attributes, or a part | about 25 minutes         |
| `scenes_three` | 16x16, one to three objects | the same, and relations   | about 40 minutes         |
| `openmoji`     | 24x24, emoji                | their English names       | about 75 minutes         |

After "-" a name may have another network than the U-Net: `scenes-uvit`.
"""

from typing import Any

from ml_collections import ConfigDict
from score_sde.configs.presets import compose, flow
from score_sde.configs.scenes_presets import in_words, scenes_unet, scenes_uvit

from score_sde.errors import one_of

# Besides the values of `in_words`.
RUN = {
    "data.num_channels": 3,
    "data.uniform_dequantization": True,
    "training.snapshot_freq_for_preemption": 250,
    "optim.warmup": 200,
    "optim.ema_rate": 0.998,
    "eval.batch_size": 128,
    "eval.bound_num_times": 16,
    "eval.rtol": 1e-3,
    "eval.atol": 1e-3,
}
# data.scene_objects: at most. training.snapshot_freq: a sixth of the updates, so that there is a learning curve.
SETS: dict[str, dict[str, Any]] = {
    "scenes": {
        "data.dataset": "scenes",
        "data.image_size": 16,
        "data.scene_objects": 1,
        "text.max_tokens": 24,
        "text.vocab_size": 512,
        "training.n_iters": 3600,
        "training.snapshot_freq": 600,
    },
    "scenes_three": {
        "data.dataset": "scenes",
        "data.image_size": 16,
        "data.scene_objects": 3,
        "text.max_tokens": 48,
        "text.vocab_size": 512,
        "training.n_iters": 5400,
        "training.snapshot_freq": 900,
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
ATTENTION = {16: (8, 4), 24: (12, 6)}  # heights at which the U-Net attends, to itself and to the caption


NETWORKS = {"unet": scenes_unet, "uvit": scenes_uvit}


def get_config(name: str) -> ConfigDict:
    of_set, _, network = name.partition("-")
    config = compose(in_words, NETWORKS[one_of("network", network or "unet", NETWORKS)], flow)
    config.update_from_flattened_dict(RUN | SETS[one_of("set", of_set, SETS)])
    if "attn_resolutions" in config.model:
        at = ATTENTION[config.data.image_size]
        config.model.update(attn_resolutions=at, cross_resolutions=at)
    return config
