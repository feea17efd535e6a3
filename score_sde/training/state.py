"""The training state and its update. The state consists of arrays only, and is exactly what a checkpoint holds."""

import functools
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from score_sde import ema
from score_sde.array_types import Array, Int, PyTree
from score_sde.config.arguments import check_arguments
from score_sde.errors import UsageError


class TrainState(NamedTuple):
    """State of a training, which its checkpoints hold."""

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


def average_part(profiles: ema.Profiles, profile: ema.Profile) -> str:
    """The name of an average among the parts of a saved state: "ema_params", or "ema_params/NAME" of several."""
    return f"ema_params/{profile.name}" if len(profiles) > 1 else "ema_params"


def misfit(params: PyTree, shapes: PyTree) -> tuple[str, Any, Any] | None:
    """The first leaf whose shape is another in `shapes`, with both shapes, None where there is no such leaf.

    None if all fit. params: arrays; shapes: arrays or shapes of them.
    """
    own, expected = (
        {jax.tree_util.keystr(path): np.shape(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
        for tree in (params, shapes)
    )
    for name in sorted(own.keys() | expected.keys()):
        if own.get(name) != expected.get(name):
            return name, own.get(name), expected.get(name)
    return None


@check_arguments
def adam(
    *,
    lr: Annotated[float, "(0, inf)"],
    beta1: Annotated[float, "[0, 1)"],
    eps: Annotated[float, "[1e-30, inf)"],
    weight_decay: Annotated[float, "[0, inf)"],
    warmup: Annotated[float, "[0, inf)"],
    grad_clip: Annotated[float, "(-inf, inf)"],
    trainable: PyTree,
    beta2: Annotated[float, "[0, 1)"] = 0.999,
    decay_after: Annotated[float, "[0, inf)"] = 0,
) -> optax.GradientTransformation:
    """The paper's optimizer: clip by global norm, Adam, decoupled weight decay, linear warm-up; and EDM2's decay.

    The rate is lr min(step / warmup, 1) / sqrt(max(step / decay_after, 1)), where step counts the updates before, so
    the first update of a warm-up has rate 0; decay_after=0 is no decay (Karras et al., 2024, eq. 15). warmup need not
    be whole: EDM's, of 10 million images, is 19,531.25 updates of 512. grad_clip < 0 turns clipping off; the parameters
    of `process` are clipped separately. trainable: tree of booleans, the parameters to which weight decay applies.
    Raises `UsageError` for numbers out of range, and for grad_clip=0.
    """
    if grad_clip == 0:
        raise UsageError("adam: grad_clip=0 clips every gradient to 0; a negative number turns clipping off.")

    # Not optax.linear_schedule, which is lr - lr (1 - step / warmup): 43 % of the rates of a warm-up of 5,000 updates
    # differ in their bits, the first by 1e-4 of itself.
    def schedule(step: Array) -> Array:
        step = step.astype(jnp.float32)
        rate = lr * jnp.minimum(step / warmup, 1.0) if warmup > 0 else jnp.float32(lr)
        return rate / jnp.sqrt(jnp.maximum(step / decay_after, 1.0)) if decay_after > 0 else rate

    clip = _clip(grad_clip) if grad_clip >= 0 else optax.identity()
    adamw = optax.adamw(schedule, b1=beta1, b2=beta2, eps=eps, weight_decay=weight_decay, mask=trainable)
    return optax.chain(clip, adamw)


def _clip(limit: float) -> optax.GradientTransformation:
    """Clips by global norm; the parameters of `process` separately, since their gradient is of the squared loss."""
    # Not optax.clip_by_global_norm, which sums each leaf by itself and divides it twice: more loops to compile and run.

    def clipped(updates: PyTree) -> PyTree:
        factor = limit / jnp.maximum(global_norm(updates), limit)
        return jax.tree.map(lambda leaf: factor.astype(leaf.dtype) * leaf, updates)

    def update(updates: PyTree, state: PyTree, params: PyTree = None) -> tuple[PyTree, PyTree]:
        if not (isinstance(updates, dict) and "process" in updates):
            return clipped(updates), state
        own = {"process": updates["process"]}
        network = {name: leaves for name, leaves in updates.items() if name not in own}
        return clipped(network) | clipped(own), state

    return optax.GradientTransformation(lambda _: optax.EmptyState(), update)


def global_norm(tree: PyTree) -> Array:
    """The norm of all numbers of a tree; vectors are joined first, since most leaves are short ones.

    tree: arrays of any shapes.

        import jax.numpy as jnp
        from score_sde.training.state import global_norm

        norm = global_norm({"a": jnp.array([3.0]), "b": jnp.array([[4.0]])})  # 5
    """
    leaves = jax.tree.leaves(tree)
    vectors = [jnp.concatenate([leaf.reshape(-1) for leaf in leaves if leaf.ndim <= 1] or [jnp.zeros(0)])]
    return jnp.sqrt(sum(jnp.sum(jnp.square(leaf)) for leaf in vectors + [each for each in leaves if each.ndim > 1]))


def apply_gradients(
    state: TrainState,
    loss: Array,
    grads: PyTree,
    optimizer: optax.GradientTransformation,
    profiles: ema.Profiles,
    normalized: Callable[[PyTree], PyTree] = lambda params: params,
) -> tuple[TrainState, Array]:
    """The state after one update of the parameters and then of the average of each profile; and the loss.

    normalized: applied to the parameters after the update, before the averages see them: `Trainable.normalized`. Where
    the loss or the gradients are not finite, only the step is counted, and the loss is NaN.
    """
    # Not optax.apply_if_finite: it sees neither the loss nor the averages, which would still move; after some in a
    # row that are not finite it makes one, where `nan_guard` stops; and its counts would be new leaves of the state.
    params, opt_state = updated(state.params, state.opt_state, grads, optimizer)
    params = normalized(params)
    ema_params = ema.updated(profiles, state.ema_params, params, state.step + 1)
    advanced = TrainState(state.step + 1, params, opt_state, ema_params)
    finite = jnp.isfinite(loss) & jnp.isfinite(global_norm(grads))
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


def _without_nans(infinity: float) -> Callable[[PyTree], PyTree]:
    """Gradients with 0 for each NaN, and with this number or its negative for infinities."""
    replaced = functools.partial(jnp.nan_to_num, nan=0.0, posinf=infinity, neginf=-infinity)
    return lambda grads: jax.tree.map(replaced, grads)


# Gradients as the update takes them, by optim.nan_gradients; those of `nonfinite` are left to training.nonfinite.
NAN_GRADIENTS: dict[str, Callable[[PyTree], PyTree]] = {
    "nonfinite": lambda grads: grads,
    "replace": _without_nans(1e5),  # EDM
    "zero": _without_nans(0.0),  # EDM2
}
