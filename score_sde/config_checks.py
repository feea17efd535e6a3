"""Choices and ranges of config values that no constructor checks."""

import math

from score_sde import dequantization, ema, likelihood, protocols
from score_sde.config import Config
from score_sde.data import OPTIONS, Options, dataset
from score_sde.errors import UsageError, one_of
from score_sde.import_paths import choose, is_import_path
from score_sde.models import PRECISIONS
from score_sde.sampling.probability_flow import check_tolerances


def check_values(config: Config) -> None:
    """Raises `UsageError` for a value out of range, or values that make no sense together."""
    dataset(config.data.dataset, config.data.data_dir)
    Options(**{key: config.data[key] for key in OPTIONS}).check()
    one_of("optim.optimizer", config.optim.optimizer, ("Adam",))
    one_of("eval.bpd_dataset", config.eval.bpd_dataset, ("train", "test"))
    likelihood.check_divergence(config.eval.hutchinson_type.lower(), config.eval.num_probes)
    one_of("eval.dequantization", config.eval.dequantization.lower(), dequantization.CHOICES)
    if is_import_path(config.metrics.features):
        choose("metrics.features", config.metrics.features, {}, protocols.FeatureNetwork)
    else:
        one_of("metrics.features", config.metrics.features, ("inception", "trained", "none"))
    one_of("metrics.split", config.metrics.split, ("train", "test"))
    for key in ("batch_size", "nf", "dimension", "n_iters", "lr"):
        check_positive(f"metrics.{key}", config.metrics[key])
    if config.metrics.nf % 4:
        raise UsageError(f"metrics.nf={config.metrics.nf} must be a multiple of 4, for groups of 8 channels.")
    one_of("wandb.mode", config.wandb.mode, ("disabled", "offline", "online"))
    one_of("training.nonfinite", config.training.nonfinite, ("stop", "skip"))
    for section in ("training", "sampling"):
        one_of(f"{section}.precision", config[section].precision, PRECISIONS)
    if one_of("eval.precision", config.eval.precision, PRECISIONS) == "bfloat16":
        raise UsageError(
            "Likelihoods need more than the three digits of bfloat16; set eval.precision to tf32 or float32."
        )
    if config.sampling.batch_size:  # 0: as many as there is room for
        check_positive("sampling.batch_size", config.sampling.batch_size)
    training = config.training
    every = ("snapshot_freq", "snapshot_freq_for_preemption", "log_freq", "eval_freq")
    for key in ("batch_size", "n_iters", "keep_last", "fsdp", "accumulate", *every):
        check_positive(f"training.{key}", training[key])
    if config.profile < 0:
        raise UsageError(f"profile={config.profile} must not be negative; 0 traces nothing.")
    if training.keep_best < 0:
        raise UsageError(f"training.keep_best={training.keep_best} must not be negative; 0 keeps none for its loss.")
    if not 0 <= training.label_dropout < 1:
        raise UsageError(f"training.label_dropout={training.label_dropout} must be in [0, 1); 0 gives every condition.")
    for key in ("batch_size", "num_samples", "bpd_num_repeats", "bound_num_times"):
        check_positive(f"eval.{key}", config.eval[key])
    for key in ("image_size", "num_channels"):
        check_positive(f"data.{key}", config.data[key])
    check_positive("sampling.num_samples", config.sampling.num_samples)
    check_positive("optim.lr", config.optim.lr)
    if not 0 <= config.optim.ema_rate < 1:
        raise UsageError(f"optim.ema_rate={config.optim.ema_rate} must be in [0, 1); 0 means no averaging.")
    one_of("optim.ema_schedule", config.optim.ema_schedule, ema.SHORTHAND)
    profiles = ema.profiles_of(config.ema.profiles, config.optim.ema_rate, config.optim.ema_schedule)
    ema.chosen(profiles, config.sampling.ema)
    check_positive("sampling.temperature", config.sampling.temperature)
    check_tolerances(config.sampling.rtol, config.sampling.atol)
    check_tolerances(config.eval.rtol, config.eval.atol)
    if not training.continuous and config.model.get("embedding_type") == "fourier":
        raise UsageError(
            "A Fourier embedding takes the logarithm of sigma, and training.continuous=False gives the network integer "
            "labels; set model.embedding_type=positional."
        )
    if training.continuous and config.model.name == "ncsn":
        raise UsageError("NCSN has an embedding for each noise level; set training.continuous=False.")
    if training.likelihood_weighting and not training.continuous:
        raise UsageError(
            "training.likelihood_weighting=True is defined for continuous times; set training.continuous=True."
        )


def check_positive(name: str, value: float) -> None:
    """Raises `UsageError` unless 0 < value < infinity."""
    if not 0 < value < math.inf:
        raise UsageError(f"{name}={value} must be positive and finite.")
