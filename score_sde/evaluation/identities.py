"""Cache keys: everything that a model's results depend on, as JSON; and file names of samples, made from them.

A file enters by a digest of its content, never by its path: masks, data, weights of networks.
"""

import datetime
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from score_sde import data
from score_sde.cond import names
from score_sde.conditioning.grammar import Observe, chosen_split, identity_of, parts
from score_sde.config import ARGUMENTS
from score_sde.inference.captions import configured_captions
from score_sde.inference.pretrained import Pretrained
from score_sde.inference.sampling_plan import helpers_of, planned_nfe
from score_sde.inference.snapshots import Snapshot
from score_sde.inference.start_images import Starts
from score_sde.io import json_files, workdir
from score_sde.io.digest import digest
from score_sde.metrics import fingerprint
from score_sde.training.pieces import code_of

DIGITS = 8  # of the digest in a file name
LONGEST = 40  # characters of a condition in a file name
OF_TRAINING = (*ARGUMENTS, "data")  # sections whose pieces make the model


def of_model(model: Snapshot) -> dict[str, Any]:
    """Cache key of the model, without its inputs."""
    return {
        "run": workdir.identity(model.config.to_dict()),
        "checkpoint": {"step": model.step, "digest": model.digest, "ema": model.ema},
        "versions": workdir.versions(),
        "devices": sorted({device.device_kind for device in jax.devices()}),
        "batch_size": model.config.eval.batch_size,
        "precision": model.config.eval.precision,
    } | _code(model, "code", OF_TRAINING)


def of_samples(
    model: Pretrained,
    n: int,
    observe: Observe | None = None,
    source: data.Source | None = None,
    starts: Starts | None = None,
) -> dict[str, Any]:
    """Cache key of n samples besides the model's.

    observe: gives the observation of the source's images. starts: the images from which the samples start.
    """
    config = model.config
    used = {"samples": n, "sampling": config.sampling.to_dict()} | _code(model, "code_of_sampler", ("sampling",))
    del used["sampling"]["ema"]  # the model's identity has the average that is used
    of_start = {"start": used["sampling"].pop("start"), "start_time": used["sampling"].pop("start_time")}
    del used["sampling"]["save"]
    if starts is not None:
        used["sampling"] |= of_start | {"start": starts.digest}
    used["sampling"]["condition"] = observe.identity if observe else identity_of(config.sampling.condition)
    if (split := chosen_split(config.sampling.condition)) is not None:
        captions = "\n".join(configured_captions(model, np.arange(n)))
        used[f"captions_of_{split}"] = digest(np.frombuffer(captions.encode(), np.uint8))
    if config.sampling.condition or config.guidance.weak:
        places = ("classifier", "weak", "weak_step")  # paths of networks, whose digests identify them
        options = {key: value for key, value in config.guidance.items() if key not in places}
        digests = {name: helper.digest for name, helper in helpers_of(model, config).items()}
        used |= {"guidance": workdir.flatten(options), "networks": digests}
    return used | ({} if source is None else {"images": source.digest()})


def protocol(model: Pretrained, n: int, starts: Starts | None = None) -> dict[str, Any]:
    """Protocol of the samples: what their distances depend on besides model, features and statistics."""
    experiment, sampling = model.experiment, model.config.sampling
    method, options = experiment.sampler_options()
    if method == "pc":
        options["num_scales"] = experiment.sampling_sde.num_scales
    nfe = planned_nfe(model)
    used = of_samples(model, n)
    unusual = {key: used[key] for key in ("guidance", "networks") if key in used}
    unusual |= {"condition": sampling.condition} if sampling.condition else {}
    unusual |= {"same_noise": sampling.same_noise} if sampling.same_noise > 1 else {}
    unusual |= {} if starts is None else {"start": starts.digest}
    unusual |= {"precision": sampling.precision} if sampling.precision != "tf32" else {}
    return unusual | {
        "num_samples": n,
        "sampler": method,
        "sampler_options": options | {"temperature": sampling.temperature},
        "nfe": "adaptive" if nfe is None else nfe,
        "ema": model.ema,
        "image": list(experiment.image_shape),
        "uniform_dequantization": model.config.data.uniform_dequantization,
    }


def of_likelihood(model: Pretrained, source: data.Source, repeats: int) -> dict[str, Any]:
    """Cache key of bits/dim and their bound besides the model's."""
    keys = ("bpd_dataset", "hutchinson_type", "num_probes", "dequantization", "bound_num_times")
    keys += ("rtol", "atol", "ode_method")
    learned = digest(model.dequantizer_params) if model.dequantizer_params else None
    options = {key: model.config.eval[key] for key in keys}
    entries = {"given": names(model.experiment.cond_entries)} if model.config.eval.bpd_with_cond else {}
    return {"images": source.digest(), "repeats": repeats, "dequantizer": learned, "eval": options} | entries


def _code(model: Snapshot, name: str, sections: Sequence[str]) -> dict[str, Any]:
    """Digests of the files that define a user's own pieces in these sections, if there are any."""
    digests = {key: each["digest"] for key, each in code_of(model.config).items() if key.split(".")[0] in sections}
    return {name: digests} if digests else {}


def name_of(model: Pretrained, identity: dict[str, Any]) -> str:
    """File name of samples: step, average, method, steps, condition and scale, and a digest of everything else."""
    condition, scale = model.config.sampling.condition, model.config.guidance.scale
    method, options = model.experiment.sampler_options()
    average = [re.sub(r"[^a-z0-9.]+", "_", model.ema)] if isinstance(model.ema, str) else []
    num_steps = [str(options["num_steps"])] if "num_steps" in options else []
    words = [f"step_{model.step:08d}", *average, method.replace(":", "_"), *num_steps]
    for kind, argument in parts(condition).items():
        words.append(re.sub(r"[^a-z0-9.]+", "_", f"{kind}_{Path(argument).name}".lower())[:LONGEST].strip("_"))
    if scale != 1 and not parts(condition).keys().isdisjoint(("class", "text", "texts")):
        words.append(f"scale_{scale:g}")
    if model.config.sampling.start:
        start = re.sub(r"[^a-z0-9.]+", "_", Path(model.config.sampling.start).name.lower())[:LONGEST].strip("_")
        words.append(f"start_{start}_{model.config.sampling.start_time:g}")
    return "_".join([*words, fingerprint(identity)[:DIGITS]])


def enter(folder: Path, name: str, model: Pretrained, result: dict[str, Any]) -> None:
    """Lists samples by their name in the folder's index.json."""
    config = model.config
    method, options = model.experiment.sampler_options()
    if method == "pc":
        options["num_scales"] = model.experiment.sampling_sde.num_scales
    entry: dict[str, Any] = {"step": model.step, "method": method, "options": options}
    if config.sampling.condition or config.guidance.weak:
        entry |= {"condition": config.sampling.condition, "guidance": config.guidance.to_dict()}
    entry |= {"start": config.sampling.start} if config.sampling.start else {}
    entry |= {"num_samples": result["num_samples"], "nfe": result["nfe"]}
    if model.directory and (licence := workdir.licence(model.directory)):
        entry["licence"] = licence
    if "at_the_ends" in result:
        entry["at_the_ends"] = {of: share for of, share in result["at_the_ends"].items() if of != "warning"}
    entry["when"] = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    workdir.write(folder, "index.json", index(folder) | {name: entry})


def index(folder: Path) -> dict[str, Any]:
    """The entries of a folder's index.json. Raises `UsageError` if it is another file."""
    return json_files.read(folder / "index.json", advice="restore it, or remove it")
