"""The training state and its update. The state consists of arrays only, and is exactly what a checkpoint holds."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from score_sde import ema
from score_sde.array_types import Array, Int, PyTree


class TrainState(NamedTuple):
    step: Int[Array, ""]  # updates made
    params: PyTree
    opt_state: PyTree
    ema_params: PyTree  # the average, or several: see `score_sde.ema`


ONE_AVERAGE = (ema.Ramp(0.999),)


def initial_state(
    params: PyTree, optimizer: optax.GradientTransformation, profiles: ema.Profiles = ONE_AVERAGE
) -> TrainState:
    """The state before the first update; the average of each profile starts at the initial parameters."""
    return TrainState(jnp.int32(0), params, optimizer.init(params), ema.initial(profiles, params))


def adam(
    *, lr: float, beta1: float, eps: float, weight_decay: float, warmup: int, grad_clip: float, trainable: PyTree
) -> optax.GradientTransformation:
    """The paper's optimizer: clip by global norm, Adam (beta2 0.999), decoupled weight decay, linear warm-up.

    The rate is lr min(step / warmup, 1), where step counts the updates before, so the first update has rate 0.
    grad_clip < 0 turns clipping off; the parameters of `process` are clipped separately. trainable: tree of booleans,
    the parameters to which weight decay applies.
    """

    # Not optax.linear_schedule, which is lr - lr (1 - step / warmup): 43 % of the rates of a warm-up of 5,000 updates
    # differ in their bits, the first by 1e-4 of itself.
    def schedule(step: Array) -> Array:
        return lr * jnp.minimum(step.astype(jnp.float32) / warmup, 1.0) if warmup > 0 else jnp.float32(lr)

    clip = _clip(grad_clip) if grad_clip >= 0 else optax.identity()
    return optax.chain(clip, optax.adamw(schedule, b1=beta1, eps=eps, weight_decay=weight_decay, mask=trainable))


def _clip(limit: float) -> optax.GradientTransformation:
    """Clips by global norm; the parameters of `process` separately, since their gradient is of the squared loss."""
    whole = optax.clip_by_global_norm(limit)

    def update(updates: PyTree, state: PyTree, params: PyTree = None) -> tuple[PyTree, PyTree]:
        if not (isinstance(updates, dict) and "process" in updates):
            return whole.update(updates, state, params)
        own = {"process": updates["process"]}
        network = {name: leaves for name, leaves in updates.items() if name not in own}
        return whole.update(network, state)[0] | whole.update(own, state)[0], state

    return optax.GradientTransformation(whole.init, update)


def apply_gradients(
    state: TrainState, loss: Array, grads: PyTree, optimizer: optax.GradientTransformation, profiles: ema.Profiles
) -> tuple[TrainState, Array]:
    """The state after one update of the parameters and then of the average of each profile; and the loss.

    Where the loss or the gradients are not finite, only the step is counted, and the loss is NaN.
    """
    # Not optax.apply_if_finite: it sees neither the loss nor the averages, which would still move; after some in a
    # row that are not finite it makes one, where `nan_guard` stops; and its counts would be new leaves of the state.
    params, opt_state = updated(state.params, state.opt_state, grads, optimizer)
    ema_params = ema.updated(profiles, state.ema_params, params, state.step + 1)
    advanced = TrainState(state.step + 1, params, opt_state, ema_params)
    finite = jnp.isfinite(loss) & jnp.isfinite(optax.tree.norm(grads))
    skipped = state._replace(step=state.step + 1)
    return jax.tree.map(lambda new, old: jnp.where(finite, new, old), advanced, skipped), jnp.where(
        finite, loss, jnp.nan
    )


def updated(
    params: PyTree, opt_state: PyTree, grads: PyTree, optimizer: optax.GradientTransformation
) -> tuple[PyTree, PyTree]:
    """The parameters and the optimizer's state after one update."""
    with jax.enable_x64(False):  # Adam's powers have JAX's default type, and 64 bits would change every update
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state
