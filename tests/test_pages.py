"""The pages of all programs share one look, ask the network for nothing, and can be read in light and in the dark."""

import base64
import hashlib
import itertools
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from score_sde.experiments.benchmark import report as benchmark
from score_sde.experiments.compare import report as compare
from score_sde.experiments.compare.runs import Run
from score_sde.experiments.compare.samples import Drawn
from score_sde.experiments.paper import report as paper
from score_sde.experiments.paper.run import Filled
from score_sde.experiments.paper.tables import SCALES, TABLES
from score_sde.experiments.sweep import report as sweep
from score_sde.experiments.sweep.results import Figure, Row
from score_sde.experiments.truth_table import report as truth_table
from score_sde.experiments.truth_table.measure import Record
from score_sde.experiments.truth_table.rows import FLOW

from score_sde.evaluation import report
from score_sde.evaluation.figure_names import best_of
from score_sde.io import html_page

ROOT = Path(__file__).parent.parent
KINDS = ("eval", "compare", "sweep", "paper", "truth table", "benchmark")
LONG = "a_name_without_a_space_that_is_wider_than_a_column"


class Page(HTMLParser):
    """Tags of a page with their attributes, in order, and the tags around each piece of text."""

    def __init__(self, text: str):
        super().__init__()
        self.text, self.tags, self.around, self._open = text, [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes), len(self.around)))
        if tag not in ("img", "meta"):
            self._open.append(tag)

    def handle_endtag(self, tag):
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data):
        self.around.append((data, tuple(self._open)))

    def of(self, name: str) -> list[dict]:
        return [attributes for tag, attributes, _ in self.tags if tag == name]

    def lines(self) -> list[list[str]]:
        """The cells of each row of each table."""
        rows = re.findall(r"<tr[^>]*>(.*?)</tr>", self.text, re.DOTALL)
        return [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in rows]


def entry(step: int, loss: float) -> dict:
    return {"step": step, "loss": {"mean": loss, "standard_error": 0.01}}


def evaluation(folder: Path, *entries: dict) -> Path:
    for each in entries:
        inside = folder / f"step_{each['step']:08d}"
        inside.mkdir(parents=True)
        np.savez(inside / "samples.npz", images=np.zeros((4, 8, 8, 1), np.uint8))
    np.savez(folder / report.REAL, images=np.full((4, 8, 8, 1), 255, np.uint8))
    with_samples = [each | {"sampling": {"nfe": 20.0}} for each in entries]
    content = {"config": {"optim.lr": LONG}, "versions": {"jax": "0"}, "devices": ["cpu"], "checkpoints": with_samples}
    return report.write(folder, content)


def comparison(folder: Path) -> Path:
    def run(name: str, loss: float) -> Run:
        config = {"optim.lr": LONG + name, "data.dataset": "digits"}
        reports = {"eval": {"checkpoints": [entry(4, loss)]}}
        lines = [{"step": step, "training_loss": 1 / step, "time": 60 * step} for step in (1, 2)]
        return Run(name, folder / name, config, {}, lines, reports)

    pixels = np.zeros((4, 8, 8, 1), np.uint8)
    drawn = [Drawn(name, pixels, "step 4") for name in ("a", "b")]
    compare.write(
        folder / "compare.html", [run("a", 0.3), run("b", 0.2)], drawn, real=[Drawn("real images", pixels, "digits")]
    )
    return folder / "compare.html"


def sheets(monkeypatch) -> None:
    drawn = {"samples": "samples of a run", "real": "real images"}
    for name, alt in drawn.items():
        picture = html_page.picture(np.zeros((8, 8, 3), np.uint8), alt)
        monkeypatch.setattr(sweep, name, lambda run, picture=picture: picture)


class Trained:
    """A run of a sweep as far as its page looks at it."""

    def __init__(self, point: dict):
        self.point, self.workdir, self.report = point, Path("runs") / LONG, {}


def swept(folder: Path) -> Path:
    losses = {1e-3: 0.2, 1e-2: 0.3}
    rows = [
        Row(
            {"optim.lr": lr},
            4,
            (Trained({"optim.lr": lr}),),
            {"loss": Figure(loss, 0.01, 1), "NFE": Figure(9, None, 1)},
            (),
        )
        for lr, loss in losses.items()
    ]
    return sweep.write(folder, "rates", rows, ["score_sde --mode=train"], "loss")


