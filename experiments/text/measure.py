"""Figures of a set from what `draw` has left: by guidance scale, by update, of swaps, and of the Bayes classifier."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from score_sde.experiments.sweep import job as program
from score_sde.experiments.sweep.runs import Run
from score_sde.experiments.text import judge, pictures, prompts
from score_sde.experiments.text.draw import SCALE, SCALES
from score_sde.experiments.text.prompts import HALVES, held_out_pairs, is_scenes

from score_sde.io import atomic_files, workdir
from score_sde.io.result_cache import Arrays

GOALS = {"colour": 0.9, "place": 0.9, "shape": 0.8, "size": 0.8}  # of one object, seen pairs, at the best scale
NEIGHBOURS = "neighbours.npz"
Drawn = dict[str, Arrays]  # by the stems of `draw`
Result = dict[str, Any]
Judged = Callable[[str, Arrays], dict[str, Any]]  # of a half's captions and pictures


def collected(folder: Path, run: Run, drawn: Drawn) -> Result:
    """All figures of one set. folder: where neighbours are written."""
    config, album = run.config, None
    if is_scenes(config):
        held_out = held_out_pairs(config)
        main = "together"

        def judged(half: str, of: Arrays) -> dict[str, Any]:
            return judge.judged(of["captions"].tolist(), of["pixels"], held_out)
    else:
        asked_for = len(drawn[f"scale_{SCALES[0]:g}_{HALVES[0]}"]["captions"])
        album = pictures.album(config, asked_for)
        main = "found"

        def judged(half: str, of: Arrays) -> dict[str, Any]:
            return pictures.judged(of["captions"].tolist(), of["pixels"], album, half)

    scales = {f"{scale:g}": _halves(judged, drawn, f"scale_{scale:g}") for scale in SCALES}
    best = best_of(scales, main)
    seconds = [program.read(job.status).get("seconds") for job in run.jobs]
    result = {
        "network": config.model.name,
        "updates": config.training.n_iters,
        "batch_size": config.training.batch_size,
        "image_size": config.data.image_size,
        "objects": config.data.scene_objects if is_scenes(config) else None,
        "captions": {half: len(drawn[f"scale_{best}_{half}"]["captions"]) for half in HALVES},
        "main": main,
        "best": best,
        "scales": scales,
        "curve_scale": SCALE,
        "curve": {f"{step:,}": _halves(judged, drawn, f"step_{step}") for step in run.report["steps"]},
        "swap": _swap(drawn),
        "negative": [] if album else _negative(prompts.SHOWN[run.report["set"]], drawn),
        "bayes": _bayes(drawn),
        "licence": workdir.licence(run.workdir),
        "seconds": dict(zip(("train", "draw"), seconds, strict=True)),
        "devices": run.report["devices"],
        "versions": run.report["versions"],
    }
    if album:
        samples = {half: drawn[f"scale_{best}_{half}"]["pixels"] for half in HALVES}
        result["copies"] = pictures.copies(album, samples)
        nearest = pictures.neighbours(album, samples)
        atomic_files.replace(folder / NEIGHBOURS, lambda file: np.savez(file, **nearest), "--folder")
    return result


def best_of(scales: dict[str, Any], main: str) -> str:
    """The guidance scale with the greatest share on seen captions; the smallest such scale if several have it."""
    return max(scales, key=lambda scale: scales[scale]["seen"]["figures"][main]["share"])


def _halves(judged: Judged, drawn: Drawn, stem: str) -> dict[str, Any]:
    return {half: judged(half, drawn[f"{stem}_{half}"]) for half in HALVES}


def _swap(drawn: Drawn) -> dict[str, Any] | None:
    """The figures of pairs under one noise, by what differs between their captions."""
    if "swap_first" not in drawn:
        return None
    first, second = (drawn[f"swap_{which}"] for which in ("first", "second"))
    kinds = np.array(list(map(prompts.changed, first["captions"].tolist(), second["captions"].tolist())))
    result = {}
    for kind in dict.fromkeys(kinds.tolist()):
        captions = (of["captions"][kinds == kind].tolist() for of in (first, second))
        result[kind] = judge.swapped(*captions, tuple(of["pixels"][kinds == kind] for of in (first, second)))
    return result


def _negative(shown: prompts.Shown, drawn: Drawn) -> list[dict[str, Any]]:
    """The shares of pictures that show the negative caption, and that show the caption, without and with it."""
    result = []
    for i, (caption, negative) in enumerate(shown.negative):
        sides = {side: drawn[f"{side}_{i}"] for side in ("without", "with")}
        avoided = {side: judge.avoided(negative, of["pixels"]) for side, of in sides.items()}
        asked = {side: judge.judged(of["captions"].tolist(), of["pixels"]) for side, of in sides.items()}
        kept = {side: of["figures"]["together"] for side, of in asked.items()}
        result.append({"caption": caption, "negative": negative, "avoided": avoided, "kept": kept})
    return result


def _bayes(drawn: Drawn) -> dict[str, Any]:
    of = {name: drawn[f"classified_{name}"] for name in judge.FIGURES if f"classified_{name}" in drawn}
    return {name: judge.chosen(**arrays) for name, arrays in of.items()}
