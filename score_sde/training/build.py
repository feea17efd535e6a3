"""Experiments: the score, loss and solvers that a config describes. Modules below this and `trainable` know no config.

Building an `Experiment` is cheap and raises `UsageError` for a config that makes no sense, so the programs do it before
they write anything.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import traverse_util

from score_sde import likelihood
from score_sde.array_types import Array, Keys, ModelImages, PerSample, PyTree, ScoreFn, Times, UnitImages
from score_sde.cond import Cond, blank, check_names, dropped, names
from score_sde.config import Config, check, check_section
from score_sde.errors import UsageError, moved_names, one_of
from score_sde.learned import with_gradient_of_squares
from score_sde.likelihood import dequantization
from score_sde.likelihood.bound import Bound, likelihood_bound
from score_sde.likelihood.dequantization import Dequantization
from score_sde.models import CLASSIFIERS, MODELS, PRECISIONS, Dequantizer, is_trainable
from score_sde.objective import Objective, network_params
from score_sde.parameterization import Network
from score_sde.process import LEAST_TIME, Model, Process, from_score, score
from score_sde.randomness import Stream, expand, normal, stream
from score_sde.sampling import Solver, clipped, probability_flow
from score_sde.training.classification import Classification
from score_sde.training.recipe import objective_of
from score_sde.training.sampler_options import (
    OPTIONS,
    Method,
    clip_of,
    constructor_options,
    method_named,
    name_of,
    sampler_named,
    solves_ode,
)
from score_sde.training.state import TrainState, adam, initial_state
from score_sde.training.trainable import Trainable


class Experiment(Trainable):
    """The score, loss and solvers of a config, as functions of parameters."""

    evaluated = ("loss", "t", "square", "along")

    def __init__(self, config: Config, objective: Objective | None = None, network: Any = None, **of_images: Any):
        """Takes objective, network, `image_shape` and `scaling` from the config, unless they are given."""
        name, own = config.model.name, network is not None
        if name in CLASSIFIERS and not own:
            raise UsageError(f"model.name={name} is a classifier and has no score: score_sde.load_classifier loads it.")
        check(config)
        super().__init__(config, MODELS, objective or objective_of(config), network, **of_images)
        if config.training.cond_dropout and not self.cond_entries:
            raise UsageError("This network takes no condition; leave training.cond_dropout empty.")
        for name in config.training.cond_dropout:
            one_of("entry of training.cond_dropout", name, names(self.cond_entries))
        if not own:  # a model of one's own may not fit the base config's sampler
            self.sampler({}, cond=self.cond_in_turn(1))

    def with_config(self, config: Config) -> "Experiment":
        check(config)
        return super().with_config(config)

    @property
    def sampling_sde(self) -> Process:
        return self._in_steps(self.sde)

    @property
    def scores_without_cond(self) -> bool:
        """Whether the network is a score without a condition: it takes none, or training dropped it for some images."""
        return not self._never_without(None)

    def check_cond(self, cond: Cond | None) -> None:
        """Raises `UsageError` for an entry that the network does not know, or that training never dropped."""
        check_names(cond, self.cond_entries)
        lacks = self._never_without(cond)
        if not lacks:
            return
        lacking = "a class" if lacks == ["labels"] else " and ".join(lacks)
        if self.config.training.label_dropout == 0:
            raise UsageError(
                f"This network had every image's condition in training (training.label_dropout=0) and is no score "
                f"without {lacking}: sample with a condition and guidance.scale=1, take likelihoods given a condition "
                "(eval.bpd_with_cond=True), or train with training.label_dropout=0.1 for guidance and all the rest."
            )
        raise UsageError(
            f"This network was never without {lacking} alone in training; give the whole condition or none, or train "
            f"with training.cond_dropout={tuple(names(self.cond_entries))}."
        )

    @property
    def coupled(self) -> bool:
        """Whether training joined images with noise that depends on them, so that the network is no score."""
        return self.config.training.coupling != "independent"

    def check_score(self, subject: str) -> None:
        """Raises `UsageError` where `subject` would take the network for a score, and it is none."""
        if self.coupled:
            raise UsageError(
                f"{subject} needs E[eps | x_t] of noise that is independent of the image, and this network was trained "
                f"with training.coupling={self.config.training.coupling}: it has a velocity, and no score. Its ODE "
                "draws samples (sampling.method=ode, or a deterministic fast solver) and gives likelihoods "
                "(eval.enable_bpd)."
            )

    def _never_without(self, cond: Cond | None) -> list[str]:
        """The entries that `cond` lacks although training never dropped them."""
        every, options = names(self.cond_entries), self.config.training
        lacks = [name for name in every if name not in (cond or {})]
        dropped_so = options.cond_dropout or (every if lacks == every else ())
        return [name for name in lacks if options.label_dropout == 0 or name not in dropped_so]

    def cond_in_turn(self, n: int) -> Cond | None:
        """A condition for n samples when none is chosen: classes 0, 1, ..., and blanks.

        None if the network is a score without a condition too.
        """
        if self.scores_without_cond:
            return None
        labels = {"labels": jnp.arange(n, dtype=jnp.int32) % self.num_classes} if self.num_classes else {}
        return blank(self.cond_entries, n) | labels

    def model(
        self, params: PyTree, *, cond: Cond | None = None, precision: str | None = None, process: Process | None = None
    ) -> Model:
        """The model (x, t) -> `Prediction` in model range, at any t, under a condition.

        process: the process under which the network is read; default the one it was trained under. precision: default
        `eval.precision`. Raises `UsageError` for a network that knows the levels of a chain only.
        """
        if self.objective.parameterization.noise_cond == "level_index":
            raise UsageError(
                "All samplers but pc, and likelihoods, need a score at every time, and this network was trained at "
                "discrete ones; set sampling.method=pc, and eval.enable_bpd and eval.enable_bound to False."
            )
        return self._model(params, cond, precision, process or self.process_of(params))

    def score_fn(self, params: PyTree, *, cond: Cond | None = None, precision: str | None = None) -> ScoreFn:
        """The score in model range as it was trained: at the levels of a chain, if it was trained at these."""
        self.check_score("A score")
        levels = self.objective.with_params(params).levels
        model = self._model(params, cond, precision, levels)
        return lambda x, t: score(levels, model(x, t), t)

    def _model(self, params: PyTree, cond: Cond | None, precision: str | None, process: Process) -> Model:
        network = self.network_fn(params, cond=cond, precision=precision)
        return self.objective.parameterization.model(network, process, centered=self.centered)

    def network_fn(
        self,
        params: PyTree,
        *,
        cond: Cond | None = None,
        dropout_keys: Keys | None = None,
        precision: str | None = None,
        augment: Array | None = None,
    ) -> Network:
        """The network as a function of image and noise condition, under a condition; None is the null condition.

        dropout_keys: given in training, one for each image. precision: default `eval.precision`, in training that of
        config.training. augment: labels of transforms of the images, in training.
        """
        self.check_cond(cond)
        compute = PRECISIONS[precision] if precision else self.compute(training=dropout_keys is not None)
        variables, options = {"params": network_params(params)}, {} if augment is None else {"augment": augment}

        def network(x: ModelImages, noise_cond: PerSample) -> ModelImages:
            return compute.apply(self.network, variables, x, noise_cond, cond, dropout_keys=dropout_keys, **options)

        return network

    def loss(
        self,
        params: PyTree,
        keys: Keys,
        x: UnitImages,
        cond: Cond | None = None,
        *,
        training: bool = False,
        noise_keys: Keys | None = None,
        augment: Array | None = None,
    ) -> PerSample:
        """Denoising score matching loss of images in [0, 1], each perturbed by its own key.

        training: with dropout, of the condition too, by `training.label_dropout` and `training.cond_dropout`.
        noise_keys: keys of the noise, default `keys`; see `score_sde.training.coupling`. augment: labels of transforms.
        """
        x0 = self.scaling.to_model(x)
        t, eps = self.draw(keys, x0, noise_keys)

        def of(params: PyTree) -> PerSample:
            output, _ = self._outputs(params, keys, x0, t, eps, cond, training, augment)
            return self.objective.with_params(params).loss(output, x0, t, eps)

        return with_gradient_of_squares(of, params) if training and "process" in params else of(params)

    def _outputs(
        self,
        params: PyTree,
        keys: Keys,
        x0: ModelImages,
        t: Times,
        eps: ModelImages,
        cond: Cond | None,
        training: bool,
        augment: Array | None = None,
    ) -> tuple[ModelImages, ModelImages]:
        """The network's output at x_t, and x_t."""
        if cond is not None and training:
            cond = dropped(cond, keys, self.config.training.label_dropout, self.config.training.cond_dropout)
        dropout_keys = stream(keys, Stream.DROPOUT) if training else None
        objective = self.objective.with_params(params)
        network = self.network_fn(params, cond=cond, dropout_keys=dropout_keys, augment=augment)
        x = objective.perturb(x0, t, eps)
        outputs = objective.parameterization.outputs(network, objective.levels, centered=self.centered)
        return outputs(x, t), x

    def _evaluation(self, params: PyTree, keys: Keys, x: UnitImages, cond: Cond | None) -> dict[str, PerSample]:
        """The loss; and for each image t, |predicted|^2 and <predicted, eps>, from which `averages` takes sizes."""
        x0 = self.scaling.to_model(x)
        t, eps = self.draw(keys, x0)
        output, x = self._outputs(params, keys, x0, t, eps, cond, training=False)
        objective = self.objective.with_params(params)
        predicted = objective.parameterization.predict(objective.levels, x, output, t).eps
        axes = tuple(range(1, x0.ndim))
        square, along = jnp.mean(jnp.square(predicted), axes), jnp.mean(predicted * eps, axes)
        return {"loss": objective.loss(output, x0, t, eps), "t": t, "square": square, "along": along}

    def prior(self, keys: Keys, start: UnitImages | None = None) -> ModelImages:
        """The noisy images from which the sampler starts, one for each key.

        By default they are samples of the prior; with `start`, images in [0, 1], they are alpha x_0 + sigma z of these
        at `sampling.start_time` (Meng et al., 2022). `sampling.temperature` is a factor on the noise.
        """
        temperature, keys = self.config.sampling.temperature, stream(keys, Stream.PRIOR)
        if start is None:
            return temperature * self.sampling_sde.prior_sample(keys, self.image_shape)
        t, x0 = jnp.full(len(keys), self.config.sampling.start_time), self.scaling.to_model(start)
        noise = expand(self.sde.sigma(t), x0) * normal(keys, self.image_shape)
        return expand(self.sde.alpha(t), x0) * x0 + temperature * noise

    def sampler(self, params: PyTree, method: Method | None = None, *, cond: Cond | None = None) -> Solver:
        """The solver of config.sampling, or of another method with its options. cond: condition of the samples."""
        method, _ = self.sampler_options(method)
        return self.sampler_of(params, self.model_of(params, method, cond), method)()

    def sampler_of(self, params: PyTree, model: Model, method: Method) -> Callable[..., Solver]:
        """The constructor of a method's solver for any model, with its options in config.sampling.

        It takes hooks such as `project`.
        """
        method, options = self.sampler_options(method)
        process = self.sde_of(params, method)
        return functools.partial(sampler_named(method), process, self.clipped(process, model, method), **options)

    def sde_of(self, params: PyTree, method: Method) -> Process:
        """The process that a method solves; for pc with the sampler's own number of steps."""
        process = self.process_of(params)
        return self._in_steps(process) if method == "pc" else process

    def _in_steps(self, process: Process) -> Process:
        """The process with the number of steps in config.sampling, if that sets one."""
        num_scales = self.config.sampling.num_scales
        return process if num_scales is None else process.with_num_scales(num_scales)

    def model_of(self, params: PyTree, method: Method, cond: Cond | None = None) -> Model:
        """The model for a method; all but pc need it at any t. cond: condition of the samples.

        For pc, a network trained at the levels of a chain is read by its score, as in the paper's code: eps over the
        sigma of a level.
        """
        precision = self.config.sampling.precision
        if method == "pc" and self.objective.levels is not self.objective.process:
            return from_score(self.sde_of(params, method), self.score_fn(params, cond=cond, precision=precision))
        return self.model(params, cond=cond, precision=precision)

    def sampler_options(self, method: Method | None = None) -> tuple[Method, dict[str, Any]]:
        """The method, default config.sampling's, and its options in config.sampling."""
        sampling = self.config.sampling
        method = method_named(method or sampling.method)
        if not solves_ode(sampling, method):
            self.check_score(f"The sampler {name_of(method)}, as it is set,")
        if sampling.start_time != 1:
            self.check_score("Sampling from start images (sampling.start_time)")
        return method, constructor_options(sampling, method, level=self.scaling.scale / 256)

    def clipped(self, process: Process, model: Model, method: Method) -> Model:
        """The model with its x_0 clipped to the range of the data, as config.sampling says."""
        sampling, low = self.config.sampling, self.scaling.shift
        name, limits = clip_of(sampling, method), (low, low + self.scaling.scale)
        return clipped(process, model, name, limits, quantile=sampling.clip_quantile)

    def bits_per_dim(self, params: PyTree, cond: Cond | None = None) -> Solver:
        """The solver for bits/dim of the density in model range, under a condition, at points from `dequantization`."""
        options = {key: self.config.eval[key] for key in ("num_probes", "rtol", "atol", "ode_method")}
        options["divergence"] = self.config.eval.hutchinson_type.lower()
        options |= dict(offset_bits=0, eps=self.dequantization().eps)  # log q contains the offset
        return likelihood.bits_per_dim(self.process_of(params), self.model(params, cond=cond), **options)

    def bound(self, params: PyTree, cond: Cond | None = None) -> Bound:
        """The upper bound on bits/dim of the density in model range, under a condition."""
        self.check_score("The bound (eval.enable_bound)")
        if self.dequantization_name == "truncated_normal":
            raise UsageError(
                "The bound is on a density at time 0, and truncated-normal dequantization gives points at a later "
                "one; set eval.dequantization to uniform or variational, or eval.enable_bound=False."
            )
        process, model = self.process_of(params), self.model(params, cond=cond)
        return likelihood_bound(process, model, num_times=self.config.eval.bound_num_times)

    @property
    def dequantization_name(self) -> str:
        return self.config.eval.dequantization.lower()

    def dequantization(self, dequantizer: Callable = dequantization.unlearned) -> Dequantization:
        """The dequantization of config.eval. dequantizer: network of the variational one, as a function of images."""
        if self.dequantization_name == "truncated_normal":
            if self.sde.learned and not self.is_frozen:
                raise UsageError(
                    "Truncated-normal dequantization needs a learned schedule as numbers; call it on "
                    "`experiment.frozen(params)`."
                )
            seen = self.config.data.uniform_dequantization
            return dequantization.truncated_normal(self.sde, self.scaling, dequantized=seen)
        if self.dequantization_name == "variational":
            return dequantization.variational(self.scaling, dequantizer)
        return dequantization.uniform(self.scaling)

    def transport(self, params: PyTree, cond: Cond | None = None, *, encode: bool) -> Solver:
        """The probability-flow ODE between images in model range, at LEAST_TIME, and latents, in either direction.

        cond: the condition of each image.
        """
        sampling, model = self.config.sampling, self.model(params, cond=cond)
        options = {key: sampling[key] for key in OPTIONS["ode"]} | dict(eps=LEAST_TIME, noise_removal=False)
        return probability_flow(self.process_of(params), model, encode=encode, **options)


