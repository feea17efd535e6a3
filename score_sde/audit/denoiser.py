r"""The audit of a denoiser: how near a model is, at each noise level, to the denoiser of a memoriser of its images.

For n images S = {x_1, ..., x_n}, the optimal denoiser of eq. (1) is the mean of the images given the noisy one,

    D_S(x, t)  =  sum_i w_i x_i,      w_i  proportional to  exp(-|x - alpha(t) x_i|^2 / (2 sigma(t)^2)),           (1)

and a model that has this denoiser draws copies of S alone. Let x_t = alpha x_0 + sigma z with x_0 from S, and

    d_S(t)  =  E |D(x_t, t) - D_S(x_t, t)|^2 / (h w c),                                                            (2)

the mean square of the distance of the model's denoiser D to this memoriser, on the memoriser's own images. The audit
compares d_T of the training images with d_H of as many held-out images:

    ratio(t)  =  d_T(t) / d_H(t).                                                                                  (3)

If the model treats both sets alike, d_T and d_H have one expectation at every t, because the sets can be exchanged, and
the ratio is 1 up to chance. It is 0 for the memoriser. A ratio below 1 therefore says at which noise levels the model
knows its training images from others; 1 - ratio is the memorised share of the distance. Both memorisers must be asked
on their own images: near x_0 of the training set any good denoiser is near D_T, and far from D_H.

D_S is the posterior mean of x_0 among S, so by Pythagoras E |D - x_0|^2 = E |D - D_S|^2 + E |D_S - x_0|^2 with x_0 from
S, whatever D is: d_T is the excess of the model's denoising error on training images over the least possible one.

At low noise D_S returns x_0 itself, d_T and d_H are the denoising errors, and the audit is that of the gap between
them. At high noise D_S is nearly the mean of S, and a ratio below 1 need be no copying: any fit follows the mean of its
data. `images` of each level, the number of images that eq. (1) averages, tells these ends apart.

Sources: eq. (1) is the optimum of Gu et al. (2023), "On memorization in diffusion models". Memorisation differs between
noise levels ("Two calm ends and the wild middle", 2602.17846), and the gap of denoising errors is largest at medium
ones ("Diffusion models memorize in training -- and generalize in inference", 2603.13419). Eq. (3) is our own.
"""

from collections.abc import Callable, Iterator
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special, stats

from score_sde.array_types import Array, Float, Integer, Key, Keys
from score_sde.audit.intervals import Interval, Level
from score_sde.cond import Cond, rows
from score_sde.config.arguments import check_arguments
from score_sde.errors import UsageError
from score_sde.process import Prediction, Process, in_float64, noisy
from score_sde.randomness import Stream, expand, normal, sample_keys, stream, uniform
from score_sde.runtime.progress import bar

GROUPS = 20  # of the jackknife, and blocks of the images of eq. (1)
LEAST = 10  # images of either set, of which an audit says anything
DELAY = 3.0  # seconds before progress is shown

# (x_t, t) -> Prediction, as `score_sde.process.Model`; (x_t, t, cond) for images that have a condition.
ImageModel = Callable[..., Prediction]
ModelPoints = Annotated[Float[np.ndarray, "n h w c"], "(-inf, inf)"]  # images in model range
OtherModelPoints = Annotated[Float[np.ndarray, "m h w c"], "(-inf, inf)"]
Levels = Annotated[Float[np.ndarray, " levels"], "(0, 1]"]  # times t
Count = Annotated[int, "[1, inf)"]


class AtLevel(NamedTuple):
    """The audit at one time t. Squares are means over numbers of images in model range."""

    t: float
    noise_level: float  # sigma / alpha
    to_train: Interval  # d_T of eq. (2)
    to_held_out: Interval  # d_H of eq. (2)
    ratio: Interval  # eq. (3)
    error_train: Interval  # denoising error E |D(x_t) - x_0|^2 / (h w c) of training images
    error_held_out: Interval
    gap: Interval  # error_held_out - error_train
    images: float  # exp of the entropy of the weights of eq. (1), a mean over x_t of training images


