"""SASRec: recommend items by their ids alone (Kang & McAuley, arXiv 1808.09781; spec/methods.md 8.2).

    softmax:  L = logsumexp_i s(u, i) - s(u, target)
    bce:      L = -log sigmoid(s(u, target)) - log sigmoid(-s(u, negative)),   negative uniform over the other items

It reads no text; its evaluation leaves vectors of users and items, which D3 and BIGRec take as collaborative scores.

Batches without noise are validation: their loss is 1 - NDCG@20 of the target among all items, the published rule for
stopping. Where new items appear in time, as in Amazon data, the likelihood of a target that train never saw soon
drowns all others, and would keep the weights of the first epoch, which rank worst.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from igd_jax.core.errors import InputError
from igd_jax.core.types import Batch, LossSum, Ranked
from igd_jax.decoding.beam_search import SearchOptions
from igd_jax.items.index import ItemIndex
from igd_jax.methods.base import Context, Method
from igd_jax.models.sasrec import SASRec, SASRecConfig, scores_of
from igd_jax.training.loss import weighted_cross_entropy

LOSSES = ("softmax", "bce")
NDCG_AT = 20
NEGATIVE = 1_000_003
"""Folded into a row's key for its negative; dropout folds in small numbers."""


class Tables(NamedTuple):
    """Where the scores of items go.

    Attributes:
      row_of_item: catalogue row; N, one beyond the last, for items that are no candidates.
      leaf: trie node that ends each catalogue row.
    """

    row_of_item: Int[Array, " I"]
    leaf: Int[Array, " N"]


class Sequential(Method):
    """SASRec over the item ids.

    Args:
      loss: ``softmax`` over all items, or ``bce`` with one negative a row.
      max_history: newest items that are read; published: 10.
      width, num_blocks, num_heads, dropout: sizes; see `models.sasrec`.
    """

    inputs = "items"

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
        def check(name: str, value: Any, is_good: bool, expected: str) -> None:
            if not is_good:
                raise InputError(f"config.method.args.{name} is {value!r}; expected {expected}")

        check("loss", loss, loss in LOSSES, " or ".join(LOSSES))
        for name, value in (("max_history", max_history), ("num_blocks", num_blocks), ("num_heads", num_heads)):
            check(name, value, value >= 1, "at least 1")
        check("width", width, width >= 1 and width % num_heads == 0, f"a multiple of the {num_heads} head(s)")
        check("dropout", dropout, 0.0 <= dropout < 1.0, "a share from 0 to below 1")
        self._loss, self._sizes = loss, {"max_history": max_history, "width": width, "num_blocks": num_blocks}
        self._sizes |= {"num_heads": num_heads}
        self._dropout = dropout

    def annotate(self, index: ItemIndex) -> dict[str, np.ndarray]:
        """Nothing: the target's id is all there is to learn."""
        return {}

    def make_model(self, context: Context) -> nnx.Module:
        """A network with random weights."""
        config = SASRecConfig(n_items=len(context.counts), dropout=self._dropout, **self._sizes)
        return nnx.jit(lambda: SASRec(config, rngs=nnx.Rngs(context.seed)))()

    def loss(self, model: SASRec, batch: Batch, constants: Any) -> LossSum:
        """In training, the loss of the flag, summed over real rows; without noise, 1 - NDCG@20 of each."""
        target, weight, noise = batch["target_item"], batch["is_real"].astype(jnp.float32), batch.get("noise")
        scores = scores_of(model(batch["history"], batch["history_mask"], noise), model.items())
        softmax = weighted_cross_entropy(scores[:, None], target[:, None], weight[:, None], parts={})
        if noise is None:
            missed = 1.0 - target_ndcg(scores, target)
            return LossSum((weight * missed).sum(), weight.sum(), {"loss_softmax": (softmax.loss, softmax.weight)})
        if self._loss == "softmax":
            return softmax
        other = negatives(noise, target, n_items=scores.shape[1])
        own, others = (jnp.take_along_axis(scores, item[:, None], axis=1)[:, 0] for item in (target, other))
        nll = -jax.nn.log_sigmoid(own) - jax.nn.log_sigmoid(-others)
        return LossSum((weight * nll).sum(), weight.sum(), {})

    def tables(self, context: Context, model: SASRec) -> Tables:
        """The catalogue as the scores need it."""
        row, leaf = context.index.catalog.row_of_item, context.index.trie.leaf
        return Tables(jnp.asarray(np.where(row < 0, len(leaf), row), jnp.int32), jnp.asarray(leaf, jnp.int32))

    def recommend(self, model: SASRec, batch: Batch, *, tables: Tables, options: SearchOptions) -> Ranked:
        """The K titles of highest score; a title that several items share scores as the best of them."""
        scores = scores_of(model(batch["history"], batch["history_mask"]), model.items())
        n_rows, n_titles, n_beams = len(scores), len(tables.leaf), options.num_beams
        none = jnp.full((n_titles, n_rows), -jnp.inf, jnp.float32)
        by_title = none.at[tables.row_of_item].max(scores.T, mode="drop").T
        best, rows = jax.lax.top_k(by_title, min(n_beams, n_titles))
        missing = ((0, 0), (0, n_beams - best.shape[1]))
        is_real = batch["is_real"][:, None]
        return Ranked(
            rows=jnp.pad(jnp.where(is_real, rows, -1), missing, constant_values=-1),
            scores=jnp.pad(jnp.where(is_real, best, -jnp.inf), missing, constant_values=-jnp.inf),
            nodes=jnp.pad(jnp.where(is_real, tables.leaf[rows], -1), missing, constant_values=-1),
        )

    def vectors(self, model: SASRec, batch: Batch) -> tuple[Float[Array, "B D"], Float[Array, "I D"]]:
        """The network's own vectors."""
        return model(batch["history"], batch["history_mask"]), model.items()


def negatives(noise: Int[Array, " B"], target: Int[Array, " B"], *, n_items: int) -> Int[Array, " B"]:
    """One item a row, uniform over all but its target, from the row's seed; the target itself if there is no other."""
    keys = jax.vmap(lambda seed: jax.random.fold_in(jax.random.key(seed), NEGATIVE))(noise)
    steps = jax.vmap(lambda key: jax.random.randint(key, (), 1, max(n_items, 2), jnp.int32))(keys)
    return (target + steps) % n_items


def target_ndcg(scores: Float[Array, "B I"], target: Int[Array, " B"]) -> Float[Array, " B"]:
    """NDCG@20 of each row's target among all items: ``1 / log2(rank + 2)`` for ranks below 20, which count from 0."""
    own = jnp.take_along_axis(scores, target[:, None], axis=1)
    rank = (scores > own).sum(axis=1)
    return jnp.where(rank < NDCG_AT, 1.0 / jnp.log2(rank.astype(jnp.float32) + 2.0), 0.0)


METHOD = Sequential
