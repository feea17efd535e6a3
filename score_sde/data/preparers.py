"""Preparers: data sets made from their original archives, without TensorFlow, as TFDS would prepare them.

The builder is TFDS's own, which fixes the name, version, features, splits and keys, and the recorded address, size and
SHA-256 of each archive. TFDS's readers need TensorFlow; those of `score_sde.data.readers` do not. CelebA-HQ and FFHQ
have no recorded checksum: their files are made or fetched by hand, and only the images' shapes and number are checked.
"""

import functools
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from score_sde.data import readers
from score_sde.data.readers import Examples
from score_sde.errors import UsageError, one_of
from score_sde.io.downloads import Download, fetch

Fetched = Callable[..., Path]  # the verified file of the first of these names that exists
Splits = dict[str, Examples]


class Preparer(NamedTuple):
    """A way to prepare a data set.

    splits: (TFDS builder, `Fetched`) -> the examples of each split. licence: terms and citation.
    """

    splits: Callable[[Any, Fetched], Splits]
    licence: str


def prepare(builder: str, directory: Path, archives: Path | None = None):
    """Prepares a data set as ArrayRecord in `directory`, from its original archives; returns the builder that reads it.

    builder: "name" or "name/config" of TFDS, or "ffhq/256", "ffhq/1024". A prepared data set is left as it is.
    archives: the folder of the original files under their original names, to which missing ones are downloaded if
        their publisher lets a program do so; default `directory`/downloads/manual.
    A kill leaves folders incomplete.* and files *.part, which nothing reads.
    Raises `UsageError` for an unknown name; a missing, damaged or different file; no network; no space.
    """
    import tensorflow_datasets as tfds

    preparer = _preparer(builder)
    archives = directory / "downloads" / "manual" if archives is None else archives
    tfds_builder = _builder(builder, directory)
    # The builder takes the splits from `preparer`, and reads no archive itself.
    tfds_builder._split_generators = lambda dl_manager: preparer.splits(
        tfds_builder, functools.partial(_fetched, tfds_builder, archives)
    )
    try:
        tfds_builder.download_and_prepare(file_format="array_record")
    except (OSError, RuntimeError) as error:  # ArrayRecord raises the latter when the disk is full
        advice = "free space, or set config.data.data_dir to a writable folder"
        raise UsageError(f"Cannot prepare {builder} in {directory} ({error}); {advice}.") from error
    return tfds.core.read_only_builder.builder_from_files(builder, data_dir=str(directory))


def licence(builder: str) -> str:
    """The terms of a data set as its publisher states them, and its citation. builder: as for `prepare`."""
    return _preparer(builder).licence


def _preparer(builder: str) -> Preparer:
    return PREPARERS[one_of("data set to prepare", builder.partition("/")[0], PREPARERS)]


def _builder(builder: str, directory: Path):
    """The builder of these files: TFDS's own where it has one."""
    import tensorflow_datasets as tfds

    name, _, config = builder.partition("/")
    if name == "ffhq":
        from score_sde.data.ffhq import FFHQ as cls  # noqa: N811
    else:
        cls = tfds.builder_cls(name)
    one_of("data set to prepare", builder, [f"{name}/{choice}" for choice in cls.builder_configs] or [name])
    tfds_builder = cls(data_dir=str(directory), config=config or None)
    file_format = tfds_builder.info.file_format
    if tfds_builder.data_path.exists() and file_format is not tfds.core.FileFormat.ARRAY_RECORD:
        raise UsageError(
            f"{tfds_builder.data_dir} holds {builder} as {file_format.value}, which is read with TensorFlow only: set "
            f"config.data.data_dir to another folder, or remove it."
        )
    return tfds_builder


def _fetched(builder, folder: Path, *names: str) -> Path:
    downloads = recorded(builder)
    for name in names:
        if name in downloads:
            return fetch(downloads[name], folder, "config.data.archives")
        if (folder / name).exists():
            return folder / name
    raise UsageError(
        f"{' or '.join(names)} is not in {folder}, and no program can download it: get it as {builder.info.homepage} "
        f"says and put it there, or set config.data.archives to the folder that holds it."
    )


def recorded(builder) -> dict[str, Download]:
    """The archives of a TFDS builder by file name, as TFDS recorded them."""
    infos = builder.url_infos or {}
    return {info.filename: Download(info.filename, url, int(info.size), info.checksum) for url, info in infos.items()}


def _cifar10(builder, fetched: Fetched) -> Splits:
    path = fetched("cifar-10-binary.tar.gz")
    builder.info.features["label"].names = list(readers.cifar10_labels(path))
    train = [f"data_batch_{i}.bin" for i in range(1, 6)]
    return {"train": readers.cifar10(path, train, "train"), "test": readers.cifar10(path, ["test_batch.bin"], "test")}