@check_arguments
def audit_denoiser(
    model: ImageModel,
    process: Process,
    train: ModelPoints,
    held_out: OtherModelPoints,
    key: Key[Array, ""],
    times: Levels,
    *,
    train_cond: Cond | None = None,
    held_out_cond: Cond | None = None,
    probes: Count = 1000,
    draws: Count = 1,
    batch_size: Count = 64,
    level: Level = 0.95,
    progress: str = "audit of the denoiser",
) -> tuple[AtLevel, ...]:
    """The audit of a model's denoiser at each of the times.

    Args:
        model: the model, called with batches of `batch_size`. `Pretrained.predict` is compiled; compile a network of
            your own first.
        train, held_out: images in model range. If there are more of one kind, a random part of them is used, as many as
            of the other kind, because d_S depends on their number.
        key: of this part, and of the noise, which is a function of the key, an image's index and its draw, and the same
            at all times; no figure depends on `batch_size` or on the other times.
        times: t in (0, 1], without t where sigma is 0.
        train_cond, held_out_cond: the condition of each image, for a model of (x_t, t, cond). The sums of eq. (1) then
            have only images with the condition of x_0, which is the optimum of a conditional model.
        probes: images of each set, at most, that x_0 in eq. (2) is drawn from.
        draws: noises for each.
        level: of confidence.

    Intervals of distances and ratios are by the jackknife over `GROUPS` groups of images, left out as x_0 and from
    eq. (1), with Student's t: errors over x_0 alone miss that all D_S(x_t) share S. For Gaussian data and their own
    denoiser the interval of the ratio held 1 in 95 to 99 % of 200 repetitions (40 and 40 images of 4 x 4 pixels, five
    noise levels). For the memoriser itself the ratio is 0, and the upper end of its interval is not, because its
    denoiser without some images is another one. Intervals of denoising errors are over images. All are for one level,
    not for all levels at once.

    Raises `UsageError` for images of two shapes, fewer than `LEAST` of either, and a condition for one set alone.

        import jax
        import numpy as np
        from score_sde.audit.denoiser import audit_denoiser
        from score_sde.oracles import Empirical
        from score_sde.sde import EDM

        train, held_out = np.random.default_rng(0).normal(size=(2, 10, 2, 2, 1))
        memoriser = Empirical(train).model(EDM())
        (at,) = audit_denoiser(memoriser, EDM(), train, held_out, jax.random.key(0), np.array([0.5]))
        assert at.ratio.value < 1e-6
    """
    _check(train, held_out, train_cond, held_out_cond)
    noisy(process, times)
    times = times.astype(np.float32)  # as the model takes them
    alphas, sigmas = in_float64(process.alpha, times), in_float64(process.sigma, times)
    n = min(len(train), len(held_out))
    sets = [
        _Set.of(images, cond, stream(key, side), n, min(probes, n))
        for side, (images, cond) in enumerate([(train, train_cond), (held_out, held_out_cond)])
    ]
    result = []
    with bar(progress, len(times), "level", delay=DELAY) as shown:
        for t, alpha, sigma in zip(times.tolist(), alphas, sigmas, strict=True):
            at = [each.measured(model, process, t, alpha, sigma, draws, batch_size) for each in sets]
            result.append(_at_level(t, float(np.mean(sigma) / np.mean(alpha)), *at, level))
            shown.update(1)
    return tuple(result)


def _check(train: np.ndarray, held_out: np.ndarray, train_cond: Cond | None, held_out_cond: Cond | None) -> None:
    if not train[:1].size:
        raise UsageError(f"Training images of shape {train.shape} have no pixels; give images (n, h, w, c).")
    if min(len(train), len(held_out)) < LEAST:
        raise UsageError(
            f"There are {len(train)} training and {len(held_out)} held-out images; an audit of a denoiser needs "
            f"{LEAST} of each."
        )
    if (train_cond is None) != (held_out_cond is None):
        raise UsageError(
            "One of train_cond and held_out_cond is missing; give both, or neither for the null condition."
        )
    check_rows(train_cond, len(train), "train_cond")
    check_rows(held_out_cond, len(held_out), "held_out_cond")


def check_rows(cond: Cond | None, n: int, name: str) -> None:
    """Raises `UsageError` unless all arrays of a condition have a row for each of n images."""
    for array in jax.tree.leaves(cond):
        if np.shape(array)[:1] != (n,):
            raise UsageError(f"{name} has an array of shape {np.shape(array)}; give a row for each of {n} images.")


