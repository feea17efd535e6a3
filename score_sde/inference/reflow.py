r"""Reflow (Liu et al., 2023): pairs of noise and image that a model's ODE joins, and how straight its paths are.

A network that is trained on the straight lines between the two ends of a teacher's paths has straighter paths than the
teacher, and needs fewer steps. In one dimension a single reflow makes them straight.

    model = score_sde.load("runs/teacher")
    before = straightness(model, jax.random.key(0), 64)      # 0 for straight paths
    write_pairs(model, 10_000, Path("pairs"))                # for training.coupling=pairs
"""

from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from score_sde.array_types import Array, Key, Keys, PyTree
from score_sde.cond import NULL, Cond
from score_sde.conditioning.grammar import parts
from score_sde.config.arguments import check_arguments
from score_sde.data import pairs
from score_sde.errors import UsageError
from score_sde.inference.pretrained import Pretrained
from score_sde.inference.sampling_plan import configured_cond, plan
from score_sde.io import atomic_files, workdir
from score_sde.process import LEAST_TIME, Process, check_scalar, in_float64
from score_sde.randomness import Stream, batch_keys, normal, stream
from score_sde.runtime.progress import bar, reporter
from score_sde.runtime.sharding import check_divisible, pad_to_devices, pmap, split
from score_sde.training.sampler_options import name_of, sampling_options, solves_ode

MEASURED = 256  # paths whose straightness is reported


@check_arguments
def write_pairs(model: Pretrained, n: Annotated[int, "[1, 1e9]"], folder: Path) -> dict[str, Any]:
    """Writes n pairs of noise and image to a folder, by the model's sampler, and returns the content of pairs.json.

    The images are the sampler's, not clipped, of the classes that config.sampling.condition asks for. The same call
    after a kill goes on with the next shard of `eval.batch_size` pairs, and with a larger n it adds to the folder.
    Raises `UsageError` for a sampler that draws noise on its way, and for a folder of other pairs.

        write_pairs(model, 10_000, Path("runs/pairs"))
    """
    description = _description(model)
    check_divisible("eval.batch_size", description["size"])
    with atomic_files.locked(folder, "pairs", "choose another --out"):
        description |= _resumed(folder, description, n)
        size, done = description["size"], sum(shard["pairs"] for shard in description["shards"])
        with bar(f"pairs ({model.config.sampling.method})", n, "img", initial=done) as progress:
            for first in range(done, n, size):
                valid = min(size, n - first)
                numbers = np.arange(first, first + size)
                x, cond, nfe = _drawn(model, description, numbers, reporter(progress, valid, first))
                arrays = {"images": x, **cond}
                description["nfe"] = nfe
                shard = {name: np.ascontiguousarray(array[:valid]) for name, array in arrays.items()}
                pairs.write_shard(folder, description, shard)
                progress.update(first + valid - progress.n)
    return description


