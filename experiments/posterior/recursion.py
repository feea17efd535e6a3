r"""The exact law of a conditional sampler's output on a Gaussian: its known bias, without a sample.

With a Gaussian's score, linear in x, every update is affine in x and in noise, so mean and covariance of the output
follow a recursion over the sampler's own steps. In NumPy and float64; nothing of `score_sde.conditioning` is used. Of
N(mu, C), with m and s the mean scale and std at t,

    score         -S^{-1} (x - m mu),     S = m^2 C + s^2 I,     xhat = mu + J (x - m mu),     J = m C S^{-1}     (1)
    tmpd          the score of N(mu, C) given y, whose moments are Bayes' formula
    pigdm         + J A^T (r^2 A A^T + noise^2 I)^{-1} (y - A xhat),     r^2 = k^2 v / (k^2 + v),     k = s / m   (2)
    projection    v.x <- m u.y / g + (s^2 - m^2 noise^2 / g^2)^1/2 z,     A = sum of g u v^T, if the root is real  (3)
                  x <- x + l A^+ (m y + s A z - A x),     l = s^2 / (s^2 + m^2 noise^2),     of a `Linear` A      (4)

Particles, in the limit of many, are the unconditional chain's x of the last time, weighted by the density of y in (2),
and moved by the last step of (2).
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from score_sde.process import Process
from score_sde.sampling import PREDICTORS
from score_sde.sampling.fast import FAST_SOLVERS, Options
from score_sde.sampling.grids import time_grid
from score_sde.sampling.rows import Grid


class Law(NamedTuple):
    mean: np.ndarray  # (D,)
    covariance: np.ndarray  # (D, D)


class Affine(NamedTuple):
    """x -> matrix x + shift."""

    matrix: np.ndarray
    shift: np.ndarray

    def after(self, law: Law) -> Law:
        return Law(self.matrix @ law.mean + self.shift, self.matrix @ law.covariance @ self.matrix.T)


class Seen(NamedTuple):
    """An observation."""

    matrix: np.ndarray
    y: np.ndarray
    noise: float


Score = Callable[[float], Affine]  # at a time


def conditioned(law: Law, seen: Seen) -> Law:
    """Bayes' formula for y = A x + n, by the information matrix if there is noise."""
    a, y, noise = seen
    if noise:
        precision = np.linalg.inv(law.covariance) + a.T @ a / noise**2
        covariance = np.linalg.inv(precision)
        return Law(covariance @ (np.linalg.solve(law.covariance, law.mean) + a.T @ y / noise**2), covariance)
    gain = np.linalg.solve(a @ law.covariance @ a.T, a @ law.covariance).T
    return Law(law.mean + gain @ (y - a @ law.mean), law.covariance - gain @ a @ law.covariance)


@functools.cache
def _kernel(sde: Process, t: float) -> tuple[float, float]:
    return float(sde.alpha(np.array([t]))[0]), float(sde.sigma(np.array([t]))[0])


def score_of(sde: Process, data: Law) -> Score:
    def score(t: float) -> Affine:
        m, s = _kernel(sde, t)
        inverse = np.linalg.inv(m**2 * data.covariance + s**2 * np.eye(len(data.mean)))
        return Affine(-inverse, m * inverse @ data.mean)

    return score


def denoiser(sde: Process, data: Law, t: float) -> Affine:
    """xhat."""
    m, s = _kernel(sde, t)
    j = m * data.covariance @ np.linalg.inv(m**2 * data.covariance + s**2 * np.eye(len(data.mean)))
    return Affine(j, data.mean - m * j @ data.mean)


def spread(sde: Process, seen: Seen, v: float, t: float) -> np.ndarray:
    """The covariance of y that `pigdm` takes."""
    m, s = _kernel(sde, t)
    k2 = (s / m) ** 2
    return k2 * v / (k2 + v) * seen.matrix @ seen.matrix.T + seen.noise**2 * np.eye(len(seen.y))


def pigdm_score(sde: Process, data: Law, seen: Seen, v: float = 1.0) -> Score:
    plain = score_of(sde, data)

    def score(t: float) -> Affine:
        xhat = denoiser(sde, data, t)
        pull = xhat.matrix.T @ seen.matrix.T @ np.linalg.inv(spread(sde, seen, v, t))
        matrix, shift = plain(t)
        return Affine(matrix - pull @ seen.matrix @ xhat.matrix, shift + pull @ (seen.y - seen.matrix @ xhat.shift))

    return score


class Hold(NamedTuple):
    """x <- keep x + shift + noise z, and of the mean without noise."""

    keep: np.ndarray
    shift: np.ndarray
    noise: np.ndarray


def hold_to(sde: Process, seen: Seen, spectral: bool = True) -> Callable[[float], Hold]:
    """`projection`. spectral: by the singular vectors of A; otherwise eq. (4)."""
    inverse = np.linalg.pinv(seen.matrix)
    onto = inverse @ seen.matrix
    left_vectors, factors, vectors = np.linalg.svd(seen.matrix, full_matrices=False)

    def at(t: float) -> Hold:
        m, s = _kernel(sde, t)
        if spectral:
            variance = s**2 - (m * seen.noise / factors) ** 2
            on = variance >= 0
            of_y = vectors.T @ np.diag(on / factors) @ left_vectors.T
            noise = vectors.T @ np.diag(np.sqrt(np.where(on, variance, 0.0)))
            return Hold(np.eye(len(onto)) - of_y @ seen.matrix, m * of_y @ seen.y, noise)
        strength = s**2 / (s**2 + m**2 * seen.noise**2)
        return Hold(np.eye(len(onto)) - strength * onto, strength * m * inverse @ seen.y, strength * s * onto)

    return at


