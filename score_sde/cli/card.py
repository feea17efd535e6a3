"""The model card of a run: `score_sde --mode=card` writes card.md, card.html and card.png."""

from pathlib import Path

from absl.flags import FlagValues

from score_sde.evaluation import author, card_text
from score_sde.evaluation.card import gather
from score_sde.io import atomic_files
from score_sde.runtime.backend import expanded


def run(values: FlagValues) -> None:
    """Writes the card of a command line."""
    write(values.workdir, values.author, values.out)


def write(directory: str | Path, texts: str | Path | None = None, out: str | Path | None = None) -> Path:
    """Writes the card of a workdir to `out`, default the workdir, and prints what its author does not state.

    texts: the author's file; by default author.toml of `out`, written there to be filled in if there is none. Returns
    the path of card.md. Raises `UsageError` for a workdir without a checkpoint, and before anything is written.
    """
    directory, folder = expanded(directory), expanded(out or directory)
    atomic_files.check_writable(folder, "choose another --out")
    path = expanded(texts) if texts else folder / author.NAME
    is_new = not texts and not path.exists()
    card = gather(directory, dict.fromkeys(author.ENTRIES, "") if is_new else author.read(path))
    if is_new:
        author.write_template(path)
    picture = folder / "card.png"
    if card.picture:
        content = card.picture.read_bytes()
        atomic_files.replace(picture, lambda file: file.write(content), "--out")
    else:
        picture.unlink(missing_ok=True)  # of an earlier card
    text = card_text.markdown(card, picture.name if card.picture else "")
    atomic_files.replace(folder / "card.md", lambda file: file.write(text.encode()), "--out")
    card_text.write_page(card, folder / "card.html")
    print(f"Card: {folder / 'card.md'}, card.html{', card.png' * bool(card.picture)}")
    if unstated := author.missing(card.author):
        print(f"Not stated by the author: {', '.join(unstated)}; write them into {path} and run this again.")
    return folder / "card.md"
