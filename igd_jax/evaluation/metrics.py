"""Metrics of ranked lists: full catalogue, one target a row, no sampled negatives, no removal of seen items.

Axes: R rows of the split, K results of a row, N rows of the title-merged catalogue, I its items. Ranks count from 0 and
are -1 where the list misses the target, so HR@k = [0 <= r < k] and NDCG@k = HR@k / log2(r + 2) (the ideal DCG is 1).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from igd_jax.core.errors import InputError

POPULARITY_THIRDS = ("head", "mid", "tail")


@dataclass(frozen=True)
class Candidates:
    """What could be recommended: the title-merged catalogue.

    Attributes:
      count: how often the row's title is a train target.
      row_start: the items of row i are ``row_item[row_start[i]:row_start[i + 1]]``.
      row_item: item numbers, each once; their order within a row is the order in which id-exact ranks count them.
    """

    count: Int[np.ndarray, "N"]
    row_start: Int[np.ndarray, "N+1"]
    row_item: Int[np.ndarray, "I"]


@dataclass(frozen=True)
class Targets:
    """What was right, one target a row of the split.

    Attributes:
      row: catalogue row with the target's title; -1 where no candidate has it, which is always a miss.
      item: the target's own item number.
      count: how often the target's title is a train target, whether it is a candidate or not.
      is_warm: training saw the target's title, as a target or in a history.
    """

    row: Int[np.ndarray, "R"]
    item: Int[np.ndarray, "R"]
    count: Int[np.ndarray, "R"]
    is_warm: Bool[np.ndarray, "R"]


def rank_of_target(ranked: Int[np.ndarray, "R K"], target: Int[np.ndarray, "R"]) -> Int[np.ndarray, "R"]:
    """Place of the first hit, from 0; -1 where the list misses. A -1 in either array is "none" and never hits."""
    hit = (ranked == target[:, None]) & (target >= 0)[:, None]
    return np.where(hit.any(axis=1), hit.argmax(axis=1), -1)


def rank_of_item(
    ranked: Int[np.ndarray, "R K"], item: Int[np.ndarray, "R"], candidates: Candidates
) -> Int[np.ndarray, "R"]:
    """Place of the exact item when every ranked catalogue row is written out as its items; -1 where the list misses.

    The place can exceed K: titles that several items share push later items down. "None" results take no place.
    """
    row_start, row_item = candidates.row_start, candidates.row_item
    size = np.diff(row_start)
    order = np.argsort(row_item)
    slot = order[np.searchsorted(row_item, item, sorter=order).clip(max=row_item.size - 1)]
    row = np.where(row_item[slot] == item, np.repeat(np.arange(size.size), size)[slot], -1)

    rank = rank_of_target(ranked, row)
    taken = np.where(ranked >= 0, size[ranked], 0)
    before = np.cumsum(taken, axis=1) - taken
    return np.where(rank >= 0, before[np.arange(rank.size), rank] + slot - row_start[row], -1)


def hit_rate(rank: Int[np.ndarray, "R"], k: int) -> Float[np.ndarray, "R"]:
    """HR@k of each row: 1 where the target is among the first k results."""
    return ((rank >= 0) & (rank < k)).astype(np.float64)


def ndcg(rank: Int[np.ndarray, "R"], k: int) -> Float[np.ndarray, "R"]:
    """NDCG@k of each row: 1 / log2(rank + 2), 0 where the target is not among the first k results."""
    return hit_rate(rank, k) / np.log2(rank.clip(min=0) + 2.0)


def mrr(rank: Int[np.ndarray, "R"]) -> Float[np.ndarray, "R"]:
    """Reciprocal rank of each row: 1 / (rank + 1), 0 where the list misses."""
    return (rank >= 0) / (rank.clip(min=0) + 1.0)


def coverage(ranked: Int[np.ndarray, "R K"], n_catalogue: int, k: int) -> float:
    """Share of the catalogue that is among the first k results of at least one row."""
    shown = np.unique(ranked[:, :k])
    return int((shown >= 0).sum()) / n_catalogue


def row_metrics(rank: Int[np.ndarray, "R"], ks: Sequence[int]) -> dict[str, Float[np.ndarray, "R"]]:
    """``hr@k`` and ``ndcg@k`` for each k, and ``mrr``: one value a row, for means and for paired tests."""
    return {
        **{f"hr@{k}": hit_rate(rank, k) for k in ks},
        **{f"ndcg@{k}": ndcg(rank, k) for k in ks},
        "mrr": mrr(rank),
    }


def mean_metrics(rank: Int[np.ndarray, "R"], ks: Sequence[int]) -> dict[str, float | None]:
    """Means of `row_metrics`; None, never NaN, where there is no row."""
    return {name: float(value.mean()) if value.size else None for name, value in row_metrics(rank, ks).items()}


def popularity_third(target_count: Int[np.ndarray, "R"], count: Int[np.ndarray, "N"]) -> Int[np.ndarray, "R"]:
    """Third of the train count mass that a target lies in: 0 head, 1 mid, 2 tail.

    Rows more popular than the target hold a share s of all train targets: s < 1/3 is head, s < 2/3 mid, the rest tail.
    Equal counts are thus never parted, and a title never seen in train is tail.
    """
    descending = np.sort(count)[::-1]
    mass = np.concatenate([np.zeros(1, count.dtype), np.cumsum(descending)])
    above = mass[np.searchsorted(-descending, -target_count)]
    return (3 * above >= mass[-1]).astype(np.int64) + (3 * above >= 2 * mass[-1])


def most_popular(count: Int[np.ndarray, "N"], n_results: int) -> Int[np.ndarray, "P"]:
    """The catalogue rows most frequent in train, at most `n_results`; of equal counts in catalogue order."""
    return np.argsort(-count, kind="stable")[:n_results]


def kept_cutoffs(ks: Sequence[int], *, n_rows: int, n_results: int) -> list[int]:
    """The cut-offs that `n_results` results a row allow, ascending.

    Raises:
      InputError: there is none, or no row.
    """
    kept = sorted({k for k in ks if 1 <= k <= n_results})
    if n_rows == 0:
        raise InputError("the split has no rows to evaluate; choose another split or raise eval.max_examples")
    if not kept:
        raise InputError(f"eval.ks is {list(ks)} with {n_results} results a row; give a k from 1 to {n_results}")
    return kept


def _slices(rank: np.ndarray, targets: Targets, *, count: np.ndarray, ks: Sequence[int]) -> dict[str, Any]:
    third = popularity_third(targets.count, count)
    masks = {name: third == i for i, name in enumerate(POPULARITY_THIRDS)}
    masks |= {"warm": targets.is_warm, "cold": ~targets.is_warm}
    return {name: {"n": int(mask.sum()), **mean_metrics(rank[mask], ks)} for name, mask in masks.items()}


def evaluate(
    ranked: Int[np.ndarray, "R K"],
    *,
    targets: Targets,
    candidates: Candidates,
    ks: Sequence[int],
    n_invalid: int,
) -> dict[str, Any]:
    """Everything that ``metrics.json`` holds about one evaluation.

    Args:
      ranked: catalogue rows, best first; -1 = no result.
      ks: cut-offs. Those above K are left out and listed under ``ks_skipped``: HR@20 of 10 results is HR@10.
      n_invalid: results that are no complete catalogue title.

    Returns:
      ``hr@k``, ``ndcg@k``, ``mrr`` (over all K results) and ``coverage`` at the largest k, where a result hits when it
      has the target's title; ``n`` rows; ``invalid``; ``target_absent``, rows whose target is no candidate;
      ``ks_skipped``; the same metrics as ``id_exact`` (only the target's own item hits, `rank_of_item`), as
      ``popularity_baseline`` (every row gets `most_popular`), and as
      ``slices``, each with its ``n``: head + mid + tail (`popularity_third`) and warm + cold (seen in training or
      not) each add up to all rows; metrics of an empty slice are None.

    Raises:
      InputError: there is no row, or no k from 1 to K.
    """
    n, n_results = ranked.shape
    n_catalogue = candidates.count.size
    kept = kept_cutoffs(ks, n_rows=n, n_results=n_results)

    def metrics(ranked: np.ndarray, rank: np.ndarray) -> dict[str, Any]:
        return {**mean_metrics(rank, kept), f"coverage@{kept[-1]}": coverage(ranked, n_catalogue, kept[-1])}

    rank = rank_of_target(ranked, targets.row)
    popular = most_popular(candidates.count, n_results)
    popular = np.broadcast_to(popular, (n, popular.size))
    return {
        **metrics(ranked, rank),
        "n": n,
        "invalid": n_invalid,
        "target_absent": int((targets.row < 0).sum()),
        "ks_skipped": sorted(set(ks) - set(kept)),
        "id_exact": mean_metrics(rank_of_item(ranked, targets.item, candidates), kept),
        "popularity_baseline": metrics(popular, rank_of_target(popular, targets.row)),
        "slices": _slices(rank, targets, count=candidates.count, ks=kept),
    }
