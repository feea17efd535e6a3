"""Grammar of `config.sampling.condition`: entries kind=argument, joined by ";", as class=3;inpaint=right_half.

A class or a caption or other conditions, and one observation of test images, can be asked for together. A network that
takes both has a class and a caption.

| condition              | asks for samples                                                                            |
|------------------------|---------------------------------------------------------------------------------------------|
| `class=3`, `class=all` | of one class, by its number; of each in turn                                                |
| `class=ship`           | of one class, by its name, where the data set has names                                     |
| `cond=FILE.npz`        | of the network's conditions: arrays by entry, whose rows are taken in turn                  |
| `text=CAPTION`         | of a caption                                                                                |
| `text=A;towards=B`     | from caption A to caption B, over each row of `sampling.same_noise` samples with one noise  |
| `texts=FILE`           | of the captions in a file, UTF-8 with one on each line, in turn                             |
| `texts=test`, `=train` | of the captions of a split of the run's data                                                |
| `inpaint=WHERE`        | of hidden pixels: left_half, right_half, top_half, bottom_half, center; a fraction of the   |
|                        | pixels, at random, as 0.9; or a PNG file of the images' size, black where they are hidden   |
| `colorize`             | in colour, of grey images                                                                   |
| `superresolve=4`       | of images a fourth as wide and high                                                         |
| `deblur=2.0`           | of images blurred by a Gaussian of this standard deviation in pixels                        |
| `sense=0.3`            | of images of which this fraction of random measurements is known                            |

A caption may hold ";" and "=": it ends only before a ";" that one of these kinds follows. Put a caption with such words
into a file, named `texts=FILE`. Blanks around a caption are left out.
"""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from score_sde.array_types import ImageShape
from score_sde.cond import class_number
from score_sde.conditioning.operators import Average, Blur, Inpaint, Operator, Sense
from score_sde.config.arguments import check_arguments
from score_sde.data.decoding import decode
from score_sde.errors import UsageError, one_of
from score_sde.io.atomic_files import read_arrays
from score_sde.io.digest import digest
from score_sde.runtime.backend import expanded

Shape = ImageShape
Operators = Callable[[int], Operator]  # number of images -> operator of a batch
ALL = "all"
CAPTIONS = ("text", "towards")  # kinds whose argument is a caption
SPLITS = ("train", "test")  # whose captions `texts` can name, in place of a file
OTHERS = ("class", "cond", *CAPTIONS, "texts")  # kinds besides observations
APART = (
    ("class", "cond", "asks for a class and a file; put labels into the file"),
    ("text", "texts", "asks for one caption and for several; choose one"),
    ("text", "cond", "asks for a caption and a file; put the caption's tokens into the file"),
    ("texts", "cond", "asks for captions and a file; put the captions' tokens into the file"),
)


@dataclasses.dataclass(frozen=True)
class Observe:
    """A constructor of operators for batches of n images.

    identity: the condition as a string, in which files are replaced by their digests.
    """

    operators: Operators
    identity: str

    def __call__(self, n: int) -> Operator:
        return self.operators(n)


@check_arguments
def parts(condition: str) -> dict[str, str]:
    """The argument of each kind in the condition, "" where it has none.

    Raises `UsageError` for an unknown kind, one that is named twice, kinds that exclude one another, and no caption.
    """
    arguments: dict[str, str] = {}
    for entry in _entries(condition):
        kind, _, argument = entry.partition("=")
        one_of("sampling.condition", kind, (*OTHERS, *KINDS))
        if kind in arguments:
            raise UsageError(f"sampling.condition={condition} names {kind} twice; name each kind once.")
        arguments[kind] = argument.strip() if kind in CAPTIONS else argument
    for first, second, words in APART:
        if first in arguments and second in arguments:
            raise UsageError(f"sampling.condition={condition} {words}.")
    for kind in filter(arguments.__contains__, CAPTIONS):
        if not arguments[kind]:
            raise UsageError(f"sampling.condition={condition} must give a caption: {kind}=a small red circle.")
    if "towards" in arguments and "text" not in arguments:
        raise UsageError(f"sampling.condition={condition} must also name where it begins: text=A;towards=B.")
    if len(observations := [kind for kind in arguments if kind in KINDS]) > 1:
        raise UsageError(f"sampling.condition={condition} asks for {' and '.join(observations)}; choose one.")
    return arguments


def _entries(condition: str) -> list[str]:
    """The entries kind=argument. A ";" belongs to the caption before it, unless a kind follows."""
    entries: list[str] = []
    for piece in condition.split(";"):
        kind, before = (each.partition("=")[0].strip() for each in (piece, entries[-1] if entries else ""))
        if before in CAPTIONS and kind not in (*OTHERS, *KINDS):
            entries[-1] += f";{piece}"
        else:
            entries.append(piece)
    return [entry.strip() for entry in entries if entry.strip()]


