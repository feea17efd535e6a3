"""Pictures to read: smooth ones with a little noise, as a folder of files and as a data set of TFDS."""

import io
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from score_sde import data

SMALL, LARGE = 32, 256  # pixels wide
CALLED = "loader_pictures"


def picture(i: int, size: int) -> Image.Image:
    """The i-th: a function of its number. Compressed it takes what a photograph of that size takes."""
    rng = np.random.default_rng(i)
    smooth = Image.fromarray(rng.integers(0, 256, (6, 6, 3)).astype(np.uint8)).resize((size, size))
    noise = rng.normal(0, 6, (size, size, 3))
    return Image.fromarray(np.clip(np.asarray(smooth) + noise, 0, 255).astype(np.uint8))


def encoded(i: int, size: int, format: str) -> io.BytesIO:
    file = io.BytesIO()
    picture(i, size).save(file, format=format)
    file.seek(0)
    return file


def sources(directory: Path, workers: int, images: dict[str, int]) -> dict[str, data.Source]:
    """The cases, made in `directory`. images: how many of each."""
    names = {"folder of PNG": (SMALL, "png"), "folder of JPEG": (LARGE, "jpeg")}
    on_disk = {}
    for case, (size, format) in names.items():
        folder = directory / format
        folder.mkdir()
        for i in range(images[case]):
            (folder / f"{i:06d}.{format}").write_bytes(encoded(i, size, format).read())
        on_disk[case] = _load("folder", size, workers, path=str(folder))
    _prepare(directory, images["ArrayRecord"])
    on_disk["ArrayRecord"] = _load(CALLED, SMALL, workers, data_dir=str(directory))
    pixels = np.random.default_rng(0).integers(0, 256, (images["in memory"], SMALL, SMALL, 3), dtype=np.uint8)
    return {"in memory": data.InMemory(pixels)} | on_disk


def _load(name: str, size: int, workers: int, **options) -> data.Source:
    """A source on disk, whatever its size."""
    common = dict(held_out=0, in_memory_gib=0, num_workers=workers)
    return data.load(name, train=True, image_size=size, num_channels=3, **common, **options)


def _prepare(directory: Path, n: int) -> None:
    class Pictures(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        name = CALLED
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = tfds.features.FeaturesDict({"image": tfds.features.Image(shape=(SMALL, SMALL, 3))})
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for i in range(n):
                yield i, {"image": encoded(i, SMALL, "png")}

    Pictures(data_dir=str(directory), file_format="array_record").download_and_prepare()
