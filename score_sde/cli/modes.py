"""The modes of the command line: what each does and takes, and the text of its `--help`."""

import textwrap
from collections.abc import Mapping
from typing import Any, NamedTuple

from absl import flags

from score_sde.errors import UsageError, one_of

WIDTH = 100


class Flag(NamedTuple):
    """A flag: its value as help writes it, one sentence, how absl reads it, and its default."""

    value: str
    text: str
    define: Any = flags.DEFINE_string
    default: Any = None


class Mode(NamedTuple):
    """A mode: the module and function of `cli/` that run it, its flags besides the config's, a sentence, two examples.

    processes: whether several processes may run it as one program. out: its own meaning of `--out`. needs: flags
    without which there is nothing to do. config: whether it is about a config. config_of: the function that makes the
    config of a command line without --config, where its flags say it.
    """

    run: str
    flags: tuple[str, ...]
    text: str
    examples: tuple[str, str]
    processes: bool = True
    out: str = ""
    needs: tuple[str, ...] = ()
    config: bool = True
    config_of: str = ""


def mode_of(name: str | None) -> Mode:
    """The mode of this name. Raises `UsageError` where there is none, or no name."""
    if not name:
        raise UsageError(f"--mode is missing: one of {', '.join(MODES)}; --help says what each does.")
    return MODES[one_of("--mode", name, MODES)]


def flags_of(name: str) -> tuple[str, ...]:
    """Names of the flags that a mode takes, besides `config`, `config.KEY` and `mode`."""
    return MODES[name].flags + PROCESSES * MODES[name].processes


def check_flags(name: str, written: Mapping[str, str | None]) -> None:
    """Raises `UsageError` for a flag that other modes take and this one does not, and for one that is missing."""
    for flag in written:
        if flag in FLAGS and flag not in flags_of(name):
            modes = ", ".join(mode for mode in MODES if flag in flags_of(mode))
            taken = ", ".join(f"--{each}" for each in MODES[name].flags)
            raise UsageError(f"--{flag} is for --mode={modes}; --mode={name} takes {taken}.")
    for flag in MODES[name].needs:
        if not written.get(flag):
            raise UsageError(f"--{flag}={FLAGS[flag].value} is missing; --mode={name} --help shows the flags.")


def define(name: str, values: flags.FlagValues) -> None:
    """Defines the flags of a mode."""
    flags.DEFINE_string("mode", None, "", values)  # which `mode_of` has checked
    for each in flags_of(name):
        FLAGS[each].define(each, FLAGS[each].default, "", flag_values=values)


def overview() -> str:
    """The text of `score_sde --help`: the modes, a line each."""
    rows = [f"  {name:18s} {mode.text}" for name, mode in MODES.items()]
    return "\n".join(["score_sde --mode=MODE [flags]       (or python -m score_sde)", "", *rows, "", OF_EACH])


def usage(name: str) -> str:
    """The text of `score_sde --mode=NAME --help`: the mode, its flags with their meaning, and two examples."""
    mode = MODES[name]
    lines = [f"score_sde --mode={name} [flags]", "", *textwrap.wrap(mode.text, WIDTH), ""]
    texts = {f"--{each}={FLAGS[each].value}": FLAGS[each].text for each in mode.flags}
    if mode.out:
        texts[f"--out={FLAGS['out'].value}"] = mode.out
    if mode.config:
        texts = CONFIG | texts
    if mode.processes:
        texts |= {f"--{each}={FLAGS[each].value}": FLAGS[each].text for each in PROCESSES}
    for flag, text in texts.items():
        lines += textwrap.wrap(text, WIDTH, initial_indent=f"  {flag:26s} ", subsequent_indent=" " * 29)
    return "\n".join([*lines, "", "Examples:", *(f"  score_sde {example}" for example in mode.examples)])


OF_EACH = "score_sde --mode=MODE --help shows a mode's flags, with two examples."

CONFIG = {
    "--config=NAME|FILE": "A config by its name, as vp/cifar10_ddpmpp_continuous, or a Python file with get_config(). "
    "Not needed where --workdir has a run: the workdir has its config.",
    "--config.KEY=VALUE": "A value of the config; --mode=describe --explain says what each key means.",
}

