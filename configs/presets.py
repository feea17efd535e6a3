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
    config.profile = 0  # updates of which a trace is written, to profile/ in the workdir

    config.training = dict(
        batch_size=128,
        n_iters=1_300_001,
        snapshot_freq=50_000,  # checkpoints kept for ever
        snapshot_freq_for_preemption=10_000,  # checkpoints to resume from; the last `keep_last` are kept
        keep_last=2,
        keep_best=0,  # checkpoints with the least evaluation loss, kept besides
        nonfinite="stop",  # stop | skip: an update whose loss or gradient is not finite is not made
        log_freq=50,
        eval_freq=100,
        snapshot_sampling=True,  # one batch of samples with each snapshot
        precision="tf32",  # float32 | tf32 | bfloat16: in what the network computes (score_sde/models/compute.py)
        accumulate=1,  # parts that a batch is computed in, one after the other
        remat=False,  # each block is computed twice, and only its input kept for the backward pass; not on a CPU
        fsdp=1,  # parameters, their average and Adam's moments are split among groups of so many devices
        continuous=True,
        likelihood_weighting=False,
        reduce_mean=False,  # False: half the sum over an image's elements
        label_dropout=0.1,  # probability that an image's condition (class, tokens, ...) is dropped in training
        cond_dropout=(),  # entries of it that are each dropped with that probability; none: the whole at once
    )
    config.sampling = dict(
        method="pc",  # pc | ode | adaptive | a fast solver: ddim, dpmpp_2m, unipc_3, ... (score_sde/sampling/fast.py)
        predictor="euler_maruyama",
        corrector="none",
        snr=0.16,
        n_steps_each=1,
        noise_removal=True,
        probability_flow=False,
        num_scales=config_dict.placeholder(int),  # steps of the sampler; default: sde.num_scales
        eps=config_dict.placeholder(float),  # last time; default: 1e-3 (VP, sub-VP) or 1e-5 (VE)
        temperature=1.0,  # factor on x_T
        rtol=1e-5,  # of the ODE
        atol=1e-5,
        sde_rtol=0.02,  # of the adaptive reverse SDE
        sde_atol=config_dict.placeholder(float),  # default: one of 256 levels
        num_steps=20,  # of the fast solvers
        grid="log_snr",  # uniform | quadratic | log_snr | karras
        rho=7.0,  # of the karras grid
        eta=0.0,  # of ddim: 0 deterministic, 1 ancestral
        s_churn=40.0,  # of edm_stochastic, as in Karras et al. (2022)
        s_min=0.05,
        s_max=50.0,
        s_noise=1.003,
        precision="tf32",  # as in training
        clip="",  # none | range | dynamic: of predicted x0, to the data's range; default: range, but none for pc, ode
        clip_quantile=0.995,  # of dynamic: the share of an image's numbers that set its range
        diffusion=1.0,  # w: the noise of pc, adaptive and dpmpp_2m_sde has the variance w g^2 dt; 0 is the ODE
        num_samples=64,  # of --mode=sample
        batch_size=config_dict.placeholder(int),  # samples at a time; default: eval's; 0: as many as there is room for
        condition="",  # class=3 | class=all | inpaint=right_half | colorize | superresolve=4 | deblur=2.0 | sense=0.3;
        # a class and one of the others joined by ";"
        ema="",  # one of ema.profiles: the average that snapshots, eval and sample use; default: the first
    )
    config.guidance = dict(
        scale=1.0,  # of classes: 1 is Bayes' rule, 0 none
        interval=(0.0, 1.0),  # of times at which there is guidance
        classifier="",  # workdir of a noise-conditional classifier, for networks that take no classes
        weak="",  # workdir of a weaker network: autoguidance
        weak_step=config_dict.placeholder(int),  # its checkpoint; default: the last
        inverse="projection",  # projection | dps | pigdm | tmpd | particles: how an observation is met
        noise=0.0,  # standard deviation of the observation's, in pixels of [0, 1]
        samples_each=4,  # of one observation
        step=1.0,  # of dps
        iterations=5,  # of tmpd's conjugate gradients
        particles=64,
    )
    config.eval = dict(
        batch_size=1024,
        precision="tf32",  # float32 | tf32: of losses and likelihoods
        begin_ckpt=9,  # snapshots begin_ckpt..end_ckpt are evaluated, in units of snapshot_freq steps; -1: the last one
        end_ckpt=26,
        enable_loss=True,
        enable_bpd=False,
        enable_sampling=False,
        num_samples=50_000,
        bpd_dataset="test",  # train | test
        bpd_num_repeats=5,  # passes with fresh dequantisation noise and probes; the training set is passed once
        hutchinson_type="rademacher",  # rademacher | gaussian | hutch++ | exact
        num_probes=1,  # of the divergence's estimate; hutch++ needs at least 3
        dequantization="uniform",  # uniform | truncated_normal | variational, which --mode=train_dequantizer trains
        enable_bound=False,  # an upper bound on the bits/dim of the reverse SDE, on the data and passes of bits/dim
        bound_num_times=16,  # evaluations of the network for each image of it, but one
        rtol=1e-5,
        atol=1e-5,
    )
    config.metrics = dict(
        features="inception",  # inception | trained | none: what eval compares its samples and the data by
        weights="",  # file of Inception's; default: in `dir`, downloaded
        statistics="",  # file of the data's statistics; default: in `dir`, computed
        dir="",  # default: the environment's SCORE_SDE_CACHE, else ~/.cache/score_sde
        split="train",  # train | test: what samples are compared with
        batch_size=128,
        nf=32,  # of the trained features' network
        dimension=64,
        n_iters=1000,
        lr=1e-3,
        seed=0,
    )
    config.data = dict(
        dataset="cifar10",
        path="",  # of the user's own images: a directory (dataset="folder"), or a .npz or .npy file ("array")
        data_dir="",  # default: the environment's TFDS_DATA_DIR, else ~/tensorflow_datasets
        archives="",  # files to prepare a data set from; default: downloads/manual in data_dir
        in_memory_gib=8.0,  # a split of more pixels is decoded from disk as it is needed
        num_workers=0,  # threads that decode; 0: one for each core
        held_out=0.1,  # fraction to evaluate on, where there is no split for that; 0: all that is trained on
        corrupt="refuse",  # refuse | skip: images that cannot be read
        convert=False,  # images of other colours, or with transparency or 16 bits, are converted; otherwise refused
        labels="auto",  # auto | folders | none: what gives the labels of a folder
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
        ema_schedule="ramp",  # ramp: the rate is min(ema_rate, (1 + n) / (10 + n)) at update n | constant
    )
    config.ema = dict(
        profiles=(),  # default: ramp:RATE or constant:RATE, as optim.ema_rate and ema_schedule say, whose place they
        # take: constant:RATE | ramp:RATE | half_life:UPDATES[,RAMP] | power:SIGMA_REL (score_sde.ema), one or more
    )
    config.dequantizer = dict(
        nf=32,
        num_res_blocks=2,
        batch_size=128,
        n_iters=10_000,
        lr=1e-3,
        num_times=1,  # of the bound that is minimised, as eval.bound_num_times
        log_freq=50,
        snapshot_freq=1000,  # checkpoints to resume from; the last two are kept
    )
    config.wandb = dict(mode="disabled", project="score_sde", name="")  # disabled | offline | online
    config.process = _choice(
        dict.fromkeys(("beta_min", "beta_max", "sigma_min", "sigma_max", "s", "noise_min", "noise_max"), float)
        | dict(num_scales=int, pieces=int)
    )
    config.parameterization = _choice(dict(noise_cond=str, time_scale=float, sigma_data=float))
    config.times = _choice(dict(eps=float, P_mean=float, P_std=float, mean=float, std=float))
    config.weight = _choice(dict(reduction=str, sigma_data=float, gamma=float, base=str, features=int))
    config.encoder = _choice(dict(size=int, entry=str, features=int))
    config.sde = dict(name="vesde")
    config.model = dict(name="ncsnpp")
    return config


