"""The experiment on captions: figures of pictures whose truth is known, chances in closed form, words, a short run."""

import json
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from scipy import stats
from score_sde.experiments.sweep import runs
from score_sde.experiments.text import draw, judge, measure, page, pictures, prompts, report, run
from score_sde.experiments.text.__main__ import program
from score_sde.experiments.text.config import SETS, get_config

from score_sde.data import InMemory, loading, scene_drawing
from score_sde.data.scene_captions import Object, asked
from score_sde.errors import UsageError
from score_sde.training.run import load_data

RNG = np.random.default_rng(0)
NAMES = scene_drawing.attribute_names(16)
HELD_OUT = {("circle", "red")}


@pytest.mark.parametrize("name", SETS)
def test_the_data_options_of_a_set_fit_its_data_set(name, monkeypatch):
    config = get_config(name)
    images = np.zeros((1, config.data.image_size, config.data.image_size, 3), np.uint8)
    monkeypatch.setitem(loading.MADE, config.data.dataset, lambda **options: InMemory(images))
    load_data(config, train=True)


def objects(n: int, **fixed: str) -> list[Object]:
    """Objects with random attributes, apart from fixed ones."""
    chosen = {name: RNG.choice(values, n) for name, values in NAMES.items()}
    return [Object(*map(str, row))._replace(**fixed) for row in zip(*chosen.values(), strict=True)]


def drawn(*scenes: Object) -> np.ndarray:
    """Pictures of one object each."""
    return scene_drawing.draw(scene_drawing.numbers([(each,) for each in scenes], 16, most=1), 16)


def few_scenes() -> ConfigDict:
    """The config of scenes, with fewer of them."""
    config = get_config("scenes")
    config.data.scene_images = 1000
    return config


# Captions.


@pytest.mark.parametrize("name", [*SETS, "scenes_three-uvit"])
def test_a_set_is_a_config_that_trains_on_captions(name):
    config = get_config(name)
    assert config.text.tokenizer == "words" and config.encoder.name == "text"
    assert config.training.n_iters % config.training.snapshot_freq == 0 and not config.data.random_flip


def test_a_description_names_all_attributes_and_is_read_as_the_object():
    for each in objects(50):
        assert asked(prompts.described(each)).objects == (each,)
    with pytest.raises(UsageError, match="name each"):
        prompts.described(Object("star"))


def test_candidates_differ_in_one_attribute_and_contain_the_truth():
    (each,) = objects(1)
    for attribute, values in NAMES.items():
        captions, truth = prompts.candidates(each, attribute, 16)
        read = [asked(caption).objects[0] for caption in captions]
        assert [getattr(of, attribute) for of in read] == list(values) and read[truth] == each
        assert {of._replace(**{attribute: None}) for of in read} == {each._replace(**{attribute: None})}


def test_held_out_captions_name_a_held_out_pair_and_seen_ones_name_none():
    config = few_scenes()
    held_out = prompts.held_out_pairs(config)
    halves = prompts.of_halves(config, 40)
    assert len(held_out) == 4 and [len(of) for of in halves.values()] == [40, 40]
    assert all(held_out & set(prompts.named_pairs(caption)) for caption in halves["held_out"])
    assert not any(held_out & set(prompts.named_pairs(caption)) for caption in halves["seen"])


def test_captions_on_the_page_are_read_and_name_no_held_out_pair():
    held_out = prompts.held_out_pairs(get_config("scenes"))
    for name in ("scenes", "scenes_three"):
        shown = prompts.SHOWN[name]
        captions = [caption for pairs in shown for pair in pairs for caption in pair]
        assert not any(held_out & set(prompts.named_pairs(caption)) for caption in captions)
        swapped = [asked(caption).objects[0] for pair in shown.swaps for caption in pair]
        assert all(of.shape and of.colour and not of.size and not of.place for of in swapped)


# Shares.


def test_shares_have_wilsons_interval_and_none_of_nothing():
    of = judge.share(9, 10)
    z = stats.norm.ppf(0.975)
    roots = np.roots([1 + z**2 / 10, -2 * 0.9 - z**2 / 10, 0.9**2])
    assert [of["low"], of["high"]] == pytest.approx(sorted(roots))
    assert judge.share(0, 0)["share"] is None


def test_pictures_of_their_captions_are_all_right():
    scenes = objects(30)
    of = judge.judged([prompts.described(each) for each in scenes], drawn(*scenes))
    shares = {name: figure["share"] for name, figure in of["figures"].items()}
    assert shares == dict.fromkeys(judge.FIGURES, 1.0) | {"relation": None}
    assert of["unreadable"]["share"] == 0 and of["figures"]["place"]["uniform"] == 1 / 9


