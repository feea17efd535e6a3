"""Statistics of a config's data set, to which samples are compared: `python -m score_sde.statistics`."""

import sys
from pathlib import Path

from absl import flags

from score_sde.cli.command_line import parse
from score_sde.errors import UsageError
from score_sde.evaluation import report, sample_metrics
from score_sde.runtime.preemption import exit_status


def main(argv: list[str] | None = None) -> int:
    """Runs this command line and returns its exit status."""
    return exit_status(_program, argv)


def _program(argv: list[str]) -> None:
    values = parse(argv, _define_flags, USAGE)
    if values.config.metrics.features == "none":
        raise UsageError("config.metrics.features=none needs no statistics; set it to inception or trained.")
    out = Path(values.out) if values.out else None
    if out and out.suffix != ".npz":
        raise UsageError(f"--out={out} must end in .npz, as statistics are written.")
    measure = sample_metrics.measure(values.config)
    features, found = measure.features, measure.statistics
    if out:
        found.save(out, "--out")
    print(f"features: {features.name}, {len(found.mean)} numbers an image, weights {features.digest}")
    print(f"statistics: {found.n:,} images, digest {found.digest}")
    for line in report.lines(measure.baselines(values.config.eval.num_samples).rows):
        print(line)
    print(f"kept in {out or sample_metrics.folder(values.config)}")


def _define_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_string("out", None, "", values)


USAGE = """\
python -m score_sde.statistics --config=FILE [--out=FILE.npz] [--config.KEY=VALUE ...]

Computes the statistics of a data set's features, to which samples are compared, and the figures of noise and of
held-out images for eval.num_samples samples, and keeps them for --mode=eval, which otherwise computes them itself.
--out: a copy, for config.metrics.statistics on another machine."""


if __name__ == "__main__":
    sys.exit(main())
