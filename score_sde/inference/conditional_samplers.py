"""Conditional sampling: an experiment's samplers under conditions or linear observations, as config.guidance says.

| given          | by                                        | config.guidance                                       |
|----------------|-------------------------------------------|-------------------------------------------------------|
| a condition    | a network that takes its entries          | `scale`: classifier-free guidance                     |
| a condition    | the same, and another caption             | `negative`: the caption to move away from; `scale`    |
| classes        | a noise-conditional classifier            | `classifier`: its workdir; `scale`                    |
| any of these   | and a weaker network of the same kind     | `weak`: its workdir; `scale`: autoguidance            |
| an observation | any network                               | `inverse`: `score_sde.conditioning.posterior.METHODS` |
"""

import dataclasses
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from score_sde import conditioning
from score_sde.array_types import Array, Float, PerSample, PyTree, UnitImages
from score_sde.cond import NULL, Cond, Entries, check_names, fitted
from score_sde.conditioning import Observation
from score_sde.conditioning.observations import check_observed, checked_observation, for_images
from score_sde.config import check
from score_sde.config.kinds import is_abstract
from score_sde.errors import UsageError, moved_names
from score_sde.process import Model
from score_sde.sampling import FAST_SOLVERS, Solver
from score_sde.training.build import Classification, Experiment
from score_sde.training.sampler_options import Method, name_of, sampling_options

UnitObservation = tuple[
    conditioning.Operator, Float[Array, "b ..."], Annotated[float, "[0, inf)"]
]  # y of images in [0, 1], and the noise on it


class Towards(NamedTuple):
    """Another condition that samples go towards.

    share: of the prediction under it in each sample's, 0 to 1; the rest is that under the sample's own condition.
    """

    cond: Cond
    share: Annotated[PerSample, "[0, 1]"]


class Conditions(NamedTuple):
    """Condition and observation that samples are drawn given; every array has one row for each sample.

    observation: in model range. towards: the second condition of an interpolation, see `conditioning.interpolation`.
    """

    cond: Cond | None = None
    observation: Observation | None = None
    towards: Towards | None = None


