"""A folder of images of any size, with all its subfolders: its splits, its labels, and the files left out.

Folders `train` (or `training`) and `test` (`testing`; otherwise `val`, `valid`, `validation`, `eval`, `evaluation`,
`dev`), in any case, are the splits; without them some images are held out for evaluation. Ambiguous folders raise.
"""

import os
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from score_sde.data import decoding, held_out, label_files
from score_sde.data.label_files import Label
from score_sde.data.sources import Pictures, Stored, each
from score_sde.data.split_report import SplitReport, counted
from score_sde.errors import UsageError, shown
from score_sde.runtime.backend import expanded

KINDS = ", ".join(decoding.FORMATS)
SUFFIXES = tuple(suffix for suffixes in decoding.SUFFIXES.values() for suffix in suffixes)
TRAINING, TEST, VALIDATION = "training", "test", "validation"
SPLITS = {
    **dict.fromkeys(("train", "training"), TRAINING),
    **dict.fromkeys(("test", "testing"), TEST),
    **dict.fromkeys(("val", "valid", "validation", "eval", "evaluation", "dev"), VALIDATION),
}
LABELS = ("auto", "folders", "none")  # values of `loading.Options.labels`
PIECE = 2**14  # bytes that a file's checksum covers at each of three places
THREADS = 16  # that read files, which mostly wait for the disk
ADVICE = "remove or replace it, or leave such images out with config.data.corrupt=skip"


class Files(Pictures):
    """Image files of a folder, sorted by relative path.

    labels, class_names: a number for each file, and the names of these numbers, or None. written: whether the labels
    come from a file, and so not from the paths.
    """

    advice = ADVICE

    def __init__(
        self,
        root: Path,
        paths: Sequence[str],
        labels: Sequence[int] | None = None,
        class_names: Sequence[str] | None = None,
        *,
        written: bool = False,
        report: SplitReport | None = None,
    ):
        self._root, self.paths, self._labels, self.class_names = root, list(paths), labels, class_names
        self._written, self.report = written, report

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, indices: Sequence[int]) -> list[Stored]:
        return [Stored(self._root / self.paths[i], None if self._labels is None else self._labels[i]) for i in indices]

    def name(self, index: int) -> str:
        return shown(self._root / self.paths[index])

    def fingerprint(self) -> Any:
        identities: list[Any] = [None] * len(self)

        def look(i: int) -> None:
            identities[i] = (_portable(self.paths[i]), *_pieces(self._root / self.paths[i]))

        each(look, len(self), "comparing files", THREADS)
        return [identities, list(self._labels or ()), self.class_names] if self._written else identities

    def where(self, keep: Callable[[int], bool]) -> "Files":
        """The files at the indices for which `keep` is true."""
        kept = [i for i in range(len(self)) if keep(i)]
        labels = None if self._labels is None else [self._labels[i] for i in kept]
        paths = [self.paths[i] for i in kept]
        return Files(self._root, paths, labels, self.class_names, written=self._written, report=self.report)


