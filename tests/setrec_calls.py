"""What tests ask of SETRec's model, compiled once per shape."""

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


def index_of(titles: list[str], *, candidates: np.ndarray | None = None) -> ItemIndex:
    """Titles, all or some of them candidates."""
    tokens = train_tokenizer(tiny_run.TITLES, vocab_size=300).encode_titles(titles)
    every = np.ones(len(titles), bool)
    return build_index(
        titles, tokens, np.ones(len(titles), np.int64), candidates=every if candidates is None else candidates
    )


@nnx.jit
def ask(model: SetModel, batch: ItemBatch) -> tuple[jax.Array, jax.Array]:
    """Outputs of the queries [B Z D], and scores of each [Z B I]."""
    asked = model(model.tokens(batch.history), batch.history_mask)
    return asked, jnp.einsum("BZD,IZD->ZBI", asked, model.tokens(jnp.arange(model.tokens.n_items)))


def loss_of(method: SETRec, model: SetModel, batch: ItemBatch) -> LossSum:
    """The loss sum that is trained."""
    objective = method.objective(tiny_run.context_of(index_of(tiny_run.TITLES)))
    return nnx.jit(lambda model, batch: objective.loss(model, batch, objective.tables, {}))(model, batch)


def rank(method: SETRec, model: SetModel, batch: ItemBatch, index: ItemIndex) -> Recommendations:
    """Lists of 8."""
    engine = method.engine(tiny_run.context_of(index), model, tiny_run.decode_options(index, top_k=8))
    return recommend(engine, batch)