def start(sde: Process, d: int, seen: Seen | None = None) -> Law:
    """The law of x_T, with the observation in its place for `projection`."""
    prior = Law(np.zeros(d), sde.prior_std**2 * np.eye(d))
    if seen is None:
        return prior
    inverse = np.linalg.pinv(seen.matrix)
    return Affine(np.eye(d) - inverse @ seen.matrix, inverse @ seen.y).after(prior)


def steps_of(sde: Process, predictor: str) -> list[tuple[float, float, float, float]]:
    """(t, a, b, c) of each step, in float64."""
    times = np.linspace(1.0, sde.sampling_eps, sde.num_scales)
    with jax.enable_x64(True):
        step = jax.jit(PREDICTORS[predictor], static_argnums=0)(sde, times)
        sigma = np.asarray(sde.sigma(times), np.float64)
        # eps is -sigma score
        abc = [np.asarray(step.x, np.float64), -sigma * np.asarray(step.eps), np.asarray(step.z, np.float64)]
    return list(zip(*(column.tolist() for column in (times, *abc)), strict=True))


def predicted(
    sde: Process,
    score: Score,
    law: Law,
    hold: Callable[[float], Hold] | None = None,
    predictor: str = "reverse_diffusion",
) -> Law:
    """The law of the last step's mean, of `predictor_corrector` without a corrector."""
    one = np.eye(len(law.mean))
    for t, a, b, c in steps_of(sde, predictor):
        mean = _step(score(t), a, b).after(law)
        law = Law(mean.mean, mean.covariance + c**2 * one)
        if hold is not None:
            held = hold(t)
            pull = Affine(held.keep, held.shift)
            mean, law = pull.after(mean), pull.after(law)
            law = Law(law.mean, law.covariance + held.noise @ held.noise.T)
    return mean


def _step(score: Affine, a: float, b: float) -> Affine:
    return Affine(a * np.eye(len(score.shift)) + b * score.matrix, b * score.shift)


def particles_limit(sde: Process, data: Law, seen: Seen, v: float = 1.0, predictor: str = "reverse_diffusion") -> Law:
    """The law of infinitely many particles."""
    plain, law = score_of(sde, data), start(sde, len(data.mean))
    *most, (t, a, b, _) = steps_of(sde, predictor)
    for time, a_, b_, c in most:
        law = _step(plain(time), a_, b_).after(law)
        law = Law(law.mean, law.covariance + c**2 * np.eye(len(law.mean)))
    xhat = denoiser(sde, data, t)
    of_y = seen.matrix @ xhat.matrix
    gain = law.covariance @ of_y.T @ np.linalg.inv(of_y @ law.covariance @ of_y.T + spread(sde, seen, v, t))
    law = Law(
        law.mean + gain @ (seen.y - seen.matrix @ xhat.shift - of_y @ law.mean),
        law.covariance - gain @ of_y @ law.covariance,
    )
    return _step(pigdm_score(sde, data, seen, v)(t), a, b).after(law)


def flowed(sde: Process, data: Law, law: Law) -> Law:
    """The law after the exact probability flow of Gaussian data to the last time and `probability_flow`'s denoising."""
    variances, axes = np.linalg.eigh(data.covariance)
    (m1, s1), (m0, s0) = _kernel(sde, 1.0), _kernel(sde, sde.sampling_eps)
    ratio = np.sqrt((m0**2 * variances + s0**2) / (m1**2 * variances + s1**2))
    matrix = (axes * ratio) @ axes.T
    law = Affine(matrix, m0 * data.mean - matrix @ (m1 * data.mean)).after(law)
    _, a, b, _ = steps_of(sde, "reverse_diffusion")[-1]
    return _step(score_of(sde, data)(sde.sampling_eps), a, b).after(law)


def tabulated_law(
    sde: Process,
    name: str,
    num_steps: int,
    score: Score,
    law: Law,
    hold: Callable[[float], Hold] | None = None,
) -> Law:
    """The law of a deterministic fast solver, which is affine in (1, x_T, z); all that is held has one z."""
    d, eps = len(law.mean), sde.sampling_eps
    table = FAST_SOLVERS[name](Grid(sde, time_grid(sde, "log_snr", num_steps, eps=eps, rho=7.0)), Options())
    times = [*table.t.tolist(), eps]
    kernels = [_kernel(sde, t) for t in times]
    draws = 0 if hold is None else hold(1.0).noise.shape[1]

    def evaluate(x: np.ndarray, i: int, data: bool) -> np.ndarray:
        (m, s), (matrix, shift) = kernels[i], score(times[i])
        noise = -s * matrix @ x
        noise[:, 0] -= s * shift
        return (x - s * noise) / m if data else noise

    def held(x: np.ndarray, i: int) -> np.ndarray:
        pull = hold(times[i])
        x = pull.keep @ x
        x[:, 0] += pull.shift
        x[:, 1 + d :] += pull.noise
        return x

    base = np.concatenate([law.mean[:, None], np.eye(d), np.zeros((d, draws))], axis=1)
    trial, history = base, []
    for i, (of_base, of_trial) in enumerate(zip(table.base, table.trial, strict=True)):
        history = [evaluate(trial, i, table.predicts_data), *history]
        terms = [base, *history]
        base, trial = (
            sum(w * term for w, term in zip(weights, terms, strict=False)) for weights in (of_base, of_trial)
        )
        if hold is not None:
            trial = held(trial, i + 1)
            base = trial if np.array_equal(of_base, of_trial) else base
    x = evaluate(base, len(table.t), data=True)
    of_start, of_noise = x[:, 1 : 1 + d], x[:, 1 + d :]
    return Law(x[:, 0], of_start @ law.covariance @ of_start.T + of_noise @ of_noise.T)
