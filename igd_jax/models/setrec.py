"""An item as an unordered set of vectors, and a backbone that answers for each of them in one pass (SETRec).

    t0 = W h + b                    one collaborative token, from the item's vector h
    t1, ..., tN = encoder(x)        semantic tokens, from the item's features x; decoder(t1, ..., tN) should be x again

arXiv 2502.10833. The backbone reads instruction, history and response, and then N + 1
query vectors, whose outputs are compared with the tokens of items. Tokens of one item do not see each other, nor do
the queries: a set has no order.

Letters beside those of `core.types`: I items, Z = N + 1 tokens per item, S tokens before the queries.
"""

from itertools import pairwise
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from igd_jax.core.errors import InputError
from igd_jax.models.decoder import Decoder
from igd_jax.models.layers import Frozen, training_unroll
from igd_jax.models.t5 import T5
from igd_jax.models.visibility import Dense, both_sides, mask_of

AUTOENCODER = (512, 256, 128)
"""Widths between the features and the semantic tokens; published."""


class MLP(nnx.Module):
    """Linear maps with ReLU between them and none at the end; Xavier normal weights, biases zero."""

    def __init__(self, widths: tuple[int, ...], *, rngs: nnx.Rngs):
        init = nnx.initializers.glorot_normal()
        self.layers = nnx.List(nnx.Linear(a, b, kernel_init=init, rngs=rngs) for a, b in pairwise(widths))

    def __call__(self, x: Float[Array, "*items I"]) -> Float[Array, "*items O"]:
        for layer in self.layers[:-1]:
            x = jax.nn.relu(layer(x))
        return self.layers[-1](x)


class ItemTokens(nnx.Module):
    """The Z tokens of every item, in float32.

    Args:
      vectors: of items, for the collaborative token.
      features: of items, for the semantic tokens; None where there are none.
      trains_vectors: the vectors are an embedding table that is trained, not somebody else's work.
      n_semantic: N; 0 goes with no features.
      width: of a token.
      hidden: widths of the autoencoder.
      features_from: a fingerprint of what the features were computed from; empty = they are what they are.
    """

    def __init__(
        self,
        vectors: Float[Array, "I C"],
        features: Float[Array, "I W"] | None,
        *,
        trains_vectors: bool,
        n_semantic: int,
        width: int,
        rngs: nnx.Rngs,
        hidden: tuple[int, ...] = AUTOENCODER,
        features_from: str = "",
    ):
        self.width, self.n_items = width, len(vectors)
        self.vectors = nnx.Param(vectors) if trains_vectors else Frozen(vectors)
        self.project = nnx.Linear(vectors.shape[1], width, kernel_init=nnx.initializers.glorot_normal(), rngs=rngs)
        widths = () if features is None else (features.shape[1], *hidden, n_semantic * width)
        self.features = None if features is None else Frozen(features, made_from=features_from)
        self.encoder = MLP(widths, rngs=rngs) if widths else None
        self.decoder = MLP(widths[::-1], rngs=rngs) if widths else None

    def __call__(self, items: Int[Array, "*items"]) -> Float[Array, "*items Z D"]:
        """Tokens of the given items, the collaborative one first."""
        first = self.project(self.vectors[...][items])[..., None, :]
        if self.features is None or self.encoder is None:
            return first
        rest = self.encoder(self.features[...][items]).reshape(*items.shape, -1, self.width)
        return jnp.concatenate([first, rest], axis=-2)

    def rebuild_error(self, items: Int[Array, "*items"], tokens: Float[Array, "*items Z D"]) -> Float[Array, "*items"]:
        """Mean squared error of each item's features, rebuilt from its tokens; 0 without features."""
        if self.features is None or self.decoder is None:
            return jnp.zeros(items.shape, jnp.float32)
        rebuilt = self.decoder(tokens[..., 1:, :].reshape(*items.shape, -1))
        return jnp.square(rebuilt - self.features[...][items]).mean(axis=-1)


class Layout(NamedTuple):
    """Where the S tokens before the queries, and then the Z queries, stand.

    Attributes:
      group: tokens of one item have one number, all others have their own.
      valid: False on the tokens of padding items.
      positions: of the S tokens.
      query_positions: of the queries.
    """

    group: Int[Array, " S"]
    valid: Bool[Array, "B S"]
    positions: Int[Array, "B S"]
    query_positions: Int[Array, "B Z"]


def lay_out(
    history_mask: Bool[Array, "B H"], *, n_instruction: int, n_response: int, n_tokens: int, gap: bool
) -> Layout:
    """Number the tokens of instruction, history and response.

    All tokens of an item share a position. With one token of instruction, items of two tokens, one of them padding:

        tokens        i  .  .  a  a  b  b  r  q  q
        group         0  1  1  2  2  3  3  4
        contiguous    0  0  0  1  1  2  2  3  4  5      padding counts for nothing
        gap           0  1  1  2  2  3  3  7  8  9      published: padding counts, and what follows has its raw index

    Args:
      n_instruction, n_response: tokens before and after the history.
      n_tokens: Z.
      gap: positions as published.
    """
    n_items = history_mask.shape[1]
    before, after = jnp.arange(n_instruction), n_instruction + n_items + jnp.arange(n_response)
    group = jnp.concatenate([before, n_instruction + jnp.repeat(jnp.arange(n_items), n_tokens), after])
    of_items = jnp.repeat(history_mask, n_tokens, axis=1)
    valid = jnp.pad(of_items, ((0, 0), (n_instruction, n_response)), constant_values=True)
    n_before = len(group)
    place = jnp.concatenate([group, n_instruction + n_items + n_response + jnp.arange(n_tokens)])
    if gap:
        raw = jnp.arange(len(place))
        place = jnp.where(raw < n_instruction + n_items * n_tokens, place, raw)
    padding = jnp.where(gap, 0, (~history_mask).sum(axis=1, dtype=jnp.int32))
    positions = jnp.maximum(place[None] - padding[:, None], 0)
    positions = jnp.where((place < n_instruction)[None], place[None], positions)
    return Layout(group, valid, positions[:, :n_before], positions[:, n_before:])


