"""Beam search over the whole vocabulary, without a trie: what a model writes of its own accord.

The recurrence, its ties and its stop rule are those of `decoding.beam_search`, with every token of the vocabulary as a
child and plain log-probabilities as token scores (beams of transformers' `generate`; BIGRec, spec/methods.md 2.4):

    s' = s + logp(token) / temperature

Of each beam only the best 2K children can be among the best 2K of all.
"""

from functools import partial
from typing import NamedTuple, no_type_check

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int

from igd_jax.core.errors import InputError
from igd_jax.core.types import Batch
from igd_jax.decoding.beam_search import Beams, SearchOptions, SearchState, advance, root_state, unfinished
from igd_jax.decoding.lm_scorer import SlotCache, first_slot, read_beams, read_prompt, reserve
from igd_jax.models.decoder import Decoder


@no_type_check  # as a pytree it also holds shapes or shardings
@struct.dataclass
class Texts:
    """What was written, best first.

    Attributes:
      tokens: ids of each text, EOS included; 0 after its end. A text that was cut at the longest length has no EOS.
      lengths: tokens of each text; 0 where there is none.
      scores: final scores (natural log, after the length penalty); -inf where there is no text.
    """

    tokens: Int[Array, "B K T"]
    lengths: Int[Array, "B K"]
    scores: Float[Array, "B K"]


class Written(NamedTuple):
    """What the search keeps between steps.

    A text is named by its last token and the slot of the token before: ``(slot + 1) * V + token``, with slot -1 before
    the first. So the names in the slots lead from a text's end back to its beginning.

    Attributes:
      cache: keys and values.
      name: name of the text that ends in each slot.
    """

    cache: SlotCache
    name: Int[Array, "B slots"]


def unconstrained_search(model: Decoder, batch: Batch, options: SearchOptions, *, eos: int) -> Texts:
    """Write K texts after each prompt; rows that only fill up the batch find none.

    Args:
      batch: `header`, `prompt` and `prompt_mask`; see `core.types.Batch`.
      options: `alpha` discounts siblings in a trie, and is not read.
      eos: the token that ends a text.

    Raises:
      InputError: more beams and tokens than the names of texts have numbers for, at trace time.
    """
    state = _begin(model, batch, options, eos=eos)
    step = partial(_step, model=model, eos=eos, options=options)
    state = jax.lax.while_loop(partial(unfinished, length=options.max_length), step, state)
    return _read_back(state, vocab_size=model.config.vocab_size, max_length=options.max_length)


def _begin(model: Decoder, batch: Batch, options: SearchOptions, *, eos: int) -> SearchState:
    state = root_state(batch["prompt_mask"].any(axis=1), num_beams=options.num_beams)
    cache, hidden = read_prompt(model, batch, num_beams=options.num_beams)
    cache = reserve(cache, options.max_length)
    n_rows, _, n_slots = cache.path.shape
    if (n_slots + 1) * model.config.vocab_size > jnp.iinfo(jnp.int32).max:
        raise InputError(
            f"{options.num_beams} beams of {options.max_length} tokens over {model.config.vocab_size:,} ids are more "
            "than the free search can number; lower config.decode.max_new_tokens or the beams"
        )
    written = Written(cache, jnp.zeros((n_rows, n_slots), jnp.int32))
    before = jnp.zeros_like(state.beams.node)
    return _lengthen(state, written, model.logits(hidden), before, eos=eos, options=options)


def _step(state: SearchState, model: Decoder, eos: int, options: SearchOptions) -> SearchState:
    """Lengthen every running beam by one token."""
    beams: Beams = state.beams
    cache, hidden = read_beams(model, state.carry.cache, beams)
    slot = first_slot(beams.clock, options.num_beams)
    name = jax.lax.dynamic_update_slice_in_dim(state.carry.name, beams.node, slot, axis=1)
    before = jnp.broadcast_to((slot + 1 + jnp.arange(options.num_beams))[None], beams.node.shape)
    return _lengthen(state, Written(cache, name), model.logits(hidden), before, eos=eos, options=options)


def _lengthen(
    state: SearchState,
    written: Written,
    logits: Float[Array, "B K V"],
    before: Int[Array, "B K"],
    *,
    eos: int,
    options: SearchOptions,
) -> SearchState:
    """`before` is the slot of each beam's last token, plus 1."""
    vocab_size = logits.shape[-1]
    score = jax.nn.log_softmax(logits, axis=-1) / options.temperature
    # By the sums, not by the token scores: sums may tie where these differ, and the lower token then comes first.
    _, token = jax.lax.top_k(state.score[:, :, None] + score, min(2 * options.num_beams, vocab_size))
    return advance(
        state,
        written,
        node=before[:, :, None] * vocab_size + token,
        token=token,
        edge_score=jnp.take_along_axis(score, token, axis=-1),
        eos=eos,
        options=options,
    )


def _read_back(state: SearchState, *, vocab_size: int, max_length: int) -> Texts:
    """Follow the names of the finished texts to their first tokens."""
    name = state.carry.name

    def back(text: Int[Array, "B K"], _: None) -> tuple[Int[Array, "B K"], Int[Array, "B K"]]:
        token = jnp.where(text >= 0, text % vocab_size, -1)
        slot = jnp.where(text >= 0, text // vocab_size - 1, -1)
        above = jnp.take_along_axis(name, jnp.maximum(slot, 0), axis=1)
        return jnp.where(slot >= 0, above, -1), token

    _, backwards = jax.lax.scan(back, state.done_node, None, length=max_length)
    lengths = (backwards >= 0).sum(axis=0, dtype=jnp.int32)
    place = lengths[None] - 1 - jnp.arange(max_length)[:, None, None]
    tokens = jnp.where(place >= 0, jnp.take_along_axis(backwards, jnp.maximum(place, 0), axis=0), 0)
    return Texts(tokens.transpose(1, 2, 0), lengths, state.done_score)
