"""How often a beam misses what an exact ranking by the same scores finds (docs/decoding.md, Exact ranking)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from igd_jax.core.errors import InputError
from igd_jax.decoding.exact import ExactSearch, exact_search
from igd_jax.decoding.search import TrieSearch
from igd_jax.evaluation.diversity import overlap
from igd_jax.evaluation.queries import evenly_spaced
from igd_jax.models.sharding_rules import placed
from igd_jax.session.collaborative import collaborative_source
from igd_jax.session.ranker import Ranker


def ranked_exactly(ranker: Ranker, ranking: ExactSearch, rows: Int[np.ndarray, " n"]) -> Int[np.ndarray, "n K"]:
    """Catalogue rows of exact lists after some rows of `config.eval.split`; -1 where a list ends."""
    session = ranker.session
    split = session.settings.eval.split
    whole = session.rows(split)
    source = collaborative_source(session, split=split, n_rows=len(whole))
    found = ranker.rank(
        ranker.examples(whole.take(rows)),
        collaborative=None if source is None else source.take(rows),
        allowed=ranker.allowed(whole, rows),
        engine=placed(ranking, session.mesh),
    )
    return np.asarray(found.rows)


def has_beam(ranker: Ranker) -> bool:
    """Whether lists come from a beam over the trie, which an exact ranking can be compared with."""
    return isinstance(ranker.engine, TrieSearch)


def exact_beside(ranker: Ranker) -> ExactSearch:
    """The exact ranking by the scores of the search whose beam recommends.

    Raises:
      InputError: lists do not come from a beam over the trie, or it can write no title.
    """
    if isinstance(ranker.engine, TrieSearch):
        return exact_search(ranker.engine, ranker.index)
    raise InputError(
        "--beam_misses compares a beam over the trie with an exact ranking, but these lists come from none; set "
        "config.decode.search to jump or stepwise, for a method that searches the trie, or leave the option out"
    )


def beam_misses(
    ranker: Ranker,
    ranking: ExactSearch,
    rows: Int[np.ndarray, " Q"],
    ranked: Int[np.ndarray, "Q K"],
    *,
    ks: Sequence[int],
    n_queries: int,
) -> dict[str, Any]:
    """Compare lists of a beam with exact ones.

    Args:
      ranker: the ranker that made the lists.
      ranking: `exact_beside` it.
      rows: row of each query in `config.eval.split`.
      ranked: catalogue rows that the beam recommends, best first; -1 = no result.
      ks: cut-offs.
      n_queries: number of queries that are ranked exactly, evenly spread; 0 = all.

    Returns:
      ``queries``, their number; and for each k, ``lists@k``, the share of lists whose first k results lack one of the
      exact first k, and ``results@k``, the share of the exact first k that are lacking.
    """
    some = evenly_spaced(len(rows), n_queries)
    exact = ranked_exactly(ranker, ranking, rows[some])
    misses: dict[str, Any] = {"queries": len(some)}
    for k in sorted({1, *ks}):
        lacking = 1.0 - overlap(ranked[some], exact, k)
        misses |= {f"lists@{k}": float((lacking > 0).mean()), f"results@{k}": float(lacking.mean())}
    return misses
