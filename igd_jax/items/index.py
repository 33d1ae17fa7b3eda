"""All that is known of the items before any model: token rows, catalogue, trie and gain, built in one call."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int

from igd_jax.core.errors import InputError
from igd_jax.core.ragged import Ragged
from igd_jax.items.catalog import Catalog, build_catalog
from igd_jax.items.info_gain import EdgeGain, edge_gain
from igd_jax.items.trie import Trie, build_trie


@dataclass(frozen=True)
class TitleWalk:
    """Titles along the trie, padded to the longest of them.

    Attributes:
      tokens, mask: ids, and True on real ones.
      gain: nats a token.
      forced: tokens without gain. A title that leaves the trie has gain 0 and forced True throughout, as in the
        published code; so has the padding.
      on_trie: titles that are candidates to their end.
    """

    tokens: Int[np.ndarray, "n T"]
    mask: Bool[np.ndarray, "n T"]
    gain: Float[np.ndarray, "n T"]
    forced: Bool[np.ndarray, "n T"]
    on_trie: Bool[np.ndarray, " n"]


@dataclass(frozen=True)
class ItemIndex:
    """The items, ready for methods and decoding.

    Attributes:
      titles: by item.
      item_tokens: ids of ``title + newline`` and EOS by item, candidates or not.
      catalog, trie, gain: over the candidates.
    """

    titles: Sequence[str]
    item_tokens: Ragged
    catalog: Catalog
    trie: Trie
    gain: EdgeGain

    @property
    def longest_title(self) -> int:
        """Tokens of the longest candidate, EOS included."""
        return int(self.catalog.lengths.max())

    def title_of_row(self, row: int) -> str:
        """The title that a catalogue row stands for."""
        return self.titles[self.catalog.items_of(row)[0]]

    def walk(self, rows: Ragged) -> TitleWalk:
        """Follow whole titles, candidates or not, along the trie."""
        width = int(rows.lengths.max(initial=1))
        tokens, mask = rows.pad(width), np.arange(width) < rows.lengths[:, None]
        node, edge = self.trie.walk(tokens, mask)
        on_trie = np.all((node >= 0) | ~mask, axis=1)
        gain, forced = self.gain.along(edge, mask & on_trie[:, None])
        return TitleWalk(tokens, mask, gain, forced, on_trie)


def build_index(
    titles: Sequence[str],
    item_tokens: Ragged,
    counts: Int[np.ndarray, " items"],
    *,
    candidates: Bool[np.ndarray, " items"],
) -> ItemIndex:
    """Build catalogue, trie and gain.

    Args:
      counts: train targets an item; only those of candidates count.
      candidates: items that may be recommended; see `choose_candidates`.

    Raises:
      InputError: no candidate.
    """
    catalog = build_catalog(item_tokens, counts, candidates=candidates)
    trie = build_trie(catalog)
    return ItemIndex(titles, item_tokens, catalog, trie, edge_gain(trie, catalog.counts))


def choose_candidates(
    which: str,
    item_ids: Sequence[str],
    titles: Sequence[str],
    *,
    counts: Int[np.ndarray, " items"],
    seen: Bool[np.ndarray, " items"],
) -> Bool[np.ndarray, " items"]:
    """The items that may be recommended.

    Args:
      which: ``catalogue`` (all, as D3), ``train`` (titles that are a train target, as the published IGD), ``warm``
        (titles that training saw, as SETRec), ``cold`` (those that it did not), or the path of a text file with one
        item id a line.
      counts: train targets an item.
      seen: items that training saw, as a target or in a history.

    Raises:
      InputError: the file is missing or names an item that is not in the data.
    """
    if which == "catalogue":
        return np.ones(len(item_ids), bool)
    if which in ("train", "warm", "cold"):
        members = counts > 0 if which == "train" else seen
        named = {title for title, is_member in zip(titles, members, strict=True) if is_member}
        return np.fromiter(((title in named) == (which != "cold") for title in titles), bool, len(titles))
    path = Path(which)
    if not path.is_file():
        raise InputError(
            f"config.decode.candidates is {which!r}; expected 'catalogue', 'train', 'warm', 'cold' or a file with one "
            "item id a line"
        )
    wanted = {line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()}
    unknown = sorted(wanted.difference(item_ids))
    if unknown:
        raise InputError(f"{path} names {len(unknown)} item ids that the data does not have, such as {unknown[0]!r}")
    return np.fromiter((item in wanted for item in item_ids), bool, len(item_ids))