def of_paper(folder: Path) -> Path:
    whole = TABLES["table1"](SCALES["toy"])
    picture = html_page.picture(np.zeros((8, 8, 3), np.uint8), "samples")
    figure = Figure(2.0, 0.1, 1)
    filled = [
        Filled(
            cell, figure, None, figure, "cpu", 60.0, "0123456789ab", "", ("score_sde --mode=eval",), picture, picture
        )
        for cell in whole.cells[:3]
    ]
    return paper.write(folder, "table1", whole, "toy", filled, [])


def of_truth_table(folder: Path) -> Path:
    errors = {"Gaussian": [0.1, 0.025]}
    record = Record("dpmpp_2m", "VP", True, FLOW, "time", 2, (10, 20), errors, {"Gaussian": 2.0}, {"Gaussian": 2})
    return truth_table.write_page(folder, [record, record._replace(misses=("a miss",))], 1.0)


def of_benchmark(folder: Path) -> Path:
    facts = {"devices": 1, "device": "cpu", "cores": 2, "rounds": 3, "peer": None, "matrix_rate": {}, "command": LONG}
    row = {"network": "DDPM++", "task": "train", "by": "score_sde, tf32", "batch": 8, "images_a_second": 9.0}
    benchmark.write(folder / "page.html", facts | {"versions": {"jax": "0", "python": "3"}}, [row])
    return folder / "page.html"


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> dict[str, Page]:
    """A page of each kind."""
    folder = tmp_path_factory.mktemp("pages")
    make = (
        lambda into: evaluation(into / "eval", entry(2, 0.3), entry(4, 0.2)),
        *(comparison, swept, of_paper, of_truth_table, of_benchmark),
    )
    written = {}
    with pytest.MonkeyPatch.context() as patch:
        sheets(patch)
        patch.setattr(sweep, "curve", lambda run, name: ([1, 2], [0.3, 0.2]))
        for kind, write in zip(KINDS, make, strict=True):
            (folder / kind).mkdir()
            written[kind] = Page(write(folder / kind).read_text())
    return written


@pytest.fixture(params=KINDS)
def page(request, pages) -> Page:
    return pages[request.param]


