"""The pieces of which every config is composed: one locked base, then data, network, SDE; later pieces win.

The base is every key at its default (`score_sde.config`; KEYS.md lists them). A key that it does not have raises at
once. Sections `sde` and `model` are the constructor arguments of the class they name (see `score_sde.sde.SDES` and
`score_sde.models.MODELS`), so a piece replaces them whole.
"""

from collections.abc import Callable

from score_sde.config import Config, base

Piece = Callable[[Config], None]


def compose(*pieces: Piece) -> Config:
    """The base with these pieces applied in order, locked."""
    config = base().lock()
    for piece in pieces:
        piece(config)
    return config


# Data sets, each with the paper's schedule of training and evaluation.


def cifar10(config: Config) -> None:
    """CIFAR-10, for which the base is made."""
    config.data.dataset = "cifar10"


def celeba(config: Config) -> None:
    """CelebA at 64x64."""
    config.data.update(dataset="celeba", image_size=64)
    config.sampling.snr = 0.17
    config.eval.update(begin_ckpt=1, enable_sampling=True)


def lsun(scene: str, image_size: int = 256, batch_size: int = 64) -> Piece:
    """A scene of LSUN, "bedroom" or "church_outdoor" in the paper."""

    def piece(config: Config) -> None:
        _large(config, f"lsun/{scene}", image_size)
        config.training.batch_size = batch_size

    return piece


def celebahq_256(config: Config) -> None:
    """CelebA-HQ at 256x256."""
    _large(config, "celebahq_256", 256)


def ffhq_256(config: Config) -> None:
    """FFHQ at 256x256."""
    _large(config, "ffhq_256", 256)


def celebahq_1024(config: Config) -> None:
    """CelebA-HQ at 1024x1024."""
    _huge(config, "celebahq_1024")


def ffhq_1024(config: Config) -> None:
    """FFHQ at 1024x1024. The paper averages its loss over pixels, unlike CelebA-HQ's."""
    _huge(config, "ffhq_1024")
    config.training.reduce_mean = True


def _large(config: Config, dataset: str, image_size: int) -> None:
    config.data.update(dataset=dataset, image_size=image_size)
    config.training.update(batch_size=64, n_iters=2_400_001, snapshot_freq_for_preemption=5000)
    config.sampling.snr = 0.075
    config.eval.update(batch_size=512, begin_ckpt=50, end_ckpt=96, enable_sampling=True)


def _huge(config: Config, dataset: str) -> None:
    _large(config, dataset, 1024)
    config.training.batch_size = 8
    config.sampling.snr = 0.15
    config.eval.update(batch_size=8, begin_ckpt=1)


def digits(config: Config) -> None:
    """The 8x8 grey digits, and a schedule of minutes on a CPU."""
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
    config.metrics.update(features="trained", n_iters=500)
    config.dequantizer.update(n_iters=500, log_freq=10, snapshot_freq=250)
    config.optim.update(warmup=100, lr=1e-3, ema_rate=0.995)  # longer averages would reach back to the start


def own_images(config: Config) -> None:
    """A folder of the user's own images, config.data.path, at 32x32, and a schedule of hours on one GPU."""
    config.data.update(dataset="folder", image_size=32, random_flip=False, convert=True)
    config.training.update(
        batch_size=64, n_iters=30_000, snapshot_freq=5000, snapshot_freq_for_preemption=1000, eval_freq=500
    )
    config.sampling.update(method="dpmpp_2m_sde", num_steps=40)  # noise corrects errors of a short training
    config.eval.update(batch_size=256, begin_ckpt=-1, enable_sampling=True, num_samples=1000)
    config.metrics.features = "trained"
    config.optim.update(warmup=1000, ema_rate=0.999)  # a longer average would reach back to the start