class Conditional:
    """The samplers of an experiment under a condition, as functions of parameters.

    classifier, weak: the networks that config.guidance names, if any. negative: the entries of guidance.negative, one
    row, if it is set. Parameters are a dictionary: "score", and "classifier" and "weak" where these exist.
    """

    def __init__(
        self,
        experiment: Experiment,
        classifier: Classification | None = None,
        weak: Experiment | None = None,
        negative: Cond | None = None,
    ):
        self.experiment, self.classifier, self.weak = experiment, classifier, weak
        self.negative = fitted(negative, experiment.cond_entries, 1)
        self.options = experiment.config.guidance
        check(experiment.config)
        if classifier is not None or weak is not None or self.options.scale != 1:
            for model in filter(None, (experiment, weak)):
                model.check_score("Guidance (guidance.scale, guidance.classifier, guidance.weak)")
        for name, other in (("classifier", classifier), ("weak", weak)):
            if other is not None and (other.image_shape, other.scaling) != (experiment.image_shape, experiment.scaling):
                raise UsageError(
                    f"guidance.{name} names a network for images of another shape or range, {other.image_shape}, than "
                    f"this model's, {experiment.image_shape}; train one on the same data under the same SDE."
                )
            if other is not None and experiment.sde.learned:
                raise UsageError(
                    f"guidance.{name} names a network with another schedule than this model has learned; guide this "
                    "model by guidance.scale alone, or train both under a process without parameters, like vp."
                )
        if weak is not None and weak.sde != experiment.sde:
            raise UsageError(f"guidance.weak was trained under {weak.sde}, and this model under {experiment.sde}.")
        if weak is not None and weak.cond_entries != experiment.cond_entries:
            own, others = (", ".join(model.cond_entries) or "none" for model in (experiment, weak))
            raise UsageError(
                f"guidance.weak and this model must take the same condition: its entries are {others}, this model's "
                f"{own}, or they differ in size."
            )

    @property
    def cond_entries(self) -> Entries:
        """The condition's entries that can be chosen."""
        by_classifier = {} if self.classifier is None else self.classifier.cond_entries
        return {**self.experiment.cond_entries, **by_classifier}

    @property
    def num_classes(self) -> int:
        """Number of classes that can be chosen; 0 if none can."""
        return (self.classifier or self.experiment).num_classes

    def of_network(self, cond: Cond | None) -> Cond | None:
        """The part of a condition that the score networks take: all but the labels, if a classifier guides by them."""
        if cond is None or self.classifier is None:
            return cond
        return {name: array for name, array in cond.items() if name != "labels"} or None

    def reference(self, cond: Cond) -> Cond | None:
        """The condition of the network that classifier-free guidance moves away from: null, or a negative caption.

        The negative caption takes the place of the sample's, whose other entries stay: a network trained with whole
        conditions has had such a one.
        """
        if self.negative is None:
            return None
        n = len(next(rows for name, rows in cond.items() if name != NULL))
        null = {name: rows for name, rows in cond.get(NULL, {}).items() if name not in self.negative}
        negative = {name: jnp.broadcast_to(row, (n, *row.shape[1:])) for name, row in self.negative.items()}
        return {name: rows for name, rows in cond.items() if name != NULL} | negative | ({NULL: null} if null else {})

    def check(self, conditions: Conditions, method: Method) -> None:
        """Raises `UsageError` for a condition or observation with which these networks and method cannot sample."""
        cond = conditions.cond
        check_names(cond, self.cond_entries)
        self.experiment.check_cond(self.of_network(cond))
        if self.weak is None and self.classifier is None and self.options.scale != 1:  # classifier-free
            self.experiment.check_cond(None if cond is None else self.reference(cond))
        if cond is None and self.weak is None:
            self._check_unguided()
        without_class = cond is not None and ("labels" not in cond or "labels" in cond.get(NULL, {}))
        if without_class and self.classifier is not None:
            raise UsageError(
                "guidance.classifier guides every sample towards a class; give a class for each, or leave it out."
            )
        if conditions.observation is None:
            return
        self.experiment.check_score("Sampling given an observation")
        conditioning.check_observable(self.experiment.sde)
        inverse = self.options.inverse
        if inverse in ("projection", "dps") and method not in ("pc", *FAST_SOLVERS):
            raise UsageError(
                f"guidance.inverse={inverse} needs a fixed number of steps N, and sampler {name_of(method)} has no N; "
                "set guidance.inverse to pigdm or tmpd, or sampling.method=pc."
            )
        if inverse == "particles" and (method != "pc" or self.experiment.config.sampling.corrector.lower() != "none"):
            raise UsageError(
                "guidance.inverse=particles moves its particles by a predictor alone; set sampling.method=pc and "
                "sampling.corrector=none."
            )

    def _check_unguided(self) -> None:
        """Raises `UsageError` for guidance towards a class when no class is chosen."""
        for name, without in (("scale", 1.0), ("interval", (0.0, 1.0)), ("classifier", ""), ("negative", "")):
            value = self.options[name]
            if (tuple(value) if name == "interval" else value) != without:
                raise UsageError(
                    f"guidance.{name}={value} guides towards a class or another condition, and none is asked for; set "
                    f"sampling.condition=class=N (or class=all, or text=A CAPTION), or leave guidance.{name} at "
                    f"{without!r}."
                )

    def conditions(
        self,
        cond: Cond | None,
        observed: UnitObservation | None,
        n: int,
        method: Method,
        towards: Towards | None = None,
    ) -> Conditions:
        """The checked condition and observation of n samples. Raises `UsageError` if the method cannot sample so."""
        observation = None if observed is None else self.observed(*observed)
        self.check(Conditions(cond, observation), method)
        if towards is not None:
            self.check(Conditions(towards.cond, observation), method)
            towards = towards._replace(cond=fitted(towards.cond, self.cond_entries, n))
        return Conditions(fitted(cond, self.cond_entries, n), observation, towards)

    def sampler(self, params: dict[str, PyTree], conditions: Conditions, method: Method | None = None) -> Solver:
        """The solver of config.sampling, or of the given method, from x_T to samples of p(x_0 | given)."""
        experiment, observation, inverse = self.experiment, conditions.observation, self.options.inverse
        method, options = experiment.sampler_options(method)
        sde = experiment.sde_of(params["score"], method)
        if conditions.cond is None and observation is None and self.weak is None:
            return experiment.sampler_of(params["score"], experiment.model_of(params["score"], method), method)()
        self.check(conditions, method)
        repeats = self.options.particles if observation is not None and inverse == "particles" else 1
        model = self._guided(params, conditions, method, repeats)
        if repeats > 1:
            chosen = {key: options[key] for key in ("predictor", "eps", "noise_removal")} | {"num_particles": repeats}
            return conditioning.particles(sde, model, observation.repeated(repeats), self._inverse_options, **chosen)
        if observation is not None and inverse == "projection":
            held = conditioning.projection(sde, observation)
            solver = experiment.sampler_of(params["score"], model, method)(project=held.project)
            return solver._replace(init=lambda keys, x: solver.init(keys, held.start(x)))
        if observation is not None:
            num_steps = options.get("num_steps")  # None for pc: its SDE has them
            of_guide = dataclasses.replace(self._inverse_options, num_steps=num_steps)
            model = conditioning.GUIDES[inverse](sde, model, observation, of_guide)
        return experiment.sampler_of(params["score"], model, method)()

    def _guided(self, params: dict[str, PyTree], conditions: Conditions, method: Method, repeats: int) -> Model:
        """The model under a condition, for batches in which each sample has `repeats` consecutive rows."""
        both = (conditions.cond, conditions.towards)
        cond, towards = jax.tree.map(lambda rows: jnp.repeat(rows, repeats, axis=0), both)
        options = dict(scale=float(self.options.scale), interval=tuple(self.options.interval))

        def under(experiment: Experiment, params: PyTree) -> Model:
            """The network's model under the samples' conditions."""
            first = experiment.model_of(params, method, self.of_network(cond))
            if towards is None:
                return first
            second = experiment.model_of(params, method, self.of_network(towards.cond))
            return conditioning.interpolation(first, second, towards.share)

        experiment, model = self.experiment, under(self.experiment, params["score"])
        if self.weak is not None:
            return conditioning.extrapolation(model, under(self.weak, params["weak"]), **options)
        if cond is None:
            return model
        if self.classifier is not None:
            logits_fn, labels = self.classifier.logits_fn(params["classifier"]), cond["labels"]
            process = experiment.sde_of(params["score"], method)
            return conditioning.classifier_guidance(process, model, logits_fn, labels, **options)
        if options["scale"] == 1:  # the network need not be a score without a condition
            return model
        reference = experiment.model_of(params["score"], method, self.reference(cond))
        return conditioning.extrapolation(model, reference, **options)

    @property
    def _inverse_options(self) -> conditioning.Options:
        """Options of inverse problems; for [-1, 1], a range of width 2, the data variance of pigdm is 1."""
        scale, options = self.experiment.scaling.scale, self.options
        return conditioning.Options((scale / 2) ** 2, options.step, options.iterations, reach=scale)

    def observed(self, operator: conditioning.Operator, y: Array, noise: float) -> Observation:
        """An observation of images in [0, 1], converted to model range.

        Raises `UsageError` if it does not fit, or if means of pixels are far from [0, 1].
        """
        check_observed(operator, y, self.experiment.image_shape)
        y, scaling = operator.measured(y), self.experiment.scaling
        if not is_abstract(y):
            _check_range(operator, np.asarray(y), noise)
        ones = operator.forward(jnp.ones((len(y), *self.experiment.image_shape), jnp.float32))
        levels = jnp.full(len(y), scaling.scale * noise, jnp.float32)
        return checked_observation(for_images(operator, len(y)), scaling.scale * y + scaling.shift * ones, levels)


