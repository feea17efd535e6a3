r"""Likelihoods by the probability-flow ODE (paper, section 4.3 and appendix D.2).

Along dx/dt = h(x, t) the log-density changes by the divergence of h (eq. 39),

    log p_0(x_0) = log p_1(x_1) + \int_0^1 div h(x_t, t) dt,                    (1)

where Hutchinson's estimator e . (dh/dx) e replaces the divergence without bias. Each sample has a few probes e, which
stay fixed along its trajectory: fresh ones would make the right-hand side random and break the step control.

    import jax
    import jax.numpy as jnp
    from score_sde.likelihood import DIVERGENCES

    divergence = DIVERGENCES["rademacher"]
    probes = divergence.draw(jax.random.split(jax.random.key(0), 2), (1, 4, 4, 1))
    value, trace = divergence.of(lambda x: -x, jnp.ones((2, 4, 4, 1)), probes)  # trace: -16 of each sample

Images of 256 levels must be dequantized (`score_sde.likelihood.dequantization`) before they come here.
"""

import functools
import math
from collections.abc import Callable
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp

from score_sde.array_types import Array, Float, Keys, ModelImages, PerSample
from score_sde.config.arguments import check_arguments
from score_sde.errors import UsageError, one_of
from score_sde.process import LEAST_TIME, Eps, Model, Process
from score_sde.randomness import Noise, Stream, normal, rademacher, stream
from score_sde.sampling.probability_flow import RelativeTolerance, drift
from score_sde.sampling.runge_kutta import State as OdeState
from score_sde.sampling.runge_kutta import runge_kutta
from score_sde.sampling.solver import Solver, Tolerance, evaluations

VectorField = Callable[[ModelImages], ModelImages]


Probes = Float[Array, "b n h w c"]  # n for each sample
Number = Annotated[int, "[0, 65536]"]


class State(NamedTuple):
    """State of the likelihood's ODE."""

    ode: OdeState  # of (x, integral of the divergence)
    probes: Probes


@check_arguments
def hutchinson(field: VectorField, x: ModelImages, probes: Probes) -> tuple[ModelImages, PerSample]:
    """The field, and Hutchinson's estimate of its divergence: a mean over n probes, one forward derivative each."""
    value, derivatives = _derivatives(field, x, probes)
    return value, jnp.mean(jnp.sum(probes * derivatives, axis=(2, 3, 4)), axis=1)


@check_arguments
def hutch_plus_plus(field: VectorField, x: ModelImages, probes: Probes) -> tuple[ModelImages, PerSample]:
    """The field, and its divergence by Hutch++ (Meyer, Musco, Musco and Woodruff, 2021, algorithm 1), n derivatives.

    With A the Jacobian, S and G the probes and Q an orthonormal basis of A S, it sums tr Q'AQ exactly and Hutchinson's
    estimate of the rest, tr (I - QQ') A (I - QQ'), from G. It is exact where n // 3, the columns of S, is >= rank A.

    It pays where A's spectrum decays, which the ODE's does not: at equal cost its variance was 5 (n = 3) to 12 (n = 48)
    times that of Rademacher probes on the digits' network (6 images, 48 times, full Jacobians, 600 draws), because
    the Jacobian is near a multiple of I, which those get exactly. The field is evaluated twice; nfe counts it once.
    """
    b, n = probes.shape[:2]
    columns = probes.reshape(b, n, -1).mT
    sketched = n // 3
    _, image = _derivatives(field, x, probes[:, :sketched])
    basis, _ = jnp.linalg.qr(image.reshape(b, sketched, -1).mT)
    fresh = columns[..., sketched : n - basis.shape[-1]]
    fresh = fresh - jnp.matmul(basis, jnp.matmul(basis.mT, fresh, precision="highest"), precision="highest")
    directions = jnp.concatenate([basis, fresh], axis=-1)
    value, derivatives = _derivatives(field, x, directions.mT.reshape(b, -1, *x.shape[1:]))
    products = jnp.sum(directions.mT * derivatives.reshape(b, directions.shape[-1], -1), axis=-1)
    captured, estimates = products[:, : basis.shape[-1]], products[:, basis.shape[-1] :]
    return value, jnp.sum(captured, axis=1) + jnp.mean(estimates, axis=1)


@check_arguments
def exact(field: VectorField, x: ModelImages, probes: Probes) -> tuple[ModelImages, PerSample]:
    """The field, and its exact divergence: one derivative for each of the D numbers of a sample."""

    def diagonal(direction: Float[Array, "..."]) -> PerSample:
        derivative = jax.jvp(field, (x,), (jnp.broadcast_to(direction, x.shape),))[1]
        return jnp.sum(derivative * direction, axis=tuple(range(1, x.ndim)))

    basis = jnp.eye(math.prod(x.shape[1:]), dtype=x.dtype).reshape(-1, *x.shape[1:])
    return field(x), jnp.sum(jax.lax.map(diagonal, basis), axis=0)


