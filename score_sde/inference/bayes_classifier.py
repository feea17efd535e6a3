r"""The likelihood Bayes classifier: the class or caption under which an image is likeliest, by a score model alone.

For candidate conditions c_1, ..., c_k of an image x, Bayes' rule is

    p(c_j | x) = p(c_j) p(x | c_j) / sum_i p(c_i) p(x | c_i),                                             (1)

and the model gives log p(x | c) itself, so that nothing else is trained (Li et al., 2023, who take the bound). The
log-likelihoods are estimates with random numbers: dequantization noise, and Hutchinson's probe of the ODE or times and
noise of the bound. All candidates of an image share these numbers, so that a part of the errors is common to them and
cancels in eq. (1): the larger a part, the nearer the predictions under two candidates are to each other. For two
classes of Gaussian pixels of about equal likelihood the difference of two bounds had a standard deviation of 1.8 nats,
and would have one of 3.2 with numbers of their own.
"""

import math
from typing import Annotated, Any, NamedTuple

import jax
import numpy as np

from score_sde.array_types import Array, Float, Integer, Key, Keys, PerSample, UnitImages
from score_sde.cond import NULL, Cond, as_array, check_names, numbered, rows
from score_sde.config.arguments import check_arguments
from score_sde.data import padded_chunks
from score_sde.errors import UsageError, one_of
from score_sde.inference import inputs
from score_sde.inference.inputs import AnyImages, Report
from score_sde.inference.likelihoods import bound, likelihoods
from score_sde.inference.snapshots import Snapshot
from score_sde.randomness import batch_keys, stream
from score_sde.runtime.memory import enough_memory
from score_sde.runtime.progress import bar, reporter
from score_sde.runtime.sharding import is_traced, pad_to_devices

SHOWN_AFTER = 2.0  # seconds until the progress is shown

LabelCandidates = Integer[Array, "..."] | tuple[int | str | tuple[int | str, ...], ...] | None
TextCandidates = tuple[str | tuple[str, ...], ...] | None
Prior = Annotated[Float[np.ndarray, "..."], "[0, inf)"]


class Classified(NamedTuple):
    """Bayes' rule for n images with k candidates each."""

    log_likelihoods: np.ndarray  # (n, k): log P(x | c) of the pixels, in nats
    probabilities: np.ndarray  # (n, k): p(c | x), with sum 1 over the candidates
    choice: np.ndarray  # (n,): the number of the likeliest candidate, 0 to k - 1


@check_arguments
def classify(
    model: Snapshot,
    key: Key[Array, "..."],
    pixels: AnyImages,
    labels: LabelCandidates = None,
    *,
    cond: Cond | None = None,
    text: TextCandidates = None,
    prior: Prior | None = None,
    method: str = "ode",
    repeats: Annotated[int, "[1, 65536]"] = 1,
) -> Classified:
    """Applies Bayes' rule, eq. (1), to candidate conditions of images, with the model's own log-likelihoods.

    pixels: n images, as for `bits_per_dim`.
    labels, text, cond: the candidates, k for all images or k for each: numbers or names of classes, and captions, (k,)
    or (n, k); arrays of entries, (k, ...) or (n, k, ...). Those of several kinds go together, candidate by candidate.
    By default all classes of the model.
    prior: p(c), (k,) or (n, k), 0 or more, normalised here; default uniform.
    method: "ode" is the model's density up to its tolerances and the probes' noise, for a few hundred evaluations of
    the network by each pair of image and candidate. "bound" puts the bound of the reverse SDE in its place, for
    config.eval.bound_num_times + 1 evaluations.
    repeats: passes whose log-likelihoods are averaged; pass r draws from `stream(key, r)`, the same numbers for all
    candidates of an image. config.eval.batch_size pairs are computed at a time. It runs programs of its own with a
    progress bar, so it is no part of a JAX program.
    Raises `UsageError` for candidates that the network does not know, or of different number.

        import flax.linen as nn
        import jax
        import jax.numpy as jnp
        from score_sde.cond import Entry, read
        from score_sde.inference.pretrained import Pretrained
        from score_sde.objective import Objective
        from score_sde.parameterization import Noise
        from score_sde.sde import VP
        from score_sde.times import Uniform
        from score_sde.weights import NoiseWeight

        class Denoiser(nn.Module):  # of ten classes
            @property
            def cond_entries(self):
                return {"labels": Entry(jnp.int32, (), below=10)}

            @nn.compact
            def __call__(self, x, noise_cond, cond=None, *, dropout_keys=None):
                labels, null = read(cond, self.cond_entries, "labels", len(x))
                return x * nn.Embed(10, 1)(labels)[:, None, None]

        network, x = Denoiser(), jnp.zeros((3, 8, 8, 1))
        params = network.init(jax.random.key(0), x, jnp.ones(3))["params"]
        objective = Objective(VP(), Noise(), Uniform(), NoiseWeight())
        model = Pretrained(objective, network, params, image_shape=(8, 8, 1))
        logp, p, choice = model.classify(jax.random.key(1), x, method="bound")  # of all ten classes; p: (3, 10)
        logp, p, choice = model.classify(jax.random.key(1), x, labels=[3, 8], method="bound")  # p: (3, 2)
    """
    of_pair = METHODS[one_of("method", method, METHODS)]
    if is_traced():
        raise UsageError("classify runs programs of its own; call it outside jit, grad, scan and vmap.")
    x = inputs.unit_images(pixels, model.image_shape)
    cond, k = _candidates(model, len(x), labels, cond, text)
    log_prior = _log_prior(prior, len(x), k)
    pairs = len(x) * k  # image by image
    size, bits = min(model.config.eval.batch_size, pad_to_devices(pairs)), np.zeros(pairs)
    memory = enough_memory(f"likelihoods at eval.batch_size={size}", lambda: "lower eval.batch_size")
    with memory, bar("likelihoods of candidates", pairs * repeats, "img", delay=SHOWN_AFTER) as progress:
        for repeat in range(repeats):
            keys = batch_keys(stream(key, repeat), len(x))
            for chunk, valid in padded_chunks(pairs, size):
                done, image = repeat * pairs + int(chunk[0]), chunk // k
                report = reporter(progress, valid, done)
                of_chunk = of_pair(model, keys[image], x[image], rows(cond, chunk), report)
                bits[chunk[:valid]] += np.asarray(of_chunk, np.float64)[:valid]
                progress.update(done + valid - progress.n)
    nats = -math.log(2) * math.prod(model.image_shape) * bits.reshape(len(x), k) / repeats
    probabilities = _normalised(log_prior + nats)
    return Classified(nats, probabilities, probabilities.argmax(axis=1))


