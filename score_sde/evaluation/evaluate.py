"""Evaluation of a trained model: loss, bits/dim and samples of its snapshots, and samples on demand."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from score_sde import ema, images, metrics
from score_sde.array_types import Pixels
from score_sde.conditioning.grammar import observation_of
from score_sde.config import AnyConfig, Config
from score_sde.config.arguments import check_arguments
from score_sde.data import Source
from score_sde.data.captioned import captioned
from score_sde.errors import UsageError, warn
from score_sde.evaluation import identities
from score_sde.evaluation import report as page
from score_sde.evaluation.exports import export
from score_sde.evaluation.figure_names import short_names
from score_sde.evaluation.inverse_problems import ARRAYS, mean_nfe, memory_of_samples, reconstruct
from score_sde.evaluation.over_split import (
    accuracy,
    bits_per_dim,
    bits_per_dim_bound,
    check_own_cond,
    kept_rounds,
    loss,
    weights,
)
from score_sde.evaluation.sample_metrics import Measure, ends_of_data, measure, remedy
from score_sde.inference import class_choice, posthoc_weights
from score_sde.inference.captions import shown_captions, with_captions
from score_sde.inference.dequantizer import DEQUANTIZER
from score_sde.inference.pretrained import Pretrained, load
from score_sde.inference.sampling_plan import (
    check_condition,
    configured_conditions,
    configured_labels,
    noise_keys,
    samples_at_once,
)
from score_sde.inference.snapshots import PretrainedClassifier, Snapshot, load_classifier
from score_sde.inference.start_images import Starts, check_start, configured_start, sheet_of
from score_sde.io import atomic_files, workdir
from score_sde.io.result_cache import Arrays, Keep
from score_sde.models import CLASSIFIERS
from score_sde.randomness import Stream, stream
from score_sde.runtime import sharding
from score_sde.runtime.backend import expanded
from score_sde.runtime.progress import bar, reporter
from score_sde.training.run import load_data
from score_sde.training.source_checks import check_source

CAPTIONED, ROW = 64, 12  # the most samples in a sheet with captions, and the most with one noise in its row
NOISE_LEVELS = 10  # number of those at which a classifier's accuracy is evaluated
Parts = dict[str, Callable[[Snapshot, Path], dict[str, Any]]]  # parts of a report: (model, its folder) -> figures
ELSEWHERE = "name a folder to write to by --out=DIR"


@check_arguments
def evaluate(config: AnyConfig, directory: str | Path, folder: str = "eval", out: str | Path | None = None) -> None:
    """Evaluates snapshots `eval.begin_ckpt`..`eval.end_ckpt`; if there are none or begin is -1, the last checkpoint.

    Writes `folder`/report.json and report.html again after each checkpoint, and every round beneath it, so that the
    same call after a kill goes on from the last round; at the end the report is "complete". out: parent of `folder`,
    default the workdir; with another one the workdir is only read. Raises `UsageError` when there is no checkpoint,
    or `config` describes another run.
    """
    directory, written = expanded(directory), expanded(out or directory) / folder
    if not folder or Path(folder).name != folder or folder in workdir.TAKEN:
        raise UsageError(f"--eval_folder={folder} must name a new folder in the workdir, as eval or few_steps.")
    config = with_captions(class_choice.with_numbers(config, directory), directory)
    steps = _steps_to_evaluate(config, _available(config, directory))
    sharding.check_divisible("eval.batch_size", config.eval.batch_size)
    if config.model.name in CLASSIFIERS:
        model = load_classifier(directory, steps[0], config)
        parts = _parts_of_classifier(model)
    else:
        model = load(directory, steps[0], config)
        parts = _parts(model)
    report: dict[str, Any] = {"config": workdir.flatten(config.to_dict()), "versions": workdir.versions()}
    report["devices"] = [device.device_kind for device in jax.devices()]
    if (config.eval.enable_bpd or config.eval.enable_bound) and model.dequantizer_params:
        report["dequantizer"] = workdir.read(directory, f"{DEQUANTIZER}/config.json")
    report["checkpoints"] = []
    with atomic_files.locked(written, "eval", ELSEWHERE):
        if licence := workdir.licence(directory):
            report["licence"] = licence
        if "sampling" in parts:
            report["condition"] = class_choice.worded(config, directory)
            page.keep_real(written, config, config.eval.num_samples)
        for step in steps:
            model = model if step == model.step else model.at(step)
            target = written / f"step_{step:08d}"
            entry = {"step": step} | {name: part(model, target) for name, part in parts.items()}
            report["checkpoints"].append(entry)
            report["complete"] = step == steps[-1]
            if sharding.is_first():
                page.write(written, report)
            workdir.write(written, "report.json", report)
            _print("\n".join([f"step {step}: {_summary(entry)}", *page.parts(entry)]))
            for warning in page.warnings(entry) if sharding.is_first() else ():
                warn(f"step {step}: {warning}")
    for line in page.lines(page.metrics_of(entry).get("baselines", {})):
        _print(line)
    _print(f"Report: {written / 'report.json'}, report.html")


def _parts(model: Pretrained) -> Parts:
    """Parts of a report that config.eval enables. Missing inputs raise `UsageError` here, before evaluation starts."""
    config, options = model.config, model.config.eval
    likelihoods = options.enable_bpd or options.enable_bound
    train = likelihoods and options.bpd_dataset == "train"
    test_set = _split(model, train=False) if options.enable_loss or (likelihoods and not train) else None
    bpd_set = _split(model, train=True) if train else test_set
    repeats = 1 if train else options.bpd_num_repeats
    if options.enable_loss:
        check_source(model.experiment, test_set)
    if likelihoods:
        own = check_own_cond(model, bpd_set)
        model.experiment.bits_per_dim(model.params, own)
        _ = model.dequantizer_params
    parts: Parts = {}
    if options.enable_loss:
        parts["loss"] = lambda model, folder: loss(model, test_set, folder)
        parts["weights"] = lambda model, folder: weights(model, test_set, folder)
    if options.enable_bpd:
        parts["bits_per_dim"] = lambda model, folder: bits_per_dim(model, bpd_set, repeats, folder)
    if options.enable_bound:
        model.experiment.bound(model.params, own)
        parts["bits_per_dim_bound"] = lambda model, folder: bits_per_dim_bound(model, bpd_set, repeats, folder)
    if options.enable_sampling:
        if observation_of(config.sampling.condition, model.experiment.image_shape):
            raise UsageError(
                f"Samples given observations are made by --mode=sample; evaluate without "
                f"sampling.condition={config.sampling.condition}, or with a class."
            )
        check_condition(model)
        if options.num_samples < 2 and config.metrics.features != "none":
            raise UsageError(
                f"eval.num_samples={options.num_samples} has no covariance, by which features are compared; set it "
                "to 2 or more, or metrics.features=none."
            )
        drawing = dict(starts=configured_start(model), measure=measure(config))
        parts["sampling"] = lambda model, folder: draw_samples(model, options.num_samples, folder, **drawing)
    if not parts:
        raise UsageError(
            "Nothing to evaluate: set eval.enable_loss, eval.enable_bpd, eval.enable_bound or eval.enable_sampling to "
            "True."
        )
    return parts


def _parts_of_classifier(model: PretrainedClassifier) -> Parts:
    """Parts of a classifier's report: loss and accuracy."""
    for key in ("enable_bpd", "enable_bound", "enable_sampling"):
        if model.config.eval[key]:
            raise UsageError(f"A classifier has a loss and an accuracy only; set eval.{key}=False.")
    if not model.config.eval.enable_loss:
        raise UsageError("Nothing to evaluate: set eval.enable_loss, for a classifier's loss and accuracy, to True.")
    test_set = _split(model, train=False)
    check_source(model.experiment, test_set)
    return {
        "loss": lambda model, folder: loss(model, test_set, folder),
        "weights": lambda model, folder: weights(model, test_set, folder),
        "accuracy": lambda model, folder: accuracy(model, test_set, folder),
    }


