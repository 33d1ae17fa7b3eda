"""Model of SETRec (arXiv 2502.10833): items as unordered sets of vectors, all predicted by a backbone in one pass.

The backbone reads instruction, history and response, and then a query vector per token of an item, whose outputs are
compared with the tokens of items (`models.item_tokens`). As sets have no order, the tokens of an item do not see each
other, nor do the queries.

Letters in addition to those of `core.types`: Z tokens per item, S tokens before the queries.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from igd_jax.models.decoder import Decoder
from igd_jax.models.item_tokens import ItemTokens
from igd_jax.models.layers import Frozen
from igd_jax.models.t5 import T5
from igd_jax.models.visibility import Causal, Dense, both_sides, mask_of

POSITIONS = ("contiguous", "published")
"""Positions without gaps, or as in the published code, where there is one after the history and where training counts
padding (docs/methods/setrec.md)."""
ATTENTIONS = ("sparse", "dense", "published")
"""Who sees whom: tokens of an item and queries do not see others of their kind (``sparse``); they do, as in a plain
decoder or encoder (``dense``); or a T5 as in the published code, dense and with 1 added to each query's logit of itself
(docs/methods/setrec.md)."""


class Layout(NamedTuple):
    """Layout of the S tokens before the queries and of the Z queries.

    Attributes:
      group: number that the tokens of an item share; every other token has its own.
      valid: False on the tokens of padding items.
      positions: positions of the S tokens.
      query_positions: positions of the queries.
    """

    group: Int[Array, " S"]
    valid: Bool[Array, "B S"]
    positions: Int[Array, "B S"]
    query_positions: Int[Array, "B Z"]


def lay_out(
    history_mask: Bool[Array, "B J"],
    *,
    n_instruction: int,
    n_response: int,
    n_tokens: int,
    gap: bool = False,
    padded: bool = False,
) -> Layout:
    """Number the tokens of instruction, history and response.

    All tokens of an item share a position. For a one-token instruction and items of two tokens, the first item padding,
    beside a row of three items:

        tokens          i  .  .  a  a  b  b  r  q  q
        group           0  1  1  2  2  3  3  4
        contiguous      0  0  0  1  1  2  2  3  4  5
        gap             0  0  0  1  1  2  2  5  6  7      tokens after the history have raw indices
        gap, padded     0  1  1  2  2  3  3  7  8  9      items of padding count, too

    Args:
      history_mask: True on real items.
      n_instruction, n_response: number of tokens before and after the history.
      n_tokens: Z.
      gap: whether positions after the history count its tokens, and not its items.
      padded: whether all histories count as many items as the longest of these rows, at least 2 as in the published
        code, whatever the padding here.
    """
    n_rows, n_items = history_mask.shape
    before, item = jnp.arange(n_instruction), jnp.arange(n_items)
    end = n_instruction + n_items + jnp.arange(n_response)
    group = jnp.concatenate([before, n_instruction + jnp.repeat(item, n_tokens), end])
    of_items = jnp.repeat(history_mask, n_tokens, axis=1)
    valid = jnp.pad(of_items, ((0, 0), (n_instruction, n_response)), constant_values=True)
    counted = history_mask.sum(axis=1, dtype=jnp.int32)[:, None]
    if padded:
        counted = jnp.broadcast_to(jnp.maximum(counted.max(), 2), counted.shape)
    place = jnp.maximum(n_instruction + counted - n_items + item[None], 0)  # of items; the newest is the last column
    after = n_instruction + counted * (n_tokens if gap else 1) + jnp.arange(n_response + n_tokens)[None]
    begin = jnp.broadcast_to(before[None], (n_rows, n_instruction))
    positions = jnp.concatenate([begin, jnp.repeat(place, n_tokens, axis=1), after[:, :n_response]], axis=1)
    return Layout(group, valid, positions, after[:, n_response:])


def apart(group: Int[Array, " T"]) -> Bool[Array, "T T"]:
    """Mask [query, key]: False between different tokens of one group, True elsewhere."""
    return (group[:, None] != group[None]) | jnp.eye(len(group), dtype=bool)


class SetModel(nnx.Module):
    """Item tokens, query vectors, and the backbone that reads them.

    Args:
      backbone: model that reads embeddings; trained with the rest, at least its adapters.
      tokens: tokens of the items, of the backbone's width.
      instruction, response: ids before and after the history.
      positions: one of `POSITIONS`.
      query_scale: standard deviation of the initial queries; published: 1 for a decoder, 0.02 for a T5.
      rngs: source of random numbers.
      attention: one of `ATTENTIONS`; ``published`` only for a T5.
      trains_queries: whether the queries are trained, as published; otherwise they stay random.
    """

    def __init__(
        self,
        backbone: Decoder | T5,
        tokens: ItemTokens,
        *,
        instruction: Int[Array, " i"],
        response: Int[Array, " r"],
        positions: str = "contiguous",
        query_scale: float,
        rngs: nnx.Rngs,
        attention: str = "sparse",
        trains_queries: bool = True,
    ):
        self.backbone, self.tokens, self.positions, self.attention = backbone, tokens, positions, attention
        self.instruction, self.response = Frozen(instruction), Frozen(response)
        queries = query_scale * jax.random.normal(rngs.params(), (tokens.n_tokens, tokens.width))
        self.queries = nnx.Param(queries) if trains_queries else Frozen(queries)

    def __call__(
        self,
        history: Float[Array, "B J Z D"],
        history_mask: Bool[Array, "B J"],
        seed: Int[Array, " B"] | None = None,
        *,
        padded: bool = False,
    ) -> Float[Array, "B Z D"]:
        """Output of each query after a history of item tokens, in float32, by one forward pass.

        Args:
          history: tokens of the left-padded items, oldest first.
          history_mask: True on real items; a row may have none.
          seed: seed of each row's dropout, that of a T5 or of adapters; None = no dropout.
          padded: whether published positions count padding up to the longest history of these rows.
        """
        n_rows, n_tokens = len(history), history.shape[2]
        n_instruction, n_response = len(self.instruction[...]), len(self.response[...])
        is_published = self.positions == "published"
        layout = lay_out(
            history_mask,
            n_instruction=n_instruction,
            n_response=n_response,
            n_tokens=n_tokens,
            gap=is_published,
            padded=is_published and padded,
        )
        before, after = (self._words(ids[...], n_rows) for ids in (self.instruction, self.response))
        items = history.reshape(n_rows, -1, history.shape[-1]).astype(self.backbone.dtype)
        read = jnp.concatenate([before, items, after], axis=1)
        asked = jnp.broadcast_to(self.queries[...], (n_rows, *self.queries.shape)).astype(self.backbone.dtype)
        if isinstance(self.backbone, T5):
            return self._ask_t5(read, asked, layout, seed).astype(jnp.float32)
        return self._ask_decoder(read, asked, layout, seed).astype(jnp.float32)

    def _words(self, ids: Int[Array, " w"], n_rows: int) -> Float[Array, "B w D"]:
        """Embeddings of words, the same in all rows, over which their gradients are summed in float32."""
        words = self.backbone.embed[...][ids].astype(jnp.float32)
        return jnp.broadcast_to(words, (n_rows, *words.shape)).astype(self.backbone.dtype)

    def _ask_decoder(
        self,
        read: Float[Array, "B S D"],
        asked: Float[Array, "B Z D"],
        layout: Layout,
        seed: Int[Array, " B"] | None,
    ) -> Float[Array, "B Z D"]:
        """Causal attention, with the queries as one more group."""
        assert isinstance(self.backbone, Decoder)
        n_rows, n_tokens = asked.shape[:2]
        group = jnp.concatenate([layout.group, jnp.full(n_tokens, layout.group[-1] + 1)])
        valid = jnp.concatenate([layout.valid, jnp.ones((n_rows, n_tokens), bool)], axis=1)
        is_dense = self.attention == "dense"
        hidden, _ = self.backbone(
            jnp.concatenate([read, asked], axis=1),
            positions=jnp.concatenate([layout.positions, layout.query_positions], axis=1),
            visible=Causal(valid) if is_dense else Dense(jnp.tril(apart(group))[None] & valid[:, None]),
            keys=self.backbone.dropout_keys(seed, valid),
        )
        return hidden[:, -n_tokens:]

    def _ask_t5(
        self,
        read: Float[Array, "B S D"],
        asked: Float[Array, "B Z D"],
        layout: Layout,
        seed: Int[Array, " B"] | None,
    ) -> Float[Array, "B Z D"]:
        """Bidirectional attention in the encoder; the queries are the decoder's tokens, all at one position."""
        assert isinstance(self.backbone, T5)
        n_rows, n_tokens = asked.shape[:2]
        visible, alone = both_sides(layout.valid), jnp.eye(n_tokens, dtype=bool)
        if self.attention == "sparse":
            visible = Dense(mask_of(visible) & apart(layout.group)[None])
        seen = alone if self.attention == "sparse" else jnp.ones_like(alone)
        more_bias = alone.astype(jnp.float32) if self.attention == "published" else None
        whole = (n_rows, n_tokens, n_tokens)
        keys = self.backbone.dropout_keys(seed, layout.valid, is_decoder=False)
        encoded = self.backbone.encode(read, positions=layout.positions, visible=visible, keys=keys)
        hidden, _ = self.backbone.decode(
            asked,
            self.backbone.memory_of(encoded, layout.valid),
            positions=jnp.zeros((n_rows, n_tokens), jnp.int32),
            visible=Dense(jnp.broadcast_to(seen, whole)),
            more_bias=None if more_bias is None else jnp.broadcast_to(more_bias, whole),
            keys=self.backbone.dropout_keys(seed, jnp.ones((n_rows, n_tokens), bool), is_decoder=True),
        )
        return hidden
