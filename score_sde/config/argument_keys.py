"""Keys of the sections that name a class and hold its arguments.

Each field of each class of the package has a row. `process`, `parameterization`, `times` and `weight` hold the
arguments of all classes in their dictionary, None being a class's own default; `sde` and `model` hold those of the
chosen class, as presets set them. A class at an import path has its own arguments, without rows here.

The values of an argument are those that the classes' annotations say: `width: Annotated[int, "[1, inf)"]`.
"""

import dataclasses
from typing import Any

from score_sde.config.keys import ABSENT, Key

Ints, Floats = tuple[int, ...], tuple[float, ...]


def _argument(kind: Any, sentence: str, values: str = "") -> Key:
    """An argument for which None stands for the class's own default."""
    return Key(None, sentence, values, kind=kind)


def _annotated(choices: str, keys: dict[str, Key]) -> dict[str, Key]:
    """The same keys with values by the annotations of the classes in `choices`, where they say none themselves."""
    return {
        name: key if key.values or key.kind is bool else dataclasses.replace(key, values=f"{choices}.{name}")
        for name, key in keys.items()
    }


def _required(keys: dict[str, Key]) -> dict[str, Key]:
    """The same keys for a section that holds the arguments of one class."""
    return {name: dataclasses.replace(key, default=ABSENT) for name, key in keys.items()}


def _name(sentence: str, choices: str, replaces: tuple[str, ...]) -> Key:
    """The row of a section that replaces keys of the paper's, once it names a piece."""
    return Key("", f"{sentence}; empty: the paper's keys say it", choices, takes_path=True, replaces=replaces)


SCHEDULE = {
    "beta_min": _argument(float, "Noise rate beta at t = 0 of VP and sub-VP; the paper's is 0.1"),
    "beta_max": _argument(float, "Noise rate beta at t = 1 of VP and sub-VP; the paper's is 20"),
    "sigma_min": _argument(float, "Standard deviation of the noise at t = 0 of VE and EDM, for data in model range"),
    "sigma_max": _argument(
        float, "Standard deviation of the noise at t = 1 of VE and EDM, about the largest distance between two images"
    ),
    "num_scales": _argument(int, "Steps N of the process's chain, and of pc"),
}
PROCESS = _annotated(
    "score_sde.paths:PROCESSES",
    {
        "name": _name("Process x_t = alpha(t) x_0 + sigma(t) eps", "score_sde.paths:PROCESSES", ("sde",)),
        **SCHEDULE,
        "s": _argument(float, "Offset of the cosine schedule, which keeps the first noise levels from being too small"),
        "noise_min": _argument(float, "Noise level sigma / alpha at t = 0 of the learned schedule"),
        "noise_max": _argument(float, "Noise level sigma / alpha at t = 1 of the learned schedule"),
        "pieces": _argument(int, "Pieces of [0, 1] on each of which the learned schedule's rate is linear, at least 1"),
    },
)
PARAMETERIZATION = _annotated(
    "score_sde.parameterization:PARAMETERIZATIONS",
    {
        "name": _name(
            "Quantity that the network learns",
            "score_sde.parameterization:PARAMETERIZATIONS",
            ("model.scale_by_sigma",),
        ),
        "noise_cond": _argument(str, "Noise condition that tells the time", "score_sde.parameterization:NOISE_CONDS"),
        "time_scale": _argument(float, "Factor on t in the noise condition `time`; the paper's is 999"),
        "sigma_data": _argument(float, "Standard deviation of the data in model range, of edm; CIFAR-10's is 0.5"),
    },
)
TIMES = _annotated(
    "score_sde.times:TIMES",
    {
        "name": _name("Law of the times that are trained on", "score_sde.times:TIMES", ("training.continuous",)),
        "eps": _argument(float, "Least time that is trained on, in (0, 1); the paper's is 1e-5"),
        "P_mean": _argument(float, "Mean of log(sigma / alpha), of lognormal (Karras et al., 2022)"),
        "P_std": _argument(float, "Standard deviation of log(sigma / alpha), of lognormal (Karras et al., 2022)"),
        "mean": _argument(float, "Mean of log(t / (1 - t)), of logit_normal (Esser et al., 2024)"),
        "std": _argument(float, "Standard deviation of log(t / (1 - t)), of logit_normal (Esser et al., 2024)"),
    },
)
WEIGHT = _annotated(
    "score_sde.weights:WEIGHTS",
    {
        "name": _name(
            "Weight of the squared error at t", "score_sde.weights:WEIGHTS", ("training.likelihood_weighting",)
        ),
        "reduction": dataclasses.replace(
            _argument(str, "Reduction of the loss over an image's numbers", "score_sde.weights:REDUCTIONS"),
            replaces=("training.reduce_mean",),
        ),
        "sigma_data": _argument(float, "Standard deviation of the data in model range, of edm; CIFAR-10's is 0.5"),
        "gamma": _argument(float, "Largest signal-to-noise ratio of min_snr; 5 as published (Hang et al., 2023)"),
        "base": _argument(str, "Weight that uncertainty learns to divide", "score_sde.weights:WEIGHTS"),
        "features": _argument(int, "Features of the noise level from which uncertainty is learned, at least 1"),
    },
)

