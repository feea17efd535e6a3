r"""Fast solvers: few evaluations, all of them used well. Each is a table for `score_sde.sampling.tabulated`.

In the noise form a step from level k to k' < k is y' = y + \int_k^{k'} e dk, in the data form with h = log(k / k')

    y' = exp(-h) y + \int_0^h exp(s - h) d(l + s) ds,                                               (1)

and the solvers differ in the polynomial that they fit to their evaluations:

| name               | the network enters as                 | order   | reference                                 |
|--------------------|---------------------------------------|---------|-------------------------------------------|
| ddim, dpm_solver_1 | e, constant                           | 1       | Song, Meng and Ermon 2021; eta > 0: noise |
| euler, heun        | slopes of the ODE in t                | 1, 2    |                                           |
| edm                | e, trapezoid                          | 2       | Karras et al. 2022, algorithm 1           |
| edm_stochastic     | the same, with churn                  | 2       | Karras et al. 2022, algorithm 2           |
| dpm_solver_2, _3   | e, polynomial in l, inside the step   | 2, 3    | Lu et al. 2022a, algorithms 1 and 2       |
| dpmpp_2s           | d, polynomial in l, inside the step   | 2       | Lu et al. 2022b, algorithm 1              |
| dpmpp_2m           | d, polynomial in l, over steps        | 2       | Lu et al. 2022b, algorithm 2              |
| dpmpp_3m           | the same, as published                | 2       | Lu et al. 2022b; see `_dpmpp_3m`          |
| dpmpp_2m_sde       | the same, on the reverse SDE          | 2       | Lu et al. 2022b, appendix                 |
| unipc_2, _3        | d, polynomial in l, with a corrector  | 3, 4    | Zhao et al. 2023, with B_2                |
| deis_1, _2, _3     | e, polynomial in t, over steps        | 2, 3, 4 | Zhang and Chen 2023, tAB                  |
| ipndm              | e, Adams-Bashforth as on an even grid | 2       | Zhang and Chen 2023, after Liu et al.     |

On a grid even in k, ipndm has order 4. Multistep methods begin with lower orders, as published. Where the data are not
lost in noise at t = 1, the error of their first steps, of order 2 for deis and 3 for unipc_3, dominates the rest.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, NamedTuple

import numpy as np

from score_sde.config.arguments import check_arguments
from score_sde.errors import UsageError, one_of
from score_sde.process import Eps, Model, Process, in_float64
from score_sde.randomness import Noise, normal
from score_sde.sampling.grids import NumSteps, Rho, time_grid
from score_sde.sampling.rows import KEEP, Grid, Rows, first_step
from score_sde.sampling.solver import Project, Solver, StartTime, check_times
from score_sde.sampling.tabulated import Table, tabulated

NODES, WEIGHTS = np.polynomial.legendre.leggauss(32)  # quadrature on [-1, 1]


Share, Churn, Level = (Annotated[float, interval] for interval in ("[0, 1]", "[0, inf)", "[0, inf]"))


class Options(NamedTuple):
    """Options of single fast solvers, under the names of their keys in `config.sampling`."""

    eta: Share = 0.0  # ddim
    s_churn: Churn = 40.0  # edm_stochastic
    s_min: Level = 0.05
    s_max: Level = 50.0
    s_noise: Annotated[float, "(0, 1000]"] = 1.003
    diffusion: Annotated[float, "[0, 1e6]"] = 1.0  # dpmpp_2m_sde: w


THIRD = 0.72  # longest step in l, about half of the noise, at which third order beats second (experiments/truth_table)


def _ddim(grid: Grid, options: Options) -> Table:
    """DDIM: y' = d + sqrt(k'^2 - c^2) e + c z, with c^2 = eta^2 k'^2 (1 - (k'/k)^2)."""
    rows = Rows()
    for t, k, k1 in zip(grid.t, grid.k, grid.k[1:], strict=False):
        c = options.eta * k1 * np.sqrt(1 - np.square(k1 / k))
        rows.add(t, [1, np.sqrt(k1**2 - c**2) - k], noise=c)
    return rows.table(grid)


def _dpm_solver_1(grid: Grid, options: Options) -> Table:
    return _ddim(grid, options._replace(eta=0.0))


def _velocity(grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """(f, w) of dx/dt = f x + w e at the times of the grid."""
    alpha, sigma = (in_float64(part, grid.t) for part in (grid.process.alpha, grid.process.sigma))
    d_alpha, d_sigma = grid.process.rates(grid.t)
    return d_alpha / alpha, d_sigma - d_alpha / alpha * sigma


def _euler(grid: Grid, options: Options) -> Table:
    rows, scale, (f, w) = Rows(), in_float64(grid.process.alpha, grid.t), _velocity(grid)
    for i, dt in enumerate(np.diff(grid.t)):
        rows.add(grid.t[i], [(1 + dt * f[i]) * scale[i] / scale[i + 1], dt * w[i] / scale[i + 1]])
    return rows.table(grid)


def _heun(grid: Grid, options: Options) -> Table:
    rows, scale, (f, w) = Rows(), in_float64(grid.process.alpha, grid.t), _velocity(grid)
    for i, dt in enumerate(np.diff(grid.t)):
        x0, e0 = scale[i], 0.0  # of base in x; each line below is a row (base, e) of weights in x
        predicted = np.array([(1 + dt * f[i]) * x0, dt * w[i]])
        slope0, slope1 = np.array([f[i] * x0, w[i]]), f[i + 1] * predicted
        corrected = np.array([x0, e0]) + dt / 2 * (slope0 + slope1)
        rows.add(grid.t[i], KEEP, predicted / scale[i + 1])
        rows.add(grid.t[i + 1], np.array([corrected[0], dt / 2 * w[i + 1], corrected[1]]) / scale[i + 1])
    return rows.table(grid)


def _edm(grid: Grid, options: Options) -> Table:
    return _edm_stochastic(grid, options._replace(s_churn=0.0))


def _edm_stochastic(grid: Grid, options: Options) -> Table:
    """EDM's stochastic sampler: before a step whose level is in [s_min, s_max], noise raises it by a factor 1 + gamma.

    The level is never raised above the first one. gamma is s_churn over the number of steps, where as published the
    step to level 0 counts too.
    """
    rows, k, n = Rows(), grid.k, len(grid.t) - 1
    churn = min(options.s_churn / (n + grid.denoises), np.sqrt(2) - 1)
    gamma = np.where((k >= options.s_min) & (k <= options.s_max), churn, 0.0)
    raised = np.minimum(k * (1 + gamma), k[0])
    noise = options.s_noise * np.sqrt(np.maximum(np.square(raised) - np.square(k), 0.0))
    t = np.where(raised > k, grid.time(raised), grid.t)
    for i in range(n):
        step = k[i + 1] - raised[i]
        rows.add(t[i], KEEP, [1, step])
        rows.add(grid.t[i + 1], [1, step / 2, step / 2], noise=noise[i + 1] if i + 1 < n else 0.0)
    return rows.table(grid)


def _dpm_solver_2(grid: Grid, options: Options) -> Table:
    rows = Rows()
    for i in range(len(grid.t) - 1):
        t1, k1 = grid.between(i, 1 / 2)
        rows.add(grid.t[i], KEEP, [1, k1 - grid.k[i]])
        rows.add(t1, [1, grid.k[i + 1] - grid.k[i]])
    return rows.table(grid)


def _dpm_solver_3(grid: Grid, options: Options) -> Table:
    rows, k = Rows(), grid.k
    for i, h in enumerate(np.log(k[:-1] / k[1:])):
        (t1, k1), (t2, k2) = grid.between(i, 1 / 3), grid.between(i, 2 / 3)
        slope = 2 * k2 * (np.expm1(2 * h / 3) / (2 * h / 3) - 1)
        curve = 1.5 * k[i + 1] * (np.expm1(h) / h - 1)
        rows.add(grid.t[i], KEEP, [1, k1 - k[i]])
        rows.add(t1, KEEP, [1, -slope, k2 - k[i] + slope])
        rows.add(t2, [1, -curve, 0, k[i + 1] - k[i] + curve])
    return rows.table(grid)


def _dpmpp_2s(grid: Grid, options: Options) -> Table:
    rows, k = Rows(predicts_data=True), grid.k
    for i in range(len(grid.t) - 1):
        t1, k1 = grid.between(i, 1 / 2)
        rows.add(grid.t[i], KEEP, [k1 / k[i], 1 - k1 / k[i]])
        rows.add(t1, [k[i + 1] / k[i], 1 - k[i + 1] / k[i]])
    return rows.table(grid)


def _orders(h: np.ndarray, order: int) -> list[int]:
    """Order of each step of lengths h in l: lower for the first and last steps, and for long steps that extrapolate."""
    n = len(h)
    return [min(order if h[i] <= THIRD else 2, order, i + 1, n - i) for i in range(n)]


def _dpmpp_2m(grid: Grid, options: Options) -> Table:
    rows, h = Rows(predicts_data=True), np.log(grid.k[:-1] / grid.k[1:])
    for i, order in enumerate(_orders(h, 2)):
        slope = 0.5 * h[i] / h[i - 1] if order == 2 else 0.0
        rows.add(grid.t[i], [np.exp(-h[i]), *(-np.expm1(-h[i]) * np.array([1 + slope, -slope]))])
    return rows.table(grid)


def _dpmpp_2m_sde(grid: Grid, options: Options) -> Table:
    """DPM-Solver++ 2M on the reverse SDE whose noise has the variance w g^2 dt: y decays by e^{-(1 + w) h}."""
    rows, k, h, w = Rows(predicts_data=True), grid.k, np.log(grid.k[:-1] / grid.k[1:]), options.diffusion
    for i, order in enumerate(_orders(h, 2)):
        slope = 0.5 * h[i] / h[i - 1] if order == 2 else 0.0
        decay = (1 + w) * h[i]
        weight, noise = -np.expm1(-decay), k[i + 1] * np.sqrt(-np.expm1(-2 * w * h[i]))
        rows.add(grid.t[i], [np.exp(-decay), weight * (1 + slope), -weight * slope], noise=noise)
    return rows.table(grid)


def _dpmpp_3m(grid: Grid, options: Options) -> Table:
    """DPM-Solver++ 3M as published: the second difference has half of its weight in eq. (1), so the order is 2."""
    rows, h = Rows(predicts_data=True), np.log(grid.k[:-1] / grid.k[1:])
    for i, order in enumerate(_orders(h, 3)):
        phi1 = -np.expm1(-h[i])
        phi2 = 1 - phi1 / h[i]
        phi3 = phi2 / h[i] - 0.5  # < 0
        if order < 3:
            slope = 0.5 * h[i] / h[i - 1] if order == 2 else 0.0
            rows.add(grid.t[i], [np.exp(-h[i]), phi1 * (1 + slope), -phi1 * slope])
            continue
        r0, r1 = h[i - 1] / h[i], h[i - 2] / h[i]
        d0, d1 = np.array([1, -1, 0]) / r0, np.array([0, 1, -1]) / r1
        slope, curve = d0 + r0 / (r0 + r1) * (d0 - d1), (d0 - d1) / (r0 + r1)
        rows.add(grid.t[i], [np.exp(-h[i]), *(phi1 * np.array([1, 0, 0]) + phi2 * slope - phi3 * curve)])
    return rows.table(grid)


def _lagrange(nodes: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Lagrange polynomials of the nodes, evaluated at points: (nodes, points)."""

    def polynomial(i: int) -> np.ndarray:
        others = np.delete(nodes, i)[:, None]
        return np.prod((at - others) / (nodes[i] - others), axis=0)

    return np.array([polynomial(i) for i in range(len(nodes))])


