"""Samples given observations of test images, with their figures and a sheet of truth, observation and samples."""

import contextlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from score_sde import images
from score_sde.conditioning import Operator
from score_sde.conditioning.grammar import Observe
from score_sde.data import Source
from score_sde.evaluation.exports import export
from score_sde.inference.captions import shown_captions
from score_sde.inference.pretrained import Pretrained
from score_sde.inference.sampling_plan import configured_conditions, noise_keys, samples_at_once
from score_sde.io import atomic_files, workdir
from score_sde.io.result_cache import Arrays, Keep, mean_and_error
from score_sde.randomness import Stream, normal, sample_keys, stream
from score_sde.runtime import sharding
from score_sde.runtime.memory import enough_memory
from score_sde.runtime.progress import bar, reporter

ROWS, SAMPLES = 12, 6  # the most in the sheet


def reconstruct(
    model: Pretrained, source: Source, observe: Observe, n: int, folder: Path, stem: str, keep: Callable[[int], Keep]
) -> dict[str, Any]:
    """Draws `n` samples, `guidance.samples_each` for each of the first images of a split, given observations of these.

    They are also given the class or the caption in config.sampling.condition, if it has one.

    keep: number of samples drawn at once -> the rounds of `ARRAYS`. Writes `stem`.png and `stem`.figures.json: PSNR in
    dB of samples and of their mean; their spread, the root mean square over pixels of their standard deviation; and
    residual, the root mean square of A x - y for samples as drawn; with standard errors over images.
    """
    options, each = model.config.guidance, min(model.config.guidance.samples_each, n)
    root = stream(jax.random.key(model.config.seed + 1), Stream.SAMPLE)
    key, observing = stream(root, model.step), stream(root, Stream.OBSERVE)

    def conditions_of(size: int) -> dict[str, Any]:
        operator = observe(size)
        y = operator.forward(jnp.zeros((size, *model.experiment.image_shape), jnp.float32))
        return configured_conditions(model, np.arange(size)) | {"observed": (operator, y, options.noise)}

    size = samples_at_once(model, n, conditions_of)
    rounds = keep(size)
    parts: list[Arrays] = []
    with memory_of_samples(size), bar(f"sampling ({model.config.sampling.condition})", n, "img") as progress:
        for start in range(0, n, size):
            valid = min(size, n - start)

            def draw(start: int = start, valid: int = valid) -> Arrays:
                number = np.arange(start, start + size)
                index = np.minimum(number, n - 1) // each
                truth = images.to_unit(jnp.asarray(source.take(index).images))
                operator = observe(size)
                y = observed(operator, truth, options.noise, sample_keys(observing, jnp.asarray(index)))
                keys, report = noise_keys(model, key, number), reporter(progress, valid, start)
                conditions = configured_conditions(model, number) | {"observed": (operator, y, options.noise)}
                x, nfe, batch_nfe = model.draw(keys, report=report, **conditions)
                off = (operator.forward(x) - y) / math.sqrt(_measured(operator, y) / len(y))
                arrays = {
                    "images": images.to_pixels(x),
                    "truth": images.to_pixels(truth),
                    "observation": images.to_pixels(operator.picture(y)),
                    "index": index,
                    "squares": np.sum(np.square(off, dtype=np.float64).reshape(size, -1), axis=1),
                    "nfe": np.asarray(nfe),
                    "batch_nfe": np.asarray(batch_nfe),
                }
                return {name: array[:valid] for name, array in arrays.items()}

            parts.append(rounds("" if n <= size else f"{start // size:04d}", draw))
            progress.update(start + valid - progress.n)
    arrays = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    captions = shown_captions(model, np.arange(n))
    result = {"condition": model.config.sampling.condition, "samples_each": each, **figures(arrays, each)}
    result |= {} if captions is None else {"captions": captions}
    workdir.write(folder, f"{stem}.figures.json", result)
    if sharding.is_first():
        picture = sheet(arrays, each, images.magnification(arrays["images"]))
        atomic_files.replace(folder / f"{stem}.png", lambda file: images.write_png(file, picture))
    saved = export(model.config.sampling.save, folder, stem, [lambda: arrays["images"]], n, captions=captions)
    return result | ({"saved": [str(path) for path in saved]} if saved else {})


def memory_of_samples(size: int) -> contextlib.AbstractContextManager:
    """The context of drawing so many samples at a time, which says what to do where there is no memory for them."""
    advice = "lower sampling.batch_size, by default eval.batch_size, or set it to 0 to draw as many as fit"
    return enough_memory(f"sampling at sampling.batch_size={size}", lambda: advice)


ARRAYS = ("images", "truth", "observation", "index", "squares", "nfe", "batch_nfe")  # in a round


def mean_nfe(nfe: np.ndarray, batch_nfe: np.ndarray) -> dict[str, float]:
    """Means over samples of their own evaluations, and of those made for their batch if these are more."""
    means = {"nfe": float(nfe.mean())}
    return means if np.array_equal(nfe, batch_nfe) else means | {"batch_nfe": float(batch_nfe.mean())}


def observed(operator: Operator, x: Any, noise: float, keys: Any) -> Any:
    """Observations y = A x + n of images in [0, 1], with noise only where A measures."""
    y = operator.forward(x)
    return y + noise * operator.measured(normal(keys, y.shape[1:])) if noise else y


def _measured(operator: Operator, y: Any) -> float:
    """Total number of measured numbers."""
    return float(jnp.sum(operator.measured(jnp.ones_like(y))))


def figures(arrays: Arrays, each: int) -> dict[str, Any]:
    """Figures of samples in the order of drawing, `each` in a row for one image; the last image may have fewer."""
    n = len(arrays["images"]) // each * each
    x, truth = (
        arrays[name][:n].astype(np.float64).reshape(-1, each, arrays[name][0].size) / 255
        for name in ("images", "truth")
    )

    def psnr(estimate: np.ndarray) -> np.ndarray:
        return -10 * np.log10(np.maximum(np.mean(np.square(estimate - truth), axis=-1), 1e-10)).mean(axis=1)

    per_image = {"psnr": psnr(x), "psnr_of_mean": psnr(x.mean(axis=1, keepdims=True))}
    if each > 1:
        per_image["spread"] = np.sqrt(x.var(axis=1, ddof=1).mean(axis=-1))
    result = {name: mean_and_error(values[None]) for name, values in per_image.items()}
    return result | {
        "residual": float(np.sqrt(np.mean(arrays["squares"]))),
        **mean_nfe(arrays["nfe"], arrays["batch_nfe"]),
        "num_samples": len(arrays["images"]),
    }


def sheet(arrays: Arrays, each: int, magnify: int) -> np.ndarray:
    """A sheet, uint8 (H, W, 3), with a row for each image, and headings. The spread is black at 0 and white at 1/2."""
    n = max(1, min(len(arrays["images"]) // each, ROWS))
    shown = min(each, SAMPLES)
    x = arrays["images"][: n * each].reshape(n, each, *arrays["images"].shape[1:])
    mean = np.round(x.mean(axis=1, keepdims=True)).astype(np.uint8)
    spread = np.clip(2 * x.astype(np.float64).std(axis=1, keepdims=True), 0, 255).astype(np.uint8)
    firsts = [arrays[name][: n * each : each][:, None] for name in ("truth", "observation")]
    columns = np.concatenate([*firsts, x[:, :shown], mean, spread], axis=1)
    headings = ["truth", "observed", *(f"sample {i + 1}" for i in range(shown)), "mean", "spread"]
    return images.headed(columns.reshape(-1, *columns.shape[2:]), headings, magnify)
