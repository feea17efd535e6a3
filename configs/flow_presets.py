"""The pieces of flow matching besides `presets.flow`: laws of times, couplings, and a sampler that solves the ODE."""

from score_sde.configs.presets import Piece, network

from score_sde.config import Config


def uniform_times(config: Config) -> None:
    """Times as in Lipman et al. (2023) and Liu et al. (2023)."""
    config.times.name = "uniform"


def skewed_times(config: Config) -> None:
    """EDM's noise levels, t = sigma / (1 + sigma) with log(sigma) ~ N(-1.2, 1.2^2): of flow_matching's CIFAR-10."""
    config.times.name = "lognormal"


def heun(config: Config) -> None:
    """Sampling by 25 steps of Heun's method on EDM's grid, to noise level 0.002."""
    config.sampling.update(method="heun", grid="karras", num_steps=25, eps=0.002 / 1.002)


def optimal(block: int) -> Piece:
    """Noise of the optimal coupling of `block` rows, and a sampler of the ODE, which is all that such a network has."""

    def piece(config: Config) -> None:
        config.training.update(coupling="optimal", coupling_block=block)
        config.sampling.method = "dpmpp_2m"

    return piece


def reflow(config: Config) -> None:
    """Pairs of a teacher, training.pairs=FOLDER, which --mode=pairs makes; and a sampler of the ODE."""
    config.training.coupling = "pairs"
    config.data.random_flip = False
    config.sampling.method = "dpmpp_2m"


def adm(config: Config) -> None:
    """The U-Net of flow_matching's CIFAR-10: OpenAI's, one head of attention, resampling without convolutions."""
    options = dict(dropout=0.3, num_heads=1, resblock_type="ddpm", resamp_with_conv=False)
    network("adm", nf=128, ch_mult=(2, 2, 2), num_res_blocks=4, attn_resolutions=(16,), **options)(config)


def flow_matching(config: Config) -> None:
    """Optimizer, average and length of flow_matching's CIFAR-10: 3,000 epochs, AdamW at a constant rate."""
    config.training.update(batch_size=512, n_iters=293_000)
    config.optim.update(lr=1e-4, beta2=0.95, weight_decay=0.01, warmup=0, grad_clip=-1.0, ema_rate=0.999)
    config.model.dropout = 0.3
