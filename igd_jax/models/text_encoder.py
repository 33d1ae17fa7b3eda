"""Texts as vectors: the last hidden states of a language model, pooled."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int

from igd_jax.models.decoder import Decoder
from igd_jax.models.sharding_rules import placed
from igd_jax.models.t5 import T5
from igd_jax.models.visibility import Causal, both_sides, positions_of


def text_reader(model: Decoder | T5, *, pooling: str, mesh: Mesh) -> Callable[[Any, Any], Array]:
    """A compiled function from ids and their mask [B T] to each row's last hidden states, pooled [B D], float32.

    A T5 reads the texts with its encoder.

    Args:
      model: the model.
      pooling: ``mean`` over the row's tokens, or ``last`` for its last token; zeros for rows without tokens.
      mesh: devices among which model and rows are split.
    """
    graph, state = nnx.split(model)
    held = placed(state, mesh)

    @jax.jit
    def run(state: Any, ids: Int[Array, "B T"], valid: Bool[Array, "B T"]) -> Float[Array, "B D"]:
        model = nnx.merge(graph, state)
        if isinstance(model, T5):
            hidden = model.encode(ids, positions=positions_of(valid), visible=both_sides(valid))
        else:
            hidden, _ = model(ids, positions=positions_of(valid), visible=Causal(valid))
        is_last = jnp.cumsum(valid, axis=1) == valid.sum(axis=1, keepdims=True)
        counted = valid & is_last if pooling == "last" else valid
        total = jnp.where(counted[..., None], hidden.astype(jnp.float32), 0.0).sum(axis=1)
        return total / jnp.maximum(counted.sum(axis=1), 1).astype(jnp.float32)[:, None]

    def read(ids: Any, valid: Any) -> Array:
        with jax.set_mesh(mesh):
            return run(held, ids, valid)

    return read
