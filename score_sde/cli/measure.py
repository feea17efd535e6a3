"""Figures of features that were computed elsewhere: `score_sde --mode=measure`."""

from pathlib import Path

from absl.flags import FlagValues

from score_sde import metrics
from score_sde.errors import UsageError
from score_sde.evaluation import report
from score_sde.evaluation.figure_names import short_names


def run(values: FlagValues) -> None:
    """Prints every figure that the features of two files allow, each with its standard error."""
    samples, reference = metrics.load_features(Path(values.samples)), metrics.load_statistics(Path(values.reference))
    n, d = samples["features"].shape
    if d != len(reference.mean):
        raise UsageError(
            f"{values.samples} holds {d} features of an image, and {values.reference} {len(reference.mean)}; compute "
            "both by one network."
        )
    figures = metrics.measure(f"file-{reference.digest[:8]}", samples, reference)
    of = f"{reference.n:,} images" if reference.n else "images of unknown number"
    print(f"{n:,} samples and {of}, {d} features; ± is one standard error")
    names, _ = short_names(figures)
    for name, figure in figures.items():
        print(f"{names[name]} {report.text(figure)}")
    print(f"file: the reference of digest {reference.digest}; figures compare with others of this reference only.")
