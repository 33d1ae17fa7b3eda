"""A language model as the beam search sees it.

The prompt is prefilled once a user and its keys and values are shared by the user's beams. Every token that a beam
writes is appended to the user's *slots*; a beam is the set of slots on its path. So nothing in the cache is ever moved:
when beams are reordered, only their path masks are.
"""

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float

from igd_jax.core.types import Batch
from igd_jax.decoding.beam_search import Beams, Children, Scorer
from igd_jax.models.decoder import Decoder, KVCache
from igd_jax.models.layers import causal_mask, positions_of


@struct.dataclass
class SlotCache:
    """Keys and values of the prompt and of every token written so far.

    Attributes:
      kv: [L B S + slots G H]; the prompt first.
      prompt_mask: real prompt tokens.
      path: the slots on each beam's path.
    """

    kv: KVCache
    prompt_mask: Bool[Array, "B S"]
    path: Bool[Array, "B K slots"]


def lm_scorer(model: Decoder, batch: Batch, *, num_beams: int, max_length: int) -> Scorer:
    """Score children by the model's log-probability over its whole vocabulary, in float32.

    Args:
      batch: `prompt` and `prompt_mask`, left-padded; see `core.types.Batch`.
      num_beams: K, and so K slots for each token that is fed back.
      max_length: longest title in tokens; the last one is never fed back.
    """
    prompt, prompt_mask = batch["prompt"], batch["prompt_mask"]
    n_rows, width = prompt.shape
    length = prompt_mask.sum(axis=1, dtype=jnp.int32)
    n_slots = num_beams * (max_length - 1)

    def start(children: Children) -> tuple[SlotCache, Float[Array, "B 1 C"]]:
        hidden, kv = model(prompt, positions=positions_of(prompt_mask), mask=causal_mask(prompt_mask))
        kv = jax.tree.map(lambda x: jnp.pad(x, ((0, 0), (0, 0), (0, n_slots), (0, 0), (0, 0))), kv)
        path = jnp.zeros((n_rows, num_beams, n_slots), bool)
        return SlotCache(kv, prompt_mask, path), _child_logp(model, hidden[:, -1:], children)

    def step(cache: SlotCache, beams: Beams, children: Children) -> tuple[SlotCache, Float[Array, "B K C"]]:
        path = jnp.take_along_axis(cache.path, beams.parent[:, :, None], axis=1)
        seen = jnp.broadcast_to(cache.prompt_mask[:, None, :], (n_rows, num_beams, width))
        hidden, new = model(
            beams.token,
            positions=jnp.broadcast_to(length[:, None] + beams.clock - 1, beams.token.shape),
            mask=jnp.broadcast_to(jnp.eye(num_beams, dtype=bool), (n_rows, num_beams, num_beams)),
            cache=cache.kv,
            cache_mask=jnp.concatenate([seen, path], axis=2),
        )
        slot = (beams.clock - 1) * num_beams
        kv = jax.tree.map(
            lambda old, x: jax.lax.dynamic_update_slice_in_dim(old, x, width + slot, axis=2), cache.kv, new
        )
        own = jnp.arange(n_slots)[None, None] == (slot + jnp.arange(num_beams))[None, :, None]
        return SlotCache(kv, cache.prompt_mask, path | own), _child_logp(model, hidden, children)

    return Scorer(start, step)


def _child_logp(model: Decoder, hidden: Float[Array, "B K D"], children: Children) -> Float[Array, "B K C"]:
    """Natural log-probability of each child's token."""
    logits = model.logits(hidden)
    total = jax.nn.logsumexp(logits, axis=-1, keepdims=True)
    return jnp.take_along_axis(logits, children.token, axis=-1) - total