def _choice(arguments: dict[str, type]) -> dict:
    """A section that names a row of a dictionary, "" for what the paper's keys say, and may set arguments of its."""
    return dict(name="") | {key: config_dict.placeholder(kind) for key, kind in arguments.items()}


# Data, each with the schedule that the paper trains and evaluates it with.


def cifar10(config: ConfigDict) -> None:
    """The base is CIFAR-10's."""
    config.data.dataset = "cifar10"


def celeba(config: ConfigDict) -> None:
    """CelebA at 64x64."""
    config.data.update(dataset="celeba", image_size=64)
    config.sampling.snr = 0.17
    config.eval.update(begin_ckpt=1, enable_sampling=True)


def lsun(scene: str, image_size: int = 256, batch_size: int = 64) -> Piece:
    """A scene of LSUN, "bedroom" or "church_outdoor" in the paper."""

    def piece(config: ConfigDict) -> None:
        _large(config, f"lsun/{scene}", image_size)
        config.training.batch_size = batch_size

    return piece


def celebahq_256(config: ConfigDict) -> None:
    """CelebA-HQ at 256x256."""
    _large(config, "celebahq_256", 256)


def ffhq_256(config: ConfigDict) -> None:
    """FFHQ at 256x256."""
    _large(config, "ffhq_256", 256)


