"""Pieces of U-ViT (Bao et al., 2022) and DiT (Peebles and Xie, 2022): networks by size, and their publishers' training.

| network | size | width | depth | heads | published for, with its patch size                  |
|---------|------|-------|-------|-------|-----------------------------------------------------|
| U-ViT   | s    | 512   | 12    | 8     | CIFAR-10 (2), CelebA at 64 pixels (4)               |
| U-ViT   | m    | 768   | 16    | 12    | ImageNet at 64 pixels (4)                           |
| U-ViT   | l    | 1024  | 20    | 16    | ImageNet at 64 pixels (4), latents at 256 pixels (2)|
| U-ViT   | h    | 1152  | 28    | 16    | latents at 256 (2) and 512 pixels (4)               |
| DiT     | s    | 384   | 12    | 6     | latents of 32x32x4 (2, 4, 8), as all others         |
| DiT     | b    | 768   | 12    | 12    |                                                     |
| DiT     | l    | 1024  | 24    | 16    |                                                     |
| DiT     | xl   | 1152  | 28    | 16    | also latents of 64x64x4 (2)                         |

Other sizes and patches go together freely. The pieces come before the process: compose(cifar10, uvit("s", 2), vp).
"""

from score_sde.configs.presets import Piece, network

from score_sde.config import Config

UVIT = dict(s=(512, 12, 8), m=(768, 16, 12), l=(1024, 20, 16), h=(1152, 28, 16))  # width, depth, heads
DIT = dict(s=(384, 12, 6), b=(768, 12, 12), l=(1024, 24, 16), xl=(1152, 28, 16))
KEYS = ("width", "depth", "num_heads")
ARGUMENTS = dict(mlp_ratio=4.0, dropout=0.0, num_classes=0)


def uvit(size: str, patch_size: int, *, conv: bool = True) -> Piece:
    """U-ViT of size s, m, l or h. conv: whether a convolution is last, as in all but h."""
    options = dict(skip=True, conv=conv, mlp_time_embed=False)
    return network("uvit", patch_size=patch_size, **dict(zip(KEYS, UVIT[size], strict=True)), **ARGUMENTS, **options)


def dit(size: str, patch_size: int, *, learned_variance: bool = False) -> Piece:
    """DiT of size s, b, l or xl. learned_variance: whether it has outputs of a variance, as all that were published."""
    options = dict(learned_variance=learned_variance)
    return network("dit", patch_size=patch_size, **dict(zip(KEYS, DIT[size], strict=True)), **ARGUMENTS, **options)


def uvit_cifar10(config: Config) -> None:
    """U-ViT's training on CIFAR-10: AdamW with a long average of gradients."""
    config.training.update(batch_size=128, n_iters=500_000, snapshot_freq=50_000, snapshot_freq_for_preemption=5000)
    config.optim.update(lr=2e-4, beta1=0.99, beta2=0.999, weight_decay=0.03, warmup=2500, grad_clip=-1.0)
    config.optim.ema_rate = 0.9999


def dit_training(config: Config) -> None:
    """DiT's training: AdamW at a constant rate without decay, 400,000 updates of 256 images."""
    config.training.update(batch_size=256, n_iters=400_000, snapshot_freq=50_000, snapshot_freq_for_preemption=5000)
    config.optim.update(lr=1e-4, beta1=0.9, beta2=0.999, weight_decay=0.0, warmup=0, grad_clip=-1.0, ema_rate=0.9999)


def small_uvit(config: Config) -> None:
    """A U-ViT for 8x8 images on a CPU, with about the parameters of the digits' DDPM++."""
    config.model.update(width=108, depth=4, num_heads=4)


def small_dit(config: Config) -> None:
    """A DiT for 8x8 images on a CPU, with about the parameters of the digits' DDPM++."""
    config.model.update(width=96, depth=4, num_heads=4)
