"""The rows of the table: every sampler, how it is asked for n steps, and what its theory says."""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from score_sde.experiments.truth_table.problems import (
    HIGH_END,
    HIGH_START,
    LAST,
    LOW_END,
    LOW_START,
    LOW_START_AND_END,
    MEASURED,
    MEASURED_CHAIN,
)

from score_sde.array_types import Array, Keys
from score_sde.errors import UsageError
from score_sde.process import Process
from score_sde.sampling import FAST_SOLVERS, PREDICTORS, Solver, adaptive, fast_solver, probability_flow
from score_sde.sampling import predictor_corrector as pc

# Where the order is measured against: steps (deterministic: the flow; stochastic: the law), snr, tolerance.
FLOW, LAW, SNR, TOLERANCE = "steps, flow", "steps, law", "snr", "tolerance"


class Row(NamedTuple):
    name: str
    make: Callable[..., Solver]  # (sde, model, steps=None, **options); without steps: the library's defaults
    against: str | None  # None: no order is claimed or measured
    order: int | None = None
    grid: str = ""
    sizes: tuple[float, ...] = ()  # numbers of steps, or snr, or tolerances
    options: dict = {}  # for the measurement of the order only  # noqa: RUF012
    eps: float | None = None  # of that measurement; None: the SDE's
    sdes: dict[str, Process] = MEASURED  # of that measurement
    at_defaults: bool = True  # whether it is run at the library's defaults too

    def expected(self, sde_name: str, data_name: str) -> int | None:
        """The theoretical order; one more where the leading term of the error is zero."""
        if (self.name, sde_name, data_name) in SUPERCONVERGENT:
            return self.order + 1
        return self.order

    def bias_bound(self, sde_name: str) -> float:
        """The largest bias at the defaults that is no miss, as a distance of characteristic functions."""
        if (self.name, sde_name) in KNOWN_BIAS:
            return KNOWN_BIAS[self.name, sde_name]
        return FIRST_ORDER_BIAS if self.name in OF_20_FIRST_ORDER_STEPS else BIAS

    def defined(self, sde: Process) -> bool:
        try:
            self.make(sde, lambda x, t: x)
        except UsageError:
            return False
        return True


def predictor_corrector(sde: Process, model: Callable, steps: int | None = None, **options) -> Solver:
    """The library's predictor-corrector sampler; with `steps` the SDE's chain has as many.

    To a process's own last time the sampler takes N steps of 1/N while its times cover [eps, 1] only, as in the paper's
    code. What it converges to thus differs from p_eps by O(eps), and orders are measured on processes whose own eps is
    below all that is measured.
    """
    return pc(sde if steps is None else dataclasses.replace(sde, num_scales=steps), model, **options)


def _pc(
    name: str, against: str | None, order: int | None, sizes: tuple = (), measured: dict | None = None, **chosen
) -> Row:
    def make(sde: Process, model: Callable, steps: int | None = None, **options) -> Solver:
        return predictor_corrector(sde, model, steps, **{**chosen, **options})

    return Row(name, make, against, order, "uniform", sizes, measured or {}, LAST, MEASURED_CHAIN)


def _fast(
    name: str,
    against: str,
    order: int,
    sizes: tuple,
    label: str = "",
    measured: dict | None = None,
    sdes: dict = MEASURED,
    **chosen,
) -> Row:
    grid = "uniform" if name in ("euler", "heun") else "log_snr"

    def make(sde: Process, model: Callable, steps: int | None = None, **options) -> Solver:
        of_steps = {} if steps is None else dict(num_steps=steps, grid=grid)
        return fast_solver(sde, model, name=name, **{**chosen, **of_steps, **options})

    return Row(label or name, make, against, order, grid, sizes, measured or {}, sdes=sdes)


def _tolerance(name: str, make: Callable, order: int | None, sizes: tuple) -> Row:
    return Row(name, make, TOLERANCE, order, "adaptive", sizes)


