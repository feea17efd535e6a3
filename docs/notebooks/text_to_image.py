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
# # Text to image, exactly
#
# If there are few pictures, the best text-to-image model is known, and nothing has to be trained. There are 720 scenes
# of one object in 16x16 pixels: 5 shapes, 8 colours, 2 sizes and 9 places, all equally likely. A caption leaves the
# scenes that agree with it, equally likely again, so $E[x_0 \mid x_t, \text{caption}]$ is a weighted mean of pictures.
# In this notebook, all errors are those of the sampler and of guidance, and none is of a network.

# %%
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import score_sde
from score_sde import images
from score_sde.cond import Entry, read
from score_sde.conditioning import Inpaint
from score_sde.data.scene_captions import agreement, asked
from score_sde.data.scene_decoder import decode
from score_sde.data.scene_drawing import attribute_names, draw, scenes
from score_sde.data.text_cond import Tokens
from score_sde.data.tokenizers import Bytes
from score_sde.inference.pretrained import Pretrained
from score_sde.objective import Objective
from score_sde.parameterization import X0
from score_sde.sde import VP
from score_sde.times import Uniform
from score_sde.weights import NoiseWeight

score_sde.configure()  # makes JAX fast on a CPU and keeps compiled programs on disk
plt.rcParams.update({"figure.facecolor": "white", "savefig.facecolor": "white"})
VALUES = attribute_names(16)  # of shape, colour, size and place
numbers = np.indices(list(map(len, VALUES.values()))).reshape(4, -1).T[:, None]
OBJECTS, PICTURES = [object for (object,) in scenes(numbers, 16)], draw(numbers, 16)
SAMPLER = dict(sampler="dpmpp_2m", num_steps=50)
assert decode(PICTURES) == [(object,) for object in OBJECTS]  # the decoder reads all of them

# %% [markdown]
# ## The model
#
# A *text condition* turns captions into entries of the condition. Ours has one entry: which scenes agree with the
# caption. The network weighs these pictures by how likely each has become $x_t$; without a caption, it weighs all.


# %%
@functools.cache
def agrees(caption, object):
    """Whether an object has all attributes that a caption names."""
    return all(a == b for name, (a, b) in agreement(asked(caption), (object,)).items() if name != "count")


class Agreeing(Tokens):
    entries = ("agreeing",)

    def cond(self, texts):
        return {"agreeing": np.array([[agrees(text, object) for object in OBJECTS] for text in texts])}


class Exact(nn.Module):
    @property
    def cond_entries(self):
        return {"agreeing": Entry(jnp.bool_, (len(PICTURES),))}

    @nn.compact
    def __call__(self, x, noise_cond, cond=None, *, dropout_keys=None):
        pictures = self.param("pictures", lambda key: jnp.asarray(PICTURES / 127.5 - 1, jnp.float32).reshape(720, -1))
        agreeing, null = read(cond, self.cond_entries, "agreeing", len(x))
        k = jnp.exp(4 * noise_cond)[:, None]  # sigma / alpha
        y = x.reshape(len(x), -1) * jnp.hypot(1, k)  # x / alpha, because VP has alpha^2 + sigma^2 = 1
        squares = jnp.square(pictures).sum(1) - 2 * jnp.matmul(y, pictures.T, precision="highest")
        weights = jax.nn.softmax(jnp.where(agreeing | null[:, None], -squares / (2 * k**2), -jnp.inf))
        return jnp.matmul(weights, pictures, precision="highest").reshape(x.shape)


objective = Objective(VP(), X0(noise_cond="log_noise_level"), Uniform(), NoiseWeight())
params = Exact().init(jax.random.key(0), jnp.zeros((1, 16, 16, 3)), jnp.zeros(1))["params"]
model = Pretrained(objective, Exact(), params, image_shape=(16, 16, 3), text=Agreeing(Bytes()))


def seen(x):
    """The object in each picture; None where it is no scene of one object."""
    return [scene[0] if scene and len(scene) == 1 else None for scene in decode(np.asarray(x))]


def share(x, *captions):
    """Share of the pictures that show one object, and agree with all of these captions."""
    return float(np.mean([object is not None and all(agrees(text, object) for text in captions) for object in seen(x)]))


def show(panel, x, captions, columns, title):
    """Draws pictures in [0, 1] with their captions."""
    panel.imshow(images.captioned(images.to_pixels(np.asarray(x)), captions, columns, magnify=5))
    panel.set_title(title)
    panel.set_axis_off()


# %% [markdown]
# ## Pictures of captions
#
# At guidance scale 1, all pictures are right, whether the caption names all attributes or one. A caption that names
# only the shape leaves the rest open, and the samples must then be uniform over colours, sizes and places.

