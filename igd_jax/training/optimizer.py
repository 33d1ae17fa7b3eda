"""AdamW with warm-up, a schedule and clipping: the recipe of the published runs (docs/methods.md, Published recipe).

A bfloat16 number has 8 significant bits, so a weight near 1 does not feel an update below 0.002, and a second moment
that should shrink by a thousandth per step does not shrink at all. `BFLOAT16` names the ways to train such weights;
float32 weights are trained alike in all of them.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, Key, PyTree

SCHEDULES = ("linear", "cosine", "constant")
BFLOAT16 = ("master", "stochastic", "pure")
"""How bfloat16 weights are updated: from a float32 copy; by rounding at random; or in bfloat16 alone, as published."""


def sum_dtype(bfloat16: str) -> DTypeLike | None:
    """Dtype in which gradients are added up, by one of `BFLOAT16`; None = that of each weight."""
    return None if bfloat16 == "pure" else jnp.float32


def make_schedule(name: str, *, learning_rate: float, warmup_steps: int, num_steps: int) -> optax.Schedule:
    """Learning rate by number of updates: linear warm-up from 0, then one of `SCHEDULES`, down to 0 or constant."""
    after = max(num_steps - warmup_steps, 1)
    decay = {
        "linear": optax.linear_schedule(learning_rate, 0.0, after),
        "cosine": optax.cosine_decay_schedule(learning_rate, after),
        "constant": optax.constant_schedule(learning_rate),
    }[name]
    return optax.join_schedules([optax.linear_schedule(0.0, learning_rate, warmup_steps), decay], [warmup_steps])


def make_optimizer(
    schedule: optax.Schedule, *, clip_norm: float, weight_decay: float, bfloat16: str = "master", seed: int = 0
) -> optax.GradientTransformation:
    """AdamW (0.9, 0.999, 1e-8) after clipping by the global norm.

    Args:
      schedule: learning rate by number of updates.
      clip_norm: largest global norm of gradients.
      weight_decay: decoupled decay, times the rate.
      bfloat16: one of `BFLOAT16`. Unless it is ``pure``, moments and updates are float32.
      seed: seed of rounding at random.
    """
    adamw = optax.chain(
        optax.clip_by_global_norm(clip_norm),
        optax.adamw(schedule, b1=0.9, b2=0.999, eps=1e-8, weight_decay=weight_decay),
    )
    if bfloat16 == "pure":
        return adamw
    narrow = with_master(adamw) if bfloat16 == "master" else rounding_at_random(adamw, seed=seed)

    def chosen(params: PyTree) -> optax.GradientTransformation:
        return narrow if any(map(is_narrow, jax.tree.leaves(params))) else adamw

    return optax.GradientTransformation(
        lambda params: chosen(params).init(params),
        lambda grads, state, params: chosen(params).update(grads, state, params),
    )


class MasterState(NamedTuple):
    """State of `with_master`.

    Attributes:
      inner: state of the optimizer, float32.
      masters: float32 copies of the bfloat16 weights, with their paths; None in the place of float32 weights.
    """

    inner: optax.OptState
    masters: PyTree


def with_master(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    """Update float32 copies of bfloat16 weights, which become the copies' nearest bfloat16 numbers.

    Updates are float32, and so is their sum with a bfloat16 weight, which `optax.apply_updates` rounds once.
    """

    def masters_of(params: PyTree, wide: PyTree) -> PyTree:
        return jax.tree.map(lambda weight, master: master if is_narrow(weight) else None, params, wide)

    def init(params: PyTree) -> MasterState:
        wide = optax.tree.cast(params, jnp.float32)
        return MasterState(optimizer.init(wide), masters_of(params, wide))

    def update(grads: PyTree, state: MasterState, params: PyTree) -> tuple[PyTree, MasterState]:
        wide = jax.tree.map(lambda weight, master: master if is_narrow(weight) else weight, params, state.masters)
        updates, inner = optimizer.update(grads, state.inner, wide)
        new = optax.apply_updates(wide, updates)
        updates = jax.tree.map(
            lambda weight, master, update: master - weight.astype(master.dtype) if is_narrow(weight) else update,
            params,
            new,
            updates,
        )
        return updates, MasterState(inner, masters_of(params, new))

    return optax.GradientTransformation(init, update)


class RoundingState(NamedTuple):
    """State of `rounding_at_random`.

    Attributes:
      inner: state of the optimizer, float32.
      n_updates: number of updates made.
    """

    inner: optax.OptState
    n_updates: Int[Array, ""]


def rounding_at_random(optimizer: optax.GradientTransformation, *, seed: int) -> optax.GradientTransformation:
    """Round updated bfloat16 weights at random, so that they follow small updates on average.

    Draws are a function of the seed, the number of updates made and the number of the leaf.
    """

    def init(params: PyTree) -> RoundingState:
        return RoundingState(optimizer.init(optax.tree.cast(params, jnp.float32)), jnp.int32(0))

    def update(grads: PyTree, state: RoundingState, params: PyTree) -> tuple[PyTree, RoundingState]:
        wide = optax.tree.cast(params, jnp.float32)
        updates, inner = optimizer.update(grads, state.inner, wide)
        key = jax.random.fold_in(jax.random.key(seed), state.n_updates)
        leaves, tree = jax.tree.flatten(params)
        keys = jax.tree.unflatten(tree, list(jax.random.split(key, len(leaves))))

        def rounded(weight: Array, wide: Array, update: Array, key: Key[Array, ""]) -> Array:
            if not is_narrow(weight):
                return update
            return round_at_random(wide + update, key).astype(jnp.float32) - wide

        return jax.tree.map(rounded, params, wide, updates, keys), RoundingState(inner, state.n_updates + 1)

    return optax.GradientTransformation(init, update)


def round_at_random(x: Float[Array, "*shape"], key: Key[Array, ""]) -> Float[Array, "*shape"]:
    """One of the two bfloat16 neighbours of each float32 number, the nearer one more often: its mean is the number."""
    bits = jax.lax.bitcast_convert_type(x, jnp.uint32) + jax.random.bits(key, x.shape, jnp.uint16).astype(jnp.uint32)
    return jax.lax.bitcast_convert_type(bits & jnp.uint32(0xFFFF0000), jnp.float32).astype(jnp.bfloat16)


def is_narrow(weight: Array) -> bool:
    """Whether a weight has fewer bits than float32."""
    return weight.dtype.itemsize < 4