def _check_range(operator: conditioning.Operator, y: np.ndarray, noise: float) -> None:
    """Raises `UsageError` for observations of images in another range, as 0..255 or [-1, 1], and for NaN.

    Means of pixels are in [0, 1], and noise moves them out of it by a few of its standard deviations.
    """
    low, high = y.min(initial=0), y.max(initial=1)
    room = 0.5 + 6 * noise if operator.of_pixels else np.finfo(np.float32).max
    if not (low >= -room and high <= 1 + room):
        raise UsageError(
            f"Observations must be of images in [0, 1], and these go from {low:g} to {high:g}; bring the images into "
            f"[0, 1] before {type(operator).__name__}.forward."
        )


# Options of a single `guidance.inverse`.
INVERSE_OPTIONS = {"step": "dps", "iterations": "tmpd", "particles": "particles"}


def unused_option(name: str, sampling: Any, guidance: Any, method: Method, *, observed: bool) -> str | None:
    """The reason why samples by this method do not depend on an option of the config; None if they depend on it."""
    used = sampling_options(sampling, method)
    if name in sampling:
        return None if name in used else f"the sampler {name_of(method)}, as it is set, takes {', '.join(used)}"
    if name in ("inverse", *INVERSE_OPTIONS) and not observed:
        return "it is for samples that are given an observation"
    if name in INVERSE_OPTIONS and guidance["inverse"] != INVERSE_OPTIONS[name]:
        return f"it is for guidance.inverse={INVERSE_OPTIONS[name]}, and guidance.inverse is {guidance['inverse']}"
    return None


def finished(x: UnitImages | np.ndarray, operator: conditioning.Operator, y: Array, noise: float) -> UnitImages:
    """Samples clipped to [0, 1]; noiseless observations are met exactly, as far as [0, 1] permits."""
    x = jnp.asarray(x)
    return operator.limit(operator.impose(x, y), y) if noise == 0 else jnp.clip(x, 0, 1)


__getattr__ = moved_names(__name__, {"Observed": f"{__name__}.UnitObservation"})
