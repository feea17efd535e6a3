"""Text conditions: captions as entries of a condition, padded to one length, see `score_sde.cond`.

    from score_sde.data.text_cond import Tokens
    from score_sde.data.tokenizers import Bytes

    text = Tokens(Bytes(), max_tokens=8)
    cond = text.cond(["a star", ""])  # tokens, int32 (2, 8), and tokens_mask, bool (2, 8)
    cond["tokens_mask"].sum(1)  # [7, 1]: the last token is the caption's end

Each text condition is a row of `score_sde.training.text.KINDS`, by which a workdir's text.json names it.
"""

import abc
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

import numpy as np

from score_sde.config.arguments import check_arguments, check_methods
from score_sde.data.sources import hashed
from score_sde.data.tokenizers import END, TOKENIZERS, Tokenizer
from score_sde.errors import UsageError, one_of

MOST_TOKENS = "[1, 65536]"  # of a caption
SHOWN = 80  # characters of a caption in a message


class TextCond(abc.ABC):
    """A function from captions to entries of a condition.

    kind: names it in text.json. entries: names of the entries, masks among them. max_tokens: length to which all
    captions are padded. truncate: whether longer ones are cut, or refused.
    """

    kind: ClassVar[str]
    entries: tuple[str, ...]
    max_tokens: int
    truncate: bool

    def __init_subclass__(cls, **options: Any):
        super().__init_subclass__(**options)
        check_methods(cls, TextCond)

    @abc.abstractmethod
    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Number of tokens of each caption, however many it has."""

    @abc.abstractmethod
    def cond(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
        """The entries, with a row for each caption.

            cond = model.text.cond(["a red star", "a small blue circle"])

        Raises `UsageError` for a caption that is too long, unless it is to be cut.
        """

    @abc.abstractmethod
    def to_json(self) -> dict[str, Any]:
        """The text condition as JSON has it: "kind", and the values that `of_json` of that kind takes."""

    @classmethod
    @abc.abstractmethod
    def of_json(cls, content: Mapping[str, Any]) -> "TextCond":
        """The text condition that `to_json` describes."""

    def digest(self) -> str:
        """A digest of all that the entries of a caption depend on."""
        return hashed(self.to_json())

    @check_arguments
    def check(self, texts: Sequence[str]) -> None:
        """Raises `UsageError` for a caption that `cond` refuses."""
        self._check_lengths(texts, self.lengths(texts))

    def _check_lengths(self, texts: Sequence[str], lengths: Sequence[int]) -> None:
        for text, length in zip(texts, lengths, strict=True):
            if length > self.max_tokens and not self.truncate:
                raise UsageError(
                    f"The caption {_shown(text)} has {length} tokens, its end among them, and text.max_tokens="
                    f"{self.max_tokens}; shorten it, or train with text.max_tokens={length}, or with "
                    "text.truncate=True, which cuts captions."
                )


def _shown(text: str) -> str:
    return repr(text[:SHOWN]) + "..." * (len(text) > SHOWN)


@check_arguments
@dataclasses.dataclass(frozen=True)
class Tokens(TextCond):
    """Captions as tokens: `tokens`, int32 (n, max_tokens), and `tokens_mask`, bool (n, max_tokens), False at padding.

    truncate: whether a caption of more tokens is cut, with END as the last that is left, or refused.

        from score_sde.data.text_cond import Tokens
        from score_sde.data.tokenizers import Words

        text = Tokens(Words(["a", " red", " star"]), max_tokens=5)
        tokens = text.cond(["a red star"])["tokens"]  # [[257, 258, 259, 256, 0]]
    """

    tokenizer: Tokenizer
    max_tokens: Annotated[int, MOST_TOKENS] = 32
    truncate: bool = False
    kind = "tokens"
    entries = ("tokens", "tokens_mask")

    def lengths(self, texts: Sequence[str]) -> list[int]:
        return [len(self.tokenizer.encode(text)) for text in texts]

    def cond(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
        rows = [self.tokenizer.encode(text) for text in texts]
        self._check_lengths(texts, list(map(len, rows)))
        tokens = np.zeros((len(rows), self.max_tokens), np.int32)
        mask = np.zeros(tokens.shape, bool)
        for i, row in enumerate(rows):
            kept = row if len(row) <= self.max_tokens else [*row[: self.max_tokens - 1], END]
            tokens[i, : len(kept)], mask[i, : len(kept)] = kept, True
        return dict(zip(self.entries, (tokens, mask), strict=True))

    def to_json(self) -> dict[str, Any]:
        of_tokenizer = {"tokenizer": self.tokenizer.name} | self.tokenizer.arguments()
        return {"kind": self.kind} | of_tokenizer | {"max_tokens": self.max_tokens, "truncate": self.truncate}

    @classmethod
    def of_json(cls, content: Mapping[str, Any]) -> "Tokens":
        others = {key: value for key, value in content.items() if key != "kind"}
        tokenizer, max_tokens, truncate = (others.pop(key) for key in ("tokenizer", "max_tokens", "truncate"))
        return cls(TOKENIZERS[one_of("tokenizer", tokenizer, TOKENIZERS)](**others), max_tokens, truncate)
