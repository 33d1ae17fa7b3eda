"""Unconstrained beam search over the whole vocabulary, without a trie.

The recurrence, with its ties and its stop rule, is that of `decoding.recurrence`. Every token of the vocabulary is a
child, and token scores are plain log-probabilities (as in `generate` of transformers; docs/methods/bigrec.md):

    s' = s + logp(token) / temperature

Only the best 2K children of each beam can be among the best 2K overall.
"""

from collections.abc import Callable
from functools import partial
from typing import no_type_check

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int

from igd_jax.core.errors import InputError
from igd_jax.core.types import TextBatch
from igd_jax.decoding.recurrence import Edges, Hypotheses, SearchOptions, advance, root
from igd_jax.decoding.slots import SlotStore, empty_store, read_beams
from igd_jax.models.backbone import Backbone


@no_type_check  # as a pytree it also holds shapes or shardings
@struct.dataclass
class Texts:
    """Generated texts, best first.

    Attributes:
      tokens: ids of each text, EOS included, then zeros. A text that was cut at the length limit has no EOS.
      lengths: length of each text in tokens; 0 if there is none.
      scores: final scores (natural log, after the length penalty); -inf if there is no text.
    """

    tokens: Int[Array, "B K T"]
    lengths: Int[Array, "B K"]
    scores: Float[Array, "B K"]


@struct.dataclass
class Written:
    """The state between two steps.

    A text is identified by its last token and the slot of the token before, ``(slot + 1) * V + token``, with slot -1
    before the first token. The identities stored in the slots thus lead from the end of a text back to its start.

    Attributes:
      store: keys and values.
      hypotheses: beams and results; nodes are identities of texts.
      name: identity of the text that ends in each slot.
    """

    store: SlotStore
    hypotheses: Hypotheses
    name: Int[Array, "B slots"]


def unconstrained_search(
    model: Backbone,
    batch: TextBatch,
    options: SearchOptions,
    *,
    temperature: float | Float[Array, ""],
    eos: int,
    min_new_tokens: int = 0,
) -> Texts:
    """Generate K texts after each prompt, and none in rows that pad the batch.

    Args:
      model: the model.
      batch: prompts.
      options: number of beams, length limit and penalty.
      temperature: divisor of log-probabilities.
      eos: token at the end of a text.
      min_new_tokens: number of tokens that are written before EOS may be, unless the length limit is lower; as in
        `generate` of transformers, scores are not normalised again.

    Raises:
      InputError: identities of texts would exceed int32; raised at trace time.
    """
    prefix, hypotheses = model.prefill(batch), root(batch.is_real, num_beams=options.num_beams)
    store = empty_store(prefix, num_beams=options.num_beams, room=max(options.max_length - 1, 1))
    n_rows, _, n_slots = store.path.shape
    logits = model.logits(prefix.hidden[:, None])
    vocab_size = logits.shape[-1]
    if (n_slots + 1) * vocab_size > jnp.iinfo(jnp.int32).max:
        raise InputError(
            f"{options.num_beams} beams of {options.max_length} tokens over {vocab_size:,} ids are more than the free "
            "search can number; lower config.decode.max_new_tokens or the beams"
        )
    lengthen = partial(_lengthen, temperature=temperature, eos=eos, options=options, min_new_tokens=min_new_tokens)
    hypotheses = lengthen(hypotheses, logits, jnp.zeros_like(hypotheses.node))
    written = Written(store, hypotheses, jnp.zeros((n_rows, n_slots), jnp.int32))
    step = partial(_step, model=model, lengthen=lengthen)
    written = jax.lax.while_loop(lambda state: state.hypotheses.is_open.any(), step, written)
    return _read_back(written, vocab_size=vocab_size, max_length=options.max_length)


def _step(state: Written, model: Backbone, lengthen: Callable[..., Hypotheses]) -> Written:
    """Extend every running beam by one token."""
    hypotheses, slot = state.hypotheses, state.store.first_slot
    store, hidden = read_beams(model, state.store, hypotheses)
    name = jax.lax.dynamic_update_slice_in_dim(state.name, hypotheses.node, slot, axis=1)
    before = jnp.broadcast_to((slot + 1 + jnp.arange(hypotheses.node.shape[1]))[None], hypotheses.node.shape)
    return Written(store, lengthen(hypotheses, model.logits(hidden), before), name)


def _lengthen(
    hypotheses: Hypotheses,
    logits: Float[Array, "B K V"],
    before: Int[Array, "B K"],
    *,
    temperature: float | Float[Array, ""],
    eos: int,
    options: SearchOptions,
    min_new_tokens: int,
) -> Hypotheses:
    """Extend beams, given logits; `before` is the slot of the last token of each beam, plus 1."""
    vocab_size = logits.shape[-1]
    score = jax.nn.log_softmax(logits, axis=-1) / temperature
    is_early = (hypotheses.clock < min_new_tokens)[:, None, None] & (jnp.arange(vocab_size) == eos)[None, None]
    score = jnp.where(is_early, -jnp.inf, score)
    # Top-k of sums, not of token scores: sums may tie where token scores differ, and then the lower token wins.
    _, token = jax.lax.top_k(hypotheses.score[:, :, None] + score, min(2 * options.num_beams, vocab_size))
    edges = Edges(before[:, :, None] * vocab_size + token, token, jnp.take_along_axis(score, token, axis=-1))
    return advance(hypotheses, edges, eos=eos, options=options)


def _read_back(state: Written, *, vocab_size: int, max_length: int) -> Texts:
    """Trace the finished texts back to their first tokens."""
    name = state.name

    def back(text: Int[Array, "B K"], _: None) -> tuple[Int[Array, "B K"], Int[Array, "B K"]]:
        token = jnp.where(text >= 0, text % vocab_size, -1)
        slot = jnp.where(text >= 0, text // vocab_size - 1, -1)
        above = jnp.take_along_axis(name, jnp.maximum(slot, 0), axis=1)
        return jnp.where(slot >= 0, above, -1), token

    _, backwards = jax.lax.scan(back, state.hypotheses.done_node, None, length=max_length)
    lengths = (backwards >= 0).sum(axis=0, dtype=jnp.int32)
    place = lengths[None] - 1 - jnp.arange(max_length)[:, None, None]
    tokens = jnp.where(place >= 0, jnp.take_along_axis(backwards, jnp.maximum(place, 0), axis=0), 0)
    return Texts(tokens.transpose(1, 2, 0), lengths, state.hypotheses.done_score)