def _pieces(path: Path) -> tuple[int, int]:
    """A file's size, and a checksum of its begin, middle and end, which is all of a small file.

    Compression lets most changes of a picture show there; reading all of every file takes as long as an epoch.
    """
    with path.open("rb") as file:
        size, checksum = file.seek(0, os.SEEK_END), 0
        for start in (0, (size - PIECE) // 2, size - PIECE):
            file.seek(max(0, start))
            checksum = zlib.crc32(file.read(PIECE), checksum)
    return size, checksum


def open_split(name: str, options: Any, *, train: bool) -> Files:
    """The training or evaluation images of the folder `options.path`.

    Raises `UsageError` where there are none, where a class has none, and where it is not clear which folders are splits
    and which are classes. name: not used. options: see `loading.Options`.
    """
    root = _root(options.path)
    listing = _listing(root)
    folders = _splits(root, listing, options.labels)
    trees = [_tree(root, folder, listing, options.labels) for folder in folders]
    left_out = _left_out(listing, trees)
    tree = trees[0 if train else -1]
    report = SplitReport(f"from {shown(tree.folder)}" if tree.folder else "", tree.source, left_out)
    if len(trees) == 2:
        return _files(root, tree, trees[0], report, beneath=True)
    if not train:
        report = report._replace(part="held out" if options.held_out else "")
    kept = set(held_out.side(tree.paths, options.held_out, train=train, source=shown(root)).tolist())
    return _files(root, tree, tree, report).where(kept.__contains__)


def _root(path: str) -> Path:
    if not path:
        raise UsageError("data.dataset=folder needs config.data.path=DIR, the folder of the images.")
    root = expanded(path)
    if not root.is_dir():
        raise UsageError(f"config.data.path={path} is no folder; give the one that holds the images.")
    return root


class _Listing(NamedTuple):
    """Files beneath a folder, by paths relative to it: images, sorted; other files; folders at the top.

    hidden: number of images and folders whose names begin with a dot, which are left out.
    """

    images: list[str]
    others: list[str]
    tops: list[str]
    hidden: int


def _listing(root: Path) -> _Listing:
    images, others, tops, seen, hidden = [], [], [], set(), 0
    try:
        for folder, folders, names in os.walk(root, onerror=_cannot_list, followlinks=True):
            relative = Path(folder).relative_to(root)
            split = next((top for top in relative.parts[:1] if top.lower() in SPLITS), "")
            here = split, os.path.realpath(folder)  # one split may be a link to the other
            if here in seen or ("", here[1]) in seen:  # a link that leads back
                folders.clear()
                continue
            hidden += sum(name.startswith(".") for name in (*folders, *filter(_is_image, names)))
            folders[:] = [name for name in folders if not name.startswith(".")]
            tops = tops if seen else sorted(folders)
            seen.add(here)
            for name in names:
                if not name.startswith("."):
                    (images if _is_image(name) else others).append((relative / name).as_posix())
    except OSError as error:
        raise UsageError(f"Cannot list {error.filename} ({error.strerror}); make it readable.") from error
    if not images:
        but = f", but {counted(_suffixes(others))}" if others else ""
        raise UsageError(f"No images in {root} ({KINDS}){but}; give the folder that holds them as config.data.path.")
    return _Listing(sorted(images, key=os.fsencode), others, tops, hidden)


def _is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)


def _cannot_list(error: OSError) -> None:
    raise error


def _portable(path: str) -> str:
    """The bytes of a path as UTF-8, the same in any locale."""
    return os.fsencode(path).decode("utf-8", "surrogateescape")


def _splits(root: Path, listing: _Listing, mode: str) -> tuple[str] | tuple[str, str]:
    """The folder for training, and the one for evaluation if it exists: `train/`, `test/`; "" for the whole folder.

    With data.labels=folders, one without a partner is a class, whatever its name.
    """
    kinds: dict[str, list[str]] = {}
    for name in listing.tops:
        kinds.setdefault(SPLITS.get(name.lower(), ""), []).append(name)
    train, evaluation = kinds.get(TRAINING, []), kinds.get(TEST) or kinds.get(VALIDATION, [])
    paired = train and evaluation
    if not (train or evaluation) or (mode == "folders" and not paired):
        return ("",)
    for same in (train, evaluation):
        if len(same) > 1:
            names = " and ".join(map(shown, same))
            raise UsageError(f"{root} has folders {names}, the same split by their names; keep one of them.")
    if paired:
        return f"{train[0]}/", f"{evaluation[0]}/"
    beside = [*kinds.get("", []), *(path for path in listing.images if "/" not in path)]
    if train and not beside:
        return (f"{train[0]}/",)
    (name,), partner = train or evaluation, "test" if train else "train"
    with_others = f" beside {beside[0]}" if beside else ""
    raise UsageError(
        f"{root} has a folder {name}{with_others}, by its name a split, and no folder {partner}; add that, or give "
        f"config.data.path={root / name} to have all of it alone, or set config.data.labels=folders if it is a class."
    )


class _Tree(NamedTuple):
    """The images of the whole folder, or of a split: paths relative to the root, and a number or name for each.

    source: where the labels come from, or why there are none. unmatched: rows of a file of labels that have no image.
    """

    folder: str
    paths: list[str]
    labels: list[Label] | None
    source: str = ""
    table: str = ""
    unmatched: int = 0


def _tree(root: Path, folder: str, listing: _Listing, mode: str) -> _Tree:
    paths = [path for path in listing.images if path.startswith(folder)]
    if not paths:
        raise UsageError(f"No images in {root / folder} ({KINDS}); put some there, or remove it.")
    _refuse_merged(root, folder, paths)
    if mode == "none":
        return _Tree(folder, paths, None, "by data.labels=none")
    for above in dict.fromkeys((folder, "")) if mode == "auto" else ():
        if table := label_files.read(root / above):
            return _of_table(_Tree(folder, paths, None, f"by {table.name}", above + table.name), root, listing, table)
    return _Tree(folder, paths, _of_folders(root, folder, paths, mode))