@check_arguments
def check(condition: str) -> None:
    """Raises `UsageError` for a condition that makes no sense with any network."""
    if parts(condition).get("class") == "":
        raise UsageError(f"sampling.condition={condition} must name a class: class=3, class=ship, or class={ALL}.")


@check_arguments
def chosen_class(condition: str, class_names: tuple[str, ...] = ()) -> int | str | None:
    """The class in the condition: a number, ALL, or None without one.

    class_names: names that may stand for numbers. A class whose name is a number is asked for by `class=#3`, the number
    of the class, where this is not the class of that name. Raises `UsageError` for other words.
    """
    check(condition)
    argument = parts(condition).get("class")
    if argument in (None, ALL):
        return argument
    digits = argument.removeprefix("#")
    if not digits.isdecimal():
        return class_number(argument, class_names)
    named = class_number(digits, class_names) if digits in class_names else int(digits)
    if digits == argument and named != int(digits):
        raise UsageError(
            f"sampling.condition=class={digits} is the name of class number {named} and the number of another; write "
            f"class=#{named} for the former, or class=#{digits} for the latter."
        )
    return int(digits)


@check_arguments
def numbered(condition: str, class_names: tuple[str, ...]) -> str:
    """The condition, in which a class is named by its number alone. Raises as `chosen_class`."""
    chosen = chosen_class(condition, class_names)
    return _replaced(condition, str(chosen)) if isinstance(chosen, int) else condition


@check_arguments
def worded(condition: str, class_names: tuple[str, ...]) -> str:
    """A condition whose class is a number, in which its name takes the number's place, if it has one."""
    argument = parts(condition).get("class", "")
    named = argument.isdecimal() and int(argument) < len(class_names)
    return _replaced(condition, class_names[int(argument)]) if named else condition


def _replaced(condition: str, argument: str) -> str:
    """The condition with another argument of `class`."""
    return _joined({kind: argument if kind == "class" else other for kind, other in parts(condition).items()})


def _joined(arguments: Mapping[str, str]) -> str:
    """The condition of which these are the `parts`."""
    return ";".join(f"{kind}={argument}" if argument else kind for kind, argument in arguments.items())


@check_arguments
def chosen_rows(condition: str) -> dict[str, np.ndarray] | None:
    """The arrays of the file that `cond` names, by entry; None without `cond`. Raises `UsageError` for other files."""
    argument = parts(condition).get("cond")
    if argument is None:
        return None
    arrays = read_arrays(expanded(argument))
    if not arrays:
        raise UsageError(f"sampling.condition=cond={argument} must name an .npz file of arrays, one for each entry.")
    lengths = {name: len(array) if array.ndim else 0 for name, array in arrays.items()}
    if len(set(lengths.values())) != 1 or 0 in lengths.values():
        numbers = ", ".join(f"{length} of {name}" for name, length in lengths.items())
        raise UsageError(f"{argument} must have as many rows of each entry, and has {numbers}.")
    return arrays


@check_arguments
def chosen_texts(condition: str) -> tuple[str, ...] | None:
    """The captions that `text`, or the file of `texts`, gives; None without them, and for those of a split.

    Raises `UsageError` for a file that is missing, empty or not UTF-8, and for one with an empty line.
    """
    arguments = parts(condition)
    if "text" in arguments:
        return (arguments["text"],)
    return _lines(arguments["texts"]) if "texts" in arguments and chosen_split(condition) is None else None


@check_arguments
def chosen_split(condition: str) -> str | None:
    """The split whose captions `texts` names, "train" or "test"; None without one."""
    named = parts(condition).get("texts")
    return named if named in SPLITS else None


def _lines(argument: str) -> tuple[str, ...]:
    """The lines of a file of captions, without blanks around them."""
    path, example = expanded(argument), "texts=FILE names a file of captions, UTF-8 with one on each line"
    if not path.is_file():
        raise UsageError(f"No file {argument or '(no name)'}: sampling.condition={example}, or texts=test.")
    try:
        lines = path.read_text(encoding="utf-8-sig").removesuffix("\n").split("\n")
    except UnicodeDecodeError:
        raise UsageError(f"{argument} is not UTF-8; sampling.condition={example}.") from None
    captions = tuple(map(str.strip, lines))
    if "" in captions:
        number = "is empty" if captions == ("",) else f"has no caption in line {captions.index('') + 1}"
        raise UsageError(f"{argument} {number}; sampling.condition={example}.")
    return captions


