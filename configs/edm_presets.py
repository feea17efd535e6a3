"""Pieces of the recipe of Karras et al. (2022, https://arxiv.org/abs/2206.00364), with its published options.

| data        | network         | batch | images, 10^6 | lr   | dropout | augment | half-life, 10^6 | NFE |
|-------------|-----------------|-------|--------------|------|---------|---------|-----------------|-----|
| CIFAR-10    | DDPM++, NCSN++  | 512   | 200          | 1e-3 | 0.13    | 0.12    | 0.5             | 35  |
| FFHQ-64     | DDPM++, NCSN++  | 256   | 200          | 2e-4 | 0.05    | 0.15    | 0.5             | 79  |
| AFHQv2-64   | DDPM++, NCSN++  | 256   | 200          | 2e-4 | 0.25    | 0.15    | 0.5             | 79  |
| ImageNet-64 | ADM             | 4,096 | 2,500        | 1e-4 | 0.10    | 0       | 50              | 511 |

Numbers of images become updates of the batch. What differs from theirs: ImageNet's half precision is bfloat16 here,
which needs no scaling of the loss.
"""

import math

from score_sde.configs import presets
from score_sde.configs.presets import Piece, cifar10, compose, digits, edm, network, small

from score_sde.config import Config

__all__ = ["adm", "afhqv2", "augmented", "cifar10", "classes", "compose", "ddpmpp", "digits", "ffhq", "imagenet"]
__all__ += ["images64", "ncsnpp", "small", "training"]

MILLION = 1_000_000


def ddpmpp(config: Config) -> None:
    """DDPM++ of that paper with its objective: three levels of 256 channels, and linear embeddings of labels."""
    presets.ddpmpp(config)
    _song(config, "positional")


def ncsnpp(config: Config) -> None:
    """NCSN++ of that paper with its objective: a residual pyramid of the input, FIR filters and Fourier features."""
    presets.ncsnpp(config)
    _song(config, "fourier_linear")


def adm(config: Config) -> None:
    """ADM's U-Net for 64x64 with EDM's objective."""
    channels = dict(nf=192, ch_mult=(1, 2, 3, 4), num_res_blocks=3, attn_resolutions=(32, 16, 8))
    network("adm", **channels, dropout=0.1, num_classes=0, augment_dim=0)(config)
    edm(config)


def _song(config: Config, embedding: str) -> None:
    edm(config)
    with config.unlocked():
        config.model.update(ch_mult=(2, 2, 2), embedding_type=embedding, label_embedding="linear", augment_dim=0)


def images64(config: Config) -> None:
    """A folder or .zip file of images at 64x64, config.data.path, on all of which the network is trained."""
    config.data.update(dataset="folder", image_size=64, held_out=0.0)
    if config.model.name == "ncsnpp":
        config.model.ch_mult = (1, 2, 2, 2)


def classes(number: int) -> Piece:
    """A network that is always told the class, as EDM's conditional ones are."""

    def piece(config: Config) -> None:
        config.model.num_classes = number
        config.training.label_dropout = 0.0

    return piece


def training(
    *,
    batch_size: int = 512,
    images: int = 200 * MILLION,
    lr: float = 1e-3,
    half_life: int = MILLION // 2,
    dropout: float = 0.13,
    augment: float = 0.12,
    steps: int = 18,
) -> Piece:
    """The training, counted in images, and the sampler; without arguments that of CIFAR-10.

    images: that the training sees. half_life: of the average, in images. augment: probability of each transform.
    steps: noise levels of the sampler, as EDM counts them.
    """

    def piece(config: Config) -> None:
        config.training.update(
            batch_size=batch_size,
            n_iters=math.ceil(images / batch_size),
            precision="float32",
            snapshot_freq=25 * MILLION // batch_size,
            snapshot_freq_for_preemption=5 * MILLION // batch_size,
        )
        config.weight.reduction = "sum"
        config.optim.update(lr=lr, warmup_images=10 * MILLION, grad_clip=-1.0, nan_gradients="replace")
        config.ema.profiles = (f"half_life:{half_life / batch_size:.12g}",)
        config.data.update(random_flip=False, augment_p=augment)
        config.model.update(dropout=dropout, augment_dim=9 if augment else 0)
        config.sampling.update(num_steps=steps - 1, clip="none")
        config.eval.update(begin_ckpt=-1, enable_sampling=True)

    return piece


def ffhq(config: Config) -> None:
    """The training for FFHQ at 64x64."""
    training(batch_size=256, lr=2e-4, dropout=0.05, augment=0.15, steps=40)(config)


def afhqv2(config: Config) -> None:
    """The training for AFHQv2 at 64x64."""
    training(batch_size=256, lr=2e-4, dropout=0.25, augment=0.15, steps=40)(config)


def imagenet(config: Config) -> None:
    """The training for ImageNet at 64x64, and its stochastic sampler."""
    classes(1000)(config)
    schedule = dict(batch_size=4096, images=2500 * MILLION, lr=1e-4, half_life=50 * MILLION)
    training(**schedule, dropout=0.1, augment=0.0, steps=256)(config)
    config.training.precision = "bfloat16"
    config.sampling.update(method="edm_stochastic", s_churn=40.0, s_min=0.05, s_max=50.0, s_noise=1.003)


def augmented(config: Config) -> None:
    """The augmentation pipe with sigma_data of the data, for a small set of images; the schedule stays."""
    config.data.update(random_flip=False, augment_p=0.12, sigma_images=MILLION)
    config.model.augment_dim = 9