def _refuse_merged(root: Path, folder: str, paths: Sequence[str]) -> None:
    """Raises `UsageError` for folders like train and test that lie deeper than splits may, and would be merged."""
    splits: dict[Path, dict[bool, str]] = {}
    for inside in sorted({path.rpartition("/")[0][len(folder) :] for path in paths}):
        for path in (Path(inside), *Path(inside).parents):
            if (kind := SPLITS.get(path.name.lower())) and (folder or path.parent != Path()):
                splits.setdefault(path.parent, {})[kind == TRAINING] = path.name
    for parent, names in splits.items():
        if len(names) == 2:
            here = shown(root / folder / parent)
            raise UsageError(
                f"{here} has folders {names[True]} and {names[False]}, which would become one; give "
                f"config.data.path={here}, or move all images of each into such a folder of {shown(root)}."
            )


def _of_table(tree: _Tree, root: Path, listing: _Listing, table: label_files.Table) -> _Tree:
    """The tree with labels from a file."""
    if table.labels is None:
        return tree
    above = tree.table.removesuffix(table.name)
    labels = [table.labels.get(path.removeprefix(above)) for path in tree.paths]
    if None in labels:
        image = root / tree.paths[labels.index(None)]
        raise UsageError(f"{root / tree.table} has no label of {image}; add it, or set {label_files.OTHERWISE}.")
    unmatched = {above + name for name in table.labels}.difference(listing.images)
    return tree._replace(labels=labels, unmatched=len(unmatched))


def _of_folders(root: Path, folder: str, paths: Sequence[str], mode: str) -> list[str] | None:
    """The class folder of each image: CLASS/FILE, or deeper with data.labels=folders. None if no image is in one.

    Raises `UsageError` where some images are in class folders and others are not, and for a class without images.
    """
    inside = [path[len(folder) :] for path in paths]
    depths = [path.count("/") for path in inside]
    if mode == "auto" and 1 not in depths:
        return None
    for path, depth in zip(inside, depths, strict=True):
        if depth == 0:
            where, advice = "in no class folder", "move it into one, or set config.data.labels=none"
            raise UsageError(f"{root / folder / path} is {where}, where others are; {advice}.")
        if depth > 1 and mode == "auto":
            advice = "set config.data.labels=folders, by which the topmost folders are classes, or none"
            raise UsageError(f"{root / folder / path} is deeper than other images in class folders; {advice}.")
    names = [path.partition("/")[0] for path in inside]
    classes = set(names)
    for path in sorted((root / folder).iterdir()):
        if path.is_dir() and not path.name.startswith(".") and path.name not in classes:
            raise UsageError(f"The class folder {path} has no images ({KINDS}); put some there, or remove it.")
    return names


def _files(root: Path, tree: _Tree, training: _Tree, report: SplitReport, *, beneath: bool = False) -> Files:
    """The tree, with its labels numbered as in the training split.

    beneath: paths are relative to the tree's folder.
    """
    base = root / tree.folder if beneath else root
    paths = [path.removeprefix(tree.folder) for path in tree.paths] if beneath else tree.paths
    if tree.labels is None or training.labels is None:
        return Files(base, paths, report=report)
    numbers = all(isinstance(label, int) for label in training.labels)
    classes = None if numbers else sorted(set(training.labels))
    places = {name: i for i, name in enumerate(classes or ())}
    for label in tree.labels:
        if not (isinstance(label, int) if numbers else label in places):
            kind = "label" if tree.table else "class folder"
            raise UsageError(
                f"{base} has a {kind} {label} that {root / training.folder} has not; remove one or add the other."
            )
    labels = list(tree.labels) if numbers else [places[label] for label in tree.labels]
    names = None if numbers else [shown(name) for name in classes]
    return Files(base, paths, labels, names, written=bool(tree.table), report=report)


def _left_out(listing: _Listing, trees: Sequence[_Tree]) -> dict[str, int]:
    """Number of things of each kind that lie beneath the folder and are not read."""
    used = {tree.table for tree in trees}
    result = Counter(_suffixes(path for path in listing.others if path not in used))
    if all(tree.folder for tree in trees):
        tops = (path.partition("/") for path in listing.images)
        outside = Counter(top + slash if slash else "" for top, slash, _ in tops)
        for folder, number in outside.items():
            if folder not in [tree.folder for tree in trees]:
                result[f"in {shown(folder)}" if folder else "outside of these"] = number
    for tree in trees:
        if tree.unmatched:
            result[f"of {tree.table} without an image"] = tree.unmatched
    return dict(result) | ({"hidden": listing.hidden} if listing.hidden else {})


def _suffixes(paths: Iterable[str]) -> Counter[str]:
    return Counter(shown(Path(path).suffix.lower()) or "without a suffix" for path in paths)
