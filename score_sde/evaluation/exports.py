"""Samples in the forms that other programs read: `config.sampling.save`.

| form       | files beside STEM.npz                                   | read by, for example                       |
|------------|---------------------------------------------------------|--------------------------------------------|
| `png`      | STEM/000000.png, one for each sample, in one folder;    | pytorch-fid, torch-fidelity, clean-fid     |
|            | and STEM/metadata.jsonl, where samples have captions    | `data.dataset=folder`, Hugging Face        |
| `png_1000` | STEM/000000/000000.png, in folders of 1,000             | EDM's fid.py, clean-fid                    |
| `arr_0`    | STEM.arr_0.npz: `arr_0`, uint8 (n, h, w, c), and        | the evaluation of ADM (guided diffusion),  |
|            | `arr_1`, the labels, where samples are of classes       | `data.dataset=array`                       |

The files are made of the rounds of samples, which a killed program keeps. Each is written as a whole, or not at all,
and one that exists is not written again.
"""

import json
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from score_sde.array_types import Int, Pixels
from score_sde.data.readers import png
from score_sde.errors import UsageError
from score_sde.io import atomic_files
from score_sde.runtime.progress import bar
from score_sde.runtime.sharding import all_agree, is_first

Place = Callable[[int], str]  # a sample's number -> its file, in the folder STEM
PLACES: dict[str, Place] = {
    "png": lambda number: f"{number:06d}.png",
    "png_1000": lambda number: f"{number - number % 1000:06d}/{number:06d}.png",
}
ARRAY = "arr_0"


def check_forms(forms: Sequence[str], channels: int) -> None:
    """Raises `UsageError` for samples that PNG cannot hold, and for two forms in one folder."""
    pictures = [form for form in forms if form in PLACES]
    if pictures and channels not in (1, 3, 4):
        raise UsageError(f"A PNG has 1, 3 or 4 channels, and these samples {channels}; leave sampling.save at arr_0.")
    if len(pictures) > 1:
        raise UsageError("sampling.save has png and png_1000, which write the same folder; choose one.")


def export(
    forms: Sequence[str],
    folder: Path,
    stem: str,
    rounds: Sequence[Callable[[], Pixels]],
    n: int,
    labels: Int[np.ndarray, " n"] | None = None,
    captions: Sequence[str] | None = None,
) -> list[Path]:
    """Writes samples in these forms, and returns the paths of what is there now.

    folder, stem: as of the rounds. rounds: functions that read the samples of each round, n in all. labels, captions:
    of all samples. Raises `UsageError` where nothing can be written.

        from pathlib import Path

        import numpy as np
        from score_sde.evaluation.exports import export

        samples = np.zeros((2, 8, 8, 3), np.uint8)
        paths = export(["png", "arr_0"], Path("samples"), "of_mine", [lambda: samples], 2)
    """
    paths = []
    for form in (form for form in forms if form in PLACES):
        _pictures(folder / stem, PLACES[form], rounds, n)
        if captions is not None:
            _metadata(folder / stem, PLACES[form], captions)
        paths.append(folder / stem)
    if ARRAY in forms:
        path = folder / f"{stem}.{ARRAY}.npz"
        if not all_agree(path.exists()):
            atomic_files.replace(path, lambda file: _arrays(file, rounds, n, labels))
        paths.append(path)
    return paths


def _pictures(folder: Path, place: Place, rounds: Sequence[Callable[[], Pixels]], n: int) -> None:
    number = 0
    with bar("writing PNG files", n, "img") as progress:
        for read in rounds:
            for image in read():
                path = folder / place(number)
                if is_first() and not path.exists():
                    atomic_files.replace(path, lambda file, image=image: file.write(png(image)))
                number += 1
                progress.update(1)


def _metadata(folder: Path, place: Place, captions: Sequence[str]) -> None:
    """Writes the captions beside the pictures, a line for each in the form of Hugging Face's image folders."""
    lines = [
        json.dumps({"file_name": place(number), "text": caption}, ensure_ascii=False) + "\n"
        for number, caption in enumerate(captions)
    ]
    atomic_files.replace(folder / "metadata.jsonl", lambda file: file.write("".join(lines).encode()))


def _arrays(file: BinaryIO, rounds: Sequence[Callable[[], Pixels]], n: int, labels: np.ndarray | None) -> None:
    """Writes an .npz file round by round: all samples together may not fit in memory."""
    with zipfile.ZipFile(file, "w") as archive:
        with archive.open(zipfile.ZipInfo(f"{ARRAY}.npy"), mode="w", force_zip64=True) as member:  # without a date
            for number, read in enumerate(rounds):
                pixels = np.ascontiguousarray(read())
                if number == 0:
                    header = {"descr": "|u1", "fortran_order": False, "shape": (n, *pixels.shape[1:])}
                    np.lib.format.write_array_header_1_0(member, header)
                member.write(pixels.tobytes())
        if labels is not None:
            with archive.open(zipfile.ZipInfo("arr_1.npy"), mode="w") as member:
                np.lib.format.write_array(member, np.asarray(labels, np.int64), allow_pickle=False)
