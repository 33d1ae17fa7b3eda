"""SASRec: recommend items by their ids only (Kang & McAuley, arXiv 1808.09781; docs/methods/sasrec.md).

    softmax:  L = logsumexp_i s(u, i) - s(u, target)
    bce:      L = -log sigmoid(s(u, target)) - log sigmoid(-s(u, negative)),   negative uniform over the other items

It does not read texts. Training exports vectors of users and items, which D3 and BIGRec use as collaborative scores.

Batches without seeds are validation batches, whose loss is 1 - NDCG@20 of the target among all items, the published
criterion for early stopping. With the likelihood, targets that do not occur in train soon dominate if new items appear
over time, as in Amazon data, so that the weights of the first epoch, which rank worst, would be kept.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx, struct
from jaxtyping import Array, Float, Int

from igd_jax.core.types import ItemBatch, LossSum, Recommendations
from igd_jax.decoding.dense_topk import top_k
from igd_jax.decoding.engine import Engine, OneCall
from igd_jax.methods.base import CollaborativeMethod, Context, DecodeOptions, Objective, check_argument
from igd_jax.models.sasrec import SASRec, SASRecConfig, scores_of
from igd_jax.training.loss import weighted_cross_entropy
from igd_jax.training.step import LossState

LOSSES = ("softmax", "bce")
NDCG_AT = 20
NEGATIVE = 1_000_003
"""Number folded into a row's key for its negative; dropout folds in small numbers."""


@struct.dataclass
class ItemRanking(OneCall):
    """Ranks all candidates by their scores; the score of a title that several items share is the highest of theirs.

    Attributes:
      graph, weights: parts of the model; see `nnx.split`.
      row_of_item: catalogue row of each item; N, one beyond the last row, for items that are not candidates.
      n_rows: number of catalogue rows, N.
      top_k: length of the lists.
    """

    graph: Any = struct.field(pytree_node=False)
    weights: Any
    row_of_item: Int[Array, " items"]
    n_rows: int = struct.field(pytree_node=False)
    top_k: int = struct.field(pytree_node=False)

    def prefill(self, batch: ItemBatch) -> Recommendations:
        """The best K titles of each row."""
        model = nnx.merge(self.graph, self.weights)
        scores = scores_of(model(batch.history, batch.history_mask), model.items())
        none = jnp.full((self.n_rows, len(scores)), -jnp.inf, jnp.float32)
        by_title = none.at[self.row_of_item].max(scores.T, mode="drop").T
        if batch.allowed is not None:
            by_title = jnp.where(batch.allowed, by_title, -jnp.inf)
        best, rows = top_k(jnp.where(batch.is_real[:, None], by_title, -jnp.inf), self.top_k)
        return Recommendations(rows=jnp.where(best > -jnp.inf, rows, -1), scores=best)


class Sequential(CollaborativeMethod):
    """SASRec over the item ids.

    Args:
      loss: ``softmax`` over all items, or ``bce`` with one negative per row.
      max_history: number of newest items that are read; published: 10.
      width, num_blocks, num_heads, dropout: sizes; see `models.sasrec`.
    """

    model_kind = "sasrec"
    inputs = "items"
    decoding_args = ()
    beam_search = False
    score = "inner product of the vectors of user and item; the larger the better"
    backbones = ()
    needs_collaborative = False

    def __init__(
        self,
        *,
        loss: str = "softmax",
        max_history: int = 10,
        width: int = 64,
        num_blocks: int = 1,
        num_heads: int = 1,
        dropout: float = 0.5,
    ):
        check_argument("loss", loss, loss in LOSSES, " or ".join(LOSSES))
        for name, value in (("max_history", max_history), ("num_blocks", num_blocks), ("num_heads", num_heads)):
            check_argument(name, value, value >= 1, "at least 1")
        check_argument("width", width, width >= 1 and width % num_heads == 0, f"a multiple of the {num_heads} head(s)")
        check_argument("dropout", dropout, 0.0 <= dropout < 1.0, "a share from 0 to below 1")
        self._loss, self._sizes = loss, {"max_history": max_history, "width": width, "num_blocks": num_blocks}
        self._sizes |= {"num_heads": num_heads}
        self._dropout = dropout

    def make_model(self, context: Context) -> nnx.Module:
        """A network with random weights."""
        config = SASRecConfig(n_items=len(context.index.titles), dropout=self._dropout, **self._sizes)
        return nnx.jit(lambda: SASRec(config, rngs=nnx.Rngs(context.seed)))()

    def objective(self, context: Context) -> Objective:
        """The loss that the argument `loss` names."""
        return Objective(partial(_loss, is_softmax=self._loss == "softmax"), criterion=f"1 - NDCG@{NDCG_AT}")

    def engine(self, context: Context, model: SASRec, options: DecodeOptions) -> Engine:
        """One product with all items."""
        index = context.index
        row = np.where(index.candidates, index.catalog.row_of_item, len(index.catalog))
        return ItemRanking(
            *nnx.split(model),
            row_of_item=jnp.asarray(row, jnp.int32),
            n_rows=len(index.catalog),
            top_k=options.top_k,
        )

    def vectors(self, model: SASRec, batch: ItemBatch) -> tuple[Float[Array, "B D"], Float[Array, "items D"]]:
        """Vectors of the network."""
        return model(batch.history, batch.history_mask), model.items()


def _loss(model: SASRec, batch: ItemBatch, tables: Any, state: LossState, *, is_softmax: bool) -> LossSum:
    """In training, the loss summed over real rows; without seeds, the sum of 1 - NDCG@20."""
    weight = batch.is_real.astype(jnp.float32)
    scores = scores_of(model(batch.history, batch.history_mask, batch.seed), model.items())
    softmax = weighted_cross_entropy(scores[:, None], batch.target[:, None], weight[:, None], parts={})
    if batch.seed is None:
        missed = 1.0 - target_ndcg(scores, batch.target)
        return LossSum((weight * missed).sum(), weight.sum(), {"loss_softmax": (softmax.loss, softmax.weight)})
    if is_softmax:
        return softmax
    other = negatives(batch.seed, batch.target, n_items=scores.shape[1])
    own, others = (jnp.take_along_axis(scores, item[:, None], axis=1)[:, 0] for item in (batch.target, other))
    nll = -jax.nn.log_sigmoid(own) - jax.nn.log_sigmoid(-others)
    return LossSum((weight * nll).sum(), weight.sum(), {})


def negatives(seed: Int[Array, " B"], target: Int[Array, " B"], *, n_items: int) -> Int[Array, " B"]:
    """One item per row, drawn with its seed uniformly from all but its target; the target if there is no other."""
    keys = jax.vmap(lambda one: jax.random.fold_in(jax.random.key(one), NEGATIVE))(seed)
    steps = jax.vmap(lambda key: jax.random.randint(key, (), 1, max(n_items, 2), jnp.int32))(keys)
    return (target + steps) % n_items


def target_ndcg(scores: Float[Array, "B I"], target: Int[Array, " B"]) -> Float[Array, " B"]:
    """NDCG@20 of each row's target among all items: ``1 / log2(rank + 2)`` for ranks (from 0) below 20, else 0."""
    own = jnp.take_along_axis(scores, target[:, None], axis=1)
    rank = (scores > own).sum(axis=1)
    return jnp.where(rank < NDCG_AT, 1.0 / jnp.log2(rank.astype(jnp.float32) + 2.0), 0.0)


METHOD = Sequential
