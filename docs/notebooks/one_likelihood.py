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
# # One image's likelihood, several ways
#
# Papers report likelihoods as bits per dimension: $-\log_2\,p(x) / D$ for an image of $D$ numbers. The figure depends
# on more than the model. It depends on the tolerance of the ODE solver, on the estimator of the divergence, on how
# discrete pixels become real numbers, and on whether it is a likelihood or a bound on one.
#
# Here the data are a Gaussian with the mean and (nearly) the covariance of scikit-learn's handwritten digits. Its
# score is exact and its density is known, so each effect can be measured by itself, on one image.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from scipy.stats import norm
from sklearn.datasets import load_digits

import score_sde
from score_sde.images import CENTERED
from score_sde.likelihood import bits_per_dim, likelihood_bound
from score_sde.likelihood.dequantization import truncated_normal, uniform
from score_sde.oracles import Gaussian
from score_sde.paths import Linear
from score_sde.process import LEAST_TIME, from_score
from score_sde.randomness import sample_keys
from score_sde.sampling import solve
from score_sde.sde import EDM, VE, VP

score_sde.configure()  # makes JAX fast on a CPU and keeps compiled programs on disk
plt.rcParams.update({"figure.facecolor": "white", "savefig.facecolor": "white"})
BLUE, ORANGE, GREEN, BLACK = "#0072b2", "#d55e00", "#009e73", "#000000"  # distinct for colour-blind readers

pixels = np.round(load_digits().images * 255 / 16)[..., None]  # (1797, 8, 8, 1), levels 0 to 255
dequantized = CENTERED.to_model((pixels + 0.5) / 256)  # the middles of the levels' cells, in [-1, 1]
D, SHAPE = 64, (8, 8, 1)
covariance = np.cov(dequantized.reshape(-1, D).T) + 0.05**2 * np.eye(D)  # some pixels never vary
data = Gaussian(dequantized.mean(axis=0), covariance)
process = VP()
x = np.float32(dequantized[:1])  # the image, a zero, of shape (1, 8, 8, 1)

# %% [markdown]
# ## Three truths
#
# - $p_0$, the density of the data;
# - $p_\epsilon$, the density at the time $\epsilon = 10^{-5}$ where integration stops, because scores are infinite at
#   0;
# - the density of the *model*, which starts from the process's prior at $t = 1$ and not from the true $p_1$.
#
# The third is what an ODE solver computes. For a Gaussian all three are closed forms. Densities are in model range,
# $[-1, 1]$, where bits can be negative. For the 256 levels of a pixel, add 7 bits/dim: a level is $2 / 256$ wide.


# %%
def density_bits(process, t):
    """Bits per dimension of the image under p_t, in model range."""
    return -float(data.log_density(process, x, jnp.full(1, t))[0]) / (D * np.log(2))


exact = density_bits(process, 0.0)
print(f"density of the data       {exact:8.4f} bits/dim")
for name, path in {"VP": process, "VE": VE(), "EDM": EDM(), "linear": Linear()}.items():
    at_eps, model_bits = density_bits(path, LEAST_TIME), float(data.bits_per_dim(path, x)[0])
    print(f"{name:7} p_eps {at_eps:8.4f}    model {model_bits:8.4f}")
    assert abs(at_eps - exact) < 0.02 and abs(model_bits - at_eps) < 0.01  # the noise at eps; the prior's mismatch
truth = float(data.bits_per_dim(process, x)[0])

# %% [markdown]
# ## The probability-flow ODE and its tolerance
#
# The density of the model follows the ODE, $\log\,p_0(x_0) = \log\,p_1(x_1) + \int_0^1 \nabla \cdot v(x_t, t)\,dt$.
# With `divergence="exact"` the only error left is that of the solver. The default tolerance is $10^{-5}$, as in the
# paper.

# %%
TOLERANCES = [1e-1, 1e-3, 1e-5]
key = jax.random.key(0)
errors, evaluations = [], []
for tolerance in TOLERANCES:
    options = dict(offset_bits=0.0, divergence="exact", rtol=tolerance, atol=tolerance)
    bits, latents, nfe = solve(bits_per_dim(process, data.model(process), **options), key, x)
    errors.append(abs(float(bits[0]) - truth))
    evaluations.append(int(nfe[0]))
    print(f"tolerance {tolerance:.0e}: {float(bits[0]):8.4f} bits/dim, error {errors[-1]:.1e}, {nfe[0]} evaluations")
