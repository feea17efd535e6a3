"""A sweep of learning rates and forms of the loss for the digits: 12 runs of seconds, 3 x 2 points, 2 seeds."""

from score_sde.experiments.sweep import Sweep, grid

sweep = Sweep(
    config="configs/vp/digits_ddpmpp_continuous.py",
    space=grid({"optim.lr": (3e-4, 1e-3, 3e-3), "training.reduce_mean": (True, False)}),
    seeds=(0, 1),
    common={
        "model.nf": 8,
        "model.ch_mult": (1,),
        "training.n_iters": 60,
        "training.snapshot_freq": 60,
        "training.snapshot_freq_for_preemption": 20,
        "training.batch_size": 32,
        "eval.enable_bpd": False,
        "eval.begin_ckpt": -1,
    },
)
