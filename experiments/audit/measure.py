"""Figures of an audit, from a subject and what `draw` has left; each part is plain data, as results.json has it.

| part         | figures                                                                                              |
|--------------|------------------------------------------------------------------------------------------------------|
| `duplicates` | groups of images that are nearly the same inside the training set                                    |
| `memorised`  | Gu, Carlini, AuthPct, C_T and the permutation test, in pixels and in features; the test's power      |
| `extracted`  | clusters of samples that are nearly the same, and how many of them are training images               |
| `levels`     | the audit of the denoiser, and membership, by noise level                                            |
| `balance`    | frequencies of classes and attributes, corrected, by guidance scale; recall and distance of each     |

Two images are nearly the same if their distance is at most `near_of` the training images, a third of the median
distance of one of them to its nearest other one.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from score_sde import audit
from score_sde.array_types import Float, Integer, Pixels
from score_sde.audit import Interval, Memorised, aligned, near_duplicates, nearest
from score_sde.audit.membership import auc, combined, tpr_at
from score_sde.errors import UsageError

NEAR = 1 / 3
NEIGHBOURS = 50  # of Carlini's criterion, where there are so many training images
CELLS, OF_CELL = 10, 40  # the most cells of k-means for the test of copying in each, and held-out images of a cell
SHOWN = 16  # most suspicious samples, and clusters
COPIES = (0, 1, 2, 5, 10, 20, 50, 100)  # planted, for the power of the permutation test
REPLICATIONS = 200
RATES = (0.01, 0.001)  # of false positives of an attacker
UNFAIR = {
    "missing": "No test is made in features: their network was trained on the training images, from which it tells "
    "held-out ones itself. Train with config.data.train_images, or give other features, for example inception."
}
Figures = dict[str, Any]
Features = Callable[[Pixels], Float[np.ndarray, "n d"]]


def interval(of: Interval) -> Figures:
    return {name: float(value) for name, value in of._asdict().items()}


def own_distances(train: np.ndarray) -> Float[np.ndarray, " t"]:
    """The distance of each training image to its nearest other one; none of a single image."""
    return nearest(train, train, without_itself=True).distances[:, 0] if len(train) > 1 else np.empty(0)


def near_of(own: Float[np.ndarray, " t"]) -> float:
    """The distance in pixels up to which two images are nearly the same; 0 for a single training image."""
    return NEAR * float(np.median(own)) if len(own) else 0.0


def duplicates(train: Pixels, near: float) -> Figures:
    """Groups of identical and of nearly identical training images, as lists of indices, the largest first."""
    groups = {"identical": near_duplicates(train, 0.0), "near": near_duplicates(train, near)}
    return {"images": len(train), "threshold": near} | {
        name: {"groups": len(of), "images": sum(map(len, of)), "shown": [group.tolist() for group in of[:SHOWN]]}
        for name, of in groups.items()
    }


class Compared(NamedTuple):
    """Images that are compared: samples and held-out images in their place, each turned towards the training images.

    tested: the samples for tests of which images are nearest, turned towards all real images alike.
    """

    samples: np.ndarray
    control: np.ndarray
    tested: np.ndarray
    train: np.ndarray
    held_out: np.ndarray

    @staticmethod
    def of(samples: Pixels, train: Pixels, held_out: Pixels, *, mirrored: bool) -> "Compared":
        """The images, turned if the model was trained on mirrored ones, too."""
        if not mirrored:
            return Compared(samples, held_out, samples, train, held_out)
        tested = aligned(samples, np.concatenate([train, held_out]))
        return Compared(aligned(samples, train), aligned(held_out, train), tested, train, held_out)

    def by(self, features: Features) -> "Compared":
        """The features of the images, each array's once."""
        found: dict[int, np.ndarray] = {}
        for each in self:
            if id(each) not in found:
                found[id(each)] = features(each)
        return Compared(*(found[id(each)] for each in self))


