"""Layout of EDM's `SongUNet` (Karras et al., 2022): its tensors as our parameters, its arguments as our config.

| modules of theirs                        | ours                                                                      |
|------------------------------------------|---------------------------------------------------------------------------|
| `map_noise`                              | `GaussianFourierProjection_0`, whose frequencies are stored               |
| `map_label`, `map_augment`               | `of_labels`, `of_augment`                                                 |
| `map_layer0`, `map_layer1`               | `Dense_0`, `Dense_1`                                                      |
| `enc.32x32_block0`, `dec.32x32_up`, ...  | a residual block, and attention, counted in the order of their creation   |
| `aux_residual`, `aux_skip`               | `Downsample_i` and `Combine_i`, of the input pyramid                      |
| `aux_norm`, `aux_conv`                   | the last `GroupNorm_i` and `Conv_i`, of each level with an output pyramid |

A tensor of theirs begins with the axis of outputs, ours end with it; q, k and v are every third output of one map.
Filters, and the noise levels of iDDPM's chain, are constants, which are compared with ours. Names may begin with
`model.`, as those of a network inside its preconditioning do.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from score_sde.array_types import ImageShape, PyTree
from score_sde.config.arguments import check_arguments
from score_sde.config.keys import is_scalar, plain
from score_sde.errors import UsageError
from score_sde.inference.published_tensors import (
    Shapes,
    check_shapes,
    finite,
    kernel,
    kernel_shape,
    leaf_shapes,
    unflatten,
)
from score_sde.models import NCSNpp
from score_sde.parameterization import cosine_levels

WHERE = "The network of EDM"
WEIGHTS = ("kernel", "scale", "weight", "W")  # names of a layer's first leaf here; the other is its bias

BLOCK = {"norm0": "GroupNorm_0", "conv0": "Conv_0", "affine": "Dense_0", "norm1": "GroupNorm_1", "conv1": "Conv_1"}


class Origin(NamedTuple):
    """The tensor that holds one of our leaves, in its outputs `first`, `first + step`, ...; and the leaf's shape."""

    tensor: str
    first: int = 0
    step: int = 1
    shape: tuple[int, ...] = ()


@check_arguments
def params_of(tensors: Mapping[str, np.ndarray], network: NCSNpp, image_shape: ImageShape) -> PyTree:
    """Our parameters of a network, from the tensors of EDM's, of which all names and shapes are compared.

    tensors: {"enc.32x32_block0.conv0.weight": array, ...}. image_shape: (h, w, c).
    Raises `UsageError` naming the first tensor that is missing, left over, of another shape or not finite, and for a
    filter or a chain that is not the network's.

        import numpy as np

        from score_sde.inference.edm_layout import origins, params_of, published_shapes
        from score_sde.models import NCSNpp

        network = NCSNpp(nf=8, ch_mult=(2,), num_res_blocks=1, label_embedding="linear", num_classes=3)
        shapes = published_shapes(origins(network, (8, 8, 1)))
        params = params_of({name: np.zeros(shape, np.float32) for name, shape in shapes.items()}, network, (8, 8, 1))
    """
    if all(name.startswith("model.") for name in tensors.keys() - {"u"}):
        tensors = {name.removeprefix("model."): value for name, value in tensors.items()}
    sources = origins(network, image_shape)
    constants = {name: tensors[name] for name in tensors if name == "u" or name.endswith(".resample_filter")}
    weights = {name: tensors[name] for name in tensors if name not in constants}
    check_shapes(weights, published_shapes(sources), WHERE)
    _check_constants(constants, network)
    checked = {name: finite(value, f"{WHERE}: {name}") for name, value in weights.items()}
    return unflatten({path: _ours(checked[at.tensor][at.first :: at.step], at.shape) for path, at in sources.items()})


