"""The program that audits trained models: oracles as models, a whole run and its resumption, the page, and refusals."""

import json

import numpy as np
import pytest
from score_sde.configs.vp.digits_ddpmpp_continuous import get_config
from score_sde.experiments.audit import classes, draw, measure, noise, page, report, run, subject
from score_sde.experiments.audit.__main__ import program
from score_sde.experiments.audit.run import Options
from score_sde.experiments.audit.subject import opened

from score_sde import data
from score_sde.audit import Interval, nearest
from score_sde.errors import UsageError
from score_sde.metrics.judge import Judge
from score_sde.runtime.preemption import Stopped
from score_sde.training.run import train

pytestmark = pytest.mark.usefixtures("one_block")
DRAWS = np.random.default_rng(0)
HALVES = DRAWS.normal(128, 40, (2, 80, 4, 4, 1)).clip(0, 255).astype(np.uint8)  # of one law
TRAIN, HELD_OUT = HALVES
OWN = measure.own_distances(TRAIN)
NEAR = measure.near_of(OWN)


def flat(pixels):
    return pixels.reshape(len(pixels), -1).astype(np.float32)


def compared(samples, train, mirrored=False):
    return measure.Compared.of(samples, train, HELD_OUT, mirrored=mirrored)


def nearest_judge(train, held_out, folder, *, options=None, attribute=None):
    """A judge by the nearest training image, which needs no training."""
    whole, known = (source.take(np.arange(len(source))) for source in (train, held_out))

    def of(pixels):
        return np.eye(10)[whole.labels[nearest(pixels, whole.images).indices[:, 0]]]

    confusion = np.zeros((10, 10), int)
    np.add.at(confusion, (known.labels, of(known.images).argmax(axis=1)), 1)
    return Judge(of, confusion)


@pytest.fixture
def less_work(monkeypatch):
    monkeypatch.setattr(classes, "judge", nearest_judge)
    monkeypatch.setattr(noise, "LEVELS", 2)
    monkeypatch.setattr(noise, "PROBES", 20)
    monkeypatch.setattr(measure, "REPLICATIONS", 5)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, data_dir, one_block):
    """The workdir of a class-conditional model of 40 digits, after one update."""
    folder = tmp_path_factory.mktemp("audit") / "model"
    config = get_config()
    config.data.update(data_dir=data_dir, train_images=40)
    config.model.update(nf=8, ch_mult=(1,), attn_resolutions=(4,), num_classes=10)
    config.training.update(batch_size=16, n_iters=1, snapshot_freq=1, snapshot_freq_for_preemption=1, eval_freq=1)
    config.sampling.update(method="ddim", num_steps=2)
    config.eval.batch_size = 64
    config.metrics.update(nf=8, dimension=4, n_iters=1)
    train(config, folder)
    return folder


# Oracles as models.


def test_the_training_images_as_a_model_are_memorised_and_extracted_whole():
    copies = np.concatenate([TRAIN, TRAIN])
    of, shown = measure.memorised(compared(copies, TRAIN), OWN, flat)
    for space in ("pixels", "features"):
        figures = of[space]["samples"]
        assert [figures[name]["value"] for name in ("gu", "carlini", "auth_pct")] == [1, 1, 0]
        assert of[space]["exchangeable"]["p"] == 1e-4 and of[space]["copying"]["z"] < -8
        assert of[space]["copying_by_cell"]["least"] < 1e-8
    assert (shown["samples"] == shown["nearest"]).all() and (shown["nearest"] != shown["second"]).any()
    found, _ = measure.extracted(compared(copies, TRAIN), NEAR)
    assert found["clusters"] == found["train_images"] == 80 and found["of_train"]["value"] == 1


def test_fresh_samples_of_the_same_law_are_not():
    fresh = DRAWS.normal(128, 40, (200, 4, 4, 1)).clip(0, 255).astype(np.uint8)
    of, _ = measure.memorised(compared(fresh, TRAIN), OWN, flat)
    for space in ("pixels", "features"):
        assert of[space]["samples"]["gu"]["value"] == 0
        assert of[space]["samples"]["carlini"]["low"] <= of[space]["held_out"]["carlini"]["high"]
        assert of[space]["exchangeable"]["p"] > 0.01 and abs(of[space]["copying"]["z"]) < 4
        assert of[space]["copying_by_cell"]["least"] > 0.01
    assert measure.extracted(compared(fresh, TRAIN), NEAR)[0]["clusters"] == 0


