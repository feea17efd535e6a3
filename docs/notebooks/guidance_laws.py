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
# # The laws of guidance on Gaussians
#
# Guidance changes the score that a sampler follows. For Gaussian data the changed score is linear, so the samples are
# Gaussian too and their mean and variance can be calculated. This notebook compares what guidance is said to sample
# with what it does sample: first for a class, then for an observation.
#
# ## Guidance by a class
#
# Classifier-free guidance with scale $w$ follows $s_w = s_0 + w\,(s_c - s_0)$, where $s_c$ is the score of the class
# and $s_0$ that of all data. Let all data be $N(0, V)$ and the class $N(m, v)$ with $v < V$. At noise level $k$ (data
# plus $k$ times standard normal noise) the guided score is
#
# $$s_w(y) = -(1 - w) \frac{y}{V + k^2} - w\,\frac{y - m}{v + k^2}.$$
#
# It is tempting to read $s_w$ at $k = 0$ as the score of the *tilted* density $p(x)^{1-w}\,p(x \mid c)^w$. But $s_w$
# at larger $k$ is not the score of that density with noise added, and samplers use all levels. Solving the two linear
# equations, $dy = -k\,s_w\,dk$ (ODE) and $dy = -2k\,s_w\,dk + \sqrt{2k}\,dW$ (SDE), from $k = \infty$ down to 0 gives
# three laws:
#
# | | mean | variance |
# |---|---|---|
# | tilted density | $w m / (v P)$ with $P = \frac{w}{v} + \frac{1-w}{V}$ | $1 / P$ |
# | samples of the SDE | $m\,(V - V^{1-w} v^w) / (V - v)$ | $(V v - V^{2-2w} v^{2w}) / ((2w - 1)(V - v))$ |
# | samples of the ODE | an integral, below | $V^{1-w} v^w$ |
#
# They agree at $w = 0$ (all data) and at $w = 1$ (the class), and nowhere else.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from scipy.integrate import quad

import score_sde
from score_sde.conditioning import GUIDES, Inpaint, Observation, Options, extrapolation, projection
from score_sde.oracles import Gaussian
from score_sde.randomness import sample_keys
from score_sde.sampling import fast_solver, predictor_corrector, solve
from score_sde.sde import VP

score_sde.configure()  # makes JAX fast on a CPU and keeps compiled programs on disk
plt.rcParams.update({"figure.facecolor": "white", "savefig.facecolor": "white"})
BLUE, ORANGE, GREY = "#0072b2", "#d55e00", "#7f7f7f"  # distinct for colour-blind readers

V, v, m = 1.0, 0.25, 0.5
ONE = (1, 1, 1)  # an image of a single pixel
process = VP(sampling_eps=1e-5)
everything = Gaussian(np.zeros(ONE), V).model(process)
of_class = Gaussian(np.full(ONE, m), v).model(process)


def tilted(w):
    """Mean and variance of p(x)^(1 - w) p(x | c)^w."""
    precision = w / v + (1 - w) / V
    return w * m / (v * precision), 1 / precision


def of_sde(w):
    """Mean and variance of the guided SDE's samples."""
    kept = V ** (1 - w) * v**w
    return m * (V - kept) / (V - v), (V * v - kept**2) / ((2 * w - 1) * (V - v))


def of_ode(w, low=0.0, high=np.inf):
    """Mean and variance of the guided ODE's samples, with guidance at noise levels in [low, high] only."""

    def odds(k):
        return 1.0 if np.isinf(k) else (V + k**2) / (v + k**2)

    def shrinks(k):  # by how much the ODE shrinks a distance on its way from level k to 0
        return np.sqrt(v / (v + k**2)) * (odds(low) / odds(np.clip(k, low, high))) ** ((1 - w) / 2)

    def pull(k, weight):
        return weight * m * k / (v + k**2) * shrinks(k)

    pieces = [(0.0, low, 1.0), (low, high, w), (high, np.inf, 1.0)]
    return sum(quad(pull, a, b, args=(c,))[0] for a, b, c in pieces if a < b), v * (odds(low) / odds(high)) ** (1 - w)


# %% [markdown]
# The guided ODE is affine in its start, so two starts give its law without sampling error: $x_T = 0$ ends at the
# mean, and $x_T = 1$ one standard deviation further. The SDE needs samples.

