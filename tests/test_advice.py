"""What a message says to do is done word for word, and then it works."""

import json
import re

import numpy as np
import pytest
from PIL import Image
from score_sde.configs.ve.digits_ncsnpp_continuous import get_config as ve
from score_sde.configs.vp.digits_ddpmpp_continuous import get_config as vp

from score_sde import data
from score_sde.cli.command_line import name_or_set
from score_sde.config.rules import check
from score_sde.errors import UsageError
from score_sde.training.recipe import check_overrides, objective_of

RNG = np.random.default_rng(0)


def saved(path, mode="RGB", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    channels = {"L": (), "I;16": (), "RGB": (3,), "RGBA": (4,)}[mode]
    kind = np.uint16 if mode == "I;16" else np.uint8
    Image.fromarray(RNG.integers(0, 250, (9, 9, *channels)).astype(kind)).save(path, **options)


def alternatives(message: str) -> list[dict[str, str]]:
    """Each way out, as values of config.data."""
    ways = [{key: value} for key, value in re.findall(r"config\.data\.(\w+)=([^\s,;]+?)(?=[\s,;]|\.?$)", message)]
    return ways + [{"labels": "none"}] * message.endswith("or none.")


def read(value: str):
    return {"True": True}.get(value, int(value) if value.isdecimal() else value)


def pictures(tmp_path, mode, **options):
    for i in range(4):
        saved(tmp_path / f"{i}.png", mode, **options)


def damaged(tmp_path):
    pictures(tmp_path, "RGB")
    (tmp_path / "2.png").write_bytes(b"no picture")


def animated(tmp_path):
    pictures(tmp_path, "RGB")
    frames = [Image.fromarray(RNG.integers(0, 250, (9, 9)).astype(np.uint8)) for _ in range(2)]
    frames[0].save(tmp_path / "4.gif", save_all=True, append_images=frames[1:])


def files(*paths, **texts):
    def make(tmp_path):
        for path in paths:
            saved(tmp_path / path)
        for name, text in texts.items():
            (tmp_path / name.replace("_", ".")).write_text(text)

    return make


@pytest.mark.parametrize(
    ("make", "options", "ways"),
    [
        (lambda path: pictures(path, "I;16"), {"num_channels": 1}, ["convert"]),
        (lambda path: pictures(path, "I;16"), {"num_channels": 3}, ["convert"]),
        (lambda path: pictures(path, "L"), {"num_channels": 3}, ["convert", "num_channels"]),
        (lambda path: pictures(path, "RGB"), {"num_channels": 1}, ["convert", "num_channels"]),
        (lambda path: pictures(path, "RGBA"), {"num_channels": 1}, ["convert"]),
        (lambda path: pictures(path, "RGBA"), {"num_channels": 3}, ["convert"]),
        (damaged, {}, ["corrupt"]),
        (animated, {"convert": True}, ["corrupt"]),
        (files("a.png"), {"held_out": 0.5}, ["held_out"]),
        (files("cat/0.png", "dog/1.png", "stray.png"), {}, ["labels"]),
        (files("cat/0.png", "dog/1.png", "dog/more/2.png"), {}, ["labels", "labels"]),
        (files("train/0.png", "cat/1.png"), {}, ["path", "labels"]),
        (files("valid/0.png"), {}, ["path", "labels"]),
        (files("photos/train/0.png", "photos/val/1.png"), {}, ["path"]),
        (files("a/0.png", "b/1.png", dataset_json="{"), {}, ["labels", "labels"]),
        (files("a/0.png", "b/1.png", metadata_csv="file_name,label\na/0.png,\n"), {}, ["labels", "labels"]),
        (files("a/0.png", "b/1.png", dataset_json=json.dumps({"labels": [["a/0.png", 1]]})), {}, ["labels", "labels"]),
    ],
)
@pytest.mark.parametrize("in_memory_gib", [8, 0])
def test_advice_on_a_folder_works_when_it_is_followed(make, options, ways, in_memory_gib, tmp_path):
    make(tmp_path)
    options = dict(image_size=8, num_channels=3, held_out=0, path=str(tmp_path), in_memory_gib=in_memory_gib) | options
    with pytest.raises(UsageError) as error:
        data.load("folder", train=True, **options)
    advised = alternatives(str(error.value))
    assert [key for way in advised for key in way] == ways
    for way in advised:
        values = {key: read(value) for key, value in way.items()}
        assert len(data.load("folder", train=True, **options | values))


def test_an_array_of_other_colours_is_told_what_works(tmp_path):
    for channels, other in ((1, 3), (3, 1)):
        np.save(tmp_path / f"{channels}.npy", RNG.integers(0, 256, (6, 8, 8, channels)).astype(np.uint8))
        options = dict(image_size=8, num_channels=other, path=str(tmp_path / f"{channels}.npy"), held_out=0)
        with pytest.raises(UsageError) as error:
            data.load("array", train=True, **options)
        ways = alternatives(str(error.value))
        assert ways == [{"convert": "True"}, {"num_channels": str(channels)}]
        for way in ways:
            assert (
                len(data.load("array", train=True, **options | {key: read(value) for key, value in way.items()})) == 6
            )


def refusal(config, overrides) -> str:
    """The message on a config with these values on the command line; "" if it is an objective."""
    for key, value in overrides.items():
        name_or_set(config, key, value)
    try:
        check_overrides(config, overrides)
        check(config)
        objective_of(config)
    except UsageError as error:
        return str(error)
    return ""


OF_A_CHAIN = {"times.name": "chain"}, {"training.continuous": False}
OWN = {"process.name": "own_pieces:Power", "parameterization.name": "noise"}


@pytest.mark.parametrize("chain", OF_A_CHAIN, ids=["times", "training"])
@pytest.mark.parametrize(
    ("get_config", "values", "words"),
    [
        (vp, OWN, "Power has no chain"),
        (vp, {"process.name": "cosine", "parameterization.name": "v"}, "Cosine has no chain"),
        (vp, {"process.name": "subvp"}, "Sub-VP has no discrete noise levels"),
        (vp, {"weight.name": "velocity"}, "no velocity and no g"),
        (
            ve,
            {"parameterization.name": "noise", "model.embedding_type": "positional", "process.name": "linear"},
            "Linear",
        ),
    ],
)
def test_advice_on_a_chain_works_whichever_key_asked_for_it(chain, get_config, values, words):
    message = refusal(get_config(), values | chain)
    assert words in message and message.endswith("leave times.name=chain out, and set training.continuous=True.")
    kept = {key: value for key, value in (values | chain).items() if key != "times.name"}
    assert refusal(get_config(), kept | {"training.continuous": True}) == ""


@pytest.mark.parametrize(
    ("values", "steps"),
    [
        ({}, ["training.continuous=False", "parameterization.name=noise and parameterization.noise_cond=level_index"]),
        (
            {"times.name": "uniform"},
            ["times.name=chain", "parameterization.name=noise and parameterization.noise_cond=level_index"],
        ),
        ({"process.name": "ve"}, ["training.continuous=False"]),
        ({"process.name": "ve", "times.name": "lognormal"}, ["times.name=chain"]),
        ({"process.name": "ve", "parameterization.name": "score"}, ["training.continuous=False", "level_index"]),
    ],
)
def test_advice_on_ncsn_leads_to_an_objective(values, steps):
    values = {"model.name": "ncsn"} | values
    for step in steps:
        message = refusal(vp(), values)
        assert step in message
        values |= {
            key: {"False": False}.get(value, value) for key, value in re.findall(r"([a-z]+\.\w+)=(\w+)", message)
        }
    assert refusal(vp(), values) == ""


def test_ncsn_is_told_of_a_process_without_a_chain_instead_of_two_settings_in_turn():
    for chain in OF_A_CHAIN:
        message = refusal(vp(), {"model.name": "ncsn"} | OWN | chain)
        assert message.startswith("NCSN has an embedding for each level of a chain, and Power has none")
    assert refusal(vp(), {"model.name": "ncsn", "process.name": "ve", "times.name": "chain"}) == ""


def discrete():
    config = vp()
    config.training.update(continuous=False, likelihood_weighting=False)
    return config


def test_a_section_takes_the_place_of_what_the_configs_file_says():
    """Before, neither the section alone was taken nor the section with the key of the paper's that it replaces."""
    assert refusal(discrete(), {"times.name": "lognormal"}) == ""
    weighted = vp()
    weighted.training.likelihood_weighting = True
    assert refusal(weighted, {"weight.name": "noise"}) == ""
    assert "has no effect, because times.name=uniform replaces it" in refusal(
        discrete(), {"times.name": "uniform", "training.continuous": False}
    )


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"process.name": "vp", "process.num_scales": 1}, "process.num_scales=1"),
        ({"sde.num_scales": 1}, "sde.num_scales=1"),
        (
            {"process.name": "learned", "process.noise_min": 2.0, "process.noise_max": 1.0},
            "noise_min=2.0 and noise_max=1",
        ),
        ({"process.name": "ve", "process.sigma_min": 0.0}, "process.sigma_min=0.0"),
    ],
)
def test_an_error_of_a_process_names_its_argument_in_its_own_section(values, words):
    message = refusal(vp(), values)
    assert words in message and ("sde." in message) == ("sde.num_scales" in values)
