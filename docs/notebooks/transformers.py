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
# # U-Net, transformer, and the other kind of model
#
# A transformer can be the network inside a diffusion model, and it can replace diffusion. This notebook does both on
# pictures so small that every answer is known: 4x4 pixels, of which one row or one column is bright. There are 8 such
# pictures, all equally likely, so the entropy is 3 bits, or 3/16 of a bit for each pixel.

# %% mystnb={"image": {"alt": "The eight pictures: four with a bright row, four with a bright column"}}
from functools import partial

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from score_sde.experiments.autoregressive.config import get_config
from score_sde.experiments.autoregressive.density import Density
from score_sde.experiments.autoregressive.model import Autoregressive

import score_sde
from score_sde import images
from score_sde.conditioning import Inpaint
from score_sde.inference.pretrained import Pretrained
from score_sde.models import DiT, NCSNpp, UViT
from score_sde.objective import Objective
from score_sde.parameterization import Noise
from score_sde.randomness import expand, sample_keys
from score_sde.sde import VP
from score_sde.times import Uniform
from score_sde.weights import NoiseWeight

score_sde.configure()  # makes JAX fast on a CPU and keeps compiled programs on disk
BARS = np.zeros((8, 4, 4, 1), np.uint8)
for i in range(4):
    BARS[i, i], BARS[4 + i, :, i] = 1, 1
x0 = jnp.asarray(2.0 * BARS - 1)  # in model range
ENTROPY, UPDATES, BATCH = 3 / 16, 400, 64

figure, panel = plt.subplots(figsize=(6, 1.2), layout="constrained", facecolor="white")
panel.imshow(images.grid(255 * BARS, columns=8), interpolation="nearest")
panel.set_title("all pictures there are")
panel.set_axis_off()

# %% [markdown]
# ## One diffusion model, three networks
#
# A diffusion model learns to predict the noise in a noisy picture. Which network predicts it is free: a U-Net of
# convolutions, or a transformer over patches. U-ViT reads the noise level as one more token, and has the long skips of
# a U-Net. DiT scales and shifts its features by the noise level, and at first returns exactly zero.

# %%
NETWORKS = {
    "U-Net": NCSNpp(nf=8, ch_mult=(1,), num_res_blocks=1, attn_resolutions=(4,), embedding_type="positional"),
    "U-ViT": UViT(patch_size=2, width=32, depth=2, num_heads=2),
    "DiT": DiT(patch_size=2, width=32, depth=2, num_heads=2),
}
objective = Objective(VP(), Noise(), Uniform(), NoiseWeight())


def trained(params, loss, rate):
    """Parameters after `UPDATES` updates of Adam, and the losses."""
    optimizer = optax.adam(optax.cosine_decay_schedule(rate, UPDATES))

    @jax.jit
    def update(params, state, key):
        value, gradient = jax.value_and_grad(loss)(params, key)
        change, state = optimizer.update(gradient, state)
        return optax.apply_updates(params, change), state, value

    state, losses = optimizer.init(params), []
    for key in jax.random.split(jax.random.key(1), UPDATES):
        params, state, value = update(params, state, key)
        losses.append(value)
    return params, np.array(losses)


def noisy(key, n):
    """Pictures, times, noise, and the noisy pictures."""
    picture = x0[jax.random.randint(key, (n,), 0, len(x0))]
    t, eps = objective.draw(sample_keys(key, jnp.arange(n)), picture.shape[1:])
    return picture, t, eps, objective.perturb(picture, t, eps)


def diffusion_loss(network, params, key, n=BATCH):
    picture, t, eps, x = noisy(key, n)
    outputs = objective.parameterization.outputs(lambda x, c: network.apply({"params": params}, x, c), objective.levels)
    return objective.loss(outputs(x, t), picture, t, eps).mean()


diffusion = {}
for name, network in NETWORKS.items():
    params = jax.jit(network.init)(jax.random.key(0), x0[:1], jnp.ones(1))["params"]
    first = jax.jit(network.apply)({"params": params}, x0, jnp.ones(8))
    number = sum(leaf.size for leaf in jax.tree.leaves(params))
    params, losses = trained(params, partial(diffusion_loss, network), 5e-3)
    diffusion[name] = Pretrained(objective, network, params, image_shape=(4, 4, 1))
    print(f"{name}: {number:,} parameters, loss {losses[0]:.3f} at first, {losses[-100:].mean():.4f} at the end")
    assert losses[-100:].mean() < 0.3 * losses[0]
assert not first.any()  # DiT's

# %% [markdown]
# ## How far from perfect
#
# With eight pictures, the best prediction is known: each picture is weighed by how likely it is to have become $x$.
# Its loss is not zero, since noise can hide which picture it was. No network can be better. After so few updates the
# U-Net is nearest. Attention treats patches as a set, so a transformer has to learn what their places mean.


# %%
def exact(x, t):
    """E[eps | x] for the eight pictures."""
    alpha, sigma = (expand(of(t), x) for of in (objective.process.alpha, objective.process.sigma))
    squares = jnp.sum((x[:, None] - alpha[:, None] * x0) ** 2, axis=(2, 3, 4))
    weights = jax.nn.softmax(-squares / (2 * sigma[:, :, 0, 0] ** 2))
    return (x - alpha * jnp.einsum("bk,khwc->bhwc", weights, x0)) / sigma


