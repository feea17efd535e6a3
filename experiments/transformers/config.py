"""A model of the comparison, as a config: `--config=experiments/transformers/config.py:uvit`.

Data, batch, number of updates and average are the same for the four, and the objective (VP, the noise as target) for
the three diffusion models. `size` gives the transformers as many parameters as the U-Net.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ml_collections import ConfigDict
from score_sde.configs.presets import compose, ddpmpp, digits, network, small, vp
from score_sde.experiments.autoregressive.config import NETWORK
from score_sde.experiments.autoregressive.config import get_config as autoregressive
from score_sde.experiments.autoregressive.density import Density
from score_sde.experiments.transformers.size import Size, fitted

from score_sde.errors import one_of
from score_sde.training.build import Experiment, parameter_counts

UPDATES = 1200
EQUAL = {
    "training.batch_size": 128,
    "training.n_iters": UPDATES,
    "training.snapshot_freq": UPDATES,
    "training.snapshot_freq_for_preemption": 250,
    "training.eval_freq": 250,
    "training.log_freq": 25,
    "optim.ema_rate": 0.995,
    "optim.warmup": 100,
    "optim.lr": 3e-3,  # the README has the losses of others
    "eval.batch_size": 512,
}
OF_DIFFUSION = {
    "eval.rtol": 1e-3,  # half the evaluations of 1e-4, and the same bits/dim to a thousandth
    "eval.atol": 1e-3,
}
AUTOREGRESSIVE = "autoregressive"
WIDTH, HEADS = 48, 4
TOKENS = {"width": WIDTH, "num_heads": HEADS}
NETWORKS: dict[str, dict[str, Any]] = {
    "unet": {"model.nf": 16},  # DDPM++, as in the recipes
    "uvit": {},  # U-ViT (Bao et al., 2022)
    "dit": {},  # DiT (Peebles and Xie, 2022)
}
MODELS = (*NETWORKS, AUTOREGRESSIVE)
DEPTHS: dict[str, Sequence[int]] = {"uvit": range(2, 40, 2), "dit": range(1, 40), AUTOREGRESSIVE: range(1, 40)}
"""Numbers of blocks to choose from; U-ViT has one more, in the middle."""


class Shape(NamedTuple):
    """The images of a data set, and where the U-Net has attention."""

    side: int
    channels: int
    attention: int


SHAPES = {"digits": Shape(8, 1, 4), "mnist": Shape(28, 1, 14), "fashion_mnist": Shape(28, 1, 14)}
OTHERS = Shape(32, 3, 16)


def transformer(name: str) -> Callable[[ConfigDict], None]:
    """The network of this name over patches of 2x2 pixels."""
    return network(name, patch_size=2, depth=4, **TOKENS)


def get_config(name: str) -> ConfigDict:
    if one_of("model", name, MODELS) == AUTOREGRESSIVE:
        config = autoregressive()
        config.model.update(TOKENS)
        config.update_from_flattened_dict(EQUAL)
        return config
    config = compose(ddpmpp, vp, digits, small if name == "unet" else transformer(name))
    config.update_from_flattened_dict(EQUAL | OF_DIFFUSION | NETWORKS[name])
    return config


def data_of(name: str, model: str) -> dict[str, Any]:
    """Config values of a model for a data set of this name, none for the digits."""
    if name.lower() == "digits":
        return {}
    shape = SHAPES.get(name.lower(), OTHERS)
    values = {"data.dataset": name, "data.image_size": shape.side, "data.num_channels": shape.channels}
    return values | ({"model.attn_resolutions": (shape.attention,)} if model == "unet" else {})


def parameters(config: ConfigDict) -> int:
    """The number of parameters of a config's network."""
    kind = Density if config.model.name == NETWORK else Experiment
    return parameter_counts(kind(config).param_shapes)[0]


def size(name: str, config: ConfigDict, target: int) -> Size:
    """The size at which the transformer of a config has `target` parameters. name: of its model in the comparison."""
    changed = config.copy_and_resolve_references()

    def count(depth: int, width: int) -> int:
        changed.model.update(depth=depth, width=width)
        return parameters(changed)

    return fitted(count, target, WIDTH, DEPTHS[name], HEADS)