class Denoised(NamedTuple):
    """A batch of noisy images and what a model makes of them: rows of the images, x_t, and E[x_0 | x_t]; float64."""

    rows: Integer[np.ndarray, " b"]
    x: Float[np.ndarray, "b h w c"]
    x0: Float[np.ndarray, "b h w c"]


def denoised(
    model: ImageModel,
    process: Process,
    images: Float[np.ndarray, "n h w c"],
    keys: Keys,
    t: float,
    cond: Cond | None,
    draws: int,
    batch_size: int,
) -> Iterator[Denoised]:
    """Batches of x_t = alpha x_0 + sigma z, all images once for each draw of z, and the model's denoised images.

    The noise of an image is a function of its key and of the draw. Batches have one size, which compiles once; what
    fills up the last one is left out of the result.
    """
    n, noise = len(images), stream(keys, Stream.NOISE)
    of_draws = jax.vmap(lambda draw: stream(noise, draw))(jnp.arange(draws)).reshape(-1)
    times = jnp.full(batch_size, t, jnp.float32)
    for start in range(0, n * draws, batch_size):
        place = np.minimum(np.arange(start, start + batch_size), n * draws - 1)
        at, valid = place % n, slice(n * draws - start)
        x0 = jnp.asarray(images[at], jnp.float32)
        x = expand(process.alpha(times), x0) * x0 + expand(process.sigma(times), x0) * normal(
            of_draws[place], x0.shape[1:]
        )
        prediction = model(x, times) if cond is None else model(x, times, rows(cond, at))
        yield Denoised(at[valid], *(np.asarray(each, np.float64)[valid] for each in (x, prediction.x0)))


class _Measured(NamedTuple):
    """Measures of one set at one level: d_S, d_S without each group, each image's error, and the images in eq. (1)."""

    distance: float
    without: Float[np.ndarray, " groups"]
    errors: Float[np.ndarray, " probes"]
    images: float


class _Set(NamedTuple):
    """Images in random order, with the keys and conditions of the first ones, from which x_0 is drawn.

    same: numbers that are equal where conditions are.
    """

    images: Float[np.ndarray, "n h w c"]
    probes: int
    keys: Keys
    cond: Cond | None
    same: Integer[np.ndarray, " n"]

    @staticmethod
    def of(images: np.ndarray, cond: Cond | None, key: Any, n: int, probes: int) -> "_Set":
        """A random part of n images in random order."""
        keys = sample_keys(key, np.arange(len(images), dtype=np.uint32))
        order = np.argsort(np.asarray(uniform(stream(keys, Stream.PROJECT))), kind="stable")[:n]
        first = order[:probes]
        return _Set(images[order], probes, keys[first], rows(cond, first), condition_numbers(rows(cond, order), n))

    def measured(
        self, model: ImageModel, process: Process, t: float, alpha: Any, sigma: Any, draws: int, batch_size: int
    ) -> _Measured:
        """d_S of eq. (2), and all that goes with it, at one time."""
        groups = min(GROUPS, self.probes)
        squares, errors, counted = np.zeros(groups + 1), np.zeros(self.probes), np.zeros(groups + 1)
        entropies = []
        asked = denoised(model, process, self.images[: self.probes], self.keys, t, self.cond, draws, batch_size)
        for batch in asked:
            weight, mean, entropy = self._posterior(batch, alpha, sigma, groups)
            entropies.append(entropy)
            kept = batch.rows[:, None] % groups != np.arange(groups)
            kept = np.concatenate([np.ones((len(kept), 1), bool), kept], axis=1)
            shares = _shares(weight, kept)  # (b, 1 + groups, groups): all groups, then all but one
            d = batch.x0.reshape(len(kept), 1, -1) - shares @ mean
            squares += np.where(kept, np.square(d).mean(axis=2), 0).sum(axis=0)
            counted += kept.sum(axis=0)
            error = np.square(batch.x0 - self.images[batch.rows]).mean(axis=(1, 2, 3))
            np.add.at(errors, batch.rows, error / draws)
        distance, *without = squares / counted
        return _Measured(float(distance), np.array(without), errors, float(np.exp(np.concatenate(entropies)).mean()))

    def _posterior(self, batch: Denoised, alpha: Any, sigma: Any, groups: int) -> tuple[np.ndarray, ...]:
        """Log-weights of groups of images (b, groups), their means (b, groups, D) by eq. (1), and its entropy (b,).

        Group i has the images i, i + groups, ... In float64, in which expanded squares lose nothing that counts.
        """
        b, shape = len(batch.rows), self.images.shape[1:]
        scale = np.broadcast_to(alpha / sigma, shape).reshape(-1)  # sigma and alpha may differ from pixel to pixel
        scaled = (batch.x / sigma).reshape(b, -1) * scale
        weight, energy = np.empty((b, groups)), np.empty((b, groups))
        mean = np.empty((b, groups, len(scale)))
        for group in range(groups):
            points = self.images[group::groups].reshape(-1, len(scale)).astype(np.float64)
            exponents = scaled @ points.T - np.square(points) @ np.square(scale) / 2
            others = self.same[batch.rows, None] != self.same[None, group::groups]
            exponents[others] = -np.inf
            weight[:, group] = special.logsumexp(exponents, axis=1)
            share = np.exp(exponents - np.where(np.isfinite(weight[:, group]), weight[:, group], 0)[:, None])
            mean[:, group] = share @ points
            energy[:, group] = (share * np.where(others, 0, exponents)).sum(axis=1)
        total = special.logsumexp(weight, axis=1)
        return weight, mean, total - (np.exp(weight - total[:, None]) * energy).sum(axis=1)


