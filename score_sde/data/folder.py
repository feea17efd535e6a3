"""A user's own images, of any size, in a folder or in files: their splits, labels and captions, and what is left out.

Folders `train` (or `training`) and `test` (`testing`; otherwise `val`, `valid`, `validation`, `eval`, `evaluation`,
`dev`), in any case, are the splits; without them some images are held out for evaluation. Ambiguous folders raise.
"""

import io
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from score_sde.data import caption_files, held_out, label_files
from score_sde.data.caption_files import Captions
from score_sde.data.containers import KINDS, Archive, Container, Entry, Label, Listing, suffixes
from score_sde.data.own_files import opened
from score_sde.data.sources import Pictures, Stored, each
from score_sde.data.split_names import SPLITS, TEST, TRAINING, VALIDATION
from score_sde.data.split_report import SplitReport
from score_sde.errors import UsageError, shown

LABELS = ("auto", "folders", "none")  # values of `loading.Options.labels`
THREADS = 16  # that read files, which mostly wait for the disk
ADVICE = "remove or replace it, or leave such images out with config.data.corrupt=skip"


class Files(Pictures):
    """Pictures of a container, sorted by path.

    labels, class_names: a number for each picture, and the names of these numbers, or None. captions: a text for each,
    or None. written: whether the labels are stored, and so do not come from the paths. folder: the split's, which
    identities of pictures leave out.
    """

    advice = ADVICE

    def __init__(
        self,
        container: Container,
        entries: Sequence[Entry],
        labels: Sequence[int] | None = None,
        class_names: Sequence[str] | None = None,
        *,
        captions: Sequence[str] | None = None,
        written: bool = False,
        report: SplitReport | None = None,
        folder: str = "",
    ):
        self._container, self._entries, self._labels, self.class_names = container, list(entries), labels, class_names
        self.captions, self._written, self.report, self._folder = captions, written, report, folder

    def __len__(self) -> int:
        return len(self._entries)

    def read(self, indices: Sequence[int]) -> list[Stored]:
        content, labels = self._container.content, self._labels
        return [Stored(content(self._entries[i]), None if labels is None else labels[i]) for i in indices]

    @contextmanager
    def opened(self, index: int) -> Iterator[io.BufferedIOBase]:
        """One picture as a file, of which not all has to be read."""
        with self._container.open(self._entries[index].place) as file:
            yield file

    def name(self, index: int) -> str:
        return self._container.name(self._entries[index])

    def fingerprint(self) -> Any:
        identities: list[Any] = [None] * len(self)

        def look(i: int) -> None:
            path, place = self._entries[i][:2]
            identities[i] = (_portable(path.removeprefix(self._folder)), *self._container.identity(place))

        each(look, len(self), "comparing files", THREADS)
        return [identities, list(self._labels or ()), self.class_names] if self._written else identities

    def where(self, keep: Callable[[int], bool]) -> "Files":
        """The pictures at the indices for which `keep` is true."""
        kept = [i for i in range(len(self)) if keep(i)]
        labels = None if self._labels is None else [self._labels[i] for i in kept]
        captions = None if self.captions is None else [self.captions[i] for i in kept]
        entries, options = [self._entries[i] for i in kept], dict(report=self.report, folder=self._folder)
        options["captions"] = captions
        return Files(self._container, entries, labels, self.class_names, written=self._written, **options)

    def close(self) -> None:
        self._container.close()


def _portable(path: str) -> str:
    """The bytes of a path as UTF-8, the same in any locale."""
    return os.fsencode(path).decode("utf-8", "surrogateescape")


def open_split(name: str, options: Any, *, train: bool) -> Files:
    """The training or evaluation images of the folder or file `options.path`.

    Raises `UsageError` where there are none, where a class has none, where it is not clear which folders are splits and
    which are classes, and as `caption_files.read`. name: not used. options: see `loading.Options`.
    """
    container = opened(options.path, labels=options.labels == "auto", captions=options.captions == "auto")
    if options.labels == "folders" and not container.classes_are_folders:
        raise UsageError(
            f"{container.root} has its labels in a column, not in folders; leave config.data.labels=folders out."
        )
    folders = _splits(container, options.labels)
    trees = [_captioned(_tree(container, folder, options.labels), container, options) for folder in folders]
    tree = trees[0 if train else -1]
    notes = (f"captions {tree.captions.source}",) if tree.captions else ()
    report = SplitReport(container.part(tree.folder), tree.source, _left_out(container, trees, options.corrupt), notes)
    if len(trees) == 2:
        return _files(container, tree, trees[0], report, folder=tree.folder)
    if not train:
        report = report._replace(part="held out" if options.held_out else "")
    names, source = [entry.path for entry in tree.entries], shown(container.root)
    kept = set(held_out.side(names, options.held_out, train=train, source=source).tolist())
    return _files(container, tree, tree, report).where(kept.__contains__)


