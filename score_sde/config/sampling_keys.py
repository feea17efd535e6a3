"""Keys for the use of a trained network: `sampling`, `guidance`, `eval`, `metrics`, `dequantizer` and `wandb`."""

from score_sde.config.keys import SEEDS, Key

PRECISIONS = "score_sde.models:PRECISIONS"
TABLEAUS = "score_sde.sampling.tableaus:TABLEAUS"

SAMPLING = {
    "method": Key(
        "pc",
        "Sampler: predictor-corrector, the probability-flow ODE, adaptive steps, or a fast solver",
        "score_sde.sampling:SAMPLERS",
        any_case=True,
        takes_path=True,
    ),
    "predictor": Key("euler_maruyama", "Predictor of pc", "score_sde.sampling:PREDICTORS", any_case=True),
    "corrector": Key("none", "Corrector of pc", "score_sde.sampling:CORRECTORS", any_case=True),
    "snr": Key(0.16, "Signal-to-noise ratio r of the corrector's steps (algorithms 4 and 5 of the paper)", "(0, inf)"),
    "n_steps_each": Key(1, "Steps of the corrector at each time", "[1, inf)"),
    "noise_removal": Key(True, "Whether the last step adds no noise"),
    "probability_flow": Key(False, "Whether the predictor of pc solves the probability-flow ODE"),
    "num_scales": Key(None, "Steps N of pc; None: those of the process", "[2, inf)", kind=int),
    "eps": Key(None, "Time at which sampling ends; None: 1e-3 (VP, sub-VP) or 1e-5 (VE)", "(0, 1)", kind=float),
    "temperature": Key(1.0, "Factor on x_T, a sample of the prior", "(0, inf)"),
    "start": Key(
        "",
        "Images from which samples start instead of noise (SDEdit): a picture, a folder of pictures, or an .npy or "
        ".npz file; sample i starts from image i, and after the last one from the first again; empty: noise",
    ),
    "start_time": Key(1.0, "Time at which samples start from images with noise; 1: nearly pure noise", "(0, 1]"),
    "save": Key(
        (),
        "Files that are written of samples besides our own: png, one for each sample; png_1000, the same in folders of "
        "1,000; arr_0, an .npz file as ADM's evaluation reads it",
        ("png", "png_1000", "arr_0"),
        kind=tuple[str, ...],
        moves_numbers=False,
    ),
    "rtol": Key(1e-5, "Relative tolerance of the ODE, at least 1e-7 in float32", "[1e-7, inf)"),
    "atol": Key(1e-5, "Absolute tolerance of the ODE", "(0, inf)"),
    "ode_method": Key("dopri5", "Runge-Kutta pair that solves the ODE, also of encode and decode", TABLEAUS),
    "sde_rtol": Key(0.02, "Relative tolerance of the adaptive reverse SDE", "(0, inf)"),
    "sde_atol": Key(
        None, "Absolute tolerance of the adaptive reverse SDE; None: one of 256 levels", "(0, inf)", kind=float
    ),
    "num_steps": Key(20, "Steps of the fast solvers", "[1, inf)"),
    "grid": Key("log_snr", "Spacing of the fast solvers' times", "score_sde.sampling:GRIDS"),
    "rho": Key(7.0, "Exponent of the karras grid (Karras et al., 2022)", "(0, inf)"),
    "eta": Key(0.0, "Noise of ddim: 0 is deterministic, 1 ancestral", "[0, 1]"),
    "s_churn": Key(40.0, "Churn S_churn of edm_stochastic (Karras et al., 2022, table 5)", "[0, inf)"),
    "s_min": Key(0.05, "Least noise level S_min with churn", "[0, inf)"),
    "s_max": Key(50.0, "Largest noise level S_max with churn", "[0, inf]"),
    "s_noise": Key(1.003, "Factor S_noise on the noise of churn", "(0, inf)"),
    "precision": Key("tf32", "Precision of the network's computation in sampling", PRECISIONS),
    "clip": Key(
        "",
        "Clipping of predicted x_0 to the data's range; empty: range, but none for pc and ode",
        "score_sde.sampling:CLIPPINGS",
        any_case=True,
        older="none",
    ),
    "clip_quantile": Key(0.995, "Share of an image's numbers that sets its range under dynamic clipping", "(0, 1]"),
    "diffusion": Key(1.0, "Noise w of pc, adaptive and dpmpp_2m_sde, of variance w g^2 dt; 0 is the ODE", "[0, inf)"),
    "num_samples": Key(64, "Samples that --mode=sample draws", "[1, inf)"),
    "batch_size": Key(
        None,
        "Samples that are drawn at a time; None: as many as eval.batch_size; 0: as many as fit in memory",
        "[0, inf)",
        kind=int,
    ),
    "condition": Key(
        "",
        "Condition of the samples: a class (class=3, class=all), a caption (text=a red circle, text=A;towards=B), "
        "captions in turn (texts=FILE, texts=test) or rows of other conditions (cond=FILE.npz), an observation "
        '(inpaint=right_half, colorize, superresolve=4, deblur=2.0, sense=0.3), or both, joined by ";"',
    ),
    "same_noise": Key(
        1,
        "Consecutive samples that share their noise, as under several captions; those of text=A;towards=B go from A to "
        "B over so many",
        "[1, inf)",
    ),
    "ema": Key(
        "",
        "Average of ema.profiles that snapshots, eval and sample use; empty: the first. eval and sample also take one "
        "that is made after the fact, power:SIGMA_REL",
    ),
}