def _split(model: Snapshot, *, train: bool) -> Source:
    """A split of the model's data, with the entries of captions that its network takes."""
    return captioned(load_data(model.config, train=train), model.text)


@check_arguments
def sample(config: AnyConfig, directory: str | Path, out: str | Path | None = None) -> None:
    """Writes `sampling.num_samples` samples of the last checkpoint to samples/, as .npz and as a sheet.

    File names end in a digest of all that the samples depend on, so that other settings write other files, and the same
    samples are drawn once; samples/index.json lists them. out: parent of samples/, default the workdir; with another
    one the workdir is only read. `sampling.condition` asks for samples of a class or of captions, or given observations
    of test images: see `score_sde.evaluation.inverse_problems`; `sampling.start` for ones that begin at images with
    noise; `sampling.save` for files that other programs read: see `score_sde.evaluation.exports`.
    """
    directory = expanded(directory)
    config = class_choice.with_numbers(config, directory)
    model = load(directory, config=config)
    sharding.check_divisible("eval.batch_size", config.eval.batch_size)
    n, condition = config.sampling.num_samples, config.sampling.condition
    folder = expanded(out or directory) / "samples"
    observe = observation_of(condition, model.experiment.image_shape)
    check_condition(model, observe and observe(1))
    starts = configured_start(model)
    if starts is not None:
        check_start(config.sampling.start_time, started=True, observed=bool(observe))
    source = load_data(config, train=False) if observe else None
    of_samples = identities.of_samples(model, n, observe, source, starts)
    stem = identities.name_of(model, identities.of_model(model) | of_samples)

    def keep(size: int) -> Keep:
        return kept_rounds(folder, stem, list(ARRAYS), model, lambda: of_samples | {"at_once": size})

    identities.index(folder)  # whether it can be read is said before the samples are drawn
    with atomic_files.locked(folder, "sample", ELSEWHERE):
        if observe:
            result = reconstruct(model, source, observe, n, folder, stem, keep)
        else:
            result = draw_samples(model, n, folder, stem, starts=starts)
        identities.enter(folder, stem, model, result)
    of_batch = f", {result['batch_nfe']:g} made for the batch" if "batch_nfe" in result else ""
    of_condition = f" given {class_choice.worded(config, directory)}" if condition else ""
    _print(f"{result['num_samples']} samples{of_condition}, {result['nfe']:g} network evaluations each{of_batch}")
    for name, figure in result.items():
        if isinstance(figure, dict) and "mean" in figure:
            _print(f"{name.replace('_', ' ')} {page.text(figure)}")
    if (ends := result.get("at_the_ends")) and sharding.is_first():
        print(page.ends(ends))
        if "warning" in ends:
            warn(ends["warning"])
    if starts is not None and config.sampling.start_time == 1 and sharding.is_first():
        warn("sampling.start_time=1 leaves next to nothing of the start images; samples resemble them at 0.3 to 0.6.")
    _print("\n".join(map(str, [folder / f"{stem}.png", *result.get("saved", ())])))