def test_no_page_asks_the_network_for_anything(page):
    for _, attributes, _ in page.tags:
        for name in ("src", "href", "xlink:href", "srcset", "data", "action", "poster"):
            assert attributes.get(name, "#").startswith(("#", "data:"))
    assert all(place.startswith("#") for place in re.findall(r"url\([\"']?(.*?)[\"']?\)", page.text))
    assert "@import" not in page.text and not {"link", "iframe", "object"} & {tag for tag, *_ in page.tags}
    (policy,) = [each["content"] for each in page.of("meta") if each.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; img-src data:;")


def test_the_only_script_is_the_one_that_sorts_and_its_digest_is_allowed(pages):
    for kind, page in pages.items():
        scripts = re.findall(r"<script[^>]*>(.*?)</script>", page.text, re.DOTALL)
        sortable = any(each.get("class") == "sortable" for each in page.of("table"))
        assert len(scripts) == sortable == (kind in ("compare", "sweep", "benchmark"))
        for script in scripts:
            digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
            assert f"'sha256-{digest}'" in page.text


def test_every_picture_and_chart_says_in_words_what_it_shows(page):
    assert all(each["alt"].strip() for each in page.of("img"))
    assert all(each["role"] == "img" and each["aria-label"].strip() for each in page.of("svg"))


def test_all_pages_have_the_style_and_the_template_of_one_module(page):
    assert page.text.startswith("<!doctype html>") and f"<style>{html_page.STYLE}</style>" in page.text
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.of("meta")


def test_no_other_module_writes_a_page():
    own = re.compile("<!doctype|<html", re.IGNORECASE)
    files = [path for folder in ("score_sde", "experiments") for path in (ROOT / folder).rglob("*.py")]
    assert [path.name for path in files if own.search(path.read_text())] == ["html_page.py"]


def test_samples_stand_before_settings_and_settings_are_folded(pages):
    for kind in ("eval", "compare", "sweep", "paper"):
        tags = [tag for tag, *_ in pages[kind].tags]
        last_picture = len(tags) - 1 - tags[::-1].index("img")
        assert last_picture < tags.index("details")
        assert not any("open" in each for each in pages[kind].of("details"))
    for kind, words in {"eval": "optim.lr = ", "compare": LONG, "sweep": "--mode=train", "paper": "jax = "}.items():
        places = [around for text, around in pages[kind].around if words in text]
        assert places and all("details" in around for around in places)


def test_real_images_stand_beside_samples(pages):
    for kind in ("eval", "compare", "sweep", "paper"):
        captions = [text for text, around in pages[kind].around if "figcaption" in around]
        assert sum("eal images" in text for text in captions) == 1


def test_a_table_breaks_its_lines_so_that_it_need_not_be_moved_sideways(pages):
    assert "nowrap" not in html_page.STYLE
    for page in pages.values():
        assert len(re.findall('<div class="pan( dense)?"><table', page.text)) == len(page.of("table")) > 0
        for line in page.lines():
            assert len(line) <= 13, "a table of more columns does not fit"
    assert f'<td class="long">runs/{LONG}</td>' in pages["sweep"].text


def test_the_column_that_sorts_and_the_best_are_marked(pages):
    head, first, second = pages["sweep"].lines()[:3]
    assert re.search(rf'<th aria-sort="ascending">{head[2]}</th>', pages["sweep"].text) and head[2] == "loss"
    assert pages["sweep"].text.count('<tr class="best">') == 1
    assert f'<tr class="best"><td>{first[0]}</td>' in pages["sweep"].text and first[2] < second[2]
    assert '<td>b</td><td>eval</td><td>4</td><td class="best">0.200 ± 0.010</td>' in pages["compare"].text
    assert pages["eval"].text.count('class="best"') == 1
    assert pages["truth table"].text.count('<tr class="miss">') == 1


def test_the_best_is_the_least_error_and_the_highest_recall_and_no_one_where_they_are_equal():
    assert best_of("fid (0123456789ab)", [3.0, None, 2.0]) == 2
    assert best_of("recall[features=trained-7bb6f4a4]", [0.2, 0.5]) == 1
    assert best_of("accuracy, mean over noise levels", [0.9, 0.5]) == 0
    assert best_of("loss", [1.0, 1.0, 2.0]) is None
    assert best_of("loss", [1.0, None, float("nan")]) is None


def luminance(colour: str) -> float:
    """The relative luminance of a colour, as in the web's accessibility guidelines."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(weight * each for weight, each in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(a: str, b: str) -> float:
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


def test_text_and_curves_stand_out_from_the_page_in_the_light_and_in_the_dark():
    light, dark = re.findall(r":root \{(.*?)\}", html_page.STYLE)
    assert html_page.STYLE.count("@media (prefers-color-scheme: dark)") == 1 and contrast("#000000", "#ffffff") == 21
    for scheme in (light, dark):
        colours = dict(re.findall(r"--([\w-]+): (#\w{6});", scheme))
        for text, ground in itertools.product(("ink", "dim"), ("sheet", "panel", "best", "miss", "warn")):
            assert contrast(colours[text], colours[ground]) > 4.5, (text, ground)
        for curve in (name for name in colours if name.startswith("curve")):
            assert contrast(colours[curve], colours["sheet"]) > 4.5, curve
    names = [re.findall(r"--([\w-]+):", scheme) for scheme in (light, dark)]
    assert names[0] == names[1] and len(html_page.COLOURS) == len(html_page.DARK_COLOURS)


def test_every_colour_of_a_chart_follows_the_scheme(page):
    drawn = "".join(re.findall(r"<svg.*?</svg>", page.text, re.DOTALL))
    assert not re.findall(r"(?:fill|stroke): #\w+", drawn)
    assert set(re.findall(r"var\(--([\w-]+),", drawn)) <= set(html_page.OF_COLOURS.values())


def test_as_many_real_images_as_samples_are_kept_and_the_same_ones_again(tmp_path, tiny_config):
    config = tiny_config()
    report.keep_real(tmp_path, config, 11)
    first = (tmp_path / report.REAL).read_bytes()
    with np.load(tmp_path / report.REAL) as stored:
        assert stored["images"].shape == (9, 8, 8, 1) and stored["images"].std() > 50
    report.keep_real(tmp_path, tiny_config(), 11)
    assert (tmp_path / report.REAL).read_bytes() == first
    config.sampling.condition = "class=3"  # of which these images may have none
    report.keep_real(tmp_path, config, 11)
    assert not (tmp_path / report.REAL).exists()


def test_one_process_alone_keeps_real_images(tmp_path, tiny_config, monkeypatch):
    monkeypatch.setattr(report, "is_first", lambda: False)
    report.keep_real(tmp_path, tiny_config(), 4)
    assert list(tmp_path.iterdir()) == []


def test_a_page_without_samples_shows_no_real_images(tmp_path):
    np.savez(tmp_path / report.REAL, images=np.zeros((4, 8, 8, 1), np.uint8))
    content = {"config": {}, "versions": {}, "devices": [], "checkpoints": [entry(2, 0.3)]}
    assert "<img" not in report.write(tmp_path, content).read_text()
