"""Tables and sentences of an audit, for a terminal, a README and the page, all made from results.json."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from score_sde.experiments.compare.report import aligned

TABLE = "table.md"
SIGNIFICANT = 0.01  # p-values below which a sentence says so
Result = Mapping[str, Any]
Table = tuple[list[str], list[list[str]]]

OF_SAMPLES = {
    "gu": "memorised by Gu's ratio, %",
    "carlini": "memorised by Carlini's criterion, %",
    "auth_pct": "authentic (AuthPct), %",
}
NOTE = (
    "Intervals are 95 %, over samples and images of one trained model; another training would differ by more. Figures "
    "of memorisation stand beside those of held-out images in the place of samples, which a model without copies has."
)


def text(result: Result) -> str:
    """The sentences and tables, for a terminal."""
    parts = [f"Failed: {why}" for why in dict.fromkeys(result["failed"].values())]
    for name, of in result["audits"].items():
        parts += [f"{name}: {settings(of)}", *sentences(of)]
    parts += [f"{title}\n{aligned(*table)}" for title, table in tables(result).items()]
    return "\n\n".join([*parts, NOTE])


def markdown(result: Result) -> str:
    """The same for a README."""
    parts = []
    for name, of in result["audits"].items():
        parts += [f"**{name}.** {settings(of)}", " ".join(sentences(of))]
    parts += [f"{title}:\n\n{_markdown(*table)}" for title, table in tables(result).items()]
    return "\n\n".join([*filter(None, parts), NOTE]) + "\n"


def settings(of: Result) -> str:
    """A sentence on the model, its data and the samples."""
    data = of["data"]
    part = "" if data["train"] == data["of"] else f" of {data['of']:,}"
    others = f", {data['from_train']:,} of them of the training split, but not trained on" if data["from_train"] else ""
    scale = "" if of["scale"] is None else f", at guidance scale {of['scale']:g}, asked for as training images are"
    steps = f" in {of['num_steps']} steps" if of["sampler"] not in ("pc", "ode", "adaptive") else ""
    turned = ", each mirrored if that is nearer to a real image, as in training" if of.get("mirrored") else ""
    return (
        f"{data['name']}, {data['train']:,}{part} training images and {data['held_out']:,} held-out ones{others}; step "
        f"{of['step']:,}, {of['num_samples']:,} samples by {of['sampler']}{steps}{scale}{turned}; "
        f"{', '.join(of['devices'])}."
    )


def sentences(of: Result) -> list[str]:
    """Sentences on the meaning of the figures, part by part, and on why a part is missing."""
    return [*_of_copies(of), *_of_levels(of), *_of_clusters(of), *_of_balance(of)]


def _of_copies(of: Result) -> Iterator[str]:
    if "duplicates" in of:
        near = of["duplicates"]["near"]
        groups = f"{near['groups']:,} group{'s' * (near['groups'] > 1)}"
        found = f"{near['images']:,} in {groups} are" if near["groups"] else "none are"
        yield f"Of {of['duplicates']['images']:,} training images, {found} nearly the same."
    if (part := of.get("memorised")) is None:
        return
    if "missing" in part:
        yield part["missing"]
        return
    yield from dict.fromkeys(_of_neighbours(part))
    if "asked" in of:
        yield (
            "The training image whose condition a sample was asked for is its nearest one for "
            f"{percent(of['asked'])} % of the samples; {100 * of['asked']['chance']:.2g} % is chance, "
            "among images with this condition."
        )


def _of_neighbours(part: Result) -> Iterator[str]:
    shares = part["pixels"]
    yield (
        f"{percent(shares['samples']['gu'])} % of the samples are memorised by Gu's ratio, and "
        f"{percent(shares['held_out']['gu'])} % of held-out images would be."
    )
    for space in ("pixels", "features"):
        if "missing" in part[space]["copying"]:
            yield part[space]["copying"]["missing"]
        cells = part[space].get("copying_by_cell", {})
        if cells.get("least", 1) < SIGNIFICANT:
            yield (
                f"In {space}, there is a cell, of {len(cells['cells'])} cells of the space, where samples are nearer "
                "to training images than held-out images are "
                f"(z = {cells['cells'][0]['z']:.1f}, p = {cells['least']:.2g})."
            )
        test = part[space]["exchangeable"]
        if "missing" in test:
            yield test["missing"]
            continue
        knows = test["p"] < SIGNIFICANT
        yield (
            f"In {space}, the nearest real image is a training image for {100 * test['share']:.1f} % of the samples; "
            f"{100 * test['null']['value']:.1f} % is chance (p = {test['p']:.2g}): "
            f"{'samples know which images were trained on' if knows else 'nothing shows that they know these images'}."
        )


def _of_levels(of: Result) -> Iterator[str]:
    if (levels := of.get("levels")) is None:
        return
    if "missing" in levels:
        yield levels["missing"]
        return
    if "denoiser" in levels:
        below = [s for s, r in zip(levels["noise_level"], levels["denoiser"]["ratio"], strict=True) if r["high"] < 1]
        where = f"from {min(below):.2g} to {max(below):.2g}" if below else ""
        yield (
            f"The denoiser is nearer to a memoriser of its training images than to one of held-out images at "
            f"{len(below)} of {len(levels['noise_level'])} noise levels{f', {where}' if where else ''}."
        )
    if "membership" in levels:
        together = levels["membership"]["combined"]["auc"]
        tells = "tell members" if together["low"] > 0.5 else "do not tell members"
        yield f"Losses {tells} from held-out images: AUC {number(together, 3)} of all noise levels together."


def _of_clusters(of: Result) -> Iterator[str]:
    if (part := of.get("extracted")) is None:
        return
    if not part["clusters"]:
        yield f"No two of {part['samples']:,} samples are nearly the same, so none is called extracted."
        return
    yield (
        f"{part['members']:,} of {part['samples']:,} samples are in {part['clusters']:,} clusters of nearly the same; "
        f"{percent(part['of_train'])} % of the clusters are training images, "
        f"and {part['train_images']:,} of the {part['of']:,} training images are extracted."
    )


def _of_balance(of: Result) -> Iterator[str]:
    if (part := of.get("balance")) is None:
        return
    if "missing" in part:
        yield part["missing"]
        return
    for name, each in part.items():
        if "missing" in each:
            yield f"{name.capitalize()}: {each['missing']}"
            continue
        for scale, shown in each["scales"].items():
            at = f" at guidance scale {scale}" if scale else ""
            differs = "differ" if shown["p_value"] < SIGNIFICANT else "are not shown to differ"
            yield (
                f"{name.capitalize()} frequencies{at} {differs} from the data's (p = {shown['p_value']:.2g}): total "
                f"variation {shown['total_variation']:.3f}, and {shown['expected']:.3f} by chance."
            )
        lacks = [figures["lacks"] for shown in each["scales"].values() for figures in shown["per_class"]]
        if any(lacks):
            yield (
                f"{sum(map(bool, lacks))} of {len(lacks)} classes have no recall or no distance: "
                f"{next(filter(None, lacks))}"
            )


def tables(result: Result) -> dict[str, Table]:
    """The tables by their titles, with columns for each audit; a part that no audit has is left out."""
    audits = result["audits"]
    made = {
        "Near-duplicates among the training images": _duplicates(audits),
        "Memorisation": _memorisation(audits),
        "Power of the permutation test": _power(audits),
        "By noise level": _levels(audits),
        "Membership, all noise levels together": _membership(audits),
        "Extraction": _extraction(audits),
        "Balance": _balance(audits),
        "Recall and distance by class": _per_class(audits),
    }
    return {title: table for title, table in made.items() if table[1]}


def there(audits: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    """The parts of audits that have one, by the name of the audit."""
    found = {}
    for name, of in audits.items():
        for key in keys:
            of = of.get(key, {}) if of else {}
        if of and "missing" not in of:
            found[name] = of
    return found


def _duplicates(audits: Mapping[str, Any]) -> Table:
    rows = [
        [
            name,
            f"{of['images']:,}",
            *(f"{of[kind][what]:,}" for kind in ("identical", "near") for what in ("groups", "images")),
        ]
        for name, of in there(audits, "duplicates").items()
    ]
    return ["", "images", "identical: groups", "images", "nearly identical: groups", "images"], rows


def _memorisation(audits: Mapping[str, Any]) -> Table:
    found, rows = there(audits, "memorised"), []
    head = ["", "in", *(f"{name}: {side}" for name in found for side in ("samples", "held-out images"))]
    for space in ("pixels", "features"):
        for figure, title in OF_SAMPLES.items():
            cells = [percent(of[space][side][figure]) for of in found.values() for side in ("samples", "held_out")]
            rows.append([title, space, *cells])
        copying = [of[space]["copying"] for of in found.values()]
        cells = [
            cell for of in copying for cell in ("" if "missing" in of else f"{of['z']:.1f} ({p_value(of['p'])})", "0")
        ]
        rows.append(["C_T, below 0 if copied", space, *cells])
        rows.append(["C_T over cells, and their lowest z", space, *_over_cells(found, space)])
        tests = [of[space]["exchangeable"] for of in found.values()]
        cells = [
            cell
            for of in tests
            for cell in (
                ["", ""]
                if "missing" in of
                else [f"{100 * of['share']:.1f} ({p_value(of['p'])})", f"{percent(of['null'])}, by chance"]
            )
        ]
        rows.append(["nearest is a training image, %", space, *cells])
    return head, rows if found else []


def _over_cells(found: Mapping[str, Any], space: str) -> list[str]:
    """The table's cells on copying within cells of the space; empty for audits of earlier versions."""
    result = []
    for each in found.values():
        of, text = each[space].get("copying_by_cell", {"missing": ""}), ""
        if "missing" not in of:
            tested = [cell["z"] for cell in of["cells"] if cell["z"] is not None]
            text = (
                f"{of['z']:.1f} ({p_value(of['p'])}), {tested[0]:.1f} of {len(tested)} cells ({p_value(of['least'])})"
            )
        result += [text, "0"]
    return result