# %% mystnb={"image": {"alt": "Pictures of four captions, two of each"}}
CAPTIONS = ("a small red circle in the top left corner", "a big blue star", "a tiny thing", "a plus sign on the right")
x = model.sample(jax.random.key(0), 200, text=CAPTIONS * 50, **SAMPLER)
circles = model.sample(jax.random.key(1), 1000, text="a circle", **SAMPLER)
right = [share(x[i::4], text) for i, text in enumerate(CAPTIONS)] + [share(circles, "a circle")]
print(f"shares of right pictures: {right}")
assert min(right) == 1
for attribute in ("colour", "size", "place"):
    p, values = 1 / len(VALUES[attribute]), [getattr(object, attribute) for object in seen(circles)]
    shares = np.array([values.count(value) for value in VALUES[attribute]]) / len(values)
    print(f"{attribute}: shares from {shares.min():.3f} to {shares.max():.3f}, expected {p:.3f}")
    assert np.all(abs(shares - p) < 4 * np.sqrt(p * (1 - p) / len(values)))  # four standard errors
_ = show(plt.subplots(figsize=(9, 2.2), layout="constrained")[1], x[:8], CAPTIONS * 2, 8, "pictures of captions")

# %% [markdown]
# ## One noise under two captions
#
# With `same_noise=2`, each pair of samples shares its noise, and only the caption differs. The noise chooses the place
# where it resembles the object, so two objects that look alike often have the same place. Red and cyan are opposites
# around grey, so noise that is like one of them is unlike the other. By chance, 1 in 9 pairs has the same place.

# %% mystnb={"image": {"alt": "Pairs of pictures from the same noise under two captions"}}
figure, panels = plt.subplots(1, 3, figsize=(9, 2.6), layout="constrained")
OTHERS = {"a red square": (0.7, 0.9), "a yellow circle": (0.15, 0.35), "a cyan circle": (0, 0.02)}
for panel, (other, (low, high)) in zip(panels, OTHERS.items(), strict=True):
    pair = ("a red circle", other)
    x = model.sample(jax.random.key(2), 400, text=pair * 200, same_noise=2, **SAMPLER)
    same = np.mean([a.place == b.place for a, b in zip(seen(x[::2]), seen(x[1::2]), strict=True)])
    print(f"a red circle and {other}: {same:.0%} of the pairs have the same place")
    assert low <= same <= high
    show(panel, x[:8], pair * 4, 4, f"same place: {same:.0%}")

# %% [markdown]
# ## Guidance
#
# A guidance scale of 0 ignores the caption. At scale 1 the model is right, so a larger scale has nothing to repair, and
# only makes samples less varied. "A red object" leaves the shape open, with an entropy of $\log_2 5 = 2.32$ bits.

# %% mystnb={"image": {"alt": "Shares of shapes at guidance scales 0, 1 and 3"}}
figure, panel = plt.subplots(figsize=(6, 2.4), layout="constrained")
for i, (scale, expected) in enumerate({0.0: 2.32, 1.0: 2.32, 3.0: 1.87}.items()):
    x = model.sample(jax.random.key(3), 600, text="a red object", scale=scale, **SAMPLER)
    p, red = np.array([share(x, f"a {shape}") for shape in VALUES["shape"]]), share(x, "a red object")
    bits = -np.sum(p * np.log2(p))
    print(f"scale {scale:.0f}: {red:.1%} are red; the entropy of the shape is {bits:.2f} bits")
    assert abs(red - (1 if scale else 1 / 8)) < 0.06 and abs(bits - expected) < 0.1
    panel.bar(np.arange(5) + 0.27 * i, p, 0.25, label=f"scale {scale:.0f}")
panel.set(xticks=np.arange(5) + 0.27, xticklabels=VALUES["shape"], xlabel="shape", ylabel="share")
_ = panel.legend(frameon=False)

# %% [markdown]
# ## A negative caption
#
# With `negative="a red circle"`, guidance moves away from this caption instead of the null caption. Without it, 1 in 8
# circles is red. Late in the sampling, the model under the negative caption still predicts a red circle, and twice a
# circle minus a red one has a cyan ghost. Therefore use a negative caption at large noise levels only.

# %% mystnb={"image": {"alt": "Circles away from red, with guidance at all times and at early times only"}}
figure, panels = plt.subplots(1, 2, figsize=(9, 1.9), layout="constrained")
away = dict(text="a circle", negative="a red circle", scale=2.0)
for panel, interval, expected in zip(panels, ((0.0, 1.0), (0.3, 1.0)), (0.22, 1.0), strict=True):
    x = model.sample(jax.random.key(4), 200, interval=interval, **away, **SAMPLER)
    red, whole = share(x, "a red object"), share(x, "a circle")
    print(f"guidance at times {interval}: {red:.1%} are red; {whole:.0%} are one circle")
    assert red < 0.05 and abs(whole - expected) < 0.12
    show(panel, x[:5], ["a circle, not red"] * 5, 5, f"guidance at times {interval}: {whole:.0%} one circle")

