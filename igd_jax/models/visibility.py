"""Visibility: which tokens a token may attend to. All attention masks of the models are made here.

    Causal     a row is one text, padded on either side
    Segments   a row holds several texts, one after another
    Tree       a row holds texts with common beginnings: a token sees the tokens on its path from the root
    Dense      an arbitrary mask, for sets and for encoders

Every real token sees itself. The mask of padding queries is arbitrary.
"""

from typing import TypeAlias, no_type_check

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Int


@no_type_check  # as pytrees these also hold shapes and shardings
@struct.dataclass
class Causal:
    """Real tokens that are not after the query.

    Attributes:
      valid: True on real tokens.
    """

    valid: Bool[Array, "B T"]


@no_type_check
@struct.dataclass
class Segments:
    """Tokens of the query's own segment that are not after the query.

    Attributes:
      ids: number of each token's segment; 0 on padding.
    """

    ids: Int[Array, "B T"]


@no_type_check
@struct.dataclass
class Tree:
    """Ancestors of the query in a tree, the query included; the tokens may be in any order.

    Both numbers come from a depth-first walk, in which a token's descendants are entered before the token is left.

        a            enter  a 0   b 1   c 2   d 3
        | \\          leave  a 4   b 3   c 3   d 4       c sees a, b, c;   d sees a, d
        b  d
        |
        c

    Attributes:
      enter: step at which the walk enters each token; None = its column: the tokens stand in the order of the walk.
      leave: step at which it leaves the token, after all its descendants; `enter` or less on padding, which no
        token sees.
    """

    enter: Int[Array, "B T"] | None
    leave: Int[Array, "B T"]


@no_type_check
@struct.dataclass
class Dense:
    """An arbitrary mask.

    Attributes:
      mask: [b, query, key], True where the query may attend to the key.
    """

    mask: Bool[Array, "B T T"]


Visibility: TypeAlias = Causal | Segments | Tree | Dense


def mask_of(visible: Visibility) -> Bool[Array, "B T T"]:
    """Mask [b, query, key]: True where the query may attend to the key."""
    if isinstance(visible, Dense):
        return visible.mask
    if isinstance(visible, Tree):
        leave = visible.leave[:, None]
        enter = jnp.arange(leave.shape[-1])[None] if visible.enter is None else visible.enter
        return (enter[:, None] <= enter[:, :, None]) & (enter[:, :, None] < leave)
    if isinstance(visible, Segments):
        ids = visible.ids
        return _not_after(ids.shape[1]) & (ids[:, :, None] == ids[:, None]) & (ids != 0)[:, None]
    return _not_after(visible.valid.shape[1]) & visible.valid[:, None]


def is_in_order(visible: Visibility) -> bool:
    """Whether a token sees none after its own column, whatever the numbers are."""
    return isinstance(visible, Causal | Segments) or (isinstance(visible, Tree) and visible.enter is None)


def both_sides(valid: Bool[Array, "B T"]) -> Dense:
    """Every token sees all real tokens, before and after it."""
    return Dense(jnp.broadcast_to(valid[:, None], (*valid.shape, valid.shape[1])))


def positions_of(valid: Bool[Array, "B T"]) -> Int[Array, "B T"]:
    """Positions that count real tokens only; 0 on padding before the first one.

    valid      . . x x x
    position   0 0 0 1 2
    """
    return jnp.maximum(jnp.cumsum(valid, axis=1, dtype=jnp.int32) - 1, 0)


def newest_before(valid: Bool[Array, "B T"]) -> Int[Array, "B T"]:
    """Column of the newest real token before each column; -1 where there is none.

    valid       .  x  x  .  x
    newest     -1 -1  1  2  2
    """
    newest = jax.lax.cummax(jnp.where(valid, jnp.arange(valid.shape[1], dtype=jnp.int32)[None], -1), axis=1)
    return jnp.pad(newest[:, :-1], ((0, 0), (1, 0)), constant_values=-1)


def _not_after(n_tokens: int) -> Bool[Array, "1 T T"]:
    return jnp.tril(jnp.ones((1, n_tokens, n_tokens), bool))
