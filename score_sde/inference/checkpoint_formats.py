"""Formats of published checkpoints: which one a file is of, which network and objective it says, and its weights.

A file is read by one of `CONTAINERS`, which run nothing in it, and its content belongs to one of `FAMILIES`. A family
says what the file does about the network and its objective, as values of our config, and makes our parameters of it.

| container                         | read by                          |
|-----------------------------------|----------------------------------|
| a pickle of EDM or EDM2           | `io.persistent_pickles`          |
| PyTorch, of any version           | `io.pytorch_files`               |
| safetensors                       | `io.safetensors_files`           |
| Flax's msgpack                    | `inference.reference_checkpoints` |
"""

import re
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from score_sde.array_types import ImageShape, PyTree
from score_sde.errors import UsageError
from score_sde.inference import (
    adm_layout,
    diffusers_layout,
    edm2_layout,
    edm_layout,
    openai_flags,
    reference_checkpoints,
    transformer_layout,
)
from score_sde.inference.published_tensors import Shapes
from score_sde.inference.reference_checkpoints import Reference
from score_sde.io import json_files, persistent_pickles, pytorch_files, safetensors_files
from score_sde.io.persistent_pickles import PickledModule

Tensors = Mapping[str, np.ndarray]
Restore = Callable[[Any, ImageShape, Callable[[], Shapes]], Reference]


class Source(NamedTuple):
    """Files of a checkpoint: the weights, and the JSON files beside them that diffusers writes."""

    weights: Path
    config: dict[str, Any] | None = None
    scheduler: dict[str, Any] | None = None


class Published(NamedTuple):
    """A checkpoint that was read.

    kind: its format. restore: (network, image shape, leaf shapes) -> the checkpoint as parameters of ours. values:
    values of our config, by key, that it says; None if it says none. assumed: further values, for what it does not say.
    facts: what it says besides, by name. unknown: sentences on what it does not say. networks: names of model.name
    that it may be of. names: shapes by published name, and whether these are Flax's, of the paper's networks, which say
    nothing else.
    """

    kind: str
    restore: Restore
    values: dict[str, Any] | None = None
    assumed: Mapping[str, Any] = types.MappingProxyType({})
    facts: Mapping[str, str] = types.MappingProxyType({})
    unknown: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    names: Shapes | None = None
    is_flax: bool = False


class Container(NamedTuple):
    """A format of files: whether a file looks like one, and the reader of its content."""

    fits: Callable[[Path], bool]
    read: Callable[[Path], Any]


class Family(NamedTuple):
    """A family of published networks: whether a content is of it, and the checkpoint that the content is."""

    fits: Callable[[Any, Source], bool]
    published: Callable[[Any, Source, str, str], Published]


def read(path: Path, model_flags: str = "") -> Published:
    """The checkpoint in a file, or in a folder of diffusers.

    model_flags: of OpenAI's networks, whose files do not say them, "--image_size 64 --num_head_channels 64 ...". Raises
    `UsageError` for a file that is damaged, or of none of the formats.
    """
    source = located(path)
    try:
        container = next(name for name, row in CONTAINERS.items() if row.fits(source.weights))
        content = CONTAINERS[container].read(source.weights)
    except OSError as error:
        raise UsageError(f"Cannot read {source.weights} ({error.strerror or error}).") from error
    family = next(row for row in FAMILIES.values() if row.fits(content, source))
    return family.published(content, source, container, model_flags)


def located(path: Path) -> Source:
    """The files of a checkpoint: a file, or a folder of diffusers' with one file of weights.

    Raises `UsageError` where there is none.
    """
    if path.is_file():
        return Source(path, *_beside(path.parent)) if path.suffix in (".safetensors", ".bin") else Source(path)
    if not path.is_dir():
        raise UsageError(f"No file {path}; --from is the file of a checkpoint, or a folder of diffusers.")
    for folder in (path, path / "unet"):
        files = [file for file in (folder / name for name in WEIGHTS) if file.is_file()]
        if files:
            return Source(files[0], *_beside(folder))
    raise UsageError(f"There is no checkpoint in the folder {path}: none of {', '.join(WEIGHTS)}.")


def _beside(folder: Path) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """The network's arguments and the scheduler's, from the files that diffusers writes; None for one that lacks."""
    name = "scheduler_config.json"
    schedulers = (folder / name, folder / "scheduler" / name, folder.parent / "scheduler" / name)
    scheduler = next((file for file in schedulers if file.is_file()), None)
    config = folder / "config.json"
    read = json_files.read
    return read(config) if config.is_file() else None, read(scheduler) if scheduler else None


