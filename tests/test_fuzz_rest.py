"""Calls, with arguments that do not fit, of all public functions that are neither mathematics nor models.

A public function is a name of a room's `__all__`, a public function or class of the modules in `MODULES`, or a method
that users call. Each has valid arguments in `CALLS`, which the fuzz changes, or a reason in `EXCEPTIONS`.
"""

import contextlib
import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import jax
import numpy as np
import pytest
from fuzzing import HOSTILE, quick, survives
from hypothesis import given, strategies
from ml_collections import ConfigDict
from score_sde.configs import presets

from score_sde import audit, config, data, metrics
from score_sde.audit import balance
from score_sde.cli.describe import describe
from score_sde.data import (
    captioned,
    openmoji,
    pairs,
    scene_captions,
    scene_decoder,
    scene_drawing,
    scenes,
    text_cond,
    tokenizers,
)
from score_sde.ema import Power
from score_sde.errors import UsageError
from score_sde.evaluation import evaluate
from score_sde.io import html_page
from score_sde.metrics import distances, frechet, judge, kernels
from score_sde.process import Prediction
from score_sde.sde import VP
from score_sde.training import accountant, augmentation, coupling, posthoc, privacy, state
from score_sde.training.build import trainable
from score_sde.training.run import train

ROOT = Path(__file__).parent.parent
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (6, 8, 8, 1), np.uint8)
SOURCE = data.InMemory(IMAGES, labels=np.arange(6) % 2)
CAPTIONED = data.InMemory(IMAGES, captions=["a red star"] * 6)
WORDS = tokenizers.Words(("a", " red"))
TEXT = text_cond.Tokens(WORDS, 9)
SCENE = (scene_captions.Object("circle", "red", "small", "top left"),)
F1, F2 = RNG.normal(size=(40, 3)), RNG.normal(size=(30, 3))
MEAN, COVARIANCE = F1.mean(axis=0), np.cov(F1, rowvar=False)
IMAGES_01, LABELLED = RNG.random((10, 2, 2, 1)), {"labels": np.arange(10) % 2}
NEAR = audit.nearest(F1, F2, k=3)
STATISTICS = metrics.Statistics(40, MEAN, COVARIANCE, F1, {"split": "train"})


def halved(x, t, cond=None):
    """A model of images that are noise by half."""
    return Prediction(x / 2, x / 2)


class Pixels:
    """Features of a user's own: the first three pixels."""

    dimension = 3

    def init(self, image_shape):
        return np.float32(1)

    def __call__(self, params, pixels):
        return params * pixels.reshape(len(pixels), -1)[:, :3]


SPENDING = ((accountant.Mechanism(1000, 100, 9.0, 200), 2),)


@functools.cache
def folder() -> Path:
    """A folder with an array of images, features and baselines."""
    import tempfile

    path = Path(tempfile.mkdtemp())
    np.save(path / "images.npy", IMAGES)
    np.savez(path / "features.npz", features=F1.astype(np.float32), logits=F1)
    return path


@functools.cache
def own() -> metrics.Features:
    return metrics.own_features(Pixels(), "0", (8, 8, 1), 4)


def of_light() -> judge.Judge:
    """A judge of which images are light."""
    light = np.eye(2)
    return judge.Judge(lambda x: light[(x.mean(axis=(1, 2, 3)) > 127).astype(int)], np.array([[45, 5], [4, 46]]))