@check_arguments
def origins(network: NCSNpp, image_shape: ImageShape) -> dict[str, Origin]:
    """The tensor that holds each of our leaves, {"Dense_0/kernel": Origin("map_layer0.weight", 0, 1, (8, 32)), ...}.

    Raises `UsageError` for options that EDM's network has not.
    """
    x, noise_cond = jnp.zeros((1, *image_shape)), jnp.ones(1)
    shapes = leaf_shapes(lambda: network.init(jax.random.key(0), x, noise_cond)["params"])
    modules, sources = dict(_modules(network, image_shape)), {}
    for path, shape in shapes.items():
        module, _, leaf = path.rpartition("/")
        if module not in modules or image_shape[0] != image_shape[1]:
            raise UsageError(
                f"EDM's networks have no {path} at {image_shape[0]}x{image_shape[1]} pixels; import the file under a "
                "config with their options of the model."
            )
        name, first, step, _ = modules[module]
        last = "freqs" if name == "map_noise" else "weight" if leaf in WEIGHTS else "bias"
        sources[path] = Origin(f"{name}.{last}", first, step, shape)
    return sources


@check_arguments
def published_shapes(sources: Mapping[str, Origin]) -> Shapes:
    """The shape of each tensor of EDM's network, {"map_layer0.weight": (512, 128), ...}, without constants.

    sources: by `origins`.
    """
    published = {}
    for path, at in sources.items():
        outputs, *rest = kernel_shape(at.shape)
        published[at.tensor] = (outputs * at.step, *rest, *((1, 1) if path.endswith("/W") and rest else ()))
    return published


def _modules(network: NCSNpp, image_shape: ImageShape) -> Iterator[tuple[str, Origin]]:
    """Our modules by path, each with that of theirs, in the order in which theirs are created."""
    counts = dict.fromkeys(("ResnetBlockBigGANpp", "AttnBlockpp", "Downsample", "Combine", "GroupNorm", "Conv"), 0)
    last = len(network.ch_mult) - 1

    def count(name: str) -> str:
        counts[name] += 1
        return f"{name}_{counts[name] - 1}"

    def block(name: str, *, attention: bool = False) -> Iterator[tuple[str, Origin]]:
        path = count("ResnetBlockBigGANpp")
        yield from ((f"{path}/{ours}", Origin(f"{name}.{theirs}")) for theirs, ours in BLOCK.items())
        yield f"{path}/Conv_2", Origin(f"{name}.skip")
        if attention:
            path = count("AttnBlockpp")
            yield f"{path}/GroupNorm_0", Origin(f"{name}.norm2")
            yield from ((f"{path}/NIN_{i}", Origin(f"{name}.qkv", i, 3)) for i in range(3))
            yield f"{path}/NIN_3", Origin(f"{name}.proj")

    yield "GaussianFourierProjection_0", Origin("map_noise")
    yield "of_labels", Origin("map_label")
    yield "of_augment", Origin("map_augment")
    yield "Dense_0", Origin("map_layer0")
    yield "Dense_1", Origin("map_layer1")
    sizes = [f"{image_shape[0] >> level}x{image_shape[0] >> level}" for level in range(last + 1)]
    attends = [image_shape[0] >> level in network.attn_resolutions for level in range(last + 1)]
    yield count("Conv"), Origin(f"enc.{sizes[0]}_conv")
    for level, size in enumerate(sizes):
        if level:
            yield from block(f"enc.{size}_down")
            if network.progressive_input == "residual":
                yield f"{count('Downsample')}/Conv2d_0", Origin(f"enc.{size}_aux_residual")
            elif network.progressive_input == "input_skip":
                count("Downsample")  # without parameters
                yield f"{count('Combine')}/Conv_0", Origin(f"enc.{size}_aux_skip")
        for i in range(network.num_res_blocks):
            yield from block(f"enc.{size}_block{i}", attention=attends[level])
    for level, size in reversed(list(enumerate(sizes))):
        if level == last:
            yield from block(f"dec.{size}_in0", attention=True)
            yield from block(f"dec.{size}_in1")
        else:
            yield from block(f"dec.{size}_up")
        for i in range(network.num_res_blocks + 1):
            yield from block(f"dec.{size}_block{i}", attention=attends[level] and i == network.num_res_blocks)
        if network.progressive == "output_skip" or level == 0:
            yield count("GroupNorm"), Origin(f"dec.{size}_aux_norm")
            yield count("Conv"), Origin(f"dec.{size}_aux_conv")


