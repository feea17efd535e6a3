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
# # The score of a 2-D mixture under several processes
#
# A diffusion process turns data into noise by $x_t = \alpha(t)\,x_0 + \sigma(t)\,\varepsilon$ with
# $\varepsilon \sim N(0, I)$. If the data are a mixture of Gaussians, so is the law $p_t$ of $x_t$ at every time $t$,
# and its score $\nabla \log\,p_t$ is a closed form. `score_sde.oracles` holds such data: you can study a process or a
# sampler without the errors of a network.
#
# 1. What does the score look like under different processes, and what do the processes share?
# 2. Why do the denoised image, the noise, the score and the velocity carry the same information?
# 3. How do the paths of the probability-flow ODE and of the reverse SDE differ?

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import score_sde
from score_sde.oracles import Gaussian, Mixture
from score_sde.paths import Cosine, Linear
from score_sde.process import score, velocity
from score_sde.randomness import normal, sample_keys
from score_sde.sampling import fast_solver
from score_sde.sampling.grids import time_grid
from score_sde.sde import EDM, VE, VP

score_sde.configure()  # makes JAX fast on a CPU and keeps compiled programs on disk
plt.rcParams.update({"figure.facecolor": "white", "image.cmap": "cividis", "figure.constrained_layout.use": True})
COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"]  # for colour-blind readers, too

# %% [markdown]
# ## Data with a known score
#
# The library works on images of shape `(batch, height, width, channels)`. A point of the plane is an image of two
# pixels.

# %%
SHAPE, WEIGHTS = (1, 2, 1), np.array([0.5, 0.3, 0.2])
MEANS = np.array([[-1.2, -0.5], [1.1, -0.7], [0.2, 1.2]])
COVARIANCES = np.array([[[0.12, 0.06], [0.06, 0.10]], [[0.08, -0.03], [-0.03, 0.12]], [[0.20, 0.0], [0.0, 0.05]]])
parts = [Gaussian(mean.reshape(SHAPE), covariance) for mean, covariance in zip(MEANS, COVARIANCES, strict=True)]
data = Mixture(WEIGHTS, parts)
processes = {"VP": VP(), "VE": VE(), "EDM": EDM(), "linear (flow)": Linear(), "cosine": Cosine()}
side = np.linspace(-2.6, 2.6, 61)
plane = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, *SHAPE).astype(np.float32)  # 61 x 61 points


@jax.jit(static_argnums=0)
def fields(process, x, t):
    """The log-density, the score and the exact prediction of x_0 and eps at the points x and one time t."""
    t = jnp.full(len(x), t)
    return data.log_density(process, x, t), data.score(process, x, t), data.model(process)(x, t)


by_jax = jax.jit(jax.grad(lambda x: fields(VP(), x, 0.3)[0].sum()))(plane)
difference = np.abs(by_jax - np.asarray(fields(VP(), plane, 0.3)[1])).max()
print(f"the closed form and the gradient of log p_t differ by at most {difference:.1e}")
assert difference < 1e-4  # both are computed in float32

# %% [markdown]
# ## The same time is not the same amount of noise
#
# In the next figure each row is a process and each column a time. Bright means likely, and the arrows are the score.
# To show all processes on the same axes, $x_t$ is divided by $\sqrt{\alpha^2 + \sigma^2}$.

# %% mystnb={"image": {"alt": "Densities and scores of five processes at four times"}}
TIMES, coarse = [0.05, 0.25, 0.5, 0.9], slice(3, None, 6)


def arrows(panel, field, color):
    """Draws every sixth arrow of a field."""
    u, v = np.moveaxis(np.reshape(field, (61, 61, 2))[coarse, coarse], -1, 0)
    panel.quiver(side[coarse], side[coarse], u, v, color=color, width=0.008)
    panel.set(aspect="equal", xlim=(-2.6, 2.6), ylim=(-2.6, 2.6), xticks=[-2, 0, 2], yticks=[-2, 0, 2])