def _data_weights(lam: np.ndarray, i: int, nodes: Sequence[int]) -> np.ndarray:
    """Weights of d at grid points `nodes` in eq. (1) for step i, from their polynomial in lam."""
    h = lam[i + 1] - lam[i]
    s = h * (NODES + 1) / 2
    return _lagrange(lam[list(nodes)], lam[i] + s) @ (WEIGHTS * h / 2 * np.exp(s - h))


def _unipc(order: int) -> Callable[[Grid, Options], Table]:
    """UniPC: each step's result is corrected after the network has been evaluated there, at no extra cost."""

    def table(grid: Grid, options: Options) -> Table:
        rows, lam, n = Rows(predicts_data=True), -np.log(grid.k), len(grid.t) - 1
        orders, base = _orders(np.diff(lam), order), np.array([1.0])
        for i in range(n):
            if i > 0:
                base = np.array([np.exp(lam[i - 1] - lam[i]), *_corrector(lam, i - 1, orders[i - 1])])
            h = lam[i + 1] - lam[i]
            trial = np.exp(-h) * base
            predictor = _predictor(lam, i, orders[i])
            width = max(len(base), 1 + len(predictor))
            trial = np.pad(trial, (0, width - len(trial)))
            trial[1 : 1 + len(predictor)] += predictor
            rows.add(grid.t[i], base if i < n - 1 else trial, trial, at=grid.t[i] if i < n - 1 else grid.t[n])
        return rows.table(grid)

    return table


