"""Checks of paths that only a GPU takes. The first line of each says what must hold for it to pass.

Bounds follow from the numbers: bfloat16 keeps 8 bits of a mantissa and TF32 11, so that its bounds are an eighth.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from score_sde.experiments.benchmark.memory import fitting, shares

from score_sde.array_types import Array, PyTree
from score_sde.inference.pretrained import load
from score_sde.io import workdir
from score_sde.io.checkpoints import Checkpoints, Retention
from score_sde.models import PRECISIONS
from score_sde.models.compute import Compute
from score_sde.randomness import batch_keys
from score_sde.runtime.backend import program
from score_sde.runtime.memory import device_bytes, program_bytes, tree_bytes
from score_sde.runtime.sharding import fully_sharded, place, split
from score_sde.sampling import solve
from score_sde.training.build import Experiment
from score_sde.training.run import compiled_step
from score_sde.training.state import initial_state

LOSS, GRADIENT = 0.02, 0.1  # bounds of bfloat16 on relative differences, as in the tests of an update
FINER = {"bfloat16": 1, "tf32": 8}
ROUNDING = 2.0**-8  # of bfloat16
TOKENS = ((256, 256), (16, 256), (64, 64))  # and channels, of the networks for CIFAR-10 and of the small ones
MIB = 2**20


class Subject(NamedTuple):
    """The config of a network, a batch, and the bytes of a device that the largest batch may fill."""

    config: ConfigDict
    batch: int
    memory: int


class Outcome(NamedTuple):
    """Result of a check. passed: None where it does not apply to this device. reason: why it did not pass."""

    passed: bool | None
    figures: dict[str, Any]
    reason: str = ""


def attention(subject: Subject) -> Outcome:
    """Training attends by cuDNN, and its output and gradient are as near to float32 as bfloat16 allows."""
    figures, near, reasons = {}, True, []
    for shape in TOKENS:
        q, h, g = jax.random.normal(jax.random.key(0), (3, 8, *shape), jnp.bfloat16)
        exact = _attended(Compute(products="highest"), *(each.astype(jnp.float32) for each in (q, h, g)))[0]
        fused, text = _attended(Compute(jnp.bfloat16, fused=True), q, h, g)
        chosen, name = "fmha" in text, f"{shape[0]} tokens, {shape[1]} channels"
        output, gradient = apart(fused[0], exact[0]), apart(fused[1], exact[1])
        near &= output <= 2 * ROUNDING and gradient <= 4 * ROUNDING
        figures[name] = {"by": "cuDNN" if chosen else "XLA", "output": output, "gradient": gradient}
        if chosen:
            plain = _attended(Compute(jnp.bfloat16), q, h, g)[0]
            figures[name] |= {"XLA's": apart(plain[0], exact[0]), "and": apart(plain[1], exact[1])}
        reasons += [] if chosen else [f"{name}: {_refusal(q, h)}"]
    if jax.default_backend() != "gpu":
        return Outcome(None if near else False, figures, "cuDNN is for NVIDIA's GPUs only")
    said = "; ".join(reasons)
    return Outcome(bool(near and len(reasons) < len(TOKENS)), figures, f"not by cuDNN: {said}" if said else "")


def bfloat16(subject: Subject) -> Outcome:
    """Loss and gradient of an update in bfloat16 are near those in float32."""
    return _against_float32(subject, "bfloat16")


def tf32(subject: Subject) -> Outcome:
    """Loss and gradient with the device's quickest products are near those with float32 products."""
    return _against_float32(subject, "tf32")


