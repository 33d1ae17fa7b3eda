"""MSL on a few titles: catalogue, model, batches, and its loss by brute force."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from plain_trie import EOS, plain_trie
from searches import index_of
from tiny_run import HF_CONFIG, context_of

from igd_jax.core.ragged import Ragged
from igd_jax.core.types import LossSum, TextBatch
from igd_jax.data.batches import make_text_batch
from igd_jax.data.examples import Examples, shared_prefix
from igd_jax.methods.base import Context, target_logits
from igd_jax.methods.msl import MSL
from igd_jax.models.decoder import Decoder
from igd_jax.models.hf_config import from_hf

# Six first tokens; after "3" there are three choices. Item 4, no candidate, leaves the trie at its second token.
TITLES = [[1, 9, EOS], [2, 9, EOS], [3, 9, EOS], [3, 4, 9, EOS], [1, 5, 9, EOS], [3, 5, 7, 9, EOS], [4, EOS], [5, EOS]]
TITLES += [[6, EOS]]
CANDIDATES = np.arange(len(TITLES)) != 4
N_FIRST = 6
ADAPTIVE = MSL(tau=1.5, adaptive=True, denominator="deciding")
MICRO_BATCHES = ([[7, 8, 7, 8, 7, 8, 4, 3]], [[3, 4, 8, 7], [7, 8, 7, 8]], [[7, 8, 7], [8, 7, 8], [4, 3]])
"""Targets that the weights prefer, so that the temperature is not at its bounds."""


def make_context() -> Context:
    return context_of(index_of(TITLES, candidates=CANDIDATES))


def make_model() -> Decoder:
    """Random weights, large enough for logits that differ by several."""
    made = nnx.jit(lambda: Decoder(from_hf(HF_CONFIG), rngs=nnx.Rngs(0)))()
    made.embed[...] = made.embed[...] * 20.0
    return made


def batch_of(context: Context, items: list[int], *, size: int) -> TextBatch:
    """A batch of training: a row per item, each after a prompt of its own; rows beyond them fill up."""
    prompts = Ragged.from_lists([[20 + item, 30] for item in items])
    every = np.ones(len(items), bool)
    examples = Examples(prompts, np.array(items, np.int32), ~every, shared_prefix(prompts, every), every)
    annotations = MSL().objective(context).annotations
    rows, tokens, seed = np.arange(len(items)), context.index.item_tokens, np.zeros(len(items), np.int32)
    batch = make_text_batch(examples, rows, tokens, annotations, size=size, seed=seed)
    return jax.tree.map(jnp.asarray, batch)


def loss_of(
    method: MSL, context: Context, model: Decoder, batch: TextBatch, state: dict[str, Any] | None = None
) -> LossSum:
    objective = method.objective(context)
    loss = nnx.jit(lambda model, batch, tables, state: objective.loss(model, batch, tables, state))
    return loss(model, batch, objective.tables, state or {})


def parts_of(model: Decoder, batch: TextBatch) -> list[tuple[float, list[float]]]:
    """By brute force: the target's logit and those of all legal tokens, for each token of the candidates' titles."""
    kept = [row for row, is_candidate in zip(TITLES, CANDIDATES, strict=True) if is_candidate]
    logits = np.asarray(nnx.jit(target_logits)(model, batch), np.float64)
    found = []
    for row, target, mask in zip(logits, np.asarray(batch.target), np.asarray(batch.target_mask), strict=True):
        title = target[mask].tolist()
        if title not in kept:
            continue
        node = plain_trie(kept)[0]
        for place, token in enumerate(title):
            found.append((row[place, token], [row[place, child] for child in node.children]))
            node = node.children[token]
    return found


def nll_of(target: float, legal: list[float], tau: float) -> float:
    return math.log(sum(math.exp(z / tau) for z in legal)) - target / tau