def _predictor(lam: np.ndarray, i: int, order: int) -> np.ndarray:
    if order == 2:  # B_2(h) instead of the polynomial's weight, as published
        phi1, slope = -np.expm1(lam[i] - lam[i + 1]), 0.5 * (lam[i + 1] - lam[i]) / (lam[i] - lam[i - 1])
        return phi1 * np.array([1 + slope, -slope])
    return _data_weights(lam, i, range(i, i - order, -1))


def _corrector(lam: np.ndarray, i: int, order: int) -> np.ndarray:
    """Weights of d at grid points i + 1, i, i - 1, ... in the corrected step i."""
    if order == 1:
        return -np.expm1(lam[i] - lam[i + 1]) * np.array([0.5, 0.5])
    return _data_weights(lam, i, range(i + 1, i - order, -1))


def _deis(order: int) -> Callable[[Grid, Options], Table]:
    def table(grid: Grid, options: Options) -> Table:
        rows, lam = Rows(), -np.log(grid.k)
        for i in range(len(lam) - 1):
            h = lam[i + 1] - lam[i]
            k = np.exp(-(lam[i] + h * (NODES + 1) / 2))
            nodes = grid.t[i::-1][: order + 1]
            weights = _lagrange(nodes, grid.time(k)) @ (WEIGHTS * h / 2 * -k)  # dk = -k d lam
            rows.add(grid.t[i], [1, *weights])
        return rows.table(grid)

    return table