FINE, WEAK = (128, 256, 512, 1024), (64, 128, 256, 512)
# Bounds of `Row.bias_bound`: of 20 steps of second order or more, of 1000 steps of the first, of tolerances; and of 20
# steps of the first, where a bias of this size is what theory expects.
BIAS, FIRST_ORDER_BIAS = 0.07, 0.15
OF_20_FIRST_ORDER_STEPS = {"ddim", "ddim, eta=1", "euler", "dpm_solver_1"}
# 20 Euler steps are too long for the VE SDE, whose slope in t is 17 times the distance to the data; and Langevin steps
# by a sample's own norm are biased by O(1/D), at D = 2 by this much.
KNOWN_BIAS = {("euler", "VE"): 0.7} | {("pc + langevin_per_sample", sde): 0.4 for sde in ("VP", "sub-VP", "VE", "EDM")}
ORDERS = {
    "ddim": 1,
    "euler": 1,
    "dpm_solver_1": 1,
    "heun": 2,
    "edm": 2,
    "dpm_solver_2": 2,
    "dpmpp_2s": 2,
    "dpmpp_2m": 2,
    "dpmpp_3m": 2,
    "ipndm": 2,
    "deis_1": 2,
    "dpm_solver_3": 3,
    "unipc_2": 3,
    "deis_2": 3,
    "unipc_3": 4,
    "deis_3": 4,
}
# One Euler step is of second order in its length, and UniPC corrects it to the third.
FIRST_STEPS = {"deis_2": 2, "deis_3": 2, "unipc_3": 3}
LAST_STEPS = {"unipc_2": 2, "unipc_3": 2}  # the last of all is of first order and has no corrector
# On VE, t is linear in l = -log k, and on a Gaussian the leading error of the three-point rule, h^3 times the
# integral of e e''' dl along the flow, is zero: it is e e'' - e'^2 / 2 between the ends, where e is constant.
SUPERCONVERGENT = {("deis_2", "VE", "Gaussian")}
STOCHASTIC = {
    "dpmpp_2m_sde": (2, {}),
    # Churn everywhere, not enough to be cut off; and with the variance that leaves the marginals as they are.
    "edm_stochastic": (2, dict(s_churn=10.0, s_min=0.0, s_max=1e9, s_noise=1.0)),
}


def _rows() -> list[Row]:
    rows = []
    for predictor in (name for name in PREDICTORS if name != "none"):
        rows.append(_pc(f"pc {predictor}", LAW, 1, WEAK, predictor=predictor))
        flow = dict(predictor=predictor, probability_flow=True)
        rows.append(_pc(f"pc {predictor}, flow", FLOW, 1, FINE, dict(noise=_silence), **flow))
    with_corrector = dict(predictor="reverse_diffusion")
    alone = dict(predictor="none")
    rows.append(_pc("pc + ald", SNR, 2, (0.1, 0.15, 0.2, 0.3), alone, corrector="ald", **with_corrector))
    rows.append(_pc("pc + langevin", None, None, corrector="langevin", **with_corrector))
    rows.append(_pc("pc + langevin_per_sample", None, None, corrector="langevin_per_sample", **with_corrector))
    rows.append(_tolerance("ode", _ode, 1, (1e-4, 1e-5, 1e-6, 1e-7)))
    rows.append(_tolerance("ode, tsit5", functools.partial(_ode, ode_method="tsit5"), 1, (1e-4, 1e-5, 1e-6, 1e-7)))
    rows.append(_tolerance("adaptive", _adaptive, None, (0.1, 0.05, 0.02, 0.01)))
    for name in FAST_SOLVERS:
        if name in STOCHASTIC:
            order, measured = STOCHASTIC[name]
            rows.append(_fast(name, LAW, order, WEAK, measured=measured))
        else:
            order = ORDERS[name]
            sdes = MEASURED if name in ("euler", "heun") else LOW_END if name == "unipc_3" else HIGH_START
            rows.append(_fast(name, FLOW, order, FINE, sdes=sdes))
        if name == "ddim":
            rows.append(_fast(name, LAW, 1, WEAK, label="ddim, eta=1", eta=1.0))
    for name, order in FIRST_STEPS.items():
        sdes = LOW_START_AND_END if name == "unipc_3" else LOW_START
        rows.append(_fast(name, FLOW, order, FINE, label=f"{name}, low start", sdes=sdes)._replace(at_defaults=False))
    for name, order in LAST_STEPS.items():
        row = _fast(name, FLOW, order, FINE, label=f"{name}, high end", sdes=HIGH_END)
        rows.append(row._replace(at_defaults=False))
    return rows


def _silence(keys: Keys, shape: tuple[int, ...]) -> Array:
    """The flow's steps multiply their noise by zero; not drawing it makes smaller programs."""
    return jnp.zeros((len(keys), *shape))


def _ode(sde: Process, model: Callable, tolerance: float | None = None, **options) -> Solver:
    chosen = {} if tolerance is None else dict(rtol=tolerance, atol=tolerance)
    return probability_flow(sde, model, **{**chosen, **options})


def _adaptive(sde: Process, model: Callable, tolerance: float | None = None, **options) -> Solver:
    chosen = {} if tolerance is None else dict(rtol=tolerance, atol=tolerance)
    return adaptive(sde, model, **{**chosen, **options})


ROWS = {row.name: row for row in _rows()}