WEIGHTS = tuple(f"diffusion_pytorch_model{end}" for end in (".safetensors", ".fp16.safetensors", ".bin"))

CONTAINERS: dict[str, Container] = {
    "pickle": Container(persistent_pickles.is_persistent, persistent_pickles.read),
    "PyTorch": Container(pytorch_files.is_pytorch, persistent_pickles.read_torch),
    "safetensors": Container(safetensors_files.is_safetensors, safetensors_files.read),
    "Flax": Container(lambda _: True, reference_checkpoints.read_msgpack),
}


# EDM and EDM2, whose pickles say all.

LAYOUTS = {"SongUNet": edm_layout, "DhariwalUNet": adm_layout, "Precond": edm2_layout}  # by the class of the network
NETWORKS = {"SongUNet": "ncsnpp", "DhariwalUNet": "adm", "Precond": "edm2"}
SAMPLER = {"sampling.method": "edm", "sampling.grid": "karras", "sampling.rho": 7.0, "sampling.clip": "none"}
STEPS = {"SongUNet": 18, "DhariwalUNet": 40, "Precond": 32}  # as published, with the last one to noise level 0
NEVER_DROPPED = {"training.label_dropout": 0.0}  # unless the file says otherwise
LARGE = 40  # steps of EDM's networks of more than 32 pixels


def _holds_modules(content: Any, source: Source) -> bool:
    modules = isinstance(content, Mapping) and any(isinstance(value, PickledModule) for value in content.values())
    return modules or persistent_pickles.is_persistent(source.weights)


def _of_edm(content: Mapping[str, Any], source: Source, container: str, _: str) -> Published:
    """A pickle of EDM or EDM2: `ema`, or in a training state `net`, with the arguments that it was made with."""
    modules = {key: content[key] for key in ("ema", "net") if isinstance(content.get(key), PickledModule)}
    if not modules:
        raise UsageError("The file has no network ema, and none net; it is no snapshot of EDM's code.")
    key, module = next(iter(modules.items()))
    row, arguments = module.name, dict(module.arguments)
    if row != "Precond" and row not in edm_layout.PRECONDITIONINGS:
        raise UsageError(f"The file's network is a {row}; EDM's are {', '.join(edm_layout.PRECONDITIONINGS)}.")
    defaults = edm_layout.PRECONDITIONINGS.get(row, {"sigma_data": 0.5})
    arguments |= {name: module.attributes[name] for name in defaults if name in module.attributes}
    network = row if row == "Precond" else arguments.get("model_type", defaults["model_type"])
    if network not in LAYOUTS:
        raise UsageError(f"The file's network is a {network}; those that can be read are {', '.join(LAYOUTS)}.")
    layout = LAYOUTS[network]
    values = layout.values_of(arguments if row == "Precond" else arguments | {"class_name": row})
    steps = LARGE if network == "SongUNet" and values["data.image_size"] > 32 else STEPS[network]
    facts = {
        "network": f"{row} of {network}" if row != "Precond" else "EDM2's U-Net",
        "weights": "averages" if key == "ema" else "raw weights of a training state; they stand for averages too",
    }
    facts |= _facts_of_name(source.weights.name) | _facts_of_data(content.get("dataset_kwargs"))
    data = _data(values, content.get("dataset_kwargs"), source.weights.name)
    publisher = "EDM2" if row == "Precond" else "EDM"
    return Published(
        f"{publisher}'s {'snapshot' if key == 'ema' else 'training state'} ({container})",
        _by_layout(layout.params_of, module.tensors),
        values,
        # Our last step, to noise level 0, is an option of its own.
        SAMPLER | {"sampling.num_steps": steps - 1} | NEVER_DROPPED | data,
        facts,
        networks=(NETWORKS[network],),
    )


def _facts_of_name(name: str) -> dict[str, str]:
    """Thousands of images that were seen, and the length of an average, where the name of a snapshot has them."""
    facts = {}
    if match := re.search(r"-(\d{6,})(?:-(\d\.\d+))?\.(?:pkl|pt)$", name):
        facts["images seen"] = f"{int(match[1]):,} thousand, by the file's name"
        if match[2]:
            facts["average"] = f"sigma_rel {match[2]}, by the file's name"
    return facts


def _facts_of_data(data: Any) -> dict[str, str]:
    path = data.get("path") if isinstance(data, Mapping) else None
    return {"data": path} if isinstance(path, str) else {}