# %%
two_starts = jnp.array([0.0, 1.0]).reshape(2, *ONE)
N = 20_000
keys = sample_keys(jax.random.key(0), jnp.arange(N))
SCALES = [0, 1, 2, 3, 5]
measured = {"ODE": [], "SDE": []}
for w in SCALES:
    guided = extrapolation(of_class, everything, scale=w)
    ends, _ = solve(fast_solver(process, guided, name="unipc_3", num_steps=80), keys[:2], two_starts)
    mean, variance = float(ends[0, 0, 0, 0]), float((ends[1] - ends[0])[0, 0, 0] ** 2)
    samples, _ = solve(
        fast_solver(process, guided, name="dpmpp_2m_sde", num_steps=100), keys, process.prior_sample(keys, ONE)
    )
    measured["ODE"].append((mean, variance))
    measured["SDE"].append((float(samples.mean()), float(samples.var())))
    print(f"w = {w}: ODE {mean:.4f}, {variance:.4f}; SDE {samples.mean():.4f}, {samples.var():.4f} (mean, variance)")
    np.testing.assert_allclose((mean, variance), of_ode(w), atol=2e-3)  # at t = 1 the prior has mean 0, not alpha m
    error = np.sqrt(of_sde(w)[1] / N)  # standard error of the mean
    assert abs(samples.mean() - of_sde(w)[0]) < 4 * error + 2e-3
    assert abs(samples.var() / of_sde(w)[1] - 1) < 4 * np.sqrt(2 / N) + 0.02

# %% mystnb={"image": {"alt": "Mean and variance of guided samples against the guidance scale"}}
figure, panels = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
scales = np.linspace(0, 5, 101)
laws = {
    "tilted density": (tilted, GREY, ":", None),
    "ODE": (of_ode, BLUE, "-", "o"),
    "SDE": (of_sde, ORANGE, "--", "s"),
}
for label, (law, colour, dash, marker) in laws.items():
    values = np.array([law(w) for w in scales if abs(2 * w - 1) > 1e-9])
    for panel, column, which in zip(panels, values.T, (0, 1), strict=True):
        panel.plot(scales[np.abs(2 * scales - 1) > 1e-9], column, color=colour, linestyle=dash, label=label)
        if marker:
            panel.plot(SCALES, np.array(measured[label])[:, which], marker, color=colour, fillstyle="none")
panels[0].set(xlabel="guidance scale w", ylabel="mean")
panels[1].set(xlabel="guidance scale w", ylabel="variance", yscale="log")
for panel in panels:
    panel.axvline(1, color="0.8", linewidth=0.8)
    panel.legend(frameon=False)

# %% [markdown]
# For $w > 1$ the mean overshoots the class and then hardly moves, while the variance collapses: geometrically for the
# ODE, as $1/w$ for the SDE. This is the loss of diversity that one sees in guided images. No amount of sampling steps
# cures it.
#
# ## Guidance in an interval
#
# Kynkaanniemi et al. (2024) guide at middle noise levels only. The law stays closed, and it shows what an interval
# buys. Without the high levels the mean stays closer to the class. Without the low levels the samples keep more of
# their variance, at the price of a mean that is still further out.

# %%
W = 4.0
full = of_ode(W)
for low, high in ((0.0, 1.0), (0.5, 2.0), (1.0, 10.0)):
    times = tuple(float(process.time(np.array(max(k, 1e-3)))) for k in (low, high))
    guided = extrapolation(of_class, everything, scale=W, interval=times)
    ends, nfe = solve(fast_solver(process, guided, num_steps=400), keys[:2], two_starts)
    law = float(ends[0, 0, 0, 0]), float((ends[1] - ends[0])[0, 0, 0] ** 2)
    print(f"levels {low:3.1f} to {high:4.1f}: mean {law[0]:.3f}, variance {law[1]:.3f}, {nfe[0]} evaluations")
    np.testing.assert_allclose(law, of_ode(W, low, high), rtol=0.04)  # the interval's ends fall between two steps
    assert law[1] > full[1]
print(f"all levels:         mean {full[0]:.3f}, variance {full[1]:.3f}; the class: mean {m}, variance {v}")
assert full[1] < 0.02 * v