key, n = jax.random.key(2), 4096
picture, t, eps, x = noisy(key, n)
best = float(objective.loss(exact(x, t), picture, t, eps).mean())
print(f"the best loss there is: {best:.4f}")
excess = {}
for name, model in diffusion.items():
    loss = float(jax.jit(partial(diffusion_loss, model.network, n=n))(model.params, key))
    excess[name] = loss / best - 1
    print(f"{name}: {loss:.4f}, {excess[name]:.0%} above that")
    assert -0.01 < excess[name] < 5
assert min(excess, key=excess.get) == "U-Net"

# %% [markdown]
# ## The other kind of model
#
# The autoregressive transformer has no noise. It reads the pixels one after another, and predicts the next one. A
# picture's probability is the product over its pixels, which is exact: over all 65,536 pictures of two levels the
# probabilities sum to 1, and no model has fewer bits than the entropy.

# %%
config = get_config()
config.data.update(image_size=4, num_channels=1)
config.model.update(width=16, depth=2, num_heads=2, levels=2, dropout=0.0)
density = Density(config)


def bits(params, key):
    return density.bits_per_dim(params, jnp.asarray(BARS)[jax.random.randint(key, (BATCH,), 0, 8)]).mean()


params, _ = trained(density.init_params(), bits, 5e-3)
sequence = Autoregressive(density, params)
every = np.unpackbits(np.arange(2**16, dtype=">u2").view(np.uint8)).reshape(-1, 4, 4, 1)
p = 2.0 ** (-16 * np.concatenate([sequence.bits_per_dim(part) for part in np.split(every, 16)], dtype=np.float64))
reached = float(sequence.bits_per_dim(BARS).mean())
print(f"sum of all probabilities {p.sum():.6f}; bits/dim {reached:.4f}, entropy {ENTROPY:.4f}")
assert abs(p.sum() - 1) < 1e-4 and ENTROPY < reached < 1.1 * ENTROPY

# %% [markdown]
# ## Samples
#
# Both kinds of model are asked for 200 pictures. We count those that are one of the eight. The diffusion models take
# 20 evaluations of the network for a picture, and see all pixels in each. The autoregressive transformer takes 16.

# %% mystnb={"image": {"alt": "Samples of the four models"}}


def is_bar(pixels):
    """Which of these pictures of 0 and 1 are among the eight."""
    return (pixels[:, None] == BARS).all(axis=(2, 3, 4)).any(axis=1)


samples = {"autoregressive": sequence.sample(jax.random.key(3), 200)}
for name, model in diffusion.items():
    samples[name] = np.asarray(model.sample(jax.random.key(3), 200, "dpmpp_2m", num_steps=19) > 0.5).astype(np.uint8)
for name, pixels in samples.items():
    share = is_bar(pixels).mean()
    print(f"{name}: {share:.1%} of the samples are one of the eight pictures")
    assert share > 0.9 if name in ("autoregressive", "U-Net") else share < is_bar(samples["U-Net"]).mean()

figure, panels = plt.subplots(1, 4, figsize=(9, 1.6), layout="constrained", facecolor="white")
for panel, (name, pixels) in zip(panels, samples.items(), strict=True):
    panel.imshow(images.grid(255 * pixels[:16], columns=8), interpolation="nearest")
    panel.set_title(name)
    panel.set_axis_off()

# %% [markdown]
# ## What one can do and the other cannot
#
# The left half of each picture is hidden. A bright row is seen in the right half, so the answer is certain. The
# diffusion model sees all known pixels in each step. The autoregressive transformer comes to the hidden pixels of a row
# before the known ones, and has to guess. It is right about the first row with the probability 1/8, and about each
# other row with 5/8 times 1/3, in all 3/16.

# %%
known = np.tile(np.arange(4) >= 2, (4, 1))
truth = np.repeat(BARS[:4], 25, axis=0)  # the rows
mask = Inpaint(known)
y = mask.forward(jnp.asarray(truth, jnp.float32))
filled = diffusion["U-Net"].posterior(jax.random.key(4), mask, y, 0.0, "dpmpp_2m", num_steps=19, inverse="tmpd")
by_diffusion = (np.asarray(filled > 0.5) == truth).all(axis=(1, 2, 3)).mean()
drawn = np.where(known[..., None], truth, 0).astype(np.uint8)
for row in range(4):  # each hidden pair, with all pixels before it fixed
    completed = sequence.complete(jax.random.key(5), drawn, 4 * row)
    drawn[:, row, :2] = completed[:, row, :2]
in_order = (drawn == truth).all(axis=(1, 2, 3)).mean()
print(
    f"U-Net: {by_diffusion:.0%} are the only picture that fits; autoregressive: {in_order:.0%}, expected {3 / 16:.0%}"
)
assert by_diffusion > in_order + 0.3 and abs(in_order - 3 / 16) < 0.15  # four standard errors

# %% [markdown]
# With real pictures, the comparison is [an experiment](../../experiments/transformers/README.md) with several seeds,
# and [a guide](../guides/transformers.md) explains what it measures.
#
# ## What to try
#
# - Make the patches of U-ViT and DiT single pixels. How do the losses, the parameters and the time change?
# - Hide the lower half instead. What does the autoregressive transformer answer now?
# - Train with `UPDATES = 60`. Which of the four needs the most updates?
# - Draw with `num_steps=3`. Can the autoregressive transformer be made faster in the same way?
