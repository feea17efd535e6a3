r"""Membership: whether an image's denoising loss tells that the model was trained on it.

The loss of an image x_0 at time t, over R draws of noise that are fixed by the image's key, is

    l(x_0, t)  =  mean over r of |D(alpha x_0 + sigma z_r, t) - x_0|^2 / (h w c),                                  (1)

and an attacker calls images with small losses members of the training set (Yeom et al., 2018; for diffusion models
Hu and Pang, 2023). Reported, by noise level, are two figures. The area under the curve
of true against false positive rates (AUC) is the probability that a member's loss is below that of a held-out image.
The true positive rate at a small false positive rate (Carlini et al., 2022) shows an attack that is right about few
images, and harms these.

Held-out images must be drawn as the training images were: an AUC of images from elsewhere measures the difference
between two data sets. Levels are reported together, never the best of them alone; `combined` is one figure for all, by
a rule that is fixed before any loss is seen.
"""

from typing import Annotated

import numpy as np
from scipy import special, stats

from score_sde.array_types import Array, Float, Key
from score_sde.audit.denoiser import Count, ImageModel, Levels, ModelPoints, check_rows, denoised
from score_sde.audit.intervals import Interval, Level, share
from score_sde.cond import Cond
from score_sde.config.arguments import check_arguments
from score_sde.errors import UsageError
from score_sde.process import Process
from score_sde.randomness import batch_keys
from score_sde.runtime.progress import bar

DELAY = 3.0  # seconds before progress is shown

Losses = Annotated[Float[np.ndarray, " n"], "(-inf, inf)"]
OtherLosses = Annotated[Float[np.ndarray, " m"], "(-inf, inf)"]


@check_arguments
def losses(
    model: ImageModel,
    process: Process,
    images: ModelPoints,
    keys: Key[Array, "..."],
    times: Levels,
    *,
    cond: Cond | None = None,
    draws: Count = 1,
    batch_size: Count = 64,
    progress: str = "losses",
) -> Float[np.ndarray, "n levels"]:
    """The denoising loss of each image at each time, eq. (1), in float64.

    Args:
        model: the model, as for `score_sde.audit.denoiser.audit_denoiser`.
        images: in model range.
        keys: a key for each image, or one for all, from which each image's is derived by its index. Images of two sets
            need keys of their own: give either set another key.
        times: t in (0, 1]. Noise is the same at all of them, so a loss does not depend on the others.
        cond: the condition of each image, for a model of (x_t, t, cond).
        draws: R, the noises for each image.

    Losses are exactly repeatable; `batch_size` and the number of devices change only how a network's sums are rounded.
    Raises `UsageError` for no images, and for keys or a condition of another number.

        import jax
        import numpy as np
        from score_sde.audit.membership import losses
        from score_sde.oracles import Empirical
        from score_sde.sde import EDM

        train = np.random.default_rng(0).normal(size=(10, 2, 2, 1))
        model = Empirical(train).model(EDM())
        loss = losses(model, EDM(), train, jax.random.key(0), np.array([0.1]))  # (10, 1), nearly 0
    """
    if not images.size:
        raise UsageError(f"Losses of images of shape {images.shape}: give one image or more.")
    keys = batch_keys(keys, len(images))
    check_rows(cond, len(images), "cond")
    result = np.zeros((len(images), len(times)))
    with bar(progress, len(times), "level", delay=DELAY) as shown:
        for i, t in enumerate(times):
            for batch in denoised(model, process, images, keys, float(t), cond, draws, batch_size):
                loss = np.square(batch.x0 - images[batch.rows]).mean(axis=(1, 2, 3))
                np.add.at(result[:, i], batch.rows, loss / draws)
            shown.update(1)
    return result


