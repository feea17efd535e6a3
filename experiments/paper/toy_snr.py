"""The r of Langevin steps at toy scale, which the paper chose by a grid too (Table 5): `toy.SNR` has the best.

python -m experiments.sweep experiments/paper/toy_snr.py --folder=runs/paper-toy --slots=2
"""

from experiments.paper.tables import NETWORKS, PREDICTORS, SAMPLES
from experiments.sweep import Sweep, grid, zipped
from experiments.sweep.space import Space

networks = zipped({"config": tuple(f"experiments/paper/toy.py:{config}" for config in NETWORKS.values())})
corrected = Space(tuple(point | {"sampling.n_steps_each": 1} for point in PREDICTORS.values()))
alone = grid({"sampling.predictor": ("none",), "sampling.n_steps_each": (2,)})
sizes = grid({"sampling.snr": (0.05, 0.1, 0.16, 0.22, 0.3, 0.4)})

sweep = Sweep(
    space=networks * (corrected + alone) * sizes,
    common=SAMPLES | {"sampling.corrector": "langevin", "eval.num_samples": 512, "eval.begin_ckpt": -1},
)