GUIDANCE = {
    "scale": Key(1.0, "Scale of guidance towards the condition: 1 is Bayes' rule, 0 none", "[0, inf)"),
    "interval": Key((0.0, 1.0), "Times between which there is guidance, low < high", "[0, 1]", kind=tuple[float, ...]),
    "negative": Key("", "Caption that guidance moves away from, in place of the null caption; empty: the null caption"),
    "classifier": Key("", "Workdir of a noise-conditional classifier, for networks that take no classes"),
    "weak": Key("", "Workdir of a weaker network, for autoguidance"),
    "weak_step": Key(None, "Step of the weaker network's checkpoint; None: the last", "[0, inf)", kind=int),
    "inverse": Key(
        "projection", "Method by which samples meet an observation", "score_sde.conditioning.posterior:METHODS"
    ),
    "noise": Key(0.0, "Standard deviation of the observation's noise, for pixels in [0, 1]", "[0, inf)"),
    "samples_each": Key(4, "Samples of each observation", "[1, inf)"),
    "step": Key(1.0, "Size zeta of the steps of dps", "(0, inf)"),
    "iterations": Key(5, "Iterations of tmpd's conjugate gradients", "[1, inf)"),
    "particles": Key(64, "Particles of each sample", "[2, inf)"),
}

EVAL = {
    "batch_size": Key(1024, "Images evaluated at a time", "[1, inf)"),
    "precision": Key("tf32", "Precision of losses and likelihoods, for which bfloat16 is too coarse", PRECISIONS),
    "max_images": Key(
        None,
        "Images of the split on which loss, bits/dim, their bound and accuracy are evaluated, the same ones for each "
        "number and network; None: all",
        "[1, inf)",
        kind=int,
    ),
    "begin_ckpt": Key(
        9, "First snapshot that is evaluated, counted in training.snapshot_freq; -1: the last one alone", "[-1, inf)"
    ),
    "end_ckpt": Key(26, "Last snapshot that is evaluated, counted in training.snapshot_freq", "[-1, inf)"),
    "enable_loss": Key(True, "Whether the loss is evaluated"),
    "enable_bpd": Key(False, "Whether bits/dim are evaluated, by the probability-flow ODE"),
    "enable_sampling": Key(False, "Whether samples are drawn and measured"),
    "num_samples": Key(50_000, "Samples that are measured", "[1, inf)"),
    "bpd_dataset": Key("test", "Split of bits/dim", ("train", "test"), formerly=("eval.dataset",)),
    "bpd_num_repeats": Key(
        5, "Passes of bits/dim with fresh dequantization noise and probes; a training set is passed once", "[1, inf)"
    ),
    "bpd_with_cond": Key(
        False,
        "Whether bits/dim and their bound are of p(x | c), given each image's own condition, and not of p(x)",
    ),
    "hutchinson_type": Key(
        "rademacher", "Estimate of the divergence in bits/dim", "score_sde.likelihood:DIVERGENCES", any_case=True
    ),
    "num_probes": Key(1, "Probes of that estimate; hutch++ needs at least 3", "[1, inf)"),
    "dequantization": Key(
        "uniform",
        "Dequantization of bits/dim; --mode=train_dequantizer trains the variational one",
        "score_sde.likelihood.dequantization:CHOICES",
        any_case=True,
    ),
    "enable_bound": Key(
        False, "Whether the reverse SDE's upper bound on bits/dim is evaluated, on the data and passes of bits/dim"
    ),
    "bound_num_times": Key(
        16, "Times that are drawn for each image of that bound, which evaluates the network once more", "[1, inf)"
    ),
    "rtol": Key(1e-5, "Relative tolerance of the likelihood's ODE, at least 1e-7 in float32", "[1e-7, inf)"),
    "atol": Key(1e-5, "Absolute tolerance of the likelihood's ODE", "(0, inf)"),
    "ode_method": Key("dopri5", "Runge-Kutta pair that solves the likelihood's ODE", TABLEAUS),
}

