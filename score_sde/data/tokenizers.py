"""Tokenizers: captions as whole numbers and back, without loss.

| token         | stands for                                       |
|---------------|--------------------------------------------------|
| 0, ..., 255   | a byte of UTF-8                                  |
| 256           | the end, the last token of every caption         |
| 257, 258, ... | the words of `Words`, in their order             |

A caption without a word is the end alone. It differs from the null caption, which has no tokens: see `score_sde.cond`.

    from score_sde.data.tokenizers import Bytes, Words

    Bytes().encode("né")  # [110, 195, 169, 256]
    words = Words.learned(["a red circle", "a red star"], 1024)  # " red", " circle" and " star"
    words.decode(words.encode("a red Circle"))  # the same caption; "Circle" is bytes
"""

import abc
import collections
import dataclasses
import functools
import itertools
import re
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

from score_sde.config.arguments import check_arguments, check_methods
from score_sde.errors import UsageError

END = 256
PIECE = re.compile(r" ?\w+|\W")  # a word with the space before it, or another character: a caption is its pieces
NAMED = 5  # tokens that a message names


class Tokenizer(abc.ABC):
    """A way to write captions as tokens 0, 1, ..., vocab_size - 1.

    name: in `TOKENIZERS`. Any text that UTF-8 encodes comes back from `decode(encode(text))` as it was.
    """

    name: ClassVar[str]

    def __init_subclass__(cls, **options: Any):
        super().__init_subclass__(**options)
        check_methods(cls, Tokenizer)

    @property
    @abc.abstractmethod
    def vocab_size(self) -> int:
        """Number of tokens that there are."""

    @abc.abstractmethod
    def encode(self, text: str) -> list[int]:
        """The tokens of a caption, with END as the last one.

        Raises `UsageError` for a lone surrogate, which is half of a character.
        """

    @abc.abstractmethod
    def decode(self, tokens: Sequence[int]) -> str:
        """The caption of the tokens before the first END.

        Bytes that are no UTF-8, as a caption that was cut may end with, become U+FFFD. Raises `UsageError` for tokens
        that there are not.
        """

    @classmethod
    @abc.abstractmethod
    def learned(cls, texts: Sequence[str], vocab_size: int) -> "Tokenizer":
        """The tokenizer of at most `table_size(vocab_size)` tokens that fits these captions."""

    @classmethod
    @abc.abstractmethod
    def table_size(cls, vocab_size: int) -> int:
        """Number of tokens for which a network is built, before the captions are known."""

    def arguments(self) -> dict[str, Any]:
        """The constructor's arguments, as JSON has them."""
        return {}


@dataclasses.dataclass(frozen=True)
class Bytes(Tokenizer):
    """The bytes of UTF-8, for captions of any language: 257 tokens.

    A character of English takes one token, and one of other alphabets two to four.

        from score_sde.data.tokenizers import Bytes

        tokens = Bytes().encode("a star")  # [97, 32, 115, 116, 97, 114, 256]
    """

    name = "bytes"
    vocab_size = END + 1

    def encode(self, text: str) -> list[int]:
        return [*_utf8(text), END]

    def decode(self, tokens: Sequence[int]) -> str:
        own = list(itertools.takewhile(lambda token: token != END, tokens))
        if outside := [token for token in own if not 0 <= token < self.vocab_size]:
            raise UsageError(f"There are tokens 0 to {self.vocab_size - 1}, not {outside[:NAMED]}.")
        return b"".join(map(self._bytes, own)).decode(errors="replace")

    def _bytes(self, token: int) -> bytes:
        return bytes([token])

    @classmethod
    def learned(cls, texts: Sequence[str], vocab_size: int) -> "Bytes":
        return cls()

    @classmethod
    def table_size(cls, vocab_size: int) -> int:
        return END + 1


@check_arguments
@dataclasses.dataclass(frozen=True)
class Words(Bytes):
    """Words, each one token, and the bytes of everything else.

    words: each a piece of captions, which is a word with the space before it, or one other character. Raises
    `UsageError` for another text, and for a word that comes twice.

        from score_sde.data.tokenizers import Words

        Words(["a", " red", " star"]).encode("a red  star!")  # [257, 258, 32, 259, 33, 256]
    """

    words: tuple[str, ...]
    name = "words"

    def __post_init__(self):
        for word in self.words:
            if not PIECE.fullmatch(word):
                raise UsageError(
                    f"{word!r} is not one word, with or without the space before it, or one other character; "
                    "Words.learned(captions, vocab_size) finds the words of captions."
                )
            _utf8(word)
        if twice := [word for word, n in collections.Counter(self.words).items() if n > 1]:
            raise UsageError(f"The word {twice[0]!r} comes twice; give each word once.")

    @property
    def vocab_size(self) -> int:
        return END + 1 + len(self.words)

    @functools.cached_property
    def _numbers(self) -> dict[str, int]:
        return {word: END + 1 + i for i, word in enumerate(self.words)}

    def encode(self, text: str) -> list[int]:
        _utf8(text)
        tokens: list[int] = []
        for piece in PIECE.findall(text):
            number = self._numbers.get(piece)
            tokens += piece.encode() if number is None else (number,)
        return [*tokens, END]

    def _bytes(self, token: int) -> bytes:
        return super()._bytes(token) if token < END else self.words[token - END - 1].encode()

    @classmethod
    @check_arguments
    def learned(cls, texts: Sequence[str], vocab_size: Annotated[int, "[257, inf)"]) -> "Words":
        """The most frequent words of these captions, as many as `vocab_size` tokens hold; of equals the first by name.

        Pieces of one byte, such as the digit 3, are tokens without being words.
        """
        counts = collections.Counter(piece for text in texts for piece in PIECE.findall(text) if len(_utf8(piece)) > 1)
        ordered = sorted(counts, key=lambda piece: (-counts[piece], piece))
        return cls(tuple(ordered[: vocab_size - END - 1]))

    @classmethod
    def table_size(cls, vocab_size: int) -> int:
        return vocab_size

    def arguments(self) -> dict[str, Any]:
        return {"words": list(self.words)}


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise UsageError(
            f"The caption {text!r} holds a lone surrogate, half of a character, which UTF-8 has no bytes for; write "
            "the character as a whole, or leave it out."
        ) from None


TOKENIZERS: dict[str, type[Tokenizer]] = {"bytes": Bytes, "words": Words}