def donation(subject: Subject) -> Outcome:
    """An update writes the new state where the old one was, so that memory never holds both."""
    experiment = configured(subject.config, "bfloat16")
    placement = fully_sharded(experiment.state_shapes, 1)
    state = program(experiment.init_state, out_shardings=placement)()
    update = compiled_step(experiment, placement).lower(state, _pixels(subject), None).compile()
    before, aliased, held = _peak(), update.memory_analysis().alias_size_in_bytes, tree_bytes(state)
    jax.block_until_ready(update(state, _pixels(subject), None))
    gone = all(leaf.is_deleted() for leaf in jax.tree.leaves(state))
    figures = {
        "MiB of the state": held / MIB,
        "MiB written in place": aliased / MIB,
        "MiB of the program": program_bytes(update) / MIB,
    }
    if before:
        figures |= {"MiB in use at most before": before / MIB, "MiB in use at most after": _peak() / MIB}
    return Outcome(gone and aliased >= held, figures, "" if gone else "the old state is still there after the update")


def largest_batch(subject: Subject) -> Outcome:
    """The largest batch that `benchmark memory` predicts for the memory fits, by the compiled update, and runs.

    On a CPU, which computes bfloat16 in float32, the memory is the machine's.
    """
    experiment = configured(subject.config, "bfloat16")
    image, besides = shares(experiment)
    each = 8 * jax.device_count()
    largest = fitting(image, besides, {"here": subject.memory})["largest_batch"]["here"]
    batch = max(largest * jax.device_count() // each * each, each)
    placement = fully_sharded(experiment.state_shapes, 1)
    shape = jax.ShapeDtypeStruct((batch, *experiment.image_shape), np.uint8)
    update = compiled_step(experiment, placement).lower(experiment.state_shapes, shape, None).compile()
    room = subject.memory if jax.default_backend() == "gpu" else device_bytes()
    predicted, compiled = besides + image * batch // jax.device_count(), program_bytes(update)
    figures = {
        "batch": batch,
        "MiB predicted": predicted / MIB,
        "MiB compiled": compiled / MIB,
        "compiled over predicted": compiled / predicted,
        "MiB to fill": room / MIB,
    }
    if compiled > room:
        return Outcome(False, figures, "the compiled update needs more memory than that")
    state = program(experiment.init_state, out_shardings=placement)()
    jax.block_until_ready(update(state, _pixels(subject._replace(batch=batch)), None))
    return Outcome(True, figures)


def loading(subject: Subject) -> Outcome:
    """A checkpoint of a bfloat16 training loads with its bits, and samples near float32, in each precision."""
    experiment = configured(subject.config, "bfloat16")
    state = initial_state(weights(experiment), experiment.optimizer, experiment.profiles)
    drawn, same = {}, True
    with tempfile.TemporaryDirectory() as folder:
        with Checkpoints(Path(folder) / "checkpoints", Retention()) as checkpoints:
            checkpoints.save(1, state._replace(step=jnp.int32(1)))
        workdir.write(Path(folder), "config.json", experiment.config.to_dict())
        for precision in PRECISIONS:
            config = experiment.config.copy_and_resolve_references()
            config.sampling.precision = precision
            model = load(folder, config=config)
            same &= jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), model.params, state.params))
            drawn[precision] = model.sample(jax.random.key(0), subject.batch, "dpmpp_2m", num_steps=5)
    figures = {"the same bits": same} | {name: apart(drawn[name], drawn["float32"]) for name in FINER}
    return Outcome(same and all(figures[name] <= GRADIENT / FINER[name] for name in FINER), figures)


def samples(subject: Subject) -> Outcome:
    """Samples in float32 are those of a CPU with the same seed, up to a grey level."""
    experiment = configured(subject.config, "float32")
    params, keys = weights(experiment), batch_keys(jax.random.key(0), min(subject.batch, 8))

    @jax.jit
    def draw(params, keys):
        x, _ = solve(experiment.sampler(params, "dpmpp_2m_sde"), keys, experiment.prior(keys))
        return experiment.scaling.to_unit(x)

    devices = {"CPU": jax.devices("cpu")[0], "here": jax.devices()[0]}
    drawn = {name: np.asarray(draw(*jax.device_put((params, keys), device))) for name, device in devices.items()}
    levels = 255 * np.abs(drawn["here"] - drawn["CPU"])
    figures = {"largest difference, levels of 255": float(levels.max()), "mean": float(levels.mean())}
    return Outcome(bool(levels.max() < 1), figures)


