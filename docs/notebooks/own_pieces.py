# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Your own process, network and sampler
#
# You can replace each piece of the library by your own without editing the package. This notebook defines a process,
# a sampler and a network, proves the first two against an oracle, trains on the 8x8 digits for some seconds, and
# draws samples.

# %%
import dataclasses
import inspect
import sys
import tempfile
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from sklearn.datasets import load_digits

import score_sde
from score_sde import images
from score_sde.inference.pretrained import Pretrained
from score_sde.objective import Objective
from score_sde.oracles import Gaussian
from score_sde.parameterization import KarrasF
from score_sde.process import Process, library_of
from score_sde.randomness import Stream, expand, sample_keys, stream
from score_sde.sampling import Solver, solve
from score_sde.times import LogNormal
from score_sde.weights import KarrasWeight

score_sde.configure()  # makes JAX fast on a CPU and keeps compiled programs on disk

# %% [markdown]
# ## A process
#
# A process is a frozen dataclass with two functions of time, `alpha` and `sigma`. The library derives the rest, such
# as the coefficients of the SDE and the inverse of the noise level. Solvers call the functions with NumPy arrays,
# too; `library_of(t)` is NumPy or `jax.numpy`, whichever `t` belongs to.
#
# This process preserves variance, and its noise level is a power of time, $k = \sigma / \alpha = k_1 t^\rho$. It
# follows that $\alpha = (1 + k^2)^{-1/2}$, $f = -k k' / (1 + k^2)$ and $g^2 = 2 k k' / (1 + k^2)$.


# %%
@dataclasses.dataclass(frozen=True)
class PowerOfTime(Process):
    """A variance-preserving process with noise level highest * t ** rho."""

    highest: float = 80.0
    rho: float = 3.0
    sampling_eps: float = 0.02

    def alpha(self, t):
        return 1 / library_of(t).sqrt(1 + (self.highest * t**self.rho) ** 2)

    def sigma(self, t):
        return self.highest * t**self.rho * self.alpha(t)


process, t = PowerOfTime(), np.linspace(0.05, 1, 5)
k, rate = process.noise_level(t), 240 * t**2
print("f:  ", np.round(process.f(t), 4), "\ng^2:", np.round(process.g(t) ** 2, 4))
np.testing.assert_allclose(process.f(t), -k * rate / (1 + k**2), rtol=1e-9)  # in float64
np.testing.assert_allclose(process.g(t) ** 2, 2 * k * rate / (1 + k**2), rtol=1e-9)
assert np.allclose(process.time(k), t, rtol=1e-9)  # the inverse, by bisection

# %% [markdown]
# ## A sampler
#
# A sampler is a function of a process and a model that returns a `Solver`: an initial state, a step, the fraction
# that is done, a view and a result. With $y = x_t / \alpha$ the probability-flow ODE is
# $dy/dk = E[\varepsilon \mid x_t]$. This sampler solves it by a midpoint rule, whose middle is the geometric mean of
# two noise levels.


# %%
def midpoint(process, model, *, eps=None, noise_removal=True, num_steps=20):
    """The midpoint rule for dy/dk = E[eps | x_t] with y = x_t / alpha, on noise levels even in log k."""
    last, nfe = process.sampling_eps if eps is None else eps, 2 * num_steps + noise_removal
    levels = np.geomspace(*process.noise_level(np.array([1.0, last])), 2 * num_steps + 1)
    times = np.append(process.time(levels[:-1]), last)

    def at(y, i):
        t = jnp.full(len(y), jnp.asarray(times, y.dtype)[i])
        x = expand(process.alpha(t), y) * y
        return x, model(x, t)

    def step(state):
        i, y = state
        start, middle, end = (jnp.asarray(levels, y.dtype)[2 * i + j] for j in range(3))
        half = y + (middle - start) * at(y, 2 * i)[1].eps
        return i + 1, y + (end - start) * at(half, 2 * i + 1)[1].eps

    def result(state):
        x, prediction = at(state[1], 2 * num_steps)
        return prediction.x0 if noise_removal else x, jnp.full(len(x), nfe)

    def init(keys, x):
        return jnp.int32(0), x / process.alpha(jnp.ones(1, x.dtype))

    return Solver(init, step, lambda s: s[0] / num_steps, lambda s: s[1], result, nfe=nfe, steps=num_steps)


# %% [markdown]
# **Proof.** For Gaussian data the model and the flow of the ODE are closed forms. If the order is 2, the error falls
# by a factor of 4 when the steps are doubled. This test covers the process and the sampler together.

# %%
data = Gaussian(np.reshape([0.4, -0.2], (1, 2, 1)), np.array([[0.5, 0.2], [0.2, 0.3]]))
errors = []
with jax.enable_x64(True):
    x = jnp.asarray(np.random.default_rng(0).standard_normal((8, 1, 2, 1)))
    exact = data.flow(process, x, jnp.ones(8), jnp.full(8, process.sampling_eps))
    for n in (40, 80):
        sampler = midpoint(process, data.model(process), num_steps=n, noise_removal=False)
        samples, nfe = solve(sampler, jax.random.key(0), x)
        errors.append(float(jnp.abs(samples - exact).max()))
        print(f"{n} steps, {nfe[0]} evaluations: error {errors[-1]:.2e}")
        assert nfe[0] == 2 * n
assert abs(errors[0] / errors[1] - 4) < 0.4  # order 2, and a rest of order 3