def _by_ode(model: Snapshot, keys: Keys, x: UnitImages, cond: Cond | None, report: Report) -> PerSample:
    return likelihoods(model, keys, x, report, cond=cond).bits_per_dim


def _by_bound(model: Snapshot, keys: Keys, x: UnitImages, cond: Cond | None, report: Report) -> PerSample:
    return bound(model, keys, x, cond=cond)


METHODS = {"ode": _by_ode, "bound": _by_bound}


def _candidates(model: Snapshot, n: int, labels: Any, cond: Cond | None, text: Any) -> tuple[Cond, int]:
    """The condition of all pairs of n images and their candidates, image by image, and the number k of candidates."""
    if labels is None and cond is None and text is None:
        if not model.experiment.num_classes:
            raise UsageError("This model has no classes to choose from; give candidates as cond or text.")
        labels = np.arange(model.experiment.num_classes)
    check_names(cond, entries := model.experiment.cond_entries)
    numbers: dict[str, int] = {}
    labels, text = (_flat(name, values, n, numbers) for name, values in (("labels", labels), ("text", text)))
    if cond is not None:
        rank = {name: len(entry.shape) for name, entry in entries.items()}
        null = {name: _repeated(name, array, n, 0, numbers) for name, array in cond.get(NULL, {}).items()}
        arrays = {name: array for name, array in cond.items() if name != NULL}
        cond = {name: _repeated(name, array, n, rank[name], numbers) for name, array in arrays.items()}
        cond |= {NULL: null} if null else {}
    if len(set(numbers.values())) > 1 or 0 in numbers.values():
        counts = ", ".join(f"{number} of {name}" for name, number in numbers.items())
        raise UsageError(f"classify takes one candidate or more, the same number of each kind, and not {counts}.")
    k = next(iter(numbers.values()))
    labels = None if labels is None else as_array("labels", numbered(labels, model.class_names), np.int32)
    return jax.tree.map(np.asarray, inputs.condition(model, n * k, labels, cond, text)), k


def _flat(name: str, values: Any, n: int, numbers: dict[str, int]) -> tuple | None:
    """Labels or captions of all pairs, from k for all images or a row of k for each; `numbers` gets their k."""
    if values is None:
        return None
    values = values if isinstance(values, tuple) else np.atleast_1d(np.asarray(values))
    each = [value if isinstance(value, str) else np.asarray(value, object).tolist() for value in values]
    nested = [isinstance(value, list) for value in each]
    lists = each if any(nested) else [each] * n
    if len(lists) != n or len({len(row) if isinstance(row, list) else -1 for row in lists}) != 1:
        raise UsageError(
            f"{name} of classify are k candidates for all images, or a row of k for each of the {n} images."
        )
    numbers[name] = len(lists[0])
    return tuple(value for row in lists for value in row)


def _repeated(name: str, array: Any, n: int, rank: int, numbers: dict[str, int]) -> np.ndarray:
    """Rows of an entry of all pairs, from (k, ...) for all images or (n, k, ...); rank: of a row."""
    array = np.asarray(array)
    array = np.broadcast_to(array, (n, *array.shape)) if array.ndim == rank + 1 else array
    if array.ndim != rank + 2 or len(array) != n:
        raise UsageError(
            f"cond['{name}'] of classify has a row for each candidate, or one for each candidate of each of the {n} "
            f"images; its shape here is {np.shape(array)}."
        )
    numbers[f"cond['{name}']"] = array.shape[1]
    return array.reshape(-1, *array.shape[2:])


def _log_prior(prior: np.ndarray | None, n: int, k: int) -> np.ndarray:
    """log p(c), (n, k)."""
    prior = np.ones(k) if prior is None else np.asarray(prior, np.float64)
    if prior.shape not in ((k,), (n, k)) or not np.all(prior.sum(-1) > 0):
        raise UsageError(f"The prior has shape {prior.shape}; give ({k},) or ({n}, {k}), not all 0 for any image.")
    with np.errstate(divide="ignore"):
        return np.broadcast_to(np.log(prior / prior.sum(-1, keepdims=True)), (n, k))


def _normalised(log_joint: np.ndarray) -> np.ndarray:
    weights = np.exp(log_joint - log_joint.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)
