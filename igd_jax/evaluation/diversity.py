"""Diversity and popularity of recommended items, beside those of the truth (docs/analysis.md, Lists)."""

import numpy as np
from jaxtyping import Float, Int

from igd_jax.evaluation.metrics import POPULARITY_THIRDS, CatalogueRows, popularity_third


def entropy(counts: Int[np.ndarray, " n"]) -> float:
    """Entropy of a distribution that is given by counts, in nats; 0 if all are 0."""
    p = counts[counts > 0] / max(counts.sum(), 1)
    return float(-(p * np.log(p)).sum()) + 0.0  # no -0.0


def gini(counts: Int[np.ndarray, " n"]) -> float:
    """Gini index of counts: 0 if all are equal, near 1 if one has all; 0 if all are 0."""
    n, total = counts.size, counts.sum()
    if not total:
        return 0.0
    ascending = np.sort(counts).astype(np.float64)
    return float(2.0 * (np.arange(1, n + 1) * ascending).sum() / (n * total) - (n + 1) / n)


def describe_choice(
    rows: Int[np.ndarray, " n"], catalogue: CatalogueRows, first_token: Int[np.ndarray, " N"]
) -> dict[str, float | int]:
    """Diversity and popularity of some items, each as often as it was recommended or taken.

    Args:
      rows: catalogue rows, at least one.
      catalogue: the catalogue.
      first_token: first token of each catalogue row; -1 = none, which its figures leave out.

    Returns:
      ``n``; ``distinct`` rows; ``coverage`` of the candidates; ``entropy`` (nats) and ``gini`` over the candidates and
      whatever else occurs; ``first_token_entropy`` (nats) and ``first_token_top``, the share of the most frequent first
      token; ``train_count``, the mean number of train targets; ``never_target``, the share without any; and the shares
      of ``head``, ``mid`` and ``tail`` (`metrics.popularity_third`).
    """
    counts = np.bincount(rows, minlength=catalogue.count.size)
    among = catalogue.is_candidate | (counts > 0)
    token = first_token[rows]
    tokens = np.bincount(token[token >= 0])
    third = popularity_third(catalogue.count[rows], catalogue.count[catalogue.is_candidate])
    return {
        "n": int(rows.size),
        "distinct": int((counts > 0).sum()),
        "coverage": float((counts[catalogue.is_candidate] > 0).mean()),
        "entropy": entropy(counts),
        "gini": gini(counts[among]),
        "first_token_entropy": entropy(tokens),
        "first_token_top": float(tokens.max(initial=0) / max(tokens.sum(), 1)),
        "train_count": float(catalogue.count[rows].mean()),
        "never_target": float((catalogue.count[rows] == 0).mean()),
        **{name: float((third == i).mean()) for i, name in enumerate(POPULARITY_THIRDS)},
    }


def overlap(a: Int[np.ndarray, "R K"], b: Int[np.ndarray, "R K"], k: int) -> Float[np.ndarray, " R"]:
    """Share of the first k results of `b` that are among the first k of `a`, by row; 1 of none; -1 is no result."""
    shared = (b[:, :k, None] == a[:, None, :k]) & (b[:, :k, None] >= 0)
    n_results = (b[:, :k] >= 0).sum(axis=1)
    return np.where(n_results > 0, shared.any(axis=2).sum(axis=1) / np.maximum(n_results, 1), 1.0)
