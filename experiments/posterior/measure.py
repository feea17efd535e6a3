r"""Measurement of a row: moments of its samples against the exact posterior, and against its known law.

With mean mu and covariance C of the exact posterior, and m and S those of the samples,

    error of the mean = |m - mu| / sqrt(tr C),     error of the covariance = |S - C| / |C|,                    (1)

in Euclidean and Frobenius norms: the first is in units of the posterior's own standard deviation (root mean square over
all directions), the second a relative one. Samples come in independent blocks, of the spread of whose moments the
standard errors are: of all coordinates together, sqrt(sum of variances), in the units of (1). E error^2 is bias^2 +
standard error^2, so that exact samples show an error of about one standard error.
"""

import zlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from score_sde.experiments.posterior.problems import PROBLEMS
from score_sde.experiments.posterior.recursion import Law
from score_sde.experiments.posterior.rows import CLASS_PROBLEM, PARTICLES, Row, known_law, solver, truth
from score_sde.experiments.truth_table import distribution
from score_sde.experiments.truth_table import problems as closed

from score_sde.array_types import Key, ModelImages
from score_sde.oracles import Mixture
from score_sde.randomness import Stream, sample_keys, stream
from score_sde.sampling import solve
from score_sde.sde import VP

BLOCKS = 32
WITHIN = 4.0  # standard errors from the known law; beyond is a miss
FINITE = 0.05  # what so many particles may still be from their limit, in the units of eq. (1), beside chance


class Errors(NamedTuple):
    """Errors of the mean and of the covariance, in the units of eq. (1)."""

    mean: float
    covariance: float


class Record(NamedTuple):
    row: Row
    samples: int
    error: Errors  # from the exact posterior
    standard_error: Errors
    known: Errors | None = None  # the known law's error; None if none is known
    apart: Errors | None = None  # of the measured moments from the known law's
    distance: dict[str, float] | None = None  # of the distribution, for mixtures
    misses: tuple[str, ...] = ()


def draw(row: Row, n: int) -> np.ndarray:
    """Samples (n, D) of a row; rows of one problem and SDE share x_T, and the noise where their samplers draw alike."""
    seed = zlib.crc32(f"{row.problem}, {row.sde}".encode())

    @jax.jit
    def run(key: Key) -> ModelImages:
        keys = sample_keys(key, jnp.arange(n))
        sampler, start = solver(row, n)
        x = row.process.prior_sample(stream(keys, Stream.PRIOR), truth(row.problem).shape)
        return solve(sampler, keys, start(x))[0]

    return np.asarray(run(jax.random.key(seed)), np.float64).reshape(n, -1)


def moments_of(x: np.ndarray) -> tuple[Law, Law]:
    """The moments of samples (n, D), and the variances of these estimates, from independent blocks."""
    blocks = np.split(x, BLOCKS)
    means = np.array([block.mean(0) for block in blocks])
    covariances = np.array([np.cov(block.T) for block in blocks])
    return Law(means.mean(0), covariances.mean(0)), Law(
        means.var(0, ddof=1) / BLOCKS, covariances.var(0, ddof=1) / BLOCKS
    )


def exact_law(row: Row) -> Law:
    data = truth(row.problem)
    return Law(closed.mean(data), closed.covariance(data))


def difference(one: Law, other: Law, exact: Law) -> Errors:
    """The distance between two laws, in the units of eq. (1)."""
    return Errors(
        float(np.linalg.norm(one.mean - other.mean) / np.sqrt(np.trace(exact.covariance))),
        float(np.linalg.norm(one.covariance - other.covariance) / np.linalg.norm(exact.covariance)),
    )


def measure(row: Row, small: bool = False) -> tuple[Record, np.ndarray]:
    """The record of a row, and its samples. small: whether to draw 2048 only."""
    n = min(row.samples, 2048) if small else row.samples
    x = draw(row, n)
    exact, known = exact_law(row), known_law(row)
    got, variances = moments_of(x)
    record = Record(
        row=row,
        samples=n,
        error=difference(got, exact, exact),
        standard_error=difference(Law(*map(np.sqrt, variances)), Law(*map(np.zeros_like, variances)), exact),
        known=None if known is None else difference(known, exact, exact),
        apart=None if known is None else difference(got, known, exact),
        distance=_distance(row, x),
    )
    return record._replace(misses=misses(record)), x