ADAMS_BASHFORTH = ([1], [3 / 2, -1 / 2], [23 / 12, -16 / 12, 5 / 12], [55 / 24, -59 / 24, 37 / 24, -9 / 24])


def _ipndm(grid: Grid, options: Options) -> Table:
    rows = Rows()
    for i, step in enumerate(np.diff(grid.k)):
        rows.add(grid.t[i], [1, *(step * np.array(ADAMS_BASHFORTH[min(i, 3)]))])
    return rows.table(grid)


_TABLES: dict[str, Callable[[Grid, Options], Table]] = {
    "ddim": _ddim,
    "euler": _euler,
    "heun": _heun,
    "edm": _edm,
    "edm_stochastic": _edm_stochastic,
    "dpm_solver_1": _dpm_solver_1,
    "dpm_solver_2": _dpm_solver_2,
    "dpm_solver_3": _dpm_solver_3,
    "dpmpp_2s": _dpmpp_2s,
    "dpmpp_2m": _dpmpp_2m,
    "dpmpp_3m": _dpmpp_3m,
    "dpmpp_2m_sde": _dpmpp_2m_sde,
    "unipc_2": _unipc(2),
    "unipc_3": _unipc(3),
    "deis_1": _deis(1),
    "deis_2": _deis(2),
    "deis_3": _deis(3),
    "ipndm": _ipndm,
}
FAST_SOLVERS = {name: check_arguments(table) for name, table in _TABLES.items()}