def _description(model: Pretrained) -> dict[str, Any]:
    """The content of pairs.json before any shard. Raises `UsageError` for samplers that are no function of noise."""
    config, method = model.config, plan(model).method
    sampling = config.sampling
    if not solves_ode(sampling, method):
        raise UsageError(
            f"The sampler {name_of(method)}, as it is set, draws noise on its way, so that its images are no "
            "function of the first noise; set sampling.method=ode, or a deterministic fast solver as dpmpp_2m."
        )
    if "towards" in parts(sampling.condition):
        raise UsageError("Pairs are of one caption each; leave towards= out of sampling.condition.")
    if sampling.temperature != 1 or sampling.start_time != 1:
        raise UsageError("Pairs begin in the prior; set sampling.temperature=1 and sampling.start_time=1.")
    options = {name: sampling[name] for name in (*sampling_options(sampling, method), "condition")}
    teacher = {"weights": model.digest, "step": model.step, "ema": model.ema, "sampler": name_of(method)}
    teacher |= {"sampling": _plain(options), "guidance": _plain(config.guidance.to_dict())}
    number = int(model.digest[:8] or "0", 16)
    size = config.eval.batch_size
    return {
        "seed": config.seed,
        "number": number,
        "shape": list(model.image_shape),
        "size": size,
        "teacher": teacher | {"versions": workdir.versions()},
        "shards": [],
    }


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """Values as JSON has them."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def _resumed(folder: Path, description: dict[str, Any], n: int) -> dict[str, Any]:
    """The part of n pairs that a folder holds: full shards, and others only if no pair is to be added.

    Raises `UsageError` if it holds other pairs.
    """
    before = pairs.described(folder)
    if not before:
        return {}
    for key in ("seed", "number", "shape", "size", "teacher"):
        if before[key] != description[key]:
            raise UsageError(
                f"{folder} holds other pairs: their {key} is {before[key]}, and now {description[key]}; name another "
                "--out."
            )
    shards, size = before["shards"], description["size"]
    enough = sum(shard["pairs"] for shard in shards) >= n
    return before | {"shards": shards if enough else [shard for shard in shards if shard["pairs"] == size]}


def _drawn(model: Pretrained, description: dict[str, Any], numbers: np.ndarray, report: Any) -> tuple:
    """Images in [0, 1] of pairs of these numbers, not clipped, their conditions, and the evaluations of each."""
    method, conditional, runner, params = plan(model)
    cond = configured_cond(model, numbers) or {}
    if NULL in cond or any(not hasattr(rows, "dtype") for rows in cond.values()):
        raise UsageError("Pairs are made of whole conditions; set sampling.condition to a class, or leave it empty.")
    keys = pairs.pair_keys(description["seed"], description["number"], numbers.astype(np.uint32))
    eps = normal(stream(keys, Stream.NOISE), model.image_shape)
    conditions = conditional.conditions(cond or None, None, len(numbers), method)
    x_1 = model.experiment.sampling_sde.prior_std * eps
    x, nfe, _ = runner(params, keys, x_1, report, False, (conditions,))
    if not np.isfinite(x).all():
        raise UsageError(f"A sample of {name_of(method)} is not finite; take more steps, or another sampler.")
    return np.asarray(model.image_range.to_unit(x), np.float32), cond, float(np.mean(nfe))


@check_arguments
def straightness(
    model: Pretrained,
    key: Key[Array, "..."],
    n: Annotated[int, "[1, inf)"],
    cond: Cond | None = None,
    *,
    num_steps: Annotated[int, "[1, 16777216]"] = 50,
) -> float:
    r"""The mean distance of the model's paths from straight lines, 0 if they are straight (Liu et al., 2023).

        S = \int_0^1 E |(eps - x_0) - v(z_s, s)|^2 ds,     z_s = (1 - s) x_0 + s eps,     v = E[eps - x_0 | z_s]

    along the ODE dz/ds = v from noise eps to its image x_0, the mean over pixels, in model range. s = sigma / (alpha +
    sigma) makes the paths of any process those of flow matching, and the ends cancel: S is the variance of v along
    a path. It is computed by the midpoint rule.

    key: one key, or one for each of n paths. cond: arrays of n rows, see `score_sde.cond`. num_steps: of two
    evaluations each. Raises `UsageError` for processes with a schedule for each pixel.

        s = straightness(model, jax.random.key(0), 64)
    """
    experiment = model.experiment
    check_scalar(experiment.sde, "Straightness", "measure it under another process")
    numbers = np.minimum(np.arange(pad_to_devices(n)), n - 1)
    keys = batch_keys(key, n)[numbers]
    cond = jax.tree.map(lambda rows: np.asarray(rows)[numbers], cond)
    grid = _grid(experiment.sde, num_steps)

    def spread(params: PyTree, keys: Keys, cond: Cond | None) -> Array:
        """The variance of v along the path from each key's noise."""
        predict = experiment.model(params, cond=cond)

        def v(z: Array, t: Array, scale: Array) -> Array:
            x0, eps = predict(scale * z, jnp.full(len(z), t))
            return eps - x0

        def step(z: Array, row: Array) -> tuple[Array, Array]:
            h, t, scale, t_middle, scale_middle = row
            middle = v(z - h / 2 * v(z, t, scale), t_middle, scale_middle)
            return z - h * middle, middle

        z = normal(stream(keys, Stream.NOISE), model.image_shape)
        velocities = jax.lax.scan(step, z, jnp.asarray(grid, jnp.float32))[1]
        return jnp.mean(jnp.var(velocities, axis=0), axis=(1, 2, 3))

    program = pmap(spread, in_axes=(None, 0, 0), out_axes=None)
    each = np.asarray(program(model.params, *split(keys, cond)))[:n]
    return float(each.mean(dtype=np.float64))


def _grid(process: Process, num_steps: int) -> np.ndarray:
    """Rows (h, t, alpha + sigma; t, alpha + sigma of the middle) of even steps in s = sigma / (alpha + sigma)."""

    def share(t: float) -> float:
        alpha, sigma = (in_float64(part, np.array([t])).item() for part in (process.alpha, process.sigma))
        return sigma / (alpha + sigma)

    first, last = share(1.0), share(LEAST_TIME)
    h = (first - last) / num_steps
    s = first - h * np.arange(num_steps)
    rows = [np.full(num_steps, h)]
    for at in (s, s - h / 2):
        inner = np.minimum(at, np.nextafter(1.0, 0))
        t = np.where(at >= 1, 1.0, in_float64(process.time, inner / (1 - inner)))
        rows += [t, in_float64(process.alpha, t) + in_float64(process.sigma, t)]
    return np.stack(rows, axis=1)