def _power(audits: Mapping[str, Any]) -> Table:
    found = there(audits, "power")
    copies = list(dict.fromkeys(k for of in found.values() for k in of["copies"]))
    rows = [
        [str(k), *(percent(dict(zip(of["copies"], of["detected"], strict=True)).get(k)) for of in found.values())]
        for k in copies
    ]
    return ["planted copies", *(f"{name}: detected, %" for name in found)], rows


def _levels(audits: Mapping[str, Any]) -> Table:
    found, rows = there(audits, "levels"), []
    for name, of in found.items():
        for i, sigma in enumerate(of["noise_level"]):
            row = [name, f"{sigma:.3g}"]
            row.append(number(of["denoiser"]["ratio"][i], 3) if "denoiser" in of else "")
            row.append(f"{of['denoiser']['images'][i]:.3g}" if "denoiser" in of else "")
            row += [
                f"{of['denoiser'][side][i]['value']:.3g}" if "denoiser" in of else ""
                for side in ("error_train", "error_held_out")
            ]
            row.append(number(of["membership"]["auc"][i], 3) if "membership" in of else "")
            row.append(percent(of["membership"]["tpr_at_0.01"][i]) if "membership" in of else "")
            rows.append(row)
    head = [
        "",
        "noise level",
        "distance to the training set's memoriser over the other's",
        "images in its mean",
        "error, training",
        "error, held-out",
    ]
    return [*head, "membership AUC", "true positives at 1 % false ones, %"], rows


