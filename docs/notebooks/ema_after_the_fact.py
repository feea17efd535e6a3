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
# # EMA after the fact
#
# The weights of a network are averaged over the last part of its training, and the quality of samples depends on the
# length of this average. This notebook makes averages of any length from a few that were saved in training, on
# parameters whose best length is known. No network is trained.

# %%
import matplotlib.pyplot as plt
import numpy as np

import score_sde
from score_sde.ema import Power, gamma, weights
from score_sde.training.posthoc import combination, nearest

score_sde.configure()  # makes JAX fast on a CPU and keeps compiled programs on disk
plt.rcParams.update(
    {"axes.spines.top": False, "axes.spines.right": False, "axes.prop_cycle": plt.cycler(color="bgrcm")}
)
TRACKED = Power(0.05), Power(0.1)

# %% [markdown]
# ## A power-function average
#
# After $T$ updates, the profile `power:SIGMA_REL` gives the weights after update $s$ the share
#
# $$w(s; T) = \frac{s^{\gamma+1} - (s-1)^{\gamma+1}}{T^{\gamma+1}}.$$
#
# The width is the standard deviation of these shares, divided by $T$, and it does not change with $T$. Training
# computes the average by a recursion with the rate $(1 - 1/n)^{\gamma+1}$. Both are the same numbers.

# %%
updates, s = 2000, np.arange(2001)
for profile in TRACKED:
    w, exponent = weights(profile, updates), gamma(profile.sigma_rel) + 1
    mean = w @ s
    width = np.sqrt(w @ (s - mean) ** 2) / updates
    by_formula = np.append(0, np.diff((s / updates) ** exponent))
    print(f"{profile.name}: exponent {exponent:.4f}, mean at {mean / updates:.3f}, width {width:.4f} of the run")
    np.testing.assert_allclose(w, by_formula, atol=1e-12)
    assert abs(width - profile.sigma_rel) < 1e-4

# %% [markdown]
# ## Another width, as a sum of saved averages
#
# Sixteen snapshots of two averages are saved, evenly in time. `combination` finds the coefficients that bring the
# shares of their sum nearest to those of `power:0.075`. The sum of the absolute differences is the *predicted profile
# error*.

# %% mystnb={"image": {"alt": "Shares of three averages, and the error of one made of the others"}}
steps, target = range(125, 2001, 125), Power(0.075)
made = combination(TRACKED, steps, target, updates)
saved = np.stack([[np.pad(weights(p, step)[1:], (0, updates - step)) for p in TRACKED] for step in steps])
of_sum = np.tensordot(made.coefficients, saved, 2)
residual = of_sum - weights(target, updates)[1:]
print(f"coefficients of the last three snapshots:\n{made.coefficients[-3:].round(4)}")
print(f"their sum {made.coefficients.sum():.12f}, predicted profile error {made.error:.4f}")
assert abs(made.coefficients.sum() - 1) < 1e-12
assert abs(made.error - np.abs(residual).sum()) < 1e-12 and made.error < 4e-3

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3), layout="constrained", facecolor="white")
for profile in (*TRACKED, target):
    left.plot(s[1:], weights(profile, updates)[1:], label=profile.name)
left.set_title("shares of the averages at the last update")
left.legend()
right.plot(s[1:], residual, color="gray")
right.set_title("the sum of saved averages, less power:0.075")
for panel in (left, right):
    panel.set_xlabel("update")

# %% [markdown]
# If a parameter stays in $[-1, 1]$, its made average is at most the predicted error away from the true one, and the
# path that follows the sign of the difference is that far away. A tracked width gives the coefficient 1 at its own
# snapshot. Twice as many snapshots give a fourth of the error.

