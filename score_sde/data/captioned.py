"""Captioned sources: the condition of each image also has the entries of its caption.

    import numpy as np
    from score_sde import data
    from score_sde.data.captioned import Captioned
    from score_sde.data.text_cond import Tokens
    from score_sde.data.tokenizers import Bytes

    scenes = data.load("scenes", train=True, image_size=16, num_channels=3)
    source = Captioned(scenes, Tokens(Bytes(), max_tokens=128))
    source.take(np.arange(4)).cond["tokens"]  # int32 (4, 128), the bytes of "a small red circle ..."

Training and evaluation make one of every split, where section `text` of the config asks for it.
"""

from typing import Annotated

import numpy as np

from score_sde.array_types import Integer
from score_sde.config.arguments import check_arguments
from score_sde.data.batches import part_of
from score_sde.data.sources import Batch, Source, hashed
from score_sde.data.text_cond import TextCond
from score_sde.errors import UsageError
from score_sde.runtime.progress import bar

READ = 20_000  # captions from which words are learned
CHUNK = 1024  # captions that are read at once
NO_CAPTIONS = "Text needs captions, and this data set has none; choose another data.dataset, or leave text.* out."


class Captioned(Source):
    """A source whose images come with the entries of their captions, besides the entries that it has.

    Raises `UsageError` for a source without captions, and for one that has an entry of the same name.
    """

    @check_arguments
    def __init__(self, source: Source, text: TextCond):
        if source.captions(np.arange(1)) is None:
            raise UsageError(NO_CAPTIONS)
        if both := set(text.entries) & set(source.cond_entries):
            raise UsageError(
                f"The data set has {min(both)} of its own, and text.* makes them from its captions; leave text.* out, "
                "or give the data set's another name."
            )
        self.source, self.text = source, text
        self.digested, self.stored = source.digested, source.stored
        self.class_names, self.report, self.licence = source.class_names, source.report, source.licence

    def __len__(self) -> int:
        return len(self.source)

    @property
    def labels(self) -> np.ndarray | None:
        """The labels of the source."""
        return self.source.labels

    @property
    def num_classes(self) -> int:
        """Number of classes of the source."""
        return self.source.num_classes

    @property
    def cond_entries(self) -> tuple[str, ...]:
        """The entries of the source, and those of captions."""
        return (*self.source.cond_entries, *self.text.entries)

    def take(self, indices: Integer[np.ndarray, " b"]) -> Batch:
        images, cond = self.source.take(indices)
        return Batch(images, (cond or {}) | self.text.cond(self.source.captions(indices)))

    def captions(self, indices: Integer[np.ndarray, " b"]) -> list[str]:
        return self.source.captions(indices)

    def digest(self) -> str:
        """The digest of the source and of all that the entries of a caption depend on."""
        return hashed([self.source.digest(), self.text.digest()])


@check_arguments
def captioned(source: Source, text: TextCond | None) -> Source:
    """The source with the entries of its captions; as it is where `text` is None."""
    return source if text is None else Captioned(source, text)


@check_arguments
def some_captions(source: Source, most: Annotated[int, "[1, inf)"] = READ) -> list[str]:
    """The captions of at most `most` images, chosen by `score_sde.data.part_of`; with a bar, if it takes long.

    Raises `UsageError` for a source without captions.
    """
    indices, captions = part_of(len(source), most), []
    with bar("reading captions", len(indices), "img", delay=1.0) as progress:
        for first in range(0, len(indices), CHUNK):
            part = source.captions(indices[first : first + CHUNK])
            if part is None:
                raise UsageError(NO_CAPTIONS)
            captions += part
            progress.update(len(part))
    return captions
