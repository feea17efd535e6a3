"""CIFAR-10 under VP, sub-VP and VE, one after the other: bits/dim on the test set, and samples at three budgets.

Three trainings, each evaluated four times. VE is with NCSN++, the paper's network for it.
"""

from score_sde.experiments.sweep import Sweep, grid, zipped

networks = zipped(
    {
        "config": (
            "configs/vp/cifar10_ddpmpp_continuous.py",
            "configs/subvp/cifar10_ddpmpp_continuous.py",
            "configs/ve/cifar10_ncsnpp_continuous.py",
        )
    }
)
likelihoods = grid({"eval.enable_bpd": (True,)})
samplers = zipped({"sampling.method": ("pc", "ode", "unipc_3"), "sampling.num_steps": (1000, 1000, 20)})
samples = samplers * grid({"eval.enable_sampling": (True,), "eval.enable_bpd": (False,), "eval.enable_loss": (False,)})

sweep = Sweep(space=networks * (likelihoods + samples), common={"eval.begin_ckpt": -1})
