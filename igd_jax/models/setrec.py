"""Model of SETRec (arXiv 2502.10833): items as unordered sets of vectors, all predicted by a backbone in one pass.

    t0 = W h + b                    one collaborative token, from the item's vector h
    t1, ..., tN = encoder(x)        semantic tokens, from the item's features x, which decoder(t1, ..., tN) rebuilds

The backbone reads instruction, history and response, and then N + 1 query vectors, whose outputs are compared with the
tokens of items. As sets have no order, the tokens of an item do not see each other, nor do the queries.

Letters in addition to those of `core.types`: I items, Z = N + 1 tokens per item, S tokens before the queries.
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
"""Published widths of the layers between the features and the semantic tokens."""


class MLP(nnx.Module):
    """Linear maps with ReLU between them but not after the last; weights are Xavier normal, biases zero."""

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
      vectors: vectors of the items, for the collaborative token.
      features: features of the items, for the semantic tokens; None if there are no semantic tokens.
      trains_vectors: whether the vectors are an embedding table to be trained; otherwise they are frozen.
      n_semantic: N; 0 without features.
      width: width of a token.
      rngs: source of random numbers.
      hidden: widths of the autoencoder.
      features_from: fingerprint of the origin of the features; empty = the features themselves count.
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
    history_mask: Bool[Array, "B H"], *, n_instruction: int, n_response: int, n_tokens: int, gap: bool
) -> Layout:
    """Number the tokens of instruction, history and response.

    All tokens of an item share a position. For a one-token instruction and items of two tokens, the first item padding:

        tokens        i  .  .  a  a  b  b  r  q  q
        group         0  1  1  2  2  3  3  4
        contiguous    0  0  0  1  1  2  2  3  4  5      padding is not counted
        gap           0  1  1  2  2  3  3  7  8  9      published: padding is counted; later tokens have raw indices

    Args:
      history_mask: True on real items.
      n_instruction, n_response: number of tokens before and after the history.
      n_tokens: Z.
      gap: whether positions are those of the published code.
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
    """Mask [query, key]: False between different tokens of one group, True elsewhere."""
    return (group[:, None] != group[None]) | jnp.eye(len(group), dtype=bool)


class SetModel(nnx.Module):
    """Item tokens, query vectors, and the backbone that reads them.

    Args:
      backbone: model that reads embeddings; trained with the rest, at least its adapters.
      tokens: tokens of the items, of the backbone's width.
      instruction, response: ids before and after the history.
      n_tokens: Z.
      gap: whether positions are those of the published code.
      query_scale: standard deviation of the initial queries; published: 1 for a decoder, 0.02 for a T5.
      rngs: source of random numbers.
      published: whether a T5 has the attention of the published code: a dense encoder, and 1 added to each query's
        logit of itself, although queries were meant to see only themselves (docs/methods.md).
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
        """Output of each query after a history of item tokens, in float32, by one forward pass."""
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
        """Causal attention, with the queries as one more group."""
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
        """Bidirectional attention in the encoder; the queries are the decoder's tokens, all at one position."""
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
