"""What is read is data: nothing in it is run, nothing grows without bound, and a page shows it as text."""

import ast
import io
import struct
import types
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile
from test_data import prepare

from score_sde import data
from score_sde.data import records
from score_sde.data.decoding import MAX_PIXELS, decode
from score_sde.data.sources import Stored
from score_sde.errors import UsageError
from score_sde.io import html_page, unpickler

PACKAGE = Path(__file__).parent.parent / "score_sde"
FILES = sorted(PACKAGE.rglob("*.py"))
RUNS_WHAT_IT_READS = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
SCRIPT = "<script>alert(1)</script>"


def unsafe(tree: ast.AST) -> list[str]:
    """What could run, or load something that could run, in a module's source."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.split(".")[0] in RUNS_WHAT_IT_READS]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in RUNS_WHAT_IT_READS:
            found.append(node.module)
        elif isinstance(node, ast.Name) and node.id in ("eval", "exec", "compile", "__import__"):
            found.append(node.id)
        elif isinstance(node, ast.Attribute) and ast.unparse(node) in ("torch.load", "pd.read_pickle"):
            found.append(ast.unparse(node))
        elif isinstance(node, ast.keyword) and node.arg == "allow_pickle" and ast.unparse(node.value) != "False":
            found.append("allow_pickle")
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_that_is_read_is_run(path):
    restricted = ["pickle"] if path.name == "unpickler.py" else []  # see below, and test_import_checkpoint.py
    assert unsafe(ast.parse(path.read_text())) == restricted


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from cloudpickle import loads",
        "np.load(file, allow_pickle=True)",
        "torch.load(file)",
        "eval(text)",
        "f = exec",
        "__import__(name)",
    ],
)
def test_the_search_finds_what_it_is_for(source):
    assert len(unsafe(ast.parse(source))) == 1


def test_pickle_is_used_only_to_be_restricted():
    """Its one use is a base class that answers every name and reference of a file itself."""
    tree = ast.parse(Path(unpickler.__file__).read_text())
    uses = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id == "pickle"]
    (reader,) = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Unpickler"]
    assert [ast.unparse(base) for base in reader.bases] == ["pickle.Unpickler"] and len(uses) == 1
    assert {"find_class", "persistent_load"} <= {node.name for node in reader.body if isinstance(node, ast.FunctionDef)}


def png_of_zeros(width: int, height: int) -> bytes:
    """A grey PNG of any size, black, some hundred bytes a million pixels: one compressed piece repeated."""

    def part(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    rows = next(n for n in range(max(1, 10_000_000 // width), 0, -1) if height % n == 0)
    piece = zlib.compressobj(9, wbits=-15)
    repeated = piece.compress(bytes((width + 1) * rows)) + piece.flush(zlib.Z_FULL_FLUSH)
    checksum = struct.pack(">HH", height * (width + 1) % 65521, 1)  # Adler-32 of zeros
    stream = b"\x78\xda" + repeated * (height // rows) + b"\x03\x00" + checksum
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + part(b"IDAT", stream) + part(b"IEND", b"")


@pytest.fixture
def nothing_is_decoded(monkeypatch):
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("decoded"))


@pytest.mark.parametrize("side", [9000, 12_000, 30_000])  # below, between and above Pillow's own bounds
def test_a_decompression_bomb_is_refused_by_its_header(side, nothing_is_decoded):
    bomb = png_of_zeros(side, side)
    assert len(bomb) < 1_000_000 < MAX_PIXELS < side * side
    with pytest.raises(UsageError, match=r"Cannot read number 7 .*pixels.*prepare the data set again"):
        decode(bomb, "number 7")


def test_the_bomb_is_an_image():
    np.testing.assert_array_equal(decode(png_of_zeros(300, 200)), np.zeros((200, 300, 1)))


def image_file(format: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3)).astype(np.uint8)).save(file, format=format)
    return file.getvalue()


@pytest.mark.parametrize("format", ["png", "jpeg", "webp", "bmp", "gif", "tiff", "avif"])
def test_whole_images_are_read_and_cut_ones_refused(format):
    whole = image_file(format)
    assert decode(whole).shape == (40, 40, 3)
    for kept in (0, 10, 40, len(whole) // 2):
        with pytest.raises(UsageError, match="Cannot read an image"):
            decode(whole[:kept])


def test_other_formats_are_not_opened():
    for format in ("ppm", "tga", "pcx", "jpeg2000", "ico"):
        with pytest.raises(UsageError, match="none of PNG, JPEG, "):
            decode(image_file(format))


def test_a_damaged_image_of_a_data_set_is_named(tmp_path, monkeypatch):
    whole = image_file("png")
    pictures = [Stored(whole, None), Stored(whole[: len(whole) // 2], None)]
    monkeypatch.setattr(records.Records, "read", lambda self, indices: [pictures[i] for i in indices])
    prepare(tmp_path, "cifar10", (40, 40, 3), (("train", 2), ("test", 2)))
    with pytest.raises(UsageError, match=r"cifar10's image number 1 of split test .*prepare the data set again"):
        data.load("cifar10", train=False, image_size=40, num_channels=3, data_dir=str(tmp_path))


def test_the_digits_page_shows_its_values_as_text(tmp_path, tiny_config, monkeypatch):
    report = pytest.importorskip("score_sde.experiments.digits.report")
    from score_sde.experiments.digits import conditional

    monkeypatch.setattr(html_page, "picture", lambda *args, **kwargs: "")
    config = tiny_config()
    config.sampling.update(predictor=SCRIPT, corrector=SCRIPT)
    config.data.data_dir = SCRIPT
    folder = tmp_path / "<script>"
    folder.mkdir()
    (folder / "metrics.jsonl").write_text('{"step": 1, "training_loss": 1.0}\n{"step": 1, "eval_loss": 1.0}\n')
    pixels = np.zeros((report.TIMES, 8, 8, 1), np.uint8)
    model = types.SimpleNamespace(config=config, step=1)
    samplers = [report.SamplerResult(name, pixels, 1.0, 1.0) for name in report.NAMES]
    bpd = {"mean": 1.0, "standard_error": 1.0, "images": 1, "repeats": 1, "nfe": 1.0}
    confusion, figure = np.eye(10, dtype=int), {"mean": 1.0, "standard_error": 0.1}
    classes = conditional.OfClasses(np.zeros((10 * conditional.EACH, 8, 8, 1), np.uint8), confusion, 0.9, 31.0)
    halves = conditional.Halves(
        np.zeros((8, 8, 3), np.uint8), dict.fromkeys(("psnr", "psnr_of_mean", "spread"), figure)
    )
    metrics = {SCRIPT: figure, "warning": SCRIPT, "baselines": {"noise": {"images": 40, SCRIPT: figure}}}
    measured = dict.fromkeys(report.NAMES, metrics | {"fingerprint": "ab", "protocol": {}})
    written = report.write_report(folder, SCRIPT, model, pixels, samplers, pixels, bpd, classes, halves, measured)
    content = written.read_text()
    assert "100.0% ± 0.0% recognised" in content and "PSNR of samples 1.00 ± 0.10 dB" in content
    assert "noise (40)" in content
    assert "<script" not in content and content.count("&lt;script&gt;") >= 8


def test_the_truth_table_shows_its_values_as_text(tmp_path):
    report = pytest.importorskip("score_sde.experiments.truth_table.report")
    from score_sde.experiments.truth_table.measure import Record

    page = report.write_page(tmp_path, [Record(SCRIPT, SCRIPT, False)], 1.0).read_text()
    assert "<script" not in page and page.count("&lt;script&gt;") == 2
