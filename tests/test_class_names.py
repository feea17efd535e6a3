"""Names of classes in place of their numbers: in conditions of configs, in labels, in pictures."""

import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_sde import images
from score_sde.cli.describe import describe
from score_sde.cond import Entry, numbered, read
from score_sde.conditioning import grammar
from score_sde.errors import UsageError
from score_sde.evaluation.evaluate import sample
from score_sde.inference import class_choice
from score_sde.inference.pretrained import Pretrained
from score_sde.io import workdir
from score_sde.objective import Objective
from score_sde.parameterization import Noise
from score_sde.sde import VP
from score_sde.times import Uniform
from score_sde.weights import NoiseWeight

NAMES = ("cat", "fire truck", "ship")


@pytest.mark.parametrize(
    ("condition", "number", "words"),
    [
        ("class=ship", "class=2", "class=ship"),
        ("class=2", "class=2", "class=ship"),
        ("class=#1", "class=1", "class=fire truck"),
        ("class=fire truck;inpaint=right_half", "class=1;inpaint=right_half", "class=fire truck;inpaint=right_half"),
        ("colorize; class=cat", "colorize;class=0", "colorize;class=cat"),
        ("class=all", "class=all", "class=all"),
        ("superresolve=4", "superresolve=4", "superresolve=4"),
        ("", "", ""),
    ],
)
def test_a_condition_is_brought_to_numbers_and_back_to_names(condition, number, words):
    assert grammar.numbered(condition, NAMES) == number
    assert grammar.worded(number, NAMES) == words


@pytest.mark.parametrize(
    ("condition", "names", "said"),
    [
        ("class=shp", NAMES, r"Unknown class 'shp' \(did you mean 'ship'\?\); choose from: cat, fire truck, ship; or"),
        ("class=ship", (), "No names of classes are kept with this model, so 'ship' has no number; ask by numbers"),
        ("class=", NAMES, "must name a class: class=3, class=ship, or class=all"),
        ("class=1", ("1", "10", "2"), "name of class number 0 and the number of another; write class=#0"),
        ("class=x", tuple(map(str, range(1000))), r"28, 29, \.\.\. \(1,000 classes\); or ask by number"),
    ],
)
def test_a_class_that_there_is_not_is_said_with_the_nearest(condition, names, said):
    with pytest.raises(UsageError, match=said):
        grammar.chosen_class(condition, names)


def test_digits_that_name_the_class_of_their_number_are_taken_as_before():
    digits = tuple("0123456789")
    assert [grammar.chosen_class(f"class={digit}", digits) for digit in digits] == list(range(10))


def test_labels_are_names_or_numbers_alone_or_in_lists():
    for labels in (["ship", "cat"], ("ship", 0), np.array(["ship", "cat"]), [np.int64(2), "cat"]):
        np.testing.assert_array_equal(numbered(labels, NAMES), [2, 0])
    assert numbered("ship", NAMES) == 2
    array = jnp.array([1])
    assert numbered(array, NAMES) is array and numbered(None, NAMES) is None
    with pytest.raises(UsageError, match="did you mean 'cat'"):
        numbered(["ship", "act"], NAMES)


class Labelled(nn.Module):
    """A network whose prediction depends on nothing but the class."""

    @property
    def cond_entries(self):
        return {"labels": Entry(jnp.int32, below=3)}

    @nn.compact
    def __call__(self, x, noise_cond, cond=None, *, dropout_keys=None):
        labels, null = read(cond, self.cond_entries, "labels", len(x))
        scale = self.param("scale", lambda _: jnp.array([0.1, 0.2, 0.3]))
        return jnp.broadcast_to(jnp.where(null, 0.0, scale[labels])[:, None, None, None], x.shape)


