"""Rank users by a run: batches through the method's `recommend`, and its results as items, titles and scores."""

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
from igd_jax.data.batches import by_length, in_groups, make_batch
from igd_jax.data.examples import Examples
from igd_jax.decoding.beam_search import SearchOptions
from igd_jax.decoding.constraint import DeviceTrie, device_trie
from igd_jax.items.index import ItemIndex
from igd_jax.models.decoder import Decoder
from igd_jax.run import Run
from igd_jax.training.sharding import by_row, check_divides, replicated


def search_options(config: ConfigDict, index: ItemIndex) -> SearchOptions:
    """`config.decode` as the search takes it.

    Raises:
      InputError: a value out of its range.
    """
    decode = config.decode
    if not 0.0 <= decode.alpha <= 1.0:
        raise InputError(f"config.decode.alpha is {decode.alpha}; expected a discount from 0 to 1")
    if decode.temperature <= 0.0:
        raise InputError(f"config.decode.temperature is {decode.temperature}; expected a number above 0")
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


def rank(
    run: Run, model: Decoder, examples: Examples
) -> tuple[Int[np.ndarray, "R K"], Float[np.ndarray, "R K"], Int[np.ndarray, "R K"]]:
    """Recommend for every example, in its order.

    Returns:
      catalogue rows (-1 = none), scores (-inf = none), and trie nodes (-1 = none).
    """
    size = run.config.decode.batch_size
    check_divides("config.decode.batch_size", size, run.mesh)
    options = search_options(run.config, run.index)
    trie = device_trie(run.index.trie, run.index.gain, max_length=run.index.longest_title)
    graph, params = nnx.split(model)
    params, trie, options = jax.device_put((params, trie, options), replicated(run.mesh))

    @jax.jit
    def recommend(params: Any, batch: Batch, trie: DeviceTrie, options: SearchOptions) -> Ranked:
        return run.method.recommend(nnx.merge(graph, params), batch, trie=trie, options=options)

    rows = np.full((len(examples), options.num_beams), -1, np.int32)
    scores = np.full(rows.shape, -np.inf, np.float32)
    nodes = np.full(rows.shape, -1, np.int32)
    progress, done = Progress("recommend", len(examples), "users"), 0
    for group in in_groups(by_length(examples, np.arange(len(examples))), size):
        batch = make_batch(examples, group, run.index.item_tokens, {}, size=size)
        ranked = jax.device_get(recommend(params, jax.device_put(batch, by_row(run.mesh)), trie, options))
        for out, found in ((rows, ranked.rows), (scores, ranked.scores), (nodes, ranked.nodes)):
            out[group] = found[: len(group)]
        done += len(group)
        progress.update(done)
    return rows, scores, nodes


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