# %%
worst = np.sign(residual)
difference = abs(of_sum @ worst - weights(target, updates)[1:] @ worst)
print(f"the worst path is {difference:.6f} away, as predicted: {made.error:.6f}")
assert abs(difference - made.error) < 1e-12
own = combination(TRACKED, steps, TRACKED[1], updates).coefficients
print(
    f"coefficient of power:0.1 in itself {own[-1, 1]:.12f}, largest of the others {np.abs(own.ravel()[:-1]).max():.0e}"
)
assert abs(own[-1, 1] - 1) < 1e-12 and np.abs(own.ravel()[:-1]).max() < 1e-12
numbers = (8, 16, 32, 64)
errors = [nearest(TRACKED, range(6400 // n, 6401, 6400 // n), target, 6400).error for n in numbers]
print("snapshots and errors:", ", ".join(f"{n}: {error:.1e}" for n, error in zip(numbers, errors, strict=True)))
np.testing.assert_allclose(np.divide(errors[1:-1], errors[2:]), 4, rtol=0.1)

# %% [markdown]
# ## The best length of an average
#
# A noisy gradient descent on a quadratic: $\theta_s = \theta_{s-1} - \eta\,(\theta_{s-1} - 1 + z_s)$, with $\theta_0
# = 0$ and standard normal $z_s$. A short average keeps much noise. A long one remembers the start. The expected
# squared error of an average is a sum of the two:
#
# $$E(\bar\theta - 1)^2 = \left(\sum_s w_s (1-\eta)^s\right)^2
# + \eta^2 \sum_k \left(\sum_{s \ge k} w_s (1-\eta)^{s-k}\right)^2.$$
#
# 5,000 parameters are trained so, with $\eta$ = 0.003. Two averages are tracked, and only their snapshots are kept.

# %%
RATE, COUNT = 0.003, 5000
key = np.random.default_rng(0)
theta, averages, kept = np.zeros(COUNT), np.zeros((2, COUNT)), []
widths = (0.04, 0.05, 0.06, 0.075, 0.1, 0.14, 0.18)
directly = {width: np.zeros(COUNT) for width in widths}
for n in range(1, updates + 1):
    theta = theta - RATE * (theta - 1 + key.standard_normal(COUNT))
    for i, profile in enumerate(TRACKED):
        old, new = profile.shares(np.float64(n))
        averages[i] = old * averages[i] + new * theta
    for width in widths:  # only to compare with: an average of each width from the start
        old, new = Power(width).shares(np.float64(n))
        directly[width] = old * directly[width] + new * theta
    if n in steps:
        kept.append(averages.copy())
kept = np.stack(kept)  # (snapshots, profiles, parameters)


def expected(width):
    """The formula above."""
    w, powers = weights(Power(width), updates)[1:], (1 - RATE) ** np.arange(updates)
    later = np.convolve(w[::-1], powers)[updates - 1 :: -1]  # the inner sum, for each k
    return (later[0] * (1 - RATE)) ** 2 + RATE**2 * np.sum(later**2)


# %% [markdown]
# From the snapshots we make the average of each width, measure its squared error, and compare it with the average
# that was tracked from the start, and with the formula.

# %% mystnb={"image": {"alt": "The squared error of an average against its width, by the formula and measured"}}
measured, bars = [], []
for width in widths:
    plan = combination(TRACKED, steps, Power(width), updates)
    average = np.tensordot(plan.coefficients, kept, 2)
    away = np.abs(average - directly[width]).max()
    squares = (average - 1) ** 2
    measured.append(squares.mean())
    bars.append(squares.std() / np.sqrt(COUNT))
    print(f"width {width}: predicted error {plan.error:.1e}, {away:.1e} off; squared error {measured[-1]:.6f}")
    assert away <= plan.error * np.abs(theta).max() * 1.5  # parameters are within about +-1.5
theory = np.array([expected(width) for width in widths])
assert np.all(np.abs(measured - theory) < 5 * np.array(bars) + 0.01 * theory)
best = widths[int(np.argmin(measured))]
print(f"the best width is {best}; the formula says {widths[int(np.argmin(theory))]}")
assert best == widths[int(np.argmin(theory))] and best not in (widths[0], widths[-1])

figure, panel = plt.subplots(figsize=(5.5, 3), layout="constrained", facecolor="white")
fine = np.linspace(0.04, 0.18, 29)
panel.plot(fine, [expected(width) for width in fine], label="formula")
panel.errorbar(widths, measured, 2 * np.array(bars), fmt="o", label="made after the fact")
panel.axvline(TRACKED[0].sigma_rel, color="gray", lw=0.5)
panel.axvline(TRACKED[1].sigma_rel, color="gray", lw=0.5)
panel.set_xlabel("width of the average")
panel.set_title("squared error of a parameter (lines: tracked widths)")
_ = panel.legend()

# %% [markdown]
# A run does the same with all its parameters: `ema.profiles`, `ema.snapshot_freq` and `--mode=ema` are in [the
# guide](../guides/ema.md).
#
# ## What to try
#
# - Track only one profile. What are the errors of other widths now?
# - Save the snapshots at powers of two. For which widths is that better?
# - Change `RATE`. When is the shortest average the best, and when the longest?
# - Ask for the width 0.28. The error names the reason, and the remedy.