def test_each_wrong_attribute_is_counted_once():
    scenes = objects(20, colour="red")
    shown = [each._replace(colour="blue") if i < 3 else each for i, each in enumerate(scenes)]
    figures = judge.judged([prompts.described(each) for each in scenes], drawn(*shown))["figures"]
    right = {name: figure["right"] for name, figure in figures.items()}
    assert right == dict.fromkeys(judge.FIGURES, 20) | {"relation": 0, "colour": 17, "pair": 17, "together": 17}


def test_attributes_that_a_caption_does_not_name_are_not_counted():
    figures = judge.judged(["a red object"] * 4, drawn(*objects(4, colour="red")))["figures"]
    assert {name: of["n"] for name, of in figures.items() if of["n"]} == dict(colour=4, count=4, together=4)


def test_relations_and_the_number_of_objects_are_part_of_what_a_caption_says():
    star, circle = Object("star", "red", "small", "left"), Object("circle", "blue", "small", "right")
    assert judge.counts("a star left of a circle", (star, circle))["together"] == (1, 1)
    wrong = judge.counts("a circle left of a star", (star, circle))
    assert wrong["relation"] == (0, 1) and wrong["shape"] == (2, 2) and wrong["together"] == (0, 1)
    assert judge.counts("a star", (star, circle))["count"] == (0, 1)


def test_a_caption_with_a_held_out_pair_counts_that_pair_alone():
    scene = (Object("star", "blue", "small", "left"),)
    assert judge.counts("a blue star and a red circle", scene)["pair"] == (1, 2)
    assert judge.counts("a blue star and a red circle", scene, HELD_OUT)["pair"] == (0, 1)


def test_noise_is_no_scene_and_has_nothing_right():
    noise = RNG.integers(0, 256, (6, 16, 16, 3), np.uint8)
    of = judge.judged(["a red circle"] * 6, noise)
    assert of["unreadable"]["share"] == 1 and of["figures"]["together"]["right"] == 0


def test_the_chance_is_the_share_of_other_captions():
    scenes = [each for pair in zip(objects(8, colour="red"), objects(8, colour="blue"), strict=True) for each in pair]
    captions = [f"a {each.colour} object" for each in scenes]
    figures = judge.judged(captions, drawn(*scenes))["figures"]
    assert figures["colour"]["share"] == 1 and figures["colour"]["chance"] == 0.5  # of 8 shifts 4 are even


def test_the_chance_of_uniform_attributes_is_one_over_their_number():
    scenes = objects(600)
    figures = judge.judged([prompts.described(each) for each in scenes], drawn(*scenes))["figures"]
    for name, values in NAMES.items():
        error = np.sqrt(1 / len(values) / (600 * judge.SHIFTS))
        assert abs(figures[name]["chance"] - figures[name]["uniform"]) < 5 * error


# Swaps.


def test_independent_pairs_are_equal_as_often_as_by_chance():
    first, second = np.divmod(np.arange(81), 9)  # each pair of nine places once
    of = judge.same(first, second, np.zeros(81, int))
    assert of.share == of.chance == pytest.approx(1 / 9) and of.p > 0.4


def test_copies_are_equal_more_often_than_by_chance():
    x = np.arange(90) % 9
    of = judge.same(x, x, np.zeros(90, int))
    assert (of.share, of.p) == (1, 1 / (1 + judge.PERMUTATIONS)) and of.chance == pytest.approx(1 / 9)


def test_p_values_of_independent_pairs_are_uniform(monkeypatch):
    monkeypatch.setattr(judge, "PERMUTATIONS", 199)
    pairs = RNG.integers(0, 3, (300, 2, 60))
    p = np.array([judge.same(*pair, np.arange(60) % 2).p for pair in pairs])
    for level in (0.05, 0.2, 0.5):
        assert (p <= level).mean() <= level + 4 * np.sqrt(level / 300)  # ties make the test conservative
    assert (p <= 0.5).mean() > 0.3


def test_values_that_follow_from_the_caption_are_no_evidence():
    groups = np.arange(40) % 4
    of = judge.same(groups, groups, groups)  # each pair of captions has its own place
    assert of.share == of.chance == 1 and of.p == 1


