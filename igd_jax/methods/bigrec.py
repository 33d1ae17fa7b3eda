"""BIGRec: plain fine-tuning, then two steps of grounding (arXiv 2308.08434; docs/methods/bigrec.md).

The model writes a title without constraints, and the titles of the catalogue are ranked by their distance to it in the
space of a model's last hidden states (see `decoding.grounding`). A statistic W of other users may reduce distances:

    D~(u, i) = minmax(D(u, .))(i) * (1 + W(u, i))^-gamma

With all beams' texts interleaved and the tuned model's hidden states, it is CFT's grounding (docs/methods/cft.md).
"""

from typing import Any, no_type_check

import jax.numpy as jnp
import numpy as np
from flax import nnx, struct
from jaxtyping import Array, Bool, Float, Int

from igd_jax.core.errors import InputError
from igd_jax.core.ragged import Ragged
from igd_jax.core.types import Recommendations, Remainders, TextBatch
from igd_jax.data.remainders import remainders
from igd_jax.data.title_embeddings import kept_embeddings
from igd_jax.decoding.engine import Engine, OneCall
from igd_jax.decoding.grounding import (
    TitleEmbeddings,
    adjusted,
    collaborative_weight,
    cut,
    distances,
    embed_rows,
    embed_texts,
    make_titles,
    min_max,
    nearest,
)
from igd_jax.decoding.recurrence import SearchOptions
from igd_jax.decoding.unconstrained import unconstrained_search
from igd_jax.methods.base import (
    BACKBONE,
    Context,
    DecodeOptions,
    Method,
    Objective,
    check_argument,
    check_file,
    plain_objective,
)
from igd_jax.models.decoder import Decoder

CHOICES = {
    "embed_by": ("base", "tuned"),
    "grounding": ("first", "interleaved"),
    "statistic": ("", "popularity", "collaborative"),
}


@no_type_check  # as a pytree it also holds shardings
@struct.dataclass
class Grounding(OneCall):
    """Writes texts and ranks the candidates by their distance to them.

    Attributes:
      graph, weights: parts of the model that writes; see `nnx.split`.
      embedder: graph and state of the model that embeds; None if the same model writes and embeds.
      titles: embeddings of the candidates' rows.
      row: catalogue row of each embedding.
      remainders: what remains of each token at the ends of a text; see `grounding.cut`.
      popularity: number of train targets of each embedding's title.
      item, item_title: candidate items and the index of each one's embedding, ascending by that index.
      statistic: origin of W; see `BIGRec`.
      gamma: exponent of 1 + W.
      n_grounded: number of texts that are grounded.
      options: options of the search that writes.
      min_new_tokens: number of tokens before EOS.
      temperature: divisor of log-probabilities in that search.
      top_k: length of the lists.
      eos, bos: tokens around a title.
    """

    graph: Any = struct.field(pytree_node=False)
    weights: Any
    embedder: Any
    titles: TitleEmbeddings
    row: Int[Array, " n"]
    remainders: Remainders
    popularity: Float[Array, " n"]
    item: Int[Array, " I"]
    item_title: Int[Array, " I"]
    statistic: str = struct.field(pytree_node=False)
    gamma: Float[Array, ""]
    n_grounded: int = struct.field(pytree_node=False)
    options: SearchOptions = struct.field(pytree_node=False)
    min_new_tokens: int = struct.field(pytree_node=False)
    temperature: Float[Array, ""]
    top_k: int = struct.field(pytree_node=False)
    eos: int = struct.field(pytree_node=False)
    bos: int | None = struct.field(pytree_node=False)

    def prefill(self, batch: TextBatch) -> Recommendations:
        """Write texts, embed them, and rank the candidates; scores are negated distances.

        The ids that were written are embedded, cut before newline and EOS and without quotes. The authors decode and
        tokenise texts again, which may give other ids if a model splits a title differently from its tokenizer.
        """
        model = nnx.merge(self.graph, self.weights)
        texts = unconstrained_search(
            model,
            batch,
            self.options,
            temperature=self.temperature,
            eos=self.eos,
            min_new_tokens=self.min_new_tokens,
        )
        embedder = model if self.embedder is None else nnx.merge(*self.embedder)
        n_rows, n_texts = len(texts.lengths), self.n_grounded
        lengths = texts.lengths[:, :n_texts]
        tokens = texts.tokens[:, :n_texts].reshape(n_rows * n_texts, -1)
        embedded = embed_texts(embedder, *cut(tokens, lengths.reshape(-1), self.remainders), bos=self.bos)
        distance = distances(embedded, self.titles).reshape(n_rows, n_texts, -1)
        may_be = jnp.ones((n_rows, len(self.row)), bool) if batch.allowed is None else batch.allowed[:, self.row]
        distance = jnp.where(may_be[:, None], distance, jnp.inf)
        if self.statistic:
            distance = adjusted(distance, self._statistic(batch, may_be), self.gamma)
        titles, distance = nearest(distance, lengths > 0, k=self.top_k)
        rows = jnp.where(titles >= 0, self.row[jnp.maximum(titles, 0)], -1)
        return Recommendations(rows=rows, scores=-distance)

    def _statistic(self, batch: TextBatch, may_be: Bool[Array, "B n"]) -> Float[Array, "B n"]:
        """W, from 0 to 1, of the titles that may be recommended."""
        if self.statistic == "popularity":
            return min_max(jnp.where(may_be, self.popularity[None], -jnp.inf))
        assert batch.collaborative is not None
        return collaborative_weight(batch.collaborative, self.item, self.item_title, may_be)


