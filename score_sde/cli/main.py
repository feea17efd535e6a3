"""The command line of the package; see README.md."""

import contextlib
from collections.abc import Callable
from pathlib import Path

from absl import flags

from score_sde.cli.command_line import name_or_set, names_first, overrides, parse
from score_sde.config import FREE_SECTIONS, OF_MACHINE, Config, check
from score_sde.config.import_paths import lowered
from score_sde.errors import UsageError, tell, warn
from score_sde.runtime import backend
from score_sde.runtime.preemption import exit_status

WITH_OUT = ("eval", "sample")
MODES = ("train", "eval", "sample", "describe", "train_dequantizer")


def main(argv: list[str] | None = None) -> int:
    """Runs this command line and returns its exit status."""
    return exit_status(_program, argv)


def _program(argv: list[str]) -> None:
    argv = ["--explain=" if argument in ("--explain", "-explain") else argument for argument in argv]  # explain all
    values = parse(argv, program_flags, USAGE, _stored)
    if values.mode is None:
        raise UsageError(f"--mode is missing: one of {', '.join(MODES)}.")
    backend.find_home()
    backend.keep_programs()
    from score_sde.runtime import multihost

    with multihost.together(values.coordinator, values.num_processes, values.process_id):
        _run(values.mode, values, overrides(values))


def _stored(directory: Path) -> Config:
    from score_sde.io.workdir import stored_config

    return stored_config(directory)


def _run(mode: str, values: flags.FlagValues, overrides: dict) -> None:
    from score_sde.training.recipe import check_overrides

    config, workdir, allowed, out = values.config, values.workdir, values.allow_change, values.out
    explain = values.explain
    check_overrides(config, overrides)
    if out and mode not in WITH_OUT:
        raise UsageError(f"--out is a folder for --mode={' and '.join(WITH_OUT)}; --mode={mode} writes to --workdir.")
    if explain is not None and mode != "describe":
        raise UsageError(f"--explain is for --mode=describe; --mode={mode} explains no keys.")
    if allowed and mode != "train":
        raise UsageError(f"--allow_change is for --mode=train; --mode={mode} takes the workdir's config.")
    if mode == "describe":
        from score_sde.cli.describe import describe

        return describe(config, explain)
    if not workdir:
        raise UsageError("--workdir=DIR is missing: the folder of the run.")
    if mode == "train":
        from score_sde.training.run import train

        return train(config, workdir, _going_on(Path(workdir), config, overrides, allowed), allowed)

    from score_sde.evaluation.evaluate import evaluate, sample

    config = _of_workdir(Path(workdir), config, overrides)
    if mode == "sample" or (mode == "eval" and config.eval.enable_sampling):
        _tell_unused(config, overrides)
    if mode == "train_dequantizer":
        from score_sde.inference.train_dequantizer import train_dequantizer

        return train_dequantizer(config, workdir)
    return evaluate(config, workdir, values.eval_folder, out) if mode == "eval" else sample(config, workdir, out)


def _of_workdir(directory: Path, config: Config, overrides: dict) -> Config:
    """The workdir's config, with `sampling`, `eval` and `wandb` from the command line.

    The overrides of the training's command line need not be repeated. Raises `UsageError` where the command line
    describes another run.
    """
    from score_sde.io import workdir

    workdir.checkpoint_steps(directory)
    _repeat(directory, config, lambda key: key not in overrides)
    workdir.inherit(directory, config, overrides)
    workdir.check_same_run(directory, config.to_dict())
    stored = workdir.stored_config(directory)
    flat = workdir.flatten(stored.to_dict())
    for key, value in workdir.flatten(overrides).items():
        if key.split(".")[0] not in FREE_SECTIONS and key not in OF_MACHINE and flat.get(key) != value:
            sections = ", ".join(f"{section}.*" for section in FREE_SECTIONS)
            raise UsageError(
                f"{key}={value!r} cannot be changed after training; only {sections}, {', '.join(OF_MACHINE)} can."
            )
    with stored.unlocked():
        for section in FREE_SECTIONS:
            stored[section] = config[section]
        stored.update_from_flattened_dict({key: overrides[key] for key in OF_MACHINE if key in overrides})
    return stored