figure, panels = plt.subplots(5, 4, figsize=(9, 11), sharex=True, sharey=True)
for row, (name, process) in zip(panels, processes.items(), strict=True):
    for panel, t in zip(row, np.array(TIMES), strict=True):
        log_p, s, _ = fields(process, np.float32(np.hypot(process.alpha(t), process.sigma(t))) * plane, t)
        panel.contourf(side, side, np.reshape(np.exp(log_p - np.max(log_p)), (61, 61)), levels=12)
        arrows(panel, s, color="white")
        panel.set_title(f"{name}, t = {t:g}\nnoise level {process.noise_level(t):.3g}", fontsize=9)

# %% [markdown]
# The columns disagree because each process has its own clock. The noise level $k(t) = \sigma(t) / \alpha(t)$ removes
# the difference: $y = x_t / \alpha(t) = x_0 + k\,\varepsilon$ is data plus noise of standard deviation $k$, whatever
# the process. By the change of variables, $\nabla_y \log\,p(y) = \alpha\,\nabla_x \log\,p_t(x)$ depends on $k$ alone,
# so the five rows are one family of pictures. A network trained under one process can therefore be used under
# another.

# %% mystnb={"image": {"alt": "Noise level of five processes against time"}}
LEVEL, scaled = np.array(0.7), []
figure, panel = plt.subplots(figsize=(6, 3.4))
for (name, process), colour, dash in zip(processes.items(), COLOURS, ["-", "--", "-.", ":", (0, (5, 1))], strict=False):
    t = process.time(LEVEL)
    alpha = np.float32(process.alpha(t))
    scaled.append(alpha * np.asarray(fields(process, alpha * plane, np.float32(t))[1]))
    print(f"{name:14} reaches noise level {LEVEL} at t = {t:.4f}")
    assert abs(process.noise_level(t) - LEVEL) < 1e-9
    times = np.linspace(0.002, 0.998, 300)
    panel.plot(times, process.noise_level(times), color=colour, linestyle=dash, linewidth=2, label=name)
spread = np.abs(np.stack(scaled) - scaled[0]).max()
print(f"at this level the five fields differ by at most {spread:.1e}")
assert spread < 1e-3  # float32, and values of about 5
panel.axhline(LEVEL, color="0.6", linewidth=0.8)
panel.set(yscale="log", xlabel="time t", ylabel="noise level sigma / alpha", title="The clocks of five processes")
_ = panel.legend(frameon=False)

# %% [markdown]
# ## Four views of one prediction
#
# A model returns a `Prediction`: $\hat{x_0} = E[x_0 \mid x_t]$ and $\hat{\varepsilon} = E[\varepsilon \mid x_t]$.
# Because $\alpha \hat{x_0} + \sigma \hat{\varepsilon} = x_t$, either gives the other, and
#
# $$\nabla \log\,p_t(x) = -\hat{\varepsilon} / \sigma, \qquad
# \frac{dx}{dt} = \alpha' \hat{x_0} + \sigma' \hat{\varepsilon} = f x - \frac{1}{2} g^2\, \nabla \log\,p_t(x).$$
#
# Networks that learn the data, the noise, the score or the velocity thus learn the same function, in different units.
# The units matter where a factor is 0: at $\alpha = 0$ the score does not determine $\hat{x_0}$, and a `Prediction`
# does.

# %% mystnb={"image": {"alt": "Four vector fields: data, noise, score and velocity"}}
process, t = VP(), np.array(0.3)
_, s, prediction = jax.device_get(fields(process, plane, 0.3))
x0, eps, times = *prediction, np.full(len(plane), 0.3, np.float32)
v = velocity(process, prediction, times)
checks = {
    "alpha x0 + sigma eps and x": (process.alpha(t) * x0 + process.sigma(t) * eps, plane),
    "-eps / sigma and the score": (score(process, prediction, times), s),
    "the two forms of dx/dt": (v, process.f(t) * plane - process.g(t) ** 2 * s / 2),
}
for name, (left, right) in checks.items():
    print(f"{name} differ by at most {np.abs(left - right).max():.1e}")
    assert np.abs(left - right).max() < 1e-4  # float32
at_one = np.ravel(fields(Linear(), plane, 1.0)[2].x0[0])
print(f"linear path at t = 1, where alpha = 0: x0 = {np.round(at_one, 4)}, the mean of the data")
assert np.allclose(at_one, WEIGHTS @ MEANS, atol=1e-5)

