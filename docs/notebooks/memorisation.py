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
# # Memorisation of a hundred pictures
#
# The loss of a diffusion model has a known minimum: the denoiser whose samples are copies of the training pictures.
# This notebook measures how near six models of a hundred digits come to it, and what each figure of `score_sde.audit`
# sees. Three models are closed forms: one copies everything, and one cannot know a single picture of the hundred.

# %%
import flax.linen as nn
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from sklearn.datasets import load_digits

import score_sde
from score_sde import audit, images
from score_sde.audit.denoiser import audit_denoiser
from score_sde.audit.membership import auc, losses
from score_sde.inference.pretrained import Pretrained
from score_sde.objective import Objective
from score_sde.oracles import Empirical, Gaussian
from score_sde.parameterization import KarrasF
from score_sde.randomness import sample_keys
from score_sde.sampling import fast_solver, solve
from score_sde.sde import EDM
from score_sde.times import LogNormal
from score_sde.weights import KarrasWeight

score_sde.configure()  # makes JAX fast on a CPU and keeps compiled programs on disk
COLOURS = plt.cycler(color=["black", "#d55e00", "#e69f00", "#009e73", "#0072b2", "#7f7f7f"])
plt.rcParams.update({"figure.facecolor": "white", "savefig.facecolor": "white", "axes.prop_cycle": COLOURS})

# %% [markdown]
# ## The pictures
#
# A hundred digits are the training set, a hundred are held out, and the rest is new data. They are drawn at random from
# the same data, which every figure below needs. First of all, look for pictures that the training set has twice.

# %%
pixels = np.round(load_digits().images * 255 / 16).astype(np.uint8)[..., None]  # (1797, 8, 8, 1)
train, held_out, others = np.split(pixels[np.random.default_rng(0).permutation(len(pixels))], [100, 200])
x_train, x_held_out, x_others = (np.float32(x / 127.5 - 1) for x in (train, held_out, others))  # in [-1, 1]
to_itself = audit.nearest(train, train, without_itself=True).distances[:, 0]
typical = np.median(to_itself)
print(f"median distance of a training picture to the nearest other one {typical:.2f}, least {to_itself.min():.2f}")
assert not audit.near_duplicates(train, typical / 3) and to_itself.min() > typical / 2

# %% [markdown]
# ## Six models
#
# `Empirical` is the minimum of the loss: its denoiser is the mean of the training pictures, weighted by how likely each
# has become $x_t$. `Gaussian` has their mean and covariance only. Between them are a network after 200 and after 2,000
# updates on the hundred pictures, and one after 2,000 updates on all that are not held out. A Gaussian of the other
# digits knows none of the hundred. All figures are of the hundred, whatever else a model has seen.

# %%
process, SHAPE, std = EDM(), (8, 8, 1), float(x_others.std())
objective = Objective(process, KarrasF(sigma_data=std), LogNormal(P_mean=-0.5), KarrasWeight(sigma_data=std))


class Perceptron(nn.Module):
    @nn.compact
    def __call__(self, x, noise_cond, cond=None, *, dropout_keys=None):
        angles = noise_cond[:, None] * 2.0 ** jnp.arange(4)
        h = jnp.concatenate([x.reshape(len(x), -1), jnp.sin(angles), jnp.cos(angles)], axis=1)
        for _ in range(3):
            h = nn.swish(nn.Dense(256)(h))
        return nn.Dense(x[0].size)(h).reshape(x.shape)


network, optimizer = Perceptron(), optax.adam(2e-3)


@jax.jit
def update(carry, key, x0):
    def loss(params):
        batch = x0[jax.random.randint(key, (128,), 0, len(x0))]
        t, eps = objective.draw(sample_keys(key, jnp.arange(128)), SHAPE)
        outputs = objective.parameterization.outputs(lambda x, c: network.apply({"params": params}, x, c), process)
        return objective.loss(outputs(objective.perturb(batch, t, eps), t), batch, t, eps).mean()

    params, state = carry
    change, state = optimizer.update(jax.grad(loss)(params), state)
    return optax.apply_updates(params, change), state


def trained(x0, updates):
    params = network.init(jax.random.key(0), jnp.zeros((1, *SHAPE)), jnp.zeros(1))["params"]
    carry = params, optimizer.init(params)
    for key in jax.random.split(jax.random.key(1), 2000)[:updates]:
        carry = update(carry, key, jnp.asarray(x0))
    return Pretrained(objective, network, carry[0], image_shape=SHAPE).predict