def _going_on(directory: Path, config: Config, overrides: dict, allowed: list[str]) -> dict:
    """The overrides of a training; where it goes on, with those of its earlier launches, which come into the config.

    Keys of the machine, such as where data are, are as given now.
    """
    from score_sde.io import workdir
    from score_sde.runtime.sharding import is_first

    if not workdir.checkpoints.steps(directory / "checkpoints"):
        return overrides
    before = workdir.flatten(config.to_dict())
    repeated = _repeat(directory, config, lambda key: key not in {*overrides, *allowed, *OF_MACHINE})
    told = [f"{key}={value}" for key, value in repeated.items() if before.get(key) != value]
    if told and is_first():
        tell(f"going on with the values of this run's earlier command lines: {', '.join(told)}")
    return repeated | overrides


def _repeat(directory: Path, config: Config, wanted: Callable[[str], bool]) -> dict:
    """Sets values that earlier launches overrode, for the wanted keys, and returns them."""
    from score_sde.io import workdir

    repeated, earlier = {}, workdir.read(directory, "launch.json").get("overrides", {})
    for key, value in names_first(earlier):
        # A key that the current file lacks belongs to another config; the check of the run reports it.
        with contextlib.suppress(UsageError):
            if wanted(key):
                name_or_set(config, key, value)
                repeated[key] = value
    return repeated


def _tell_unused(config: Config, overrides: dict) -> None:
    """Warns of options on the command line that have no effect on samples."""
    from score_sde.conditioning.grammar import KINDS, parts
    from score_sde.inference.conditional_samplers import unused_option
    from score_sde.runtime.sharding import is_first

    check(config)
    method, observed = lowered(config.sampling.method), not KINDS.keys().isdisjoint(parts(config.sampling.condition))
    read = ("method", "num_samples", "batch_size", "condition", "ema", "samples_each", "noise")  # by the program itself
    for key, value in overrides.items():
        section, _, name = key.partition(".")
        if section in ("sampling", "guidance") and name not in read and is_first():
            reason = unused_option(name, config.sampling, config.guidance, method, observed=observed)
            if reason:
                warn(f"{key}={value} changes nothing: {reason}.")


def program_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_string("workdir", None, "", values)
    flags.DEFINE_enum("mode", None, MODES, "", values)
    flags.DEFINE_string("eval_folder", "eval", "", values)
    flags.DEFINE_string("out", None, "", values)
    flags.DEFINE_list("allow_change", [], "", values)
    flags.DEFINE_string("explain", None, "", values)
    flags.DEFINE_string("coordinator", None, "", values)
    flags.DEFINE_integer("num_processes", None, "", flag_values=values)
    flags.DEFINE_integer("process_id", None, "", flag_values=values)


USAGE = """\
python -m score_sde [--config=FILE] --workdir=DIR --mode=train|eval|sample|describe|train_dequantizer
                    [--eval_folder=eval] [--out=DIR] [--allow_change=KEY,KEY] [--config.KEY=VALUE ...]
                    [--explain[=SECTION]]
                    [--coordinator=HOST:PORT --num_processes=N --process_id=I]

train     trains, going on from the workdir's last checkpoint
eval      loss, bits/dim and samples of snapshots, or loss and accuracy of a classifier's, to
          DIR/EVAL_FOLDER/report.json
sample    config.sampling.num_samples samples of the last checkpoint, to DIR/samples
describe  prints the resolved config, the network, memory, sampler and its network evaluations
train_dequantizer  fits a variational dequantization to the last checkpoint, to DIR/dequantizer, for
                   eval with --config.eval.dequantization=variational

--config: the first train needs it; later the workdir has the config, and --config.KEY=VALUE changes what may change.
--out: the folder that eval and sample write to in the place of the workdir, which may be read-only then.
--explain: describe prints each key of the config, or of one section, with its meaning, values, and when it may differ.
--allow_change: keys whose values train may change in a run, as optim.lr,training.batch_size; data: other images;
                code: a changed file of your own piece.

N processes on one or more machines run as one program. Under SLURM, MPI and on TPU pods they find each other; elsewhere
start each with the address of process 0 and its own I = 0, ..., N - 1. --num_processes=1 alone runs one by itself."""