class BIGRec(Method):
    """Unconstrained writing and grounding.

    Items that share a title are one row of the catalogue, so each has the best rank of them all. The length of texts is
    limited by `config.decode.max_new_tokens` and by the longest candidate; `config.decode.alpha` has no effect.

    Args:
      beams: number of texts that are written.
      embed_by: model whose hidden states are compared: ``base``, the backbone before training (BIGRec), or ``tuned``
        (CFT).
      grounding: ``first`` for the best text only (BIGRec), or ``interleaved`` for all texts in turn (CFT).
      min_new_tokens: number of tokens of a text before EOS, at least; CFT: 4.
      statistic: origin of W: ``popularity`` for the number of train targets of the title, ``collaborative`` for the
        scores of `config.decode.collaborative`, each scaled to 0 to 1; or empty.
      gamma: exponent of 1 + W, 0 or more; 0 = distance only. The authors choose it on validation, from 0.01 to 99, for
        each metric and length of list (``evaluate --choose --choose_per_metric``).
      embeddings: file of the catalogue's embeddings from the cache of another run with the same embedding model and
        catalogue; empty = they are computed, and kept in the cache of this run.
      prompt_loss: whether the loss also covers the tokens of the prompt, as in BIGRec's published runs.
    """

    model_kind = BACKBONE
    inputs = "text"
    decoding_args = ("beams", "embed_by", "grounding", "min_new_tokens", "statistic", "gamma", "embeddings")
    beam_search = False
    score = (
        "minus the distance, scaled if gamma is not 0, of the text that the model wrote to the title; best nearest to 0"
    )
    backbones = ("decoder",)

    def __init__(
        self,
        *,
        beams: int = 4,
        embed_by: str = "base",
        grounding: str = "first",
        min_new_tokens: int = 0,
        statistic: str = "",
        gamma: float = 0.0,
        embeddings: str = "",
        prompt_loss: bool = False,
    ):
        check_argument("beams", beams, beams >= 1, "at least 1")
        check_argument("min_new_tokens", min_new_tokens, min_new_tokens >= 0, "a number of tokens, 0 for no minimum")
        for name, value in (("embed_by", embed_by), ("grounding", grounding), ("statistic", statistic)):
            check_argument(name, value, value in CHOICES[name], f"one of {', '.join(map(repr, CHOICES[name]))}")
        check_argument("gamma", gamma, 0.0 <= gamma < float("inf"), "a power of 0 or more")
        with_it = "'popularity' or 'collaborative' with it, or gamma 0"
        check_argument("gamma", gamma, bool(statistic) or not gamma, with_it, but=", but statistic is empty")
        check_file("embeddings", embeddings, "one from the cache of another run, or nothing to compute them")
        self._beams, self._by_base, self._gamma = beams, embed_by == "base", gamma
        self._n_grounded = 1 if grounding == "first" else beams
        self._statistic, self._embeddings_file = statistic if gamma else "", embeddings
        self._min_new_tokens, self._prompt_loss = min_new_tokens, prompt_loss
        self.needs_collaborative = self._statistic == "collaborative"

    def make_model(self, context: Context) -> nnx.Module:
        """The backbone."""
        return context.backbone()

    def objective(self, context: Context) -> Objective:
        """Cross-entropy of all target tokens, and of the prompts' if wanted.

        Raises:
          InputError: the identifiers are not words.
        """
        _check_words(context)
        return plain_objective(context.index, prompt_loss=self._prompt_loss)

    def engine(self, context: Context, model: Decoder, options: DecodeOptions) -> Engine:
        """Embed the candidates, or read their embeddings.

        Raises:
          InputError: the identifiers are not words; or the file `embeddings` is unusable or belongs to another model or
            catalogue.
        """
        _check_words(context)
        embedder = context.backbone() if self._by_base else model
        assert isinstance(embedder, Decoder), "the settings refuse other backbones"
        tokenizer, index = context.tokenizer, context.index
        rows = np.flatnonzero(index.is_candidate)
        items = np.flatnonzero(index.candidates)
        title = np.searchsorted(rows, index.catalog.row_of_item[items])
        by_title = np.argsort(title, kind="stable")
        found = remainders(tokenizer, vocab_size=embedder.config.vocab_size, quote=context.prompts.quote)
        left = Remainders(*map(jnp.asarray, found))
        titles = self._titles(context, embedder, index.catalog.tokens.take(rows), left)
        return Grounding(
            *nnx.split(model),
            embedder=nnx.split(embedder) if self._by_base else None,
            titles=titles,
            row=jnp.asarray(rows, jnp.int32),
            remainders=left,
            popularity=jnp.asarray(index.catalog.counts[rows], jnp.float32),
            item=jnp.asarray(items[by_title], jnp.int32),
            item_title=jnp.asarray(title[by_title], jnp.int32),
            statistic=self._statistic,
            gamma=jnp.float32(self._gamma),
            n_grounded=self._n_grounded,
            options=SearchOptions(self._beams, options.max_length, options.length_penalty),
            min_new_tokens=self._min_new_tokens,
            temperature=jnp.float32(options.temperature),
            top_k=options.top_k,
            eos=tokenizer.eos,
            bos=tokenizer.bos,
        )

    def _titles(self, context: Context, embedder: Decoder, rows: Ragged, left: Remainders) -> TitleEmbeddings:
        """Embeddings of candidates, from a file or computed."""
        embeddings = kept_embeddings(
            embedder,
            rows,
            context.tokenizer,
            quote=context.prompts.quote,
            given=self._embeddings_file,
            cache=context.cache,
            compute=lambda: embed_rows(embedder, rows, left, bos=context.tokenizer.bos, mesh=context.mesh),
        )
        return make_titles(embeddings)


def _check_words(context: Context) -> None:
    if not context.prompts.has_words:
        raise InputError(
            "bigrec compares what a model writes with titles, but config.identifiers.name names identifiers that are "
            "no words; set it to titles, or config.method.name to a method that searches the trie"
        )


METHOD = BIGRec