@check_arguments
def identity_of(condition: str) -> str:
    """The condition, in which the name of a file of rows or captions is replaced by its digest."""
    changes = {}
    if (rows := chosen_rows(condition)) is not None:
        changes["cond"] = f"{'+'.join(sorted(rows))}:{digest(rows)}"
    if "texts" in parts(condition) and (texts := chosen_texts(condition)) is not None:
        changes["texts"] = digest(np.frombuffer("\n".join(texts).encode(), np.uint8))
    return _joined(parts(condition) | changes) if changes else condition


@check_arguments
def observation_of(condition: str, image_shape: Shape) -> Observe | None:
    """The constructor of the operator in the condition; None without one.

    Raises `UsageError` if it does not fit images of this shape.

        import jax.numpy as jnp
        from score_sde.conditioning.grammar import observation_of

        observe = observation_of("class=3;superresolve=4", (8, 8, 3))
        y = observe(2).forward(jnp.ones((2, 8, 8, 3)))  # (2, 2, 2, 3)
    """
    arguments = parts(condition)
    kind = next((kind for kind in arguments if kind in KINDS), None)
    if kind is None:
        return None
    operators = KINDS[kind](arguments[kind], image_shape)
    arrays = jax.tree.leaves(operators(1))
    others = identity_of(_joined({name: arguments[name] for name in OTHERS if name in arguments}))
    identity = f"{kind}={digest(arrays) if arrays else arguments[kind]}"
    return Observe(operators, ";".join(filter(None, (others, identity))))


def _inpaint(argument: str, shape: Shape) -> Operators:
    visible = jnp.asarray(_visible(argument, shape))[None, :, :, None]
    return lambda n: Inpaint(jnp.repeat(visible, n, axis=0))


def _visible(argument: str, shape: Shape) -> np.ndarray:
    """Mask of the pixels that are not hidden, booleans (h, w)."""
    h, w, _ = shape
    rows, columns = np.meshgrid(np.arange(h), np.arange(w), indexing="ij")
    regions = {
        "left_half": columns >= w // 2,
        "right_half": columns < w // 2,
        "top_half": rows >= h // 2,
        "bottom_half": rows < h // 2,
        "center": (abs(2 * rows - h + 1) > h // 2) | (abs(2 * columns - w + 1) > w // 2),
    }
    if _is_number(argument):
        hidden = _in_range("inpaint", argument, 0, 1)
        visible = np.ones(h * w, bool)
        visible[np.random.default_rng(0).permutation(h * w)[: round(hidden * h * w)]] = False
        return visible.reshape(h, w)
    if Path(argument).suffix:
        return _mask_of(expanded(argument), (h, w))
    return regions[one_of("region of sampling.condition=inpaint", argument, regions)]


def _mask_of(path: Path, size: tuple[int, int]) -> np.ndarray:
    if not path.is_file():
        raise UsageError(f"No mask {path}: sampling.condition=inpaint=FILE names a PNG of {size[0]}x{size[1]} pixels.")
    advice = "give a PNG that is black where pixels are hidden"
    mask = decode(path, f"the mask {path}", advice, channels=1, convert=True)
    if mask.shape[:2] != size:
        raise UsageError(f"The mask {path} is of {mask.shape[:2]} pixels, and images are of {size}.")
    return mask[..., 0] > 127


def _colorize(argument: str, shape: Shape) -> Operators:
    if argument:
        raise UsageError(f"sampling.condition=colorize takes no argument, and has '{argument}'.")
    if shape[2] != 3:
        raise UsageError(f"sampling.condition=colorize is for images in colour; these have {shape[2]} channel(s).")
    return lambda n: Average(grey=True)


def _superresolve(argument: str, shape: Shape) -> Operators:
    if not argument.isdecimal() or int(argument) < 2 or shape[0] % int(argument) or shape[1] % int(argument):
        raise UsageError(
            f"sampling.condition=superresolve={argument} must be a whole factor of 2 or more that divides the images' "
            f"{shape[0]}x{shape[1]} pixels."
        )
    return lambda n: Average(int(argument))


def _deblur(argument: str, shape: Shape) -> Operators:
    sigma = _in_range("deblur", argument, 0, max(shape[:2]))
    return lambda n: Blur(sigma)


def _sense(argument: str, shape: Shape) -> Operators:
    fraction = _in_range("sense", argument, 0, 1)
    return lambda n: Sense(fraction)


def _in_range(kind: str, argument: str, low: float, high: float) -> float:
    if not _is_number(argument) or not low < float(argument) < high:
        raise UsageError(f"sampling.condition={kind}={argument} must be a number between {low} and {high}.")
    return float(argument)


def _is_number(text: str) -> bool:
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False


KINDS: dict[str, Callable[[str, Shape], Operators]] = {
    "inpaint": _inpaint,
    "colorize": _colorize,
    "superresolve": _superresolve,
    "deblur": _deblur,
    "sense": _sense,
}
