"""Records: data sets that tensorflow-datasets prepared as ArrayRecord, read without TensorFlow."""

import contextlib
import importlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

from score_sde.data import held_out, preparers
from score_sde.data.datasets import DATASETS, dataset, directory_of, is_prepared
from score_sde.data.sources import Pictures, Stored, Subset
from score_sde.data.split_report import SplitReport
from score_sde.errors import UsageError
from score_sde.runtime.backend import expanded
from score_sde.runtime.sharding import first_goes_first


class Records(Pictures):
    """A split of a prepared data set: its feature `image`, and `label` if that is a class."""

    def __init__(self, builder: Any, split: str, name: str):
        import tensorflow_datasets as tfds

        self._name, self._split, self._builder = name, split, builder
        raw = tfds.decode.DeserializeMethod.RAW_BYTES  # decoding CelebA's forty others would take most time
        self._records = builder.as_data_source(split=split, deserialize_method=raw)
        label = dict(builder.info.features.items()).get("label")
        self._labelled = isinstance(label, tfds.features.ClassLabel)
        self.class_names = label.names if self._labelled else None

    def __len__(self) -> int:
        return len(self._records)

    def read(self, indices: Sequence[int]) -> list[Stored]:
        from tensorflow_datasets.proto import tf_example_pb2

        pictures = []
        for record in self._records.__getitems__(indices):  # many at once, because one by one takes ten times as long
            feature = tf_example_pb2.Example.FromString(record).features.feature
            label = int(feature["label"].int64_list.value[0]) if self._labelled else None
            pictures.append(Stored(feature["image"].bytes_list.value[0], label))
        return pictures

    def name(self, index: int) -> str:
        return f"{self._name}'s image number {index} of split {self._split}"

    def fingerprint(self) -> Any:
        info = self._builder.info
        split = info.splits[self._split]
        files = sorted((Path(path).name, Path(path).stat().st_size) for path in split.filepaths)
        return [info.full_name, self._split, files]


def open_split(name: str, options: Any, *, train: bool) -> Pictures:
    """The training or evaluation split of a data set that `find` finds. options: see `loading.Options`.

    Raises `UsageError` where there is no such split, it is empty, or it has no feature `image`.
    """
    entry, builder = dataset(name, options.data_dir), find(name, options.data_dir, options.archives)
    splits = [split for split in builder.info.splits if builder.info.splits[split].num_examples]
    _check_image(builder, name)
    eval_split = entry.eval_split or next((split for split in ("test", "validation") if split in splits), None)
    split = "train" if train or eval_split is None else eval_split
    if split not in splits:
        existing = f"only {', '.join(splits)}" if splits else "none"
        raise UsageError(
            f"{name} as prepared has no images in a split {split}, {existing}; prepare the data set again."
        )
    records = Records(builder, split, name)
    if name.lower() not in DATASETS:  # its splits and labels are a guess
        others = {f"in split {key}": builder.info.splits[key].num_examples for key in splits}
        left_out = {key: n for key, n in others.items() if key not in ("in split train", f"in split {eval_split}")}
        part = f"from split {split}" if train or eval_split else "held out" if options.held_out else ""
        records.report = SplitReport(part, "", left_out)
    if eval_split is not None:
        return records
    names = [str(i) for i in range(len(records))]
    return Subset(records, held_out.side(names, options.held_out, train=train, source=f"The split train of {name}"))


def find(name: str, data_dir: str = "", archives: str = "") -> Any:
    """The prepared TFDS builder of a data set; it is prepared now, if that is possible and has not been done.

    data_dir: default the environment's TFDS_DATA_DIR, else ~/tensorflow_datasets. archives: folder of the
    original files, default downloads/manual in `data_dir`. Raises `UsageError` when there is no such set.
    """
    entry, directory = dataset(name, data_dir), directory_of(data_dir)
    with first_goes_first(), _without_bars():
        if not entry.ours and is_prepared(entry.builder, directory):
            return _read(entry.builder, directory)
        with _alone(directory, name):
            if entry.ours:
                return _prepare_ours(name, entry.builder, directory)
            if is_prepared(entry.builder, directory):  # by the run that held the lock
                return _read(entry.builder, directory)
            return _prepare(entry.builder, directory, expanded(archives) if archives else None, entry.stock)