def _splits(container: Container, mode: str) -> tuple[str] | tuple[str, str]:
    """The folder for training, and the one for evaluation if it exists: `train/`, `test/`; "" for the whole folder.

    With data.labels=folders, one without a partner is a class, whatever its name.
    """
    root, listing = container.root, container.listing
    kinds: dict[str, list[str]] = {}
    for name in sorted(name for name in listing.folders if "/" not in name):
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
    beside = [*kinds.get("", []), *(entry.path for entry in listing.images if "/" not in entry.path)]
    if train and not beside:
        return (f"{train[0]}/",)
    (name,), partner = train or evaluation, "test" if train else "train"
    with_others = f" beside {beside[0]}" if beside else ""
    raise UsageError(
        f"{root} has a folder {name}{with_others}, by its name a split, and no folder {partner}; add that, or give "
        f"config.data.path={root / name} to have all of it alone, or set config.data.labels=folders if it is a class."
    )


class _Tree(NamedTuple):
    """The images of the whole container, or of a split, and a number or name for each.

    source: where the labels come from, or why there are none. table: file of labels. stored: whether labels are stored,
    in such a file or beside the images. unmatched: labels for images that are missing. captions: of the images.
    """

    folder: str
    entries: list[Entry]
    labels: list[Label] | None
    source: str = ""
    table: str = ""
    stored: bool = False
    unmatched: Sequence[str] = ()
    captions: Captions | None = None


def _captioned(tree: _Tree, container: Container, options: Any) -> _Tree:
    if options.captions == "none":
        return tree
    skip = options.corrupt == "skip"
    return tree._replace(captions=caption_files.read(container, tree.folder, tree.entries, skip=skip))


def _tree(container: Container, folder: str, mode: str) -> _Tree:
    root, listing = container.root, container.listing
    entries = [entry for entry in listing.images if entry.path.startswith(folder)]
    if not entries:
        raise UsageError(f"No images in {root / folder} ({KINDS}); put some there, or remove it.")
    paths = [entry.path for entry in entries]
    _refuse_merged(root, folder, paths)
    if mode == "none":
        return _Tree(folder, entries, None, "by data.labels=none")
    if mode == "auto" and any(entry.label is not None for entry in entries):
        return _of_entries(_Tree(folder, entries, None, listing.labelled, stored=True), container)
    for above in dict.fromkeys((folder, "")) if mode == "auto" else ():
        if table := label_files.read(container, above):
            tree = _Tree(folder, entries, None, f"by {table.name}", above + table.name, stored=True)
            return _of_table(tree, root, listing, table)
    return _Tree(folder, entries, _of_folders(container, folder, paths, mode))


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


def _of_entries(tree: _Tree, container: Container) -> _Tree:
    """The tree with labels that are stored beside the images."""
    where, unlabelled = shown(container.root), [entry for entry in tree.entries if entry.label is None]
    if unlabelled:
        raise UsageError(
            f"{container.name(unlabelled[0])} has no label, as others of {where} do; add it, or set "
            "config.data.labels=none."
        )
    rows = ((container.name(entry), entry.label) for entry in tree.entries)
    labels = label_files.of_one_kind(where, rows)
    return tree._replace(labels=labels, unmatched=container.listing.unpaired)


def _of_table(tree: _Tree, root: Path, listing: Listing, table: label_files.Table) -> _Tree:
    """The tree with labels from a file."""
    if table.labels is None:
        return tree
    above = tree.table.removesuffix(table.name)
    labels = [table.labels.get(entry.path.removeprefix(above)) for entry in tree.entries]
    if None in labels:
        image = root / tree.entries[labels.index(None)].path
        raise UsageError(f"{root / tree.table} has no label of {image}; add it, or set {label_files.OTHERWISE}.")
    images = {entry.path for entry in listing.images}
    unmatched = [above + name for name in table.labels if above + name not in images]
    return tree._replace(labels=labels, unmatched=unmatched)