def first_look(config: Config) -> None:
    """Images at 16x16, a network for them, and a schedule of minutes on two CPU cores."""
    config.data.image_size = 16
    config.model.update(nf=32, ch_mult=(1, 2, 2), num_res_blocks=1, attn_resolutions=(8,))
    config.training.update(batch_size=32, n_iters=2000, snapshot_freq=1000, snapshot_freq_for_preemption=500)
    config.optim.update(warmup=300, lr=1e-3)


# Networks.


def ncsnpp(config: Config) -> None:
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
        num_classes=0,  # no labels
    )


def ddpmpp(config: Config) -> None:
    """DDPM++: NCSN++ without FIR and without the pyramid."""
    ncsnpp(config)
    config.model.update(fir=False, progressive_input="none", embedding_type="positional")


def ncsnpp_256(config: Config) -> None:
    """NCSN++ for 256x256: image pyramids at both ends."""
    ncsnpp(config)
    config.model.update(
        ch_mult=(1, 1, 2, 2, 2, 2, 2),
        num_res_blocks=2,
        dropout=0.0,
        progressive="output_skip",
        progressive_input="input_skip",
    )


def ncsnpp_1024(config: Config) -> None:
    """NCSN++ for 1024x1024."""
    ncsnpp_256(config)
    config.model.update(nf=16, ch_mult=(1, 2, 4, 8, 16, 32, 32, 32), num_res_blocks=1)


def deep(config: Config) -> None:
    """A network with twice the blocks of NCSN++ or DDPM++, trained for fewer updates."""
    config.model.num_res_blocks = 8
    config.training.n_iters = 950_001


def ddpm(config: Config) -> None:
    """The network of Ho et al. (2020)."""
    _replace(
        config,
        "model",
        name="ddpm",
        nf=128,
        ch_mult=(1, 2, 2, 2),
        num_res_blocks=2,
        attn_resolutions=(16,),
        dropout=0.1,
        nonlinearity="swish",
        conditional=True,
        resamp_with_conv=True,
        scale_by_sigma=False,
    )


def ddpm_256(config: Config) -> None:
    """The network of Ho et al. (2020) for 256x256."""
    ddpm(config)
    config.model.update(ch_mult=(1, 1, 2, 2, 4, 4), dropout=0.0)
    config.optim.lr = 2e-5


def ncsn(config: Config) -> None:
    """NCSN, Song and Ermon (2019): an embedding for each noise level."""
    _refinenet(config, "ncsn")
    config.optim.lr = 1e-3


def ncsnv2(image_size: int) -> Piece:
    """NCSNv2, Song and Ermon (2020), one network for each of 64, 128 and 256 pixels."""

    def piece(config: Config) -> None:
        _refinenet(config, f"ncsnv2_{image_size}")
        config.optim.lr = 1e-4

    return piece


def wideresnet(config: Config) -> None:
    """The noise-conditional classifier WRN-28-10, with the statistics of CIFAR-10's pixels."""
    _replace(
        config,
        "model",
        name="wideresnet",
        blocks_per_group=4,
        channel_multiplier=10,
        num_outputs=10,
        mean=(0.49139968, 0.48215841, 0.44653091),
        std=(0.24703223, 0.24348513, 0.26158784),
        scale_by_sigma=False,
    )


def small_wideresnet(config: Config) -> None:
    """A classifier for 8x8 images on a CPU, with the statistics of the digits' pixels, and its schedule."""
    config.model.update(blocks_per_group=1, channel_multiplier=2, mean=(0.30546947,), std=(0.37603422,))
    config.training.n_iters = 600
    config.optim.lr = 3e-3
    config.eval.enable_bpd = False


def _refinenet(config: Config, name: str) -> None:
    _replace(config, "model", name=name, nf=128, nonlinearity="elu", interpolation="bilinear", scale_by_sigma=True)
    config.optim.update(warmup=0, grad_clip=-1.0)


def network(name: str, **arguments) -> Piece:
    """A network of your own by its import path, "my_package.mixer:Mixer", and its arguments.

    Others keep their defaults.
    """

    def piece(config: Config) -> None:
        _replace(config, "model", name=name, scale_by_sigma=False, **arguments)

    return piece


