"""The command line: flags only. See README.md."""

import contextlib
import importlib.machinery
import importlib.util
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict, config_flags

from score_sde import backend
from score_sde.errors import UsageError, exit_status, nearest, warn
from score_sde.import_paths import is_import_path

CONFIG = ("--config", "-config")
DATA = ("data_dir", "archives", "path", "in_memory_gib", "num_workers", "corrupt")
HERE = (*(f"data.{key}" for key in DATA), "training.fsdp")  # not the model's, but of the machine it runs on
WITH_OUT = ("eval", "sample")
MODES = ("train", "eval", "sample", "describe", "train_dequantizer")

# Keys that name a piece, and those of them whose section has its arguments alone (score_sde/pieces.py).
WHOLE = ("sde.name", "model.name")
PIECES = (*WHOLE, "process.name", "parameterization.name", "times.name", "weight.name", "encoder.name")
PIECES += ("sampling.method", "data.dataset", "metrics.features")

MOVED = {
    "training.sde": "sde.name",
    "training.loss": "sde.name",
    "training.continuouse": "training.continuous",
    "model.sigma_min": "sde.sigma_min",
    "model.sigma_max": "sde.sigma_max",
    "model.beta_min": "sde.beta_min",
    "model.beta_max": "sde.beta_max",
    "model.num_scales": "sde.num_scales",
    "model.ema_rate": "optim.ema_rate",
    "eval.dataset": "eval.bpd_dataset",
}
REMOVED = {
    "training.n_jitted_steps": "every step is one program that does not wait for the host",
    "data.category": "it is part of data.dataset, as in lsun/bedroom",
    "model.num_classes": "NCSN's num_levels are sde.num_scales, and of the others NCSN++ and DDPM++ alone have classes",
    "model.sigma_begin": "the paper's code never read it",
    "model.normalization": "each network has its own",
    "model.conv_size": "the paper's code never read it",
    "model.attention_type": "the paper's code never read it",
    "optim.amsgrad": "the paper's code never read it",
    "data.tfrecords_path": "ffhq_* and celebahq_* are prepared from TFRecord files in the folder config.data.archives",
    "device": "JAX takes the accelerators it finds; the environment's JAX_PLATFORMS chooses",
}


def main(argv: list[str] | None = None) -> int:
    """See `exit_status`."""
    return exit_status(_program, argv)


def _program(argv: list[str]) -> None:
    values = parse(argv, program_flags, USAGE)
    if values.mode is None:
        raise UsageError(f"--mode is missing: one of {', '.join(MODES)}.")
    backend.find_home()
    backend.keep_programs()
    from score_sde import processes

    with processes.together(values.coordinator, values.num_processes, values.process_id):
        _run(values.mode, values, overrides(values))


def _run(mode: str, values: flags.FlagValues, overrides: dict) -> None:
    from score_sde.recipe import check_overrides

    config, workdir, allowed, out = values.config, values.workdir, values.allow_change, values.out
    check_overrides(config, overrides)
    if out and mode not in WITH_OUT:
        raise UsageError(f"--out is a folder for --mode={' and '.join(WITH_OUT)}; --mode={mode} writes to --workdir.")
    if allowed and mode != "train":
        raise UsageError(f"--allow_change is for --mode=train; --mode={mode} takes the workdir's config.")
    if mode == "describe":
        from score_sde.describe import describe

        return describe(config)
    if not workdir:
        raise UsageError("--workdir=DIR is missing: the folder of the run.")
    if mode == "train":
        from score_sde.training import train

        return train(config, workdir, overrides, allowed)

    from score_sde.evaluate import evaluate, sample

    config = _of_workdir(Path(workdir), config, overrides)
    if mode == "sample" or (mode == "eval" and config.eval.enable_sampling):
        _tell_unused(config, overrides)
    if mode == "train_dequantizer":
        from score_sde.train_dequantizer import train_dequantizer

        return train_dequantizer(config, workdir)
    return evaluate(config, workdir, values.eval_folder, out) if mode == "eval" else sample(config, workdir, out)


