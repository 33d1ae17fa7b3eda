"""Attention with one softmax over several blocks of keys, and how it is computed."""

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from igd_jax.core.sharding import platform_here, row_shards_here

XLA, CUDNN = ATTENTION = ("xla", "cudnn")
"""Implementations of attention: products that XLA compiles, on any device; or the kernel of NVIDIA's cuDNN, which never
writes the weights, for whole texts in half precision."""
WHOLE_TEXT = 64  # from how many queries on a kernel is used: steps of a search have few, and must not copy their keys
TURNS = 256
"""Queries from which on rows take turns on a CPU: the weights of several shorter ones fit in its cache."""
_ALIGNED = 8  # numbers of queries and keys that a kernel is given are multiples of it
_PART, _MOST_PARTS = 128, 4
"""Least queries of a part of `attend_in_order`, and most parts: each more has to be compiled, and saves less."""


class KeyBlock(NamedTuple):
    """S tokens that T queries may attend to; S differs between blocks.

    Attributes:
      key: keys, with positions applied if the model rotates them.
      value: values of the same tokens.
      mask: True where the query may attend to the token.
      bias: term added to the logits of each query head; None adds nothing.
    """

    key: Float[Array, "B G S H"]
    value: Float[Array, "B G S H"]
    mask: Bool[Array, "B T S"]
    bias: Float[Array, "B Q T S"] | None = None


def attend(
    query: Float[Array, "B T Q H"],
    blocks: Sequence[KeyBlock],
    *,
    scale: float | None = None,
    drop: Callable[[Float[Array, "B G R T S"]], Float[Array, "B G R T S"]] | None = None,
) -> Float[Array, "B T Q H"]:
    """Attention with one softmax over several blocks of keys, which are never concatenated.

    Args:
      query: queries of Q heads; heads ``g * Q / G`` to ``(g + 1) * Q / G - 1`` share key-value head g.
      blocks: keys and values, at least one block.
      scale: factor of the products of queries and keys; None is ``1 / sqrt(H)``.
      drop: function of the weights after the softmax, over the tokens of all blocks; R = Q / G.

    Returns:
      Mixed values in the dtype of `query`. A query whose mask is all False gets some finite average.
    """
    n_batch, n_tokens, n_heads, head_dim = query.shape
    n_kv_heads = blocks[0].key.shape[1]
    scale = head_dim**-0.5 if scale is None else scale
    # The heads of a group and their tokens share an axis: plain batched products, which are fast on every backend and
    # do not copy keys for the heads that share them.
    query = query.reshape(n_batch, n_tokens, n_kv_heads, -1, head_dim).transpose(0, 2, 3, 1, 4)
    flat = query.reshape(n_batch, n_kv_heads, -1, head_dim)
    logits = []
    for block in blocks:
        scores = jnp.einsum("BGNH,BGSH->BGNS", flat, block.key, preferred_element_type=jnp.float32) * scale
        scores = scores.reshape(*query.shape[:4], -1)
        if block.bias is not None:
            scores = scores + block.bias.reshape(scores.shape)
        # The lowest finite number instead of -inf, as an all-False row would give inf - inf.
        logits.append(jnp.where(block.mask[:, None, None], scores, jnp.finfo(jnp.float32).min))
    # The softmax divides by its sum at last, where there are H numbers per query and not one per key.
    most = jax.lax.stop_gradient(reduce(jnp.maximum, [each.max(axis=-1, keepdims=True) for each in logits]))
    weights = [jnp.exp(each - most) for each in logits]
    total = reduce(jnp.add, [each.sum(axis=-1, keepdims=True) for each in weights])
    if drop is not None:
        ends = np.cumsum([each.shape[-1] for each in weights])[:-1]
        weights = jnp.split(drop(jnp.concatenate(weights, axis=-1) / total), ends, axis=-1)
        total = jnp.ones_like(total)
    products = [
        jnp.einsum(
            "BGNS,BGSH->BGNH",
            part.astype(query.dtype).reshape(*flat.shape[:3], -1),
            block.value,
            preferred_element_type=jnp.float32,
        )
        for part, block in zip(weights, blocks, strict=True)
    ]
    mixed = (reduce(jnp.add, products).reshape(query.shape) / total).astype(query.dtype).transpose(0, 3, 1, 2, 4)
    return mixed.reshape(n_batch, n_tokens, n_heads, head_dim)


def attend_in_order(query: Float[Array, "B T Q H"], blocks: Sequence[KeyBlock]) -> Float[Array, "B T Q H"]:
    """As `attend`, if the last of `blocks` are the queries' own tokens, and no query sees one after its own column.

    Long texts are divided into parts, which leave out the keys after them: of four, three eighths of all. On a CPU the
    longest take turns, so that the weights of one, which are made again for the gradient, stay in its cache.
    """
    if len(query) == 1 or platform_here() != "cpu" or row_shards_here() > 1 or query.shape[1] < TURNS:
        return _attend_in_parts(query, blocks)

    def attend_row(row: tuple[Array, list[KeyBlock]]) -> Array:
        return _attend_in_parts(*jax.tree.map(lambda x: x[None], row))[0]

    return jax.lax.map(jax.checkpoint(attend_row, prevent_cse=False), (query, list(blocks)))


def columns_in_order(n_tokens: int) -> float:
    """Mean number of own keys per query that `attend_in_order` computes for texts of so many tokens."""
    return n_tokens * (1 + 1 / _n_parts(n_tokens)) / 2


def _n_parts(n_tokens: int) -> int:
    return min(max(n_tokens // _PART, 1), _MOST_PARTS)


def _attend_in_parts(query: Float[Array, "B T Q H"], blocks: Sequence[KeyBlock]) -> Float[Array, "B T Q H"]:
    *past, own = blocks
    n_tokens = query.shape[1]
    size = -(-n_tokens // _n_parts(n_tokens))
    parts = []
    for begin in range(0, n_tokens, size):
        end = min(begin + size, n_tokens)
        seen = [block._replace(mask=block.mask[:, begin:end]) for block in past]
        seen.append(KeyBlock(own.key[:, :, :end], own.value[:, :, :end], own.mask[:, begin:end, :end]))
        parts.append(attend(query[:, begin:end], seen))
    return jnp.concatenate(parts, axis=1)


def attend_fused(
    query: Float[Array, "B T Q H"], blocks: Sequence[KeyBlock], *, implementation: str
) -> Float[Array, "B T Q H"]:
    """As `attend`, by `jax.nn.dot_product_attention`, over blocks without bias, which are concatenated.

    Queries and keys are padded to multiples of `_ALIGNED`: the kernel of cuDNN refuses odd numbers when it trains.
    """
    n_tokens = query.shape[1]
    key, value = (
        _aligned(jnp.concatenate(parts, axis=2).transpose(0, 2, 1, 3), axes=(1,))
        for parts in ([block.key for block in blocks], [block.value for block in blocks])
    )
    mask = _aligned(jnp.concatenate([block.mask for block in blocks], axis=-1), axes=(1, 2))[:, None]
    query = _aligned(query, axes=(1,))
    mixed = jax.nn.dot_product_attention(query, key, value, mask=mask, implementation=cast(Any, implementation))
    return mixed[:, :n_tokens]


def _aligned(x: Array, *, axes: tuple[int, ...]) -> Array:
    return jnp.pad(x, [(0, -size % _ALIGNED if axis in axes else 0) for axis, size in enumerate(x.shape)])