def apart(group: Int[Array, " T"]) -> Bool[Array, "T T"]:
    """[query, key]: False between two tokens of one group, True elsewhere and on the diagonal."""
    return (group[:, None] != group[None]) | jnp.eye(len(group), dtype=bool)


class SetModel(nnx.Module):
    """Item tokens, query vectors, and the backbone that reads them.

    Args:
      backbone: reads embeddings; trained with the rest, or its adapters are.
      tokens: of items, as wide as the backbone.
      instruction, response: ids before and after the history.
      gap: positions as published.
      published: with a T5, the attention of the published code: a dense encoder, and 1 added to the attention of each
        query to itself, where it was meant to see nothing else (docs/methods.md).
      query_scale: standard deviation of the first queries; published: 1 with a decoder, 0.02 with a T5.
    """

    def __init__(
        self,
        backbone: Decoder | T5,
        tokens: ItemTokens,
        *,
        instruction: Int[Array, " i"],
        response: Int[Array, " r"],
        n_tokens: int,
        gap: bool,
        query_scale: float,
        rngs: nnx.Rngs,
        published: bool = False,
    ):
        self.backbone, self.tokens, self.gap, self.published = backbone, tokens, gap, published
        self.instruction, self.response = Frozen(instruction), Frozen(response)
        self.queries = nnx.Param(query_scale * jax.random.normal(rngs.params(), (n_tokens, tokens.width)))

    def __call__(self, history: Float[Array, "B H Z D"], history_mask: Bool[Array, "B H"]) -> Float[Array, "B Z D"]:
        """The output of each query after a history of item tokens, in float32; one forward pass."""
        n_rows, n_tokens = len(history), history.shape[2]
        n_instruction, n_response = len(self.instruction[...]), len(self.response[...])
        layout = lay_out(
            history_mask, n_instruction=n_instruction, n_response=n_response, n_tokens=n_tokens, gap=self.gap
        )
        words = [self.backbone.embed[...][ids[...]] for ids in (self.instruction, self.response)]
        before, after = (jnp.broadcast_to(word, (n_rows, *word.shape)).astype(self.backbone.dtype) for word in words)
        items = history.reshape(n_rows, -1, history.shape[-1]).astype(self.backbone.dtype)
        read = jnp.concatenate([before, items, after], axis=1)
        asked = jnp.broadcast_to(self.queries[...], (n_rows, *self.queries.shape)).astype(self.backbone.dtype)
        answer = self._ask_t5 if isinstance(self.backbone, T5) else self._ask_decoder
        return answer(read, asked, layout).astype(jnp.float32)

    def _ask_decoder(
        self, read: Float[Array, "B S D"], asked: Float[Array, "B Z D"], layout: Layout
    ) -> Float[Array, "B Z D"]:
        """Causal attention, and the queries are one more group."""
        assert isinstance(self.backbone, Decoder)
        n_rows, n_tokens = asked.shape[:2]
        if (length := read.shape[1] + n_tokens) > self.backbone.config.max_positions:
            raise InputError(
                f"the instruction, the histories' tokens and the queries are {length:,} tokens, but the model was made "
                f"for {self.backbone.config.max_positions:,} positions; lower config.method.args.n_semantic, or "
                "prepare shorter histories"
            )
        group = jnp.concatenate([layout.group, jnp.full(n_tokens, layout.group[-1] + 1)])
        valid = jnp.concatenate([layout.valid, jnp.ones((n_rows, n_tokens), bool)], axis=1)
        hidden, _ = self.backbone(
            jnp.concatenate([read, asked], axis=1),
            positions=jnp.concatenate([layout.positions, layout.query_positions], axis=1),
            visible=Dense(jnp.tril(apart(group))[None] & valid[:, None]),
            unroll=training_unroll(),
        )
        return hidden[:, -n_tokens:]

    def _ask_t5(
        self, read: Float[Array, "B S D"], asked: Float[Array, "B Z D"], layout: Layout
    ) -> Float[Array, "B Z D"]:
        """Attention to both sides in the encoder; the queries are the decoder's tokens, all at one position."""
        assert isinstance(self.backbone, T5)
        n_rows, n_tokens = asked.shape[:2]
        visible, alone = both_sides(layout.valid), jnp.eye(n_tokens, dtype=bool)
        if not self.published:
            visible = Dense(mask_of(visible) & apart(layout.group)[None])
        seen, more_bias = (jnp.ones_like(alone), alone.astype(jnp.float32)) if self.published else (alone, None)
        whole = (n_rows, n_tokens, n_tokens)
        unroll = training_unroll()
        encoded = self.backbone.encode(read, positions=layout.positions, visible=visible, unroll=unroll)
        hidden, _ = self.backbone.decode(
            asked,
            self.backbone.memory_of(encoded, layout.valid),
            positions=jnp.zeros((n_rows, n_tokens), jnp.int32),
            visible=Dense(jnp.broadcast_to(seen, whole)),
            more_bias=None if more_bias is None else jnp.broadcast_to(more_bias, whole),
            unroll=unroll,
        )
        return hidden