def celebahq_1024(config: ConfigDict) -> None:
    """CelebA-HQ at 1024x1024."""
    _huge(config, "celebahq_1024")


def ffhq_1024(config: ConfigDict) -> None:
    """FFHQ at 1024x1024. The paper averages its loss over pixels, unlike that of CelebA-HQ."""
    _huge(config, "ffhq_1024")
    config.training.reduce_mean = True


def _large(config: ConfigDict, dataset: str, image_size: int) -> None:
    config.data.update(dataset=dataset, image_size=image_size)
    config.training.update(batch_size=64, n_iters=2_400_001, snapshot_freq_for_preemption=5000)
    config.sampling.snr = 0.075
    config.eval.update(batch_size=512, begin_ckpt=50, end_ckpt=96, enable_sampling=True)


def _huge(config: ConfigDict, dataset: str) -> None:
    _large(config, dataset, 1024)
    config.training.batch_size = 8
    config.sampling.snr = 0.15
    config.eval.update(batch_size=8, begin_ckpt=1)


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
    config.metrics.update(features="trained", n_iters=500)
    config.dequantizer.update(n_iters=500, log_freq=10, snapshot_freq=250)
    config.optim.update(warmup=100, lr=1e-3, ema_rate=0.995)  # longer averages would reach back to the start


def own_images(config: ConfigDict) -> None:
    """A folder of the user's own images, config.data.path, at 32x32, and a schedule of hours on one GPU."""
    config.data.update(dataset="folder", image_size=32, random_flip=False, convert=True)
    config.training.update(
        batch_size=64, n_iters=30_000, snapshot_freq=5000, snapshot_freq_for_preemption=1000, eval_freq=500
    )
    config.sampling.update(method="dpmpp_2m_sde", num_steps=40)  # noise forgives a young network its errors
    config.eval.update(batch_size=256, begin_ckpt=-1, enable_sampling=True, num_samples=1000)
    config.metrics.features = "trained"
    config.optim.update(warmup=1000, ema_rate=0.999)  # a longer average would reach back to the start


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
        num_classes=0,  # that it can be told
    )


def ddpmpp(config: ConfigDict) -> None:
    """DDPM++: NCSN++ without FIR and without the pyramid."""
    ncsnpp(config)
    config.model.update(fir=False, progressive_input="none", embedding_type="positional")


def ncsnpp_256(config: ConfigDict) -> None:
    """NCSN++ for 256x256: image pyramids at both ends."""
    ncsnpp(config)
    config.model.update(
        ch_mult=(1, 1, 2, 2, 2, 2, 2),
        num_res_blocks=2,
        dropout=0.0,
        progressive="output_skip",
        progressive_input="input_skip",
    )


def ncsnpp_1024(config: ConfigDict) -> None:
    """NCSN++ for 1024x1024."""
    ncsnpp_256(config)
    config.model.update(nf=16, ch_mult=(1, 2, 4, 8, 16, 32, 32, 32), num_res_blocks=1)


def deep(config: ConfigDict) -> None:
    """Twice the blocks of NCSN++ or DDPM++, trained for less long."""
    config.model.num_res_blocks = 8
    config.training.n_iters = 950_001


def ddpm(config: ConfigDict) -> None:
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


def ddpm_256(config: ConfigDict) -> None:
    """The network of Ho et al. (2020) for 256x256."""
    ddpm(config)
    config.model.update(ch_mult=(1, 1, 2, 2, 4, 4), dropout=0.0)
    config.optim.lr = 2e-5


def ncsn(config: ConfigDict) -> None:
    """NCSN, Song and Ermon (2019): an embedding for each noise level."""
    _refinenet(config, "ncsn")
    config.optim.lr = 1e-3


