"""Figures by noise level: how near the denoiser is to a memoriser's, and how losses tell members."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
from score_sde.experiments.audit.draw import identity, root
from score_sde.experiments.audit.measure import Figures, interval, membership
from score_sde.experiments.audit.subject import Subject

from score_sde import data, images
from score_sde.array_types import Float, ModelImages, Times
from score_sde.audit import Interval
from score_sde.audit.denoiser import AtLevel, audit_denoiser
from score_sde.audit.membership import losses
from score_sde.cond import Cond, restricted
from score_sde.io.result_cache import Rounds
from score_sde.process import Prediction, Process, check_scalar
from score_sde.randomness import Stream, stream
from score_sde.runtime.progress import bar

LEVELS = 8
RANGE = 0.03, 10.0  # noise levels, of images in model range
PROBES, DRAWS = 1000, 4  # images of either set, and noises of each
SIDES = ("train", "held_out")


def times(process: Process) -> Float[np.ndarray, " levels"]:
    """Times at which noise levels are evenly spread in their logarithm, within the process's own range."""
    check_scalar(process, "An audit by noise level", "leave membership and denoiser out of --parts")
    ends = np.asarray(process.noise_level(np.array([process.sampling_eps, 1.0])), np.float64)
    low, high = max(RANGE[0], ends[0]), min(RANGE[1], ends[1])
    return np.asarray(process.time(np.geomspace(low, high, LEVELS)), np.float64).clip(0, 1)


def by_level(of: Subject, out: Path, parts: Any) -> Figures:
    """The figures of the parts "denoiser" and "membership", at the same noise levels."""
    at = times(of.model.sde)
    result: Figures = {"noise_level": np.asarray(of.model.sde.noise_level(at)).tolist(), "t": at.tolist()}
    if "denoiser" in parts:
        result["denoiser"] = denoiser(of, out, at)
    if "membership" in parts:
        result["membership"] = membership(*(_losses(of, out, at, side) for side in SIDES))
    return result


def denoiser(of: Subject, out: Path, at: Float[np.ndarray, " levels"]) -> Figures:
    """Distances to both memorisers, their ratio and denoising errors, by noise level; each level is kept."""
    key = stream(root(of, Stream.EVAL), 2)
    sets, conds = zip(*(_set(of, side) for side in SIDES), strict=True)
    names = [name for name in AtLevel._fields if name not in ("t", "noise_level")]
    kept = Rounds(out, "denoiser", identity(of) | {"times": at.tolist(), "probes": PROBES}, names)

    def level(t: float) -> dict[str, np.ndarray]:
        options = dict(train_cond=conds[0], held_out_cond=conds[1], probes=PROBES)
        (found,) = audit_denoiser(_model(of), of.model.sde, *sets, key, np.array([t]), **options)
        return {name: np.asarray(getattr(found, name), np.float64) for name in names}

    rounds = []
    with bar("audit of the denoiser", len(at), "level") as progress:
        for i, t in enumerate(at):
            rounds.append(kept(f"{i:02d}", lambda t=float(t): level(t)))
            progress.update(1)
    return {
        name: [interval(Interval(*each[name])) if each[name].ndim else float(each[name]) for each in rounds]
        for name in names
    }


def _losses(of: Subject, out: Path, at: Float[np.ndarray, " levels"], side: str) -> Float[np.ndarray, "n levels"]:
    """The denoising losses of some images of one set; each level is kept."""
    key = stream(root(of, Stream.EVAL), SIDES.index(side))
    x, cond = _set(of, side)
    part = data.part_of(len(x), PROBES)
    x, cond = x[part], None if cond is None else jax.tree.map(lambda rows: rows[part], cond)
    of_losses = identity(of) | {"times": at.tolist(), "images": len(x), "draws": DRAWS}
    kept, columns = Rounds(out, f"losses_{side}", of_losses, ("losses",)), []
    size = of.model.config.eval.batch_size
    with bar(f"losses, {side.replace('_', '-')}", len(at), "level") as progress:
        for i in range(len(at)):
            options = dict(cond=cond, draws=DRAWS, batch_size=min(size, len(x)))

            def compute(i: int = i, options: dict = options) -> dict[str, np.ndarray]:
                return {"losses": losses(_model(of), of.model.sde, x, key, at[i : i + 1], **options)}

            columns.append(kept(f"{i:02d}", compute)["losses"])
            progress.update(1)
    return np.concatenate(columns, axis=1)


def _set(of: Subject, side: str) -> tuple[ModelImages, Cond | None]:
    """The images of a set in model range, float32, and their conditions."""
    batch = getattr(of, side)
    cond = restricted(batch.cond, of.model.experiment.cond_entries)
    return np.asarray(of.model.experiment.scaling.to_model(images.to_unit(batch.images)), np.float32), cond


def _model(of: Subject) -> Any:
    def model(x: ModelImages, t: Times, cond: Cond | None = None) -> Prediction:
        return of.model.predict(x, t, cond=cond)

    return model