def _of_folders(container: Container, folder: str, paths: Sequence[str], mode: str) -> list[str] | None:
    """The class folder of each image: CLASS/FILE, or deeper with data.labels=folders. None if no image is in one.

    Raises `UsageError` where some images are in class folders and others are not, and for a class without images.
    """
    root, inside = container.root, [path[len(folder) :] for path in paths]
    depths = [path.count("/") for path in inside]
    if not container.classes_are_folders or (mode == "auto" and 1 not in depths):
        return None
    for path, depth in zip(inside, depths, strict=True):
        if depth == 0:
            where, advice = "in no class folder", "move it into one, or set config.data.labels=none"
            raise UsageError(f"{root / folder / path} is {where}, where others are; {advice}.")
        if depth > 1 and mode == "auto":
            advice = "set config.data.labels=folders, by which the topmost folders are classes, or none"
            raise UsageError(f"{root / folder / path} is deeper than other images in class folders; {advice}.")
    names = [path.partition("/")[0] for path in inside]
    tops = {name[len(folder) :].partition("/")[0] for name in container.listing.folders if name.startswith(folder)}
    for empty in sorted(tops - {*names, ""}):
        raise UsageError(
            f"The class folder {root / folder / empty} has no images ({KINDS}); put some there, or remove it."
        )
    return names


def _files(container: Container, tree: _Tree, training: _Tree, report: SplitReport, *, folder: str = "") -> Files:
    """The tree, with its labels numbered as in the training split."""
    options = dict(report=report, folder=folder, captions=tree.captions.texts if tree.captions else None)
    if tree.labels is None or training.labels is None:
        return Files(container, tree.entries, **options)
    numbers = all(isinstance(label, int) for label in training.labels)
    classes = None if numbers else sorted(set(training.labels))
    places = {name: i for i, name in enumerate(classes or ())}
    for label in tree.labels:
        if not (isinstance(label, int) if numbers else label in places):
            kind = "label" if tree.stored else "class folder"
            raise UsageError(
                f"{container.root / folder} has a {kind} {label} that {container.root / training.folder} has not; "
                "remove one or add the other."
            )
    labels = list(tree.labels) if numbers else [places[label] for label in tree.labels]
    names = container.listing.class_names if numbers else [shown(name) for name in classes]
    return Files(container, tree.entries, labels, names, written=tree.stored, **options)


def _left_out(container: Container, trees: Sequence[_Tree], corrupt: str) -> dict[str, int]:
    """Number of things of each kind that lie beneath the folder and are not read.

    Raises `UsageError` for labels without an image in an archive, which is made at once; a folder may have lost some.
    """
    listing = container.listing
    captions = [tree.captions for tree in trees if tree.captions]
    used = {tree.table for tree in trees}.union(*(of_tree.files for of_tree in captions))
    result = suffixes(path for path in listing.others if path not in used) + Counter(listing.unread)
    if all(tree.folder for tree in trees):
        tops = (entry.path.partition("/") for entry in listing.images)
        outside = Counter(top + slash if slash else "" for top, slash, _ in tops)
        for folder, number in outside.items():
            if folder not in [tree.folder for tree in trees]:
                result[f"in {shown(folder)}" if folder else "outside of these"] = number
    for tree in trees:
        if tree.unmatched and isinstance(container, Archive) and corrupt != "skip":
            source = shown(container.root / tree.table)
            raise UsageError(
                f"{source} has a label of {shown(tree.unmatched[0])}, an image that is missing there; make the file "
                "again, or leave such labels out with config.data.corrupt=skip."
            )
        if tree.unmatched:
            result[f"of {tree.table or 'labels'} without an image"] = len(tree.unmatched)
    for of_tree in captions:
        if of_tree.unmatched:
            result[f"of {min(of_tree.files)} without an image"] = len(of_tree.unmatched)
    return dict(result) | ({"hidden": listing.hidden} if listing.hidden else {})
