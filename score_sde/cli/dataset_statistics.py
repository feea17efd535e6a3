"""Statistics of a config's data set, to which samples are compared: `score_sde --mode=statistics`."""

from pathlib import Path

from absl.flags import FlagValues

from score_sde.errors import UsageError
from score_sde.evaluation import report, sample_metrics
from score_sde.io import atomic_files


def run(values: FlagValues) -> None:
    """Computes the statistics of a command line's config, keeps them for --mode=eval, and prints what they are."""
    if values.config.metrics.features == "none":
        raise UsageError("config.metrics.features=none needs no statistics; set it to inception or trained.")
    out = Path(values.out) if values.out else None
    if out and out.suffix != ".npz":
        raise UsageError(f"--out={out} must end in .npz, as statistics are written.")
    if out:
        atomic_files.check_place(out, "--out")
    measure = sample_metrics.measure(values.config)
    features, statistics = measure.features, measure.statistics
    if out:
        statistics.save(out, "--out")
    print(f"features: {features.name}, {len(statistics.mean)} numbers an image, weights {features.digest}")
    print(f"statistics: {statistics.n:,} images, digest {statistics.digest}")
    for line in report.lines(measure.baselines(values.config.eval.num_samples).rows):
        print(line)
    print(f"kept in {out or sample_metrics.folder(values.config)}")
