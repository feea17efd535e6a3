"""The digits with a network of seconds, and a save, a line, averages and a sheet of samples every few steps."""

from score_sde.configs.presets import compose, ddpmpp, digits, small, vp


def tiny(config):
    config.model.update(nf=8, ch_mult=(1,), num_res_blocks=1, attn_resolutions=(4,))
    config.sde.num_scales = 30
    config.training.update(
        batch_size=16,
        n_iters=36,
        snapshot_freq=12,
        snapshot_freq_for_preemption=3,
        log_freq=1,
        eval_freq=2,
        snapshot_sampling=True,
    )
    config.ema.update(profiles=("power:0.1", "power:0.2"), snapshot_freq=4)  # each third one beside a checkpoint
    config.eval.update(
        batch_size=64, begin_ckpt=2, enable_sampling=True, num_samples=128, rtol=5e-2, atol=5e-2
    )  # rounds: 5 of loss and of bits/dim, 2 of samples
    config.metrics.features = "none"


def get_config():
    return compose(ddpmpp, vp, digits, small, tiny)
