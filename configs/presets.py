"""The pieces every config is composed of: one locked base, then data, network, SDE; later pieces win.

A key that the base does not have raises at once. Sections `sde` and `model` are the constructor arguments of the class
they name (see `score_sde.sde.SDES` and `score_sde.models.MODELS`), so a piece replaces them whole.
"""

from collections.abc import Callable

from ml_collections import ConfigDict, config_dict

Piece = Callable[[ConfigDict], None]


def compose(*pieces: Piece) -> ConfigDict:
    """The base with pieces applied in order, locked."""
    config = base().lock()
    for piece in pieces:
        piece(config)
    return config


def base() -> ConfigDict:
    """Every key there is, under the paper's names (configs/README.md lists the moved ones)."""
    config = ConfigDict()
    config.seed = 42

    config.training = dict(
        batch_size=128,
        n_iters=1_300_001,
        snapshot_freq=50_000,  # checkpoints kept for ever
        snapshot_freq_for_preemption=10_000,  # checkpoints to resume from; the last two are kept
        log_freq=50,
        eval_freq=100,
        snapshot_sampling=True,  # one batch of samples with each snapshot
        continuous=True,
        likelihood_weighting=False,
        reduce_mean=False,  # False: half the sum over an image's elements
    )
    config.sampling = dict(
        method="pc",  # pc | ode
        predictor="euler_maruyama",
        corrector="none",
        snr=0.16,
        n_steps_each=1,
        noise_removal=True,
        probability_flow=False,
        num_scales=config_dict.placeholder(int),  # steps of the sampler; default: sde.num_scales
        eps=config_dict.placeholder(float),  # last time; default: 1e-3 (VP, sub-VP) or 1e-5 (VE)
        rtol=1e-5,  # of the ODE
        atol=1e-5,
        num_samples=64,  # of --mode=sample
    )
    config.eval = dict(
        batch_size=1024,
        begin_ckpt=9,  # snapshots begin_ckpt..end_ckpt are evaluated, in units of snapshot_freq steps
        end_ckpt=26,
        enable_loss=True,
        enable_bpd=False,
        enable_sampling=False,
        num_samples=50_000,
        bpd_dataset="test",  # train | test
        bpd_num_repeats=5,  # passes with fresh dequantisation noise and probes; the training set is passed once
        hutchinson_type="rademacher",  # rademacher | gaussian | exact
        rtol=1e-5,
        atol=1e-5,
    )
    config.data = dict(
        dataset="cifar10",
        data_dir="",  # default: the environment's TFDS_DATA_DIR, else ~/tensorflow_datasets
        image_size=32,
        num_channels=3,
        centered=False,  # model range [-1, 1]; otherwise [0, 1]
        random_flip=True,
        uniform_dequantization=False,  # in training; bits/dim are always dequantised
    )
    config.optim = dict(
        optimizer="Adam",
        lr=2e-4,
        beta1=0.9,
        eps=1e-8,
        weight_decay=0.0,
        warmup=5000,
        grad_clip=1.0,  # negative: off
        ema_rate=0.999,
    )
    config.wandb = dict(mode="disabled", project="score_sde", name="")  # disabled | offline | online
    config.sde = dict(name="vesde")
    config.model = dict(name="ncsnpp")
    return config


# Data.


def cifar10(config: ConfigDict) -> None:
    """The base is CIFAR-10's."""
    config.data.dataset = "cifar10"


def digits(config: ConfigDict) -> None:
    """8x8 grey digits, and a schedule of minutes on a CPU."""
    config.data.update(dataset="digits", image_size=8, num_channels=1, random_flip=False, uniform_dequantization=True)
    config.training.update(
        n_iters=1200,
        snapshot_freq=600,
        snapshot_freq_for_preemption=300,
        log_freq=10,
        eval_freq=25,
        snapshot_sampling=False,
    )
    config.eval.update(batch_size=304, begin_ckpt=1, enable_bpd=True, bpd_num_repeats=1, rtol=1e-4, atol=1e-4)
    config.optim.update(warmup=100, lr=1e-3, ema_rate=0.995)  # longer averages would reach back to the start


# Networks.


def ncsnpp(config: ConfigDict) -> None:
    """NCSN++: FIR resampling and a residual input pyramid."""
    _replace(
        config,
        "model",
        name="ncsnpp",
        nf=128,
        ch_mult=(1, 2, 2, 2),
        num_res_blocks=4,
        attn_resolutions=(16,),
        dropout=0.1,
        nonlinearity="swish",
        conditional=True,
        embedding_type="fourier",
        fourier_scale=16.0,
        scale_by_sigma=True,
        resblock_type="biggan",
        resamp_with_conv=True,
        fir=True,
        fir_kernel=(1, 3, 3, 1),
        skip_rescale=True,
        progressive="none",
        progressive_input="residual",
        progressive_combine="sum",
        init_scale=0.0,
    )


def ddpmpp(config: ConfigDict) -> None:
    """DDPM++: NCSN++ without FIR and without the pyramid."""
    ncsnpp(config)
    config.model.update(fir=False, progressive_input="none", embedding_type="positional")


def small(config: ConfigDict) -> None:
    """A network for 8x8 images on a CPU."""
    config.model.update(nf=32, ch_mult=(1, 2), num_res_blocks=1, attn_resolutions=(4,), dropout=0.0)


# SDEs, each with what the paper trains and samples it with.


def ve(sigma_max: float, num_scales: int = 1000) -> Piece:
    """VE. sigma_max: about the largest distance between two training images (in [0, 1])."""

    def piece(config: ConfigDict) -> None:
        _replace(config, "sde", name="vesde", sigma_min=0.01, sigma_max=float(sigma_max), num_scales=num_scales)
        config.model.update(embedding_type="fourier", scale_by_sigma=True)
        config.sampling.update(predictor="reverse_diffusion", corrector="langevin")
        config.optim.ema_rate = 0.999

    return piece


def vp(config: ConfigDict) -> None:
    """VP."""
    _vp_like(config, "vpsde")


def subvp(config: ConfigDict) -> None:
    """Sub-VP."""
    _vp_like(config, "subvpsde")


def _vp_like(config: ConfigDict, name: str) -> None:
    _replace(config, "sde", name=name, beta_min=0.1, beta_max=20.0, num_scales=1000)
    config.model.update(embedding_type="positional", scale_by_sigma=False)
    config.data.centered = True
    config.training.reduce_mean = True
    config.sampling.update(predictor="euler_maruyama", corrector="none")
    config.optim.ema_rate = 0.9999


def _replace(config: ConfigDict, section: str, **values) -> None:
    with config.unlocked():
        config[section] = values