def _data(values: Mapping[str, Any], data: Any, name: str) -> dict[str, Any]:
    """The data set: CIFAR-10, if the file or its name says so, and otherwise a folder of the user's."""
    texts = (name, *_facts_of_data(data).values())
    is_cifar10 = values["data.image_size"] == 32 and any("cifar10" in Path(text).name for text in texts)
    return {"data.dataset": "cifar10" if is_cifar10 else "folder"}


def _by_layout(params_of: Callable[..., PyTree], raw: Tensors, averaged: Tensors | None = None, step: int = 0):
    """The `restore` of weights under published names; one set of weights stands for both."""

    def restore(network: Any, image_shape: ImageShape, _: Callable[[], Shapes]) -> Reference:
        params = params_of(raw, network, image_shape)
        ema_params = params if averaged is None else params_of(averaged, network, image_shape)
        return Reference("", step, params, ema_params, moments=None, sigmas=None)

    return restore


# Files of tensors alone: `UNet2DModel` of diffusers, with its arguments beside it, and bare state dicts.

RAW, AVERAGED = ("model", "state_dict", "net"), ("ema", "ema_model", "model_ema", "ema_state_dict")


def _weights(content: Any) -> tuple[Tensors, Tensors | None]:
    """Tensors by name, raw and averaged, of a state dict or a dictionary of one or two; {} where there are none.

    A file with one alone has it in both places. The prefix of DataParallel is left out.
    """
    if not isinstance(content, Mapping):
        return {}, None
    if _is_tensors(content):
        return _unwrapped(content), None
    raw, averaged = (
        next((_unwrapped(content[key]) for key in keys if _is_tensors(content.get(key))), None)
        for keys in (RAW, AVERAGED)
    )
    return raw or averaged or {}, averaged if raw else None


def _is_tensors(value: Any) -> bool:
    return isinstance(value, Mapping) and bool(value) and all(isinstance(each, np.ndarray) for each in value.values())


def _unwrapped(tensors: Tensors) -> Tensors:
    if all(str(name).startswith("module.") for name in tensors):
        return {name.removeprefix("module."): value for name, value in tensors.items()}
    return tensors


def _has(*names: str) -> Callable[[Any, Source], bool]:
    """Whether one of these tensors is in the content."""
    return lambda content, _: any(name in _weights(content)[0] for name in names)


def _facts_of_weights(averaged: Tensors | None) -> dict[str, str]:
    return {"weights": "raw and averaged" if averaged else "one set, which stands for raw and averaged ones"}


def _of_diffusers(content: Any, source: Source, container: str, _: str) -> Published:
    """A folder of diffusers, or its file of tensors beside config.json."""
    raw, averaged = _weights(content)
    if source.config is None:
        raise UsageError("This is a network of diffusers; put its config.json beside it, which says its arguments.")
    values = diffusers_layout.values_of(source.config, source.scheduler)
    is_ddpm, unknown = values["model.name"] == "ddpm", ()
    assumed = SAMPLERS["ddpm" if is_ddpm else "ncsnpp"] | {"data.dataset": "folder"}
    if source.scheduler is None:
        process = {key: values.pop(key) for key in list(values) if key.startswith("sde.")}
        assumed, unknown = assumed | process, (SCHEDULER,)
    facts = {"network": f"UNet2DModel in the form of {'DDPM' if is_ddpm else 'NCSN++'}"} | _facts_of_weights(averaged)
    restore = _by_layout(diffusers_layout.params_of, raw, averaged)
    return Published(f"diffusers ({container})", restore, values, assumed, facts, unknown, ("ddpm", "ncsnpp"))


SCHEDULER = (
    "There is no scheduler_config.json: the process has the defaults of diffusers' scheduler; import with "
    "--config.sde.KEY=VALUE for another."
)
SAMPLERS = {
    "ddpm": {"sampling.predictor": "ancestral_sampling", "sampling.corrector": "none"},
    "ncsnpp": {"sampling.predictor": "reverse_diffusion", "sampling.corrector": "langevin"},
    "adm": {"sampling.method": "ddim", "sampling.num_steps": 99},
}