def test_features_that_know_the_training_images_are_tested_on_held_out_images_that_they_know_too():
    known = {image.tobytes() for image in [*TRAIN, *HELD_OUT[40:]]}

    def knowing(images):  # far from all others, as a network may place images that it was trained on
        return flat(images) / 8 + np.array([[1000.0 if image.tobytes() in known else 0] for image in images])

    fresh = DRAWS.normal(128, 40, (200, 4, 4, 1)).clip(0, 255).astype(np.uint8)
    fresh = np.concatenate([fresh[:150], HELD_OUT[40:], TRAIN[:40]])  # of either half alike
    of, _ = measure.memorised(compared(fresh, TRAIN), OWN, knowing, alike=40)
    assert of["features"]["exchangeable"]["p"] > 0.01
    of, _ = measure.memorised(compared(fresh, TRAIN), OWN, knowing, alike=0)
    assert "trained on the training images" in of["features"]["exchangeable"]["missing"]
    assert "p" in of["pixels"]["exchangeable"]


def test_mirrored_copies_are_copies_if_the_training_mirrors_images():
    copies = np.concatenate([TRAIN[:40], TRAIN[40:, :, ::-1]])
    blind, _ = measure.memorised(compared(copies, TRAIN), OWN, flat)
    of, shown = measure.memorised(compared(copies, TRAIN, mirrored=True), OWN, flat)
    assert blind["pixels"]["samples"]["gu"]["value"] == 0.5 and of["pixels"]["samples"]["gu"]["value"] == 1
    assert (shown["samples"] == shown["nearest"]).all()
    assert measure.extracted(compared(np.concatenate([copies, TRAIN]), TRAIN, mirrored=True), NEAR)[0]["clusters"] == 80


def test_samples_that_are_turned_towards_real_images_still_know_none_of_them():
    shares = []  # of samples nearest to a training image: turned towards all real images, and towards these alone
    for _ in range(100):
        samples, train, held_out = DRAWS.normal(128, 40, (3, 60, 4, 4, 1)).clip(0, 255).astype(np.uint8)
        of = measure.Compared.of(samples, train, held_out, mirrored=True)
        shares.append(
            [(nearest(x, np.concatenate([train, held_out])).indices < 60).mean() for x in (of.tested, of.samples)]
        )
    fair, unfair = np.mean(shares, axis=0)
    error = np.std(shares, axis=0, ddof=1) / 10
    assert abs(fair - 0.5) < 4 * error[0] and unfair > 0.5 + 8 * error[1]


def test_groups_inside_the_training_set_are_found_with_the_largest_first():
    train = np.concatenate([TRAIN, TRAIN[:3], TRAIN[:1], TRAIN[5:6] + 1])
    of = measure.duplicates(train, NEAR)
    assert of["identical"] == {"groups": 3, "images": 7, "shown": [[0, 80, 83], [1, 81], [2, 82]]}
    assert of["near"]["groups"] == 4 and of["near"]["images"] == 9


