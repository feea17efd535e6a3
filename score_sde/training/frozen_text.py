"""Captions as features of a published text encoder, whose files the user has: `text.frozen`, a folder.

| file                | what it has                                                                |
|---------------------|----------------------------------------------------------------------------|
| `config.json`       | the layout and its sizes: `score_sde.models.text_layouts`                  |
| `model.safetensors` | the tensors, float32, float16 or bfloat16                                  |
| `tokenizer.json`    | the tokenizer, read by the library `tokenizers` of the extra `text`        |

The encoder is not trained, so a caption is encoded once. Its features are rounded to float16, which moves a number by
at most 1 part in 2,048, or by 3e-8 if it is below 6e-5; they are the same whether they were computed or kept.
"""

import functools
import hashlib
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np

from score_sde.config.arguments import check_arguments
from score_sde.data.sources import hashed
from score_sde.data.text_cond import MOST_TOKENS, TextCond
from score_sde.errors import UsageError, shown
from score_sde.io import json_files, safetensors_files
from score_sde.io.array_cache import Newest, RowFile
from score_sde.models.text_layouts import Layout, layout_of
from score_sde.runtime.backend import cache_folder, program

TENSORS, TOKENIZER, CONFIG = "model.safetensors", "tokenizer.json", "config.json"
FILES = (TENSORS, TOKENIZER, CONFIG)
BATCH = 16  # captions that are encoded at once; always as many, so that features do not depend on the others
NEEDED = f"give a folder with {TENSORS}, {TOKENIZER} and {CONFIG} by --config.text.frozen=FOLDER"


class Frozen(TextCond):
    """Captions as features of the tokens of a published encoder: BERT and MiniLM, CLIP's text tower, or T5's encoder.

    folder: with model.safetensors, tokenizer.json and config.json. max_tokens: length that all captions are padded to;
    the special tokens that the tokenizer adds count. truncate: cut longer captions, instead of refusing them.

    The condition's entries are `text`, float32 (n, max_tokens, size), 0 at padded places, and `text_mask`, bool
    (n, max_tokens), True where there is a token. The features of the last captions stay in memory, and those of all in
    a file of the cache folder, up to 1 GiB; it is named by the digests of the encoder's files.

    Raises `UsageError` for a missing file, another layout, tensors that do not fit, and without the library
    `tokenizers`.
    """

    kind = "frozen"
    entries = ("text", "text_mask")

    @check_arguments
    def __init__(self, folder: Path, max_tokens: Annotated[int, MOST_TOKENS] = 32, truncate: bool = False):
        self.folder, self.max_tokens, self.truncate = folder, max_tokens, truncate
        self.files = _identities(folder)
        self._layout = layout_in(folder)
        if (self._layout.places or max_tokens) < max_tokens:
            raise UsageError(
                f"text.max_tokens={max_tokens} is more than the {self._layout.places} places of the encoder in "
                f"{shown(folder)}; set text.max_tokens to at most {self._layout.places}."
            )
        self._tokenizer, self._cutting_tokenizer = _tokenizers(folder / TOKENIZER, max_tokens)
        self._params = None
        self._tensors = self._layout.read(safetensors_files.read(folder / TENSORS), shown(folder / TENSORS))
        size = self._tokenizer.get_vocab_size()
        if size > self._layout.vocab_size:
            raise UsageError(
                f"{shown(folder / TOKENIZER)} has {size:,} tokens, and {TENSORS} the features of "
                f"{self._layout.vocab_size:,}; give the files of one encoder."
            )
        self._newest, self._lock = Newest(), threading.Lock()
        kept = cache_folder() / "text" / f"{hashed([self.files, max_tokens])}.sqlite"
        self._kept = RowFile(kept, self.size, "<f2")
        self._program = program(self._layout.__call__)

    @property
    def size(self) -> int:
        """The number of features of a token."""
        return self._layout.size

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Number of tokens of each caption, with the special ones. Raises `UsageError` for a caption without any."""
        lengths = [len(tokens) for tokens in _encoded(self._tokenizer, texts)]
        if 0 in lengths:
            raise UsageError(
                f"The caption {texts[lengths.index(0)]!r:.80} has no token for the encoder in {shown(self.folder)}; "
                "mend it."
            )
        return lengths

    def cond(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
        """The features of captions, which are computed for those that have not been seen.

        Raises `UsageError` for a caption that is too long or no text.
        """
        features = np.zeros((len(texts), self.max_tokens, self.size), np.float32)
        mask = np.zeros(features.shape[:2], bool)
        for row, array in enumerate(self._features(texts)):
            features[row, : len(array)], mask[row, : len(array)] = array, True
        return {"text": features, "text_mask": mask}

    def to_json(self) -> dict[str, Any]:
        """The folder, and the sizes and digests of its files; not the weights."""
        content = {"kind": self.kind, "folder": str(self.folder.absolute()), "files": self.files}
        return content | {"max_tokens": self.max_tokens, "truncate": self.truncate}

    def digest(self) -> str:
        """A digest of all that features depend on: of the files, wherever they are."""
        return hashed({name: value for name, value in self.to_json().items() if name != "folder"})

    @classmethod
    def of_json(cls, content: Mapping[str, Any]) -> "Frozen":
        """The text condition that `to_json` describes. Raises `UsageError` for files that are gone or have changed."""
        folder = Path(content["folder"])
        files = _identities(folder)
        if changed := [name for name in FILES if files[name] != content["files"][name]]:
            raise UsageError(
                f"{shown(folder / changed[0])} is not the file that this run was trained with; put that one there, or "
                "give its folder by --config.text.frozen=FOLDER."
            )
        return cls(folder, content["max_tokens"], content["truncate"])

    def _features(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The features of each caption, float16 (tokens, size)."""
        with self._lock:
            features = {text: self._newest.get(text) for text in texts}
            new = [text for text, array in features.items() if array is None]
            tokens = dict(zip(new, self._tokens(new), strict=True))
            keys = {text: bytes.fromhex(hashed(tokens[text])) for text in new}
            kept = self._kept.get(list(keys.values()))
            missing = {keys[text]: tokens[text] for text in new if keys[text] not in kept}
            computed = self._computed(missing)
            self._kept.put(computed)
            for text in new:
                features[text] = (kept | computed)[keys[text]]
                self._newest.put(text, features[text])
            return [features[text] for text in texts]

    def _tokens(self, texts: Sequence[str]) -> list[list[int]]:
        lengths = self.lengths(texts)
        self._check_lengths(texts, lengths)
        return _encoded(self._cutting_tokenizer, texts)

    def _computed(self, tokens: Mapping[bytes, list[int]]) -> dict[bytes, np.ndarray]:
        """The features of captions by key."""
        result, keys = {}, list(tokens)
        for start in range(0, len(keys), BATCH):
            part = keys[start : start + BATCH]
            result |= zip(part, self._batch([tokens[key] for key in part]), strict=True)
        return result

    def _batch(self, tokens: Sequence[list[int]]) -> list[np.ndarray]:
        """The features of at most BATCH captions."""
        padded = np.zeros((BATCH, self.max_tokens), np.int32)
        mask = np.zeros(padded.shape, bool)
        for row, each in enumerate(tokens):
            padded[row, : len(each)], mask[row, : len(each)] = each, True
        if self._params is None:  # on the device from the first caption on that is not kept
            self._params, self._tensors = jax.device_put(self._tensors), None
        with jax.default_matmul_precision("highest"):
            features = np.asarray(self._program(self._params, padded, mask))
        with np.errstate(over="ignore"):
            features = features.astype("<f2")
        if not np.isfinite(features[mask]).all():
            raise UsageError(f"The encoder in {shown(self.folder)} has features above 65,504; choose another.")
        return [features[row, : len(each)].copy() for row, each in enumerate(tokens)]