def _of_workdir(directory: Path, config: ConfigDict, overrides: dict) -> ConfigDict:
    """The workdir's config, with `sampling`, `eval` and `wandb` as the command line has them.

    The overrides of the training's command line need not be repeated. Raises `UsageError` where the command line
    describes another run.
    """
    from score_sde import workdir
    from score_sde.loaded import stored_config

    workdir.checkpoint_steps(directory)
    for key, value in workdir.read(directory, "launch.json").get("overrides", {}).items():
        # A key that today's file does not have belongs to another config, which the check below names.
        with contextlib.suppress(KeyError, AttributeError, TypeError):
            if key not in overrides:
                config.update_from_flattened_dict({key: tuple(value) if isinstance(value, list) else value})
    workdir.inherit(directory, config, overrides)
    workdir.check_same_run(directory, config.to_dict())
    stored = stored_config(directory)
    flat = workdir.flatten(stored.to_dict())
    for key, value in workdir.flatten(overrides).items():
        if key.split(".")[0] not in workdir.FREE_SECTIONS and key not in HERE and flat.get(key) != value:
            sections = ", ".join(f"{section}.*" for section in workdir.FREE_SECTIONS)
            raise UsageError(
                f"{key}={value!r} cannot be changed after training; only {sections}, {', '.join(HERE)} can."
            )
    with stored.unlocked():
        for section in workdir.FREE_SECTIONS:
            stored[section] = config[section]
        stored.update_from_flattened_dict({key: overrides[key] for key in HERE if key in overrides})
    return stored


def _tell_unused(config: ConfigDict, overrides: dict) -> None:
    """Warns of options on the command line that change no sample."""
    from score_sde.conditional import check_options, unused_option
    from score_sde.controllable.conditions import KINDS, parts
    from score_sde.parallel import is_first

    check_options(config.guidance)
    method, observed = config.sampling.method.lower(), not KINDS.keys().isdisjoint(parts(config.sampling.condition))
    read = ("method", "num_samples", "batch_size", "condition", "ema", "samples_each", "noise")  # by the program itself
    for key, value in overrides.items():
        section, _, name = key.partition(".")
        if section in ("sampling", "guidance") and name not in read and is_first():
            reason = unused_option(name, config.sampling, config.guidance, method, observed=observed)
            if reason:
                warn(f"{key}={value} changes nothing: {reason}.")


def parse(
    argv: list[str],
    define: Callable[[flags.FlagValues], None],
    usage: str,
    of_workdir: Callable[[Path], ConfigDict] | None = None,
) -> flags.FlagValues:
    """The flags of a command line, argv[0] being the program: `config` and those of `define`. Raises `UsageError`.

    of_workdir: the config of the run in --workdir, which is taken where there is no --config.
    """
    if any(argument in ("--help", "-h", "--helpfull") for argument in argv):
        print(usage)
        raise SystemExit(0)
    given = list(_arguments(argv))
    template = _template(dict(given), of_workdir)
    for name, value in given:
        if name.startswith("config."):
            _check_override(template, name.removeprefix("config."), value)
    rest = [argv[0], *_without_config(argv)]
    try:
        values = flags.FlagValues()
        config_flags.DEFINE_config_dict("config", template, "", values, lock_config=True, sys_argv=rest)
        define(values)
        unexpected = values(rest)[1:]
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{' '.join(str(error).split()).rstrip('.')} (--help shows the flags).") from error
    if unexpected:
        raise UsageError(f"Unexpected argument '{unexpected[0]}'; flags look like --name=value.")
    return values


def _template(given: dict[str, str | None], of_workdir: Callable[[Path], ConfigDict] | None) -> ConfigDict:
    """The config before its values are overridden, in which the pieces that overrides name have their arguments."""
    path, workdir = given.get("config"), given.get("workdir")
    if path:
        template = _read(path)
    elif of_workdir and workdir and Path(workdir, "config.json").exists():
        template = of_workdir(Path(workdir))
    else:
        there = f", since {workdir} has no config.json" if of_workdir and workdir else ""
        raise UsageError(
            f"--config=FILE is missing{there}, for example --config=configs/vp/cifar10_ddpmpp_continuous.py."
        )
    named = {key: given[f"config.{key}"] for key in PIECES if given.get(f"config.{key}")}
    if named:
        from score_sde.pieces import rename

        for key, name in named.items():
            if is_import_path(name) or (key in WHOLE and name != template[key.partition(".")[0]].name):
                rename(template, key, name)
    return template


def _read(path: str) -> ConfigDict:
    """What get_config() of a config file returns."""
    file, argument = _file_and_argument(path)
    if not file.is_file():
        raise UsageError(f"No config file {file}; see configs/ for those there are.")
    try:
        loader = importlib.machinery.SourceFileLoader("config_file", str(file.absolute()))
        module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
        loader.exec_module(module)
        config = module.get_config(*argument)
    except Exception as error:  # whatever the file does
        reason = str(error).strip().splitlines()[-1:] or [""]
        raise UsageError(f"Cannot read the config {path}: {type(error).__name__}: {reason[0]}") from error
    if not isinstance(config, ConfigDict):
        raise UsageError(f"get_config() of {path} returns no ConfigDict; see configs/presets.py.")
    return config