def test_samples_are_matched_with_the_images_whose_conditions_they_were_asked_for():
    of = measure.asked(TRAIN[[3, 1, 4, 1]], TRAIN, np.array([3, 1, 5, 9]), alike=np.arange(80) // 10)
    assert of["value"] == 0.5 and of["chance"] == pytest.approx(1 / 10)


def test_losses_of_members_that_are_all_lower_give_an_area_of_one():
    losses = DRAWS.uniform(size=(2, 150, 3))
    of = measure.membership(losses[0], losses[1] + 1)
    assert [each["value"] for each in of["auc"]] == [1, 1, 1] and of["combined"]["tpr_at_0.01"]["value"] == 1
    assert "1,000 other images" in of["combined"]["tpr_at_0.001"]["missing"]


def test_noise_levels_are_those_of_the_process_and_evenly_spread_in_their_logarithm():
    from score_sde.sde import VP

    levels = VP().noise_level(noise.times(VP()))
    assert levels[[0, -1]] == pytest.approx([0.03, 10], rel=1e-4) and np.ptp(np.diff(np.log(levels))) < 1e-4


# The page.


def audit_of(samples, losses):
    """A result as `run.audited` has it, of arrays in the place of a network's."""
    data = {"name": "normal", "train": 80, "of": 80, "held_out": 80, "from_train": 0}
    facts = {"data": data, "step": 7, "num_samples": len(samples), "sampler": "ddim", "num_steps": 5, "scale": None}
    memorised, shown = measure.memorised(compared(samples, TRAIN), OWN, flat)
    extracted, clusters = measure.extracted(compared(samples, TRAIN), NEAR)
    labels = np.arange(80) % 10
    by = Judge(lambda x: np.eye(10)[np.arange(len(x)) % 10], np.diag([30] * 10))
    features = {"1": flat(samples), "4": flat(samples)}
    balance = classes.balanced(by, {"1": samples, "4": samples}, labels, features=features, real=flat(TRAIN))
    of = facts | {"licence": "", "devices": ["cpu"], "duplicates": measure.duplicates(TRAIN, NEAR)}
    of |= {
        "memorised": memorised,
        "extracted": extracted,
        "balance": {"class": balance | {"names": list("abcdefghij")}},
    }
    of |= {"power": {"copies": [0, 5], "detected": [measure.interval(Interval(0.05, 0.02, 0.1))] * 2}}
    return of | {
        "levels": {"noise_level": [0.1, 1.0, 9.0], "membership": measure.membership(*losses)}
    }, shown | clusters


def test_the_page_shows_both_models_side_by_side_with_a_section_and_a_sentence_for_each_part(tmp_path):
    fresh = DRAWS.normal(128, 40, (100, 4, 4, 1)).clip(0, 255).astype(np.uint8)
    losses = DRAWS.uniform(size=(2, 150, 3))
    made = {"copies": audit_of(np.concatenate([TRAIN, TRAIN]), (losses[0], losses[1] + 1))}
    made |= {"new": audit_of(fresh, losses)}
    result = {"audits": {name: of for name, (of, _) in made.items()}, "failed": {}, "versions": {"jax": "1"}}
    result = json.loads(json.dumps(result))  # as `--report` reads it
    path = page.write(tmp_path, result, {name: shown for name, (_, shown) in made.items()}, ["a command"])
    text = path.read_text()
    assert all(f"<h2>{title}</h2>" in text for title in page.ABOUT)
    assert text.count("<img") == 3 and text.count("<svg") == 3
    said = {name: " ".join(report.sentences(of)) for name, of in result["audits"].items()}
    assert "100.0 (97.7 to 100.0) % of the samples are memorised" in said["copies"]
    assert "AUC 1.000" in said["copies"] and "samples know which images were trained on" in said["copies"]
    assert "nothing shows that they know" in said["new"] and "do not tell members" in said["new"]
    assert "none is called extracted" in said["new"] and "80 training images are extracted" in said["copies"]


# A whole run.


def test_an_audit_that_is_killed_goes_on_to_the_same_results(trained, tmp_path, monkeypatch, less_work, capsys):
    options = Options(num_samples=70, scales=(3.0,))
    run.run(trained, tmp_path / "whole", options)
    said = capsys.readouterr().out
    whole = json.loads((tmp_path / "whole" / "results.json").read_text())
    of = whole["audits"]["model"]
    assert of["data"]["train"] == 40 and of["data"]["from_train"] == 1458 and of["data"]["held_out"] == 1757
    assert not any("missing" in of[part] for part in ("memorised", "power", "levels", "extracted", "balance"))
    assert list(of["balance"]["class"]["scales"]) == ["1", "3"]
    shown = (tmp_path / "whole" / "report.html").read_text()
    for title in ("Memorisation", "Where on the schedule", "Membership", "Extraction", "Balance", "not trained on"):
        assert title in shown and shown.count("<svg") == 5
    assert "nearest real image is a training image" in said and "| " in (tmp_path / "whole" / "table.md").read_text()

    drawn, seen = draw._drawn, []

    def stopped(*arguments):
        seen.append(arguments)
        if len(seen) == 2:
            raise Stopped(15)
        return drawn(*arguments)

    monkeypatch.setattr(draw, "_drawn", stopped)
    with pytest.raises(Stopped):
        run.run(trained, tmp_path / "killed", options)
    run.run(trained, tmp_path / "killed", options)
    assert len(seen) == 5  # two rounds at each scale, of which one was stopped
    assert json.loads((tmp_path / "killed" / "results.json").read_text()) == whole
    before = (tmp_path / "killed" / "report.html").read_bytes()
    run.run(trained, tmp_path / "killed", options, only_report=True)
    assert (tmp_path / "killed" / "report.html").read_bytes() == before and len(seen) == 5


def test_samples_have_the_conditions_of_training_images_and_do_not_depend_on_how_many_are_drawn(trained, tmp_path):
    of = opened(trained)
    few, many = (draw.samples(of, tmp_path / str(n), n) for n in (66, 70))
    assert (few["pixels"] == many["pixels"][:66]).all()
    assert sorted(many["asked"][:40]) == list(range(40))
    assert (draw.condition(of, np.array([7]))["labels"] == of.train.labels[7]).all()


def test_the_balance_of_attributes_is_that_of_a_file(trained, tmp_path):
    of, halves = opened(trained), [np.arange(n) % 2 for n in (1498, 299)]
    np.savez(tmp_path / "attributes.npz", parity=halves[0], parity_eval=halves[1])
    named = classes.attributes(tmp_path / "attributes.npz")
    by = classes.judges(of, tmp_path, named)
    assert list(by) == ["class", "parity"] and by["parity"].confusion.sum(axis=1).tolist() == [150, 149]
    with pytest.raises(UsageError, match="give NAME and NAME_eval for each"):
        np.savez(tmp_path / "attributes.npz", parity=halves[0])
        classes.attributes(tmp_path / "attributes.npz")


# Refusals, one sentence each.


def test_without_labels_the_rest_of_the_audit_goes_on_and_the_page_says_so(trained, tmp_path, less_work, monkeypatch):
    of = opened(trained)
    unlabelled = data.InMemory(of.whole.take(np.arange(100)).images)
    of = of._replace(whole=unlabelled)
    result = run.audited(of, tmp_path, Options(num_samples=10, parts=("extraction", "balance"), scales=()))
    assert result["balance"]["missing"].startswith("The data have no labels")
    assert "The data have no labels" in report.text({"audits": {"a": result}, "failed": {}}) and "extracted" in result


def test_fewer_samples_than_a_test_needs_are_said():
    of, _ = measure.memorised(compared(TRAIN[:10], TRAIN), OWN, flat)
    assert "give 20 or more of each" in of["pixels"]["copying"]["missing"]
    with pytest.raises(UsageError, match="needs 3 training images or more"):
        measure.memorised(compared(TRAIN, TRAIN[:2]), OWN, flat)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--workdir={empty}"], "No checkpoint in"),
        (["--workdir={run}", "--parts=memory"], "Unknown --parts 'memory'"),
        (["--workdir={run}", "--step=7"], "No checkpoint of step 7"),
        (["--workdir={run}", "--config.data.train_images=50"], "data.train_images"),
        (["--workdir={run}", "--config.sampling.condition=class=3"], "asks for the conditions of training images"),
        ([], "Name one trained model"),
        (["--workdir={run}", "--report"], "has no results.json"),
    ],
)
def test_a_workdir_or_option_that_cannot_be_audited_is_refused(trained, tmp_path, arguments, words):
    places = {"run": trained, "empty": tmp_path}
    with pytest.raises(UsageError, match=words):
        program(["audit", *(each.format(**places) for each in arguments)])
    assert not (trained / "audit").exists()


