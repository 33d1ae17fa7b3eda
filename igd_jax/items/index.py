"""Everything about the items that needs no model: token rows, catalogue, trie and gain, built in one call."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from igd_jax.core.errors import InputError
from igd_jax.core.ragged import Ragged
from igd_jax.items.catalog import Catalog, build_catalog
from igd_jax.items.info_gain import EdgeGain, edge_gain
from igd_jax.items.trie import Trie, build_trie


@dataclass(frozen=True)
class TokenWalk:
    """Token rows followed along the trie; arrays per token are flat, aligned with the `ids` of the rows.

    All tokens of a row that leaves the trie have gain 0 and are forced, as in the published code.

    Attributes:
      gain: information gain of each token in nats, float64.
      forced: whether each token has no gain.
      parent: trie node before each token, int32; -1 on all tokens of a row that leaves the trie.
      on_trie: whether each row is a candidate or a prefix of one.
    """

    gain: Float[np.ndarray, " total"]
    forced: Bool[np.ndarray, " total"]
    parent: Int[np.ndarray, " total"]
    on_trie: Bool[np.ndarray, " R"]


@dataclass(frozen=True)
class ItemIndex:
    """The items, ready for methods and decoding.

    Attributes:
      titles: title of each item, for display.
      item_tokens: identifier of each item, candidate or not, EOS included.
      counts: train targets per item.
      catalog: distinct identifiers of all items; its row numbers are used everywhere.
      candidates: mask of the items that may be recommended.
      is_candidate: mask of the catalogue rows with such an item.
      trie, gain: trie of those rows, and its gain from the train targets of all items of these rows.
    """

    titles: Sequence[str]
    item_tokens: Ragged
    counts: Int[np.ndarray, " items"]
    catalog: Catalog
    candidates: Bool[np.ndarray, " items"]
    is_candidate: Bool[np.ndarray, " N"]
    trie: Trie
    gain: EdgeGain

    @property
    def longest(self) -> int:
        """Length of the longest candidate in tokens, EOS included."""
        return int(self.catalog.lengths[self.is_candidate].max())

    def items_of(self, row: int) -> Int[np.ndarray, " n"]:
        """Candidates among the items of a catalogue row, ascending."""
        items = self.catalog.items_of(row)
        return items[self.candidates[items]]

    def title_of_row(self, row: int) -> str:
        """Title of a catalogue row: that of its first candidate, or of its first item if none is one."""
        items = self.items_of(row)
        return self.titles[items[0] if len(items) else self.catalog.first[row]]

    def with_candidates(self, candidates: Bool[np.ndarray, " items"]) -> "ItemIndex":
        """The same catalogue with a trie and gain for other candidates.

        Raises:
          InputError: there is no candidate.
        """
        return _index_over(self.titles, self.item_tokens, self.counts, self.catalog, candidates)

    def walk(self) -> TokenWalk:
        """Follow the identifiers of all items, candidates or not, along the trie; aligned with `item_tokens.ids`."""
        return walk_rows(self.trie, self.gain, self.item_tokens, order=self.catalog.item)


def build_index(
    titles: Sequence[str],
    item_tokens: Ragged,
    counts: Int[np.ndarray, " items"],
    *,
    candidates: Bool[np.ndarray, " items"],
) -> ItemIndex:
    """Build the catalogue of all items, and the trie and gain of candidates.

    Args:
      titles: title of each item.
      item_tokens: identifiers, each ending in the same EOS id; see `items.identifiers.Identifiers.rows`.
      counts: train targets per item.
      candidates: items that may be recommended; see `items.candidates.choose_candidates`.

    Raises:
      InputError: there is no candidate, or an identifier contains EOS.
    """
    return _index_over(titles, item_tokens, counts, build_catalog(item_tokens, counts), candidates)


def _index_over(
    titles: Sequence[str],
    item_tokens: Ragged,
    counts: Int[np.ndarray, " items"],
    catalog: Catalog,
    candidates: Bool[np.ndarray, " items"],
) -> ItemIndex:
    if not candidates.any():
        raise InputError("no candidate is left: the candidates and the catalogue share no item; name items of it")
    is_candidate = np.zeros(len(catalog), bool)
    is_candidate[catalog.row_of_item[candidates]] = True
    trie = build_trie(catalog, is_candidate)
    gain = edge_gain(trie, np.where(is_candidate, catalog.counts, 0))
    return ItemIndex(titles, item_tokens, counts, catalog, candidates, is_candidate, trie, gain)


def walk_rows(trie: Trie, gain: EdgeGain, rows: Ragged, order: Int[np.ndarray, " R"] | None = None) -> TokenWalk:
    """Follow arbitrary token rows along the trie.

    Args:
      order: row numbers sorted by tokens, if known; see `Trie.walk`.
    """
    node, edge = trie.walk(rows, order)
    has_tokens = rows.lengths > 0
    on_trie = np.ones(len(rows), bool)
    on_trie[has_tokens] = node[rows.start[1:][has_tokens] - 1] >= 0
    parent = np.empty_like(node)
    parent[1:] = node[:-1]
    parent[rows.start[:-1][has_tokens]] = 0
    del node
    is_on = np.repeat(on_trie, rows.lengths)
    parent[~is_on] = -1
    return TokenWalk(*gain.along(edge, is_on), parent, on_trie)


def describe_index(which: str, index: ItemIndex, *, identifiers: str) -> str:
    """One line about the candidates that `which` names; `identifiers` is what they are written as, such as titles."""
    n_rows, n_items = int(index.is_candidate.sum()), int(index.candidates.sum())
    lengths, counts = index.catalog.lengths[index.is_candidate], index.catalog.counts[index.is_candidate]
    share = 1.0 - (~index.gain.forced).sum() / max(len(index.trie.token) - 1, 1)
    return (
        f"candidates ({which}): {n_items:,} of {len(index.titles):,} items, {n_rows:,} {identifiers} "
        f"({n_items - n_rows:,} items merged into one that they share), {int((counts > 0).sum()):,} of them "
        f"train targets; tokens of each: mean {lengths.mean():.1f}, longest {lengths.max()}; "
        f"{share:.0%} of trie edges are forced"
    )
