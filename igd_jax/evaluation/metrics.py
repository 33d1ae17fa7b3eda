"""Metrics of ranked lists: full catalogue, one target per row, no sampled negatives, no removal of seen items.

Items that share an identifier are one row of the catalogue, and a target is hit by its row. Axes: R rows of the split,
K results of a row, N rows of the catalogue, C of them candidates. Ranks count from 0 and are -1 if the list misses the
target, so HR@k = [0 <= r < k] and NDCG@k = HR@k / log2(r + 2) (the ideal DCG is 1).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from igd_jax.core.allowed import Allowed
from igd_jax.core.errors import InputError
from igd_jax.core.ragged import places_in_rows

POPULARITY_THIRDS = ("head", "mid", "tail")


@dataclass(frozen=True)
class CatalogueRows:
    """Properties of the catalogue that metrics use.

    Attributes:
      row_of_item: catalogue row of each item, candidate or not.
      candidates: mask of the items that may be recommended.
      is_candidate: mask of the rows with such an item.
      count: number of train targets of each row, over all its items, candidates or not.
      is_warm: mask of the rows seen in training, as a target or in a history.
    """

    row_of_item: Int[np.ndarray, " items"]
    candidates: Bool[np.ndarray, " items"]
    is_candidate: Bool[np.ndarray, " N"]
    count: Int[np.ndarray, " N"]
    is_warm: Bool[np.ndarray, " N"]

    @classmethod
    def of_items(
        cls,
        row_of_item: Int[np.ndarray, " items"],
        *,
        candidates: Bool[np.ndarray, " items"],
        counts: Int[np.ndarray, " items"],
        seen: Bool[np.ndarray, " items"],
    ) -> "CatalogueRows":
        """Aggregate properties of items by row.

        Args:
          row_of_item: catalogue row of each item.
          candidates: mask of the items that may be recommended.
          counts: number of train targets of each item.
          seen: mask of the items seen in training, as a target or in a history.
        """
        n_rows = int(row_of_item.max()) + 1  # every row has an item
        is_candidate, is_warm = np.zeros((2, n_rows), bool)
        is_candidate[row_of_item[candidates]] = True
        is_warm[row_of_item[seen]] = True
        count = np.zeros(n_rows, np.int64)
        np.add.at(count, row_of_item, counts)
        return cls(row_of_item, candidates, is_candidate, count, is_warm)


def rank_of_target(ranked: Int[np.ndarray, "R K"], target: Int[np.ndarray, " R"]) -> Int[np.ndarray, " R"]:
    """Rank of the first hit, from 0; -1 if the list misses. A -1 in the list is "no result"."""
    hit = ranked == target[:, None]
    return np.where(hit.any(axis=1), hit.argmax(axis=1), -1)


def rank_of_item(
    ranked: Int[np.ndarray, "R K"], item: Int[np.ndarray, " R"], catalogue: CatalogueRows
) -> Int[np.ndarray, " R"]:
    """Rank of the exact item if every catalogue row is expanded to its candidates, ascending; -1 = missed.

    The rank can exceed K, as rows with several candidates push later items down. "No result" takes no place.
    """
    offered = np.flatnonzero(catalogue.candidates)
    by_row = offered[np.argsort(catalogue.row_of_item[offered], kind="stable")]
    size = np.bincount(catalogue.row_of_item[offered], minlength=catalogue.count.size)
    place = np.full(catalogue.row_of_item.size, -1)
    place[by_row] = places_in_rows(size)

    rank = rank_of_target(ranked, catalogue.row_of_item[item])
    taken = np.where(ranked >= 0, size[ranked], 0)
    before = np.cumsum(taken, axis=1) - taken
    is_hit = (rank >= 0) & catalogue.candidates[item]
    return np.where(is_hit, before[np.arange(rank.size), rank] + place[item], -1)


def hit_rate(rank: Int[np.ndarray, " R"], k: int) -> Float[np.ndarray, " R"]:
    """HR@k of each row: 1 if the target is among the first k results, else 0."""
    return ((rank >= 0) & (rank < k)).astype(np.float64)


def ndcg(rank: Int[np.ndarray, " R"], k: int) -> Float[np.ndarray, " R"]:
    """NDCG@k of each row: 1 / log2(rank + 2), or 0 if the target is not among the first k results."""
    return hit_rate(rank, k) / np.log2(rank.clip(min=0) + 2.0)


def mrr(rank: Int[np.ndarray, " R"]) -> Float[np.ndarray, " R"]:
    """Reciprocal rank of each row: 1 / (rank + 1), or 0 if the list misses."""
    return (rank >= 0) / (rank.clip(min=0) + 1.0)


def coverage(ranked: Int[np.ndarray, "R K"], is_candidate: Bool[np.ndarray, " N"], k: int) -> float:
    """Fraction of the candidate rows that are among the first k results of at least one row."""
    shown = np.unique(ranked[:, :k])
    return int(is_candidate[shown[shown >= 0]].sum()) / int(is_candidate.sum())


def row_metrics(rank: Int[np.ndarray, " R"], ks: Sequence[int]) -> dict[str, Float[np.ndarray, " R"]]:
    """``hr@k`` and ``ndcg@k`` for each k, and ``mrr``: one value per row, for means and for paired tests."""
    return {
        **{f"hr@{k}": hit_rate(rank, k) for k in ks},
        **{f"ndcg@{k}": ndcg(rank, k) for k in ks},
        "mrr": mrr(rank),
    }


def means(columns: Mapping[str, Float[np.ndarray, " R"]]) -> dict[str, float | None]:
    """Mean of each metric; None, never NaN, if there are no rows."""
    return {name: float(values.mean()) if values.size else None for name, values in columns.items()}


def mean_metrics(rank: Int[np.ndarray, " R"], ks: Sequence[int]) -> dict[str, float | None]:
    """`means` of `row_metrics`."""
    return means(row_metrics(rank, ks))


def popularity_third(target_count: Int[np.ndarray, " R"], count: Int[np.ndarray, " C"]) -> Int[np.ndarray, " R"]:
    """Popularity class of each target: 0 head, 1 mid, 2 tail.

    Let s be the fraction of the candidates' train targets that candidates more popular than the target account for: s <
    1/3 is head, s < 2/3 mid, the rest tail. So equal counts have the same class, and a count of 0 is tail.

    Args:
      target_count: number of train targets of each target's row.
      count: number of train targets of each candidate row.
    """
    descending = np.sort(count)[::-1]
    mass = np.concatenate([np.zeros(1, count.dtype), np.cumsum(descending)])
    above = mass[np.searchsorted(-descending, -target_count)]
    return (3 * above >= mass[-1]).astype(np.int64) + (3 * above >= 2 * mass[-1])


def most_popular(catalogue: CatalogueRows, n_results: int) -> Int[np.ndarray, " P"]:
    """The candidate rows most frequent among train targets, at most `n_results`; ties are in catalogue order."""
    rows = np.flatnonzero(catalogue.is_candidate & (catalogue.count > 0))
    return rows[np.argsort(-catalogue.count[rows], kind="stable")[:n_results]]


def popular_lists(
    catalogue: CatalogueRows, n_results: int, *, n_lists: int, allowed: Sequence[Allowed | None] = ()
) -> Int[np.ndarray, "R K"]:
    """`most_popular` for each query, of the rows that are allowed to it; -1 = no result.

    Args:
      catalogue: the catalogue.
      n_results: K, the length of the lists.
      n_lists: R, the number of queries.
      allowed: what may be recommended to each; None, or an empty sequence = all candidates.
    """
    order = most_popular(catalogue, len(catalogue.count))
    place = np.full(len(catalogue.count), -1)
    place[order] = np.arange(len(order))
    lists = np.full((n_lists, n_results), -1, np.int64)
    lists[:, : len(order)] = order[:n_results]
    for number, each in enumerate(allowed):
        if each is not None:
            own = order[: n_results + len(each.without)]
            if each.only is not None:
                own = np.unique(each.only[place[each.only] >= 0])
            own = own[each.allows(own)]
            own = own[np.argsort(place[own])][:n_results]
            lists[number] = np.pad(own, (0, n_results - len(own)), constant_values=-1)
    return lists


def kept_cutoffs(ks: Sequence[int], *, n_rows: int, n_results: int) -> list[int]:
    """The cut-offs of at most `n_results`, ascending.

    Raises:
      InputError: no cut-off is left, or there are no rows.
    """
    kept = sorted({k for k in ks if 1 <= k <= n_results})
    if n_rows == 0:
        raise InputError("the split has no rows to evaluate; choose another split or raise eval.max_examples")
    if not kept:
        raise InputError(f"eval.ks is {list(ks)} with {n_results} results per row; give a k from 1 to {n_results}")
    return kept


def score_rows(
    ranked: Int[np.ndarray, "R K"],
    target: Int[np.ndarray, " R"],
    *,
    catalogue: CatalogueRows,
    ks: Sequence[int],
    n_invalid: int,
    allowed: Sequence[Allowed | None] = (),
) -> tuple[dict[str, Any], dict[str, Float[np.ndarray, " R"]]]:
    """Metrics of lists with one target per row.

    Args:
      ranked: catalogue rows, best first; -1 = no result.
      target: target item of each row.
      catalogue: the catalogue.
      ks: cut-offs. Those above K are left out and listed under ``ks_skipped``, as HR@20 of 10 results is HR@10.
      n_invalid: number of results that are not items.
      allowed: what may be recommended for each row; empty = all candidates.

    Returns:
      ``hr@k``, ``ndcg@k``, ``mrr`` (over all K results) and ``coverage`` at the largest k, where a hit is the target's
      catalogue row, whichever of its items was taken; ``n`` rows; ``invalid``; ``target_absent``, the number of rows
      whose target's catalogue row is not a candidate; ``ks_skipped``; the same metrics as ``id_exact`` (only the target
      item itself is a hit, `rank_of_item`), as ``popularity_baseline`` (every row gets `popular_lists`), and as
      ``slices``, each with its ``n``: head + mid + tail (`popularity_third`) and warm + cold (seen in training or not)
      are all rows each; metrics of an empty slice are None. And the `row_metrics` of all rows, whose means these are.

    Raises:
      InputError: there are no rows, or no k is from 1 to K.
    """
    n, n_results = ranked.shape
    kept = kept_cutoffs(ks, n_rows=n, n_results=n_results)
    row = catalogue.row_of_item[target]

    def metrics(ranked: np.ndarray, by_row: dict[str, np.ndarray]) -> dict[str, Any]:
        return {**means(by_row), f"coverage@{kept[-1]}": coverage(ranked, catalogue.is_candidate, kept[-1])}

    rank = rank_of_target(ranked, row)
    by_row = row_metrics(rank, kept)
    popular = popular_lists(catalogue, n_results, n_lists=n, allowed=allowed)
    scored = {
        **metrics(ranked, by_row),
        "n": n,
        "invalid": n_invalid,
        "target_absent": int((~catalogue.is_candidate[row]).sum()),
        "ks_skipped": sorted(set(ks) - set(kept)),
        "id_exact": mean_metrics(rank_of_item(ranked, target, catalogue), kept),
        "popularity_baseline": metrics(popular, row_metrics(rank_of_target(popular, row), kept)),
        "slices": _slices(rank, row, catalogue=catalogue, ks=kept),
    }
    return scored, by_row


def _slices(
    rank: Int[np.ndarray, " R"], row: Int[np.ndarray, " R"], *, catalogue: CatalogueRows, ks: Sequence[int]
) -> dict[str, Any]:
    third = popularity_third(catalogue.count[row], catalogue.count[catalogue.is_candidate])
    masks = {name: third == i for i, name in enumerate(POPULARITY_THIRDS)}
    masks |= {"warm": catalogue.is_warm[row], "cold": ~catalogue.is_warm[row]}
    return {name: {"n": int(mask.sum()), **mean_metrics(rank[mask], ks)} for name, mask in masks.items()}
