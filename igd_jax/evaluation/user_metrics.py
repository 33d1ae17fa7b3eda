"""Metrics of ranked lists with several right items per user, as SETRec is measured (docs/methods.md).

With GT the distinct catalogue rows among a user's targets, and ranks r counted from 0:

    Recall@K = |{hits with r < K}| / |GT|
    NDCG@K   = sum over hits with r < K of 1 / log2(r + 2)  /  sum over r < min(K, |GT|) of 1 / log2(r + 2)

and the reciprocal rank of the first hit; means over users, each of whom counts once. One right row per user makes these
the HR, NDCG and MRR of `metrics`. Axes: U users, G their right rows, one user after another, K results of a user.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from igd_jax.core.ragged import Ragged
from igd_jax.evaluation import metrics
from igd_jax.evaluation.metrics import CatalogueRows


def user_metrics(
    rank: Int[np.ndarray, "G"], user: Int[np.ndarray, "G"], ks: Sequence[int]
) -> dict[str, Float[np.ndarray, "U"]]:
    """``recall@k`` and ``ndcg@k`` for each k, and ``mrr``: one value for each user who is named here, ascending.

    Args:
      rank: place of each right row in its user's list, from 0; -1 = missed.
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


def score_users(
    ranked: Int[np.ndarray, "U K"],
    right: Ragged,
    *,
    catalogue: CatalogueRows,
    ks: Sequence[int],
    n_invalid: int,
) -> dict[str, Any]:
    """How good the lists are, user by user, each with all that was right.

    Args:
      ranked: catalogue rows, best first; -1 = no result.
      right: catalogue rows that were right for each user, distinct, at least one.
      ks: cut-offs. Those above K are left out and listed under ``ks_skipped``.
      n_invalid: results that are no item.

    Returns:
      ``recall@k``, ``ndcg@k`` and ``mrr`` (over all K results); ``n`` users; ``ground_truth``, the ``mean`` and ``max``
      of their right rows; ``invalid``; ``target_absent``, right rows that are no candidate; ``ks_skipped``; the same
      metrics as ``popularity_baseline`` (`metrics.most_popular`), and as ``slices``: ``warm`` and ``cold``, with only
      the right rows that training saw or did not. A slice has the ``n`` users with such a row, and the others are
      ``left_out``; metrics of an empty slice are None.

    Raises:
      InputError: there is no user, or no k from 1 to K.
    """
    n, n_results = ranked.shape
    kept = metrics.kept_cutoffs(ks, n_rows=n, n_results=n_results)
    row, user = right.ids, np.repeat(np.arange(n), right.lengths)

    def means(rank: np.ndarray, user: np.ndarray) -> dict[str, float | None]:
        values = user_metrics(rank, user, kept)
        return {name: float(value.mean()) if value.size else None for name, value in values.items()}

    def one_slice(mask: np.ndarray) -> dict[str, Any]:
        n_here = np.unique(user[mask]).size
        return {"n": n_here, "left_out": n - n_here, **means(rank[mask], user[mask])}

    rank, is_warm = metrics.rank_of_target(ranked[user], row), catalogue.is_warm[row]
    popular = np.tile(metrics.most_popular(catalogue, n_results), (row.size, 1))
    return {
        **means(rank, user),
        "n": n,
        "ground_truth": {"mean": float(right.lengths.mean()), "max": int(right.lengths.max())},
        "invalid": n_invalid,
        "target_absent": int((~catalogue.is_candidate[row]).sum()),
        "ks_skipped": sorted(set(ks) - set(kept)),
        "popularity_baseline": means(metrics.rank_of_target(popular, row), user),
        "slices": {"warm": one_slice(is_warm), "cold": one_slice(~is_warm)},
    }