def test_a_classifier_is_refused(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(subject, "CLASSIFIERS", {"ncsnpp": None})
    with pytest.raises(UsageError, match="holds a classifier, which draws no images"):
        opened(trained)


def test_data_that_are_not_there_and_other_data_are_refused(trained, monkeypatch):
    def lost(config, *, train):
        raise UsageError("digits is not in /data; prepare it.")

    others = data.InMemory(np.zeros((1498, 8, 8, 1), np.uint8), np.zeros(1498, int))
    monkeypatch.setattr(subject, "load_data", lambda config, *, train: others)
    with pytest.raises(UsageError, match=r"are not those of .*, whose 40 images have another digest"):
        opened(trained)
    monkeypatch.setattr(subject, "load_data", lost)
    with pytest.raises(UsageError, match=r"No training data are at hand, .*: digits is not in /data"):
        opened(trained)


# The digits.


def test_the_two_models_differ_in_their_training_images_alone(tmp_path):
    few, all_of_them = (run.plan(tmp_path, name, {}).config.to_dict() for name in ("digits_50", "digits_all"))
    assert (few["data"].pop("train_images"), all_of_them["data"].pop("train_images")) == (50, 0)
    assert few == all_of_them and few["training"]["n_iters"] * few["training"]["batch_size"] == 384_000