METRICS = {
    "features": Key(
        "inception",
        "Features by which samples and data are compared",
        ("inception", "trained", "none"),
        takes_path=True,
    ),
    "weights": Key("", "File of Inception's weights; empty: in `dir`, downloaded", moves_numbers=False),
    "statistics": Key("", "File of the data's statistics; empty: in `dir`, computed"),
    "dir": Key(
        "",
        "Folder of weights and statistics; empty: the environment's SCORE_SDE_CACHE, else ~/.cache/score_sde",
        moves_numbers=False,
    ),
    "split": Key("train", "Split that samples are compared with", ("train", "test")),
    "batch_size": Key(128, "Images whose features are computed at a time", "[1, inf)"),
    "inception_splits": Key(
        1, "Parts whose Inception scores are averaged; 1, as in the paper's code: all images at once", "[1, inf)"
    ),
    "nf": Key(32, "Channels of the trained features' network, a multiple of 4", "[1, inf)"),
    "dimension": Key(64, "Number of trained features", "[1, inf)"),
    "n_iters": Key(1000, "Updates of the trained features' network", "[1, inf)"),
    "lr": Key(1e-3, "Learning rate of the trained features' network", "(0, inf)"),
    "seed": Key(0, "Seed of the trained features' network", SEEDS),
}

DEQUANTIZER = {
    "nf": Key(32, "Channels of the dequantizer's network", "[1, inf)"),
    "num_res_blocks": Key(2, "Residual blocks of the dequantizer's network", "[0, inf)"),
    "batch_size": Key(128, "Images in an update of the dequantizer", "[1, inf)"),
    "n_iters": Key(10_000, "Updates after which the dequantizer's training ends", "[1, inf)"),
    "lr": Key(1e-3, "Learning rate of the dequantizer", "(0, inf)"),
    "num_times": Key(1, "Times of the bound that is minimised, as eval.bound_num_times", "[1, inf)"),
    "log_freq": Key(50, "Updates between lines of the dequantizer's metrics.jsonl", "[1, inf)"),
    "snapshot_freq": Key(
        1000, "Updates between checkpoints to resume from, of which the last two are kept", "[1, inf)"
    ),
}

WANDB = {
    "mode": Key("disabled", "Mode of Weights & Biases", ("disabled", "offline", "online")),
    "project": Key("score_sde", "Project at Weights & Biases"),
    "entity": Key("", "User or team at Weights & Biases that the project is of; empty: your default one"),
    "group": Key("", "Group of runs at Weights & Biases; empty: none, but in a sweep its folder's name"),
    "name": Key("", "Name of the run at Weights & Biases; empty: that of the workdir"),
}
