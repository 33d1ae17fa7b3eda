"""Training states made by hand, and what a folder of checkpoints gives back."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from igd_jax.training.checkpoint import Checkpoints
from igd_jax.training.step import TrainState, init_state

OPTIMIZER = optax.adamw(1e-3)
NEWEST = {"worse": 1, "best_loss": 2.5, "best_step": 4, "fingerprint": "x"}


def state_of(step: int) -> TrainState:
    """A state whose every leaf is its own, at `step` updates."""
    params = {"w": jnp.zeros((3, 2)), "half": jnp.zeros(4, jnp.bfloat16)}
    state = init_state(params, OPTIMIZER, {"tau": jnp.float32(0)})
    leaves, tree = jax.tree.flatten(state)
    leaves = [jnp.full_like(leaf, i + step) for i, leaf in enumerate(leaves)]
    state = jax.tree.unflatten(tree, leaves)
    return TrainState(state.params, state.opt_state, state.loss_state, jnp.int32(step))


def last_of(folder):
    """The last state, or None."""
    checkpoints = Checkpoints(folder)
    found = checkpoints.restore_last(state_of(0))
    checkpoints.close()
    return None if found is None else found[0]


def best_of(folder):
    checkpoints = Checkpoints(folder)
    try:
        return checkpoints.restore_best(state_of(0).params)
    finally:
        checkpoints.close()


def names_in(folder):
    return {path.name for path in folder.iterdir()}


def assert_same(ours, theirs):
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