assert errors[-1] < 1e-3 and errors[0] > 10 * errors[-1]  # float32 leaves about 1e-4
assert evaluations == sorted(evaluations)

# %% [markdown]
# ## Hutchinson's estimator and its noise
#
# The exact divergence takes $D$ derivatives. Hutchinson's estimator $e^\top (\partial v / \partial x)\, e$ takes one,
# with a random probe $e$. It is unbiased, and the library keeps a probe fixed along the trajectory, so the estimate
# for one image is $e^\top M e$ with $M = \int \partial v / \partial x \, dt$. For a Gaussian with principal variances
# $\lambda_i$, $M$ has the same axes and the eigenvalues
# $\frac{1}{2} \log \frac{\alpha(1)^2 \lambda_i + \sigma(1)^2}{\alpha(\epsilon)^2 \lambda_i + \sigma(\epsilon)^2}$.
# The variance of the estimate follows:
#
# $$\operatorname{Var} = 2 \sum_{ij} M_{ij}^2 \ \text{(Gaussian probes)}, \qquad
# \operatorname{Var} = 2 \sum_{i \neq j} M_{ij}^2 \ \text{(Rademacher probes, signs } \pm 1).$$

# %%
REPEATS = 300
eigenvalues, axes = np.linalg.eigh(covariance)
ends = np.array([1.0, LEAST_TIME])[:, None]
at_end, at_start = process.alpha(ends) ** 2 * eigenvalues + process.sigma(ends) ** 2
M = (axes * 0.5 * np.log(at_end / at_start)) @ axes.T
spread = {
    "gaussian": np.sqrt(2 * np.sum(M**2)) / (D * np.log(2)),
    "rademacher": np.sqrt(2 * np.sum((M - np.diag(np.diag(M))) ** 2)) / (D * np.log(2)),
}
copies = np.tile(x, (REPEATS, 1, 1, 1))
estimates = {}
for name, probes in (("gaussian", 1), ("rademacher", 1), ("rademacher", 4)):
    options = dict(offset_bits=0.0, divergence=name, num_probes=probes, rtol=1e-4, atol=1e-4)
    bits = np.asarray(solve(bits_per_dim(process, data.model(process), **options), key, copies)[0])
    estimates[f"{name}, {probes}"] = bits
    theory, mean = spread[name] / probes**0.5, bits.mean()
    print(f"{name:10} {probes} probe(s): mean {mean:.4f}, standard deviation {bits.std():.4f}, theory {theory:.4f}")
    assert abs(bits.std() / theory - 1) < 0.2  # 300 draws of a skewed quadratic form
    assert abs(mean - truth) < 4 * theory / REPEATS**0.5 + 1e-3  # unbiased, but for the solver's tolerance

# %% [markdown]
# Rademacher probes get the diagonal of $M$ exactly, which is most of it, and are the library's default. A data set of
# thousands of images averages the noise away; for single images use several probes or `divergence="exact"`.
#
# ## The denoising bound
#
# The loss that trains a network also bounds the likelihood, that of the reverse *SDE* (Song, Durkan, Murray and
# Ermon, 2021). The bound needs neither an ODE nor a derivative, only a mean over random times and noise. It is an
# equality if the score is exact. Below, the score is multiplied by a factor. With a wrong score the ODE and the SDE
# are two different models, neither of them the data's, and they give this image different figures.

# %%
keys = sample_keys(jax.random.key(2), jnp.arange(2000))


@jax.jit
def both(factor):
    """The bound for each key, and the bits/dim of the ODE, with the score multiplied by a factor."""
    model = from_score(process, lambda x, t: factor * data.score(process, x, t))
    draws = likelihood_bound(process, model, num_times=16)(keys, jnp.tile(x, (len(keys), 1, 1, 1)))
    return draws, solve(bits_per_dim(process, model, offset_bits=0.0, divergence="exact", rtol=1e-4), key, x)[0][0]


FACTORS, bounds, flows = [0.8, 0.9, 1.0, 1.1, 1.2], [], []
for factor in FACTORS:
    draws, flow = jax.device_get(both(factor))
    bounds.append((draws.mean(dtype=np.float64), draws.std() / len(keys) ** 0.5))
    flows.append(flow)
    print(f"score times {factor}: bound {bounds[-1][0]:.4f} +- {bounds[-1][1]:.4f}, ODE {flow:.4f} bits/dim")
    apart = abs(bounds[-1][0] - flow) / bounds[-1][1]  # in standard errors
    assert apart < 4 if factor == 1.0 else apart > 8

