"""The r of Langevin steps at toy scale under VP, chosen by a grid as the paper's is (Table 5): `toy.SNR` has the best.

The paper's r = 0.01 is for the small errors of 1000 steps; under VE its own values are kept.

python -m experiments.sweep experiments/paper/toy_snr.py --folder=runs/paper-toy --slots=2
"""

from experiments.paper.tables import NETWORKS, PREDICTORS, SAMPLES
from experiments.sweep import Sweep, grid
from experiments.sweep.space import Space

corrected = Space(tuple(PREDICTORS.values()))
alone = grid({"sampling.predictor": ("none",), "sampling.n_steps_each": (2,)})

sweep = Sweep(
    config=f"experiments/paper/toy.py:{NETWORKS['VP']}",
    space=(corrected + alone) * grid({"sampling.snr": (0.05, 0.1, 0.2, 0.3)}),
    common=SAMPLES | {"sampling.corrector": "langevin", "eval.num_samples": 512, "eval.begin_ckpt": -1},
)
