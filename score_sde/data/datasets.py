"""The table of data sets: where to find each, and how its images are cropped and resized."""

import os
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from score_sde.config import protocols
from score_sde.config.arguments import check_arguments
from score_sde.config.import_paths import choose, is_import_path
from score_sde.errors import nearest, one_of
from score_sde.runtime.backend import expanded, in_home


class Dataset(NamedTuple):
    """Location of a data set, and how its images are cropped and resized.

    builder: a TFDS name, "name/config", or "module:Class" of a builder of ours; "" for images at `config.data.path`.
    eval_split: default test, else validation, else a part of train that is held out.
    crop: shorter side of the central part that is kept before resizing by `filter`; None: as large as possible.
    stock: whether TFDS can prepare it.
    """

    builder: str
    eval_split: str | None = None
    crop: int | None = None
    filter: Image.Resampling = Image.Resampling.BILINEAR
    stock: bool = True

    @property
    def ours(self) -> bool:
        """Whether this package has its builder."""
        return ":" in self.builder


LSUN_SCENES = (
    "bedroom",
    "bridge",
    "church_outdoor",
    "classroom",
    "conference_room",
    "dining_room",
    "kitchen",
    "living_room",
    "restaurant",
    "tower",
)

DATASETS: dict[str, Dataset] = {
    "digits": Dataset("score_sde.data.digits:Digits", eval_split="test"),
    "cifar10": Dataset("cifar10", eval_split="test"),
    "svhn": Dataset("svhn_cropped", eval_split="test"),
    "mnist": Dataset("mnist", eval_split="test"),
    "fashion_mnist": Dataset("fashion_mnist", eval_split="test"),
    "imagenet_32": Dataset("downsampled_imagenet/32x32", eval_split="validation"),
    "imagenet_64": Dataset("downsampled_imagenet/64x64", eval_split="validation"),
    "celeba": Dataset("celeb_a", eval_split="validation", crop=140),
    **{
        f"lsun/{scene}": Dataset(f"lsun/{scene}", eval_split="validation", filter=Image.Resampling.BICUBIC)
        for scene in LSUN_SCENES
    },
    # These have one split; the paper trains and evaluates on the same images.
    "celebahq_256": Dataset("celeb_a_hq/256", eval_split="train"),
    "celebahq_1024": Dataset("celeb_a_hq/1024", eval_split="train"),
    "ffhq_256": Dataset("ffhq/256", eval_split="train", stock=False),
    "ffhq_1024": Dataset("ffhq/1024", eval_split="train", stock=False),
    # Made by this package, see `score_sde.data.loading.MADE`.
    "scenes": Dataset(""),
    "openmoji": Dataset(""),
    # Images of the user's own, at config.data.path.
    "folder": Dataset(""),
    "array": Dataset(""),
}


@check_arguments
def dataset(name: str, data_dir: str = "") -> Dataset:
    """The data set of this name: an entry of `DATASETS` (upper or lower case), an import path, or any other TFDS name.

    Raises `UsageError` for a name that is close to one in the table, and is neither prepared nor known to TFDS.
    """
    if is_import_path(name):
        choose("data.dataset", name, DATASETS, protocols.DataSet)  # raises where there is none
        return Dataset("")
    if name.lower() in DATASETS:
        return DATASETS[name.lower()]
    if nearest(name.lower(), DATASETS) and not (is_prepared(name, directory_of(data_dir)) or _is_stock(name)):
        one_of("data.dataset", name.lower(), DATASETS)
    return Dataset(name, stock=_is_stock(name))


def directory_of(data_dir: str) -> Path:
    """Folder of prepared data sets: `data_dir`, else the environment's TFDS_DATA_DIR, else ~/tensorflow_datasets."""
    directory = data_dir or os.environ.get("TFDS_DATA_DIR")
    return expanded(directory) if directory else in_home("tensorflow_datasets")


def is_prepared(name: str, directory: Path) -> bool:
    """Whether TFDS has prepared any version of a data set there, completely."""
    features = [path for depth in ("*", "*/*") for path in (directory / name).glob(f"{depth}/features.json")]
    return any("incomplete" not in path.parent.name for path in features)


def _is_stock(name: str) -> bool:
    import tensorflow_datasets as tfds

    return name.partition("/")[0] in tfds.list_builders(with_community_datasets=False)