FLAGS = {
    "workdir": Flag("DIR", "The folder of the run."),
    "out": Flag("PATH", "The folder to write to instead of the workdir, which may then be read-only."),
    "eval_folder": Flag("NAME", "Name of the report's folder in the workdir; default eval.", default="eval"),
    "allow_change": Flag(
        "KEY,...",
        "Keys whose values may change when a training goes on, such as optim.lr,training.batch_size. The word data "
        "allows other images, and the word code a changed file of your own.",
        flags.DEFINE_list,
        [],
    ),
    "distances": Flag(
        "N",
        "Prints the largest distance of two of N training images, which sde.sigma_max should be about; 0: of all. "
        "These N images are always the same.",
        flags.DEFINE_integer,
    ),
    "explain": Flag(
        "SECTION",
        "Prints each key of a section, with its meaning, its values, and when it may differ. --explain alone prints "
        "those of the whole config.",
    ),
    "from": Flag(
        "FILE",
        "The checkpoint: the paper's (PyTorch .pth, or Flax without extension; of a score network or of the "
        "noise-conditional classifier), EDM's or EDM2's (.pkl), OpenAI's of ADM (.pt), U-ViT's (.pth), DiT's (.pt), a "
        "folder of diffusers with config.json, or a state dict (.pth, .safetensors). Nothing in it is executed, and "
        "PyTorch is not needed. EDM's and diffusers' say their network and objective, U-ViT's and DiT's their network, "
        "and need no --config; the paper's do not say the SDE, so --config must.",
    ),
    "model_flags": Flag(
        "FLAGS",
        "Flags that an OpenAI network was trained with, as MODEL_FLAGS of its page, which its file does not say. Files "
        "with the names of the released ones need none.",
        default="",
    ),
    "samples": Flag("FILE", "The samples' features, (n, d): an .npy file, or an .npz file with `features`."),
    "reference": Flag("FILE", "The data's features in the same form, or a file of their statistics, mu and sigma."),
    "sigma_rel": Flag(
        "WIDTH,...",
        "Widths of the averages, as shares of the run: 0.075 is the average power:0.075.",
        flags.DEFINE_list,
    ),
    "step": Flag(
        "N",
        "The update after which the averages end; default that of the last snapshot of averages.",
        flags.DEFINE_integer,
    ),
    "author": Flag(
        "FILE",
        "The author's texts, in TOML: intended use, limits, licence and more. Without it the texts are those of "
        "author.toml beside the card, which is written there to be filled in if there is none.",
    ),
    "n": Flag("N", "Number of pairs; those that the folder holds already count.", flags.DEFINE_integer),
    "name": Flag("NAME", "Name of the experiment; without it, all are listed."),
    "coordinator": Flag(
        "HOST:PORT",
        "Address of process 0, where several processes run as one program. Under SLURM and MPI and on TPU pods they "
        "find each other; elsewhere, start each one with this flag and the next two.",
    ),
    "num_processes": Flag(
        "N", "Number of processes; 1 runs this process by itself, whatever started it.", flags.DEFINE_integer
    ),
    "process_id": Flag("I", "Number of this process: 0, ..., N - 1.", flags.DEFINE_integer),
}
PATHS = ("DIR", "FILE", "PATH")  # values of flags that are paths
NO_FLAG = Flag("", "")
PROCESSES = ("coordinator", "num_processes", "process_id")