def test_swaps_count_pairs_of_which_both_have_one_object():
    scenes = objects(6, shape="star")
    first, second = (drawn(*(each._replace(colour=colour) for each in scenes)) for colour in ("red", "cyan"))
    second[0], second[1] = 128, RNG.integers(0, 256, (16, 16, 3))
    of = judge.swapped(["a red star"] * 6, ["a cyan star"] * 6, (first, second))
    assert of["pairs"] == 6 and of["right"]["right"] == 10 and of["right"]["n"] == 12
    assert of["same"]["place"]["n"] == of["same"]["size"]["n"] == 4 and of["same"]["place"]["share"] == 1


def test_no_pair_that_can_be_read_has_no_share():
    noise = RNG.integers(0, 256, (2, 3, 16, 16, 3), np.uint8)
    of = judge.swapped(["a red star"] * 3, ["a cyan star"] * 3, tuple(noise))
    assert of["same"]["place"] == dict(n=0, share=None, chance=None, p=None)


# Negative captions, likelihoods, other pictures.


def test_a_negative_caption_is_shown_by_pictures_with_all_that_it_names():
    scenes = [*objects(3, shape="star", size="small"), *objects(2, shape="star", size="large")]
    assert judge.avoided("a small star", drawn(*scenes))["share"] == 3 / 5


def test_the_likeliest_candidate_is_chosen():
    of = judge.chosen(np.array([[0.0, 1, 2], [5, 1, 2], [0, 9, 2], [0, 0, -1]]), np.array([2, 0, 0, 2]))
    assert (of["right"], of["n"], of["chance"]) == (2, 4, 1 / 3)


def album(names: list[str]) -> pictures.Album:
    """An album of random pictures with these captions, all of them in the training split and asked for."""
    train, test = (RNG.integers(0, 256, (len(names), 8, 8, 3), np.uint8) for _ in range(2))
    return pictures.Album(train, test, (names, [f"another {name}" for name in names]), {"seen": train})


def test_pictures_find_their_own_and_shuffled_ones_do_not():
    names = [f"woman: {tone} skin tone" for tone in ("light", "medium", "dark")] + ["sun", "moon"]
    of = album(names)
    right, wrong = (pictures.judged(names, np.roll(of.train, i, axis=0), of, "seen")["figures"] for i in (0, 1))
    assert (right["found"]["right"], right["found"]["n"], right["found"]["chance"]) == (5, 5, 1 / 5)
    assert (right["tone"]["right"], right["tone"]["n"], right["tone"]["chance"]) == (3, 3, pytest.approx(1 / 3))
    assert wrong["found"]["right"] == 0 and wrong["tone"]["right"] <= 1  # the moon is near a tone by chance


def test_captions_without_tones_have_no_such_figure():
    of = album(["sun", "moon"])
    assert "tone" not in pictures.judged(["sun", "moon"], of.train, of, "seen")["figures"]
    assert pictures.copies(of, {"seen": of.train, "held_out": of.train}) == dict(seen=0, held_out=0)


def test_the_best_scale_is_that_of_seen_captions():
    shares = {"0": 0.1, "1": 0.5, "2": 0.7, "3": 0.7}
    scales = {scale: {"seen": {"figures": {"together": {"share": share}}}} for scale, share in shares.items()}
    assert measure.best_of(scales, "together") == "2"


# Words.


def read(caption: str, scene: tuple[Object, ...] | None) -> str:
    return page.reading(caption, scene).replace(page.UNBROKEN, " ")


def test_words_say_what_is_right_and_what_is_not():
    text = read("a small red star", (Object("star", "blue", "small", "top"),))
    assert "✓ star" in text and "✓ small" in text and "✗ blue, not red" in text
    assert '<span class="">top</span>' in text
    assert "✗ no scene" in read("a star", None)


def test_objects_are_matched_so_that_most_is_right():
    star, circle = Object("star", "red", "small", "left"), Object("circle", "blue", "small", "right")
    text = read("a blue circle right of a star", (star, circle))
    assert "✗" not in text and "✓ second left of first" in text
    assert "✗ 2 objects, not 1" in read("a star", (star, circle))


# From draws to the page, with a model that draws what its captions say.


