r"""Observed orders of convergence, in float64 and without sampling error.

Deterministic samplers: the distance from the exact flow. Stochastic ones: with a Gaussian's score, which is affine in
x, the output of a sampler whose coefficients depend on time alone is affine in its start and its noise,

    x = A x_T + b + \sum_i B_i z_i,                                             (1)

and unit impulses give A, b and every B_i, hence mean and covariance of the output as exact numbers. The sampler is a
black box: all that is needed is its `noise` argument. A first run answers zero to every request for noise and writes
down its key; in the second, one member of a batch has z = 1 in one number of one draw and zeros elsewhere.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from score_sde.experiments.truth_table import problems
from score_sde.experiments.truth_table.problems import SHAPE, D
from score_sde.experiments.truth_table.rows import FLOW, LAW, SNR, TOLERANCE, Row

from score_sde.array_types import Array, Key, Keys, ModelImages
from score_sde.oracles import Gaussian
from score_sde.process import Process
from score_sde.randomness import batch_keys
from score_sde.sampling import Solver, advance

STARTS = 8  # x_T of the deterministic samplers
PATHS = 8  # of `adaptive`
FOREVER = np.iinfo(np.int32).max


# Hundreds of small programs: LLVM's optimisations take longer than what they save.
quick_jit = functools.partial(
    jax.jit,
    compiler_options={"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True},
)


class Law(NamedTuple):
    """x = A x_T + b + sum_i B_i z_i."""

    a: np.ndarray  # (D, D)
    b: np.ndarray  # (D,)
    noise: np.ndarray  # (draws, D, D)

    def moments(self, mean: np.ndarray, covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Moments of the output, for x_T of this mean and covariance."""
        of_noise = np.einsum("iab,icb->ac", self.noise, self.noise)
        return self.a @ mean + self.b, self.a @ covariance @ self.a.T + of_noise


def law(make: Callable[..., Solver]) -> Law:
    """The law of a solver, made with `noise=`, whose output is affine, and which draws at most once an evaluation.

    Raises if two draws come from one key, as they would be the same numbers.
    """
    draws = make().nfe
    members = draws * D + D + 1  # impulses; unit x_T; zero
    starts = np.zeros((members, *SHAPE))
    starts.reshape(members, D)[-D - 1 : -1] = np.eye(D)
    pixel = np.arange(members) % D
    seen: list[np.ndarray] = []

    @quick_jit
    def run(key: Key, x: ModelImages, targets: Array) -> ModelImages:
        def noise(keys: Keys, shape: tuple[int, ...]) -> Array:
            data = jax.random.key_data(keys)
            jax.debug.callback(lambda key: seen.append(np.asarray(key)), data[0])
            hit = jnp.all(data == targets, axis=1)
            z = jnp.where(hit[:, None], jax.nn.one_hot(pixel, D, dtype=x.dtype), 0.0)
            return z.reshape(-1, *shape)

        solver = make(noise=noise)
        return solver.result(advance(solver, solver.init(jnp.broadcast_to(key, (members,)), x), FOREVER))[0]

    def with_targets(keys_of_draws: list[np.ndarray]) -> np.ndarray:
        seen.clear()
        targets = np.full((members, 2), 0xFFFFFFFF, np.uint32)  # a key that no draw has
        if keys_of_draws:
            targets[: len(keys_of_draws) * D] = np.repeat(np.stack(keys_of_draws), D, axis=0)
        out = np.asarray(run(jax.random.key(0), starts, targets), np.float64)
        jax.effects_barrier()
        return out.reshape(members, D)

    with_targets([])
    recorded = list(seen)
    if len({key.tobytes() for key in recorded}) != len(recorded):
        raise AssertionError("Two draws of noise come from one key.")
    if len(recorded) > draws:
        raise AssertionError(f"The sampler draws {len(recorded)} times, more than the {draws} foreseen.")
    out = with_targets(recorded)
    b = out[-1]
    impulses = (out[: len(recorded) * D] - b).reshape(-1, D, D)  # (draw, pixel of z, pixel of x)
    return Law((out[-D - 1 : -1] - b).T, b, impulses.transpose(0, 2, 1))