def _distance(row: Row, x: np.ndarray) -> dict[str, float] | None:
    """The error of the characteristic function, where the posterior is more than a mean and a covariance."""
    if not isinstance(truth(row.problem), Mixture):
        return None
    distance = distribution.distance(VP(), truth(row.problem), x, 0.0)
    return {"error": distance.error, "standard_error": distance.standard_error, "bias": distance.bias}


def misses(record: Record) -> tuple[str, ...]:
    """Sentences on what the record misses by itself."""
    row, sentences = record.row, []
    for moment in Errors._fields:
        error, standard = getattr(record.error, moment), getattr(record.standard_error, moment)
        if not np.isfinite([error, standard]).all():
            sentences.append(f"{row}: its {moment} is not finite")
        elif record.apart is not None and row.method != "particles":
            apart = getattr(record.apart, moment)
            if not apart <= WITHIN * standard:
                sentences.append(f"{row}: {moment} {apart / standard:.1f} standard errors from its known bias")
    return tuple(sentences)


def missed_together(records: list[Record]) -> list[str]:
    """Sentences on what records miss together: particles of growing number, and the two guidances by classes."""
    by_row = {record.row: record for record in records}
    groups: dict[tuple, list[Record]] = {}
    for record in records:
        if record.row.method == "particles":
            groups.setdefault((record.row.problem, record.row.sde), []).append(record)
    sentences = [miss for group in groups.values() for miss in _of_particles(group, by_row)]
    return sentences + _of_classes(records, by_row)


def from_limit(record: Record, own: Record | None) -> Errors:
    """Distance of particles from their limit: exact on a Gaussian; else from the posterior, less the sampler's own."""
    if record.apart is not None:
        return record.apart
    own = record.error if own is None else own.error
    return Errors(*(max(0.0, e - o) for e, o in zip(record.error, own, strict=True)))


def _of_particles(group: list[Record], by_row: dict[Row, Record]) -> list[str]:
    """Misses of particles, whose error falls with their number, and with the most of them is that of the limit."""
    sentences, group = [], sorted(group, key=lambda record: record.row.number)
    own = by_row.get(group[0].row._replace(method="own score", number=0))
    if own is None and group[0].apart is None:
        return []
    few, most = group[0], group[-1]
    for moment in Errors._fields:
        standard = [getattr(record.standard_error, moment) for record in (few, most)]
        first, last = (getattr(from_limit(record, own), moment) for record in (few, most))
        if not last <= first + WITHIN * np.hypot(*standard):
            sentences.append(
                f"{most.row}: its {moment} is {last:.3f} from the limit, and {first:.3f} of fewer particles"
            )
        if most.row.number == max(PARTICLES) and not last <= FINITE + WITHIN * standard[1]:
            sentences.append(f"{most.row}: its {moment} is {last:.3f} from the limit")
    return sentences


def _of_classes(records: list[Record], by_row: dict[Row, Record]) -> list[str]:
    """Misses of guidance by a classifier, which is classifier-free guidance where scores and classifier are exact."""
    sentences = []
    for record in records:
        if record.row.problem == CLASS_PROBLEM and record.row.method == "classifier":
            other = by_row.get(record.row._replace(method="classifier-free"))
            if other is not None and not np.allclose(record.error, other.error, atol=2e-3):
                sentences.append(f"{record.row}: {record.error}, and classifier-free {other.error}")
    return sentences


def unknown_bias(row: Row) -> str:
    """The reason why a row has no known law."""
    if row.problem == CLASS_PROBLEM:
        return "other than Bayes' rule"
    if row.method == "dps":
        return "not linear"
    return "" if not isinstance(PROBLEMS[row.problem].data, Mixture) else "not Gaussian"
