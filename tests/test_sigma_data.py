"""sigma_data from the data: its number, its record in a workdir, and mistakes."""

import json

import numpy as np
import pytest

from score_sde import data
from score_sde.cli import runs
from score_sde.cli.main import main
from score_sde.data import InMemory, spread
from score_sde.errors import UsageError
from score_sde.inference import pretrained
from score_sde.io import workdir
from score_sde.training import sigma_data
from score_sde.training.run import load_data, train


def test_the_spread_is_that_of_all_numbers_of_all_pixels():
    pixels = np.random.default_rng(0).integers(0, 256, (2500, 6, 5, 3), np.uint8)
    mean, std, images = spread(InMemory(pixels))
    np.testing.assert_allclose((mean, std), ((pixels / 255).mean(), (pixels / 255).std()), rtol=1e-12)
    assert images == 2500
    part = data.part_of(2500, 100)
    assert spread(InMemory(pixels), 100) == spread(InMemory(pixels[part]))
    with pytest.raises(UsageError, match="have one value"):
        spread(InMemory(np.full((4, 2, 2, 1), 7, np.uint8)))


def of(tiny_config, **overrides):
    config = tiny_config("edm/digits_augmented")
    config.training.update(n_iters=2, snapshot_freq=1)
    config.update_from_flattened_dict(overrides)
    return config


def test_a_run_measures_its_data_once_and_records_the_number(tiny_config, tmp_path, monkeypatch, one_block):
    config = of(tiny_config)
    config.data.augment_p = 0.0
    measured = 2 * spread(load_data(config, train=True)).std
    assert 0.7 < measured < 0.8  # of the digits in [-1, 1]; CIFAR-10's is 0.5
    train(config, tmp_path)
    stored = json.loads((tmp_path / "config.json").read_text())
    assert stored["parameterization"]["sigma_data"] == stored["weight"]["sigma_data"] == measured
    monkeypatch.setattr(data, "spread", None)  # a run that goes on has the number
    again = of(tiny_config, **{"training.n_iters": 3, "data.augment_p": 0.0})
    train(again, tmp_path)
    assert again.parameterization.sigma_data == measured and max(workdir.saved_steps(tmp_path)) == 3
    as_begun = of(tiny_config, **{"data.augment_p": 0.0})  # programs that are told the config that it began with
    assert runs._of_workdir(tmp_path, as_begun, {}).weight.sigma_data == measured
    as_begun = of(tiny_config, **{"data.augment_p": 0.0})
    assert pretrained.load(tmp_path, config=as_begun).config.weight.sigma_data == measured
    other = of(tiny_config, **{"data.augment_p": 0.0, "parameterization.sigma_data": 0.3})
    with pytest.raises(UsageError, match=r"parameterization\.sigma_data=0\.\d+, not 0\.3"):
        runs._of_workdir(tmp_path, other, {})


def test_a_run_that_goes_on_takes_the_recorded_number(tiny_config, tmp_path, monkeypatch):
    config, stored = of(tiny_config), of(tiny_config, **{"parameterization.sigma_data": 0.7, "weight.sigma_data": 0.7})
    workdir.write(tmp_path, "config.json", stored.to_dict())
    sigma_data.inherit(tmp_path, config)
    assert config.weight.sigma_data is None  # without a checkpoint the run has not begun
    monkeypatch.setattr(workdir, "saved_steps", lambda folder: [1])
    sigma_data.inherit(tmp_path, config)
    assert config.weight.sigma_data == config.parameterization.sigma_data == 0.7
    assert not sigma_data.measure(config, InMemory(np.zeros((1, 8, 8, 1), np.uint8)))


def test_numbers_that_are_set_are_not_measured(tiny_config, capsys):
    config = of(tiny_config, **{"parameterization.sigma_data": 0.6})
    source = InMemory(np.random.default_rng(0).integers(0, 256, (9, 8, 8, 1), np.uint8))
    assert sigma_data.measure(config, source) and config.parameterization.sigma_data == 0.6
    assert config.weight.sigma_data == 2 * spread(source).std
    sigma_data.check(config)
    assert "parameterization.sigma_data=0.6 and weight.sigma_data=0.5" in capsys.readouterr().err
    assert not sigma_data.measure(config, source)
    config.weight.update(name="uncertainty", base="min_snr")
    assert sigma_data.keys_of(config) == ("parameterization.sigma_data",)


def test_sigma_data_of_a_recipe_without_it_is_refused(tiny_config):
    config = tiny_config()
    config.data.sigma_images = 10
    with pytest.raises(UsageError, match=r"neither this parameterization nor this weight has it"):
        sigma_data.check(config)


def test_the_data_are_described_with_their_spread(data_dir, capsys):
    command = ["score_sde", "--mode=data", "--config=edm/digits_ddpmpp", f"--config.data.data_dir={data_dir}"]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "standard deviation of the training pixels in [-1, 1]: 0.75" in printed
    assert "--config.data.sigma_images=" in printed
