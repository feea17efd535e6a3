r"""What training minimises: an objective is a process, a parameterization, a law of times and a weight.

With x_t = alpha x_0 + sigma eps and the prediction (x_0^, eps^) of the network at x_t, the loss of an image is the mean
over t of the time law, and over its pixels, of

    w(t) |eps^ - eps|^2  =  w(t) (alpha / sigma)^2 |x_0^ - x_0|^2  =  w(t) (d eps / dF)^2 |F - target|^2.       (1)

Networks under any parameterization learn the same: with respect to x_0^ the gradients of two objectives differ by a
factor, the ratio of density(t) w(t) (Kingma and Gao, 2023). The loss is computed as on the right, by the error of what
the network returns: where alpha is small the others are differences of large numbers.

Times are no later than the process's noisiest time with a finite noise level, so that weights are finite where
alpha(1) = 0. Process and weight may own parameters, which are learned: they stand beside the network's layers in one
tree of parameters, under `process` and `weight`.

Recipes as rows are in the documentation; the paper's are: its SDEs, `noise` or `scaled_score`, `uniform` or `chain`,
`noise` or `likelihood`.
"""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from score_sde.array_types import Array, Images, Key, Keys, PerSample, PyTree, Times
from score_sde.parameterization import Network, Parameterization
from score_sde.process import Model, Process, before_noise
from score_sde.randomness import Stream, expand, normal, stream
from score_sde.times import TimeLaw
from score_sde.weights import Weight

OWNERS = ("process", "weight")  # names in a tree of parameters that are not the network's


@dataclasses.dataclass(frozen=True)
class Objective:
    """What a network is trained to do, and how it then predicts.

    Raises `UsageError` for parts that do not go together.

        objective = Objective(Linear(), Velocity(), LogitNormal(), VelocityWeight())
        t, eps = objective.draw(keys, x0.shape[1:])
        outputs = objective.parameterization.outputs(network, objective.levels)
        losses = objective.loss(outputs(objective.perturb(x0, t, eps), t), x0, t, eps)
    """

    process: Process
    parameterization: Parameterization
    times: TimeLaw
    weight: Weight

    def __post_init__(self):
        jax.eval_shape(self._factor, jax.ShapeDtypeStruct((1,), jnp.float32))  # raises for what is not defined

    @property
    def levels(self) -> Process:
        """The process whose alpha and sigma are trained on: the process, or the levels of its chain."""
        return self.times.levels(self.process)

    def draw(self, keys: Keys, shape: tuple[int, ...]) -> tuple[Times, Images]:
        """A time and standard normal noise of an image's shape for each key."""
        t = before_noise(self.levels, self.times.sample(self.process, stream(keys, Stream.TIME)))
        return t, normal(stream(keys, Stream.NOISE), shape)

    def perturb(self, x0: Images, t: Times, eps: Images) -> Images:
        """x_t = alpha x_0 + sigma eps."""
        levels = self.levels
        return expand(levels.alpha(t), x0) * x0 + expand(levels.sigma(t), eps) * eps

    def model(self, network: Network, *, centered: bool = True) -> Model:
        """The predictions of a network, under the process at any time. Of a chain's: `parameterization.model`."""
        return self.parameterization.model(network, self.process, centered=centered)

    def loss(self, output: Images, x0: Images, t: Times, eps: Images) -> PerSample:
        """The loss of each image, eq. (1). output: the network's, at `perturb(x0, t, eps)` and t."""
        squares = jnp.square(output - self.parameterization.target(self.levels, x0, eps, t))
        factor = self._factor(t)
        if factor.ndim == 1:  # after the pixels, of which there are more
            loss = self.weight.reduce(squares) * factor
        else:
            loss = self.weight.reduce(factor * squares)
        return self.weight.balanced(loss, self.levels, t, self.weight.reduce(jnp.ones_like(squares)))

    def _factor(self, t: Times) -> PerSample:
        """w(t) (d eps / dF)^2, the factor on the squared error of the network's output."""
        levels = self.levels
        return self.weight.on_noise(levels, t) * jnp.square(self.parameterization.noise_error(levels, t))

    def init_params(self, key: Key[Array, ""]) -> dict[str, PyTree]:
        """The parameters of process and weight, by the names in `OWNERS`, of those that have some."""
        owned = {"process": self.process.init_params(key), "weight": self.weight.init_params()}
        return {name: params for name, params in owned.items() if jax.tree.leaves(params)}

    def with_params(self, params: Mapping[str, PyTree]) -> "Objective":
        """The objective whose process and weight have their parameters in this tree, which also has the network's."""
        if not any(name in params for name in OWNERS):
            return self
        return dataclasses.replace(
            self,
            process=self.process.with_params(params["process"]) if "process" in params else self.process,
            weight=self.weight.with_params(params["weight"]) if "weight" in params else self.weight,
        )


def network_params(params: Mapping[str, PyTree]) -> dict[str, PyTree]:
    """The tree without what process and weight own."""
    return {name: leaves for name, leaves in params.items() if name not in OWNERS}
