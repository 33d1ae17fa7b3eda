"""Metrics of ranked lists with several targets per user, as used for SETRec (docs/methods/setrec.md).

Let GT be the distinct catalogue rows among a user's targets, and r ranks counted from 0:

    Recall@K = |{hits with r < K}| / |GT|
    NDCG@K   = sum over hits with r < K of 1 / log2(r + 2)  /  sum over r < min(K, |GT|) of 1 / log2(r + 2)

and the reciprocal rank of the first hit; all are means over users. With one target row per user, these are the HR, NDCG
and MRR of `metrics`. Axes: U users, G target rows of all users, one user after another, K results of a user.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from igd_jax.core.allowed import Allowed
from igd_jax.core.ragged import Ragged
from igd_jax.evaluation import metrics
from igd_jax.evaluation.metrics import CatalogueRows


def user_metrics(
    rank: Int[np.ndarray, " G"], user: Int[np.ndarray, " G"], ks: Sequence[int]
) -> dict[str, Float[np.ndarray, " U"]]:
    """``recall@k`` and ``ndcg@k`` for each k, and ``mrr``: one value for each user that occurs, ascending.

    Args:
      rank: rank of each target row in its user's list, from 0; -1 = missed.
      user: user of each target row.
      ks: cut-offs.
    """
    _, group, size = np.unique(user, return_inverse=True, return_counts=True)
    discount = 1 / np.log2(np.arange(max(ks)) + 2.0)
    ideal = np.concatenate([np.zeros(1), np.cumsum(discount)])

    def total(values: Float[np.ndarray, " G"]) -> Float[np.ndarray, " U"]:
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


def query_metrics(
    protocol: str, rank: Int[np.ndarray, " G"], query: Int[np.ndarray, " G"], ks: Sequence[int]
) -> dict[str, Float[np.ndarray, " Q"]]:
    """`metrics.row_metrics` or `user_metrics`, as the protocol has it: one value for each query.

    Args:
      protocol: one of `queries.PROTOCOLS`; with ``rows`` each query has one target.
      rank: rank of each target row in its query's list, from 0; -1 = missed.
      query: query of each target row, ascending.
      ks: cut-offs.
    """
    return metrics.row_metrics(rank, ks) if protocol == "rows" else user_metrics(rank, query, ks)


def score_users(
    ranked: Int[np.ndarray, "U K"],
    right: Ragged,
    *,
    catalogue: CatalogueRows,
    ks: Sequence[int],
    n_invalid: int,
    allowed: Sequence[Allowed | None] = (),
) -> tuple[dict[str, Any], dict[str, Float[np.ndarray, " U"]]]:
    """Metrics of lists with several targets per user.

    Args:
      ranked: catalogue rows, best first; -1 = no result.
      right: target rows of each user in the catalogue, distinct, at least one.
      catalogue: the catalogue.
      ks: cut-offs. Those above K are left out and listed under ``ks_skipped``.
      n_invalid: number of results that are not items.
      allowed: what may be recommended to each user; empty = all candidates.

    Returns:
      ``recall@k``, ``ndcg@k`` and ``mrr`` (over all K results); ``n`` users; ``ground_truth``, the ``mean`` and ``max``
      number of target rows; ``invalid``; ``target_absent``, the number of target rows that are not candidates;
      ``ks_skipped``; the same metrics as ``popularity_baseline`` (`metrics.popular_lists`), and as ``slices``: ``warm``
      and ``cold``, for target rows seen in training or not. A slice covers the ``n`` users with such a row;
      ``left_out`` counts the others; metrics of an empty slice are None. And the `user_metrics` of all users, whose
      means these are.

    Raises:
      InputError: there are no users, or no k is from 1 to K.
    """
    n, n_results = ranked.shape
    kept = metrics.kept_cutoffs(ks, n_rows=n, n_results=n_results)
    row, user = right.ids, np.repeat(np.arange(n), right.lengths)

    def one_slice(mask: np.ndarray) -> dict[str, Any]:
        n_here = np.unique(user[mask]).size
        return {"n": n_here, "left_out": n - n_here, **metrics.means(user_metrics(rank[mask], user[mask], kept))}

    rank, is_warm = metrics.rank_of_target(ranked[user], row), catalogue.is_warm[row]
    popular = metrics.popular_lists(catalogue, n_results, n_lists=n, allowed=allowed)[user]
    by_user = user_metrics(rank, user, kept)
    scored = {
        **metrics.means(by_user),
        "n": n,
        "ground_truth": {"mean": float(right.lengths.mean()), "max": int(right.lengths.max())},
        "invalid": n_invalid,
        "target_absent": int((~catalogue.is_candidate[row]).sum()),
        "ks_skipped": sorted(set(ks) - set(kept)),
        "popularity_baseline": metrics.means(user_metrics(metrics.rank_of_target(popular, row), user, kept)),
        "slices": {"warm": one_slice(is_warm), "cold": one_slice(~is_warm)},
    }
    return scored, by_user
