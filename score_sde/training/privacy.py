"""Privacy of a run: how many updates its budget allows, the seeds of its batches and noise, and its record.

The record, privacy.json in the workdir, is a list of segments, stretches of updates under the same settings. What a run
has spent is a function of these and of the number of updates, so that no checkpoint has a state of the accountant, and
a run that is killed and goes on makes the same updates again and spends the same. A launch that changes a setting
begins a new segment, with new seeds; the updates that the launch before made after its last checkpoint count as well.

Whoever knows the seed of the noise can subtract it. It is therefore not `config.seed`, but is drawn at the start of the
run and kept in privacy_seed.json, which only its owner may read.
"""

import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from score_sde import data
from score_sde.cond import Entries
from score_sde.config import Config
from score_sde.config.arguments import check_arguments
from score_sde.data.poisson import EMPTY
from score_sde.errors import UsageError, tell
from score_sde.io import workdir
from score_sde.io.metrics_log import read_lines
from score_sde.runtime import sharding
from score_sde.runtime.backend import expanded
from score_sde.training.accountant import RELATION, Mechanism, Spending, capacity_for, epsilon, most_updates
from score_sde.training.loop import Training

RECORD, SECRET = "privacy.json", "privacy_seed.json"
Segment = dict[str, Any]  # of the record: first (number of updates before it), updates (once it is over), and settings


class Spent(NamedTuple):
    """The guarantee of a workdir: its training is (epsilon, delta)-private for `relation` after so many updates.

    segments: the settings, each with the number of its updates.
    """

    epsilon: float
    delta: float
    updates: int
    segments: Spending
    relation: str = RELATION


class Plan(NamedTuple):
    """The private part of a launch. updates: number of updates that the training ends after, within the limit.

    limit, delta: of the budget.
    secret: the seed of batches and noise, after `recorded`.
    """

    segments: tuple[Segment, ...]
    limit: float
    delta: float
    updates: int
    secret: int = 0

    def epsilon(self, step: int) -> float:
        """The epsilon that `step` updates of the run have spent."""
        return epsilon(spending(self.segments, step), self.delta)

    def told(self, step: int) -> str:
        """What `step` updates have spent, in words."""
        return f"epsilon {self.epsilon(step):.4g} at delta {self.delta:g} spent; {self.limit:g} at most"

    def of(self, training: Training, source: data.Source, entries: Entries, places_of: int) -> Training:
        """The training with private batches, in which the norm of the noisy gradient is logged instead of the loss.

        The other arguments are those of `batches`.
        """
        batch = self.batches(source, entries, places_of)
        logged = dict(loss="gradient_norm", shown="|gradient| {:.4g}")
        return training._replace(batch=batch, notes=lambda step: {"epsilon": self.epsilon(step)}, **logged)

    def batches(self, source: data.Source, entries: Entries, places_of: int) -> Callable[[int], tuple]:
        """A function step -> the arguments of the private update of that step after the state.

        entries: as for `data.batch_fn`. places_of: a number that divides the number of places.
        """
        mechanism = _mechanism(self.segments[-1])
        empty = np.full(-mechanism.capacity % places_of, EMPTY)
        high, low = self._words(1)
        seed = high << 30 | low >> 2  # 62 bits

        def batch(step: int) -> tuple:
            indices = data.poisson_batch(len(source), mechanism.rate, mechanism.capacity, seed=seed, step=step)
            numbers = np.concatenate([indices, empty])

            def own(rows: np.ndarray, *_: Any) -> np.ndarray:
                return numbers[rows].astype(np.int32)

            batch = data.on_devices(source, np.maximum(numbers, 0), entries, own)
            return (*batch, np.int32(step), np.array(self._words(2, step), np.uint32))

        return batch

    def _words(self, *use: int) -> list[int]:
        """Two words of 32 bits that no one knows without the secret, for one use in the last segment."""
        return np.random.SeedSequence([self.secret, len(self.segments), *use]).generate_state(2).tolist()


@check_arguments
def spent(directory: str | Path) -> Spent:
    """The privacy that the training of a workdir has spent, also in updates after its last checkpoint.

    Raises `UsageError` for a run that is not private.
    """
    directory = expanded(directory)
    config = workdir.stored_config(directory)
    if not config.training.privacy:
        raise UsageError(f"{directory} was trained without privacy; train with training.privacy=True.")
    step = _reached(directory)
    segments = spending(workdir.read(directory, RECORD)["segments"], step)
    return Spent(epsilon(segments, config.privacy.delta), config.privacy.delta, step, segments)


def spending(segments: Sequence[Segment], step: int) -> Spending:
    """The mechanisms of a record, each with the number of its updates, after `step` updates of the run."""
    return tuple((_mechanism(each), each.get("updates", max(step - each["first"], 0))) for each in segments)


