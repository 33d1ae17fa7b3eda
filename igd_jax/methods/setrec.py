"""SETRec: items as sets of vectors, ranked by one forward pass (arXiv 2502.10833; docs/methods/setrec.md).

    L = mean over rows b and tokens k of CE(<o_bk, t_ik> over items i, target of b)  +  alpha * MSE(features, rebuilt)
    score of item i = (1 - beta) <o_b0, t_i0> + beta * (<o_b1, t_i1> + ... + <o_bN, t_iN>)

o_bk is the output of query k, t_ik is token k of item i: 0 is collaborative, 1 to N are semantic
(`models.item_tokens`). Either kind can be left out.
Scores are inner products, not log-probabilities.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx, struct
from jaxtyping import Array, Bool, Float, Int

from igd_jax.core.errors import InputError
from igd_jax.core.log import say
from igd_jax.core.types import ItemBatch, LossSum, Recommendations
from igd_jax.data.collaborative import FILE as COLLABORATIVE
from igd_jax.data.collaborative import load_item_vectors
from igd_jax.data.item_features import cached_text_features, load_text_model, read_features
from igd_jax.data.tokenizer import Tokenizer
from igd_jax.decoding.dense_topk import best_rows, in_chunks
from igd_jax.decoding.engine import Engine, OneCall
from igd_jax.methods.base import (
    Context,
    DecodeOptions,
    ItemsMethod,
    Objective,
    check_argument,
    check_file,
    check_folder,
)
from igd_jax.models.decoder import Decoder
from igd_jax.models.item_tokens import ItemTokens
from igd_jax.models.setrec import ATTENTIONS, POSITIONS, SetModel
from igd_jax.models.t5 import T5
from igd_jax.training.step import LossState

INSTRUCTION, RESPONSE = "What would user be likely to purchase next after buying items", "?;"
"""Published texts before and after the history."""
TABLE_WIDTH = 64
"""Width of the trained vectors of collaborative tokens, as in the published SASRec."""
CHUNK = 4096
"""Number of items that are scored at a time."""
MISSING = ("", "zero")
POOLINGS = ("mean", "last")
VECTORS = "the folder of a finished SASRec run (configs/sasrec.py), a .npy file, or nothing to train vectors"
FEATURES_FILE = "one of safetensors or .npy with features of the items, or nothing to make them from texts"
TEXT_MODEL = "the Hugging Face folder of a decoder or a T5 with its tokenizer, or nothing for the backbone"


@struct.dataclass
class SetRanking(OneCall):
    """Ranks all candidates by the products of their tokens with the outputs of the queries.

    Attributes:
      graph, weights: parts of the model; see `nnx.split`.
      tables: tokens of the candidates; see `decoding.dense_topk.best_rows`.
      row: catalogue row of each row number in the tables.
      weight: weight of each token's product.
      top_k: length of the lists.
    """

    graph: Any = struct.field(pytree_node=False)
    weights: Any
    tables: dict[str, Array]
    row: Int[Array, " n"]
    weight: Float[Array, " Z"]
    top_k: int = struct.field(pytree_node=False)

    def prefill(self, batch: ItemBatch) -> Recommendations:
        """One forward pass, then the best rows by their best items, chunk by chunk."""
        model = nnx.merge(self.graph, self.weights)
        answers = model(model.tokens(batch.history), batch.history_mask) * self.weight[None, :, None]
        allowed = None if batch.allowed is None else batch.allowed[:, self.row]
        scores, numbers = best_rows(answers.reshape(len(answers), -1), self.tables, k=self.top_k, allowed=allowed)
        scores = jnp.where(batch.is_real[:, None], scores, -jnp.inf)
        return Recommendations(rows=jnp.where(scores > -jnp.inf, self.row[numbers], -1), scores=scores)


class SETRec(ItemsMethod):
    """Sets of tokens.

    Args:
      n_semantic: number of semantic tokens per item, N; the authors use 4 with T5 and 6 with Qwen.
      alpha: weight of the autoencoder's error.
      beta: weight of the semantic scores, 0 to 1; may differ in decoding. Must be 0 if N is 0, and 1 without the
        collaborative token.
      collaborative_token: whether items have a collaborative token.
      collaborative: folder of a SASRec run, or NumPy file [items, any width] in item order, whose vectors are frozen;
        empty = random vectors are trained.
      features: NumPy file [items, any width] in item order, or safetensors file with such ``features``, whose metadata
        may hold a ``fingerprint``, the result of `core.fingerprint.fingerprint` for all titles. Empty = the untrained
        model's last hidden states of an item's title, and of its description, brand and category if the data has them,
        each read as a separate text; averaged (published for Qwen; for the T5, the authors read them as one text with
        another model).
      pooling: pooling of hidden states: ``mean`` over a text's tokens, or ``last`` for its last token, the newline.
      text_model: Hugging Face folder of a decoder or a T5, which reads the texts with its own tokenizer and is not part
        of the trained model; empty = the backbone.
      missing: ``zero`` replaces rows of features that are not finite by zeros; empty refuses them.
      sampled_items: number of items in the softmax in addition to the targets of a micro-batch, drawn uniformly at each
        step, without correction for the sampling; 0 = all items.
      positions: ``contiguous``, or ``published``, where a gap follows the history and, in the loss alone, histories
        count as if padded to the longest of their micro-batch. The authors rank for users one by one.
      attention: ``sparse``, as the paper has it: tokens of an item do not see each other, nor do queries; ``dense``,
        where they do; or, for a T5, ``published``, the dense one of the authors' code, which also adds 1 to each
        query's logit of itself.
      trained_queries: whether queries are trained, as published; otherwise they stay as they were drawn.
    """

    model_kind = "setrec"
    inputs = "items"
    decoding_args = ("beta",)
    beam_search = False
    score = "sum of inner products of predicted vectors and those of the item; the larger the better"
    needs_collaborative = False

    def __init__(
        self,
        *,
        n_semantic: int = 6,
        alpha: float = 0.5,
        beta: float = 0.1,
        collaborative_token: bool = True,
        collaborative: str = "",
        features: str = "",
        pooling: str = "mean",
        text_model: str = "",
        missing: str = "",
        sampled_items: int = 0,
        positions: str = "contiguous",
        attention: str = "sparse",
        trained_queries: bool = True,
    ):
        few = ", or 0 for the collaborative one alone" if collaborative_token else ", at least 1 without the other kind"
        check_argument("n_semantic", n_semantic, n_semantic >= 1 - collaborative_token, f"a number of tokens{few}")
        check_argument("alpha", alpha, 0.0 <= alpha < float("inf"), "a weight of 0 or more")
        check_argument("beta", beta, 0.0 <= beta <= 1.0, "a weight from 0 to 1")
        check_argument("beta", beta, beta == 0.0 or n_semantic > 0, "0 where n_semantic is 0")
        check_argument("beta", beta, beta == 1.0 or collaborative_token, "1 where collaborative_token is False")
        is_free = collaborative_token or not collaborative
        check_argument("collaborative", collaborative, is_free, "nothing where collaborative_token is False")
        check_argument("attention", attention, attention in ATTENTIONS, "one of " + ", ".join(ATTENTIONS))
        check_argument("sampled_items", sampled_items, sampled_items >= 0, "a number of items, or 0 for all")
        check_argument("positions", positions, positions in POSITIONS, " or ".join(POSITIONS))
        check_argument("missing", missing, missing in MISSING, "'zero' or nothing")
        check_argument("pooling", pooling, pooling in POOLINGS, " or ".join(POOLINGS))
        check_argument("pooling", pooling, pooling == "mean" or not features, "mean where features are given")
        check_argument("text_model", text_model, not text_model or not features, "nothing where features are given")
        if collaborative.endswith(".npy"):
            check_file("collaborative", collaborative, VECTORS)
        else:
            check_folder("collaborative", collaborative, (COLLABORATIVE,), VECTORS)
        check_file("features", features, FEATURES_FILE)
        check_folder("text_model", text_model, ("config.json", "tokenizer.json"), TEXT_MODEL)
        self._n_semantic, self._alpha, self._beta, self._sampled = n_semantic, alpha, beta, sampled_items
        self._collaborative, self._features, self._missing = collaborative, features, missing
        self._pooling, self._text_model = pooling, text_model
        self._collaborative_token, self._positions = collaborative_token, positions
        self._attention, self._trained_queries = attention, trained_queries
        self.backbones = ("t5",) if attention == "published" else ("decoder", "t5")

    def make_model(self, context: Context) -> SetModel:
        """The backbone, with new queries, projector and autoencoder.

        Raises:
          InputError: vectors or features are missing, unusable or of another catalogue, or there is no such text model.
        """
        backbone = context.backbone()
        rngs = nnx.Rngs(context.seed)
        vectors = self._item_vectors(context, rngs) if self._collaborative_token else None
        before, after = _words(context.tokenizer)
        features, made_from = self._item_features(context, backbone) if self._n_semantic else (None, "")
        tokens = ItemTokens(
            vectors,
            None if features is None else jnp.asarray(features),
            features_from=made_from,
            trains_vectors=not self._collaborative,
            n_semantic=self._n_semantic,
            width=backbone.config.hidden_size,
            rngs=rngs,
        )
        return SetModel(
            backbone,
            tokens,
            instruction=jnp.asarray(before, jnp.int32),
            response=jnp.asarray(after, jnp.int32),
            positions=self._positions,
            query_scale=0.02 if isinstance(backbone, T5) else 1.0,
            rngs=rngs,
            attention=self._attention,
            trains_queries=self._trained_queries,
        )

    def most_items(self, tokenizer: Tokenizer, positions: int | float) -> int | float:
        """Items whose tokens fit beside the published texts and the queries."""
        n_tokens = self._n_semantic + self._collaborative_token
        room = positions - sum(map(len, _words(tokenizer))) - n_tokens
        if room < n_tokens:
            raise InputError(
                f"words and queries leave {room} of the model's {positions} positions, and items have {n_tokens} "
                "tokens each; lower config.method.args.n_semantic, or use another model"
            )
        return room if room == float("inf") else room // n_tokens

    def objective(self, context: Context) -> Objective:
        """Cross-entropy over items, and the autoencoder's error."""
        return Objective(self._loss)

    def engine(self, context: Context, model: SetModel, options: DecodeOptions) -> Engine:
        """One forward pass, then products with the tokens of all candidates."""
        items, numbers, rows = in_chunks(context.index, CHUNK)
        graph, state = nnx.split(model.tokens)
        tokens = jax.jit(lambda state, items: nnx.merge(graph, state)(items).reshape(len(items), -1))
        tables = {
            "tokens": jnp.stack([tokens(state, chunk) for chunk in np.maximum(items, 0)]),
            "row": jnp.asarray(numbers),
            "is_item": jnp.asarray(items >= 0),
        }
        weight = jnp.full(model.tokens.n_tokens, self._beta)
        weight = weight.at[0].set(1.0 - self._beta) if self._collaborative_token else weight
        return SetRanking(*nnx.split(model), tables=tables, row=jnp.asarray(rows), weight=weight, top_k=options.top_k)

    def _loss(self, model: SetModel, batch: ItemBatch, tables: Any, state: LossState) -> LossSum:
        """Sum over the real rows of the cross-entropy, averaged over tokens, plus alpha times the error.

        The cross-entropy is that of the paper. Its error is a mean over all items of the histories whose loss is
        divided once; a sum of it takes part here as if it were a mean over rows.
        """
        history, mask, target = batch.history, batch.history_mask, batch.target
        n_rows = batch.is_real.astype(jnp.float32).sum()
        if self._sampled:
            items, allowed = self._sample(batch, model.tokens.n_items)
            all_tokens = model.tokens(jnp.concatenate([history.reshape(-1), items]))
            read, table = jnp.split(all_tokens, [history.size])
            read, column = read.reshape(*history.shape, *read.shape[1:]), jnp.arange(len(target))
        else:
            table = model.tokens(jnp.arange(model.tokens.n_items))
            allowed = jnp.ones((len(target), len(table)), bool)
            read, column = table[history], target
        answers = model(read, mask, batch.seed, padded=True)
        logits = jnp.einsum("BZD,IZD->BZI", answers, table, preferred_element_type=jnp.float32)
        logits = jnp.where(allowed[:, None], logits, -jnp.inf)
        own = jnp.take_along_axis(logits, column[:, None, None], axis=-1)[..., 0]
        nll = (jax.nn.logsumexp(logits, axis=-1) - own).mean(axis=1)
        nll = jnp.where(batch.is_real, nll, 0.0).sum()
        error = jnp.where(mask, model.tokens.rebuild_error(history, read), 0.0).sum()
        n_read = mask.astype(jnp.float32).sum()
        rows_per_read = n_rows / jnp.maximum(n_read, 1.0) if batch.rows_per_read is None else batch.rows_per_read.max()
        loss = nll + self._alpha * rows_per_read * error
        return LossSum(loss, n_rows, {"loss_items": (nll, n_rows), "loss_rebuilt": (error, n_read)})

    def _sample(self, batch: ItemBatch, n_items: int) -> tuple[Int[Array, " I"], Bool[Array, "B I"]]:
        """Targets of the batch and items drawn uniformly, with a mask that counts each row's target once."""
        target = batch.target
        # The first row is always real. Without a seed, the draw is fixed, so that losses of a split are reproducible.
        seed = 0 if batch.seed is None else batch.seed[0]
        items = jnp.concatenate([target, jax.random.randint(jax.random.key(seed), (self._sampled,), 0, n_items)])
        is_own = jnp.eye(len(target), len(items), dtype=bool)
        is_real = jnp.pad(batch.is_real, (0, self._sampled), constant_values=True)
        return items, is_own | (is_real[None] & (items[None] != target[:, None]))

    def _item_vectors(self, context: Context, rngs: nnx.Rngs) -> Float[Array, "I C"]:
        """Vectors of a collaborative run, or random ones to be trained."""
        n_items = len(context.index.titles)
        if self._collaborative:
            source, n_train = Path(self._collaborative), int(context.index.counts.sum())
            mark = context.data_fingerprint
            return jnp.asarray(load_item_vectors(source, fingerprint=mark, n_items=n_items, n_train=n_train))
        say("collaborative tokens: trained here, from a random table; config.method.args.collaborative is not set")
        return 0.1 * jax.random.normal(rngs.params(), (n_items, TABLE_WIDTH))

    def _item_features(self, context: Context, backbone: Decoder | T5) -> tuple[Float[np.ndarray, "I W"], str]:
        """Features, and a fingerprint of their origin if they are computed; prints items without features."""
        titles = context.index.titles
        if self._features:
            features, made_from = read_features(Path(self._features), titles, missing=self._missing), ""
        else:
            model, tokenizer = backbone, context.tokenizer
            if self._text_model:
                model, tokenizer = load_text_model(Path(self._text_model))
            how: dict[str, Any] = {"pooling": self._pooling, "mesh": context.mesh, "cache": context.cache}
            features, made_from = cached_text_features(model, tokenizer, titles, context.texts, **how)
        if len(empty := np.flatnonzero(~features.any(axis=1))):
            named = ", ".join(repr(titles[item]) for item in empty[:3])
            say(f"{len(empty):,} of {len(titles):,} items have no features, such as {named}; theirs are zeros")
        return features, made_from


def _words(tokenizer: Tokenizer) -> list[list[int]]:
    """Ids of the texts before and after the history."""
    return tokenizer.encode([INSTRUCTION, RESPONSE])


METHOD = SETRec
