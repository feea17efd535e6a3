"""The r of Langevin steps at toy scale, chosen by a grid as the paper's is (Table 5): `toy.SNR` has the best.

python -m experiments.sweep experiments/paper/toy_snr.py --folder=runs/paper-toy --slots=2
"""

from score_sde.experiments.paper.tables import NETWORKS, PREDICTORS, SAMPLES
from score_sde.experiments.sweep import Sweep, grid
from score_sde.experiments.sweep.space import Space

networks = grid({"config": [f"experiments/paper/toy.py:{config}" for config in NETWORKS.values()]})
corrected = Space(tuple(PREDICTORS.values()))
alone = grid({"sampling.predictor": ("none",), "sampling.n_steps_each": (2,)})

sweep = Sweep(
    space=networks * (corrected + alone) * grid({"sampling.snr": (0.1, 0.2, 0.3, 0.45, 0.6)}),
    common=SAMPLES | {"sampling.corrector": "langevin", "eval.num_samples": 512, "eval.begin_ckpt": -1},
)