def _ours(value: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    value = value.reshape(value.shape[: len(shape)])  # the maps of attention are 1x1 convolutions there
    return kernel(value)


def _check_constants(constants: Mapping[str, np.ndarray], network: NCSNpp) -> None:
    """Raises `UsageError` for filters that are not the network's, and for another chain than iDDPM's."""
    taps = np.array(network.fir_kernel if network.fir else (1, 1), np.float32)
    expected = np.outer(taps, taps) / np.square(taps.sum())
    for name, value in constants.items():
        if name == "u":
            if value.shape != (len(cosine_levels()),) or not np.allclose(value[::-1], cosine_levels(), rtol=0.01):
                raise UsageError(f"{WHERE}: u is not the chain of 1,000 steps that noise_cond=cosine_index has.")
        elif np.squeeze(value).shape != expected.shape or not np.allclose(np.squeeze(value), expected, atol=1e-6):
            raise UsageError(
                f"{WHERE}: {name} is another filter than that of model.fir_kernel={tuple(network.fir_kernel)} and "
                f"model.fir={network.fir}."
            )


# Arguments of their network and of its preconditioning: our config.

EMBEDDINGS = {"positional": ("positional", 1), "fourier": ("fourier_linear", 2)}  # the second: channel_mult_noise
INPUTS = {"standard": "none", "skip": "input_skip", "residual": "residual"}
OUTPUTS = {"standard": "none", "skip": "output_skip"}
NETWORK: dict[str, Any] = dict(
    augment_dim=0,
    model_channels=128,
    channel_mult=(1, 2, 2, 2),
    channel_mult_emb=4,
    num_blocks=4,
    attn_resolutions=(16,),
    dropout=0.1,
    label_dropout=0.0,
    embedding_type="positional",
    channel_mult_noise=1,
    encoder_type="standard",
    decoder_type="standard",
    resample_filter=(1.0, 1.0),
)
SHARED: dict[str, Any] = dict(img_resolution=0, img_channels=0, label_dim=0, use_fp16=False)
PRECONDITIONINGS: dict[str, dict[str, Any]] = {
    "VPPrecond": dict(beta_d=19.9, beta_min=0.1, M=1000, epsilon_t=1e-5, model_type="SongUNet"),
    "VEPrecond": dict(sigma_min=0.02, sigma_max=100.0, model_type="SongUNet"),
    "iDDPMPrecond": dict(C_1=0.001, C_2=0.008, M=1000, model_type="DhariwalUNet"),
    "EDMPrecond": dict(sigma_min=0.0, sigma_max=float("inf"), sigma_data=0.5, model_type="DhariwalUNet"),
}


@check_arguments
def values_of(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Values of our config by key, from the arguments of a preconditioned `SongUNet`.

    kwargs: those of the preconditioning's constructor, and its name as `class_name`, with or without a module. Those
    that are absent have EDM's defaults. Raises `UsageError` for arguments that no network here has.

        from score_sde.inference.edm_layout import values_of

        kwargs = dict(class_name="EDMPrecond", model_type="SongUNet", img_resolution=32, img_channels=3)
        values = values_of(kwargs)  # {"data.image_size": 32, ..., "process.name": "edm", ..., "model.nf": 128, ...}
    """
    values, model = objective_values(kwargs), network_arguments(kwargs, NETWORK)
    if (model_type := model["model_type"]) != "SongUNet":
        raise UsageError(f"{WHERE} is a {model_type}, and this layout is that of SongUNet.")
    taps = model["resample_filter"]
    embedding, mult_noise = _choice(model, "embedding_type", EMBEDDINGS)
    for name, only in (("channel_mult_emb", 4), ("channel_mult_noise", mult_noise)):
        if model[name] != only:
            raise UsageError(f"{WHERE} has {name}={model[name]}; with its other arguments only {only} can be read.")
    progressive_input = _choice(model, "encoder_type", INPUTS)
    network = dict(
        name="ncsnpp",
        scale_by_sigma=False,
        nf=model["model_channels"],
        ch_mult=model["channel_mult"],
        num_res_blocks=model["num_blocks"],
        attn_resolutions=model["attn_resolutions"],
        dropout=model["dropout"],
        nonlinearity="swish",
        conditional=True,
        embedding_type=embedding,
        fourier_scale=16.0,
        resblock_type="biggan",
        resamp_with_conv=True,
        fir=taps != (1.0, 1.0) or progressive_input == "residual",  # without: the same maps, in fewer operations
        fir_kernel=taps,
        skip_rescale=True,
        progressive=_choice(model, "decoder_type", OUTPUTS),
        progressive_input=progressive_input,
        progressive_combine="sum",
        init_scale=0.0,
        num_classes=model["label_dim"],
        label_embedding="linear",
        augment_dim=model["augment_dim"],
        learned_variance=_class_name(kwargs) == "iDDPMPrecond",
    )
    values |= {f"model.{name}": value for name, value in network.items()}
    return values | {"training.label_dropout": model["label_dropout"]}


@check_arguments
def objective_values(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Values of our config by key for the images and the objective of a preconditioned network, as in `values_of`."""
    row = _class_name(kwargs)
    for name in ("img_resolution", "img_channels"):
        if name not in kwargs:
            raise UsageError(f"{WHERE} has no argument {name}, by which to build it.")
    theirs = _typed(kwargs, SHARED | PRECONDITIONINGS[row])
    values: dict[str, Any] = {
        "data.image_size": theirs["img_resolution"],
        "data.num_channels": theirs["img_channels"],
        "data.centered": True,
    }
    if row == "EDMPrecond":
        sigma_data = theirs["sigma_data"]
        values |= {"process.name": "edm", "parameterization.name": "edm", "parameterization.sigma_data": sigma_data}
        return values | {"times.name": "lognormal", "weight.name": "edm", "weight.sigma_data": sigma_data}
    values |= {"times.name": "uniform", "weight.name": "noise"}
    if row == "VPPrecond":
        low, high = theirs["beta_min"], theirs["beta_min"] + theirs["beta_d"]
        values |= {"process.name": "vp", "process.beta_min": low, "process.beta_max": high}
        values |= {"times.eps": theirs["epsilon_t"], "parameterization.time_scale": theirs["M"] - 1.0}
        return values | {"parameterization.name": "noise", "parameterization.noise_cond": "time"}
    if row == "VEPrecond":
        low, high = theirs["sigma_min"], theirs["sigma_max"]
        values |= {"process.name": "ve", "process.sigma_min": low, "process.sigma_max": high}
        return values | {"parameterization.name": "scaled_score", "parameterization.noise_cond": "log_half_noise_level"}
    for name, only in (("M", 1000), ("C_1", 0.001), ("C_2", 0.008)):
        if theirs[name] != only:
            raise UsageError(f"{WHERE} has {name}={theirs[name]} in iDDPM's chain; only {only} can be read.")
    values |= {"process.name": "cosine", "process.s": 0.008}
    return values | {"parameterization.name": "noise", "parameterization.noise_cond": "cosine_index"}


@check_arguments
def network_arguments(kwargs: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of a network and its preconditioning, those that are absent at their defaults.

    defaults: of the network. Raises `UsageError` for arguments that neither has, and for values of other types.
    """
    defaults = SHARED | PRECONDITIONINGS[_class_name(kwargs)] | dict(defaults)
    if unknown := sorted(str(name) for name in kwargs.keys() - defaults.keys() - {"class_name"}):
        raise UsageError(f"{WHERE} has the argument {unknown[0]}, which no network here has.")
    return _typed(kwargs, defaults)


def _typed(kwargs: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments in `defaults`, each of the type of its default."""
    values = {}
    for name, default in defaults.items():
        items = plain(kwargs.get(name, default)) if isinstance(default, tuple) else (plain(kwargs.get(name, default)),)
        kind = type(default[0] if isinstance(default, tuple) else default)
        if not isinstance(items, tuple) or not all(is_scalar(item, kind) for item in items):
            raise UsageError(f"{WHERE} has {name}={kwargs[name]!r}, and a value like {default!r} can be read.")
        values[name] = tuple(map(kind, items)) if isinstance(default, tuple) else kind(items[0])
    return values


def _class_name(kwargs: Mapping[str, Any]) -> str:
    """The preconditioning's name, without its module."""
    name = str(kwargs.get("class_name", "")).rpartition(".")[2]
    if name not in PRECONDITIONINGS:
        raise UsageError(f"{WHERE} is a {name or 'nameless class'}, and not one of {', '.join(PRECONDITIONINGS)}.")
    return name


def _choice(arguments: Mapping[str, Any], name: str, ours: Mapping[str, Any]) -> Any:
    if arguments[name] not in ours:
        raise UsageError(f"{WHERE} has {name}={arguments[name]!r}, and not one of {', '.join(ours)}.")
    return ours[arguments[name]]