ENCODER = _annotated(
    "score_sde.models:ENCODERS",
    {
        "name": Key(
            "",
            "Encoder of the conditions that a network takes besides classes; empty: none",
            "score_sde.models:ENCODERS",
            takes_path=True,
        ),
        "size": _argument(int, "Length of the vector that comes with each image, or with each token, at least 1"),
        "entry": _argument(str, "Name of the condition's entry, the same as in the data set"),
        "features": _argument(int, "Width of the encoder's embedding, at least 1"),
        "vocab_size": _argument(int, "Number of tokens that there are, at least 1"),
        "max_tokens": _argument(int, "Greatest number of tokens of a condition, at least 1"),
        "depth": _argument(int, "Blocks of the transformer over tokens, at least 1"),
        "num_heads": _argument(int, "Heads of the attention of tokens to each other, which divide features"),
    },
)

SDE = _annotated(
    "score_sde.sde:SDES",
    {
        "name": Key(
            "vesde",
            "SDE of the paper",
            "score_sde.sde:SDES",
            takes_path=True,
            formerly=("training.sde", "training.loss"),
        ),
        **{name: dataclasses.replace(key, formerly=(f"model.{name}",)) for name, key in _required(SCHEDULE).items()},
    },
)
MODEL = _annotated(
    "score_sde.models:MODELS+CLASSIFIERS",
    {
        "name": Key(
            "ncsnpp", "Network, of a score or a classifier", "score_sde.models:MODELS+CLASSIFIERS", takes_path=True
        ),
        **_required(
            {
                "scale_by_sigma": _argument(
                    bool, "Whether the network's output is divided by sigma, for the VE SDE alone"
                ),
                "nf": _argument(int, "Channels of the first level"),
                "ch_mult": _argument(
                    Ints, "Factors on nf, one for each level; each level but the first halves the image"
                ),
                "num_res_blocks": _argument(int, "Residual blocks of each level"),
                "attn_resolutions": _argument(Ints, "Heights, in pixels, of feature maps with attention"),
                "patch_size": _argument(int, "Height and width of a transformer's patch, which divides the image's"),
                "width": _argument(int, "Features of a transformer's token, a multiple of num_heads"),
                "depth": _argument(int, "Blocks of a transformer; U-ViT's has one more, in the middle"),
                "mlp_ratio": _argument(float, "Width of the inner layer of a transformer's MLP over that of a token"),
                "skip": _argument(bool, "Whether U-ViT has long skip connections"),
                "conv": _argument(bool, "Whether a 3x3 convolution of the image is U-ViT's last layer"),
                "mlp_time_embed": _argument(bool, "Whether an MLP precedes U-ViT's token of the noise level"),
                "dropout": _argument(float, "Probability of dropout in residual blocks"),
                "nonlinearity": _argument(str, "Activation between layers", "score_sde.models.layers:ACTIVATIONS"),
                "conditional": _argument(bool, "Whether the network takes the noise level"),
                "embedding_type": _argument(
                    str,
                    "Embedding of the noise condition: fourier (of its logarithm), fourier_linear or positional",
                ),
                "fourier_scale": _argument(float, "Standard deviation of the frequencies of the Fourier embedding"),
                "resblock_type": _argument(str, "Residual block: ddpm or biggan"),
                "resamp_with_conv": _argument(bool, "Whether resampling has a convolution"),
                "fir": _argument(bool, "Whether resampling is by a finite impulse response filter"),
                "fir_kernel": _argument(Floats, "Taps of that filter, two or more"),
                "skip_rescale": _argument(bool, "Whether skip connections are divided by sqrt(2)"),
                "progressive": _argument(str, "Image pyramid at the output: none, output_skip or residual"),
                "progressive_input": _argument(str, "Image pyramid at the input: none, input_skip or residual"),
                "progressive_combine": _argument(str, "How the input pyramid joins the features: sum or cat"),
                "attention_up": _argument(
                    str, "Blocks that attention follows on the way up of DDPM: the last of a level, or each"
                ),
                "init_scale": _argument(float, "Scale at which the last convolution of each block starts"),
                "num_classes": _argument(int, "Number of classes that the network takes; 0: none"),
                "label_embedding": _argument(
                    str, "How classes enter: by a table, whose last row is null, or linear, where null is zero"
                ),
                "num_heads": _argument(int, "Heads of attention; 0, of ADM alone: one for each head_channels channels"),
                "head_channels": _argument(int, "Channels of a head of attention"),
                "scale_shift": _argument(bool, "Whether the embedding scales and shifts features, or only shifts them"),
                "cross_resolutions": _argument(
                    Ints, "Heights, in pixels, of feature maps that attend to the encoder's tokens; (): none"
                ),
                "cross_heads": _argument(int, "Heads of this attention, which divide the channels there"),
                "num_groups": _argument(int, "Groups of normalisations; 0: one for each 4 channels, at most 32"),
                "embedding_size": _argument(int, "Features of the noise level's positional embedding; 0: nf"),
                "learned_variance": _argument(
                    bool, "Whether the network also has outputs of a variance, which are left out"
                ),
                "augment_dim": _argument(int, "Number of labels that tell the network an augmentation; 0: none"),
                "interpolation": _argument(str, "Interpolation of RefineNets", "score_sde.models.ncsn:INTERPOLATIONS"),
                "blocks_per_group": _argument(int, "Blocks n in each of three groups, for a depth of 6 n + 4"),
                "channel_multiplier": _argument(int, "Factor on the 16, 32 and 64 channels of the groups"),
                "num_outputs": _argument(int, "Number of classes that the classifier tells apart"),
                "mean": _argument(Floats, "Mean of each channel of the data, in [0, 1]"),
                "std": _argument(Floats, "Standard deviation of each channel of the data, in [0, 1]"),
            }
        ),
    },
)
MODEL["num_classes"] = dataclasses.replace(MODEL["num_classes"], older=0, older_of=("ncsnpp",))