MODES = {
    "train": Mode(
        "runs:train",
        ("workdir", "allow_change"),
        "Trains a network, from the workdir's last checkpoint on if it has one.",
        (
            "--mode=train --config=vp/cifar10_ddpmpp_continuous --workdir=runs/cifar10",
            "--mode=train --workdir=runs/cifar10 --config.training.n_iters=2000000",
        ),
        needs=("workdir",),
    ),
    "eval": Mode(
        "runs:evaluate",
        ("workdir", "eval_folder", "out"),
        "Evaluates snapshots: loss, bits/dim and samples, or a classifier's accuracy.",
        (
            "--mode=eval --workdir=runs/cifar10 --config.eval.enable_bpd=True",
            "--mode=eval --workdir=runs/cifar10 --eval_folder=few --config.sampling.method=unipc_3",
        ),
        needs=("workdir",),
    ),
    "sample": Mode(
        "runs:sample",
        ("workdir", "out"),
        "Draws samples from the model of the last checkpoint.",
        (
            "--mode=sample --workdir=runs/cifar10 --config.sampling.method=dpmpp_2m --config.sampling.num_steps=20",
            "--mode=sample --workdir=runs/cifar10 --config.sampling.condition=inpaint=right_half",
        ),
        needs=("workdir",),
    ),
    "describe": Mode(
        "describe:run",
        ("workdir", "explain"),
        "Prints the config, network, memory and sampler; without a config, all configs.",
        (
            "--mode=describe --config=vp/cifar10_ddpmpp_continuous --config.model.nf=64",
            "--mode=describe --config=vp/cifar10_ddpmpp_continuous --explain=sampling",
        ),
    ),
    "train_dequantizer": Mode(
        "runs:train_dequantizer",
        ("workdir",),
        "Fits a variational dequantization to the last checkpoint, for eval.",
        (
            "--mode=train_dequantizer --workdir=runs/cifar10",
            "--mode=train_dequantizer --workdir=runs/cifar10 --config.dequantizer.n_iters=2000",
        ),
        needs=("workdir",),
    ),
    "ema": Mode(
        "make_averages:run",
        ("workdir", "sigma_rel", "step"),
        "Makes averages of the weights after the fact, of any widths, from the run's snapshots of its power averages.",
        (
            "--mode=ema --workdir=runs/cifar10 --sigma_rel=0.075",
            "--mode=ema --workdir=runs/cifar10 --sigma_rel=0.06,0.075,0.125,0.15 --step=200000",
        ),
        processes=False,
        needs=("workdir", "sigma_rel"),
        config=False,
    ),
    "pairs": Mode(
        "reflow:run",
        ("workdir", "out", "n"),
        "Draws pairs of noise and image by the ODE of the last checkpoint, on which a reflow trains straighter paths.",
        (
            "--mode=pairs --workdir=runs/flow --out=runs/pairs --n=10000 --config.sampling.method=ode",
            "--mode=pairs --workdir=runs/classes --out=runs/pairs --n=10000 --config.sampling.condition=class=all",
        ),
        processes=False,
        out="The folder of the pairs.",
        needs=("workdir", "out", "n"),
    ),
    "import": Mode(
        "import_checkpoint:run",
        ("from", "workdir", "model_flags"),
        "Makes a workdir from a published checkpoint: the paper's, EDM's, OpenAI's, U-ViT's, DiT's or diffusers'.",
        (
            "--mode=import --from=checkpoint_8.pth --config=vp/cifar10_ddpmpp_deep_continuous --workdir=runs/paper",
            "--mode=import --from=edm-cifar10-32x32-cond-vp.pkl --workdir=runs/edm",
        ),
        processes=False,
        needs=("from", "workdir"),
        config_of="import_checkpoint:config_of_file",
    ),
    "statistics": Mode(
        "dataset_statistics:run",
        ("workdir", "out"),
        "Computes the statistics of a data set's features, with which eval compares samples.",
        (
            "--mode=statistics --config=vp/cifar10_ddpmpp_continuous",
            "--mode=statistics --config=vp/cifar10_ddpmpp_continuous --out=cifar10.npz",
        ),
        processes=False,
        out="A file NAME.npz for a copy of the statistics, for config.metrics.statistics on another machine.",
    ),
    "measure": Mode(
        "measure:run",
        ("samples", "reference"),
        "Compares features that you computed elsewhere: Fréchet distance, kernel distance, CMMD, precision and recall.",
        (
            "--mode=measure --samples=clip_of_samples.npy --reference=clip_of_data.npy",
            "--mode=measure --samples=samples.npz --reference=statistics.npz",
        ),
        processes=False,
        needs=("samples", "reference"),
        config=False,
    ),
    "data": Mode(
        "inspect_data:run",
        ("workdir", "out", "distances"),
        "Prints size, classes and terms of use of a data set, and draws a sheet of 100 of its images on request.",
        (
            "--mode=data --config=ve/cifar10_ncsnpp_continuous --distances=2000",
            "--mode=data --config=vp/own_images_ddpmpp_continuous --config.data.path=photos --out=photos.png",
        ),
        processes=False,
        out="The file NAME.png of the sheet, or a folder, which gets DATASET.png; without it no sheet is drawn.",
    ),
    "card": Mode(
        "card:run",
        ("workdir", "author", "out"),
        "Writes the model card of a run: data, network, training, figures, audits and privacy, each with its file.",
        ("--mode=card --workdir=runs/cifar10", "--mode=card --workdir=runs/cifar10 --author=author.toml --out=release"),
        processes=False,
        out="The folder of card.md, card.html and card.png; default the workdir.",
        needs=("workdir",),
        config=False,
    ),
    "experiment": Mode(
        "",  # its program is found by its name
        ("name",),
        "Runs an experiment of the package with its own flags; without a name, lists all.",
        ("--mode=experiment --name=digits", "--mode=experiment --name=compare runs/first runs/second"),
        processes=False,
        config=False,
    ),
}
