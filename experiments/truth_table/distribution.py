r"""Do samples have the right distribution? And are evaluations counted right? At the library's defaults, in float32.

The samples' characteristic function is compared with the exact one, a closed form for Gaussians and their mixtures, at
frequencies w around the scale of the data (its covariance C: |C^1/2 w| = 1/2, 1, 2 and 3, eight directions each, even
in two dimensions and at random, the same always, in more):

    phi(w) = E exp(i w.x),      d(w) = mean over samples of exp(i w.x) - phi(w).                        (1)

It determines a distribution, and an integral of |d|^2 over w is an energy distance; nothing here depends on a second
set of samples. The error is the root mean square of |d| over the frequencies, in units where 1 is as wrong as can be;
a shift of 1 % of a standard deviation makes about 0.01 of it. Its standard error is the root mean square of those of d.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from score_sde.experiments.truth_table import problems
from score_sde.experiments.truth_table.rows import TOLERANCE, Row

from score_sde.array_types import ModelImages
from score_sde.oracles import Oracle
from score_sde.process import Model, Process
from score_sde.randomness import Stream, sample_keys, stream
from score_sde.sampling import solve

RADII, DIRECTIONS = (0.5, 1.0, 2.0, 3.0), 8
SAMPLES = 2048


class Distance(NamedTuple):
    error: float
    standard_error: float

    @property
    def z(self) -> float:
        """About 1 for exact samples."""
        return self.error / self.standard_error

    @property
    def bias(self) -> float:
        """The error less what chance adds to it: E error^2 = bias^2 + standard_error^2. NaN stays."""
        return float(np.sqrt(np.maximum(self.error**2 - self.standard_error**2, 0.0)))


def frequencies(data: Oracle) -> np.ndarray:
    """(k, D) around the inverse scale of the data."""
    whiten = np.linalg.inv(np.linalg.cholesky(problems.covariance(data)))
    return np.concatenate([radius * _directions(len(whiten)) @ whiten for radius in RADII])


def _directions(d: int) -> np.ndarray:
    """Unit vectors (k, d)."""
    if d == 2:
        angles = np.pi * np.arange(DIRECTIONS) / DIRECTIONS  # phi(-w) is the conjugate of phi(w)
        return np.stack([np.cos(angles), np.sin(angles)], axis=1)
    vectors = np.random.default_rng(0).standard_normal((DIRECTIONS, d))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def distance(sde: Process, data: Oracle, x: ModelImages | np.ndarray, t: float) -> Distance:
    """The distance of samples from p_t."""
    w = frequencies(data)
    phi = problems.characteristic_function(sde, data, t, w)
    waves = np.exp(1j * np.asarray(x, np.float64).reshape(len(x), -1) @ w.T)
    # What exact samples would show; a sampler's own spread would hide a NaN.
    variance = (1 - np.abs(phi) ** 2) / len(x)
    return Distance(
        float(np.sqrt(np.mean(np.abs(waves.mean(0) - phi) ** 2))),
        float(np.sqrt(np.mean(variance))),
    )


class Outcome(NamedTuple):
    distance: Distance
    nfe: float  # reported, mean over samples


def counted(model: Model, calls: list) -> Model:
    """The model, which leaves a mark for every evaluation of a batch."""

    def marking(x, t):
        jax.debug.callback(lambda t: calls.append(t), t[0])
        return model(x, t)

    return marking


def sample(row: Row, sde: Process, n: int = SAMPLES, seed: int = 1) -> tuple[dict[str, Outcome], tuple[int, int]]:
    """data -> distribution and evaluations, at the defaults; and (reported, counted) evaluations of one batch.

    Both data sets are sampled in one batch, except by what couples the samples of a batch.
    """
    keys = sample_keys(jax.random.key(seed), jnp.arange(2 * n))
    x = sde.prior_sample(stream(keys, Stream.PRIOR), problems.SHAPE)
    calls: list = []
    if row.name == "pc + langevin":
        outputs = [
            solve(row.make(sde, counted(data.model(sde), calls)), keys[part], x[part])
            for data, part in zip(problems.DATA.values(), (slice(0, n), slice(n, 2 * n)), strict=True)
        ]
        xs, nfes = zip(*outputs, strict=True)
        calls = calls[::2]
    else:
        model = problems.both_models(sde)
        # A sampler with steps for each sample goes on while any sample does, so it is counted alone, below.
        out, nfe = solve(row.make(sde, model if row.against == TOLERANCE else counted(model, calls)), keys, x)
        xs, nfes = np.split(np.asarray(out), 2), np.split(np.asarray(nfe), 2)
    jax.effects_barrier()
    outcomes = {
        # Denoised at the last time, so compared with the data: p_0.
        name: Outcome(distance(sde, data, out, 0.0), float(np.mean(nfe)))
        for (name, data), out, nfe in zip(problems.DATA.items(), xs, nfes, strict=True)
    }
    return outcomes, _alone(row, sde) if row.against == TOLERANCE else (int(nfes[0][0]), len(calls))


def _alone(row: Row, sde: Process) -> tuple[int, int]:
    calls: list = []
    keys = sample_keys(jax.random.key(2), jnp.arange(1))
    x = sde.prior_sample(stream(keys, Stream.PRIOR), problems.SHAPE)
    nfe = solve(row.make(sde, counted(problems.MIXTURE.model(sde), calls)), keys, x)[1]
    jax.effects_barrier()
    return int(nfe[0]), len(calls)