def fitted(x0):
    rows = x0.reshape(len(x0), -1)
    return Gaussian(rows.mean(0).reshape(SHAPE), np.cov(rows.T) + 1e-3 * np.eye(64)).model(process)


models = {
    "memoriser": Empirical(x_train).model(process),
    "network, 2,000 updates": trained(x_train, 2000),
    "network, 200 updates": trained(x_train, 200),
    "network, 1,697 pictures": trained(np.concatenate([x_train, x_others]), 2000),
    "Gaussian": fitted(x_train),
    "Gaussian of others": fitted(x_others),
}


def drawn(model, n=200):
    start = process.prior_sample(sample_keys(jax.random.key(2), jnp.arange(n)), SHAPE)
    x, _ = solve(fast_solver(process, model, name="dpmpp_2m", num_steps=40), jax.random.key(3), start)
    return images.to_pixels(jnp.clip(images.CENTERED.to_unit(x), 0, 1) + 0.5 / 255)  # rounded to the nearest level


samples = {name: drawn(model) for name, model in models.items()} | {"real pictures": others[:200]}

# %% [markdown]
# ## Look first
#
# The ten most suspicious samples of four models, above their nearest training pictures.

# %% mystnb={"image": {"alt": "The most suspicious samples of four models above their nearest training pictures"}}
near = {name: audit.nearest(x, train, k=50) for name, x in samples.items()}
figure, panels = plt.subplots(4, 1, figsize=(7, 7), layout="constrained")
for panel, name in zip(panels, [*list(models)[:3], "Gaussian"], strict=True):
    first = np.argsort(audit.gu_ratio(near[name]).ratio, kind="stable")[:10]
    pair = np.concatenate([samples[name][first], train[near[name].indices[first, 0]]])
    panel.imshow(images.grid(pair, columns=10))
    panel.set_title(name)
    panel.set_axis_off()
assert (samples["memoriser"] == train[near["memoriser"].indices[:, 0]]).all()  # copies, bit for bit

# %% [markdown]
# ## Copies in figures
#
# - Gu (2023): the share of samples with $d_1 < d_2 / 3$, the distances to the nearest two training pictures.
# - Carlini (2023): the share of samples with $d_1$ below half of the mean distance to the nearest 50.
# - Authentic (Alaa, 2022): the share of samples further from their nearest picture than that is from its own nearest.
# - $C_T$ (Meehan, 2020): below 0 if samples are nearer to the training set than held-out pictures are.
# - In train: the share whose nearest of all 200 pictures was trained on; p: by permuting who was.

# %%
to_train, table = audit.nearest(held_out, train).distances[:, 0], {}
print(f"{'':24} Gu     Carlini  authentic  C_T    in train  p")
for name, x in samples.items():
    test, z = audit.exchangeable(x, train, held_out), audit.c_t(near[name].distances[:, 0], to_train).z
    gu, carlini = (f(near[name]).share.value for f in (audit.gu_ratio, audit.carlini))
    authentic = audit.auth_pct(near[name], to_itself).share.value
    table[name] = dict(gu=gu, carlini=carlini, authentic=authentic, z=z, in_train=test.share, p=test.p)
    print(f"{name:24} {gu:.3f}  {carlini:.3f}    {authentic:.3f}    {z:6.1f}  {test.share:.3f}     {test.p:.4f}")
copied, seen, unseen = (table[name] for name in ("memoriser", "network, 2,000 updates", "Gaussian of others"))
assert copied["gu"] == copied["carlini"] == copied["in_train"] == 1 and copied["authentic"] == unseen["gu"] == 0
assert table["Gaussian"]["gu"] == table["real pictures"]["gu"] == 0 and seen["gu"] < 0.2 < 0.5 < seen["carlini"]
assert seen["p"] < 1e-3 and min(unseen["p"], table["real pictures"]["p"]) > 0.05 / 7 and unseen["z"] > 3

# %% [markdown]
# The ends are right: the memoriser copies everything, a Gaussian nothing.
#
# - Gu's criterion hardly finds a copy of the network of 2,000 updates, though nearly all its samples are next to
#   training pictures: noisy copies are further away than a third.
# - Carlini's criterion calls every third *real* picture a copy, because the nearest 50 are half of this training set.
#   Half of the real pictures are not authentic. So audit real pictures too, as in the last row.
# - $C_T$ of the Gaussians is far above 0, because their samples are far from everything: it mixes copying with the fit.
# - The permutation test needs no threshold. It finds that the Gaussian knows its pictures, too. Of seven p-values, call
#   those below 0.05 / 7 a discovery: the Gaussian of others has 0.02 by chance.
#
# ## How many copies would be noticed?
#
# A test that finds nothing may be a weak test. `power` plants copies among samples that know nothing, and counts how
# often the test notices: it needs about 60 among 200. Gu's criterion misses even clear copies of pictures that the
# training set has twice, because then $d_1 = d_2$.

