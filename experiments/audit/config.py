"""The two models that are audited side by side: `--config=experiments/audit/config.py:digits_50`.

`digits_50` is trained on 50 images for as many updates as `digits_all` on all 1,498, so that it sees each 30 times as
often and learns them by heart. Both draw by an ODE's solver in 25 steps.
"""

from ml_collections import ConfigDict
from score_sde.configs.vp.digits_ddpmpp_continuous import get_config as digits

from score_sde.errors import one_of

SCHEDULE = {
    "training.n_iters": 3000,
    "training.snapshot_freq": 3000,
    "training.snapshot_freq_for_preemption": 250,
    "optim.lr": 3e-3,
    "optim.ema_rate": 0.99,
    "sampling.method": "dpmpp_2m",
    "sampling.num_steps": 25,
}
MODELS = {"digits_50": {"data.train_images": 50}, "digits_all": {}}


def get_config(name: str) -> ConfigDict:
    config = digits()
    config.update_from_flattened_dict(SCHEDULE | MODELS[one_of("model", name, MODELS)])
    return config
