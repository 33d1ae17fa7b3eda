"""Rank users by a run: batches through the method's `recommend`, and its results as items, titles and scores."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Float, Int
from ml_collections import ConfigDict

from igd_jax.core.errors import InputError
from igd_jax.core.log import Progress
from igd_jax.core.types import Batch, Ranked
from igd_jax.data.batches import by_length, in_groups, make_batch, pad_rows
from igd_jax.data.collaborative import Collaborative, load_collaborative, popularity
from igd_jax.data.examples import Examples
from igd_jax.data.prepared import Rows
from igd_jax.decoding.beam_search import SearchOptions
from igd_jax.items.index import ItemIndex
from igd_jax.methods.base import Method
from igd_jax.session.session import Run
from igd_jax.training.mesh import by_row, check_divides, replicated


def search_options(config: ConfigDict, index: ItemIndex) -> SearchOptions:
    """`config.decode` as the search takes it.

    Raises:
      InputError: a value out of its range.
    """
    decode = config.decode
    if not 0.0 <= decode.alpha <= 1.0:
        raise InputError(f"config.decode.alpha is {decode.alpha}; expected a discount from 0 to 1")
    if not 0.0 < decode.temperature < math.inf:
        raise InputError(f"config.decode.temperature is {decode.temperature}; expected a number above 0")
    if not math.isfinite(decode.length_penalty):
        raise InputError(f"config.decode.length_penalty is {decode.length_penalty}; expected a number, 0 for sums")
    if decode.num_beams < 1:
        raise InputError(f"config.decode.num_beams is {decode.num_beams}; expected at least 1")
    longest = index.longest_title
    return SearchOptions(
        alpha=jnp.float32(decode.alpha),
        temperature=jnp.float32(decode.temperature),
        length_penalty=float(decode.length_penalty),
        num_beams=decode.num_beams,
        max_length=min(decode.max_new_tokens, longest) if decode.max_new_tokens else longest,
    )


def collaborative_source(run: Run, *, split: str | None, n_rows: int) -> Collaborative | None:
    """The source that `config.decode.collaborative` names, for all rows of a split; None where it is empty.

    Args:
      split: None for a history that is of no split.

    Raises:
      InputError: there is no such source, or it has no scores for these rows.
    """
    given = run.config.decode.collaborative
    if not given:
        return None
    if given == "popularity":
        return popularity(run.counts, n_rows)
    if split is None:
        raise InputError(
            f"config.decode.collaborative is {given!r}, which has scores for the rows of a split only; for a new "
            "history give 'popularity' or ''"
        )
    fingerprint = run.prepared.meta["fingerprint"]
    return load_collaborative(Path(given), fingerprint=fingerprint, split=split, n_rows=n_rows, n_items=len(run.counts))


def make_recommend(run: Run, model: nnx.Module) -> Callable[[dict[str, np.ndarray]], Ranked]:
    """The method's `recommend` of a host batch, compiled once a batch shape; what it looks up is put on the devices."""
    options, tables = search_options(run.config, run.index), run.method.tables(run.context, model)
    graph, state = nnx.split(model)
    held = jax.device_put((state, tables, options), replicated(run.mesh))

    @jax.jit
    def recommend(held: Any, batch: Batch) -> Ranked:
        state, tables, options = held
        return run.method.recommend(nnx.merge(graph, state), batch, tables=tables, options=options)

    return lambda batch: recommend(held, jax.device_put(batch, by_row(run.mesh)))


def rank(
    run: Run, model: nnx.Module, examples: Examples, collaborative: Collaborative | None = None
) -> tuple[Int[np.ndarray, "R K"], Float[np.ndarray, "R K"], Int[np.ndarray, "R K"]]:
    """Recommend for every example, in its order.

    Returns:
      catalogue rows (-1 = none), scores (-inf = none), and trie nodes (-1 = none).
    """
    size = run.config.decode.batch_size
    check_divides("config.decode.batch_size", size, run.mesh)
    recommend = make_recommend(run, model)
    rows = np.full((len(examples), run.config.decode.num_beams), -1, np.int32)
    scores = np.full(rows.shape, -np.inf, np.float32)
    nodes = np.full(rows.shape, -1, np.int32)
    progress, done = Progress("recommend", len(examples), "users"), 0
    for group in in_groups(by_length(examples, np.arange(len(examples))), size):
        batch = make_batch(examples, group, run.index.item_tokens, {}, size=size, inputs=run.method.inputs)
        if collaborative is not None:
            batch["collaborative"] = pad_rows(collaborative.scores(group), size)
        ranked = jax.device_get(recommend(batch))
        for out, found in ((rows, ranked.rows), (scores, ranked.scores), (nodes, ranked.nodes)):
            out[group] = found[: len(group)]
        done += len(group)
        progress.update(done)
    return rows, scores, nodes


def collaborative_vectors(run: Run, model: nnx.Module, split_rows: Rows) -> Collaborative | None:
    """What the method's `vectors` says of every row, in their order, and of all items; None where it says nothing."""
    if type(run.method).vectors is Method.vectors:
        return None
    examples = run.examples(split_rows)
    graph, state = nnx.split(model)
    held = jax.device_put(state, replicated(run.mesh))

    @jax.jit
    def vectors(state: Any, batch: Batch) -> Any:
        return run.method.vectors(nnx.merge(graph, state), batch)

    users, items, size = [], None, run.config.decode.batch_size
    for group in in_groups(np.arange(len(examples)), size):
        batch = make_batch(examples, group, run.index.item_tokens, {}, size=size, inputs=run.method.inputs)
        found, items = vectors(held, jax.device_put(batch, by_row(run.mesh)))
        users.append(jax.device_get(found)[: len(group)])
    return Collaborative(np.concatenate(users), jax.device_get(items))


def describe_results(
    run: Run, rows: Int[np.ndarray, " K"], scores: Float[np.ndarray, " K"], nodes: Int[np.ndarray, " K"]
) -> list[dict[str, Any]]:
    """Results of one user, best first, as in predictions.jsonl; a title cut before its end has no items."""
    catalog, found = run.index.catalog, []
    for row, score, node in zip(rows.tolist(), scores.tolist(), nodes.tolist(), strict=True):
        if row >= 0:
            items = [run.prepared.item_ids[item] for item in catalog.items_of(row)]
            tokens = catalog.tokens[row].tolist()
            found.append({"items": items, "title": run.index.title_of_row(row), "score": score, "tokens": tokens})
        elif node >= 0:
            found.append({"items": [], "title": "", "score": score, "tokens": []})
    return found
