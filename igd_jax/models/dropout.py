"""Dropout whose draws follow from seeds of rows alone: neither the rows beside nor padding or devices change them.

A row's seed becomes a key per row or per token, a place in the model folds its number into the keys, and each key draws
for what it stands for. Without keys, or at rate 0, nothing is drawn and the program has no trace of dropout.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, UInt16


def row_keys(seed: Int[Array, " B"] | None) -> Key[Array, " B"] | None:
    """A key per row from its seed; None without seeds, as outside training."""
    return None if seed is None else jax.vmap(jax.random.key)(seed)


def token_keys(seed: Int[Array, " B"] | None, valid: Bool[Array, "B T"]) -> Key[Array, "B T"] | None:
    """A key per token from its row's seed and its number; None without seeds."""
    return None if seed is None else fold(row_keys(seed), token_numbers(valid))


def path_keys(seed: Int[Array, "B T"] | None, positions: Int[Array, "B T"]) -> Key[Array, "B T"] | None:
    """As `token_keys`, of tokens each of which has the seed of its row, and its position there; None without seeds."""
    if seed is None:
        return None
    keys = jax.vmap(jax.random.key)(seed.reshape(-1))
    return jax.vmap(jax.random.fold_in)(keys, positions.reshape(-1) + 1).reshape(seed.shape)


def token_numbers(valid: Bool[Array, "B T"]) -> Int[Array, "B T"]:
    """Number of each token among the valid tokens of its row, from 1."""
    return jnp.cumsum(valid, axis=1, dtype=jnp.int32)


def key_numbers(keys: Key[Array, "*n"]) -> Int[Array, "*n"]:
    """A number per key, another for each."""
    return jax.random.key_data(keys)[..., -1].astype(jnp.int32)


def fold(keys: Key[Array, "*n"] | None, numbers: Int[Array, "*n more"]) -> Key[Array, "*n more"] | None:
    """A key for each of some numbers per key; None without keys."""
    if keys is None:
        return None
    flat = numbers.reshape(-1, numbers.shape[-1])
    folded = jax.vmap(jax.vmap(jax.random.fold_in, in_axes=(None, 0)))(keys.reshape(-1), flat)
    return folded.reshape(numbers.shape)


def at_site(keys: Key[Array, "*n"] | None, number: int | Int[Array, ""]) -> Key[Array, "*n"] | None:
    """Keys of one use of dropout, derived from the given ones; None without keys."""
    if keys is None:
        return None
    return jax.vmap(lambda key: jax.random.fold_in(key, number))(keys.reshape(-1)).reshape(keys.shape)


def drop_pairs(
    weights: Float[Array, "B *heads T S"],
    keys: Key[Array, "B T"] | None,
    numbers: Int[Array, "B S"],
    *,
    rate: float,
) -> Float[Array, "B *heads T S"]:
    """`drop` for weights of attention: each pair of a query and a token draws for all heads.

    Args:
      weights: weights [b, ..., query, token].
      keys: keys of the queries; None changes nothing.
      numbers: number of each attended token, its own in the row.
      rate: as in `drop`.
    """
    if keys is None or rate == 0.0:
        return weights
    pairs = fold(keys, jnp.broadcast_to(numbers[:, None], (*keys.shape, numbers.shape[1])))
    return jnp.moveaxis(drop(jnp.moveaxis(weights, (-2, -1), (1, 2)), pairs, rate=rate), (1, 2), (-2, -1))


def drop(x: Float[Array, "*n_rest"], keys: Key[Array, "*n"] | None, *, rate: float) -> Float[Array, "*n_rest"]:
    """Zero each number with probability `rate` and scale up the others.

    Args:
      x: numbers; their first axes are those of `keys`.
      keys: ``x[i]`` is drawn from ``keys[i]`` only; None changes nothing.
      rate: probability, from 0 to below 1, rounded to a multiple of 2^-16; 0 changes nothing.
    """
    if keys is None or rate == 0.0:
        return x
    n, dropped = math.prod(x.shape[keys.ndim :]), jnp.uint16(min(round(rate * 2**16), 2**16 - 1))
    keep = jax.vmap(lambda key: _draws(key, n) >= dropped)(keys.reshape(-1)).reshape(x.shape)
    return jnp.where(keep, x / (1.0 - rate), 0.0)


def _draws(key: Key[Array, ""], n: int) -> UInt16[Array, " n"]:
    """Numbers below 2^16, two of each word: the words are most of what dropout costs."""
    words = jax.random.bits(key, (math.ceil(n / 2),))
    return jax.lax.bitcast_convert_type(words, jnp.uint16).reshape(-1)[:n]