def ncsnv2(image_size: int) -> Piece:
    """NCSNv2, Song and Ermon (2020), one network for each of 64, 128 and 256 pixels."""

    def piece(config: ConfigDict) -> None:
        _refinenet(config, f"ncsnv2_{image_size}")
        config.optim.lr = 1e-4

    return piece


def wideresnet(config: ConfigDict) -> None:
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


def small_wideresnet(config: ConfigDict) -> None:
    """A classifier for 8x8 images on a CPU, with the statistics of the digits' pixels, and its schedule."""
    config.model.update(blocks_per_group=1, channel_multiplier=2, mean=(0.30546947,), std=(0.37603422,))
    config.training.n_iters = 600
    config.optim.lr = 3e-3
    config.eval.enable_bpd = False


def _refinenet(config: ConfigDict, name: str) -> None:
    _replace(config, "model", name=name, nf=128, nonlinearity="elu", interpolation="bilinear", scale_by_sigma=True)
    config.optim.update(warmup=0, grad_clip=-1.0)


def medium(config: ConfigDict) -> None:
    """A network for images of 32x32 or 64x64 and one GPU."""
    config.model.update(nf=64, ch_mult=(1, 2, 2), num_res_blocks=2)


def small(config: ConfigDict) -> None:
    """A network for 8x8 images on a CPU."""
    config.model.update(nf=32, ch_mult=(1, 2), num_res_blocks=1, attn_resolutions=(4,), dropout=0.0)


# SDEs, each with what the paper trains and samples it with.


def ve(sigma_max: float, num_scales: int = 1000, *, scale_by_sigma: bool = True) -> Piece:
    """VE. sigma_max: about the largest distance between two training images (in [0, 1])."""

    def piece(config: ConfigDict) -> None:
        _replace(config, "sde", name="vesde", sigma_min=0.01, sigma_max=float(sigma_max), num_scales=num_scales)
        config.model.scale_by_sigma = scale_by_sigma
        _embedding(config, "fourier")
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
    config.model.scale_by_sigma = False
    _embedding(config, "positional")
    config.data.centered = True
    config.training.reduce_mean = True
    config.sampling.update(predictor="euler_maruyama", corrector="none")
    config.optim.ema_rate = 0.9999


# Later recipes, each in the place of an SDE: what the network's objective is, and a sampler for it.


def flow(config: ConfigDict) -> None:
    """Rectified flow as in Esser et al. (2024): the velocity of straight paths, at times near the middle."""
    vp(config)
    config.process.name = "linear"
    config.parameterization.name = "velocity"
    config.times.name = "logit_normal"
    config.weight.name = "velocity"
    config.sampling.update(method="dpmpp_2m_sde", num_steps=40)  # noise forgives a young network its errors


def edm(config: ConfigDict) -> None:
    """The training of Karras et al. (2022), of data in [-1, 1]; without their augmentation."""
    vp(config)
    for section in ("process", "parameterization", "weight"):
        config[section].name = "edm"
    config.times.name = "lognormal"
    config.sampling.update(method="edm", grid="karras", num_steps=18)


# Variants, after the SDE.


def discrete(config: ConfigDict) -> None:
    """Trained at the N noise levels of SMLD (VE) or DDPM (VP), labelled by their index."""
    config.training.continuous = False
    _embedding(config, "positional")


def ancestral(config: ConfigDict) -> None:
    """Sampled as in Ho et al. (2020)."""
    config.sampling.predictor = "ancestral_sampling"


def reverse_diffusion(config: ConfigDict) -> None:
    """Sampled by the reverse of the discrete chain."""
    config.sampling.predictor = "reverse_diffusion"


def annealed_langevin(snr: float, n_steps: int) -> Piece:
    """Sampled as in Song and Ermon (2019), corrector only."""

    def piece(config: ConfigDict) -> None:
        config.sampling.update(predictor="none", corrector="ald", snr=snr, n_steps_each=n_steps)

    return piece


def ema(rate: float) -> Piece:
    """Another rate of the parameters' moving average; 0 turns it off."""

    def piece(config: ConfigDict) -> None:
        config.optim.ema_rate = rate

    return piece


def unconditional(config: ConfigDict) -> None:
    """A network that is not told the noise level."""
    config.model.conditional = False


def _embedding(config: ConfigDict, kind: str) -> None:
    if "embedding_type" in config.model:  # only NCSN++ and DDPM++ have the choice
        config.model.embedding_type = kind


def _replace(config: ConfigDict, section: str, **values) -> None:
    with config.unlocked():
        config[section] = values