# %% [markdown]
# ## From one caption to another
#
# `towards` mixes the predictions under two captions, over a row of samples with one noise. If pictures agree with both
# captions, the middle of the row prefers these. If no picture does, the middle is two pictures at once.

# %% mystnb={"image": {"alt": "Two rows of pictures, each from one caption to another"}}
figure, panels = plt.subplots(2, 1, figsize=(9, 4.2), layout="constrained")
ROWS = {"a small object": "a red object", "a red object at the top": "a blue object at the bottom"}
for panel, (first, last) in zip(panels, ROWS.items(), strict=True):
    x = model.sample(jax.random.key(5), 250, text=first, towards=last, same_noise=5, **SAMPLER)
    both, single = [share(x[i::5], first, last) for i in range(5)], share(x[2::5])
    print(f"{first} → {last}: {np.round(both, 2)} agree with both; {single:.0%} of the middle are one object")
    assert both[2] > both[0] + 0.3 if both[0] else single == max(both) == 0
    show(panel, x[:10], [first, "25 %", "50 %", "75 %", last] * 2, 10, f"{first} → {last}")

# %% [markdown]
# ## Which caption, and how much it says
#
# By Bayes' rule, the likelihoods of a picture under several captions say which one is right (`model.classify`). If $m$
# of the 720 scenes agree with a caption, it makes each of them $720/m$ times as probable, so its log-likelihood rises
# by $\ln(720/m)$ nats. We average the likelihood bound, which is tight for an exact model, over 32 passes.

# %%
tested = np.random.default_rng(0).choice(720, 16, replace=False)
classify = functools.partial(model.classify, jax.random.key(6), PICTURES[tested], method="bound")
for attribute, form in (("shape", "a {}"), ("colour", "a {} thing"), ("size", "a {} thing")):
    text = tuple(form.format(value) for value in VALUES[attribute])
    hits = np.mean([agrees(text[j], OBJECTS[i]) for i, j in zip(tested, classify(text=text).choice, strict=True)])
    print(f"{attribute}: {hits:.0%} right among {len(text)} captions")
    assert hits == 1
FORMS = ("a thing", "a {0}", "a {1} {0}", "a {2} {1} {0}")  # m = 720, 144, 18, 9
log_p = classify(text=tuple(tuple(form.format(*OBJECTS[i]) for form in FORMS) for i in tested), repeats=32)[0]
rise, exact = log_p - log_p[:, :1], np.log([1, 5, 40, 80])
mean, errors = rise.mean(0), rise.std(0) / np.sqrt(len(rise))
print("rise in nats:", mean.round(2), "±", errors.round(2), "exactly", exact.round(2))
assert np.all(abs(mean - exact) <= 4 * errors) and errors.max() < 0.25

# %% [markdown]
# ## A caption and known pixels
#
# The left half is known to be empty, up to a little noise. A red star must then be on the right, at one of 3 places.

# %% mystnb={"image": {"alt": "Red stars in the right half of pictures whose left half is known to be grey"}}
mask = Inpaint(np.tile(np.arange(16) < 8, (16, 1)))
y = mask.forward(jnp.full((120, 16, 16, 3), 128 / 255))
x = model.posterior(jax.random.key(7), mask, y, 0.01, text="a red star", inverse="tmpd", **SAMPLER)
shares = np.array([share(x, f"a red star {place}") for place in ("top right", "right", "bottom right")])
print(f"red stars on the right: {shares.sum():.1%}; by place: {shares.round(2)}, expected a third each")
assert shares.sum() > 0.98 and max(abs(shares - 1 / 3)) < 0.17  # four standard errors
_ = show(plt.subplots(figsize=(9, 1.6), layout="constrained")[1], x[:8], ["a red star"] * 8, 8, "left half known")

# %% [markdown]
# ## What a trained network does differently
#
# It has to learn what words mean, and to guess about words that it has not seen together. At scale 1, some pictures are
# wrong. [An experiment](../../experiments/text/README.md) measures this, and what a larger scale repairs. [The
# guide](../guides/text_to_image.md) explains how to train and use such a network.
#
# ## What to try
#
# - Ask for "a red object" at scale 8. Which shapes are left?
# - Go from "a red circle" to "a yellow circle" with `towards`. What is in the middle?
# - Repeat the last cell with `inverse="projection"`. How many stars are still on the right?
