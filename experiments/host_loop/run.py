"""Likelihood and ODE sampling on the device, and by SciPy's RK45 on the host over the whole batch, in turns."""

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from scipy.integrate import solve_ivp

from score_sde import images
from score_sde.errors import UsageError
from score_sde.inference.pretrained import Pretrained, load
from score_sde.likelihood import bits_per_dim, hutchinson
from score_sde.process import LEAST_TIME
from score_sde.randomness import Stream, rademacher, sample_keys, stream
from score_sde.runtime.progress import bar
from score_sde.sampling import advance
from score_sde.sampling.probability_flow import drift, probability_flow
from score_sde.training.run import load_data


def run(workdir: Path, batch: int, rounds: int, tolerance: float) -> int:
    """Prints medians of `rounds` rounds after one that compiles, with evaluations and the error of each result."""
    try:
        model = load(workdir)
        pixels = load_data(model.config, train=False).images[:batch]
    except UsageError as error:
        print(f"host_loop: {error}", file=sys.stderr)
        return 2
    keys = sample_keys(jax.random.key(0), jnp.arange(len(pixels)))
    x = model.experiment.scaling.to_model(
        images.dequantize(stream(keys, Stream.DEQUANTIZE), images.to_unit(jnp.asarray(pixels)))
    )
    latents = model.experiment.prior(keys)
    tasks = {
        "likelihood": {
            "device": lambda tol: _device_likelihood(model, keys, x, tol),
            "host, one program": lambda tol: _host_likelihood(model, keys, x, tol, fused=True),
            "host, as the paper": lambda tol: _host_likelihood(model, keys, x, tol, fused=False),
        },
        "sampling": {
            "device": lambda tol: _device_sampling(model, keys, latents, tol),
            "host": lambda tol: _host_sampling(model, latents, tol),
        },
    }
    print(f"{jax.devices()[0].device_kind}, batch {len(pixels)}, rtol = atol = {tolerance:g}, {rounds} rounds in turns")
    print(f"{'task':12s}{'loop':22s}{'seconds':>9s}{'against device':>16s}{'evaluations':>13s}{'rms error':>11s}")
    for task, loops in tasks.items():
        truth = loops["device"](max(tolerance / 100, 1e-6))[0]  # as far as float32 goes
        seconds = {name: [] for name in loops}
        results = {}
        with bar(task, (rounds + 1) * len(loops), "run") as progress:
            for turn in range(rounds + 1):
                for name, loop in loops.items():
                    started = time.monotonic()
                    results[name] = loop(tolerance)
                    if turn:  # the first compiles
                        seconds[name].append(time.monotonic() - started)
                    progress.update()
        for name, (value, nfe) in results.items():
            median = statistics.median(seconds[name])
            ratio = median / statistics.median(seconds["device"])
            error = np.sqrt(np.mean(np.square(value - truth)))
            print(f"{task:12s}{name:22s}{median:9.2f}{ratio:16.2f}{nfe:13.0f}{error:11.1e}")
    return 0


_programs: dict[tuple, Callable] = {}


def _compiled(name: tuple, build: Callable[[], Callable]) -> Callable:
    if name not in _programs:
        _programs[name] = jax.jit(build())
    return _programs[name]


def _solve(make_solver: Callable) -> Callable:
    def program(params, keys, x):
        solver = make_solver(params)
        return solver.result(advance(solver, solver.init(keys, x), jnp.iinfo(jnp.int32).max))

    return program


def _device_likelihood(model: Pretrained, keys, x, tol: float) -> tuple[np.ndarray, float]:
    def solver(params):
        predict = model.experiment.model(params)
        return bits_per_dim(model.sde, predict, offset_bits=0, rtol=tol, atol=tol, eps=LEAST_TIME)

    bits, _, nfe = _compiled(("likelihood", tol), lambda: _solve(solver))(model.params, keys, x)
    return np.asarray(bits), float(np.mean(nfe))


def _device_sampling(model: Pretrained, keys, latents, tol: float) -> tuple[np.ndarray, float]:
    def solver(params):
        predict = model.experiment.model(params)
        return probability_flow(model.sde, predict, rtol=tol, atol=tol, noise_removal=False)

    x, nfe = _compiled(("sampling", tol), lambda: _solve(solver))(model.params, keys, latents)
    return np.asarray(x), float(np.mean(nfe))


def _host_sampling(model: Pretrained, latents, tol: float) -> tuple[np.ndarray, float]:
    velocity = _compiled(
        ("velocity",), lambda: lambda params, t, x: drift(model.sde, model.experiment.model(params))(t, x)
    )

    def rhs(t, flat):
        x = jnp.asarray(flat.reshape(latents.shape), jnp.float32)
        return np.asarray(velocity(model.params, jnp.full(len(x), t, jnp.float32), x), np.float64).ravel()

    start = np.asarray(latents, np.float64).ravel()
    solution = solve_ivp(rhs, (1.0, model.sde.sampling_eps), start, method="RK45", rtol=tol, atol=tol)
    return solution.y[:, -1].reshape(latents.shape), solution.nfev


def _host_likelihood(model: Pretrained, keys, x, tol: float, *, fused: bool) -> tuple[np.ndarray, float]:
    """Bits/dim by a loop on the host, and the number of evaluations.

    fused: one program for drift and divergence, in forward mode; else two, in reverse mode, as the paper's code.
    """
    probe = rademacher(stream(keys, Stream.PROBE), x.shape[1:])
    n, size = len(x), x.size

    def velocity(params, t, x):
        return drift(model.sde, model.experiment.model(params))(t, x)

    def both(params, t, x, probe):
        return hutchinson(lambda x: velocity(params, t, x), x, probe[:, None])

    def divergence(params, t, x, probe):
        gradient = jax.grad(lambda x: jnp.sum(velocity(params, t, x) * probe))(x)
        return jnp.sum(gradient * probe, axis=(1, 2, 3))

    both_fn = _compiled(("both",), lambda: both)
    velocity_fn, divergence_fn = _compiled(("velocity",), lambda: velocity), _compiled(("div",), lambda: divergence)

    def rhs(t, flat):
        x_t, t = jnp.asarray(flat[:size].reshape(x.shape), jnp.float32), jnp.full(n, t, jnp.float32)
        if fused:
            value, div = both_fn(model.params, t, x_t, probe)
        else:
            value, div = velocity_fn(model.params, t, x_t), divergence_fn(model.params, t, x_t, probe)
        return np.concatenate([np.asarray(value, np.float64).ravel(), np.asarray(div, np.float64)])

    start = np.concatenate([np.asarray(x, np.float64).ravel(), np.zeros(n)])
    solution = solve_ivp(rhs, (LEAST_TIME, 1.0), start, method="RK45", rtol=tol, atol=tol)
    z, log_det = solution.y[:size, -1].reshape(x.shape), solution.y[size:, -1]
    nats = -(np.asarray(model.sde.prior_logp(jnp.asarray(z, jnp.float32))) + log_det)
    return nats / (np.log(2) * x[0].size), solution.nfev