figure, panels = plt.subplots(1, 4, figsize=(9.5, 2.8), sharey=True)
views = {"data: x0 - x": x0 - plane, "noise: eps": eps, "score": s, "velocity": v}
for panel, (name, field) in zip(panels, views.items(), strict=True):
    arrows(panel, field, color="black")
    panel.set_title(f"{name} (VP, t = {t:.1f})", fontsize=9)

# %% [markdown]
# ## Paths of the ODE and of the SDE
#
# Two solvers start from the same noise: DPM-Solver++ 2M for the probability-flow ODE, and its form for the reverse
# SDE. The picture shows the first pixel along twelve of the 4,000 paths, coloured by the component in which they end.

# %% mystnb={"image": {"alt": "Smooth paths of the ODE and rough paths of the SDE under four processes"}}
N, STEPS, LAST = 4000, 64, np.array(0.02)  # LAST: the noise level at which all stop
keys = sample_keys(jax.random.key(0), jnp.arange(N))
z = normal(keys, SHAPE)


def paths(process, name):
    """Times (STEPS + 1,), states (STEPS + 1, N, *SHAPE), and the components' probabilities (3, N) at the end."""
    eps = process.time(LAST).item()
    solver = fast_solver(process, data.model(process), name=name, num_steps=STEPS, eps=eps, noise_removal=False)

    @jax.jit
    def run(state):
        state, x = jax.lax.scan(lambda state, _: (solver.step(state), solver.view(state)), state, length=STEPS)
        last = solver.view(state)
        joint = data.log_joint(process, last, jnp.full(N, eps))
        return jnp.concatenate([x, last[None]]), jax.nn.softmax(joint, axis=0)

    states = run(solver.init(keys, process.prior_std * z))
    return time_grid(process, "log_snr", STEPS, eps=eps), *map(np.asarray, states)


del processes["cosine"]  # its paths are those of the linear process, but for the clock
figure, panels = plt.subplots(2, 4, figsize=(9.5, 4.6), sharex=True, sharey=True)
ends, memory = [], {"ODE": [], "SDE": []}
for row, kind, solver in zip(panels, memory, ("dpmpp_2m", "dpmpp_2m_sde"), strict=True):
    for panel, (name, process) in zip(row, processes.items(), strict=True):
        times, x, shares = paths(process, solver)
        fractions, errors = shares.mean(axis=1), shares.std(axis=1) / N**0.5
        print(f"{kind} {name:14} weights of the components: {np.round(fractions, 3)}")
        assert np.all(np.abs(fractions - WEIGHTS) < 4 * errors + 0.005)  # sampling error; the bias of 64 steps
        ends.append(x[-1] / process.alpha(times[-1]))
        memory[kind].append(np.corrcoef(x[0, :, 0, 0, 0], x[-1, :, 0, 0, 0])[0, 1])
        first = x[:, :12, 0, 0, 0] / np.hypot(process.alpha(times), process.sigma(times))[:, None]
        for walk, component in zip(first.T, shares.argmax(axis=0), strict=False):
            panel.plot(times, walk, color=COLOURS[component], linewidth=1)
        panel.set(xlim=(1, 0), title=f"{kind}, {name}")
panels[0, 0].set_ylabel("first pixel, scaled")
figure.supxlabel("time t, from noise to data", fontsize=10)
apart = np.median(np.abs(np.stack(ends[1:4]) - ends[0]))
print(f"median distance between the samples of two ODEs from the same noise: {apart:.4f}")
print(f"correlation of noise and sample: ODE {np.mean(memory['ODE']):.2f}, SDE {np.mean(memory['SDE']):.2f}")
assert apart < 0.01 and min(memory["ODE"]) > 0.8 and np.abs(memory["SDE"]).max() < 4 / N**0.5  # none, but by chance

# %% [markdown]
# The ODE takes a noise to nearly the same sample under every process, because they are one ODE with different clocks.
# The SDE forgets its start, and the weights of its components are right all the same. Under EDM almost all happens
# below t = 0.1, which is why samplers space their steps by noise level and not by time.
#
# ## What to try
#
# - Lower `STEPS` to 8. Under which process do the weights of the components suffer least?
# - Use `grid="uniform"` in `fast_solver` and `time_grid`. Why does EDM suffer most?
# - Set `VE(sigma_max=2.0)`. The prior is now narrower than $p_1$. Which component loses weight?
