"""The catalogue: the identifiers of all items as rows of token ids, sorted, with equal rows merged (docs/design.md).

Sorting packs as many tokens as fit into one integer, sorts once, and then re-sorts only the rows that still tie. The
same comparisons give the length of the prefix that each row shares with the one before, which is all the trie needs.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Int

from igd_jax.core.errors import InputError
from igd_jax.core.ragged import Ragged


@dataclass(frozen=True)
class Catalog:
    """Distinct rows of all items in token order, with the items and the train counts of each row.

    Attributes:
      given: input rows in item order, each ending in EOS; int32.
      first: item whose input row represents each catalogue row; int32.
      lcp: number of tokens shared with the previous row; -1 for row 0, so that row 0 also owns the root. int32.
      counts: train targets among the items of each row; int64.
      item_start, item: items of row r, ``item[item_start[r]:item_start[r + 1]]``, ascending; int32.
      row_of_item: row of each item; int32.
    """

    given: Ragged
    first: Int[np.ndarray, " N"]
    lcp: Int[np.ndarray, " N"]
    counts: Int[np.ndarray, " N"]
    item_start: Int[np.ndarray, " N_plus_1"]
    item: Int[np.ndarray, " items"]
    row_of_item: Int[np.ndarray, " items"]

    def __len__(self) -> int:
        return len(self.lcp)

    @property
    def eos(self) -> int:
        """Token id at the end of every row, which occurs nowhere else."""
        return int(self.given.ids[-1])

    @property
    def lengths(self) -> Int[np.ndarray, " N"]:
        """Number of tokens of each row, EOS included; int32."""
        return self.given.lengths[self.first]

    @cached_property
    def tokens(self) -> Ragged:
        """The N rows in catalogue order; a copy, which building the trie does not need."""
        return self.given.take(self.first)

    def items_of(self, row: int) -> Int[np.ndarray, " n"]:
        """Items of a row, ascending."""
        return self.item[self.item_start[row] : self.item_start[row + 1]]


def build_catalog(tokens: Ragged, counts: Int[np.ndarray, " items"]) -> Catalog:
    """Sort the items' token rows, merge equal ones and sum their counts.

    Args:
      tokens: one row per item, each ending in the same EOS id, which occurs nowhere else.
      counts: train targets per item, from which the information gain is computed.

    Raises:
      InputError: there is no item, or an identifier contains the EOS token.
    """
    if not len(tokens):
        raise InputError("the catalogue has no item; expected at least one, so prepare the data again")
    _check_ends(tokens)
    order, lcp, is_new = sort_rows(tokens)
    row = np.cumsum(is_new, dtype=np.int32) - 1
    row_of_item = np.empty(len(tokens), np.int32)
    row_of_item[order] = row
    first = order[is_new].astype(np.int32)
    return Catalog(
        given=tokens,
        first=first,
        lcp=lcp[is_new],
        counts=np.bincount(row, weights=counts[order], minlength=len(first)).astype(np.int64),
        item_start=np.append(np.flatnonzero(is_new), len(order)).astype(np.int32),
        item=order.astype(np.int32),
        row_of_item=row_of_item,
    )


def _check_ends(tokens: Ragged) -> None:
    if len(empty := np.flatnonzero(tokens.lengths == 0)):
        raise InputError(f"the identifier of item {empty[0]} has no token; give it at least the end-of-text token")
    last = tokens.start[1:] - 1
    eos = tokens.ids[last[0]]
    is_eos = tokens.ids == eos
    is_eos[last] ^= True
    if is_eos.any():
        item = np.searchsorted(tokens.start, np.flatnonzero(is_eos)[0], side="right") - 1
        raise InputError(
            f"the identifier of item {item} does not end in one end-of-text token (id {eos}), or holds it inside; "
            "take it out of the title"
        )


def sort_rows(
    rows: Ragged,
) -> tuple[Int[np.ndarray, " R"], Int[np.ndarray, " R"], Bool[np.ndarray, " R"]]:
    """Sort ragged rows of token ids.

    Returns:
      order: row indices in token order, equal rows in input order; int64.
      lcp: number of tokens shared with the previous row in that order, -1 for the first; int32.
      is_new: False if the row equals the previous one.
    """
    bits = (int(rows.ids.max(initial=0)) + 1).bit_length()
    order = np.arange(len(rows))
    lcp = np.full(len(rows), -1, np.int32)
    is_new = np.ones(len(rows), bool)
    active = np.arange(len(rows))  # positions in the order that still tie with a neighbour
    tied = active > 0  # which of those tie with the previous one
    depth = 0
    while tied.any():
        run = np.cumsum(~tied) - 1
        width = (63 - int(run[-1]).bit_length()) // bits
        key = run << (width * bits) | _pack(rows, order[active], depth, width=width, bits=bits)
        by_key = np.argsort(key)
        order[active] = order[active[by_key]]
        key, before = key[by_key][tied], key[by_key][np.flatnonzero(tied) - 1]
        lcp[active[tied]] = depth + _shared(key, before, width=width, bits=bits)
        is_new[active[tied]] = key != before  # rows that agree so far but continue are decided in a later round
        tied[tied] = (key == before) & (key & ((1 << bits) - 1) > 0)
        keep = tied | np.append(tied[1:], False)
        active, tied, depth = active[keep], tied[keep], depth + width
    # Equal rows are in arbitrary order: sort by position and then by row, both packed into one integer.
    order = np.sort(np.cumsum(is_new) << 32 | order) & (2**32 - 1)
    return order, lcp, is_new


def _pack(rows: Ragged, which: Int[np.ndarray, " r"], depth: int, *, width: int, bits: int) -> Int[np.ndarray, " r"]:
    """Pack `width` tokens from `depth` on into one int64; a token is id + 1, and positions after the end are 0."""
    begin, left = rows.start[which] + depth, rows.lengths[which] - depth
    key = np.zeros(len(which), np.int64)
    for offset in range(width):
        token = rows.ids.take(begin + offset, mode="clip").astype(np.int64)
        key = key << bits | np.where(left > offset, token + 1, 0)
    return key


def _shared(a: Int[np.ndarray, " r"], b: Int[np.ndarray, " r"], *, width: int, bits: int) -> Int[np.ndarray, " r"]:
    """Length of the common prefix of `width` packed tokens; positions after the end do not count."""
    same = np.zeros(len(a), np.int32)
    for offset in range(width):
        agrees = a >> (offset * bits) == b >> (offset * bits)
        same += agrees & (a >> (offset * bits) & ((1 << bits) - 1) > 0)
    return same