def test_a_model_takes_names_where_it_takes_labels():
    network, x = Labelled(), jnp.zeros((2, 4, 4, 1))
    params = network.init(jax.random.key(0), x, jnp.ones(2))["params"]
    objective = Objective(VP(), Noise(), Uniform(), NoiseWeight())
    model = Pretrained(objective, network, params, image_shape=(4, 4, 1), class_names=NAMES)
    np.testing.assert_allclose(model.predict(x, 0.5, labels=["ship", "cat"]).eps[:, 0, 0, 0], [0.3, 0.1], rtol=1e-6)
    of_all, key = model.predict(x, 0.5, labels=[2, 2]).eps, jax.random.key(1)
    np.testing.assert_array_equal(model.predict(x, 0.5, labels=["ship", "ship"]).eps, of_all)
    drawn = [model.sample(key, 2, "ddim", num_steps=2, labels=labels) for labels in ("ship", 2, ["ship", 2])]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    np.testing.assert_array_equal(drawn[0], drawn[2])
    with pytest.raises(UsageError, match="Unknown class 'shp'"):
        model.sample(key, 2, "ddim", num_steps=2, labels="shp")


@pytest.fixture
def config(tiny_config):
    config = tiny_config()
    config.model.update(num_classes=3, attn_resolutions=())
    config.sampling.update(method="ddim", num_steps=2, num_samples=6, clip="range", condition="class=ship")
    return config


@pytest.mark.usefixtures("one_block")
def test_samples_by_name_are_those_by_number_and_are_shown_by_name(config, tmp_path, capsys):
    from test_conditional import saved

    saved(config, tmp_path)
    with pytest.raises(UsageError, match="No names of classes are kept"):
        sample(config, tmp_path)
    workdir.write(tmp_path, "launch.json", {"class_names": NAMES})
    sample(config, tmp_path)
    assert "6 samples given class=ship, " in capsys.readouterr().out
    config.sampling.condition = "class=2"
    sample(config, tmp_path)
    assert len(json.loads((tmp_path / "samples/index.json").read_text())) == 1
    config.sampling.condition = "class=all"
    assert class_choice.names_in_turn(config, tmp_path) == NAMES


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"sampling.condition": "nonsense"}, r"Unknown sampling.condition 'nonsense' \(did you mean 'sense'\?\)"),
        ({"sampling.condition": "class=99"}, r"There are labels 0 to 2, not \[99\]"),
        ({"sampling.condition": "class=shp"}, "did you mean 'ship'"),
        ({"guidance.scale": -3.0}, "guidance.scale=-3.0 must not be negative"),
    ],
)
def test_describe_refuses_what_cannot_be_sampled_before_it_prints(config, values, said, tmp_path, capsys):
    workdir.write(tmp_path, "launch.json", {"class_names": NAMES})
    config.update_from_flattened_dict(values)
    with pytest.raises(UsageError, match=said):
        describe(config, directory=tmp_path)
    assert capsys.readouterr().out == ""


@pytest.mark.usefixtures("one_block")
def test_a_config_is_described_with_any_name_where_none_are_kept(config, capsys):
    describe(config)
    assert ", class=ship, " in capsys.readouterr().out


def test_a_sheet_of_classes_in_turn_has_a_column_for_each():
    pixels = np.arange(7, dtype=np.uint8).reshape(7, 1, 1, 1) + np.zeros((7, 4, 4, 1), np.uint8)
    sheet = images.in_turn(pixels, NAMES, magnify=8)
    assert sheet.shape == (16 + (3 * 6 + 2) * 8, (3 * 6 + 2) * 8, 3) and sheet[:16].any()
    assert (sheet[16 + 8 * (2 + 6 * 2) + 4, 8 * 2 + 4] == 6).all()  # the seventh is of the first class
    np.testing.assert_array_equal(images.in_turn(pixels, (), 2), np.repeat(np.repeat(images.grid(pixels), 2, 0), 2, 1))
    np.testing.assert_array_equal(images.in_turn(pixels, NAMES * 3), images.grid(pixels))
