"""metrics.json: the measurements of one evaluation. Its keys are defined here only."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from igd_jax.core.allowed import Allowed
from igd_jax.core.ragged import Ragged
from igd_jax.evaluation.metrics import CatalogueRows, score_rows
from igd_jax.evaluation.queries import Queries, distinct_targets
from igd_jax.evaluation.significance import intervals
from igd_jax.evaluation.user_metrics import score_users


def metrics_of(
    queries: Queries,
    *,
    ranked: Int[np.ndarray, "Q K"],
    scores: Float[np.ndarray, "Q K"],
    catalogue: CatalogueRows,
    ks: Sequence[int],
    candidates: str,
    allowed: Sequence[Allowed | None] = (),
) -> dict[str, Any]:
    """Content of metrics.json: `score_rows` or `score_users`, intervals, the protocol and the name of the candidates.

    Args:
      queries: queries, with their targets.
      ranked: catalogue rows, best first; -1 = no result.
      scores: final scores; -inf = no result. A result with a score but no row is invalid.
      catalogue: the catalogue.
      ks: cut-offs.
      candidates: name or file that the candidates were chosen by.
      allowed: what may be recommended for each query; None, or an empty sequence = all candidates.

    Returns:
      The metrics of `score_rows` or `score_users`; ``n_users``; ``intervals``, the ``[low, high]`` of each metric of
      each query's list (`significance.intervals`); ``protocol`` and ``candidates``; and where something is not allowed,
      ``target_not_allowed``, the number of targets whose rows are candidates, but not for their query.

    Raises:
      InputError: there are no queries, or no k is from 1 to K.
    """
    how: dict[str, Any] = {"catalogue": catalogue, "ks": ks, "allowed": allowed}
    how["n_invalid"] = int(((scores > -np.inf) & (ranked < 0)).sum())
    if queries.protocol == "rows":
        target = queries.targets.ids
        rows = Ragged(catalogue.row_of_item[target], queries.targets.start)
        scored, by_query = score_rows(ranked, target, **how)
    else:
        right = distinct_targets(queries, catalogue.row_of_item)
        rows = Ragged(catalogue.row_of_item[right.ids], right.start)
        scored, by_query = score_users(ranked, rows, **how)
    if any(allowed):
        scored["target_not_allowed"] = sum(
            int((catalogue.is_candidate[own] & ~each.allows(own)).sum())
            for each, own in zip(allowed, np.split(rows.ids, rows.start[1:-1]), strict=True)
            if each is not None
        )
    told = {name: list(bounds) for name, bounds in intervals(by_query, queries.user).items()}
    n_users = len(set(queries.user.tolist()))
    return {**scored, "n_users": n_users, "intervals": told, "protocol": queries.protocol, "candidates": candidates}
