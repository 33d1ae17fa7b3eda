"""Lists for the queries of a split, and their metrics."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from igd_jax.core.io import Workdir
from igd_jax.core.log import say
from igd_jax.core.types import Recommendations
from igd_jax.data.prepared import Rows
from igd_jax.evaluation.examples import example_line
from igd_jax.evaluation.metrics import CatalogueRows
from igd_jax.evaluation.metrics_json import metrics_of
from igd_jax.evaluation.predictions import Prediction
from igd_jax.evaluation.queries import Queries, describe_targets, evenly_spaced, make_queries
from igd_jax.session.beam_misses import beam_misses, exact_beside
from igd_jax.session.collaborative import collaborative_source
from igd_jax.session.ranker import Ranker
from igd_jax.session.session import set_up_to_decode
from igd_jax.session.weights import Trained

N_EXAMPLES = 3
"""Queries that are shown as examples."""


@dataclass(frozen=True)
class Scored:
    """Recommendations for the queries of a split, and their metrics.

    Attributes:
      ranker: ranker of the run.
      rows: all rows of the split.
      queries: queries and their targets.
      catalogue: properties of the catalogue that metrics use.
      found: lists, as NumPy arrays.
      metrics: content of metrics.json.
      users_per_second: speed of ranking, compilation included.
    """

    ranker: Ranker
    rows: Rows
    queries: Queries
    catalogue: CatalogueRows
    found: Recommendations
    metrics: dict[str, Any]
    users_per_second: float


def score(
    config: ConfigDict,
    workdir: Workdir,
    *,
    trained: Trained | None = None,
    exact_queries: int | None = None,
    unfinished: Path | None = None,
) -> Scored:
    """Recommend for the queries of `config.eval` and compute the metrics, without writing an evaluation.

    Args:
      config: the config.
      workdir: folder of the run.
      trained: its weights, where they are loaded already.
      exact_queries: queries that are also ranked exactly, for ``beam_misses`` in the metrics; 0 = all, None = none.
      unfinished: folder for what is found so far, to go on from if this is interrupted; see `Ranker.rank`.

    Raises:
      InputError: the config is bad, or there is no model, or no beam to compare with an exact ranking.
    """
    session = set_up_to_decode(config, workdir)
    settings = session.settings
    rows = session.rows(settings.eval.split)
    queries = make_queries(
        settings.eval.protocol,
        user=rows.user,
        timestamp=rows.timestamp,
        target=rows.target,
        max_examples=settings.eval.max_examples,
    )
    source = collaborative_source(session, split=settings.eval.split, n_rows=len(rows))
    ranker = Ranker(session, workdir, trained=trained)
    exact = None if exact_queries is None else exact_beside(ranker)
    examples, allowed = ranker.examples(rows.take(queries.row)), ranker.allowed(rows, queries.row)
    start = time.monotonic()
    found = ranker.rank(
        examples,
        collaborative=None if source is None else source.take(queries.row),
        allowed=allowed,
        unfinished=unfinished,
    )
    seconds = time.monotonic() - start
    catalogue = session.catalogue
    metrics = metrics_of(
        queries,
        ranked=np.asarray(found.rows),
        scores=np.asarray(found.scores),
        catalogue=catalogue,
        ks=settings.eval.ks,
        candidates=settings.decode.candidates,
        allowed=allowed,
    )
    if exact is not None and exact_queries is not None:
        metrics["beam_misses"] = misses = beam_misses(
            ranker, exact, queries.row, np.asarray(found.rows), ks=settings.eval.ks, n_queries=exact_queries
        )
        say(f"the beam beside an exact ranking: {misses}")
    return Scored(ranker, rows, queries, catalogue, found, metrics, (len(queries) - ranker.n_read) / seconds)


def predictions_of(scored: Scored) -> Iterator[Prediction]:
    """Content of predictions.jsonl."""
    session, found = scored.ranker.session, scored.found
    targets = describe_targets(
        scored.queries,
        scored.catalogue,
        item_ids=session.prepared.item_ids,
        titles=session.prepared.titles,
    )
    for q, (row, target) in enumerate(zip(scored.queries.row.tolist(), targets, strict=True)):
        ranked = scored.ranker.results(found, q)
        yield Prediction(row, scored.rows.user[row], target, ranked)


def examples_of(scored: Scored) -> list[str]:
    """Lines about `N_EXAMPLES` queries, evenly spread; see `evaluation.examples.example_line`."""
    ranker, queries = scored.ranker, scored.queries
    titles, row_of_item = ranker.session.prepared.titles, ranker.index.catalog.row_of_item
    lines = []
    for q in evenly_spaced(len(queries), N_EXAMPLES).tolist():
        history, targets = scored.rows.history[int(queries.row[q])], queries.targets[q]
        hits = np.flatnonzero(np.isin(np.asarray(scored.found.rows[q]), row_of_item[targets]))
        lines.append(
            example_line(
                [titles[item] for item in history],
                [titles[item] for item in targets],
                int(hits[0]) if len(hits) else -1,
                [one.title for one in ranker.results(scored.found, q)],
            )
        )
    return lines