def _derivatives(field: VectorField, x: ModelImages, directions: Probes) -> tuple[ModelImages, Probes]:
    """The field, computed once, and its derivatives along n directions."""
    return jax.vmap(lambda e: jax.jvp(field, (x,), (e,)), in_axes=1, out_axes=(None, 1))(directions)


class Divergence(NamedTuple):
    """An estimator of the divergence of a vector field, and the law of its probes."""

    draw: Noise  # the probes
    of: Callable[[VectorField, ModelImages, Probes], tuple[ModelImages, PerSample]]  # the field with its divergence
    least: int = 1  # number of probes


DIVERGENCES = {
    "rademacher": Divergence(rademacher, hutchinson),
    "gaussian": Divergence(normal, hutchinson),
    "hutch++": Divergence(rademacher, hutch_plus_plus, least=3),
    "exact": Divergence(rademacher, exact),
}


@check_arguments
def check_divergence(name: str, num_probes: Number) -> Divergence:
    """The estimator with this name. Raises `UsageError` for an unknown name, or too few probes for it."""
    divergence = DIVERGENCES[one_of("divergence", name.lower(), DIVERGENCES)]
    if num_probes < divergence.least:
        raise UsageError(f"eval.num_probes={num_probes}: the divergence {name} needs at least {divergence.least}.")
    return divergence


@check_arguments
def bits_per_dim(
    process: Process,
    model: Model,
    *,
    offset_bits: Annotated[float, "(-inf, inf)"],
    divergence: str = "rademacher",
    num_probes: Number = 1,
    rtol: RelativeTolerance = 1e-5,
    atol: Tolerance = 1e-5,
    ode_method: str = "dopri5",
    eps: Eps = LEAST_TIME,
) -> Solver:
    """A solver from images in model range to (bits/dim (b,), latents x_1, nfe (b,)), eq. (1).

    model: (x, t) -> `Prediction` under the process.
    offset_bits: bits/dim of the change of variables from model range to the 256 levels of a pixel
    (`score_sde.images.Scaling.offset_bits`: 7 for data in [-1, 1], 8 for [0, 1]); 0 for the density in model range.
    divergence: "rademacher" or "gaussian" probes, "hutch++" (at least 3 probes), or "exact" at D times the cost.
    num_probes: derivatives of the model at each evaluation, unless exact.
    rtol, atol: tolerances of each step, for each sample separately. eps: the time where the integral starts.
    ode_method: the Runge-Kutta pair, a name in `score_sde.sampling.tableaus.TABLEAUS`.
    The result is NaN for images on which the solver fails. Raises `UsageError` for options out of range.

        import jax
        import numpy as np
        from score_sde.likelihood import bits_per_dim
        from score_sde.oracles import Gaussian
        from score_sde.sampling import solve
        from score_sde.sde import VP

        data, process = Gaussian(np.zeros((2, 2, 1)), 0.25), VP()
        x = data.sample(jax.random.split(jax.random.key(0), 2))
        solver = bits_per_dim(process, data.model(process), offset_bits=0.0, divergence="exact")
        bits, latents, nfe = solve(solver, jax.random.key(1), x)
    """
    draw, with_divergence, _ = check_divergence(divergence, num_probes)
    velocity = drift(process, model)

    def rhs(t, y, probes):
        return with_divergence(lambda x: velocity(t, x), y[0], probes)

    passes = functools.partial(evaluations, model)
    ode = runge_kutta(rhs, eps, 1.0, method=ode_method, rtol=rtol, atol=atol, evaluations=passes)

    def init(keys: Keys, x: ModelImages) -> State:
        probes = draw(stream(keys, Stream.PROBE), (num_probes, *x.shape[1:])).astype(x.dtype)
        return State(ode.init((x, jnp.zeros(len(x), x.dtype)), probes), probes)

    def result(state: State) -> tuple[PerSample, ModelImages, Array]:
        z, log_det = state.ode.y
        nats = -(process.prior_logp(z) + log_det)
        return nats / (math.log(2) * math.prod(z.shape[1:])) + offset_bits, z, state.ode.nfe

    return Solver(
        init=init,
        step=lambda state: State(ode.step(state.ode, state.probes), state.probes),
        fraction=lambda state: ode.fraction(state.ode),
        progress=lambda state: ode.progress(state.ode),
        view=lambda state: state.ode.y[0],
        result=result,
    )
