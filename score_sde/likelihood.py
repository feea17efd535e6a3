r"""Likelihoods by the probability-flow ODE (paper, section 4.3 and appendix D.2).

Along dx/dt = h(x, t) the log-density changes by the divergence of h (eq. 39),

    log p_0(x_0) = log p_1(x_1) + \int_0^1 div h(x_t, t) dt,                    (1)

which Hutchinson's estimator e . (dh/dx) e replaces by an unbiased one, with one probe e a sample, fixed along the
trajectory: a probe drawn anew would make the right-hand side random and break the step control.

Images of 256 levels must be dequantised (`score_sde.images.dequantize`) before they come here.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from score_sde.array_types import Array, Float, Images, Keys, PerSample, ScoreFn
from score_sde.errors import one_of
from score_sde.randomness import Stream, normal, rademacher, stream
from score_sde.sampling.probability_flow import check_tolerances, drift
from score_sde.sampling.runge_kutta import State as OdeState
from score_sde.sampling.runge_kutta import dormand_prince
from score_sde.sampling.solver import Solver
from score_sde.sde import SDE

VectorField = Callable[[Images], Images]


class State(NamedTuple):
    ode: OdeState  # of (x, integral of the divergence)
    probe: Images


def hutchinson(field: VectorField, x: Images, probe: Images) -> tuple[Images, PerSample]:
    """The field and an estimate of its divergence, by one forward-mode derivative along the probe."""
    value, derivative = jax.jvp(field, (x,), (probe,))
    return value, jnp.sum(probe * derivative, axis=tuple(range(1, x.ndim)))


def exact(field: VectorField, x: Images, probe: Images) -> tuple[Images, PerSample]:
    """The field and its divergence, by one derivative for each of the D numbers of a sample."""

    def diagonal(direction: Float[Array, "..."]) -> PerSample:
        derivative = jax.jvp(field, (x,), (jnp.broadcast_to(direction, x.shape),))[1]
        return jnp.sum(derivative * direction, axis=tuple(range(1, x.ndim)))

    basis = jnp.eye(x[0].size, dtype=x.dtype).reshape(-1, *x.shape[1:])
    return field(x), jnp.sum(jax.lax.map(diagonal, basis), axis=0)


# name -> (how the probe is drawn, the field with its divergence)
DIVERGENCES = {"rademacher": (rademacher, hutchinson), "gaussian": (normal, hutchinson), "exact": (rademacher, exact)}


def bits_per_dim(
    sde: SDE,
    score_fn: ScoreFn,
    *,
    offset_bits: float,
    divergence: str = "rademacher",
    rtol: float = 1e-5,
    atol: float = 1e-5,
    eps: float = 1e-5,
) -> Solver:
    """A solver from images in model range to (bits/dim (b,), latents x_1, nfe (b,)).

    offset_bits: bits/dim of the change of variables from model range to the 256 levels of a pixel
    (`score_sde.images.Scaling.offset_bits`: 7 for data in [-1, 1], 8 for [0, 1]); 0 for the density in model range.
    divergence: "rademacher" or "gaussian" probes, or "exact" at D times the cost.
    rtol, atol: tolerances of each step, for each sample by itself; eps: the integral starts here.
    Images on which the solver fails get NaN.
    """
    check_tolerances(rtol, atol)
    draw_probe, with_divergence = DIVERGENCES[one_of("divergence", divergence, DIVERGENCES)]
    velocity = drift(sde, score_fn)

    def rhs(t, y, probe):
        return with_divergence(lambda x: velocity(t, x), y[0], probe)

    ode = dormand_prince(rhs, eps, 1.0, rtol=rtol, atol=atol)

    def init(keys: Keys, x: Images) -> State:
        probe = draw_probe(stream(keys, Stream.PROBE), x.shape[1:])
        return State(ode.init((x, jnp.zeros(len(x))), probe), probe)

    def result(state: State) -> tuple[PerSample, Images, Array]:
        z, log_det = state.ode.y
        nats = -(sde.prior_logp(z) + log_det)
        return nats / (np.log(2) * z[0].size) + offset_bits, z, state.ode.nfe

    return Solver(
        init=init,
        step=lambda state: State(ode.step(state.ode, state.probe), state.probe),
        fraction=lambda state: ode.fraction(state.ode),
        view=lambda state: state.ode.y[0],
        result=result,
    )
