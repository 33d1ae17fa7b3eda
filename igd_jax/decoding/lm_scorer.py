"""A language model as the beam search sees it.

The prompt is prefilled once a user and its keys and values are shared by the user's beams. Every token that a beam
writes is appended to the user's *slots*; a beam is the set of slots on its path. So nothing in the cache is ever moved:
when beams are reordered, only their path masks are.
"""

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from igd_jax.core.types import Batch
from igd_jax.decoding.beam_search import Beams, Scorer
from igd_jax.decoding.device_trie import Children
from igd_jax.models.decoder import Decoder, KVCache


@struct.dataclass
class SlotCache:
    """Keys and values of the prompt and of every token written so far.

    Attributes:
      prompt: [L B G S H], header included.
      prompt_mask: its real tokens.
      slots: [L B G slots H].
      path: the slots on each beam's path.
    """

    prompt: KVCache
    prompt_mask: Bool[Array, "B S"]
    slots: KVCache
    path: Bool[Array, "B K slots"]


def lm_scorer(model: Decoder, batch: Batch, *, num_beams: int, temperature: Float[Array, ""] | float = 1.0) -> Scorer:
    """Score children by the model's log-probability over its whole vocabulary, in float32.

    Args:
      batch: `header`, `prompt` and `prompt_mask`; see `core.types.Batch`.
      num_beams: K, and so K slots for each token that is fed back.
      temperature: divides logits before they are normalised (the search divides log-probabilities after it).
    """

    def start(children: Children) -> tuple[SlotCache, Float[Array, "B 1 C"]]:
        cache, hidden = read_prompt(model, batch, num_beams=num_beams)
        return cache, _child_logp(model, hidden, children, temperature)

    def step(cache: SlotCache, beams: Beams, children: Children) -> tuple[SlotCache, Float[Array, "B K C"]]:
        cache, hidden = read_beams(model, cache, beams)
        return cache, _child_logp(model, hidden, children, temperature)

    return Scorer(start, step, reserve)


def read_prompt(model: Decoder, batch: Batch, *, num_beams: int) -> tuple[SlotCache, Float[Array, "B 1 D"]]:
    """A cache without slots, and the hidden state of each prompt's last token."""
    header, prompt_mask = batch.get("header"), batch["prompt_mask"]
    hidden, kv = model.after_prefix(header, batch["prompt"], prompt_mask)
    if header is not None:
        prompt_mask = jnp.concatenate([jnp.ones(header.shape, bool), prompt_mask], axis=1)
    slots = jax.tree.map(lambda x: x[..., :0, :], kv)
    return SlotCache(kv, prompt_mask, slots, jnp.zeros((len(prompt_mask), num_beams, 0), bool)), hidden[:, -1:]


def reserve(cache: SlotCache, length: int) -> SlotCache:
    """Room for texts of `length` tokens: the last is never fed back.

    There is room for one step at least, which is compiled also where no text has a second token.
    """
    _, num_beams, slots = cache.path.shape
    more = num_beams * max(length - 1, 1) - slots
    slots = jax.tree.map(lambda x: jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, more), (0, 0))), cache.slots)
    return SlotCache(cache.prompt, cache.prompt_mask, slots, jnp.pad(cache.path, ((0, 0), (0, 0), (0, more))))


def first_slot(clock: Int[Array, ""], num_beams: int) -> Int[Array, ""]:
    """The slot of beam 0 when `clock` tokens are written; those of the other beams follow."""
    return (clock - 1) * num_beams


def read_beams(model: Decoder, cache: SlotCache, beams: Beams) -> tuple[SlotCache, Float[Array, "B K D"]]:
    """Feed each beam's last token into its slot; returns the cache and the tokens' hidden states."""
    (n_rows, num_beams), width = beams.token.shape, cache.prompt_mask.shape[1]
    path = jnp.take_along_axis(cache.path, beams.parent[:, :, None], axis=1)
    seen = jnp.broadcast_to(cache.prompt_mask[:, None, :], (n_rows, num_beams, width))
    n_before = cache.prompt_mask.sum(axis=1, dtype=jnp.int32) + beams.clock - 1
    hidden, new = model(
        beams.token,
        positions=jnp.broadcast_to(n_before[:, None], beams.token.shape),
        mask=jnp.broadcast_to(jnp.eye(num_beams, dtype=bool), (n_rows, num_beams, num_beams)),
        past=[(cache.prompt, seen), (cache.slots, path)],
    )
    slot = first_slot(beams.clock, num_beams)
    slots = jax.tree.map(lambda old, x: jax.lax.dynamic_update_slice_in_dim(old, x, slot, axis=3), cache.slots, new)
    own = jnp.arange(path.shape[2])[None, None] == (slot + jnp.arange(num_beams))[None, :, None]
    return SlotCache(cache.prompt, cache.prompt_mask, slots, path | own), hidden


def _child_logp(
    model: Decoder, hidden: Float[Array, "B K D"], children: Children, temperature: Float[Array, ""] | float
) -> Float[Array, "B K C"]:
    """Natural log-probability of each child's token."""
    logits = model.logits(hidden) / temperature
    total = jax.nn.logsumexp(logits, axis=-1, keepdims=True)
    return jnp.take_along_axis(logits, children.token, axis=-1) - total
