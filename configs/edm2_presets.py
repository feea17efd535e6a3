"""Pieces of EDM2's recipe (Karras et al., 2024, https://arxiv.org/abs/2312.02696): networks by size, and training.

| size | channels | 64 pixels: dropout, updates / 2^19 | 512 pixels: dropout, updates / 2^20 | lr     |
|------|----------|------------------------------------|-------------------------------------|--------|
| xxs  | 64       | not published                      | 0, 1                                | 0.017  |
| xs   | 128      | 0, 1                               | 0, 1                                | 0.012  |
| s    | 192      | 0, 1                               | 0, 1                                | 0.010  |
| m    | 256      | 0.1, 2                             | 0.1, 1                              | 0.009  |
| l    | 320      | 0.1, 1                             | 0.1, 7/8                            | 0.008  |
| xl   | 384      | 0.1, 5/8                           | 0.1, 5/8                            | 0.007  |
| xxl  | 448      | not published                      | 0.1, 7/16                           | 0.0065 |

At 512 pixels the networks see latents of 64x64x4, which this package neither makes nor decodes: these pieces are for
importing and describing them.
"""

from score_sde.configs.presets import Piece, cifar10, compose, digits, edm, network, small

from score_sde.config import Config

__all__ = ["cifar10", "cifar10_size", "compose", "digits", "digits_size", "edm2", "imagenet64", "imagenet512"]

CHANNELS = dict(xxs=64, xs=128, s=192, m=256, l=320, xl=384, xxl=448)
RATES = dict(xxs=0.0170, xs=0.0120, s=0.0100, m=0.0090, l=0.0080, xl=0.0070, xxl=0.0065)
WITHOUT_DROPOUT = ("xxs", "xs", "s")
BATCH = 2048
UPDATES_64 = {size: eighths * 2**16 for size, eighths in dict(xs=8, s=8, m=16, l=8, xl=5).items()}
UPDATES_512 = {
    size: sixteenths * 2**16 for size, sixteenths in dict(xxs=16, xs=16, s=16, m=16, l=14, xl=10, xxl=7).items()
}


def edm2(config: Config) -> None:
    """EDM2's network in size S, objective and optimizer, for data of standard deviation 0.5 in [-1, 1]."""
    channels = dict(nf=192, ch_mult=(1, 2, 3, 4), head_channels=64)
    options = dict(num_res_blocks=3, attn_resolutions=(16, 8), dropout=0.0, num_classes=0)
    network("edm2", **channels, **options)(config)
    edm(config)
    config.weight.update(name="uncertainty", reduction="sum")
    config.data.random_flip = False
    config.optim.update(beta2=0.99, grad_clip=-1.0, nan_gradients="zero")
    config.ema.profiles = ("power:0.05", "power:0.1")
    config.sampling.update(num_steps=31, clip="none")  # 63 evaluations


def imagenet64(size: str) -> Piece:
    """ImageNet at 64x64 with its classes, from a folder or .zip file of your own, config.data.path."""
    return _imagenet(size, UPDATES_64, times=dict(P_mean=-0.8, P_std=1.6), decay_after=35_000)


def imagenet512(size: str) -> Piece:
    """The latents of ImageNet at 512x512, of shape 64x64x4, with its classes."""

    def piece(config: Config) -> None:
        _imagenet(size, UPDATES_512, times=dict(P_mean=-0.4, P_std=1.0), decay_after=70_000)(config)
        config.data.num_channels = 4

    return piece


def _imagenet(size: str, updates: dict[str, int], times: dict[str, float], decay_after: int) -> Piece:
    def piece(config: Config) -> None:
        edm2(config)
        config.data.update(dataset="folder", image_size=64, held_out=0.0)
        config.model.update(nf=CHANNELS[size], dropout=0.0 if size in WITHOUT_DROPOUT else 0.1, num_classes=1000)
        config.times.update(**times)
        config.optim.update(lr=RATES[size], warmup_images=10_000_000, decay_after=decay_after)
        config.training.update(
            batch_size=BATCH,
            n_iters=updates[size],
            precision="bfloat16",
            label_dropout=0.0,
            snapshot_freq=2**16,
            snapshot_freq_for_preemption=2**12,
        )
        config.ema.snapshot_freq = 2**12  # 8 Mi images
        config.eval.update(enable_sampling=True, begin_ckpt=-1)

    return piece


def cifar10_size(config: Config) -> None:
    """A network and a schedule for CIFAR-10 that are ours: EDM2 has none for it."""
    config.model.update(nf=128, ch_mult=(1, 2, 2), attn_resolutions=(16,), dropout=0.13)
    config.data.random_flip = True
    config.times.update(P_mean=-1.2, P_std=1.2)  # EDM's, for the same images
    config.optim.update(lr=0.01, warmup_images=2_000_000, decay_after=20_000)
    config.training.update(batch_size=512, n_iters=100_000, snapshot_freq=20_000, snapshot_freq_for_preemption=4000)
    config.ema.snapshot_freq = 2000


def digits_size(config: Config) -> None:
    """A network and a schedule for the 8x8 digits that are ours, of minutes on two CPU cores."""
    small(config)
    config.model.head_channels = 16
    config.data.sigma_images = 50_000  # all of them: activations have unit size at the data's own sigma_data
    config.times.update(P_mean=-1.2, P_std=1.2)
    config.optim.update(lr=0.01, decay_after=300)
    config.ema.snapshot_freq = 100