@check_arguments
def layout_in(folder: Path) -> Layout:
    """The layout that the config.json of a folder describes, before its tensors are read: `layout_in(folder).size`.

    Raises `UsageError` for a missing file, and for another layout.
    """
    _check_files(folder, [CONFIG])
    return layout_of(json_files.read(folder / CONFIG, advice=NEEDED), shown(folder / CONFIG))


def _check_files(folder: Path, names: Sequence[str] = FILES) -> None:
    if not folder.is_dir():
        raise UsageError(f"There is no folder {shown(folder)}; {NEEDED}.")
    if missing := [name for name in names if not (folder / name).is_file()]:
        raise UsageError(f"{shown(folder)} has no {missing[0]}; {NEEDED}.")


def _identities(folder: Path) -> dict[str, dict[str, Any]]:
    """The size in bytes and the digest, 32 hexadecimal digits, of each file."""
    _check_files(folder)
    result = {}
    for name in FILES:
        path = folder / name
        try:
            facts = path.stat()
            result[name] = {"bytes": facts.st_size, "digest": _digest(path, facts.st_size, facts.st_mtime_ns)}
        except OSError as error:
            raise UsageError(f"Cannot read {shown(path)} ({error.strerror}); {NEEDED}.") from error
    return result


@functools.lru_cache
def _digest(path: Path, size: int, changed: int) -> str:
    """The digest of a file, read once for each size and time of its last change: encoders can have gigabytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _tokenizers(path: Path, max_tokens: int) -> tuple[Any, Any]:
    """The tokenizer of a file, and one that cuts texts to max_tokens, of which the special tokens stay."""
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise UsageError('text.frozen needs the library tokenizers: pip install "score-sde[text]".') from error
    try:
        whole, cutting = (Tokenizer.from_file(str(path)) for _ in range(2))
    except Exception as error:  # the library raises this class itself
        raise UsageError(f"{shown(path)} is no tokenizer that can be read ({error}); {NEEDED}.") from error
    special = whole.num_special_tokens_to_add(False)
    if max_tokens <= special:
        raise UsageError(f"{shown(path)} adds {special} tokens to each caption; set text.max_tokens above {special}.")
    for tokenizer in (whole, cutting):
        tokenizer.no_padding()
    whole.no_truncation()
    cutting.enable_truncation(max_tokens)
    return whole, cutting


def _encoded(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """The tokens of each text. Raises `UsageError` for one that UTF-8 does not encode."""
    try:
        return [each.ids for each in tokenizer.encode_batch(list(texts))]
    except TypeError as error:
        raise UsageError(f"A caption is no text that UTF-8 encodes ({error}); mend it.") from error
