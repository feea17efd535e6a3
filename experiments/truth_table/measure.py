"""One line of the table: a sampler under an SDE, everything that is measured of it, and what it misses."""

from typing import NamedTuple

import jax
import numpy as np

from experiments.truth_table import problems
from experiments.truth_table.distribution import SAMPLES, sample
from experiments.truth_table.orders import Truths, errors, observed_order
from experiments.truth_table.rows import TOLERANCE, Row

ORDER_WITHIN = 0.25  # of the theoretical order
BIAS_BOUND, SIGMAS = 0.05, 4.0  # of the distribution at default settings, see `distribution`


class Record(NamedTuple):
    sampler: str
    sde: str
    defined: bool
    against: str | None = None
    grid: str = ""
    theory: int | None = None
    sizes: tuple[float, ...] = ()
    errors: dict[str, list[float]] = {}  # noqa: RUF012
    observed: dict[str, float] = {}  # noqa: RUF012
    expected: dict[str, int | None] = {}  # noqa: RUF012
    distance: dict[str, dict[str, float]] = {}  # noqa: RUF012
    nfe: int = 0
    counted: int = 0
    mean_nfe: float = 0.0
    misses: tuple[str, ...] = ()


def measure(row: Row, sde_name: str, truths: Truths, small: bool = False) -> Record:
    """small: 512 samples instead of 2048. No sizes are left out, as two do not show an order."""
    if not row.defined(row.sdes[sde_name]):
        return Record(row.name, sde_name, False, misses=())
    found: dict[str, list[float]] = {}
    if row.against is not None:
        with jax.enable_x64(True):
            found = errors(row, row.sdes[sde_name], row.sizes, truths)
    observed = {name: observed_order(row, row.sizes, error) for name, error in found.items()}
    outcomes, (reported, counted) = sample(row, problems.DEFAULTS[sde_name], 512 if small else SAMPLES)
    record = Record(
        sampler=row.name,
        sde=sde_name,
        defined=True,
        against=row.against,
        grid=row.grid,
        theory=row.order,
        sizes=row.sizes,
        errors=found,
        observed=observed,
        expected={name: row.expected(sde_name, name) for name in observed},
        distance={name: {**outcome.distance._asdict(), "z": outcome.distance.z} for name, outcome in outcomes.items()},
        nfe=reported,
        counted=counted,
        mean_nfe=float(np.mean([outcome.nfe for outcome in outcomes.values()])),
    )
    return record._replace(misses=misses(record))


def misses(record: Record) -> tuple[str, ...]:
    """What the record misses, in words."""
    name, found = f"{record.sampler} on {record.sde}", []
    for data, order in record.observed.items():
        # Step control keeps the error below the tolerance, and often further below the smaller it is.
        high = np.inf if record.against == TOLERANCE else ORDER_WITHIN
        theory = record.expected[data]
        if theory is not None and not -ORDER_WITHIN <= order - theory <= high:
            found.append(f"{name}, {data}: order {order:.2f} instead of {theory}")
    for data, d in record.distance.items():
        if not d["error"] - SIGMAS * d["standard_error"] <= BIAS_BOUND:
            found.append(f"{name}, {data}: distribution error {d['error']:.3f} ± {d['standard_error']:.3f}")
    if record.nfe != record.counted:
        found.append(f"{name}: {record.nfe} evaluations reported, {record.counted} counted")
    return tuple(found)