def _shares(weight: Float[np.ndarray, "b groups"], kept: np.ndarray) -> Float[np.ndarray, "b leave groups"]:
    """Shares of the groups' means in D_S: of all groups, and then without each; 0 where a row does not count."""
    groups = weight.shape[1]
    leave = np.concatenate([np.zeros((1, groups), bool), np.eye(groups, dtype=bool)])
    logits = np.where(leave, -np.inf, weight[:, None, :])
    top = logits.max(axis=2, keepdims=True)
    shares = np.exp(logits - np.where(np.isfinite(top), top, 0))
    total = shares.sum(axis=2, keepdims=True)
    return np.where(kept[:, :, None], shares / np.where(total > 0, total, 1), 0)


def _at_level(t: float, noise_level: float, train: _Measured, held_out: _Measured, level: float) -> AtLevel:
    sides = train, held_out
    errors = [_mean(each.errors, level) for each in sides]
    gap = errors[1].value - errors[0].value
    squared = sum(each.errors.var(ddof=1) / len(each.errors) for each in sides)
    half = _student(len(train.errors), level) * float(np.sqrt(squared))
    return AtLevel(
        *(t, noise_level),
        *(_jackknifed(each, level) for each in sides),
        _ratio(*sides, level),
        *errors,
        Interval(gap, gap - half, gap + half),
        train.images,
    )


def _mean(values: np.ndarray, level: float) -> Interval:
    mean, error = float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))
    half = _student(len(values), level) * error
    return Interval(mean, max(0.0, mean - half), mean + half)


def _jackknifed(of: _Measured, level: float) -> Interval:
    half = _student(len(of.without), level) * float(np.sqrt(_spread(of.without)))
    return Interval(of.distance, max(0.0, of.distance - half), of.distance + half)


def _ratio(train: _Measured, held_out: _Measured, level: float) -> Interval:
    """d_T / d_H with the jackknife's interval, to first order in both; 1 where both are 0."""
    if not held_out.distance:
        ratio = np.inf if train.distance else 1.0
        return Interval(ratio, ratio, ratio)
    ratio = train.distance / held_out.distance
    squared = (_spread(train.without) + ratio**2 * _spread(held_out.without)) / held_out.distance**2
    half = _student(len(train.without), level) * float(np.sqrt(squared))
    return Interval(ratio, max(0.0, ratio - half), ratio + half)


def _spread(without: np.ndarray) -> float:
    """The jackknife's variance, of a figure without each of the groups."""
    return float((len(without) - 1) * without.var())


def _student(n: int, level: float) -> float:
    return float(stats.t.ppf((1 + level) / 2, n - 1))


def condition_numbers(cond: Cond | None, n: int) -> Integer[np.ndarray, " n"]:
    """A number for each row of a condition, equal where rows are."""
    if not (arrays := jax.tree.leaves(cond)):
        return np.zeros(n, np.int64)
    columns = [np.ascontiguousarray(np.asarray(array).reshape(n, -1)).view(np.uint8).reshape(n, -1) for array in arrays]
    return np.unique(np.concatenate(columns, axis=1), axis=0, return_inverse=True)[1].reshape(-1)