@check_arguments
def auc(members: Losses, others: OtherLosses, level: Level = 0.95) -> Interval:
    """The probability that a member's loss is below another image's, P(l < l') + P(l = l') / 2, with its interval.

    The interval is that of DeLong et al. (1988), on the logit of the area, which keeps it within (0, 1). Where their
    variance is 0, as for losses that two sets do not share (area 1), it is that of Clopper and Pearson for the area as
    a share of min(n, m) pairs: if each member is paired with another image, the pairs are independent, and if all
    losses of members are below the others', so are all pairs. This bound holds for any distribution of losses: for area
    1 of 100 and 100 images it is [0.964, 1].

    Raises `UsageError` for fewer than 2 losses of either kind.

        import numpy as np
        from score_sde.audit.membership import auc

        of = auc(np.array([0.1, 0.2, 0.3]), np.array([0.25, 0.4]))
        assert round(of.value, 3) == 0.833  # 5 of 6 pairs
    """
    n, m = len(members), len(others)
    if min(n, m) < 2:
        raise UsageError(f"There are losses of {n} members and {m} other images; an AUC needs 2 of each.")
    of_members = 1 - _placements(members, others)  # the share of others' losses above each
    of_others = _placements(others, members)
    area = float(of_members.mean())
    variance = of_members.var(ddof=1) / n + of_others.var(ddof=1) / m
    if not variance > 0:
        pairs, tail = min(n, m), (1 - level) / 2
        low, high = special.betaincinv(
            [area * pairs or 1, area * pairs + 1],
            [(1 - area) * pairs + 1, (1 - area) * pairs or 1],
            [tail, 1 - tail],
        )
        return Interval(area, float(low) if area else 0.0, float(high) if area < 1 else 1.0)
    half = stats.norm.ppf((1 + level) / 2) * np.sqrt(variance) / (area * (1 - area))
    low, high = special.expit(special.logit(area) + np.array([-half, half]))
    return Interval(area, float(low), float(high))


def _placements(losses: np.ndarray, among: np.ndarray) -> np.ndarray:
    """The share of the losses `among` that are below each loss, equal ones by half; by sorting."""
    ordered = np.sort(among)
    return (np.searchsorted(ordered, losses, "left") + np.searchsorted(ordered, losses, "right")) / (2 * len(among))


@check_arguments
def tpr_at(rate: Annotated[float, "(0, 1)"], members: Losses, others: OtherLosses, level: Level = 0.95) -> Interval:
    """The true positive rate at a false positive rate: the share of members below a loss that few others are below.

    rate: of false positives, for example 0.01. The threshold is the largest loss of another image that at most this
    share of the others are below.

    The interval takes in that the threshold is estimated, too. With a confidence of (1 + level) / 2 the quantile of
    others' losses lies between two of their order statistics, whatever their distribution (by the binomial law), and
    with the same confidence so does the share of members below either, by Wilson; both together have at least about
    `level`. With few others the lower end is 0.

    Raises `UsageError` for fewer than 1 / rate others, of which no positive share is as small.

        import numpy as np
        from score_sde.audit.membership import tpr_at

        of = tpr_at(0.01, np.arange(100.0), np.arange(100.0) + 50)
        assert of.value == 0.51 and of.low == 0  # losses below 51, of which others have one in a hundred
    """
    n, m = len(members), len(others)
    if not n or m * rate < 1 - 1e-9:
        needed = int(np.ceil(1 / rate - 1e-9))
        raise UsageError(
            f"A rate of false positives of {rate:g} needs losses of 1 member and {needed:,} other images; there are "
            f"{n:,} and {m:,}. Give more held-out images, or ask at a higher rate."
        )
    ordered = np.concatenate([[-np.inf], np.sort(others), [np.inf]])  # the k-th smallest at place k
    each = (1 + level) / 2
    ranks = stats.binom.ppf([(1 - each) / 2, (1 + each) / 2], m, rate).astype(int)
    low = share(int((members < ordered[ranks[0]]).sum()), n, each).low
    high = share(int((members <= ordered[min(ranks[1] + 1, m + 1)]).sum()), n, each).high
    threshold = ordered[int(m * rate + 1e-9) + 1]
    return Interval(float((members < threshold).mean()), low, high)


@check_arguments
def combined(
    members: Annotated[Float[np.ndarray, "n levels"], "(-inf, inf)"],
    others: Annotated[Float[np.ndarray, "m levels"], "(-inf, inf)"],
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " m"]]:
    """One statistic for all noise levels: the mean over levels of losses that are standardised at each level.

    Losses are standardised by the mean and the deviation of members and others together, which does not look at who is
    a member, and no level is chosen. A level at which all losses are equal counts 0. Raises `UsageError` without levels
    or losses.

        import numpy as np
        from score_sde.audit.membership import auc, combined

        losses = np.random.default_rng(0).exponential(size=(2, 100, 3)) * np.array([1, 10, 100])
        of = auc(*combined(*losses))  # 0.5 up to chance, for all levels together
    """
    if not members.size or not others.size:
        raise UsageError(
            f"Losses of shapes {members.shape} and {others.shape}: give one or more, at one level or more."
        )
    both = np.concatenate([members, others])
    deviation = both.std(axis=0)
    standardised = ((both - both.mean(axis=0)) / np.where(deviation > 0, deviation, 1)).mean(axis=1)
    return standardised[: len(members)], standardised[len(members) :]
