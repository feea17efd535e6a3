"""The comparison of diffusion models and transformers: equal sizes, figures in closed form, verdicts, a short run."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from score_sde.experiments.transformers import config, measure, models, report
from score_sde.experiments.transformers import run as experiment
from score_sde.experiments.transformers.__main__ import program
from score_sde.experiments.transformers.size import fitted

from score_sde.errors import UsageError

RNG = np.random.default_rng(0)
DRAWS = {"num_samples": 8, "num_filled": 4}


# Sizes.


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    """The runs on the digits with two seeds."""
    folder = tmp_path_factory.mktemp("runs")
    return experiment._planned(folder, "digits", config.MODELS, 2, DRAWS, {"training.n_iters": 7})


def assert_as_many(planned):
    counts = {name: config.parameters(of_model[0].config) for name, of_model in planned.items()}
    assert all(abs(count / counts["unet"] - 1) < 0.03 for count in counts.values())


def test_the_transformers_have_as_many_parameters_as_the_unet(planned):
    assert config.parameters(planned["unet"][0].config) == 188_769
    assert_as_many(planned)


def test_so_they_have_on_other_images(tmp_path):
    assert_as_many(experiment._planned(tmp_path, "cifar10", config.MODELS, 1, DRAWS, {}))


def test_a_size_that_cannot_be_reached_is_refused():
    with pytest.raises(UsageError, match="No transformer with 4 heads has about 10 parameters; change"):
        fitted(lambda depth, width: depth * 12 * width**2, 10, 48, range(1, 9), 4)


def test_all_trainings_share_data_batches_updates_and_average(planned):
    configs = [run.config for of_model in planned.values() for run in of_model]
    shared = {(c.data.dataset, c.training.batch_size, c.training.n_iters, c.optim.ema_rate) for c in configs}
    assert shared == {("digits", 128, 7, 0.995)}
    assert [c.seed for c in configs] == [0, 1] * 4
    objectives = {(c.sde.name, c.training.reduce_mean, c.training.likelihood_weighting) for c in configs[:6]}
    assert objectives == {("vpsde", True, False)}
    assert len({run.workdir for of_model in planned.values() for run in of_model}) == 8


def test_another_number_of_samples_is_another_evaluation_of_the_same_training(tmp_path):
    few, many = (
        experiment._planned(tmp_path, "digits", ["unet"], 1, DRAWS | {"num_samples": n}, {})["unet"][0] for n in (8, 9)
    )
    assert few.workdir == many.workdir and few.jobs[0].key == many.jobs[0].key
    assert few.jobs[1].folder != many.jobs[1].folder


# Figures.


def test_classes_that_never_occur_are_as_far_as_can_be():
    assert measure.class_distance(np.array([0, 0]), np.array([1, 2])) == 1
    assert measure.class_distance(np.array([2, 1]), np.array([1, 2, 1, 2])) == 0


def test_copies_are_at_0_and_new_images_at_1():
    train, test, new = (RNG.integers(0, 256, (n, 4, 4, 1), np.uint8) for n in (1000, 250, 400))
    assert measure.nearness(train[:50], train[:250], test) == 0
    assert measure.nearness(new, train, test) == pytest.approx(1, abs=0.01)


def test_the_nearest_image_is_found_with_its_distance():
    among = RNG.integers(0, 256, (30, 4, 4, 1), np.uint8)
    x = among[[7, 3]] // 2
    index, distance = measure.nearest(x, among)
    each = np.sqrt(((x[:, None] / 255 - among / 255) ** 2).mean(axis=(2, 3, 4)))
    np.testing.assert_array_equal(index, each.argmin(axis=1))
    np.testing.assert_allclose(distance, each.min(axis=1), rtol=1e-12)


def test_independent_pixels_have_the_bits_of_their_histograms():
    train = np.array([0, 0, 0, 255], np.uint8).reshape(4, 1, 1, 1)
    p = (3 + 1 / 256) / 5
    assert measure.independent_bits(train, train[:1]) == pytest.approx(-np.log2(p))
    assert measure.independent_bits(train, train[:1] + 7) == pytest.approx(np.log2(5 * 256))  # a byte that never came


# Filling in.


class Echo:
    """Completes images by the pixel before the first that it is asked for, plus one."""

    def complete(self, keys, pixels, count):
        flat = pixels.reshape(len(pixels), -1).copy()
        flat[:, count:] = flat[:, count - 1 : count] + 1 if count else 9
        return flat.reshape(pixels.shape)


def test_a_hidden_pixel_depends_on_known_ones_before_it_alone():
    pixels = np.arange(0, 160, 10, np.uint8).reshape(1, 4, 4, 1)
    mask = np.ones((4, 4), bool)
    mask[0, 0] = mask[1, 1] = mask[1, 2] = mask[3, 3] = False
    filled = models.Autoregressive.filled(SimpleNamespace(model=Echo()), None, pixels, mask)
    np.testing.assert_array_equal(filled[..., 0][0][mask], pixels[..., 0][0][mask])
    assert filled.ravel()[[0, 5, 6, 15]].tolist() == [9, 41, 41, 141]


@pytest.mark.parametrize("mask", models.MASKS)
def test_masks_hide_half_of_an_image(mask):
    known = models.MASKS[mask](8, 8)
    assert known.shape == (8, 8) and known.sum() == 32
    is_prefix = known.ravel()[:32].all()
    assert is_prefix == (mask == "lower half")


# Verdicts.


def of_two(figure, first, second):
    """A result with one figure of U-Net and U-ViT."""
    rows = {"unet": first, "uvit": second}
    return {"figures": {figure: rows}} | {
        key: {figure: value} for key, value in measure.compare(figure, rows, len(first), {}).items()
    }


@pytest.mark.parametrize(
    ("figure", "verdict"),
    [("distance", "worse"), ("recognised", "better"), ("classes", "worse"), ("copies", "more")],
)
def test_more_is_better_or_worse_by_the_figure(figure, verdict):
    result = of_two(figure, [1.0, 1.1, 0.9], [9.0, 9.2, 9.1])
    assert report.verdict(result, figure, "uvit", "unet") == verdict
    assert f"U-ViT against U-Net: {verdict} in {report.FIGURES[figure].words}." in report.findings(result)


def test_what_is_within_the_error_is_not_told_apart():
    result = of_two("distance", [1.0, 1.2, 0.9], [1.1, 1.0, 1.05])
    assert report.findings(result) == ["U-ViT against U-Net: no difference shown in distance."]
    assert report.findings(of_two("distance", [1.0], [2.0])) == []


def test_bits_are_compared_with_their_error_over_images():
    images = {name: [RNG.normal(mean, 0.1, 200) for _ in range(3)] for name, mean in (("unet", 4.0), ("uvit", 3.0))}
    rows = {name: [float(each.mean()) for each in of] for name, of in images.items()}
    (pair,) = measure.compare("bits", rows, 3, images)["comparisons"]
    over_images = (np.subtract(*images.values()).mean(axis=0)).std(ddof=1) / np.sqrt(200)
    assert pair["error"] > over_images and pair["holm"] < 0.05


# The real programs, on the digits.

TINY = ["training.n_iters=2", "training.batch_size=8", "eval.batch_size=16", "eval.max_images=8", "metrics.n_iters=2"]
TINY = [f"--config.{value}" for value in (*TINY, "eval.rtol=1e-1", "eval.atol=1e-1")]


def test_a_short_run_compares_two_kinds_of_model_and_is_not_repeated(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(measure, "JUDGE", measure.JUDGE._replace(n_iters=2))
    numbers = ["--models=dit,autoregressive", "--seeds=1", "--num_samples=12", "--num_filled=2"]
    command = ["transformers", f"--folder={tmp_path}", *numbers, *TINY]
    assert program(command) == 0
    result = json.loads((tmp_path / experiment.RESULTS).read_text())
    assert set(result["figures"]["bits"]) == {"dit", "autoregressive"}
    assert set(result["figures"]) == set(report.FIGURES)
    assert result["evaluations"] == {"dit": [5, 10, 20, 35], "autoregressive": [64]}
    assert result["nfe_of_bits"]["autoregressive"] == 1 < result["nfe_of_bits"]["dit"]
    costs = result["costs"].values()
    assert all(of["flops_update"] > 2 * of["flops_forward"] > 1e6 for of in costs)
    assert len({round(of["parameters"], -4) for of in costs}) == 1 and result["levels"] == 17
    page = (tmp_path / "report.html").read_text()
    for part in (
        "Real test images",
        "How a picture comes about",
        "Has it copied?",
        "What it costs",
        "independent pixels",
    ):
        assert part in page
    capsys.readouterr()
    assert program(command) == 0
    again = capsys.readouterr().out
    assert "4 jobs, 4 finished before" in again
    assert json.loads((tmp_path / experiment.RESULTS).read_text()) == result


def test_without_runs_there_is_nothing_to_report(tmp_path):
    with pytest.raises(UsageError, match="No model is trained and evaluated"):
        program(["transformers", "--report", "--models=unet", "--seeds=1", f"--folder={tmp_path}"])
    with pytest.raises(UsageError, match="did you mean 'uvit'"):
        program(["transformers", "--report", "--models=u_vit", f"--folder={tmp_path}"])