# name -> (function, its valid arguments), made when it is called.
CALLS: dict[str, Callable[[], tuple[Callable, dict[str, Any]]]] = {
    "data.pairs.pair_keys": lambda: (pairs.pair_keys, dict(seed=0, number=0, indices=np.arange(3, dtype=np.uint32))),
    "training.accountant.capacity_for": lambda: (
        accountant.capacity_for,
        dict(images=1000, batch_size=100, limit=3.0, delta=1e-5),
    ),
    "training.accountant.epsilon": lambda: (accountant.epsilon, dict(spending=SPENDING, delta=1e-5)),
    "training.accountant.most_updates": lambda: (
        accountant.most_updates,
        dict(mechanism=SPENDING[0][0], limit=0.05, delta=1e-5, before=SPENDING),
    ),
    "training.privacy.spent": lambda: (privacy.spent, dict(directory=folder())),  # there is no run
    "data.poisson_batch": lambda: (data.poisson_batch, dict(n=20, rate=0.3, capacity=8, seed=0, step=2)),
    "training.coupling.optimal_assignment": lambda: (coupling.optimal_assignment, dict(x0=F1[:5], eps=F1[5:10])),
    "audit.auth_pct": lambda: (audit.auth_pct, dict(to_train=NEAR, of_train=np.ones(30), level=0.9)),
    "audit.auc": lambda: (audit.auc, dict(members=F1[:, 0], others=F2[:, 0], level=0.9)),
    "audit.audit_denoiser": lambda: (
        audit.audit_denoiser,
        dict(model=halved, process=VP(), train=IMAGES_01, held_out=IMAGES_01[::-1], key=jax.random.key(0))
        | dict(times=np.array([0.5]), train_cond=LABELLED, held_out_cond=LABELLED, probes=10, draws=1, batch_size=4)
        | dict(level=0.9, progress="a"),
    ),
    "audit.combined": lambda: (audit.combined, dict(members=F1, others=F2)),
    "audit.losses": lambda: (
        audit.losses,
        dict(model=halved, process=VP(), images=IMAGES_01, keys=jax.random.key(0), times=np.array([0.5]))
        | dict(cond=LABELLED, draws=1, batch_size=4, progress="a"),
    ),
    "audit.tpr_at": lambda: (audit.tpr_at, dict(rate=0.1, members=F1[:, 0], others=F2[:, 0], level=0.9)),
    "audit.c_t": lambda: (audit.c_t, dict(of_samples=F1[:, 0] ** 2, of_test=F2[:, 0] ** 2)),
    "audit.c_t_by_cell": lambda: (
        audit.c_t_by_cell,
        dict(samples=F1, test=F2[:20], train=F2[20:], num_cells=1, seed=1),
    ),
    "audit.carlini": lambda: (audit.carlini, dict(to_train=NEAR, n=3, alpha=0.5, level=0.9)),
    "audit.exchangeable": lambda: (
        audit.exchangeable,
        dict(samples=F1, train=F2[:20], test=F2[20:], permutations=9, level=0.9, seed=1, progress="a"),
    ),
    "audit.gu_ratio": lambda: (audit.gu_ratio, dict(to_train=NEAR, threshold=0.3, level=0.9)),
    "audit.near_duplicates": lambda: (audit.near_duplicates, dict(x=IMAGES, threshold=1.0, progress="a")),
    "audit.aligned": lambda: (audit.aligned, dict(images=IMAGES_01, among=IMAGES_01[::-1])),
    "audit.nearest": lambda: (
        audit.nearest,
        dict(x=F2, among=F2, k=3, without_itself=True, progress="a"),
    ),
    "audit.power": lambda: (
        audit.power,
        dict(samples=F1, train=F2[:20], test=F2[20:], copies=(0, 5), replications=2, significance=0.2)
        | dict(permutations=9, level=0.9, seed=1, progress="a"),
    ),
    "audit.share": lambda: (audit.share, dict(k=3, n=5, level=0.9)),
    "metrics.at_the_ends": lambda: (metrics.at_the_ends, dict(pixels=IMAGES)),
    "metrics.baselines_of": lambda: (
        metrics.baselines_of,
        dict(n=4, image_shape=(8, 8, 1), held_out=SOURCE, of=own(), reference=STATISTICS, inception_splits=1),
    ),
    "metrics.check_comparable": lambda: (metrics.check_comparable, dict(first={"a": 1}, second={"a": 1})),
    "metrics.compared": lambda: (
        metrics.compared,
        dict(samples=np.array([0.5, 0.1]), data=np.array([0.2]), remedy="train longer"),
    ),
    "metrics.fingerprint": lambda: (metrics.fingerprint, dict(protocol={"a": 1})),
    "metrics.inception_features": lambda: (
        metrics.inception_features,
        dict(weights=str(folder() / "none.pth"), folder=folder(), batch_size=2),
    ),
    "metrics.load_baselines": lambda: (metrics.load_baselines, dict(path=folder() / "none.npz", about={"a": 1})),
    "metrics.load_features": lambda: (metrics.load_features, dict(path=folder() / "features.npz")),
    "metrics.load_statistics": lambda: (metrics.load_statistics, dict(path=folder() / "features.npz")),
    "metrics.measure": lambda: (
        metrics.measure,
        dict(features_name="mine", arrays={"features": F1}, reference=STATISTICS, inception_splits=1),
    ),
    "metrics.own_features": lambda: (
        metrics.own_features,
        dict(network=Pixels(), code="0", image_shape=(8, 8, 1), batch_size=2),
    ),
    "metrics.statistics_of": lambda: (
        metrics.statistics_of,
        dict(source=SOURCE, features=own(), about={"split": "train"}),
    ),
    "metrics.trained_features": lambda: (
        metrics.trained_features,
        dict(source=SOURCE, options=metrics.Options(4, 4, 1, 2), folder=folder() / "trained", batch_size=2),
    ),
    "metrics.Features.of": lambda: (own().of, dict(pixels=IMAGES)),
    "metrics.distances.inception_score": lambda: (distances.inception_score, dict(logits=F1, splits=2)),
    "metrics.distances.precision_recall": lambda: (distances.precision_recall, dict(features=F1, reference=F2)),
    "metrics.kernels.cmmd": lambda: (kernels.cmmd, dict(features1=F1, features2=F2)),
    "metrics.kernels.kernel_distance": lambda: (kernels.kernel_distance, dict(features1=F1, features2=F2)),
    "metrics.frechet.Frechet": lambda: (frechet.Frechet, dict(mean=MEAN, covariance=COVARIANCE)),
    "metrics.frechet.Frechet.__call__": lambda: (frechet.Frechet(MEAN, COVARIANCE), dict(features=F1)),
    "metrics.frechet.Frechet.value": lambda: (frechet.Frechet(MEAN, COVARIANCE).value, dict(features=F1)),
    "metrics.frechet.Frechet.of_infinitely_many": lambda: (
        frechet.Frechet(MEAN, COVARIANCE).of_infinitely_many,
        dict(features=F1),
    ),
    "metrics.judge.judge": lambda: (
        judge.judge,
        dict(train=SOURCE, held_out=SOURCE, folder=folder() / "judge", options=metrics.Options(4, 4, 1, 2))
        | dict(attribute=judge.Attribute("side", np.arange(6) % 2, np.arange(6) % 2)),
    ),
    "audit.balance.balance": lambda: (
        balance.balance,
        dict(judged=np.array([6, 4]), confusion=np.array([[45, 5], [4, 46]]), data=np.array([3, 3]), level=0.9),
    ),
    "audit.balance.balance_by_guidance": lambda: (
        balance.balance_by_guidance,
        dict(scales=[1.0, 2.0], samples=[IMAGES, IMAGES], judge=of_light(), data=np.array([3, 3]), level=0.9),
    ),
    "audit.balance.per_class": lambda: (
        balance.per_class,
        dict(features=F1, classes=np.arange(40) % 2, reference=F2, labels=np.arange(30) % 2, images=12),
    ),
    "metrics.frechet.frechet_distance": lambda: (
        frechet.frechet_distance,
        dict(mean1=MEAN, cov1=COVARIANCE, mean2=MEAN, cov2=COVARIANCE),
    ),
    "data.InMemory": lambda: (data.InMemory, dict(images=IMAGES, labels=np.arange(6), attributes=np.zeros((6, 2)))),
    "data.InMemory.take": lambda: (SOURCE.take, dict(indices=np.array([0, 3]))),
    "data.InMemory.captions": lambda: (SOURCE.captions, dict(indices=np.array([0, 3]))),
    "data.openmoji.caption": lambda: (openmoji.caption, dict(name=":red_circle:", emoji="\U0001f534")),
    "data.scene_captions.agreement": lambda: (
        scene_captions.agreement,
        dict(of=scene_captions.asked("a red star"), scene=SCENE),
    ),
    "data.scene_captions.asked": lambda: (scene_captions.asked, dict(caption="a red star")),
    "data.scene_captions.caption": lambda: (scene_captions.caption, dict(scene=SCENE, number=3, relations=True)),
    "data.scene_captions.lies": lambda: (
        scene_captions.lies,
        dict(first=SCENE[0], relation="above", second=SCENE[0]),
    ),
    "data.scene_decoder.decode": lambda: (
        scene_decoder.decode,
        dict(images=np.zeros((2, 16, 16, 3), np.uint8), strict=True),
    ),
    "data.scene_decoder.places": lambda: (
        scene_decoder.places,
        dict(images=np.zeros((2, 16, 16, 3), np.uint8), strict=True),
    ),
    "data.scene_drawing.attribute_names": lambda: (scene_drawing.attribute_names, dict(image_size=16)),
    "data.scene_drawing.distance": lambda: (scene_drawing.distance, dict(image_size=16, scales=(0.5, 1.0))),
    "data.scene_drawing.draw": lambda: (
        scene_drawing.draw,
        dict(attributes=scene_drawing.numbers([SCENE], 16), image_size=16),
    ),
    "data.scene_drawing.edges": lambda: (scene_drawing.edges, dict(image_size=16)),
    "data.scene_drawing.numbers": lambda: (scene_drawing.numbers, dict(scenes=[SCENE], image_size=16, most=2)),
    "data.scene_drawing.scenes": lambda: (
        scene_drawing.scenes,
        dict(attributes=scene_drawing.numbers([SCENE], 16), image_size=16),
    ),
    "data.scenes.Scenes": lambda: (
        scenes.Scenes,
        dict(train=True, image_size=16, num_channels=3, image_width=None, scene_objects=2, scene_relations=True)
        | dict(scene_held_out=("red circle",), scene_images=100, scene_seed=1),
    ),
    "data.scenes.pairs": lambda: (scenes.pairs, dict(of=["red circle"])),
    "data.captioned.Captioned": lambda: (captioned.Captioned, dict(source=CAPTIONED, text=TEXT)),
    "data.captioned.captioned": lambda: (captioned.captioned, dict(source=CAPTIONED, text=TEXT)),
    "data.captioned.some_captions": lambda: (captioned.some_captions, dict(source=CAPTIONED, most=4)),
    "data.text_cond.Tokens": lambda: (text_cond.Tokens, dict(tokenizer=WORDS, max_tokens=9, truncate=True)),
    "data.text_cond.Tokens.check": lambda: (TEXT.check, dict(texts=["a red star", ""])),
    "data.text_cond.Tokens.cond": lambda: (TEXT.cond, dict(texts=["a red star", ""])),
    "data.text_cond.Tokens.lengths": lambda: (TEXT.lengths, dict(texts=["a red star", ""])),
    "data.tokenizers.Bytes.decode": lambda: (tokenizers.Bytes().decode, dict(tokens=[97, 256])),
    "data.tokenizers.Bytes.encode": lambda: (tokenizers.Bytes().encode, dict(text="a red star")),
    "data.tokenizers.Words": lambda: (tokenizers.Words, dict(words=("a", " red"))),
    "data.tokenizers.Words.decode": lambda: (WORDS.decode, dict(tokens=[258, 256])),
    "data.tokenizers.Words.encode": lambda: (WORDS.encode, dict(text="a red star")),
    "data.tokenizers.Words.learned": lambda: (tokenizers.Words.learned, dict(texts=["a red"], vocab_size=300)),
    "data.batch_fn": lambda: (
        lambda **options: data.batch_fn(**options)(0),
        dict(source=SOURCE, batch_size=2, seed=0, entries={}),
    ),
    "data.batch_indices": lambda: (data.batch_indices, dict(n=6, batch_size=4, seed=0, step=3)),
    "data.batches": lambda: (data.batches, dict(source=SOURCE, batch_size=2, seed=0, start_step=1)),
    "data.dataset": lambda: (data.dataset, dict(name="digits", data_dir=str(folder()))),
    "data.extent": lambda: (data.extent, dict(pixels=IMAGES, width=2.0)),
    "data.load": lambda: (
        data.load,
        dict(
            name="array",
            path=str(folder() / "images.npy"),
            train=True,
            image_size=8,
            num_channels=1,
            image_width=None,
            train_images=1,
            held_out=0.5,
            in_memory_gib=1.0,
            num_workers=1,
            corrupt="refuse",
            convert=False,
            labels="auto",
            captions="auto",
            array_range=None,
        ),
    ),
    "data.on_devices": lambda: (data.on_devices, dict(source=SOURCE, indices=np.array([0, 3]), entries={})),
    "data.padded_chunks": lambda: (data.padded_chunks, dict(n=6, size=4)),
    "data.Part": lambda: (data.Part, dict(source=SOURCE, indices=np.array([0, 3]))),
    "data.Part.take": lambda: (data.Part(SOURCE, np.array([0, 3])).take, dict(indices=np.array([1]))),
    "data.part_of": lambda: (data.part_of, dict(n=6, most=4)),
    "data.scattered": lambda: (data.scattered, dict(n=6, numbers=np.arange(4))),
    "data.prefetched": lambda: (data.prefetched, dict(batch=lambda step: (step,), steps=range(3))),
    "data.spread": lambda: (data.spread, dict(source=SOURCE, most=4)),
    "data.summary": lambda: (data.summary, dict(name="array", train=SOURCE, evaluation=SOURCE)),
    "config.check": lambda: (config.check, dict(config=tiny())),
    "config.check_section": lambda: (config.check_section, dict(section="optim", values={"lr": 1.0})),
    "io.html_page.abbreviated": lambda: (html_page.abbreviated, dict(short="a", whole="b")),
    "io.html_page.chart": lambda: (
        html_page.chart,
        dict(curves={"a": ([1, 2], [1.0, 2.0], None)}, x_label="x", y_label="y", log=False, log_x=False),
    ),
    "io.html_page.figure": lambda: (html_page.figure, dict(caption="a", shown="b")),
    "io.html_page.heading": lambda: (html_page.heading, dict(text="a", level=2)),
    "io.html_page.listing": lambda: (html_page.listing, dict(values={"a": 1})),
    "io.html_page.note": lambda: (html_page.note, dict(text="a")),
    "io.html_page.picture": lambda: (
        html_page.picture,
        dict(sheet=np.zeros((4, 4, 3), np.uint8), alt="a", magnify=2),
    ),
    "io.html_page.table": lambda: (html_page.table, dict(head=["a"], rows=[["b"]], sortable=True)),
    "io.html_page.verbatim": lambda: (html_page.verbatim, dict(lines=["a"])),
    "io.html_page.warning": lambda: (html_page.warning, dict(text="a")),
    "io.html_page.write": lambda: (
        html_page.write,
        dict(path=folder() / "page.html", title="a", body=["b"], flag="--out"),
    ),
    "training.run.train": lambda: (
        train,  # refused after all arguments have been looked at
        dict(config=tiny(start_time=0.5), directory=folder() / "run", overrides={}, allowed=()),
    ),
    "training.posthoc.combination": lambda: (
        posthoc.combination,
        dict(tracked=[Power(0.1)], steps=[10, 20], target=Power(0.1), step=20),
    ),
    "training.posthoc.nearest": lambda: (
        posthoc.nearest,
        dict(tracked=[Power(0.1)], steps=[10, 20], target=Power(0.2), step=20),
    ),
    "training.posthoc.used_steps": lambda: (posthoc.used_steps, dict(steps=[10, 20], step=15)),
    "training.augmentation.draw": lambda: (
        augmentation.draw,
        dict(keys=jax.random.split(jax.random.key(0), 3), p=0.5, transforms=("xflip", "scale")),
    ),
    "training.augmentation.labels": lambda: (
        augmentation.labels,
        dict(drawn=augmentation.UNCHANGED, transforms=("xflip", "scale")),
    ),
    "training.augmentation.transformed": lambda: (
        augmentation.transformed,
        dict(drawn=augmentation.UNCHANGED, x=np.zeros((1, 4, 4, 1), np.float32), middle=0.5),
    ),
    "training.augmentation.in_order": lambda: (augmentation.in_order, dict(transforms=("xflip", "scale"))),
    "training.state.adam": lambda: (
        state.adam,
        dict(lr=1.0, beta1=0.9, eps=1e-8, weight_decay=0.0, warmup=3.5, grad_clip=1.0, trainable=True)
        | dict(beta2=0.99, decay_after=100.0),
    ),
    "evaluation.evaluate.evaluate": lambda: (
        evaluate.evaluate,  # there is no checkpoint in the folder
        dict(config=tiny(), directory=folder(), folder="eval", out=folder() / "out"),
    ),
    "evaluation.evaluate.sample": lambda: (
        evaluate.sample,
        dict(config=tiny(), directory=folder(), out=folder() / "out"),
    ),
}
ROOMS = {"audit": audit, "config": config, "data": data, "metrics": metrics}
# Modules that no user calls, by the reason for which their arguments fit.
WITHOUT = {
    "a command line, whose mistakes tests/test_main.py and test_modes.py have": """
        cli.card cli.command_line cli.dataset_statistics cli.describe cli.experiment cli.fitting_config
        cli.import_checkpoint cli.inspect_data cli.main cli.make_averages cli.measure cli.modes cli.reflow cli.runs""",
    "must not import JAX, as the check of arguments does; called with names and rows of the table": """
        config.argument_keys config.explanation config.import_paths config.keys config.sampling_keys
        config.training_keys""",
    "tests/test_fuzz_arguments.py": "config.arguments config.arrays config.kinds",
    "interfaces": "config.protocols",
    "called by data.load, with options that it has checked and files whose mistakes tests/test_folder.py has": """
        data.archives data.arrays data.caption_files data.containers data.decoding data.digits data.directory
        data.ffhq data.folder data.held_out data.label_files data.own_files data.parquet_files data.preparers
        data.readers data.records data.shards data.split_names data.split_report data.tar_files data.tfrecords
        data.zip_files""",
    "called by metrics.trained_features and metrics.inception_features": "metrics.corruptions metrics.inception",
    "called by --mode=card, whose mistakes tests/test_card.py has": """
        evaluation.author evaluation.card evaluation.card_figures evaluation.card_text""",
    "called by evaluate and sample, with a model and its config": """
        evaluation.exports evaluation.figure_names evaluation.identities evaluation.inverse_problems
        evaluation.over_split evaluation.report evaluation.sample_metrics""",
    "called by train, and by Pretrained, with a config that config.check has looked at": """
        training.average_snapshots training.averages training.build training.classification training.launch
        training.loop training.memory_estimate training.nan_guard training.own_code training.pieces
        training.private_step training.recipe
        training.sampler_options training.sheets training.sigma_data training.source_checks training.start
        training.summary training.text training.trainable""",
    "called with a folder of files, whose mistakes tests/test_frozen_text.py has": "training.frozen_text",
    "called by the importer, with files whose mistakes tests/test_published_checkpoints.py has": """
        io.persistent_pickles io.safetensors_files io.unpickler""",
    "called with paths that doors have expanded, and arrays of states": """
        io.array_cache io.atomic_files io.checkpoints io.digest io.downloads io.json_files io.metrics_log
        io.pytorch_files io.result_cache io.workdir""",
    "called by programs and loops with numbers of a checked config, and by launchers: tests/test_launch.py": """
        runtime.backend runtime.clone runtime.failures runtime.memory runtime.moved runtime.multihost
        runtime.preemption runtime.profiling runtime.progress runtime.sharding""",
}
# Public names without a call, by module or by name, with the reason.
EXCEPTIONS: dict[str, str] = {
    "audit.AtLevel": "a result",
    "audit.Copying": "a result",
    "audit.CellCopying": "a result",
    "audit.Exchangeable": "a result",
    "audit.SpaceCell": "a result",
    "audit.Interval": "a result",
    "audit.Memorised": "a result",
    "audit.Neighbours": "a result, whose fields are checked where it is an argument",
    "audit.Power": "a result",
    "config.Config": "a ConfigDict, whose values are checked as they are set",
    "config.FrozenConfig": "as Config, which its values are set in",
    "config.base": "without arguments",
    "config.check_name": "called with the name of a key that does not exist",
    "config.completed": "called with a workdir's config, which io.json_files reads",
    "config.is_nullable": "called with the name of a key",
    "config.placeholder": "of ml_collections",
    "config.AnyConfig": "of ml_collections",
    "data.Batch": "a result",
    "data.Extent": "a result",
    "data.Spread": "a result",
    "data.OnDisk": "made by data.load",
    "data.Options": "made by data.load, which checks them",
    "data.Source": "an interface, whose methods are checked where a class defines them",
    "metrics.Baselines": "a result",
    "metrics.Features": "made by the functions that compute features",
    "metrics.Options": "checked by trained_features",
    "metrics.Statistics": "a result",
}