def law_error(sde: Process, data: Gaussian, make: Callable[..., Solver], eps: float) -> float:
    """2-Wasserstein distance of the output's law, for x_T exactly p_1, from p_eps."""
    got = law(make).moments(*problems.moments(sde, data, 1.0))
    return problems.wasserstein(*got, *problems.moments(sde, data, eps))


def flow_errors(sde: Process, solver: Solver, x: ModelImages, exact: list[np.ndarray]) -> list[float]:
    """Root mean square distance from the exact flow: of the Gaussian and of the mixture."""
    out = end(solver, jnp.concatenate([x, x]))
    return [float(np.sqrt(np.mean((part - truth) ** 2))) for part, truth in zip(np.split(out, 2), exact, strict=True)]


def end(solver: Solver, x: ModelImages) -> np.ndarray:
    """The image that the solver takes x to."""

    @quick_jit
    def run(keys: Keys, x: ModelImages) -> ModelImages:
        return solver.result(advance(solver, solver.init(keys, x), FOREVER))[0]

    return np.asarray(run(batch_keys(jax.random.key(0), len(x)), x))


class Truths:
    """Exact flows, computed once for each SDE and last time."""

    def __init__(self):
        self._flows: dict[tuple, list[np.ndarray]] = {}

    def __call__(self, sde: Process, x: ModelImages, eps: float) -> list[np.ndarray]:
        if (sde, eps) not in self._flows:
            self._flows[sde, eps] = [problems.exact_flow(sde, data, x, eps) for data in problems.DATA.values()]
        return self._flows[sde, eps]


def errors(row: Row, sde: Process, sizes: tuple[float, ...], truths: Truths) -> dict[str, list[float]]:
    """data -> the error at each size. Run with 64-bit numbers enabled."""
    eps = sde.sampling_eps if row.eps is None else row.eps
    if row.against == LAW:
        model = problems.GAUSSIAN.model(sde)

        def make(steps: int) -> Callable[..., Solver]:
            return lambda **noise: row.make(sde, model, steps, eps=eps, noise_removal=False, **row.options, **noise)

        return {"Gaussian": [law_error(sde, problems.GAUSSIAN, make(n), eps) for n in sizes]}
    if row.against == SNR:
        return {"Gaussian": [_corrector_error(row, sde, snr) for snr in sizes]}
    model, x = problems.both_models(sde), problems.fixed_starts(sde, STARTS)
    if row.against == FLOW or row.order is not None:
        exact = truths(sde, x, eps)
        options = dict(eps=eps, noise_removal=False, **row.options)
        pairs = [flow_errors(sde, row.make(sde, model, size, **options), x, exact) for size in sizes]
    else:
        pairs = _path_errors(row, sde, sizes)
    return {name: [pair[i] for pair in pairs] for i, name in enumerate(problems.DATA)}


CORRECTOR_STEPS = 200


def _corrector_error(row: Row, sde: Process, snr: float) -> float:
    """Error of the corrector alone, with t nearly constant at 1: of Langevin steps that have reached their own law.

    Towards t = 0 the steps vanish with the noise and their bias cannot be told from the predictor's.
    """
    eps, model = 1 - 1e-6, problems.GAUSSIAN.model(sde)

    def make(**noise) -> Solver:
        options = dict(snr=snr, eps=eps, noise_removal=False, **row.options)
        return row.make(sde, model, CORRECTOR_STEPS, **options, **noise)

    return law_error(sde, problems.GAUSSIAN, make, eps)


def _path_errors(row: Row, sde: Process, sizes: tuple[float, ...]) -> list[list[float]]:
    """Errors against the same solver at a fifth of the last tolerance, along the same Brownian paths."""
    model, x = problems.both_models(sde), problems.fixed_starts(sde, PATHS)

    def halves(tolerance: float) -> list[np.ndarray]:
        return np.split(end(row.make(sde, model, tolerance, noise_removal=False), jnp.concatenate([x, x])), 2)

    exact = halves(min(sizes) / 5)
    return [
        [float(np.sqrt(np.mean((part - truth) ** 2))) for part, truth in zip(halves(size), exact, strict=True)]
        for size in sizes
    ]


def observed_order(row: Row, sizes: tuple[float, ...], error: list[float]) -> float:
    """Least-squares slope of log error: against log(1 / steps), or log snr, or log tolerance."""
    h = sizes if row.against in (SNR, TOLERANCE) else [1 / n for n in sizes]
    return problems.slope(list(h), error)
