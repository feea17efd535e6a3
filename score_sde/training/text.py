"""The text of a run: how captions become entries of its condition. The workdir's text.json records it.

A training learns the words of `text.tokenizer=words` from its captions once, writes text.json when it starts, and goes
on with these words, also where the captions have changed by then. A loaded model has them as `model.text`.

    text.json: {"kind": "tokens", "tokenizer": "words", "words": [" a", ...], "max_tokens": 32, "truncate": false}

"kind" is a row of `KINDS`; the rest are what `of_json` of that class takes.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from score_sde.cond import Entries
from score_sde.config import Config
from score_sde.config.import_paths import REQUIRED
from score_sde.data import Source
from score_sde.data.captioned import Captioned, some_captions
from score_sde.data.text_cond import TextCond, Tokens
from score_sde.data.tokenizers import TOKENIZERS
from score_sde.errors import UsageError, one_of
from score_sde.io import json_files, workdir
from score_sde.runtime.backend import expanded
from score_sde.training.frozen_text import Frozen, layout_in
from score_sde.training.pieces import arguments_of

NAME = "text.json"
FORM = {"kind": str, "tokenizer": str, "words": list, "folder": str, "files": {"*": dict}, "max_tokens": int}
CHECKED = 100_000  # captions of a split whose lengths are looked at before training
ADVICE = "restore it, or train in another --workdir"
# Keys of section `text` that ask for captions, each with the entry that it makes of them and the encoder of that entry.
MADE = {"tokenizer": ("tokens", "text"), "frozen": ("text", "sequence")}


def is_set(options: Any) -> bool:
    """Whether captions become entries of the condition, by the values of a section `text`."""
    return any(options.get(key) for key in MADE)


def encoder_arguments(config: Config) -> dict[str, int]:
    """The arguments of a config's encoder that section `text` says, if it takes them.

    They are `max_tokens`, and `vocab_size` of tokens or `size` of features. Raises `UsageError` where section `encoder`
    has others, where neither has the number of tokens, and where `text` asks for tokens and features.
    """
    name, options = config.encoder.name, config.text
    taken = arguments_of("encoder.name", name) if name else {}
    if options.tokenizer and options.frozen:
        raise UsageError("text.tokenizer and text.frozen each make an entry of captions; set one of them.")
    if not options.tokenizer and not options.frozen:
        if taken.get("vocab_size") is REQUIRED and config.encoder.get("vocab_size") is None:
            raise UsageError(
                f"encoder.name={name} takes tokens; set text.tokenizer=words, for those of captions, or "
                "encoder.vocab_size, for tokens of the data set's own."
            )
        return {}
    said = {"max_tokens": options.max_tokens}
    if options.frozen:
        said["size"] = layout_in(options.frozen).size
    else:
        said["vocab_size"] = TOKENIZERS[options.tokenizer].table_size(options.vocab_size)
    for argument in said.keys() & taken.keys():
        if config.encoder.get(argument) not in (None, said[argument]):
            raise UsageError(
                f"encoder.{argument}={config.encoder[argument]}, and by section text it is {said[argument]}; leave "
                f"encoder.{argument} out, or set it to that."
            )
    return {argument: said[argument] for argument in said if argument in taken}


def check_network(config: Config, entries: Entries) -> None:
    """Raises `UsageError` where captions become an entry that is not among those of the network."""
    for key, (entry, encoder) in MADE.items():
        if config.text[key] and entry not in entries:
            raise UsageError(
                f"text.{key}={config.text[key]} makes {entry} of captions, and this network takes none; set "
                f"encoder.name={encoder}, or leave text.{key} empty."
            )


def of_config(config: Config, source: Source) -> TextCond | None:
    """The text condition that a config describes; words are learned from the source's captions. None without one."""
    if not is_set(config.text):
        return None
    options = config.text
    if options.frozen:
        return Frozen(options.frozen, options.max_tokens, options.truncate)
    tokenizer = TOKENIZERS[options.tokenizer].learned(some_captions(source), options.vocab_size)
    return Tokens(tokenizer, options.max_tokens, options.truncate)