def _membership(audits: Mapping[str, Any]) -> Table:
    rows = []
    for name, of in there(audits, "levels", "membership").items():
        both = of["combined"]
        rates = [both[f"tpr_at_{rate}"] for rate in ("0.01", "0.001")]
        cells = ["too few images" if "missing" in each else percent(each) for each in rates]
        rows.append([name, f"{of['members']:,}", f"{of['others']:,}", number(both["auc"], 3), *cells])
    return ["", "members", "held-out", "AUC", "true positives at 1 % false ones, %", "at 0.1 % false ones, %"], rows


def _extraction(audits: Mapping[str, Any]) -> Table:
    rows = []
    for name, of in there(audits, "extracted").items():
        shares = [percent(of[side]) for side in ("of_train", "of_held_out")]
        images = f"{of['train_images']:,} of {of['of']:,}" if of["clusters"] else "0"
        rows.append([name, f"{of['samples']:,}", f"{of['clusters']:,}", f"{of['members']:,}", *shares, images])
    head = ["", "samples", "clusters", "samples in them", "near a training image, %", "near a held-out one, %"]
    return [*head, "training images extracted"], rows


def _balance(audits: Mapping[str, Any]) -> Table:
    rows = []
    for name, attribute, scale, of, names in shown_classes(audits):
        for i, each in enumerate(names):
            rows.append(
                [
                    name,
                    attribute,
                    scale,
                    each,
                    f"{100 * of['data'][i]:.1f}",
                    percent(_at(of["uncorrected"], i)),
                    percent(_at(of["corrected"], i)),
                    percent(_at(of["amplification"], i)),
                ]
            )
    return ["", "", "scale", "value", "data, %", "judged, %", "corrected, %", "amplification, %"], rows


def _per_class(audits: Mapping[str, Any]) -> Table:
    rows = []
    for name, attribute, scale, of, names in shown_classes(audits):
        for each, figures in zip(names, of["per_class"], strict=True):
            numbers = [
                "" if figures[key] is None else f"{figures[key]:.3g}" for key in ("precision", "recall", "frechet")
            ]
            rows.append([name, attribute, scale, each, str(figures["n"]), str(figures["real"]), *numbers])
    return ["", "", "scale", "value", "samples", "real", "precision", "recall", "Fréchet distance"], rows


def shown_classes(audits: Mapping[str, Any]) -> Iterator[tuple[str, str, str, Result, Sequence[str]]]:
    """Each audit, attribute and scale, with its balance and the names of the values."""
    for name, part in there(audits, "balance").items():
        for attribute, of in part.items():
            for scale, shown in of.get("scales", {}).items():
                yield name, attribute, scale, shown, of["names"]


def _at(of: Mapping[str, Sequence[float]], i: int) -> dict[str, float]:
    return {end: values[i] for end, values in of.items()}


def number(of: Mapping[str, float] | None, digits: int, factor: float = 1.0) -> str:
    """A figure with its interval; "" for none."""
    if of is None or "missing" in of:
        return ""
    value, low, high = (f"{factor * of[end]:.{digits}f}" for end in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def p_value(p: float) -> str:
    """A p-value in words; one that floats cannot hold is below the least of them."""
    return f"p = {p:.2g}" if p > 0 else "p < 1e-300"


def percent(of: Mapping[str, float] | None) -> str:
    """A share with its interval, in percent without its sign; "" for none."""
    return number(of, 1, 100.0)


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows))
