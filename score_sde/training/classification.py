"""The noise-conditional classifier of a config (paper, appendix I.1)."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import optax

from score_sde import images
from score_sde.array_types import Array, Float, Keys, Labels, ModelImages, PerSample, Pixels, PyTree, Times, UnitImages
from score_sde.cond import Cond, Entries, Entry
from score_sde.config import Config, check
from score_sde.errors import UsageError
from score_sde.models import CLASSIFIERS, MODELS
from score_sde.objective import Objective
from score_sde.parameterization import Noise
from score_sde.randomness import expand
from score_sde.training.recipe import process_of, times_of
from score_sde.training.trainable import Trainable
from score_sde.weights import NoiseWeight


class Classification(Trainable):
    """The noise-conditional classifier of a config, and its loss, as functions of parameters."""

    def __init__(self, config: Config, objective: Objective | None = None, network: Any = None, **of_images: Any):
        """Takes objective, network, `image_shape` and `scaling` from the config, unless they are given."""
        if config.model.name in MODELS and network is None:
            raise UsageError(f"model.name={config.model.name} is no classifier; these are: {', '.join(CLASSIFIERS)}.")
        check(config)
        if not config.training.continuous:
            raise UsageError("A classifier is trained at all times; set training.continuous=True.")
        if config.training.likelihood_weighting:
            raise UsageError("A classifier's loss has no weights; set training.likelihood_weighting=False.")
        if config.training.coupling != "independent":
            raise UsageError("A classifier sees images with noise of their own; set training.coupling=independent.")
        for section in ("parameterization", "weight"):
            if config[section].name:
                raise UsageError(f"A classifier's loss is its own and has no {section}; unset {section}.name.")
        process = process_of(config) if objective is None else objective.process
        if process.begins_in_noise:
            raise UsageError("A classifier sees x_t / alpha, and alpha(1) is 0; choose a process like vp.")
        if process.learned:
            raise UsageError("A classifier's loss teaches no schedule; choose a process without parameters, like vp.")
        objective = objective or Objective(process, Noise(), times_of(config), NoiseWeight())
        super().__init__(config, CLASSIFIERS, objective, network, **of_images)

    @property
    def cond_entries(self) -> Entries:
        """The condition: the labels that a classifier learns to predict."""
        return {"labels": Entry(jnp.int32, below=self.network.num_outputs)}

    def logits_fn(self, params: PyTree, training: bool = False) -> Callable[[ModelImages, Times], Float[Array, "b k"]]:
        """The function from x in model range and t to logits.

        The network gets x / alpha in [0, 1] units, so plus noise.
        """

        compute = self.compute(training)

        def logits(x: ModelImages, t: Times) -> Float[Array, "b k"]:
            x = self.scaling.to_unit(x / expand(self.sde.alpha(t), x))
            return compute.apply(self.network, {"params": params}, x, self.noise_level(t))

        return logits

    def noise_level(self, t: Times) -> PerSample:
        """The standard deviation of the noise on an image in [0, 1]."""
        return self.sde.noise_level(t) / self.scaling.scale

    def loss(
        self, params: PyTree, keys: Keys, x: UnitImages, cond: Cond | None = None, *, training: bool = False
    ) -> PerSample:
        """Cross-entropy of the labels at x_t, in nats, with uniform t and equal weights (paper, appendix I.1).

        cond: holds "labels". The network has no dropout.
        """
        x0 = self.scaling.to_model(x)
        t, z = self.draw(keys, x0)
        logits = self.logits_fn(params, training)(self.objective.perturb(x0, t, z), t)
        return optax.softmax_cross_entropy_with_integer_labels(logits, cond["labels"])

    def hits(self, params: PyTree, keys: Keys, pixels: Pixels, labels: Labels, t: Times) -> PerSample:
        """Indicator for each image: 1 if its label is the likeliest class at x_t, else 0."""
        x0 = self.scaling.to_model(self._dequantize(keys, images.to_unit(pixels)))
        _, z = self.draw(keys, x0)
        logits = self.logits_fn(params)(self.objective.perturb(x0, t, z), t)
        return (jnp.argmax(logits, axis=1) == labels).astype(jnp.float32)