def _file_and_argument(path: str) -> tuple[Path, list[str]]:
    """A config file and the argument of its get_config, where the longest part of the path that is a file is it."""
    parts = path.split(":")
    ends = [n for n in range(len(parts), 0, -1) if Path(":".join(parts[:n])).is_file()]
    n = ends[0] if ends else 1
    return Path(":".join(parts[:n])), [":".join(parts[n:])] * (n < len(parts))


def overrides(values: flags.FlagValues) -> dict:
    """{"training.n_iters": 10, ...}: the config values given on the command line."""
    return config_flags.get_override_values(values["config"])


def program_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_string("workdir", None, "", values)
    flags.DEFINE_enum("mode", None, MODES, "", values)
    flags.DEFINE_string("eval_folder", "eval", "", values)
    flags.DEFINE_string("out", None, "", values)
    flags.DEFINE_list("allow_change", [], "", values)
    flags.DEFINE_string("coordinator", None, "", values)
    flags.DEFINE_integer("num_processes", None, "", flag_values=values)
    flags.DEFINE_integer("process_id", None, "", flag_values=values)


def _without_config(argv: list[str]) -> Iterator[str]:
    """The arguments after the program's name but for the config file, in either form."""
    for previous, argument in itertools.pairwise(argv):
        if not (argument.lstrip("-").startswith("config=") or argument in CONFIG or previous in CONFIG):
            yield argument


def _arguments(argv: list[str]) -> Iterator[tuple[str, str | None]]:
    """(name, value) of every flag, in either form: --name=value, --name value."""
    for argument, following in itertools.zip_longest(argv[1:], argv[2:]):
        if argument.startswith("-"):
            name, equals, value = argument.lstrip("-").partition("=")
            yield name.removeprefix("no") if name.startswith("noconfig.") else name, value if equals else following


def _check_override(template: ConfigDict, key: str, value: str | None) -> None:
    if key in MOVED:
        raise UsageError(f"config.{key} is now config.{MOVED[key]}.")
    known = list(_leaves(template))
    if key in REMOVED and key not in known:
        raise UsageError(f"config.{key} is gone: {REMOVED[key]}.")
    if key not in known:
        if any(leaf.startswith(key + ".") for leaf in known):
            raise UsageError(f"config.{key} is a section; set one of its values, like --config.{key}.NAME=VALUE.")
        raise UsageError(f"Unknown config key '{key}'{nearest(key, known)}; --mode=describe prints all of them.")
    kind = template.get_type(key) if "." not in key else _section(template, key).get_type(key.rsplit(".")[-1])
    if kind in (int, float) and value is not None:
        try:
            kind(value)
        except ValueError:
            raise UsageError(f"--config.{key}={value} is not {'an integer' if kind is int else 'a number'}.") from None


def _section(config: ConfigDict, key: str) -> ConfigDict:
    for name in key.split(".")[:-1]:
        config = config[name]
    return config


def _leaves(config: ConfigDict, prefix: str = "") -> Iterator[str]:
    for key, value in config.items():
        if isinstance(value, ConfigDict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key


USAGE = """\
python -m score_sde --config=FILE --workdir=DIR --mode=train|eval|sample|describe|train_dequantizer
                    [--eval_folder=eval] [--out=DIR] [--allow_change=KEY,KEY] [--config.KEY=VALUE ...]
                    [--coordinator=HOST:PORT --num_processes=N --process_id=I]

train     trains, going on from the workdir's last checkpoint
eval      loss, bits/dim and samples of snapshots, or loss and accuracy of a classifier's, to
          DIR/EVAL_FOLDER/report.json
sample    config.sampling.num_samples samples of the last checkpoint, to DIR/samples
describe  prints the resolved config, the network, memory, sampler and its network evaluations; needs no workdir
train_dequantizer  fits a variational dequantisation to the last checkpoint, to DIR/dequantizer, for
                   eval with --config.eval.dequantization=variational

--out: the folder that eval and sample write to in the place of the workdir, which may be read-only then.
--allow_change: what train may go on with another value of, as optim.lr,training.batch_size; data: other images.

N processes on one or more machines run as one program: SLURM, MPI and TPU pods say so by themselves; elsewhere each is
started with the address of process 0 and its own I = 0, ..., N - 1. --num_processes=1 alone runs one by itself."""