def tiny(**sampling):
    values = presets.compose(presets.ddpmpp, presets.vp, presets.digits, presets.small)
    values.model.update(nf=8, ch_mult=(1,), num_res_blocks=1, attn_resolutions=())
    values.sde.num_scales = 30
    values.sampling.update(num_steps=3, **sampling)
    return values


def test_every_public_name_is_called_or_has_a_reason():
    public = {
        f"{room}.{name}" for room, module in ROOMS.items() for name in module.__all__ if callable(getattr(module, name))
    }
    assert public - CALLS.keys() == EXCEPTIONS.keys()


def test_every_other_module_of_these_rooms_has_calls_or_a_reason():
    rooms = (*ROOMS, "evaluation", "training", "io", "runtime", "cli")
    modules = {f"{room}.{path.stem}" for room in rooms for path in (ROOT / "score_sde" / room).glob("[a-z]*.py")}
    public = {getattr(module, name) for module in ROOMS.values() for name in module.__all__ if name[0].islower()}
    own = {each.__module__.removeprefix("score_sde.") for each in public if hasattr(each, "__module__")}
    own |= {"data.part", "data.sources", "metrics.small", "config.table", "config.tree"}  # of classes and other names
    called = {name.rpartition(".")[0] for name in CALLS if name.count(".") == 2}
    assert modules - own - called == {name for names in WITHOUT.values() for name in names.split()}


