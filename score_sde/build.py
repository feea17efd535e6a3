"""From a config to the things it describes. Below this module and `trainable` nothing knows a config.

Building an `Experiment` costs nothing and raises `UsageError` for whatever makes no sense, so the loops do it before
they write anything.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import traverse_util
from ml_collections import ConfigDict

from score_sde import dequantization, likelihood
from score_sde.array_types import Array, Images, Keys, Labels, PerSample, PyTree, ScoreFn, Times
from score_sde.classification import Classification
from score_sde.config_checks import check_positive, check_values
from score_sde.dequantization import Dequantization
from score_sde.errors import UsageError, one_of
from score_sde.likelihood_bound import Bound, likelihood_bound
from score_sde.models import CLASSIFIERS, MODELS, PRECISIONS, Dequantizer, NCSNpp, is_trainable
from score_sde.objective import network_params
from score_sde.parameterization import Network
from score_sde.process import LEAST_TIME, Model, Process, score
from score_sde.randomness import Stream, stream, uniform
from score_sde.recipe import objective_of
from score_sde.sampling import SAMPLERS, Solver, probability_flow
from score_sde.state import TrainState, adam, initial_state
from score_sde.trainable import Trainable

FAST_OPTIONS = ("num_steps", "grid", "rho", "eta", "s_churn", "s_min", "s_max", "s_noise")


def sampling_options(sampling: Any, method: str) -> tuple[str, ...]:
    """Names in config.sampling that samples by this method depend on, with the choices made there."""
    common = ("eps", "noise_removal", "temperature", "precision")
    if method == "pc":
        corrects = ("snr", "n_steps_each") if sampling["corrector"].lower() != "none" else ()
        predicts = ("probability_flow",) if sampling["predictor"].lower() != "none" else ()
        return (*common, "predictor", "corrector", "num_scales", *corrects, *predicts)
    if method in ("ode", "adaptive"):
        return (*common, *(("rtol", "atol") if method == "ode" else ("sde_rtol", "sde_atol")))
    own = {"ddim": ("eta",), "edm_stochastic": ("s_churn", "s_min", "s_max", "s_noise")}.get(method, ())
    return (*common, "num_steps", "grid", *(("rho",) if sampling["grid"] == "karras" else ()), *own)


class Experiment(Trainable):
    """The score, loss and solvers of a config, as functions of parameters."""

    evaluated = ("loss", "t", "square", "along")

    def __init__(self, config: ConfigDict):
        name = config.model.name
        if name in CLASSIFIERS:
            raise UsageError(f"model.name={name} is a classifier and has no score: score_sde.load_classifier loads it.")
        check_values(config)
        super().__init__(config, MODELS, objective_of(config))
        self.sampling_sde = self.sde
        if config.sampling.num_scales is not None:
            if config.sampling.num_scales < 2:
                raise UsageError(f"sampling.num_scales={config.sampling.num_scales} must be at least 2.")
            self.sampling_sde = dataclasses.replace(self.sde, num_scales=config.sampling.num_scales)
        self.sampler(self.param_shapes, classes=self.classes_in_turn(1))

    @property
    def num_classes(self) -> int:
        return self.network.num_classes if isinstance(self.network, NCSNpp) else 0  # NCSN's are noise levels

    @property
    def scores_without_class(self) -> bool:
        """Whether the network is a score without a class: it takes none, or was not told some in training."""
        return self.num_classes == 0 or self.config.training.label_dropout > 0

    def check_without_class(self) -> None:
        """Raises `UsageError` unless the network `scores_without_class`."""
        if not self.scores_without_class:
            raise UsageError(
                "This network was told every label in training (training.label_dropout=0) and is no score without a "
                "class: sample with a class and guidance.scale=1, or train with training.label_dropout=0.1 for "
                "likelihoods, guidance, and samples of all classes."
            )

    def classes_in_turn(self, n: int) -> Labels | None:
        """Classes 0, 1, ... of n samples for which none is chosen, None where the network needs none."""
        return None if self.scores_without_class else jnp.arange(n, dtype=jnp.int32) % self.num_classes

    def score_fn(self, params: PyTree, *, classes: Labels | None = None, precision: str | None = None) -> ScoreFn:
        """The score in model range as trained, of a chain's levels if it is of these; otherwise as `ode_score_fn`."""
        return self._score(self.objective.with_params(params).levels, params, classes, precision)

    def ode_score_fn(self, params: PyTree, classes: Labels | None = None, *, precision: str | None = None) -> ScoreFn:
        """The score in model range at any t.

        A VP network trained at discrete times has one: its labels t (N - 1) mean any t.
        classes, precision: as in `network_fn`.
        """
        if self.objective.parameterization.noise_cond == "level_index":
            raise UsageError(
                "All samplers but pc, and likelihoods, need a score at every time, and this VE network was trained at "
                "discrete ones; set sampling.method=pc, and eval.enable_bpd and eval.enable_bound to False."
            )
        return self._score(self.objective.with_params(params).process, params, classes, precision)

    def model(
        self, params: PyTree, process: Process, *, classes: Labels | None = None, precision: str | None = None
    ) -> Model:
        """The predictions of x0 and eps in model range, under a process, or the levels of its chain."""
        network, centered = self.network_fn(params, classes=classes, precision=precision), self.config.data.centered
        return self.objective.parameterization.model(network, process, centered=centered)

    def _score(self, process: Process, params: PyTree, classes: Labels | None, precision: str | None) -> ScoreFn:
        model = self.model(params, process, classes=classes, precision=precision)
        return lambda x, t: score(process, model(x, t), t)

    def network_fn(
        self,
        params: PyTree,
        *,
        classes: Labels | None = None,
        dropout_keys: Keys | None = None,
        precision: str | None = None,
    ) -> Network:
        """The network as a function of image and noise condition, told these classes.

        classes: num_classes, or None for all, is no class. dropout_keys: given in training, one an image.
        precision: default `eval.precision`, or `training.precision` in training.
        """
        if classes is not None and not self.num_classes:
            raise UsageError("This network has no classes; train one with model.num_classes set.")
        if classes is None:
            self.check_without_class()
        told = {} if classes is None else {"classes": classes}
        compute = PRECISIONS[precision] if precision else self.compute(training=dropout_keys is not None)
        variables = {"params": network_params(params)}
        return lambda x, label: compute.apply(self.network, variables, x, label, dropout_keys, **told)

    def loss(
        self,
        params: PyTree,
        keys: Keys,
        x: Images,
        labels: Labels | None = None,
        *,
        training: bool = False,
    ) -> PerSample:
        """Denoising score matching loss of images in [0, 1], each perturbed by its own key.

        training: with dropout, and a label is no class with probability `training.label_dropout`.
        """
        x0 = self.scaling.to_model(x)
        t, eps = self.draw(keys, x0)
        output, _ = self._outputs(params, keys, x0, t, eps, labels, training)
        return self.objective.with_params(params).loss(output, x0, t, eps)

    def _outputs(
        self,
        params: PyTree,
        keys: Keys,
        x0: Images,
        t: Times,
        eps: Images,
        labels: Labels | None,
        training: bool,
    ) -> tuple[Images, Images]:
        """What the network returns at x_t, and x_t."""
        if labels is not None and training:
            dropped = uniform(stream(keys, Stream.LABEL)) < self.config.training.label_dropout
            labels = jnp.where(dropped, self.num_classes, labels)
        dropout_keys = stream(keys, Stream.DROPOUT) if training else None
        objective, network = (
            self.objective.with_params(params),
            self.network_fn(params, classes=labels, dropout_keys=dropout_keys),
        )
        x = objective.perturb(x0, t, eps)
        outputs = objective.parameterization.outputs(network, objective.levels, centered=self.config.data.centered)
        return outputs(x, t), x

    def _evaluation(self, params: PyTree, keys: Keys, x: Images, labels: Labels | None) -> dict[str, PerSample]:
        """The loss; and of each image t, |predicted|^2 and <predicted, eps>, from which `averages` takes sizes."""
        x0 = self.scaling.to_model(x)
        t, eps = self.draw(keys, x0)
        output, x = self._outputs(params, keys, x0, t, eps, labels, training=False)
        objective = self.objective.with_params(params)
        predicted = objective.parameterization.predict(objective.levels, x, output, t).eps
        axes = tuple(range(1, x0.ndim))
        square, along = jnp.mean(jnp.square(predicted), axes), jnp.mean(predicted * eps, axes)
        return {"loss": objective.loss(output, x0, t, eps), "t": t, "square": square, "along": along}

    def prior(self, keys: Keys) -> Images:
        """x_T for each key, where the sampler starts: `sampling.temperature` times a sample of the prior."""
        x = self.sampling_sde.prior_sample(stream(keys, Stream.PRIOR), self.image_shape)
        return self.config.sampling.temperature * x

    def sampler(self, params: PyTree, method: str | None = None, *, classes: Labels | None = None) -> Solver:
        """The solver of config.sampling, or the given method with its options. classes: of the samples, if any."""
        method, _ = self.sampler_options(method)
        return self.sampler_of(self.score_fn_of(params, method, classes), method)

    def sampler_of(self, score_fn: ScoreFn, method: str, **hooks: Any) -> Solver:
        """The solver of a method with its options in config.sampling, for any score. hooks: `project`."""
        method, options = self.sampler_options(method)
        return SAMPLERS[method](self.sde_of(method), score_fn, **options, **hooks)

    def sde_of(self, method: str) -> Process:
        """The SDE that a method solves: pc with the sampler's own number of steps."""
        return self.sampling_sde if method == "pc" else self.sde

    def score_fn_of(self, params: PyTree, method: str, classes: Array | None = None) -> ScoreFn:
        """The score that a method takes; all but pc need it at any t. classes: of a network that takes them."""
        score_fn = self.score_fn if method == "pc" else self.ode_score_fn
        return score_fn(params, classes=classes, precision=self.config.sampling.precision)

    def sampler_options(self, method: str | None = None) -> tuple[str, dict[str, Any]]:
        """The method of `sampler`, and those of config.sampling that it takes."""
        sampling = self.config.sampling
        method = one_of("sampling.method", (method or sampling.method).lower(), SAMPLERS)
        common = dict(eps=sampling.eps, noise_removal=sampling.noise_removal)
        if sampling.batch_size == 0 and method == "pc" and sampling.corrector.lower() == "langevin":
            raise UsageError(
                "The paper's Langevin corrector couples the samples of a batch, so how many there is room for would "
                "change them; set sampling.batch_size, or sampling.corrector=langevin_per_sample."
            )
        if method in ("ode", "adaptive") and sampling.precision == "bfloat16":
            raise UsageError(
                f"sampling.method={method} chooses its steps by errors that bfloat16 does not resolve; set "
                "sampling.precision to tf32 or float32, or choose a method of fixed steps."
            )
        if method == "pc":
            options = dict(
                predictor=sampling.predictor.lower(),
                corrector=sampling.corrector.lower(),
                snr=sampling.snr,
                n_steps_each=sampling.n_steps_each,
                probability_flow=sampling.probability_flow,
            )
        elif method == "ode":
            options = dict(rtol=sampling.rtol, atol=sampling.atol)
        elif method == "adaptive":
            one_level = self.scaling.scale / 256
            options = dict(rtol=sampling.sde_rtol, atol=one_level if sampling.sde_atol is None else sampling.sde_atol)
        else:
            options = {key: sampling[key] for key in FAST_OPTIONS}
        return method, options | common

    def bits_per_dim(self, params: PyTree) -> Solver:
        """The solver for bits/dim of the density in model range, at points that `dequantization` gives."""
        options = self.config.eval
        return likelihood.bits_per_dim(
            self.sde,
            self.ode_score_fn(params),
            offset_bits=0,  # it is log q's
            divergence=options.hutchinson_type.lower(),
            num_probes=options.num_probes,
            rtol=options.rtol,
            atol=options.atol,
            eps=self.dequantization().eps,
        )

    def bound(self, params: PyTree) -> Bound:
        """The upper bound on bits/dim of the density in model range."""
        if self.dequantization_name == "truncated_normal":
            raise UsageError(
                "The bound is one of a density at time 0, and truncated-normal dequantisation gives points at a later "
                "one; set eval.dequantization to uniform or variational, or eval.enable_bound=False."
            )
        return likelihood_bound(self.sde, self.ode_score_fn(params), num_times=self.config.eval.bound_num_times)

    @property
    def dequantization_name(self) -> str:
        return self.config.eval.dequantization.lower()

    def dequantization(self, dequantizer: Callable = dequantization.unlearned) -> Dequantization:
        """That of config.eval. dequantizer: the network of the variational one, as a function of images."""
        if self.dequantization_name == "truncated_normal":
            seen = self.config.data.uniform_dequantization
            return dequantization.truncated_normal(self.sde, self.scaling, dequantized=seen)
        if self.dequantization_name == "variational":
            return dequantization.variational(self.scaling, dequantizer)
        return dequantization.uniform(self.scaling)

    def transport(self, params: PyTree, *, encode: bool) -> Solver:
        """The probability-flow ODE between images in model range, at LEAST_TIME, and latents; either way."""
        sampling, score_fn = self.config.sampling, self.ode_score_fn(params)
        options = dict(rtol=sampling.rtol, atol=sampling.atol, eps=LEAST_TIME, noise_removal=False)
        return probability_flow(self.sde, score_fn, encode=encode, **options)


