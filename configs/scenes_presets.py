"""Pieces of text to image on drawn scenes of 16x16 pixels: data with captions, an encoder of them, and two networks.

Both networks have about two million parameters, a quarter of them the encoder's. In the U-Net pixels attend to words at
heights 8 and 4; in the U-ViT words are tokens beside the patches.
"""

from score_sde.configs.presets import ddpmpp, network

from score_sde.config import Config


def scenes(config: Config) -> None:
    """Scenes of one object with their captions, and `in_words`."""
    in_words(config)
    config.data.update(dataset="scenes", image_size=16, scene_objects=1)


def in_words(config: Config) -> None:
    """Captions in words, which a flip would make wrong, and a schedule for two CPU cores."""
    config.data.random_flip = False
    config.text.tokenizer = "words"
    config.encoder.update(name="text", features=128, depth=2, num_heads=4)
    config.training.update(
        batch_size=64,
        n_iters=6000,
        snapshot_freq=2000,
        snapshot_freq_for_preemption=500,
        log_freq=50,
        eval_freq=250,
        snapshot_sampling=False,
        label_dropout=0.1,
    )
    config.sampling.update(method="dpmpp_2m", num_steps=20)
    config.eval.update(batch_size=500, begin_ckpt=-1)
    config.metrics.features = "trained"
    config.optim.update(warmup=300, lr=1e-3)


def scenes_unet(config: Config) -> None:
    """A DDPM++ of three levels that attends to captions at the lower two."""
    ddpmpp(config)
    config.model.update(nf=32, ch_mult=(1, 2, 2), num_res_blocks=1, attn_resolutions=(8,), dropout=0.0)
    with config.unlocked():
        config.model.update(cross_resolutions=(8, 4), cross_heads=4)


def scenes_uvit(config: Config) -> None:
    """A U-ViT of five blocks over patches of 2x2 pixels."""
    network("uvit", patch_size=2, width=144, depth=4, num_heads=4)(config)
