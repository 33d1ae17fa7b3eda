"""Metrics of ranked lists with several right titles a user, as SETRec is measured (spec/methods.md 5.5).

With GT the distinct titles among a user's targets, and ranks r counted from 0:

    Recall@K = |{hits with r < K}| / |GT|
    NDCG@K   = sum over hits with r < K of 1 / log2(r + 2)  /  sum over r < min(K, |GT|) of 1 / log2(r + 2)

and the reciprocal rank of the first hit; means over users, each of whom counts once. One title a user makes these the
HR, NDCG and MRR of `metrics`. Axes: R rows of the split, U users, G their right titles, one user after another, K
results of a user, N rows of the title-merged catalogue, T titles.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from igd_jax.evaluation import metrics


@dataclass(frozen=True)
class GroundTruth:
    """What was right: distinct titles of each user.

    Attributes:
      user: whose; at least one title a user.
      row: catalogue row with the title; -1 where no candidate has it, which is always a miss.
      is_warm: training saw the title, as a target or in a history, whether it is a candidate or not.
    """

    user: Int[np.ndarray, "G"]
    row: Int[np.ndarray, "G"]
    is_warm: Bool[np.ndarray, "G"]


def group_by_user(
    user: Shaped[np.ndarray, "R"], timestamp: Int[np.ndarray, "R"]
) -> tuple[Int[np.ndarray, "U"], Int[np.ndarray, "R"]]:
    """Users as queries.

    Returns:
      the earliest row of each user (of equal times the first), ascending, and the user of each row, numbered so. ::

        user       b  a  b  c  a                   first  0  3  4
        timestamp  1  5  3  2  4      ->      user of row  0  2  0  1  2
    """
    in_time = np.argsort(timestamp, kind="stable")
    _, earliest, group = np.unique(user[in_time], return_index=True, return_inverse=True)
    first = in_time[earliest]
    place = np.argsort(first)
    user_of_row = np.empty(len(user), np.int64)
    user_of_row[in_time] = np.argsort(place)[group]
    return first[place], user_of_row


def number_merged(row: Int[np.ndarray, "T"]) -> Int[np.ndarray, "T"]:
    """A number for each title: titles of one catalogue row are one title, and those of no row (-1) stay apart."""
    return np.where(row >= 0, row, row.size + np.arange(row.size))


def merge_titles(
    user: Int[np.ndarray, "R"],
    title: Int[np.ndarray, "R"],
    *,
    row: Int[np.ndarray, "T"],
    is_warm: Bool[np.ndarray, "T"],
) -> GroundTruth:
    """The distinct titles of each user.

    Args:
      user, title: of each target.
      row: catalogue row of each title; -1 = no candidate.
      is_warm: of each title.
    """
    _, kept = np.unique(np.stack([user, number_merged(row)[title]], axis=1), axis=0, return_index=True)
    return GroundTruth(user[kept], row[title[kept]], is_warm[title[kept]])


def user_metrics(
    rank: Int[np.ndarray, "G"], user: Int[np.ndarray, "G"], ks: Sequence[int]
) -> dict[str, Float[np.ndarray, "U"]]:
    """``recall@k`` and ``ndcg@k`` for each k, and ``mrr``: one value for each user who has a title here, ascending.

    Args:
      rank: place of each right title in its user's list, from 0; -1 = missed.
    """
    _, group, size = np.unique(user, return_inverse=True, return_counts=True)
    discount = 1 / np.log2(np.arange(max(ks)) + 2.0)
    ideal = np.concatenate([np.zeros(1), np.cumsum(discount)])

    def total(values: Float[np.ndarray, "G"]) -> Float[np.ndarray, "U"]:
        sums = np.zeros(size.size)
        np.add.at(sums, group, values)
        return sums

    first = np.zeros(size.size)
    np.maximum.at(first, group, metrics.mrr(rank))
    return {
        **{f"recall@{k}": total(metrics.hit_rate(rank, k)) / size for k in ks},
        **{f"ndcg@{k}": total(metrics.ndcg(rank, k)) / ideal[size.clip(max=k)] for k in ks},
        "mrr": first,
    }


def evaluate(
    ranked: Int[np.ndarray, "U K"],
    *,
    truth: GroundTruth,
    count: Int[np.ndarray, "N"],
    ks: Sequence[int],
    n_invalid: int,
) -> dict[str, Any]:
    """Everything that ``metrics.json`` holds about one evaluation by users.

    Args:
      ranked: catalogue rows, best first; -1 = no result.
      count: how often the title of each catalogue row is a train target.
      ks: cut-offs. Those above K are left out and listed under ``ks_skipped``.
      n_invalid: results that are no complete catalogue title.

    Returns:
      ``recall@k``, ``ndcg@k`` and ``mrr`` (over all K results); ``n`` users; ``ground_truth``, the ``mean`` and ``max``
      of their right titles; ``invalid``; ``target_absent``, right titles that are no candidate; ``ks_skipped``;
      the same metrics as ``popularity_baseline`` (`metrics.most_popular`), and as ``slices``: ``warm`` and ``cold``,
      with only the titles that are a train target or never one. A slice has the ``n`` users with such a title, and the
      others are ``left_out``; metrics of an empty slice are None.

    Raises:
      InputError: there is no user, or no k from 1 to K.
    """
    n, n_results = ranked.shape
    kept = metrics.kept_cutoffs(ks, n_rows=n, n_results=n_results)

    def means(rank: np.ndarray, user: np.ndarray) -> dict[str, float | None]:
        values = user_metrics(rank, user, kept)
        return {name: float(value.mean()) if value.size else None for name, value in values.items()}

    def one_slice(mask: np.ndarray) -> dict[str, Any]:
        n_here = np.unique(truth.user[mask]).size
        return {"n": n_here, "left_out": n - n_here, **means(rank[mask], truth.user[mask])}

    rank = metrics.rank_of_target(ranked[truth.user], truth.row)
    popular = np.tile(metrics.most_popular(count, n_results), (truth.user.size, 1))
    size = np.bincount(truth.user, minlength=n)
    return {
        **means(rank, truth.user),
        "n": n,
        "ground_truth": {"mean": float(size.mean()), "max": int(size.max())},
        "invalid": n_invalid,
        "target_absent": int((truth.row < 0).sum()),
        "ks_skipped": sorted(set(ks) - set(kept)),
        "popularity_baseline": means(metrics.rank_of_target(popular, truth.row), truth.user),
        "slices": {"warm": one_slice(truth.is_warm), "cold": one_slice(~truth.is_warm)},
    }
