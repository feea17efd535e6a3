"""Trains as a new user would, and looks at what every sampler makes of the averaged and of the raw weights."""

import itertools
import json
from pathlib import Path

import jax
import numpy as np
from score_sde.experiments.first_run.config import get_config

import score_sde
from score_sde import images, metrics
from score_sde.io import atomic_files
from score_sde.training.run import load_data, train

SAMPLERS = {
    "dpmpp_2m": dict(num_steps=20),
    "unipc_3": dict(num_steps=20),
    "ddim": dict(num_steps=40),
    "ddim, eta=1": dict(num_steps=40, eta=1.0),
    "dpmpp_2m_sde": dict(num_steps=40),
}
CLIPS = ("none", "range", "dynamic")
NUMBER, COLUMNS = 64, 16


def run(workdir: Path, data_dir: str, sde: str = "vp") -> None:
    """Trains in the workdir, unless that is done; writes samples.png and figures.json there, and prints a table."""
    config = get_config(sde)
    config.data.data_dir = data_dir
    train(config, workdir, {"data.data_dir": data_dir})
    truth = load_data(config, train=False).take(np.arange(NUMBER)).images
    shares = {"data": float(metrics.at_the_ends(truth).mean())}
    sheet = [truth[:COLUMNS]]
    for ema in (True, False):
        model, weights = score_sde.load(workdir, ema=ema), "averaged" if ema else "raw"
        for (name, options), clip in itertools.product(SAMPLERS.items(), CLIPS):
            x = model.sample(jax.random.key(0), NUMBER, name.partition(",")[0], clip=clip, **options)
            pixels = images.to_pixels(x)
            shares[f"{name}, {weights}, clip={clip}"] = float(metrics.at_the_ends(pixels).mean())
            sheet += [pixels[:COLUMNS]] if ema and clip != "dynamic" else []
    for name, share in shares.items():
        print(f"{name:40} {share:.3f} of the numbers are 0 or 255")
    picture = images.grid(np.concatenate(sheet), COLUMNS)
    atomic_files.replace(workdir / "samples.png", lambda file: images.write_png(file, picture, 3))
    atomic_files.replace(workdir / "figures.json", lambda file: file.write(json.dumps(shares, indent=2).encode()))
    print(f"{workdir / 'samples.png'}: a row of data, then for each sampler one without clipping and one with")
