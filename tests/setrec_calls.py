"""A small catalogue and histories for SETRec, and what tests ask of its model, compiled once per shape."""

from collections.abc import Callable
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import tiny_run
from flax import nnx

from igd_jax.core.types import ItemBatch, LossSum, Recommendations
from igd_jax.data.tokenizer import train_tokenizer
from igd_jax.decoding.engine import recommend
from igd_jax.items.index import ItemIndex, build_index
from igd_jax.methods.setrec import SETRec
from igd_jax.models.setrec import SetModel

TOKENIZER = train_tokenizer(tiny_run.TITLES, vocab_size=300)


def index_of(titles: list[str], *, candidates: np.ndarray | None = None) -> ItemIndex:
    """Titles, all or some of them candidates."""
    tokens = TOKENIZER.encode_titles(titles)
    every = np.ones(len(titles), bool)
    return build_index(
        titles, tokens, np.ones(len(titles), np.int64), candidates=every if candidates is None else candidates
    )


INDEX = index_of(tiny_run.TITLES, candidates=np.arange(len(tiny_run.TITLES)) != 5)
"""Item 5 is not a candidate; items 3 and 22 share a title."""


def batch_of(n_rows: int, *, width: int = 4, seed: int = 0) -> ItemBatch:
    """Histories of 1 to 3 items and a last row that only fills up."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 4, n_rows)
    lengths[-1] = 0
    mask = np.arange(width) >= width - lengths[:, None]
    return ItemBatch(
        history=np.where(mask, rng.integers(0, len(tiny_run.TITLES), mask.shape), 0).astype(np.int32),
        history_mask=mask,
        target=np.where(lengths > 0, rng.integers(0, len(tiny_run.TITLES), n_rows), 0).astype(np.int32),
        is_real=lengths > 0,
    )


@partial(nnx.jit, static_argnames="padded")
def ask(model: SetModel, batch: ItemBatch, *, padded: bool = False) -> tuple[jax.Array, jax.Array]:
    """Outputs of the queries [B Z D], and scores of each [Z B I]."""
    asked = model(model.tokens(batch.history), batch.history_mask, padded=padded)
    return asked, jnp.einsum("BZD,IZD->ZBI", asked, model.tokens(jnp.arange(model.tokens.n_items)))


def loss_of(method: SETRec, model: SetModel, batch: ItemBatch) -> LossSum:
    """The loss sum that is trained."""
    return _loss(method)(model, batch)


@cache
def _loss(method: SETRec) -> Callable[[SetModel, ItemBatch], LossSum]:
    objective = method.objective(tiny_run.context_of(index_of(tiny_run.TITLES)))
    return nnx.jit(lambda model, batch: objective.loss(model, batch, objective.tables, {}))


def rank(method: SETRec, model: SetModel, batch: ItemBatch, index: ItemIndex) -> Recommendations:
    """Lists of 8."""
    engine = method.engine(tiny_run.context_of(index), model, tiny_run.decode_options(index, top_k=8))
    return recommend(engine, batch)
