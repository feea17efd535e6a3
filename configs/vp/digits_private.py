"""Small U-ViT (VP) on scikit-learn's 8x8 digits, differentially private: settings of ours, for two CPU cores."""

from score_sde.configs.presets import compose, digits, vp
from score_sde.configs.transformer_presets import small_uvit, uvit

from score_sde.config import Config


def private(config: Config) -> None:
    """A smaller network, which less noise hides, large batches, and several noise levels an image; epsilon 10."""
    config.model.update(width=64, depth=2)
    config.training.update(privacy=True, batch_size=512, n_iters=340, snapshot_freq=170)
    config.privacy.update(epsilon=10.0, delta=1e-4, noise_multiplier=3.0, clip=1.0, times=8)
    config.optim.update(lr=2e-3, warmup=20, grad_clip=-1.0)


def get_config():
    return compose(uvit("s", 2), vp, digits, small_uvit, private)
