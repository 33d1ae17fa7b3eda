"""SASRec: the state of a user after a history of items (Kang & McAuley, arXiv 1808.09781).

    x_0 = item + position;   x = x + attention(norm(x));   x = x + W2 relu(W1 norm(x));   user = norm(x at the end)
    score(user, item) = user . item

Attention is causal. Histories are padded on the left, so the last item is always in the last column, and positions are
counted from there, independently of the padding. The last block computes only keys and values of the other columns.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Key

from igd_jax.models.attention import KeyBlock, attend
from igd_jax.models.dropout import at_site, drop, token_keys
from igd_jax.models.layers import Linear, normal_init
from igd_jax.models.visibility import Causal, mask_of


@dataclass(frozen=True)
class SASRecConfig:
    """Sizes.

    Attributes:
      n_items: number of items of the data set, which include item 0.
      max_history: number of newest items that are read.
      width: width of embeddings and states.
      num_blocks, num_heads: numbers of blocks, and of heads per block.
      dropout: probability of zeroing a number of an embedding or of a layer's output in training.
    """

    n_items: int
    max_history: int
    width: int
    num_blocks: int
    num_heads: int
    dropout: float


class Block(nnx.Module):
    """Causal self-attention and a feed-forward layer, each behind a norm and added to the residual stream."""

    def __init__(self, config: SASRecConfig, *, rngs: nnx.Rngs):
        width = config.width
        self.num_heads, self.dropout = config.num_heads, config.dropout
        self.attention_norm, self.feed_norm = nnx.LayerNorm(width, rngs=rngs), nnx.LayerNorm(width, rngs=rngs)
        self.q, self.k, self.v, self.o, self.inner, self.outer = (
            Linear(width, width, rngs=rngs, param_dtype=jnp.float32, bias=True) for _ in range(6)
        )

    def __call__(
        self,
        hidden: Float[Array, "B J D"],
        valid: Bool[Array, "B J"],
        *,
        n_last: int,
        keys: Key[Array, "B J"] | None = None,
    ) -> Float[Array, "B n D"]:
        """New states of the last `n_last` columns; those of padding are finite but arbitrary."""
        keys = None if keys is None else keys[:, -n_last:]
        n_batch, _, width = hidden.shape
        heads = (n_batch, -1, self.num_heads, width // self.num_heads)
        x = self.attention_norm(hidden)
        query = self.q(x[:, -n_last:]).reshape(heads)
        key, value = (project(x).reshape(heads).transpose(0, 2, 1, 3) for project in (self.k, self.v))
        block = KeyBlock(key, value, mask_of(Causal(valid))[:, -n_last:])
        mixed = attend(query, [block]).reshape(n_batch, n_last, width)
        hidden = hidden[:, -n_last:] + drop(self.o(mixed), at_site(keys, 0), rate=self.dropout)
        added = self.outer(jax.nn.relu(self.inner(self.feed_norm(hidden))))
        return hidden + drop(added, at_site(keys, 1), rate=self.dropout)


class SASRec(nnx.Module):
    """Vectors of users and items, whose inner products score next items; float32."""

    def __init__(self, config: SASRecConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.embed = nnx.Param(normal_init(rngs.params(), (config.n_items, config.width), jnp.float32))
        self.position = nnx.Param(normal_init(rngs.params(), (config.max_history, config.width), jnp.float32))
        self.blocks = nnx.List([Block(config, rngs=rngs) for _ in range(config.num_blocks)])
        self.norm = nnx.LayerNorm(config.width, rngs=rngs)

    def __call__(
        self, history: Int[Array, "B J"], valid: Bool[Array, "B J"], seed: Int[Array, " B"] | None = None
    ) -> Float[Array, "B D"]:
        """Vector of each user, after the last column of `history`.

        Args:
          history: left-padded items, oldest first; only the newest `max_history` columns are read.
          valid: True on real items. The vector of a row without any depends on the last position alone.
          seed: seed of each row's dropout, which depends neither on other rows nor on padding; None = no dropout.
        """
        history, valid = history[:, -self.config.max_history :], valid[:, -self.config.max_history :]
        keys = token_keys(seed, valid)
        items = jnp.where(valid[..., None], self.embed[...][history], 0.0)
        hidden = items + self.position[...][None, -history.shape[1] :]
        hidden = drop(hidden, at_site(keys, 0), rate=self.config.dropout)
        for number, block in enumerate(self.blocks, start=1):
            n_last = 1 if number == len(self.blocks) else hidden.shape[1]
            hidden = block(hidden, valid, n_last=n_last, keys=at_site(keys, number))
        return self.norm(hidden[:, -1])

    def items(self) -> Float[Array, "I D"]:
        """Vector of each item, which is also its embedding in histories."""
        return self.embed[...]


def scores_of(users: Float[Array, "B D"], items: Float[Array, "I D"]) -> Float[Array, "B I"]:
    """Inner products, in full float32 precision on every device, as they determine the ranking."""
    return jnp.einsum("BD,ID->BI", users, items, precision=jax.lax.Precision.HIGHEST)