class Oracle:
    """A model whose pictures have all that their captions name; the rest is the noise's choice. At scale 0 all is."""

    config, digest, text = few_scenes(), "oracle", SimpleNamespace(cond=lambda captions: {"captions": captions})

    def at(self, step: int) -> "Oracle":
        return self

    def draw(self, keys, *, cond, scale=1.0, **options):
        pixels = drawn(*map(self.object, jax.random.key_data(keys), cond["captions"], [scale] * len(keys)))
        return SimpleNamespace(images=pixels / 255)

    def object(self, bits: np.ndarray, caption: str, scale: float) -> Object:
        rng = np.random.default_rng(np.asarray(bits))
        named = asked(caption).objects[0]._asdict() if scale else {}
        return Object(**{name: named.get(name) or str(rng.choice(values)) for name, values in NAMES.items()})

    def classify(self, keys, pixels, *, text, method):
        of = np.stack([drawn(*(asked(caption).objects[0] for caption in captions)) for captions in text])
        return SimpleNamespace(log_likelihoods=-np.square(of / 255 - pixels[:, None] / 255).sum((2, 3, 4)))


NUMBERS = draw.Numbers(samples=48, curve=8, pairs=32, negatives=8, classified=10)


@pytest.fixture(scope="module")
def of_oracle(tmp_path_factory):
    """The folder of an experiment of which the oracle drew all, and its results."""
    folder = tmp_path_factory.mktemp("text")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(draw.pretrained, "load", lambda directory: Oracle())
        patch.setattr(draw, "curve_steps", lambda directory: [10, 20])
        of_set = run.plan(folder, "scenes", NUMBERS)
        draw.draw("scenes", of_set.workdir, of_set.workdir / of_set.jobs[-1].folder, NUMBERS)
    assert run.run(folder, None, ["scenes"], NUMBERS) == 0
    return folder, json.loads((folder / run.RESULTS).read_text())["sets"]["scenes"]


def test_a_model_that_follows_captions_has_all_right_but_at_scale_0(of_oracle):
    _, of = of_oracle
    assert of["best"] == "1" and set(of["curve"]) == {"10", "20"}
    for half in prompts.HALVES:
        shares = {scale: each[half]["figures"]["together"]["share"] for scale, each in of["scales"].items()}
        assert {scale for scale, share in shares.items() if share == 1} == {"1", "1.5", "2", "3", "5"}
        without = of["scales"]["0"][half]["figures"]["place"]
        assert abs(without["share"] - 1 / 9) < 4 * np.sqrt(1 / 9 * 8 / 9 / without["n"])


def test_its_noise_decides_what_no_caption_names_and_its_likelihood_is_right(of_oracle):
    _, of = of_oracle
    assert set(of["swap"]) == {"the shape", *(f"the colour, in {n} of 3 channels" for n in (1, 3))}
    for swap in of["swap"].values():
        place = swap["same"]["place"]
        assert place["n"] == swap["pairs"] >= 9 and place["share"] == 1 and place["chance"] < 0.6
        assert place["p"] < 0.01 and swap["right"]["share"] == 1
    assert {name: each["share"] for name, each in of["bayes"].items()} == dict.fromkeys(NAMES, 1.0)
    assert all(each["kept"]["with"]["share"] == 1 for each in of["negative"])


def test_the_page_has_captions_pictures_and_words(of_oracle):
    folder, _ = of_oracle
    text = (folder / "report.html").read_text()
    for part in ("Asked for, drawn, read", "One noise, two captions", "The model as a classifier", "scale 1.5"):
        assert part in text
    assert "a red square" in text and "✓" in text and "✗" in text  # wrong at scale 0 alone
    assert "reached; " in (folder / report.TABLE).read_text()


def test_what_is_drawn_is_not_drawn_again(of_oracle, monkeypatch):
    folder, _ = of_oracle
    idle = SimpleNamespace(config=Oracle.config, digest="oracle", at=lambda step: idle)
    monkeypatch.setattr(draw.pretrained, "load", lambda directory: idle)
    monkeypatch.setattr(draw, "curve_steps", lambda directory: [10, 20])
    of_set = run.plan(folder, "scenes", NUMBERS)
    draw.draw("scenes", of_set.workdir, of_set.workdir / of_set.jobs[-1].folder, NUMBERS)