def planned(
    config: Config, directory: Path, described: Mapping[str, Any], changed: Mapping[str, tuple[Any, Any]]
) -> Plan | None:
    """The plan of a launch, None for a training without privacy. It writes nothing.

    described: of the training images. changed: settings that this launch changes. Raises `UsageError` for a budget
    that allows no update, or is spent already, and for a record or seed that is missing.
    """
    if not config.training.privacy:
        return None
    options, start = config.privacy, max(workdir.saved_steps(directory), default=0)
    new = segment_of(config, described["images"])
    if start == 0:
        _check_start_from(config, described)
        segments = [new]
    else:
        segments = _going_on(directory, start, new, changed)
        if options.secret_seed is None and not workdir.read(directory, SECRET):
            raise UsageError(f"{directory / SECRET} is missing, without which the run cannot go on; restore it.")
    return Plan(tuple(segments), options.epsilon, options.delta, _within(segments, config, start))


def recorded(plan: Plan, config: Config, directory: Path) -> Plan:
    """The plan with its secret seed; writes the record, and at the start of a run the seed."""
    with sharding.first_goes_first():
        if sharding.is_first():
            workdir.write(directory, RECORD, {"relation": RELATION, "segments": plan.segments})
            if config.privacy.secret_seed is None and not workdir.saved_steps(directory):
                workdir.write(directory, SECRET, {"seed": secrets.randbits(128)})
                (directory / SECRET).chmod(0o600)
        secret = config.privacy.secret_seed
        return plan._replace(secret=workdir.read(directory, SECRET)["seed"] if secret is None else secret)


def segment_of(config: Config, images: int) -> Segment:
    """The first segment of a run on so many images. Raises `UsageError` for more expected than there are."""
    options, size = config.privacy, config.training.batch_size
    if size > images:
        raise UsageError(
            f"training.batch_size={size} images are expected in an update, and there are {images}; set it to "
            f"{images // 4}, say."
        )
    chosen = options.capacity or capacity_for(images, size, options.epsilon, options.delta)
    mechanism = Mechanism(images, size, options.noise_multiplier, chosen)
    return {"first": 0, **mechanism._asdict(), "clip": options.clip, "times": options.times}


def report(config: Config, images: int) -> str:
    """The privacy of a training on so many images in words: rate, epsilon at the end, and updates within the budget."""
    segment, options, n = segment_of(config, images), config.privacy, config.training.n_iters
    mechanism = _mechanism(segment)
    most = most_updates(mechanism, options.epsilon, options.delta)
    end = epsilon(((mechanism, n),), options.delta)
    return (
        f"privacy: each of {images:,} images joins an update with probability {mechanism.rate:.3g}, at most "
        f"{mechanism.capacity:,} at once; {n:,} updates spend epsilon {end:.4g} at delta {options.delta:g}, and "
        f"{most:,} are within epsilon {options.epsilon:g}"
    )


def _mechanism(segment: Segment) -> Mechanism:
    return Mechanism(**{name: segment[name] for name in Mechanism._fields})


def _going_on(directory: Path, start: int, new: Segment, changed: Mapping[str, tuple[Any, Any]]) -> list[Segment]:
    """The segments of a run that goes on, with a further one if this launch changes a setting."""
    segments = workdir.read(directory, RECORD).get("segments")
    if not segments:
        raise UsageError(f"{directory / RECORD} is missing, which says what the run has spent; restore it.")
    last, changes = segments[-1], json.loads(json.dumps(changed))
    if not changed or (last["first"] == start and last.get("changed") == changes):
        return segments
    over = last | {"updates": max(_reached(directory), start) - last["first"]}
    return [*segments[:-1], over, new | {"first": start, "changed": changes}]


def _within(segments: Sequence[Segment], config: Config, start: int) -> int:
    """The number of updates to end after, training.n_iters or what the budget allows. Raises `UsageError` for none."""
    options, n = config.privacy, config.training.n_iters
    already = spending(segments, start)
    if (spent := epsilon(already, options.delta)) > options.epsilon:
        raise UsageError(
            f"The run has spent epsilon {spent:.4g} at delta {options.delta:g}, more than "
            f"privacy.epsilon={options.epsilon:g}; set it higher."
        )
    if n <= start or epsilon(spending(segments, n), options.delta) <= options.epsilon:
        return n
    more = most_updates(_mechanism(segments[-1]), options.epsilon, options.delta, already)
    if start + more == 0:
        once = epsilon(spending(segments, 1), options.delta)
        raise UsageError(
            f"One update spends epsilon {once:.4g} at delta {options.delta:g}, more than "
            f"privacy.epsilon={options.epsilon:g}; set a larger privacy.noise_multiplier, or privacy.capacity=0."
        )
    if sharding.is_first():
        tell(
            f"privacy.epsilon={options.epsilon:g} allows {start + more:,} updates, after which the training ends, "
            f"instead of training.n_iters={n:,}."
        )
    return start + more


def _reached(directory: Path) -> int:
    """The updates that a run has made as far as its files show: those of a launch that was killed too."""
    logged = [line["step"] for line in read_lines(directory / "metrics.jsonl")]
    return max([*workdir.saved_steps(directory), *logged], default=0)


def _check_start_from(config: Config, described: Mapping[str, Any]) -> None:
    """Raises `UsageError` where training.start_from is a run on the same images, which it saw outside this budget."""
    source = config.training.start_from
    if source and workdir.read(expanded(source), "launch.json").get("data", {}).get("training") == described:
        raise UsageError(
            f"training.start_from={source} has been trained on the same images, outside this budget; begin with a run "
            "on other images, or with fresh weights."
        )