# %% mystnb={"image": {"alt": "The image, and errors or spreads of three estimates of its likelihood"}}
figure, panels = plt.subplots(2, 2, figsize=(8.4, 6), layout="constrained")
panels = panels.ravel()
panels[0].imshow(x[0, :, :, 0], cmap="gray")
panels[0].set(xticks=[], yticks=[], title="the image")
panels[1].loglog(TOLERANCES, errors, "o-", color=BLUE)
panels[1].set(xlabel="tolerance", ylabel="error, bits/dim", title="ODE, exact divergence")
for (label, bits), colour in zip(estimates.items(), (ORANGE, BLUE, GREEN), strict=True):
    panels[2].hist(bits, bins=20, density=True, histtype="step", linewidth=1.6, color=colour, label=label)
panels[2].axvline(truth, color=BLACK, linestyle="--", linewidth=1)
panels[2].set(xlabel="bits/dim", yticks=[], title="Hutchinson: kind, probes")
panels[3].errorbar(FACTORS, *np.transpose(bounds) * [[1], [2]], fmt="o", color=BLUE, capsize=3, label="bound (SDE)")
panels[3].plot(FACTORS, flows, "s--", color=ORANGE, label="ODE")
panels[3].axhline(exact, color=BLACK, linestyle="--", linewidth=1)
panels[3].set(xlabel="factor on the score", ylabel="bits/dim", title="a wrong score")
for panel in panels[2:]:
    panel.legend(frameon=False, fontsize=8)

# %% [markdown]
# With the factor 1.1 the ODE gives this image fewer bits than the data's own density does. That is no better model:
# over images of the data, no model has a lower mean than the data's own density.
#
# ## Pixels: dequantization
#
# An image file holds one of 256 levels per pixel, and the probability $P(x)$ of an image is the mass of the density
# in a box of $D$ cells. Drawing $y$ from any $q(y \mid x)$ on the box gives a bound,
# $-\log\,P(x) \le E_q[\log\,q(y \mid x) - \log\,p(y)]$, which is tight if $q$ is proportional to $p$ inside the box.
# Uniform $q$ is the paper's choice. Truncated-normal $q$ is the noise that the network saw at a small time. With
# independent pixels the mass is a product of differences of the normal distribution function, so the gap can be
# measured.

# %%
variances = dequantized.var(axis=0) + (2 / 256) ** 2 / 12  # of the levels, and of the uniform noise inside a cell
independent = Gaussian(dequantized.mean(axis=0), variances)
image = np.float32(pixels[:1] / 255)  # one real digit, in [0, 1]
choices = {"uniform": uniform(CENTERED), "truncated normal": truncated_normal(process, CENTERED, dequantized=True)}
for name, q in choices.items():
    alpha, sigma = (f(np.array(q.eps)) for f in (process.alpha, process.sigma))
    std = np.sqrt(alpha**2 * variances + sigma**2)
    low, high = (norm.cdf(alpha * (dequantized[0] + side - independent.mean) / std) for side in (-1 / 256, 1 / 256))
    mass = -np.sum(np.log2(high - low)) / D
    y, log_q = q.sample(keys, np.tile(image, (len(keys), 1, 1, 1)))
    log_p = independent.log_density(process, y, jnp.full(len(y), q.eps)) / (D * np.log(2))
    bits = np.asarray(log_q - log_p, np.float64)
    error = bits.std() / len(keys) ** 0.5
    print(f"{name:16} at t = {q.eps:.1e}: {bits.mean():.4f} +- {error:.4f} bits/dim, log-mass {mass:.4f}")
    assert mass - 4 * error < bits.mean() < mass + 1.0

# %% [markdown]
# ## What to try
#
# - Set `process = VE()`. Which figures change, and by how much?
# - Halve the ridge `0.05**2`. How do the spread of Hutchinson's estimator and the NFE respond?
# - Average $p/q$ over 100 draws of $y$ before taking the logarithm. How much of the gap to the mass remains?
# - Use `divergence="hutch++"` with `num_probes=9`. Its variance is larger here. Look at the spectrum of `M` to see
#   why.
