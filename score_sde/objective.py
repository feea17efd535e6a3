r"""Training objectives: a process, a parameterization, a law of times and a weight.

With x_t = alpha x_0 + sigma eps and the network's prediction (x_0^, eps^) at x_t, the loss of an image is the mean,
over its pixels and over t from the time law, of

    w(t) |eps^ - eps|^2  =  w(t) (alpha / sigma)^2 |x_0^ - x_0|^2  =  w(t) (d eps / dF)^2 |F - target|^2.       (1)

Networks under any parameterization learn the same: with respect to x_0^ the gradients of two objectives differ only by
the ratio of their density(t) w(t) (Kingma and Gao, 2023). The loss is computed as on the right, from the error of the
network's output, because where alpha is small the other forms are differences of large numbers.

Training times are capped at the process's noisiest time, so that weights are finite where alpha(1) = 0. A process or
weight may own learned parameters; they stand beside the network's layers in one tree of parameters, under `process`
and `weight`.

The documentation has a table of published recipes. The paper's own combine its SDEs with `noise` or `scaled_score`,
`uniform` or `chain`, and `noise` or `likelihood`.
"""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from score_sde.array_types import Array, Key, Keys, ModelImages, PerSample, PyTree, Times
from score_sde.config.arguments import check_arguments
from score_sde.parameterization import Network, Parameterization
from score_sde.process import Model, Process, before_noise
from score_sde.randomness import Size, Stream, expand, normal, stream
from score_sde.times import TimeLaw
from score_sde.weights import Weight

OWNERS = ("process", "weight")  # names in a tree of parameters that are not the network's


@check_arguments
@dataclasses.dataclass(frozen=True)
class Objective:
    """A training objective: draws times and noise, perturbs images, and gives the loss of a network's outputs, eq. (1).

    Raises `UsageError` for parts that do not go together.

        import jax
        import jax.numpy as jnp
        from score_sde.objective import Objective
        from score_sde.parameterization import Velocity
        from score_sde.paths import Linear
        from score_sde.times import LogitNormal
        from score_sde.weights import VelocityWeight

        objective = Objective(Linear(), Velocity(), LogitNormal(), VelocityWeight())
        x0, keys = jnp.ones((4, 8, 8, 3)), jax.random.split(jax.random.key(0), 4)
        t, eps = objective.draw(keys, x0.shape[1:])
        outputs = objective.parameterization.outputs(lambda x, noise_cond: -x, objective.levels)  # of a network
        losses = objective.loss(outputs(objective.perturb(x0, t, eps), t), x0, t, eps)  # shape (4,)
    """

    process: Process
    parameterization: Parameterization
    times: TimeLaw
    weight: Weight

    def __post_init__(self):
        jax.eval_shape(self._factor, jax.ShapeDtypeStruct((1,), jnp.float32))  # raises for undefined combinations

    @property
    def levels(self) -> Process:
        """The process whose alpha and sigma are used in training: the process itself, or the levels of its chain."""
        return self.times.levels(self.process)

    @check_arguments
    def draw(
        self, keys: Keys, shape: tuple[Size, Size, Size], noise_keys: Keys | None = None
    ) -> tuple[Times, ModelImages]:
        """A time and standard normal noise for each key.

        keys: one for each image. shape: of one image, (h, w, c). noise_keys: those of the noise, default `keys`.
        """
        t = before_noise(self.levels, self.times.sample(self.process, stream(keys, Stream.TIME)))
        return t, normal(stream(keys if noise_keys is None else noise_keys, Stream.NOISE), shape)

    @check_arguments
    def perturb(self, x0: ModelImages, t: Times, eps: ModelImages) -> ModelImages:
        """Perturbed images x_t = alpha x_0 + sigma eps."""
        levels = self.levels
        return expand(levels.alpha(t), x0) * x0 + expand(levels.sigma(t), eps) * eps

    @check_arguments
    def model(self, network: Network, *, centered: bool = True) -> Model:
        """The model of a network under the process, at any time in (0, 1].

        For a network trained at the levels of a chain, `parameterization.model` with `levels` gives the model at these.
        """
        return self.parameterization.model(network, self.process, centered=centered)

    @check_arguments
    def loss(self, output: ModelImages, x0: ModelImages, t: Times, eps: ModelImages) -> PerSample:
        """The loss of each image, eq. (1), of shape (b,).

        output: the network's output at x_t = `perturb(x0, t, eps)` and t; x0, eps: images; t: (b,).
        """
        squares = jnp.square(output - self.parameterization.target(self.levels, x0, eps, t))
        factor = self._factor(t)
        if factor.ndim == 1:  # applied after the mean over pixels, which is cheaper
            loss = self.weight.reduce(squares) * factor
        else:
            loss = self.weight.reduce(factor * squares)
        return self.weight.balanced(loss, self.levels, t, self.weight.reduce(jnp.ones_like(squares)))

    def _factor(self, t: Times) -> PerSample:
        """The factor w(t) (d eps / dF)^2 on the squared error of the network's output."""
        levels = self.levels
        return self.weight.on_noise(levels, t) * jnp.square(self.parameterization.noise_error(levels, t))

    @check_arguments
    def init_params(self, key: Key[Array, ""]) -> dict[str, PyTree]:
        """Initial parameters of process and weight, under the names in `OWNERS`; an owner without any has no entry."""
        owned = {"process": self.process.init_params(key), "weight": self.weight.init_params()}
        return {name: params for name, params in owned.items() if jax.tree.leaves(params)}

    @check_arguments
    def with_params(self, params: Mapping[str, PyTree]) -> "Objective":
        """A copy whose process and weight take their parameters from this tree, which also holds the network's."""
        if not any(name in params for name in OWNERS):
            return self
        return dataclasses.replace(
            self,
            process=self.process.with_params(params["process"]) if "process" in params else self.process,
            weight=self.weight.with_params(params["weight"]) if "weight" in params else self.weight,
        )


@check_arguments
def network_params(params: Mapping[str, PyTree]) -> dict[str, PyTree]:
    """The network's own parameters: the tree without those of process and weight."""
    return {name: leaves for name, leaves in params.items() if name not in OWNERS}