def configured(config: ConfigDict, precision: str) -> Experiment:
    """The experiment that trains and samples in a precision, with few steps."""
    config = config.copy_and_resolve_references()
    config.training.precision = config.sampling.precision = precision
    config.sampling.num_steps = 10
    return Experiment(config)


def weights(experiment: Experiment) -> PyTree:
    """Initial parameters and noise: the initial ones give zero, of which nothing can be compared."""
    generator, params = np.random.default_rng(1), program(experiment.init_params)()
    return place(
        jax.tree.map(lambda leaf: np.asarray(leaf) + 0.05 * generator.standard_normal(leaf.shape, np.float32), params)
    )


def apart(a: PyTree, b: PyTree) -> float:
    """The norm of the difference of two trees over that of the second."""

    def norm(tree: PyTree) -> float:
        return float(jnp.sqrt(sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(tree))))

    a, b = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), (a, b))
    return norm(jax.tree.map(jnp.subtract, a, b)) / norm(b)


def _against_float32(subject: Subject, precision: str) -> Outcome:
    """Relative differences of loss and gradient, and their bounds."""
    (loss, gradient), (exact, exact_gradient) = (_descent(subject, each) for each in (precision, "float32"))
    figures = {"loss": abs(loss / exact - 1), "gradient": apart(gradient, exact_gradient)}
    bounds = {"loss": LOSS / FINER[precision], "gradient": GRADIENT / FINER[precision]}
    within = all(figures[name] <= bound for name, bound in bounds.items())  # NaN is not
    return Outcome(within, figures | {f"bound on the {name}": bound for name, bound in bounds.items()})


def _descent(subject: Subject, precision: str) -> tuple[float, PyTree]:
    """Loss and gradient of one batch of noise, as in training."""
    experiment, keys = configured(subject.config, precision), batch_keys(jax.random.key(0), subject.batch)
    x = jax.random.uniform(jax.random.key(1), (subject.batch, *experiment.image_shape))
    descend = jax.value_and_grad(lambda params, keys, x: experiment.loss(params, keys, x, training=True).mean())
    loss, gradient = program(descend)(weights(experiment), keys, x)
    return float(loss), gradient


def _attended(compute: Compute, q: Array, h: Array, g: Array) -> tuple[tuple[Array, PyTree], str]:
    """The output of attention and its gradient along g, and the text of the compiled program."""

    def both(q, h, g):
        output, back = jax.vjp(lambda q, h: compute.attend(q, h, h), q, h)
        return output, back(g)

    with jax.default_matmul_precision(compute.products):
        compiled = jax.jit(both).lower(q, h, g).compile()
    return compiled(q, h, g), compiled.as_text()


def _refusal(q: Array, h: Array) -> str:
    """The reason why cuDNN does not take attention of these shapes."""

    def total(q, h):
        q, h = q[:, :, None], h[:, :, None]
        return jax.nn.dot_product_attention(q, h, h, implementation="cudnn").astype(jnp.float32).sum()

    try:
        jax.jit(jax.grad(total, argnums=(0, 1))).lower(q, h).compile()
    except Exception as error:
        return first_line(error)
    return "it was not asked"


def first_line(error: BaseException) -> str:
    """The first line of an error's message, at most 200 characters, or else its type."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def _pixels(subject: Subject) -> Array:
    size, channels = subject.config.data.image_size, subject.config.data.num_channels
    shape = (subject.batch, size, size, channels)
    return split(np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8))[0]


def _peak() -> int:
    """The most bytes of the device that have been in use at a time; 0 where it does not say."""
    return (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0)


CHECKS: dict[str, Callable[[Subject], Outcome]] = {
    "attention by cuDNN": attention,
    "bfloat16 against float32": bfloat16,
    "tf32 against float32": tf32,
    "the state is written in place": donation,
    "load in another precision": loading,
    "samples of a CPU": samples,
    "the largest batch": largest_batch,  # last, because it fills the memory
}
