"""One line of the table: a sampler under an SDE, everything that is measured of it, and what it misses."""

from typing import NamedTuple

import jax
import numpy as np
from score_sde.experiments.truth_table import problems
from score_sde.experiments.truth_table.distribution import SAMPLES, sample
from score_sde.experiments.truth_table.orders import Truths, errors, observed_order
from score_sde.experiments.truth_table.rows import TOLERANCE, Row

ORDER_WITHIN = 0.25  # of the theoretical order


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
    nfe: tuple[int, int] | None = None  # reported and counted, of one sample
    mean_nfe: float | None = None
    misses: tuple[str, ...] = ()


def measure(row: Row, sde_name: str, truths: Truths, small: bool = False) -> Record:
    """The record of a row. small: 512 samples instead of 2048, but all sizes, as two do not show an order."""
    if not row.defined(row.sdes[sde_name]):
        return Record(row.name, sde_name, False, misses=())
    errors_by_data: dict[str, list[float]] = {}
    if row.against is not None:
        with jax.enable_x64(True):
            errors_by_data = errors(row, row.sdes[sde_name], row.sizes, truths)
    observed = {name: observed_order(row, row.sizes, error) for name, error in errors_by_data.items()}
    outcomes, counts = (
        sample(row, problems.DEFAULTS[sde_name], 512 if small else SAMPLES) if row.at_defaults else ({}, None)
    )
    record = Record(
        sampler=row.name,
        sde=sde_name,
        defined=True,
        against=row.against,
        grid=row.grid,
        theory=row.order,
        sizes=row.sizes,
        errors=errors_by_data,
        observed=observed,
        expected={name: row.expected(sde_name, name) for name in observed},
        distance={
            name: {**d._asdict(), "z": d.z, "bias": d.bias, "bound": row.bias_bound(sde_name)}
            for name, (d, _) in outcomes.items()
        },
        nfe=counts,
        mean_nfe=float(np.mean([outcome.nfe for outcome in outcomes.values()])) if outcomes else None,
    )
    return record._replace(misses=misses(record))


def misses(record: Record) -> tuple[str, ...]:
    """Sentences on what the record misses."""
    name, sentences = f"{record.sampler} on {record.sde}", []
    for data, order in record.observed.items():
        # Step control keeps the error below the tolerance, and often further below the smaller it is.
        high = np.inf if record.against == TOLERANCE else ORDER_WITHIN
        theory = record.expected[data]
        if theory is not None and not -ORDER_WITHIN <= order - theory <= high:
            sentences.append(f"{name}, {data}: order {order:.2f} instead of {theory}")
    for data, d in record.distance.items():
        if not d["bias"] <= d["bound"]:
            sentences.append(f"{name}, {data}: bias {d['bias']:.3f} of the distribution, above {d['bound']:g}")
    if record.nfe is not None and record.nfe[0] != record.nfe[1]:
        sentences.append(f"{name}: {record.nfe[0]} evaluations reported, {record.nfe[1]} counted")
    return tuple(sentences)