class Dequantizing:
    """The variational dequantisation of an experiment, as functions of its network's parameters.

    options: the section `dequantizer` of a config.
    """

    def __init__(self, experiment: Experiment, options: Mapping[str, Any]):
        for key in ("batch_size", "n_iters", "lr", "num_times", "log_freq", "snapshot_freq"):
            check_positive(f"dequantizer.{key}", options.get(key, 1))
        experiment.ode_score_fn(experiment.param_shapes)  # what the SDE lacks is said now
        self.experiment, self.options = experiment, options
        self.network = Dequantizer(nf=options["nf"], num_res_blocks=options["num_res_blocks"])
        self.network.check()
        self.optimizer = adam(
            lr=options["lr"], beta1=0.9, eps=1e-8, weight_decay=0.0, warmup=100, grad_clip=1.0, trainable=True
        )

    def init_state(self) -> TrainState:
        key = stream(stream(jax.random.key(self.experiment.config.seed), Stream.DEQUANTIZER), Stream.INIT)
        params = self.network.init(key, jnp.zeros((1, *self.experiment.image_shape), jnp.float32))["params"]
        return initial_state(params, self.optimizer)

    def network_fn(self, params: PyTree) -> Callable:
        """What `Experiment.dequantization` takes."""
        return lambda x: self.network.apply({"params": params}, x)

    def loss(self, params: PyTree, score_params: PyTree, keys: Keys, x: Images) -> PerSample:
        """The upper bound on bits/dim of images in [0, 1], by which ScoreFlow too trains its dequantizer."""
        sde, score_fn = self.experiment.sde, self.experiment.ode_score_fn(score_params)
        q = dequantization.variational(self.experiment.scaling, self.network_fn(params))
        y, log_q = q.sample(stream(keys, Stream.DEQUANTIZE), x)
        return likelihood_bound(sde, score_fn, num_times=self.options["num_times"])(keys, y) + log_q


def trainable(config: ConfigDict) -> Experiment | Classification:
    """What the config's network is: of a score, or a classifier."""
    return (Classification if config.model.name in CLASSIFIERS else Experiment)(config)


def parameter_counts(shapes: PyTree) -> tuple[int, int]:
    """(trainable, total) numbers in a parameter tree."""
    leaves = traverse_util.flatten_dict(shapes)
    trainable = sum(leaf.size for path, leaf in leaves.items() if is_trainable(path))
    return trainable, sum(leaf.size for leaf in leaves.values())