# %% [markdown]
# ## Guidance by an observation
#
# Two pixels have correlation $\rho$. The first is observed with noise, $y = x_1 + n$; the second is hidden. The
# posterior is a Gaussian (`Gaussian.posterior`). Each method replaces the unknown law of $x_0$ given $x_t$ by
# something simpler:
#
# - **projection** overwrites the observed pixel by a noisy copy of $y$ and ignores its relation to the hidden one;
# - **dps** follows the gradient of the residual's length with a step size instead of a covariance;
# - **pigdm** assumes the same variance in all directions;
# - **tmpd** takes the covariance from the derivative of the model, which is exact for Gaussians.

# %% mystnb={"image": {"alt": "Samples of four methods over ellipses of the exact posterior"}}
STEPS, SAMPLES, NOISE, Y = 200, 4000, 0.3, 1.2
PAIR = (1, 2, 1)
sde = VP(num_scales=STEPS)
mask = jnp.broadcast_to(jnp.array([True, False]).reshape(PAIR), (SAMPLES, *PAIR))
observation = Observation(Inpaint(mask), jnp.where(mask, Y, 0.0), jnp.full(SAMPLES, NOISE))
options = Options(step=0.05, num_steps=STEPS)  # the step is dps's; 0.05 suits images of few pixels
start = sde.prior_sample(keys[:SAMPLES], PAIR)


def posterior_samples(data, method):
    """Samples (SAMPLES, 2) of a method for p(x_0 | y)."""
    model, x, project = data.model(sde), start, None
    if method == "projection":
        held = projection(sde, observation)
        x, project = held.start(start), held.project
    else:
        model = GUIDES[method](sde, model, observation, options)
    sampler = predictor_corrector(sde, model, predictor="reverse_diffusion", project=project)
    return np.asarray(solve(sampler, keys[:SAMPLES], x)[0]).reshape(SAMPLES, 2)


def divergence(x, truth):
    """KL divergence in nats of the Gaussian with the samples' mean and covariance from the true Gaussian."""
    precision, away = np.linalg.inv(truth.covariance), x.mean(0) - truth.mean.ravel()
    ratio = np.cov(x.T) @ precision
    return (np.trace(ratio) + away @ precision @ away - 2 - np.log(np.linalg.det(ratio))) / 2


figure, panels = plt.subplots(2, 4, figsize=(9.5, 5.4), sharex=True, sharey=True, layout="constrained")
circle = np.stack([f(np.linspace(0, 2 * np.pi, 100)) for f in (np.cos, np.sin)])
EXACT = {0.0: ("projection", "pigdm", "tmpd"), 0.95: ("tmpd",)}  # methods whose assumption holds
for row, rho in zip(panels, EXACT, strict=True):
    data = Gaussian(np.zeros(PAIR), np.array([[1.0, rho], [rho, 1.0]]))
    truth = data.posterior(np.array([[1.0, 0.0]]), np.array([Y]), NOISE)
    center, covariance = truth.mean.ravel(), truth.covariance
    for panel, method in zip(row, ("projection", "dps", "pigdm", "tmpd"), strict=True):
        x = posterior_samples(data, method)
        distance = divergence(x, truth)
        right = method in EXACT[rho]
        print(f"correlation {rho}: {method:10} {distance:.4f} nats from the posterior")
        assert distance < 0.005 if right else distance > 0.02  # 4000 exact samples have about 0.0006
        panel.plot(*x[:600].T, ".", color=BLUE if right else ORANGE, markersize=2)
        for radius in (1, 2):
            ellipse = center[:, None] + radius * np.linalg.cholesky(covariance) @ circle
            panel.plot(*ellipse, color="black", linewidth=1)
        panel.set_title(f"{method}, correlation {rho}", fontsize=10)
panels[0, 0].set(xlim=(-0.5, 2.5), ylim=(-3.2, 3.8), ylabel="hidden pixel")
_ = [panel.set_xlabel("observed pixel") for panel in panels[1]]

# %% [markdown]
# Ellipses are one and two standard deviations of the exact posterior; blue samples have its mean and covariance.
# Where the pixels are independent with variance 1, three methods are right. Where they are correlated, as pixels of
# images are, only `tmpd` is.
#
# ## What to try
#
# - Set `V = 4.0`. At which scale does the variance of the ODE's samples fall below a tenth of the class's?
# - Compare the two samplers at $w = 0.5$, where the formula of the SDE's variance is a limit. Which limit?
# - Give `pigdm` the option `data_variance=0.3`. Can a single number repair it at correlation 0.95?
# - Use `particles` of `score_sde.conditioning` with 4 and 16 particles in place of `pigdm`. How fast does the bias
#   fall?