def medium(config: Config) -> None:
    """A network for images of 32x32 or 64x64 and one GPU."""
    config.model.update(nf=64, ch_mult=(1, 2, 2), num_res_blocks=2)


def small(config: Config) -> None:
    """A network for 8x8 images on a CPU."""
    config.model.update(nf=32, ch_mult=(1, 2), num_res_blocks=1, attn_resolutions=(4,), dropout=0.0)


# SDEs, each with the paper's settings of training and sampling.


def ve(sigma_max: float, num_scales: int = 1000, *, scale_by_sigma: bool = True) -> Piece:
    """VE SDE. sigma_max: about the largest distance of two training images in [0, 1], by --mode=data --distances=N."""

    def piece(config: Config) -> None:
        _replace(config, "sde", name="vesde", sigma_min=0.01, sigma_max=float(sigma_max), num_scales=num_scales)
        config.model.scale_by_sigma = scale_by_sigma
        _embedding(config, "fourier")
        config.sampling.update(predictor="reverse_diffusion", corrector="langevin")
        config.optim.ema_rate = 0.999

    return piece


def vp(config: Config) -> None:
    """VP SDE."""
    _vp_like(config, "vpsde")


def subvp(config: Config) -> None:
    """Sub-VP SDE."""
    _vp_like(config, "subvpsde")


def _vp_like(config: Config, name: str) -> None:
    _replace(config, "sde", name=name, beta_min=0.1, beta_max=20.0, num_scales=1000)
    config.model.scale_by_sigma = False
    _embedding(config, "positional")
    config.data.centered = True
    config.training.reduce_mean = True
    config.sampling.update(predictor="euler_maruyama", corrector="none")
    config.optim.ema_rate = 0.9999


# Later recipes, each instead of an SDE: the network's objective, and a sampler for it.


def flow(config: Config) -> None:
    """Rectified flow as in Esser et al. (2024): the velocity of straight paths, at times near the middle."""
    vp(config)
    config.process.name = "linear"
    config.parameterization.name = "velocity"
    config.times.name = "logit_normal"
    config.weight.name = "velocity"
    config.sampling.update(method="dpmpp_2m_sde", num_steps=40)  # noise corrects errors of a short training


def edm(config: Config) -> None:
    """The training of Karras et al. (2022), for data in [-1, 1]; without their augmentation."""
    vp(config)
    for section in ("process", "parameterization", "weight"):
        config[section].name = "edm"
    config.times.name = "lognormal"
    config.sampling.update(method="edm", grid="karras", num_steps=18)


# Variants, after the SDE.


def discrete(config: Config) -> None:
    """Training at the N noise levels of SMLD (VE) or DDPM (VP), with their index as the noise condition."""
    config.training.continuous = False
    _embedding(config, "positional")


def ancestral(config: Config) -> None:
    """Sampling as in Ho et al. (2020)."""
    config.sampling.predictor = "ancestral_sampling"


def reverse_diffusion(config: Config) -> None:
    """Sampling by the reverse of the discrete chain."""
    config.sampling.predictor = "reverse_diffusion"


def annealed_langevin(snr: float, n_steps: int) -> Piece:
    """Sampling as in Song and Ermon (2019), with the corrector only."""

    def piece(config: Config) -> None:
        config.sampling.update(predictor="none", corrector="ald", snr=snr, n_steps_each=n_steps)

    return piece


def ema(rate: float) -> Piece:
    """A different rate of the parameters' moving average; 0 turns it off."""

    def piece(config: Config) -> None:
        config.optim.ema_rate = rate

    return piece


def unconditional(config: Config) -> None:
    """A network that does not take the noise level."""
    config.model.conditional = False


def _embedding(config: Config, kind: str) -> None:
    if "embedding_type" in config.model:  # only NCSN++ and DDPM++ have the choice
        config.model.embedding_type = kind


def _replace(config: Config, section: str, **values) -> None:
    with config.unlocked():
        config[section] = values
