"""A model card has the figures of a run's files, says what they lack, and leaves the author's words as they are."""

import json
import tarfile
from pathlib import Path

import pytest
import yaml

from score_sde.cli.main import main
from score_sde.evaluation import author, card, card_figures, card_text, report
from score_sde.io import workdir
from score_sde.training import privacy
from score_sde.training.build import trainable

KEPT = Path(__file__).parent / "golden" / "workdir_0_1_0.tar.gz"
TRACED = {}  # experiments by their config, each of which is traced once
NOBODY = dict.fromkeys(author.ENTRIES, "")
FIGURE = {"mean": 98.23633546021068, "standard_error": 5.88170350163638}
SCRIPT = "<script>alert(1)</script> *not* a_b"


def traced_once(config):
    name = json.dumps(config.to_dict())
    TRACED[name] = TRACED.get(name) or trainable(config)
    return TRACED[name]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A workdir of version 0.1.0: eight updates with 16 images, and an evaluation."""
    monkeypatch.setattr(card, "trainable", traced_once)
    with tarfile.open(KEPT) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path / "digits"


def change(run: Path, name: str, **values) -> None:
    workdir.write(run, name, workdir.read(run, name) | values)


def measured(run: Path, step: int, figure: str, features: str) -> None:
    """Writes the report of samples in a folder of their own."""
    metrics = {figure: FIGURE, "fingerprint": "cd24c1132f20", "protocol": {"features": features, "sampler": "ddim"}}
    metrics |= {"baselines": {"held-out images": {"images": 64, figure: {"mean": 1.25, "standard_error": None}}}}
    entry = {"step": step, "sampling": {"num_samples": 64, "nfe": 21.0, "metrics": metrics}}
    workdir.write(run / "few", "report.json", {"config": {}, "checkpoints": [entry]})


def section(run: Path, title: str) -> card_figures.Section:
    (found,) = (each for each in card.gather(run, NOBODY).sections if each.title == title)
    return found


def facts(run: Path, title: str) -> dict[str, str]:
    return {name: text for name, text, _ in section(run, title).rows}


def test_a_card_has_every_figure_of_every_report_with_the_reports_digits(run):
    measured(run, 8, "frechet_distance[features=trained-dc3fd21a]", "trained-dc3fd21a")
    assert main(["score_sde", "--mode=card", f"--workdir={run}"]) == 0
    entries = [workdir.read(run / name, "report.json")["checkpoints"][0] for name in ("eval", "few")]
    figures = [figure for entry in entries for figure in report.figures(entry).values()]
    texts, baseline = {report.text(figure) for figure in figures}, "1.25"
    assert len(texts) == 3
    values = {row[1] for title in ("Loss and likelihood", "Samples") for row in section(run, title).rows}
    assert values == texts | {baseline}  # and no other number
    for text in ((run / "card.md").read_text(), (run / "card.html").read_text()):
        assert all(each in text for each in (*texts, baseline, "cd24c1132f20", "few/report.json"))
        assert str(run.parent) not in text


def test_a_card_that_is_written_twice_is_the_same_to_the_byte(run, capsys):
    names = ("card.md", "card.html", "card.png", "author.toml")
    both = []
    for _ in range(2):
        assert main(["score_sde", "--mode=card", f"--workdir={run}"]) == 0
        both.append([(run / name).read_bytes() for name in names])
    assert both[0] == both[1]
    assert f"Not stated by the author: {', '.join(author.ENTRIES)};" in capsys.readouterr().out


def test_an_authors_words_stand_as_they_are_and_are_text_on_the_page(run, tmp_path):
    file = tmp_path / "words.toml"
    file.write_text(f"limits = '''{SCRIPT}'''\nlicence = 'Apache-2.0'\ncitation = '''@misc{{a,\n  b}}'''\n")
    command = ["score_sde", "--mode=card", f"--workdir={run}", f"--author={file}", f"--out={tmp_path / 'out'}"]
    assert main(command) == 0
    text, page = ((tmp_path / "out" / f"card.{kind}").read_text() for kind in ("md", "html"))
    assert f"## Limits\n\n{SCRIPT}\n" in text and "```\n@misc{a,\n  b}\n```" in text
    assert text.startswith('---\nlicense: "apache-2.0"\n')
    assert text.count(f"*{card_text.NOT_STATED}*") == 4 and page.count(f"{card_text.NOT_STATED}</p>") == 4
    assert SCRIPT not in page and "&lt;script&gt;" in page
    assert not (run / "card.md").exists() and not (tmp_path / "out" / "author.toml").exists()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("limit = 'x'", "unknown entry 'limit' (did you mean 'limits'?)"),
        ("limits = 3", "limits must be a text"),
        ("limits = ", "is not valid TOML"),
        (None, "There is no file"),
    ],
)
def test_a_mistake_in_the_authors_file_is_one_sentence_and_nothing_is_written(content, sentence, run, tmp_path, capsys):
    if content is not None:
        (tmp_path / "own.toml").write_text(content)
    assert main(["score_sde", "--mode=card", f"--workdir={run}", f"--author={tmp_path / 'own.toml'}"]) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1 and not (run / "card.md").exists()


def test_a_fact_whose_file_is_gone_is_not_recorded_and_no_number_stands_for_it(run):
    for name in ("launch.json", "metrics.jsonl", "eval/report.json"):
        (run / name).unlink()
    data, training = facts(run, "Data"), facts(run, "Training")
    lost = [data["training images"], data["licence of the images"], training["versions"]]
    lost += [training["hours of training, about"], training["hardware of the last launch"]]
    assert lost == [card.NOT_RECORDED] * 5
    for title in ("Loss and likelihood", "Samples", "Audits"):
        assert not section(run, title).rows and "score_sde --mode=" in section(run, title).notes[-1]


def test_figures_of_another_checkpoint_are_marked_with_their_step(run):
    measured(run, 4, "fid", "inception")
    (row, held_out) = section(run, "Samples").rows
    assert row[-2] == held_out[-2] == "4 (stale: the card is of step 8)"
    assert {row[-2] for row in section(run, "Loss and likelihood").rows} == {"8"}


@pytest.mark.parametrize(("figure", "features"), [("fid", "inception"), ("frechet_distance[features=clip]", "clip")])
def test_only_inceptions_distance_is_called_fid(figure, features, run):
    measured(run, 8, figure, features)
    samples, header = section(run, "Samples"), card.gather(run, NOBODY).header
    assert ("fid" in samples.head) == ("fid" in header["metrics"]) == (features == "inception")
    assert any("is no FID" in note for note in samples.notes) == (features != "inception")


def test_a_training_that_goes_on_says_so_and_counts_the_images_of_each_batch_size(run):
    config = workdir.read(run, "config.json")
    config["training"] |= {"n_iters": 20, "batch_size": 32}
    workdir.write(run, "config.json", config)
    change(run, "launch.json", changes=[{"step": 6, "key": "training.batch_size", "from": 16, "to": 32}])
    training = section(run, "Training")
    assert ("images seen", "160", "launch.json, config.json") in training.rows  # 6 x 16 + 2 x 32
    assert "The training has not ended: 8 of 20 updates are made." in training.notes
    assert "At step 6 the training's training.batch_size was changed from 16 to 32." in training.notes


def test_hours_leave_pauses_out(run):
    times = {2: 0, 4: 1800, 6: 360_000, 8: 361_800}  # half an hour each, but for the night between
    lines = [json.dumps({"step": step, "training_loss": 1.0, "time": float(time)}) for step, time in times.items()]
    (run / "metrics.jsonl").write_text("\n".join(lines))
    assert facts(run, "Training")["hours of training, about"].startswith("2, at 9e+02 s an update")


def test_a_network_that_is_not_here_has_no_number_of_parameters(run):
    config = workdir.read(run, "config.json")
    config["model"] = {"name": "not_here:Net"}
    workdir.write(run, "config.json", config)
    assert facts(run, "Network")["parameters"] == card.NOT_RECORDED and facts(run, "Objective")["process"] == "vpsde"


def test_an_imported_checkpoint_says_that_its_training_is_not_recorded(run):
    change(run, "launch.json", imported={"step": 8, "file": "checkpoint.pth"})
    training = section(run, "Training")
    assert "How those were trained is not recorded." in training.notes
    assert not {"images seen", "batch"} & {row[0] for row in training.rows}


def test_audits_are_their_figures_with_an_interval_and_what_is_missing(run):
    (run / "audit").mkdir()
    share, test = {"value": 0.125, "low": 0.1, "high": 0.25}, {"share": 0.5, "p": 0.0123}
    of = {"step": 4, "memorised": {"gu": share, "exchangeable": test}, "balance": {"missing": "No labels."}}
    workdir.write(run / "audit", "results.json", {"audits": {"digits": of}})
    audits = section(run, "Audits")
    assert [row[:2] for row in audits.rows] == [
        ("memorised, Gu's ratio", "0.125 (0.1 to 0.25)"),
        ("memorised, exchangeable, share", "0.5"),
        ("memorised, exchangeable, p-value", "0.0123"),
    ]
    assert audits.rows[0][2].startswith("4 (stale") and audits.notes[0] == "balance: No labels."


def test_a_private_training_says_what_it_has_spent_and_another_that_it_is_none(run, monkeypatch):
    name = "differential privacy"
    assert facts(run, "Privacy") == {name: "trained without differential privacy"}
    config = workdir.read(run, "config.json")
    config["training"]["privacy"] = True
    workdir.write(run, "config.json", config)
    assert facts(run, "Privacy") == {name: card.NOT_RECORDED}
    workdir.write(run, privacy.RECORD, {"segments": []})
    monkeypatch.setattr(privacy, "spent", lambda directory: privacy.Spent(2.34567, 1e-5, 9, ()))
    guarantee = "(2.346, 1e-05)-differentially private after 9 updates"
    assert facts(run, "Privacy") == {name: guarantee, "relation": privacy.RELATION}


def test_a_licence_that_the_hub_does_not_know_keeps_the_authors_words(run):
    of_licence, of_nobody = (
        yaml.safe_load(card_text.markdown(card.gather(run, texts)).split("---")[1])
        for texts in (NOBODY | {"licence": "Ours: ask first"}, NOBODY)
    )
    assert of_licence == of_nobody | {"license": "other", "license_name": "Ours: ask first"}
    assert of_nobody["datasets"] == ["digits"] and of_nobody["metrics"] == ["loss", "bits_per_dim"]


def test_a_workdir_without_a_checkpoint_has_no_card(tmp_path, capsys):
    assert main(["score_sde", "--mode=card", f"--workdir={tmp_path}"]) == 2
    assert "No checkpoint in" in capsys.readouterr().err and not any(tmp_path.iterdir())