# %%
copies = (0, 10, 20, 40, 60, 100)
power = audit.power(samples["Gaussian of others"], train, held_out, copies, replications=100)
twice = audit.gu_ratio(audit.nearest(samples["network, 2,000 updates"], np.concatenate([train, train]), k=2))
for k, of in zip(copies, power.detected, strict=True):
    print(f"{k:3} copies: detected in {of.value:.2f} ({of.low:.2f} to {of.high:.2f}) of replications")
assert power.detected[0].low < 0.05 < 0.95 < power.detected[-1].value and twice.share.value == 0

# %% [markdown]
# ## Where on the schedule
#
# Let $D_T$ be the memoriser of the training pictures, $D_H$ that of as many held-out ones, and $d_T, d_H$ the mean
# squares of $D - D_T$ and $D - D_H$, each on its own pictures with noise. A model that treats both alike has $d_T / d_H
# = 1$, the memoriser 0. The AUC is an attacker's who knows the losses: 0.5 is a guess.

# %%
levels = np.geomspace(0.05, 20, 9)
times, by_level, attacks = process.time(levels), {}, {}
for name, model in zip(models, map(jax.jit, models.values()), strict=True):
    by_level[name] = audit_denoiser(model, process, x_train, x_held_out, jax.random.key(4), times, draws=2)
    lost = losses(model, process, x_train, jax.random.key(5), times, draws=8)
    of_held_out = losses(model, process, x_held_out, jax.random.key(6), times, draws=8)
    attacks[name] = [auc(*of) for of in zip(lost.T, of_held_out.T, strict=True)]
    print(f"{name:24} ratio", *(f"{at.ratio.value:.2f}" for at in by_level[name]))
    print(f"{'':24} AUC  ", *(f"{at.value:.2f}" for at in attacks[name]))
print(
    "noise level: pictures in the mean;", *(f"{at.noise_level:.2g}: {at.images:.0f};" for at in by_level["memoriser"])
)
assert max(at.ratio.value for at in by_level["memoriser"]) < 1e-6
assert sum(at.ratio.low < 1 < at.ratio.high for at in by_level["Gaussian of others"]) >= 8
assert levels[2] < 2 * typical / 10 and [at.value for at in attacks["memoriser"][:3]] == [1, 1, 1]  # 2: as in [-1, 1]
assert all(at.low < 0.5 < at.high for at in attacks["Gaussian of others"])

# %% mystnb={"image": {"alt": "Ratio of distances and membership AUC of six models against the noise level"}}
figure, panels = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
for name in models:
    for panel, of in zip(panels, ([at.ratio for at in by_level[name]], attacks[name]), strict=True):
        value, low, high = np.array(of).T
        panel.plot(levels, value, "o-", markersize=3, label=name)
        panel.fill_between(levels, low, high, alpha=0.12, linewidth=0)
for panel, label in zip(panels, (r"$d_T / d_H$", "AUC of an attacker"), strict=True):
    panel.set(xscale="log", xlabel="noise level", ylabel=label)
panels[0].set_ylim(0, 1.6)
_ = figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center", frameon=False)

# %% [markdown]
# - Up to a noise level of about 1, the memoriser's mean has one or two pictures. There the networks are nearer to it
#   than a model of other pictures is. Early stopping and more pictures move the ratio towards 1.
# - At high noise the memoriser is the mean of all pictures, and so is the Gaussian: a ratio of 0 there is no copying.
# - The Gaussian has not a single copy, and yet an attacker finds its pictures with an AUC of 0.87. The network of 200
#   updates gives away even more, and no criterion of copies sees it.
# - For 1,697 pictures the AUC is below 0.6. Intervals of a hundred pictures are wide: hold out a thousand if you can.
#   [The guide](../guides/responsible_use.md) has one command for all this.
#
# ## What to try
#
# - Train for 6,000 updates. When does Gu's criterion see the copies that you saw at 2,000?
# - Hold out the digits of one class instead of random ones. Whom does the AUC of the Gaussian of others accuse now?
# - Audit a `Mixture` of narrow Gaussians around each picture. For which width does Gu's criterion find 1 % of copies?
