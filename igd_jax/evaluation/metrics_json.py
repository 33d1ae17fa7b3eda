"""metrics.json: the measurements of one evaluation. Its keys are defined here only."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from igd_jax.core.ragged import Ragged
from igd_jax.evaluation.metrics import CatalogueRows, score_rows
from igd_jax.evaluation.queries import Queries, distinct_targets
from igd_jax.evaluation.user_metrics import score_users


def metrics_of(
    queries: Queries,
    *,
    ranked: Int[np.ndarray, "Q K"],
    scores: Float[np.ndarray, "Q K"],
    catalogue: CatalogueRows,
    ks: Sequence[int],
    candidates: str,
) -> dict[str, Any]:
    """Content of metrics.json: `score_rows` or `score_users`, with the ``protocol`` and the name of the candidates.

    Args:
      queries: queries, with their targets.
      ranked: catalogue rows, best first; -1 = no result.
      scores: final scores; -inf = no result. A result with a score but no row is invalid.
      catalogue: the catalogue.
      ks: cut-offs.
      candidates: name or file that the candidates were chosen by.

    Raises:
      InputError: there are no queries, or no k is from 1 to K.
    """
    n_invalid = int(((scores > -np.inf) & (ranked < 0)).sum())
    if queries.protocol == "rows":
        target = queries.targets.ids
        scored = score_rows(ranked, target, catalogue=catalogue, ks=ks, n_invalid=n_invalid)
    else:
        right = distinct_targets(queries, catalogue.row_of_item)
        rows = Ragged(catalogue.row_of_item[right.ids], right.start)
        scored = score_users(ranked, rows, catalogue=catalogue, ks=ks, n_invalid=n_invalid)
    return {**scored, "protocol": queries.protocol, "candidates": candidates}