def test_pictures_that_no_decoder_reads_are_judged_by_their_own(tmp_path, monkeypatch):
    train, test = (
        InMemory(RNG.integers(0, 256, (8, 24, 24, 3), np.uint8), captions=[f"{name} {i}" for i in range(8)])
        for name in ("seen", "new")
    )
    shown = {caption: picture for of in (train, test) for caption, picture in zip(of._captions, of.images, strict=True)}

    class Echo(Oracle):
        config = get_config("openmoji")

        def draw(self, keys, *, cond, **options):
            copies = np.stack([shown.get(each, test.images[0]) for each in cond["captions"]])
            return SimpleNamespace(images=(copies ^ 1) / 255)  # each number is off by one

    for module in (prompts, pictures):
        monkeypatch.setattr(module, "load_data", lambda config, train, of=(test, train): of[train])
    monkeypatch.setattr(draw.pretrained, "load", lambda directory: Echo())
    monkeypatch.setattr(draw, "curve_steps", lambda directory: [10])
    of_set = run.plan(tmp_path, "openmoji", NUMBERS)
    draw.draw("openmoji", of_set.workdir, of_set.workdir / of_set.jobs[-1].folder, NUMBERS)
    assert run.run(tmp_path, None, ["openmoji"], NUMBERS) == 0
    of = json.loads((tmp_path / run.RESULTS).read_text())["sets"]["openmoji"]
    assert {half: each["figures"]["found"]["share"] for half, each in of["scales"]["1"].items()} == dict(
        seen=1, held_out=1
    )
    assert of["copies"]["seen"] < 0.02 and of["copies"]["held_out"] > 50 and of["bayes"] == {} and of["swap"] is None
    assert "nearest training picture" in (tmp_path / "report.html").read_text()


# The real programs.

TINY = [
    "training.n_iters=2",
    "training.snapshot_freq=1",
    "training.batch_size=8",
    "eval.batch_size=8",
    "eval.bound_num_times=1",
    "model.nf=8",
    "model.ch_mult=(1,1)",
    "model.attn_resolutions=(8,)",
    "model.cross_resolutions=(8,)",
    "encoder.features=8",
    "encoder.depth=1",
    "data.scene_images=400",
]
FEW = ["--samples=8", "--curve=4", "--pairs=4", "--negatives=2", "--classified=2"]


def test_a_short_run_judges_captions_and_is_not_repeated(tmp_path, capsys):
    command = ["text", f"--folder={tmp_path}", *FEW, *(f"--config.{value}" for value in TINY)]
    assert program(command) == 0
    result = json.loads((tmp_path / run.RESULTS).read_text())
    of = result["sets"]["scenes"]
    assert set(of["scales"]) == {f"{scale:g}" for scale in draw.SCALES} and set(of["curve"]) == {"1", "2"}
    assert of["captions"] == {"seen": 4, "held_out": 4} and sum(swap["pairs"] for swap in of["swap"].values()) == 4
    assert {name: each["n"] for name, each in of["bayes"].items()} == dict.fromkeys(NAMES, 2)
    text = (tmp_path / "report.html").read_text()
    for part in ("Asked for, drawn, read", "One noise, two captions", "The model as a classifier", "scale 1.5"):
        assert part in text
    capsys.readouterr()
    assert program(command) == 0
    assert "2 jobs, 2 finished before" in capsys.readouterr().out
    assert json.loads((tmp_path / run.RESULTS).read_text()) == result


def test_without_runs_there_is_nothing_to_report(tmp_path):
    with pytest.raises(UsageError, match="No model is trained and drawn from"):
        program(["text", "--report", f"--folder={tmp_path}"])
    with pytest.raises(UsageError, match="did you mean 'openmoji'"):
        program(["text", "--report", "--sets=open_moji", f"--folder={tmp_path}"])
    with pytest.raises(UsageError, match="take fewer"):
        program(["text", "--report", "--samples=8", "--curve=9", f"--folder={tmp_path}"])


def test_another_number_of_samples_is_another_folder_of_the_same_training(tmp_path):
    few, many = (run.plan(tmp_path, "scenes", draw.Numbers(samples=n)) for n in (8, 9))
    assert few.workdir == many.workdir and few.jobs[0] == many.jobs[0] and few.jobs[1].folder != many.jobs[1].folder
    assert runs.line(few.jobs[0].command).endswith(f"--config={run.CONFIG}:scenes-unet --workdir={few.workdir}")


# Tables.


def test_goals_are_said_to_be_reached_or_missed():
    scenes = objects(40)
    shown = [
        each._replace(shape="star" if each.shape != "star" else "cross") if i < 20 else each
        for i, each in enumerate(scenes)
    ]
    judged = judge.judged([prompts.described(each) for each in scenes], drawn(*shown))
    of = {
        "objects": 1,
        "best": "1",
        "scales": {"1": dict.fromkeys(prompts.HALVES, judged)},
        "main": "together",
        "swap": None,
    }
    lines = report.sentences(of)
    assert (
        "colour: 100.0 % of a goal of 90 %, reached" in lines[0]
        and "shape: 50.0 % of a goal of 80 %, missed" in lines[0]
    )
    assert "above chance" in lines[1]