def _of_openai(content: Any, source: Source, container: str, model_flags: str) -> Published:
    """A state dict of OpenAI's, whose flags are those of the released file of this name, or come with it."""
    raw, averaged = _weights(content)
    own = _flags(model_flags) if model_flags else openai_flags.RELEASED.get(source.weights.stem)
    if own is None:
        raise UsageError(
            f"The file is OpenAI's, and {source.weights.name} is the name of none of its released ones; give the flags "
            "that it was trained with, as --model_flags='--image_size 64 --num_head_channels 64 ...'."
        )
    if "image_size" not in own:
        raise UsageError("The flags of OpenAI's file need --image_size; no tensor says it.")
    flags = openai_flags.flags_of(raw, int(own["image_size"])) | own
    order = openai_flags.attention_order(flags)

    def params_of(tensors: Tensors, network: Any, image_shape: ImageShape) -> PyTree:
        return adm_layout.params_of(tensors, network, image_shape, order)

    match = re.search(r"(\d{6,})\.pt$", source.weights.name)
    step = int(match[1]) if match else 0
    facts = {"network": "UNetModel of OpenAI"} | ({"updates": f"{step:,}, by the file's name"} if match else {})
    return Published(
        f"OpenAI's state dict ({container})",
        _by_layout(params_of, raw, averaged, step),
        adm_layout.values_of(flags),
        SAMPLERS["adm"] | NEVER_DROPPED | {"data.dataset": "folder"},
        facts | _facts_of_weights(averaged),
        networks=("adm",),
    )


def _of_transformer(content: Any, source: Source, container: str, _: str) -> Published:
    """A state dict of U-ViT's or DiT's network, or a checkpoint of DiT's training, which holds two."""
    raw, averaged = _weights(content)
    said, path = transformer_layout.described(raw), source.weights
    match = re.search(r"(?:^|/)(\d+)\.ckpt/nnet(?:_ema)?\.pth$|(?:^|/)(\d{6,})\.pt$", path.as_posix())
    step = int(match[1] or match[2]) if match else 0
    return Published(
        f"{said.title}'s {'training checkpoint' if averaged else 'state dict'} ({container})",
        _by_layout(transformer_layout.params_of, raw, averaged, step),
        said.values,
        said.assumed | {"data.dataset": "folder"},
        said.facts | ({"updates": f"{step:,}, by the file's name"} if match else {}) | _facts_of_weights(averaged),
        said.unknown,
        networks=(said.values["model.name"],),
    )


def _flags(text: str) -> dict[str, str]:
    """Flags as on a command line, "--image_size 64 --learn_sigma=True", by name."""
    words = re.split(r"[\s=]+", text.strip())
    names, values = words[::2], words[1::2]
    if len(names) != len(values) or not all(name.startswith("--") for name in names):
        raise UsageError(f"--model_flags={text!r} must be flags with their values, as '--image_size 64 --dropout 0.1'.")
    return {name.removeprefix("--"): value for name, value in zip(names, values, strict=True)}


def _of_bare_edm(content: Any, source: Source, container: str, _: str) -> Published:
    """A state dict of EDM's or EDM2's networks, which says neither its preconditioning nor its arguments."""
    raw, averaged = _weights(content)

    def params_of(tensors: Tensors, network: Any, image_shape: ImageShape) -> PyTree:
        name = type(network).__name__
        layout = {"NCSNpp": edm_layout, "ADM": adm_layout, "EDM2UNet": edm2_layout}[name]
        return layout.params_of(tensors, network, image_shape)

    restore, facts = _by_layout(params_of, raw, averaged), _facts_of_weights(averaged)
    return Published(f"EDM's state dict ({container})", restore, facts=facts, networks=("ncsnpp", "adm", "edm2"))


# The paper's own.


def _of_paper(content: Any, source: Source, container: str, _: str) -> Published:
    """A checkpoint of the paper's code: the config says the network, whose names and shapes are compared."""
    flax = container == "Flax"
    names = reference_checkpoints.published_names(content, flax=flax)
    if not flax and _is_tensors(content) and not any("all_modules." in name for name in content):
        raise UsageError(
            f"{source.weights} holds tensors as {next(iter(content))}, and is of no layout that is read: the paper's, "
            "EDM's, EDM2's, OpenAI's, U-ViT's, DiT's, or diffusers'."
        )

    def restore(network: Any, _: ImageShape, shapes: Callable[[], Shapes]) -> Reference:
        classifier = type(network).__name__ == "WideResnet"
        return reference_checkpoints.restored(content, shapes(), flax=flax, classifier=classifier)

    return Published(container, restore, names=names, is_flax=flax)


FAMILIES: dict[str, Family] = {
    "EDM": Family(_holds_modules, _of_edm),
    "diffusers": Family(_has("conv_in.weight"), _of_diffusers),
    "OpenAI": Family(_has("input_blocks.0.0.weight"), _of_openai),
    "transformers": Family(_has(*transformer_layout.MARKS), _of_transformer),
    "EDM's state dict": Family(
        _has("model.map_layer0.weight", "map_layer0.weight", "unet.emb_noise.weight", "emb_noise.weight"), _of_bare_edm
    ),
    "the paper's": Family(lambda *_: True, _of_paper),
}