def of_training(directory: Path, config: Config, load_train: Callable[[], Source]) -> TextCond | None:
    """The text condition of a training in a workdir: its own if it goes on, or that of the run it starts from.

    load_train: loads the training split, from which a new run learns. Raises `UsageError` for a text.json that cannot
    be used, and where the run to start from has another section `text`.
    """
    if not is_set(config.text):
        return None
    if workdir.saved_steps(directory):
        return stored(directory, config.text.frozen)
    start = config.training.start_from
    if not start or (begun := stored(expanded(start), config.text.frozen)) is None:
        return of_config(config, load_train())
    before, now = workdir.stored_config(expanded(start)).text.to_dict(), config.text.to_dict()
    if differing := [key for key in now if now[key] != before[key] and key != "frozen"]:
        key = differing[0]
        raise UsageError(
            f"The captions of training.start_from={start} are read with text.{key}={before[key]}, not {now[key]}; set "
            "text.* to the values of that run."
        )
    return begun


def stored(directory: Path, frozen: str = "") -> TextCond | None:
    """The text condition of the run in a workdir; None for a run without text.

    frozen: the place of its published encoder, "" if that has not moved. Raises `UsageError` for a text.json that is
    missing, damaged, or not the one of the training.
    """
    if not is_set(workdir.read(directory, "config.json").get("text", {})):
        return None
    content = json_files.read(directory / NAME, FORM, ("kind",), ADVICE)
    if not content:
        raise UsageError(f"{directory} has no {NAME}, without which its network cannot read captions; {ADVICE}.")
    is_frozen = content["kind"] == Frozen.kind
    content |= {"folder": frozen} if is_frozen and frozen else {}
    try:
        text = KINDS[one_of("kind", content["kind"], KINDS)].of_json(content)
    except (KeyError, TypeError, UsageError) as error:
        if is_frozen and isinstance(error, UsageError):  # of the encoder's own files
            raise
        reason = f"it has no {error}" if isinstance(error, KeyError) else str(error).rstrip(".")
        raise UsageError(f"{directory / NAME} cannot be used: {reason}; {ADVICE}.") from error
    if workdir.read(directory, "launch.json").get("text", text.digest()) != text.digest():
        raise UsageError(f"{directory / NAME} is not the one that this run was trained with; {ADVICE}.")
    return text


def check_captions(source: Source) -> None:
    """Raises `UsageError` for a caption of a captioned source that is too long; of a great one `CHECKED` are read.

    A longer one among the others stops the training where it comes.
    """
    if isinstance(source, Captioned) and not source.text.truncate:
        source.text.check(some_captions(source, CHECKED))


def described(text: TextCond) -> str:
    """A line on a text condition."""
    if isinstance(text, Frozen):
        return _frozen(text.folder, text)
    facts: dict[str, Any] = text.to_json()
    words = f", {len(facts['words']):,} words" if "words" in facts else ""
    return f"{facts.get('tokenizer', text.kind)}{words}; {_lengths(text)}"


def of_described(config: Config, directory: Path | None) -> str:
    """The line on the text of a config, or of its run in a workdir that has one; "" without text."""
    if not is_set(config.text):
        return ""
    if directory and (text := stored(directory, config.text.frozen)):
        return f"text: {described(text)}"
    options = config.text
    if options.frozen:
        return f"text: {_frozen(options.frozen, options)}"
    size = TOKENIZERS[options.tokenizer].table_size(options.vocab_size)
    return f"text: {options.tokenizer}, {size:,} tokens with those that training learns; {_lengths(options)}"


def _frozen(folder: str | Path, of: Any) -> str:
    layout = layout_in(folder)
    kept = f"at most {layout.size * of.max_tokens * 2 / 1024:.1f} KiB a caption in the cache"
    return f"{layout.size} features a token by {layout.title}, {kept}; {_lengths(of)}"


def _lengths(of: Any) -> str:
    return f"captions of at most {of.max_tokens} tokens; longer ones are {'cut' if of.truncate else 'refused'}"


KINDS: dict[str, type[TextCond]] = {Tokens.kind: Tokens, Frozen.kind: Frozen}
