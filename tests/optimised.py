"""`solve` for many steps: its program is optimised, which takes longer than it saves in other tests (`conftest.py`)."""

import jax

from score_sde import sampling


def solve(solver, key, x):
    def run(key, x):
        return sampling.solve(solver, key, x)

    return jax.jit(run, compiler_options={"xla_backend_optimization_level": 1})(key, x)
