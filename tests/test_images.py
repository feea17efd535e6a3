import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from score_sde import images
from score_sde.randomness import sample_keys

KEYS = sample_keys(jax.random.key(0), jnp.arange(64))
PIXELS = np.random.default_rng(0).integers(0, 256, (64, 6, 5, 3)).astype(np.uint8)


def test_scalings_invert_themselves():
    x = images.to_unit(jnp.asarray(PIXELS))
    for scaling in (images.CENTERED, images.UNIT):
        np.testing.assert_allclose(scaling.to_unit(scaling.to_model(x)), x, atol=1e-6)
    assert float(images.CENTERED.to_model(x).min()) == -1


def test_dequantization_stays_in_the_cell_of_its_level():
    x = images.dequantize(KEYS, images.to_unit(jnp.asarray(PIXELS)))
    np.testing.assert_array_equal(np.floor(np.asarray(x, np.float64) * 256 + 1e-6).clip(0, 255), PIXELS)
    noise = np.asarray(x) * 256 - PIXELS
    np.testing.assert_allclose([noise.mean(), noise.var()], [1 / 2, 1 / 12], atol=0.02)


def test_flips_mirror_about_half_of_the_images():
    x = images.to_unit(jnp.asarray(PIXELS))
    flipped = images.random_flip(KEYS, x)
    mirrored = [bool(np.array_equal(a, b[:, ::-1])) for a, b in zip(flipped, x, strict=True)]
    kept = [bool(np.array_equal(a, b)) for a, b in zip(flipped, x, strict=True)]
    assert all(m != k for m, k in zip(mirrored, kept, strict=True))
    assert 16 < sum(mirrored) < 48


def test_pixels_are_clipped_and_rounded_down():
    assert images.to_pixels(np.array([-0.1, 0.0, 0.5, 1.0, 1.2])).tolist() == [0, 0, 127, 255, 255]


def test_grids_hold_every_image_once(tmp_path):
    sheet = images.grid(PIXELS[:5], columns=2, padding=1)
    assert sheet.shape == (3 * 7 + 1, 2 * 6 + 1, 3)
    np.testing.assert_array_equal(sheet[8:14, 7:12], PIXELS[3])
    images.write_png(tmp_path / "sheet.png", sheet, magnify=2)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "sheet.png"))[::2, ::2], sheet)