@contextlib.contextmanager
def _without_bars() -> Iterator[None]:
    """Switches off TFDS's progress bars, which fill a log file; on a terminal and in a notebook they stay."""
    import tensorflow_datasets as tfds

    in_log = not sys.stderr.isatty() and "ipykernel" not in sys.modules
    if in_log:
        tfds.disable_progress_bar()
    try:
        yield
    finally:
        if in_log:
            tfds.enable_progress_bar()


@contextlib.contextmanager
def _alone(directory: Path, name: str) -> Iterator[None]:
    """Waits for a lock and holds it: of several runs that start together, one prepares the data set."""
    with contextlib.ExitStack() as held:
        with contextlib.suppress(OSError):  # a folder that cannot be written raises later
            directory.mkdir(parents=True, exist_ok=True)
            held.enter_context(FileLock(directory / f".{name.replace('/', '_')}.lock", fallback_to_soft=False))
        yield


def _prepare_ours(name: str, path: str, directory: Path) -> Any:
    module, cls = path.split(":")
    try:
        builder = getattr(importlib.import_module(module), cls)(data_dir=str(directory), file_format="array_record")
        builder.download_and_prepare()
    except OSError as error:
        advice = "set config.data.data_dir to a writable folder"
        raise UsageError(f"Cannot prepare {name} in {directory} ({error}); {advice}.") from error
    return builder


def _read(name: str, directory: Path) -> Any:
    """The builder that reads a prepared data set. Raises `UsageError` if it is damaged, or needs TensorFlow."""
    import tensorflow_datasets as tfds

    try:
        builder = tfds.core.read_only_builder.builder_from_files(name, data_dir=str(directory))
        kind = builder.info.file_format
    except Exception as error:  # TFDS raises various types for a folder it cannot read
        reason = str(error).strip().partition("\n")[0]
        raise UsageError(
            f"Cannot read the '{name}' in {directory} ({reason}); remove {directory / name} and prepare it again."
        ) from error
    if kind is not tfds.core.FileFormat.ARRAY_RECORD:
        raise UsageError(
            f"The '{name}' in {directory} is prepared as {kind.value}, which needs TensorFlow; prepare it as "
            f"ArrayRecord in another folder, and set config.data.data_dir to that: {_how(name)}."
        )
    return builder


def _prepare(name: str, directory: Path, archives: Path | None, stock: bool) -> Any:
    """Prepares the data set from its archives, if possible. Raises `UsageError` otherwise."""
    missing = f"No prepared '{name}' in {directory}"
    if _preparable(name):
        try:
            return preparers.prepare(name, directory, archives)
        except UsageError as error:
            raise UsageError(f"{missing}: {error}") from error
    own = f"a builder of your own named '{name}', with a feature 'image', since TFDS has none"
    raise UsageError(
        f"{missing}: set config.data.data_dir or TFDS_DATA_DIR to the folder that holds it as ArrayRecord; to prepare "
        f"it, where TensorFlow is installed (pip install tensorflow-cpu): {_how(name) if stock else own}."
    )


def licence(name: str) -> str:
    """The terms of a TFDS data set that we prepare, and its citation; "" for others."""
    return preparers.licence(name) if _preparable(name) else ""


def _preparable(name: str) -> bool:
    return name.partition("/")[0] in preparers.PREPARERS


def _how(name: str) -> str:
    return f"tfds.builder('{name}', data_dir=..., file_format='array_record').download_and_prepare()"


def _check_image(builder: Any, name: str) -> None:
    import tensorflow_datasets as tfds

    features = dict(builder.info.features.items())
    if not isinstance(features.get("image"), tfds.features.Image):
        raise UsageError(
            f"{name} has no feature 'image' that is one; it has {', '.join(features)}: choose another data.dataset."
        )
