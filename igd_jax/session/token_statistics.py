"""What the model of a run makes of given titles, token by token."""

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from igd_jax.core.log import Progress
from igd_jax.core.map_rows import in_groups
from igd_jax.core.ragged import places_in_rows, ragged_index
from igd_jax.core.sharding import divisible, row_shards
from igd_jax.core.types import TextBatch
from igd_jax.data.batches import by_length, make_text_batch
from igd_jax.data.examples import Examples
from igd_jax.decoding.exact import rows_at_once
from igd_jax.evaluation.token_figures import TitleTokens
from igd_jax.items.index import TokenWalk
from igd_jax.methods.base import target_logits
from igd_jax.models.backbone import Backbone
from igd_jax.models.sharding_rules import placed
from igd_jax.models.without_history import logits_without_history
from igd_jax.session.ranker import Ranker
from igd_jax.training.mesh import put_batch


def title_tokens(
    ranker: Ranker,
    examples: Examples,
    item: Int[np.ndarray, " R"],
    walk: TokenWalk,
    *,
    model: nnx.Module | None = None,
) -> TitleTokens:
    """Run the model on one title after each prompt.

    Args:
      ranker: a run whose model writes text.
      examples: prompts.
      item: item whose title follows each prompt.
      walk: gain of the tokens of all items.
      model: model to run, if it is another one.

    Returns:
      Tokens of the titles, in the order of the prompts.
    """
    tokens = ranker.index.item_tokens
    found, lengths = token_statistics(ranker, examples, item, model=model), tokens.lengths[item]
    at = ragged_index(tokens.start[item], lengths)
    return TitleTokens(
        places_in_rows(lengths),
        walk.gain[at],
        walk.forced[at],
        np.repeat(walk.on_trie[item], lengths),
        mass_left(ranker, walk)[at],
        *found,
    )


def token_statistics(
    ranker: Ranker, examples: Examples, item: Int[np.ndarray, " R"], *, model: nnx.Module | None = None
) -> Float[np.ndarray, "3 total"]:
    """Of each token of one title after each prompt, one title after another, in nats, float32.

    Args:
      ranker, examples, item, model: as in `title_tokens`.

    Returns:
      Log-probability of the token, entropy of its distribution, and log-probability after the prompt without history.
    """
    session, tokens = ranker.session, ranker.index.item_tokens
    examples = replace(examples, target=item)
    graph, weights = nnx.split(ranker.trained.model if model is None else model)
    weights = placed(weights, session.mesh)
    prompt = jnp.asarray(session.prompts.without_history(), jnp.int32)
    lengths = tokens.lengths[item]
    at_once = rows_at_once(int(lengths.max()), session.identifiers.vocab_size) * row_shards(session.mesh)
    size = divisible(min(session.settings.decode.batch_size, len(item), at_once), session.mesh)
    start = np.cumsum(lengths) - lengths
    found = np.empty((3, lengths.sum()), np.float32)
    progress, done = Progress("tokens", len(item), "titles") if len(item) > size else None, 0
    for group in in_groups(by_length(examples, np.arange(len(item))), size):
        batch = make_text_batch(examples, group, tokens, {}, size=size)
        mask = np.asarray(batch.target_mask)
        with jax.set_mesh(session.mesh):
            values = np.asarray(_statistics(graph, weights, put_batch(batch, session.mesh), prompt))
        found[:, ragged_index(start[group], lengths[group])] = values[:, mask]
        done += len(group)
        if progress:
            progress.update(done)
    return found


def mass_left(ranker: Ranker, walk: TokenWalk) -> Float[np.ndarray, " total"]:
    """Entropy mass of the titles that are possible before each token of all items: what earlier tokens do not take.

    No token of a title off the trie takes any, so there the mass is that of the root: it says nothing.
    """
    tokens = ranker.index.item_tokens
    taken = np.cumsum(walk.gain) - walk.gain
    before = taken - np.repeat(taken[tokens.start[:-1]], tokens.lengths)
    return ranker.session.index.gain.root_entropy - before


@partial(jax.jit, static_argnums=0)
def _statistics(graph: Any, weights: Any, batch: TextBatch, prompt: Int[Array, " P"]) -> Float[Array, "3 B T"]:
    """Log-probability of each target token, entropy of its distribution, and log-probability without history."""
    model: Backbone = nnx.merge(graph, weights)
    logp = jax.nn.log_softmax(target_logits(model, batch), axis=-1)
    entropy = -(jnp.exp(logp) * logp).sum(axis=-1)
    without = jax.nn.log_softmax(logits_without_history(model, batch, prompt), axis=-1)
    own, own_without = (jnp.take_along_axis(each, batch.target[..., None], axis=-1)[..., 0] for each in (logp, without))
    return jnp.stack([own, entropy, own_without])