class Dequantizing:
    """The variational dequantization of an experiment, as functions of its network's parameters.

    options: the section `dequantizer` of a config.
    """

    def __init__(self, experiment: Experiment, options: Mapping[str, Any]):
        check_section("dequantizer", options)
        experiment.model({})  # raises for a network trained at the levels of a chain
        experiment.check_score("A variational dequantizer, which is fitted to the bound,")
        self.experiment, self.options = experiment, options
        self.network = Dequantizer(nf=options["nf"], num_res_blocks=options["num_res_blocks"])
        self.optimizer = adam(
            lr=options["lr"], beta1=0.9, eps=1e-8, weight_decay=0.0, warmup=100, grad_clip=1.0, trainable=True
        )

    def init_state(self) -> TrainState:
        key = stream(stream(jax.random.key(self.experiment.config.seed), Stream.DEQUANTIZER), Stream.INIT)
        params = self.network.init(key, jnp.zeros((1, *self.experiment.image_shape), jnp.float32))["params"]
        return initial_state(params, self.optimizer)

    @property
    def state_shapes(self) -> TrainState:
        return jax.eval_shape(self.init_state)

    def network_fn(self, params: PyTree) -> Callable:
        """The dequantizer network as a function, for `Experiment.dequantization`."""
        return lambda x: self.network.apply({"params": params}, x)

    def loss(self, params: PyTree, score_params: PyTree, keys: Keys, x: UnitImages) -> PerSample:
        """The upper bound on bits/dim of images in [0, 1], which ScoreFlow too minimises for its dequantizer."""
        sde, model = self.experiment.process_of(score_params), self.experiment.model(score_params)
        q = dequantization.variational(self.experiment.scaling, self.network_fn(params))
        y, log_q = q.sample(stream(keys, Stream.DEQUANTIZE), x)
        return likelihood_bound(sde, model, num_times=self.options["num_times"])(keys, y) + log_q


def trainable(config: Config, *, traced: bool = True) -> Experiment | Classification:
    """The experiment of the config: of a score, or of a classifier.

    traced: whether the network is traced now, so that one that fails raises before a program writes anything.
    """
    experiment = (Classification if config.model.name in CLASSIFIERS else Experiment)(config)
    if traced:
        jax.tree.leaves(experiment.param_shapes)
    return experiment


def parameter_counts(shapes: PyTree) -> tuple[int, int]:
    """Numbers of parameters in a tree, (trainable, total)."""
    leaves = traverse_util.flatten_dict(shapes)
    trainable = sum(leaf.size for path, leaf in leaves.items() if is_trainable(path))
    return trainable, sum(leaf.size for leaf in leaves.values())


MOVED = {name: f"score_sde.training.sampler_options.{name}" for name in ("sampling_options", "FAST_OPTIONS")}
__getattr__ = moved_names(__name__, MOVED)