def _mnist(builder, fetched: Fetched) -> Splits:
    def split(stem: str) -> Examples:
        return readers.mnist(fetched(f"{stem}-images-idx3-ubyte.gz"), fetched(f"{stem}-labels-idx1-ubyte.gz"))

    return {"train": split("train"), "test": split("t10k")}


def _svhn(builder, fetched: Fetched) -> Splits:
    return {split: readers.svhn(fetched(f"{split}_32x32.mat"), split) for split in ("train", "test", "extra")}


def _celeb_a(builder, fetched: Fetched) -> Splits:
    images = fetched("img_align_celeba.zip")
    stems = ("list_eval_partition", "list_attr_celeba", "list_landmarks_align_celeba", "identity_CelebA")
    tables = [fetched(f"{stem}.txt") for stem in stems]
    return {split: readers.celeb_a(images, tables, i) for i, split in enumerate(("train", "validation", "test"))}


def _lsun(builder, fetched: Fetched) -> Splits:
    readers.lmdb()  # raises, if it is missing, before 43 GB are downloaded
    name = builder.builder_config.name
    archives = {"train": f"{name}_train_lmdb.zip", "validation": f"{name}_val_lmdb.zip"}
    if f"{name}.zip" in recorded(builder):  # objects have one split, scenes two
        archives = {"train": f"{name}.zip"}
    paths = {split: fetched(archive) for split, archive in archives.items()}
    return {split: readers.lsun(path, Path(builder.data_dir)) for split, path in paths.items()}


def _downsampled_imagenet(builder, fetched: Fetched) -> Splits:
    size = builder.builder_config.name
    paths = {"train": fetched(f"train_{size}.tar"), "validation": fetched(f"valid_{size}.tar")}
    return {split: readers.downsampled_imagenet(path) for split, path in paths.items()}


def _imagenet_resized(builder, fetched: Fetched) -> Splits:
    size = builder.builder_config.size
    train = ["train_part1", "train_part2"] if size == 64 else ["train"]
    paths = [fetched(f"Imagenet{size}_{part}_npz.zip") for part in [*train, "val"]]
    *train, validation = (readers.imagenet_resized(path, size) for path in paths)
    return {"train": itertools.chain(*train), "validation": validation}


IMAGES = {"celeb_a_hq": 30_000, "ffhq": 70_000}  # number of images in files without a checksum


def _celeb_a_hq(builder, fetched: Fetched) -> Splits:
    size = int(builder.builder_config.name)
    path = fetched(f"data{size}x{size}.tar", f"celebahq-r{size.bit_length() - 1:02d}.tfrecords")
    return {"train": readers.celeb_a_hq(path, size, IMAGES["celeb_a_hq"])}


def _ffhq(builder, fetched: Fetched) -> Splits:
    size = int(builder.builder_config.name)
    path = fetched(f"ffhq-r{size.bit_length() - 1:02d}.tfrecords")
    return {"train": readers.ffhq(path, size, IMAGES["ffhq"])}


_FACES = "Non-commercial research only."
_IMAGENET = "ImageNet's terms: non-commercial research and education. Deng et al. (2009), ImageNet;"
PREPARERS: dict[str, Preparer] = {  # by a TFDS name without its configuration
    "cifar10": Preparer(
        _cifar10, "No licence is stated. Krizhevsky (2009), Learning multiple layers of features from tiny images."
    ),
    "mnist": Preparer(_mnist, "CC BY-SA 3.0. LeCun, Cortes and Burges (2010), MNIST handwritten digit database."),
    "fashion_mnist": Preparer(_mnist, "MIT. Xiao, Rasul and Vollgraf (2017), Fashion-MNIST, arXiv:1708.07747."),
    "svhn_cropped": Preparer(
        _svhn, "Non-commercial use only. Netzer et al. (2011), Reading digits in natural images with feature learning."
    ),
    "celeb_a": Preparer(
        _celeb_a, f"{_FACES} Liu, Luo, Wang and Tang (2015), Deep learning face attributes in the wild."
    ),
    "lsun": Preparer(_lsun, "No licence is stated. Yu et al. (2015), LSUN, arXiv:1506.03365."),
    "downsampled_imagenet": Preparer(
        _downsampled_imagenet, f"{_IMAGENET} van den Oord et al. (2016), Pixel recurrent neural networks."
    ),
    "imagenet_resized": Preparer(
        _imagenet_resized, f"{_IMAGENET} Chrabaszcz et al. (2017), A downsampled variant of ImageNet, arXiv:1707.08819."
    ),
    "celeb_a_hq": Preparer(
        _celeb_a_hq, f"{_FACES} Liu et al. (2015); Karras et al. (2018), Progressive growing of GANs."
    ),
    "ffhq": Preparer(
        _ffhq, "CC BY-NC-SA 4.0, each photograph under its own licence. Karras, Laine and Aila (2019), StyleGAN."
    ),
}