def memorised(
    images: Compared, own: Float[np.ndarray, " t"], features: Features, alike: int | None = None
) -> tuple[Figures, dict]:
    """Figures of memorisation in pixels and in features, and the neighbours of the most suspicious samples.

    Held-out images in the place of samples have figures, too, which is what a model without copies has. own: the
    `own_distances` of training images, in pixels. alike: for
    features of a network that was trained on the training split, the number of held-out images, the last ones, that are
    of this split as well. The network treats these as it treats training images, and the others it does not, so that
    tests in features are of these alone. None: all are alike. Raises `UsageError` for fewer than three training images.
    """
    samples, train = images.samples, images.train
    if len(train) < 3:
        raise UsageError(f"Memorisation needs 3 training images or more, and there are {len(train)}.")
    result: Figures = {"samples": len(samples), "train": len(train), "held_out": len(images.held_out)}
    shown = {}
    for name, of in {"pixels": images, "features": images.by(features)}.items():
        fair = len(of.held_out) if name == "pixels" or alike is None else alike
        among = own if name == "pixels" else own_distances(of.train)
        result[name], by_gu, to_train = _in_space(of, among, fair)
        if name == "pixels":
            first = np.argsort(by_gu.ratio, kind="stable")[:SHOWN]
            result["most_suspicious"] = {"samples": first.tolist(), "ratio": by_gu.ratio[first].tolist()}
            shown = {"samples": samples[first], "nearest": train[to_train.indices[first, 0]]}
            shown["second"] = train[to_train.indices[first, 1]]
        else:
            shown["by_features"] = train[to_train.indices[first, 0]]
    return result, shown


def _in_space(images: Compared, own: np.ndarray, fair: int) -> tuple[Figures, Memorised, Any]:
    train, k, figures = images.train, min(NEIGHBOURS, len(images.train)), {}
    found = {"samples": nearest(images.samples, train, k=k), "held_out": nearest(images.control, train, k=k)}
    by_gu = audit.gu_ratio(found["samples"])
    for side, to_train in found.items():
        of = {
            "gu": audit.gu_ratio(to_train),
            "carlini": audit.carlini(to_train, n=k),
            "auth_pct": audit.auth_pct(to_train, own),
        }
        figures[side] = {name: interval(each.share) for name, each in of.items()}
    figures["neighbours"] = k
    if not fair:
        tests = dict.fromkeys(("copying", "copying_by_cell", "exchangeable"), UNFAIR)
        return figures | tests, by_gu, found["samples"]
    of_samples, of_others = found["samples"].distances[:, 0], found["held_out"].distances[-fair:, 0]
    figures["copying"] = _or_why(lambda: audit.c_t(of_samples, of_others)._asdict())
    figures["copying_by_cell"] = _or_why(lambda: _by_cell(images.samples, images.control[-fair:], train))
    figures["exchangeable"] = _or_why(lambda: _exchangeable(images.tested, train, images.held_out[-fair:]))
    return figures, by_gu, found["samples"]


