"""Pictures of README and site: small files, made by a command that its page names, and shown somewhere."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from types import SimpleNamespace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from score_sde.experiments.gallery import drawing, memoriser, plots, run, samples
from score_sde.experiments.gallery.card import Card, Row, png
from score_sde.experiments.gallery.paths import times_of, way

from score_sde import images
from score_sde.cond import Entry
from score_sde.errors import UsageError
from score_sde.inference.pretrained import Pretrained
from score_sde.objective import Objective
from score_sde.oracles import Gaussian
from score_sde.parameterization import Noise
from score_sde.randomness import batch_keys
from score_sde.sampling import fast_solver, solve
from score_sde.sde import VP
from score_sde.times import Uniform
from score_sde.weights import NoiseWeight

ROOT = Path(__file__).parent.parent
IMAGES = ROOT / "docs" / "images"
FILES = sorted(path.name for path in IMAGES.iterdir())
GALLERY = (ROOT / "experiments" / "gallery" / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", FILES)
def test_a_picture_is_small_and_its_command_is_on_the_gallerys_page(name):
    assert (IMAGES / name).stat().st_size <= run.LARGEST
    assert f"`{name}`" in GALLERY


def test_the_pictures_are_those_of_the_command():
    made = {f"{name}.{suffix}" for name, (suffix, _) in run.PICTURES.items()}
    assert set(FILES) <= made


@pytest.mark.parametrize("name", FILES)
def test_a_picture_is_shown_on_a_page(name):
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "experiments").rglob("README.md")]
    assert any(f"images/{name})" in page.read_text(encoding="utf-8") for page in pages)


def test_the_drawing_is_what_its_function_writes_and_its_boxes_hold_their_text():
    text = drawing.architecture()
    assert (IMAGES / "architecture.svg").read_text(encoding="utf-8") == text
    ElementTree.fromstring(text)
    for box in drawing.BOXES.values():
        assert max([9.5 * len(box.title), *(7.4 * len(line) for line in box.lines)]) <= box.width
        assert box.x > 0 and box.x + box.width < drawing.WIDTH and box.y + box.height < drawing.HEIGHT


def test_a_card_enlarges_every_pixel_without_smoothing():
    image = np.arange(4, dtype=np.uint8).reshape(2, 2, 1) * 80
    picture = np.asarray(Card([Row([image])], {}, magnify=5).picture())
    rows, columns = np.nonzero((picture == 240).all(axis=-1))
    assert len(rows) == 25 and np.ptp(rows) == np.ptp(columns) == 4


def test_a_larger_file_is_refused(tmp_path):
    with pytest.raises(UsageError, match="show less"):
        run.write(tmp_path / "a.png", bytes(run.LARGEST + 1))
    assert not list(tmp_path.iterdir())


def test_an_unknown_picture_is_answered_before_any_is_made(tmp_path, capsys):
    assert run.make(run.Runs(*[tmp_path] * 4), tmp_path / "out", ["architecture", "sample"]) == 2
    assert "samples" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_missing_screenshot_is_answered_with_where_its_command_stands(tmp_path, capsys):
    assert run.make(run.Runs(*[tmp_path] * 4), tmp_path, ["report"]) == 2
    assert "experiments/gallery/README.md" in capsys.readouterr().err


def test_the_ways_states_are_those_at_the_times_of_the_grid():
    data, process = Gaussian(np.zeros((1, 1, 1)), 0.25), VP()
    solver = fast_solver(process, data.model(process), num_steps=10, grid="uniform", noise_removal=False)
    keys = batch_keys(jax.random.key(0), 3)
    x = process.prior_sample(keys, data.shape)

    options = SimpleNamespace(grid="uniform", num_steps=10, rho=7.0)
    seen = way(lambda _: solver, {}, keys, x, times_of(process, "dpmpp_2m", options), (1.0, 0.5, 0.0))
    np.testing.assert_allclose(seen.t, [1.0, 0.5005, process.sampling_eps])
    np.testing.assert_array_equal(seen.x[0], x)
    np.testing.assert_allclose(seen.x[-1], seen.end)
    np.testing.assert_allclose(seen.end, solve(solver, keys, x)[0], rtol=1e-5)
    exact = data.flow(process, x, jnp.ones(3), jnp.full(3, 0.5005))
    np.testing.assert_allclose(seen.x[1], exact, rtol=0.05)


def test_the_errors_of_the_plot_fall_with_the_samplers_order():
    error, theory = plots.errors("heun", (128, 256)), 2
    assert np.log2(error[0] / error[1]) == pytest.approx(theory, abs=0.25)


def test_the_mixture_is_drawn_of_any_size():
    picture = plots.mixture({"VP": VP()}, (1.0, 0.5), 9)
    assert picture.width == round(8.2 * plots.DPI) and len(png(picture, colours=64)) < run.LARGEST


def test_at_low_noise_a_memoriser_shows_a_training_image_and_a_gaussian_what_it_sees():
    train, held_out = memoriser.digits()
    _, memorised, fitted = memoriser.memoriser(train, held_out, (0.01, 5.0), 1).rows
    np.testing.assert_array_equal(memorised.images[0], train[0])
    away = np.abs(train - held_out.astype(float)).sum(axis=(1, 2, 3))
    np.testing.assert_array_equal(memorised.images[2], train[away.argmin()])
    assert np.abs(fitted.images[2].astype(float) - held_out[0]).max() < 20 < away.min()


class Standard(nn.Module):
    """A network that returns the noise of standard normal data near t = 1, whatever the class."""

    @property
    def cond_entries(self):
        return {"labels": Entry(jnp.int32, below=2)}

    @nn.compact
    def __call__(self, x, noise_cond, cond=None, *, dropout_keys=None):
        return self.param("one", nn.initializers.ones, ()) * x


@pytest.fixture(scope="module")
def model():
    network = Standard()
    params = network.init(jax.random.key(0), jnp.zeros((1, 4, 4, 3)), jnp.ones(1))["params"]
    return Pretrained(Objective(VP(num_scales=30), Noise(), Uniform(), NoiseWeight()), network, params, (4, 4, 3))


def test_all_ways_begin_in_one_noise_and_end_in_the_sample_of_that_number(model):
    ways = (samples.Way("a", "pc", {}), samples.Way("b", "dpmpp_2m", {"num_steps": 2}))
    rows = samples.trajectory(model, 1, ways=ways, magnify=2).rows
    for i, (_, method, options) in enumerate(ways):
        np.testing.assert_array_equal(rows[i].images[0], rows[0].images[0])
        sample = images.to_pixels(model.sample(jax.random.key(samples.SEED), 2, method, **options))[1]
        assert np.abs(rows[i].images[-1].astype(int) - sample).max() <= 1  # rounding of another batch


def test_a_visible_half_comes_back_and_has_no_spread(model):
    real = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3), np.uint8)
    problem = samples.Problem("half", "inpaint=right_half", (1,))
    [row] = samples.posterior(model, real, problems=[problem], each=4, magnify=2).rows
    truth, observed, *drawn, mean, spread = row.images
    np.testing.assert_array_equal(truth, real[1])
    for image in (observed, *drawn, mean):
        np.testing.assert_array_equal(image[:, :2], truth[:, :2])
    assert len(drawn) == samples.SHOWN and spread[:, :2].max() == 0 < spread[:, 2:].min()


def test_classes_have_a_column_each_and_scales_a_row(model):
    sheet = samples.classes(model, scales=(0.0, 1.0), rows=1, columns=3, magnify=1)
    assert [row.label for row in sheet.rows] == ["scale 0", "scale 1"]
    assert [len(row.images) for row in sheet.rows] == [6, 6] and list(sheet.headings) == [0, 3]
    np.testing.assert_array_equal(*(np.stack(row.images) for row in sheet.rows))  # this network sees no class


def test_samples_stand_beside_a_third_as_many_real_images(model):
    real = np.zeros((2, 4, 4, 3), np.uint8)
    rows = samples.samples(model, real, rows=2, columns=4, magnify=1).rows
    assert [len(row.images) for row in rows] == [4, 4] and all((row.images[0] == 0).all() for row in rows)
    drawn = images.to_pixels(model.sample(jax.random.key(samples.SEED), 6, samples.SAMPLER, **samples.OPTIONS))
    np.testing.assert_array_equal(np.stack([image for row in rows for image in row.images[1:]]), drawn)