# %% [markdown]
# ## A network, and its training by a loop of your own
#
# A network is a flax module that maps an image and a noise condition to an image. It knows no process: the
# *parameterization* says what its output means. Process, parameterization, law of times and weight make an
# `Objective`, which draws times and noise, perturbs images and computes the loss. The rest is a loop of optax. EDM's
# target has variance 1 and a new network returns nearly 0, so the first loss is about 1: a free test of the
# objective.


# %%
class Perceptron(nn.Module):
    """Three hidden layers over all pixels, with the noise condition as a further input."""

    width: int = 256

    @nn.compact
    def __call__(self, x, noise_cond, cond=None, *, dropout_keys=None):
        angles = noise_cond[:, None] * 2.0 ** jnp.arange(4)
        h = jnp.concatenate([x.reshape(len(x), -1), jnp.sin(angles), jnp.cos(angles)], axis=1)
        for _ in range(3):
            h = nn.swish(nn.Dense(self.width)(h))
        return nn.Dense(x[0].size)(h).reshape(x.shape)


pixels = np.round(load_digits().images * 255 / 16).astype(np.uint8)[..., None]  # (1797, 8, 8, 1)
x0 = images.CENTERED.to_model(images.to_unit(pixels))
std = float(x0.std())
objective = Objective(process, KarrasF(sigma_data=std), LogNormal(P_mean=-0.5), KarrasWeight(sigma_data=std))
network, optimizer, UPDATES, BATCH = Perceptron(), optax.adam(2e-3), 1000, 64


def loss(params, key):
    batch = jnp.asarray(x0)[jax.random.randint(key, (BATCH,), 0, len(x0))]
    t, eps = objective.draw(sample_keys(key, jnp.arange(BATCH)), batch.shape[1:])
    outputs = objective.parameterization.outputs(lambda x, c: network.apply({"params": params}, x, c), process)
    return objective.loss(outputs(objective.perturb(batch, t, eps), t), batch, t, eps).mean()


def update(carry, key):
    params, state = carry
    value, gradient = jax.value_and_grad(loss)(params, key)
    change, state = optimizer.update(gradient, state)
    return (optax.apply_updates(params, change), state), value


params = network.init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)), jnp.zeros(1))["params"]
keys = jax.random.split(jax.random.key(1), UPDATES)
(params, _), losses = jax.jit(lambda carry: jax.lax.scan(update, carry, keys))((params, optimizer.init(params)))
print(f"loss of the first batch {losses[0]:.2f}, mean of the last hundred {losses[-100:].mean():.2f}")
assert 0.8 < losses[0] < 1.4 and losses[-100:].mean() < 0.6

# %% [markdown]
# ## Samples, by objects and by import path
#
# `Pretrained` makes a model with all functions of the library. A sampler is named in `model.sample`: a row of the
# library's table, or the import path of your own, `module:name`. This midpoint rule has a name, too: DPM-Solver-2.

# %% mystnb={"image": {"alt": "Thirty generated digits"}}
model = Pretrained(objective, network, params, image_shape=(8, 8, 1))
keys = sample_keys(jax.random.key(2), jnp.arange(30))
start = process.prior_sample(stream(keys, Stream.PRIOR), model.image_shape)  # as `model.sample` does
by_object, nfe = solve(midpoint(process, model.predict), keys, start)

folder = Path(tempfile.mkdtemp())
imports = "import jax.numpy as jnp, numpy as np\nfrom score_sde.randomness import expand\n"
imports += "from score_sde.sampling import Solver\n\n"
(folder / "my_pieces.py").write_text(imports + inspect.getsource(midpoint))
sys.path.insert(0, str(folder))  # on a command line: start in this folder, or put it on PYTHONPATH
by_path = model.sample(keys, 30, "my_pieces:midpoint", num_steps=20, clip="none")
published = model.sample(keys, 30, "dpm_solver_2", num_steps=20, clip="none")
by_object = jnp.clip(model.image_range.to_unit(by_object), 0, 1)
for name, others in {"your own by its import path": by_path, "dpm_solver_2": published}.items():
    difference = float(jnp.abs(by_object - others).max())
    print(f"{name}: differs by at most {difference:.0e} of a pixel's range")
    assert difference < 1e-2  # float32
assert nfe[0] == 41 and by_object.std() > 0.2  # not grey

figure, panel = plt.subplots(figsize=(7, 2.4), layout="constrained", facecolor="white")
panel.imshow(images.grid(images.to_pixels(by_object), columns=10), interpolation="nearest")
panel.set_title("samples of your process, network and sampler")
panel.set_axis_off()

# %% [markdown]
# Runs name their pieces in the same way, and the arguments of a piece become keys of its section: `score_sde
# --config=vp/digits_ddpmpp_continuous --workdir=run --mode=train --config.model.name=my_pieces:Perceptron
# --config.model.width=64`. A run stores a digest of your file and refuses to go on with a changed one. Only a class
# in a file has an import path; a class that is defined in a notebook has none.
#
# ## What to try
#
# - Replace the midpoint by a rule of order 4, and prove its order as above.
# - Set `rho = 1.0` and `sampling_eps = 1e-4`: the process has EDM's clock. What does `LogNormal` change about its
#   training?
# - Give the network a field `encoder` and condition it on the class, as in [adding a
#   condition](../adding/condition.md).
# - Compute `model.bits_per_dim(jax.random.key(0), pixels[:100])`. Which of your three pieces does it depend on?