@pytest.mark.parametrize("name", CALLS)
@quick
@given(strategies.data())
def test_arguments_that_do_not_fit_are_named(name, data):
    function, valid = CALLS[name]()
    survives(function, valid, data, 5)


VALUES = {
    int: [-1, 0, 1, 2, 3, 8],
    float: [-1.0, 0.0, 1e-9, 0.3, 1.0, 50.0, 1e9],
    bool: [True, False],
    str: ["", "a:b"],
}


def drawn(key, data):
    """A value of the key's kind, in range or not, or of another one."""
    of_kind = [*VALUES[key._items or key.kind], *key.choices]
    one = strategies.sampled_from(of_kind)
    return (
        data.draw(one if not key._items else strategies.lists(one, max_size=3).map(tuple))
        if data.draw(strategies.integers(0, 4))
        else data.draw(strategies.sampled_from(HOSTILE))
    )


def refused_or_built(data):
    values = ConfigDict(tiny().to_dict())
    names = [name for name in config.KEYS if name != "data.dataset"]
    for name in data.draw(strategies.lists(strategies.sampled_from(names), min_size=1, max_size=3)):
        section, _, last = name.rpartition(".")
        (values[section] if section else values)._fields[last] = drawn(config.KEYS[name], data)
    changed = any(repr(values[section]) != repr(tiny()[section]) for section in ("model", "encoder"))
    with contextlib.suppress(UsageError):
        config.check(values)
        trainable(config.Config(values), traced=changed)


@hypothesis.settings(quick, max_examples=10)
@given(strategies.data())
def test_a_config_of_any_values_is_refused_or_builds(data):
    refused_or_built(data)


@hypothesis.settings(quick, max_examples=500)
@given(strategies.data())
def test_configs_of_any_values_are_refused_or_build(data):
    refused_or_built(data)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"eval.enable_bound": True, "eval.dequantization": "truncated_normal"}, "set eval.dequantization"),
        ({"sampling.start_time": 0.5}, "leave sampling.start_time at 1"),
        ({"sampling.save": ("png", "png_1000")}, "choose one"),
        ({"training.accumulate": 3}, "a multiple of training.accumulate=3"),
        ({"guidance.scale": -3.0}, "guidance.scale=-3.0 must not be negative"),
        ({"sampling.condition": "nonsense"}, "Unknown sampling.condition"),
        ({"optim.grad_clip": 0.0}, "no parameter moves"),
    ],
)
def test_a_description_refuses_what_sampling_training_and_evaluation_refuse(values, words):
    changed = tiny()
    changed.update_from_flattened_dict(values)
    with pytest.raises(UsageError, match=re.escape(words)):
        describe(changed)