@check_arguments
def fast_solver(
    process: Process,
    model: Model,
    *,
    name: str = "dpmpp_2m",
    num_steps: NumSteps = 20,
    grid: str = "log_snr",
    rho: Rho = 7.0,
    eps: Eps | None = None,
    start_time: StartTime = 1.0,
    noise_removal: bool = True,
    project: Project | None = None,
    noise: Noise = normal,
    eta: Share = 0.0,
    s_churn: Churn = 40.0,
    s_min: Level = 0.05,
    s_max: Level = 50.0,
    s_noise: Annotated[float, "(0, 1000]"] = 1.003,
    diffusion: Annotated[float, "[0, 1e6]"] = 1.0,
) -> Solver:
    """A solver from x_T ~ p_1 to samples; its result is (x, nfe), nfe of shape (b,) the exact evaluations per sample.

    process: the process. model: (x, t) -> `Prediction`. name: a solver of the table above.
    num_steps: steps >= 1; some solvers make several evaluations in each. grid, rho: see `score_sde.sampling.grids`.
    eps: last time, default `process.sampling_eps`. start_time: first time, in (eps, 1], at which the solver takes x.
    noise_removal: return the posterior mean of the data at eps (Tweedie), for 1 more evaluation.
    project: see `score_sde.sampling.tabulated`. noise: source of z for stochastic solvers, (keys, shape) -> z.
    Options of single solvers: eta in [0, 1] (ddim: 0 is deterministic, 1 ancestral); diffusion in [0, 1e6]
    (dpmpp_2m_sde: w of the noise's variance w g^2 dt); s_churn, s_min, s_max, s_noise (edm_stochastic; s_min and s_max
    are noise levels sigma / alpha in model range, the defaults are for data in [-1, 1]).
    Where alpha(1) = 0 the first step is x <- alpha x0 + sigma eps, with one evaluation, whatever the solver.
    Raises `UsageError` for unknown names, options out of range, and schedules that differ from pixel to pixel.

        import jax
        import numpy as np
        from score_sde.oracles import Gaussian
        from score_sde.sampling import fast_solver, solve
        from score_sde.sde import VP

        data, process = Gaussian(np.zeros((2, 2, 1)), 0.25), VP()
        x = process.prior_sample(jax.random.split(jax.random.key(0), 8), data.shape)
        solver = fast_solver(process, data.model(process), name="unipc_2", num_steps=8)
        samples, nfe = solve(solver, jax.random.key(1), x)  # nfe = 9
    """
    build = FAST_SOLVERS[one_of("sampling.method", name, FAST_SOLVERS)]
    eps = process.sampling_eps if eps is None else eps
    check_times(eps, start_time)
    chosen = Options(eta, s_churn, s_min, s_max, s_noise, diffusion)
    if not s_min <= s_max:
        raise UsageError(f"sampling.s_min={s_min} must be at most sampling.s_max={s_max}.")
    t = time_grid(process, grid, num_steps, eps=eps, rho=rho, start_time=start_time)
    if start_time == 1 and process.begins_in_noise:
        later = build(Grid(process, t[1:], noise_removal), chosen) if num_steps > 1 else None
        kept = {"ddim": np.sqrt(1 - chosen.eta**2), "dpmpp_2m_sde": float(chosen.diffusion == 0)}.get(name, 1.0)
        table = first_step(process, t, later, kept)
    else:
        table = build(Grid(process, t, noise_removal), chosen)
    return tabulated(model, table, eps=eps, noise_removal=noise_removal, project=project, noise=noise)