def _by_cell(samples: np.ndarray, held_out: np.ndarray, train: np.ndarray) -> Figures:
    of = audit.c_t_by_cell(samples, held_out, train, max(1, min(CELLS, len(held_out) // OF_CELL, len(train))))
    return of._asdict() | {"cells": [cell._asdict() for cell in of.cells]}


def _exchangeable(samples: np.ndarray, train: np.ndarray, held_out: np.ndarray) -> Figures:
    of = audit.exchangeable(samples, train, held_out)
    return {"share": of.share, "null": interval(of.null), "p": of.p}


def asked(
    samples: Pixels, train: Pixels, indices: Integer[np.ndarray, " n"], alike: Integer[np.ndarray, " t"]
) -> Figures:
    """The share of samples to which the training image whose condition they were asked for is the nearest one.

    indices: of that image, for each sample. alike: a number for each training image, equal where conditions are. The
    chance is one over the number of images with the condition, of which a model that has learned it draws a new one.
    """
    found = nearest(samples, train).indices[:, 0]
    chance = float((1 / np.bincount(alike)[alike[indices]]).mean())
    return interval(audit.share(int((found == indices).sum()), len(samples))) | {"chance": chance}


def power(images: Compared) -> Figures:
    """The share of replications in which the permutation test detects k planted copies, by k, with intervals."""
    copies = [k for k in COPIES if k <= len(images.tested)]
    of = audit.power(images.tested, images.train, images.held_out, copies, replications=REPLICATIONS)
    return {"copies": copies, "detected": [interval(each) for each in of.detected]}


def extracted(images: Compared, near: float) -> tuple[Figures, dict]:
    """Clusters of samples that are nearly the same, how many are training images, and pictures of the first ones.

    A cluster is a training image if one of its samples is near one. That it is near a held-out image instead is
    counted, too, which cannot be a copy.
    """
    samples, train = images.samples, images.train
    clusters = near_duplicates(samples, near)
    members = np.concatenate([*clusters, np.arange(0)]).astype(int)
    result: Figures = {"samples": len(samples), "threshold": near, "clusters": len(clusters), "members": len(members)}
    if not clusters:
        return result | {"of_train": None, "of_held_out": None, "train_images": 0}, {}
    sides, pairs = {}, []
    for name, among in (("of_train", train), ("of_held_out", images.held_out)):
        found = nearest(samples[members], among)
        closest = _closest(clusters, members, found.distances[:, 0])
        hits = np.array([found.distances[at, 0] <= near for at in closest])
        sides[name] = interval(audit.share(int(hits.sum()), len(clusters)))
        if name == "of_train":
            extracted_images = np.unique(found.indices[found.distances[:, 0] <= near, 0])
            pairs = [(members[at], found.indices[at, 0], bool(hit)) for at, hit in zip(closest, hits, strict=True)]
    first = pairs[:SHOWN]
    result |= sides | {"train_images": len(extracted_images), "of": len(train)}
    result["shown"] = {"size": [len(each) for each in clusters[:SHOWN]], "is_train": [hit for _, _, hit in first]}
    shown = {"clusters": samples[[at for at, _, _ in first]], "cluster_nearest": train[[i for _, i, _ in first]]}
    return result, shown


def _closest(clusters: Sequence[np.ndarray], members: np.ndarray, distances: np.ndarray) -> list[int]:
    """The place in `members` of the member of each cluster that is nearest to an image."""
    ends = np.cumsum([len(each) for each in clusters])
    return [
        int(end - len(each) + np.argmin(distances[end - len(each) : end]))
        for end, each in zip(ends, clusters, strict=True)
    ]


def membership(members: Float[np.ndarray, "n levels"], others: Float[np.ndarray, "m levels"]) -> Figures:
    """AUC and true positive rates of an attacker who knows the losses, by noise level, and for all levels together."""
    result: Figures = {"members": len(members), "others": len(others)}
    result["auc"] = [interval(auc(*of)) for of in zip(members.T, others.T, strict=True)]
    together = combined(members, others)
    result["combined"] = {"auc": interval(auc(*together))}
    for rate in RATES:
        result["combined"][f"tpr_at_{rate:g}"] = _or_why(lambda rate=rate: interval(tpr_at(rate, *together)))
    of_levels = zip(members.T, others.T, strict=True)
    result["tpr_at_0.01"] = [_or_why(lambda of=of: interval(tpr_at(0.01, *of))) for of in of_levels]
    return result


def _or_why(figure: Callable[[], Figures]) -> Figures:
    """A figure, or the sentence why it cannot be had."""
    try:
        return {name: interval(value) if isinstance(value, Interval) else value for name, value in figure().items()}
    except UsageError as error:
        return missing(error)


def missing(error: UsageError) -> Figures:
    return {"missing": str(error)}