def draw_samples(
    model: Pretrained,
    n: int,
    folder: Path,
    stem: str = "samples",
    *,
    starts: Starts | None = None,
    measure: Measure | None = None,
) -> dict[str, Any]:
    """Draws `n` samples in rounds of `samples_at_once`, one .npz file a round, `stem`.npz if there is one; and a sheet.

    Sample i of a checkpoint depends on (seed, step, i) only, unless the sampler couples the batch, and is of the class
    and of the caption that config.sampling.condition asks for. starts: the images from which samples start. measure:
    computes their "metrics"; their features are rounds too.
    """
    size = samples_at_once(model, n, lambda size: configured_conditions(model, np.arange(size)))
    captions = shown_captions(model, np.arange(n))
    key = stream(stream(jax.random.key(model.config.seed + 1), Stream.SAMPLE), model.step)
    of_samples = identities.of_samples(model, n, starts=starts) | {"at_once": size}
    names = ["images", "nfe", "batch_nfe"] + ["captions"] * (captions is not None)
    rounds = kept_rounds(folder, stem, names, model, lambda: of_samples)
    if measure:
        of_features = of_samples | {"weights": measure.features.digest}
        feature_rounds = kept_rounds(folder, "features", list(measure.features.arrays), model, lambda: of_features)
    nfe, batch_nfe, shares, features, again, first = [], [], [], [], [], None
    with memory_of_samples(size), bar(f"sampling ({model.config.sampling.method})", n, "img") as progress:
        for start in range(0, n, size):
            valid = min(size, n - start)

            def draw(start: int = start, valid: int = valid) -> Arrays:
                numbers = np.arange(start, start + size)
                keys, conditions = noise_keys(model, key, numbers), configured_conditions(model, numbers)
                x0 = None if starts is None else jnp.asarray(starts.take(numbers))
                x, *counts = model.draw(keys, report=reporter(progress, valid, start), start=x0, **conditions)
                own, of_batch = (np.asarray(count)[:valid] for count in counts)
                texts = {} if captions is None else {"captions": np.array(captions[start : start + valid])}
                return {"images": images.to_pixels(x)[:valid], "nfe": own, "batch_nfe": of_batch} | texts

            name = "" if n <= size else f"{start // size:04d}"
            again.append(lambda name=name, draw=draw: rounds(name, draw)["images"])  # which is in its file by then
            drawn = rounds(name, draw)
            if measure:
                features.append(feature_rounds(name, functools.partial(measure.features.of, drawn["images"])))
            progress.update(start + valid - progress.n)
            nfe.append(drawn["nfe"])
            batch_nfe.append(drawn["batch_nfe"])
            shares.append(metrics.at_the_ends(drawn["images"]))
            first = drawn["images"] if first is None else first
    sheet = _sheet(model, first, starts, captions)
    atomic_files.replace(folder / f"{stem}.png", lambda file: images.write_png(file, sheet))
    result: dict[str, Any] = {"num_samples": n, **mean_nfe(np.concatenate(nfe), np.concatenate(batch_nfe))}
    advice = remedy(model.config.sampling)
    result["at_the_ends"] = metrics.compared(np.concatenate(shares), ends_of_data(model.config), advice)
    if measure:
        arrays = {key: np.concatenate([part[key] for part in features]) for key in features[0]}
        result["metrics"] = measure(arrays, identities.protocol(model, n, starts))
    labels = configured_labels(model, np.arange(n))
    saved = export(model.config.sampling.save, folder, stem, again, n, labels, captions)
    return result | ({"saved": [str(path) for path in saved]} if saved else {})


