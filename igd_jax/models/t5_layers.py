"""Parts of T5: relative position biases, unscaled attention, feed-forward, and stacks of layers.

softmax(q k' + bias[bucket(position of key - position of query)]) v       (arXiv 1910.10683)

With keys of dropout, as in training, numbers are zeroed where transformers does it: inputs and outputs of a stack,
weights of attention, the inner layer of a feed-forward, and what each of the parts adds to the residual stream.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Key

from igd_jax.core.sharding import keep_rows
from igd_jax.models.attention import KeyBlock, attend
from igd_jax.models.backbone import KVCache, Memory, Past
from igd_jax.models.dropout import at_site, drop, drop_pairs, key_numbers, token_numbers
from igd_jax.models.layers import Linear, RMSNorm, recomputing
from igd_jax.models.t5_config import T5Config
from igd_jax.models.visibility import Visibility, mask_of


def linear(n_in: int, n_out: int, *, rngs: nnx.Rngs, scale: float = 1.0) -> Linear:
    """A linear map without biases, initialised from normal(`scale` / sqrt(n_in))."""
    init = jax.nn.initializers.normal(scale * n_in**-0.5)
    return Linear(n_in, n_out, rngs=rngs, param_dtype=jnp.float32, init=init)


class FeedForward(nnx.Module):
    """``relu(x W_gate) W_down``, or ``(gelu(x W_gate) * x W_up) W_down`` (tanh approximation, as published)."""

    def __init__(self, config: T5Config, *, rngs: nnx.Rngs):
        self.gate = linear(config.hidden_size, config.mlp_size, rngs=rngs)
        self.up = linear(config.hidden_size, config.mlp_size, rngs=rngs) if config.gated else None
        self.down = linear(config.mlp_size, config.hidden_size, rngs=rngs)
        self.dropout = config.dropout

    def __call__(self, x: Float[Array, "B T D"], keys: Key[Array, "B T"] | None) -> Float[Array, "B T D"]:
        if self.up is None:
            inner = jax.nn.relu(self.gate(x))
        else:
            inner = jax.nn.gelu(self.gate(x), approximate=True) * self.up(x)
        return self.down(drop(inner, keys, rate=self.dropout))


class Attention(nnx.Module):
    """Attention of T tokens to blocks of keys, with their biases on the logits."""

    def __init__(self, config: T5Config, *, rngs: nnx.Rngs):
        width, self.head_dim = config.num_heads * config.head_dim, config.head_dim
        # Smaller initial queries replace the scaling of logits by the head width.
        self.q = linear(config.hidden_size, width, rngs=rngs, scale=config.head_dim**-0.5)
        self.k, self.v = (linear(config.hidden_size, width, rngs=rngs) for _ in range(2))
        self.o = linear(width, config.hidden_size, rngs=rngs)

    def keys(self, x: Float[Array, "B S D"]) -> tuple[Float[Array, "B Q S H"], Float[Array, "B Q S H"]]:
        """Keys and values of tokens."""
        split = (*x.shape[:2], -1, self.head_dim)
        key, value = (project(x).reshape(split).transpose(0, 2, 1, 3) for project in (self.k, self.v))
        return key, value

    def __call__(
        self, x: Float[Array, "B T D"], blocks: Sequence[KeyBlock], drop: Callable | None
    ) -> Float[Array, "B T D"]:
        mixed = attend(self.q(x).reshape(*x.shape[:2], -1, self.head_dim), blocks, scale=1.0, drop=drop)
        return self.o(mixed.reshape(*x.shape[:2], -1))


class LayerDropout(NamedTuple):
    """Where the draws of a layer come from; all None without dropout.

    Attributes:
      keys: keys of the tokens; see `models.dropout`.
      own, of_memory: numbers of the tokens, and of the encoder's tokens, for the weights of attention to them.
    """

    keys: Key[Array, "B T"] | None = None
    own: Int[Array, "B T"] | None = None
    of_memory: Int[Array, "B S"] | None = None


class Layer(nnx.Module):
    """Self-attention, cross-attention in the decoder, and feed-forward, each with a pre-norm and a residual."""

    def __init__(self, config: T5Config, *, crosses: bool, rngs: nnx.Rngs):
        def norm() -> RMSNorm:
            return RMSNorm(config.hidden_size, eps=config.eps, param_dtype=jnp.float32)

        self.attention_norm, self.attention = norm(), Attention(config, rngs=rngs)
        self.cross_norm = norm() if crosses else None
        self.cross = Attention(config, rngs=rngs) if crosses else None
        self.mlp_norm, self.mlp = norm(), FeedForward(config, rngs=rngs)
        self.dropout = config.dropout

    def __call__(
        self,
        hidden: Float[Array, "B T D"],
        *,
        mask: Bool[Array, "B T T"],
        bias: Float[Array, "B Q T T"],
        past: Sequence[KeyBlock],
        memory: KeyBlock | None,
        dropout: LayerDropout,
    ) -> tuple[Float[Array, "B T D"], tuple[Float[Array, "B Q T H"], Float[Array, "B Q T H"]]]:
        """Returns the updated residual stream, and keys and values of the tokens."""
        keys, own, of_memory = dropout

        def dropped(added: Float[Array, "B T D"], site: int) -> Float[Array, "B T D"]:
            return drop(added, at_site(keys, site), rate=self.dropout)

        def thinner(numbers: Int[Array, "B S"] | None, site: int) -> Callable | None:
            if keys is None or numbers is None:
                return None  # with a function, weights of attention are joined and divided first
            return partial(drop_pairs, keys=at_site(keys, site), numbers=numbers, rate=self.dropout)

        x = self.attention_norm(hidden)
        new = self.attention.keys(x)
        hidden = hidden + dropped(self.attention(x, [*past, KeyBlock(*new, mask, bias)], thinner(own, 0)), 1)
        if self.cross is not None and self.cross_norm is not None and memory is not None:
            hidden = hidden + dropped(self.cross(self.cross_norm(hidden), [memory], thinner(of_memory, 2)), 3)
        return hidden + dropped(self.mlp(self.mlp_norm(hidden), at_site(keys, 4)), 5), new


class Stack(nnx.Module):
    """Stacked and scanned layers that share one table of position biases, followed by a norm."""

    def __init__(self, config: T5Config, *, is_decoder: bool, remat: str, rngs: nnx.Rngs):
        self.n_layers = config.num_decoder_layers if is_decoder else config.num_layers

        @nnx.split_rngs(splits=self.n_layers)
        @nnx.vmap
        def stack_layers(rngs: nnx.Rngs) -> Layer:
            return Layer(config, crosses=is_decoder, rngs=rngs)

        self.config, self.is_decoder, self.remat = config, is_decoder, remat
        table = jax.random.normal(rngs.params(), (config.num_buckets, config.num_heads))
        self.bias = nnx.Param(config.hidden_size**-0.5 * table)
        self.layers = stack_layers(rngs)
        self.norm = RMSNorm(config.hidden_size, eps=config.eps, param_dtype=jnp.float32)

    def __call__(
        self,
        hidden: Float[Array, "B T D"],
        *,
        positions: Int[Array, "B T"],
        visible: Visibility,
        past: Sequence[Past] = (),
        memory: Memory | None = None,
        more_bias: Float[Array, "B T T"] | None = None,
        keys: Key[Array, "B T"] | None = None,
    ) -> tuple[Float[Array, "B T D"], KVCache]:
        """Run tokens, which see each other according to `visible`, earlier tokens by the masks of `past`, and `memory`.

        Args:
          hidden: embeddings of the tokens.
          positions: positions of the tokens; differences to them and to those of `past` select the biases.
          visible: which of the tokens see each other.
          past: earlier tokens, each part with its mask.
          memory: the encoder's output; only for the decoder.
          more_bias: further bias among the tokens, in all heads.
          keys: keys of dropout, `dropout.token_keys`, only without `past`; None = no dropout.

        Returns:
          Hidden states after the final norm, and keys and values of the tokens.
        """
        bias, mask = self._bias(positions, positions), mask_of(visible)
        if more_bias is not None:
            bias = bias + jnp.broadcast_to(more_bias[:, None], bias.shape)
        biases = [self._bias(positions, kv.position) for kv, _ in past if kv.position is not None]
        sees = None if memory is None else jnp.broadcast_to(memory.mask[:, None], (*positions.shape, memory.kv.n_slots))
        graph, weights = nnx.split(self.layers)
        dropout, sites = LayerDropout(), None
        if keys is not None:
            dropout = LayerDropout(keys, key_numbers(keys), None if memory is None else token_numbers(memory.mask))
            sites = jnp.arange(2, 2 + self.n_layers)
        hidden = drop(hidden, at_site(keys, 0), rate=self.config.dropout)

        def run_layer(hidden, layer):
            layer_weights, cached, read, site = layer
            blocks = [
                KeyBlock(key, value, seen, bias)
                for (key, value), (_, seen), bias in zip(cached, past, biases, strict=True)
            ]
            of_memory = None if read is None or sees is None else KeyBlock(read[0], read[1], sees)
            own = dropout if site is None else dropout._replace(keys=at_site(keys, site))
            module = nnx.merge(graph, layer_weights)
            hidden, new = module(hidden, mask=mask, bias=bias, past=blocks, memory=of_memory, dropout=own)
            return keep_rows(hidden), new

        cached = [(kv.key, kv.value) for kv, _ in past]
        read = None if memory is None else (memory.kv.key, memory.kv.value)
        layers = weights, cached, read, sites
        hidden, (key, value) = jax.lax.scan(recomputing(run_layer, self.remat), keep_rows(hidden), layers)
        return drop(self.norm(hidden), at_site(keys, 1), rate=self.config.dropout), KVCache(key, value, positions)

    def memory_of(self, encoded: Float[Array, "B S D"], mask: Bool[Array, "B S"]) -> Memory:
        """Keys and values of the encoder's tokens in all layers of the decoder; they do not depend on its input."""
        assert self.layers.cross is not None
        graph, weights = nnx.split(self.layers.cross)
        key, value = jax.vmap(lambda layer: nnx.merge(graph, layer).keys(encoded))(weights)
        return Memory(KVCache(key, value), mask)

    def _bias(self, query: Int[Array, "B T"], key: Int[Array, "B S"]) -> Float[Array, "B Q T S"]:
        bucket = bucket_of(key[:, None] - query[:, :, None], self.config, both_sides=not self.is_decoder)
        return self.bias[...][bucket].transpose(0, 3, 1, 2)


def bucket_of(distance: Int[Array, "*shape"], config: T5Config, *, both_sides: bool) -> Int[Array, "*shape"]:
    """Bucket of each distance (position of key - position of query).

    Half of the buckets hold a single distance each; the other half grow logarithmically up to `max_distance`. In an
    encoder, half of all buckets are for keys after the query; a decoder never sees these.
    """
    n = config.num_buckets // 2 if both_sides else config.num_buckets
    exact, far = n // 2, np.arange(config.max_distance + 1)
    share = np.log(np.maximum(far, 1).astype(np.float32) / exact) / np.log(config.max_distance / exact)
    grown = exact + share * (n - exact)
    table = np.where(far < exact, far, np.minimum(grown.astype(np.int32), n - 1)).astype(np.int32)
    back = jnp.abs(distance) if both_sides else jnp.maximum(-distance, 0)
    bucket = jnp.asarray(table)[jnp.minimum(back, config.max_distance)]
    return jnp.where(distance > 0, bucket + n, bucket) if both_sides else bucket
