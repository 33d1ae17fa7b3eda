"""The loss of a head alone, of whose targets few are taken at a time where a test says so."""

import jax
import jax.numpy as jnp

from igd_jax.core.sharding import TENSOR, keep_rows
from igd_jax.core.types import LossSum
from igd_jax.models.products import product
from igd_jax.training.loss import over_targets, weighted_cross_entropy


def loss_of_head(head: jax.Array, hidden: jax.Array, target: jax.Array, weight: jax.Array) -> jax.Array:
    """Loss of bfloat16 states and the head of a backbone."""

    def logits(x: jax.Array) -> jax.Array:
        flat = product(x.reshape(-1, x.shape[-1]), head.T, jnp.float32)
        return keep_rows(flat.reshape(*x.shape[:-1], -1), last=TENSOR)

    def of_logits(logits: jax.Array, arrays: tuple[jax.Array, jax.Array]) -> LossSum:
        return weighted_cross_entropy(logits, *arrays, parts={})

    return over_targets(logits, [hidden], (target, weight), of_logits).loss