def _sheet(model: Pretrained, pixels: Pixels, starts: Starts | None, captions: list[str] | None) -> np.ndarray:
    """The sheet of the first samples: beside their start images, above their captions, or beneath their classes."""
    magnify, row = images.magnification(pixels), model.config.sampling.same_noise
    if starts is not None:
        return sheet_of(starts, pixels, magnify)
    if captions is not None:
        shown = pixels[:CAPTIONED]
        return images.captioned(shown, captions[: len(shown)], row if 1 < row <= ROW else None)
    return images.in_turn(pixels[:256], class_choice.names_in_turn(model.config, model.directory), magnify)


def _available(config: Config, directory: Path) -> list[int]:
    """Steps with a checkpoint; for an average after the fact, those up to the last snapshot of averages."""
    steps = workdir.checkpoint_steps(directory)
    if not ema.is_after_the_fact(config.ema.profiles, config.sampling.ema):
        return steps
    last = posthoc_weights.last_step(directory)
    if before := [step for step in steps if step <= last]:
        return before
    raise UsageError(
        f"The last snapshot of the averages in {directory} is of step {last}, and no checkpoint is of that step or "
        f"before it; there are: {', '.join(map(str, steps))}."
    )


def _steps_to_evaluate(config: Config, available: list[int]) -> list[int]:
    frequency, options = config.training.snapshot_freq, config.eval
    if options.begin_ckpt < 0:
        return available[-1:]
    chosen = [s for s in available if s % frequency == 0 and options.begin_ckpt <= s // frequency <= options.end_ckpt]
    if chosen:
        return chosen
    _print(
        f"No snapshot from {options.begin_ckpt * frequency} to {options.end_ckpt * frequency} steps "
        f"(eval.begin_ckpt, eval.end_ckpt); evaluating the last checkpoint, of step {available[-1]}."
    )
    return available[-1:]


def _summary(entry: dict[str, Any]) -> str:
    figures = page.figures(entry)
    short, _ = short_names(figures)
    figures = [f"{short[name]} {page.text(figure)}" for name, figure in figures.items()]
    return ", ".join(figures + ([f"{entry['sampling']['num_samples']} samples"] if "sampling" in entry else []))


def _print(line: str) -> None:
    if sharding.is_first():
        print(line)
