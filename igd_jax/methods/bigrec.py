"""BIGRec: plain fine-tuning, then two steps of grounding (arXiv 2308.08434; docs/methods.md, BIGRec).

The model writes a title without constraints, and the titles of the catalogue are ranked by their distance to it in the
space of a model's last hidden states (see `decoding.grounding`). A statistic W of other users may reduce distances:

    D~(u, i) = minmax(D(u, .))(i) * (1 + W(u, i))^-gamma

With all beams' texts interleaved and the tuned model's hidden states, it is CFT's grounding (docs/methods.md, CFT).
"""

from pathlib import Path
from typing import Any, no_type_check

import jax.numpy as jnp
import numpy as np
from flax import nnx, struct
from jaxtyping import Array, Float, Int

from igd_jax.core.errors import InputError
from igd_jax.core.fingerprint import fingerprint, sample_leaves
from igd_jax.core.ragged import Ragged
from igd_jax.core.types import Recommendations, TextBatch
from igd_jax.data.safetensors_io import read_cached, read_matrices, write_matrices
from igd_jax.data.tokenizer import Tokenizer
from igd_jax.decoding.engine import Engine, OneCall
from igd_jax.decoding.grounding import (
    GOES_ON,
    NOTHING,
    Titles,
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
    gain_weights,
    token_loss,
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
      ends: remainder of each token that ends a text; see `grounding.cut`.
      popularity: W of each embedding if the statistic is popularity.
      item, item_title: candidate items and the index of each one's embedding, ascending by that index.
      statistic: origin of W; see `BIGRec`.
      gamma: exponent of 1 + W.
      n_grounded: number of texts that are grounded.
      options: options of the search that writes.
      temperature: divisor of log-probabilities in that search.
      top_k: length of the lists.
      eos, bos: tokens around a title.
    """

    graph: Any = struct.field(pytree_node=False)
    weights: Any
    embedder: Any
    titles: Titles
    row: Int[Array, " n"]
    ends: Int[Array, " V"]
    popularity: Float[Array, " n"]
    item: Int[Array, " I"]
    item_title: Int[Array, " I"]
    statistic: str = struct.field(pytree_node=False)
    gamma: Float[Array, ""]
    n_grounded: int = struct.field(pytree_node=False)
    options: SearchOptions = struct.field(pytree_node=False)
    temperature: Float[Array, ""]
    top_k: int = struct.field(pytree_node=False)
    eos: int = struct.field(pytree_node=False)
    bos: int | None = struct.field(pytree_node=False)

    def prefill(self, batch: TextBatch) -> Recommendations:
        """Write texts, embed them, and rank the candidates; scores are negated distances.

        The ids that were written are embedded, cut before newline and EOS. The authors decode and tokenise texts again,
        which may give other ids if a model splits a title differently from its tokenizer.
        """
        model = nnx.merge(self.graph, self.weights)
        texts = unconstrained_search(model, batch, self.options, temperature=self.temperature, eos=self.eos)
        embedder = model if self.embedder is None else nnx.merge(*self.embedder)
        n_rows, n_texts = len(texts.lengths), self.n_grounded
        lengths = texts.lengths[:, :n_texts]
        tokens = texts.tokens[:, :n_texts].reshape(n_rows * n_texts, -1)
        embedded = embed_texts(embedder, *cut(tokens, lengths.reshape(-1), self.ends), bos=self.bos)
        distance = distances(embedded, self.titles).reshape(n_rows, n_texts, -1)
        if self.statistic:
            distance = adjusted(distance, self._statistic(batch), self.gamma)
        if batch.allowed is not None:
            distance = jnp.where(batch.allowed[:, self.row][:, None], distance, jnp.inf)
        titles, distance = nearest(distance, lengths > 0, k=self.top_k)
        rows = jnp.where(titles >= 0, self.row[jnp.maximum(titles, 0)], -1)
        return Recommendations(rows=rows, scores=-distance)

    def _statistic(self, batch: TextBatch) -> Float[Array, "B n"]:
        """W, from 0 to 1."""
        n_rows, n_titles = len(batch.prompt), len(self.row)
        if self.statistic == "popularity":
            return jnp.broadcast_to(self.popularity[None], (n_rows, n_titles))
        assert batch.collaborative is not None
        return collaborative_weight(batch.collaborative, self.item, self.item_title, n_titles=n_titles)


class BIGRec(Method):
    """Unconstrained writing and grounding.

    Items that share a title are one row of the catalogue, so each has the best rank of them all. The length of texts is
    limited by `config.decode.max_new_tokens` and by the longest candidate; `config.decode.alpha` has no effect. The
    loss covers the title; in BIGRec's published runs it also covered the prompt (docs/methods.md, BIGRec).

    Args:
      beams: number of texts that are written.
      embed_by: model whose hidden states are compared: ``base``, the backbone before training (BIGRec), or ``tuned``
        (CFT).
      grounding: ``first`` for the best text only (BIGRec), or ``interleaved`` for all texts in turn (CFT, whose
        published texts have at least 4 tokens; ours may be shorter).
      statistic: origin of W: ``popularity`` for the number of train targets of the title, ``collaborative`` for the
        scores of `config.decode.collaborative`, each scaled to 0 to 1; or empty.
      gamma: exponent of 1 + W, 0 or more; 0 = distance only. The authors choose it on validation, from 0.01 to 99, for
        each metric and length of list; here, one value is used for all.
      embeddings: file of the catalogue's embeddings from the cache of another run with the same embedding model and
        catalogue; empty = they are computed, and kept in the cache of this run.
    """

    model_kind, inputs, beam_search = BACKBONE, "text", False
    backbones = ("decoder",)
    decoding_args = ("beams", "embed_by", "grounding", "statistic", "gamma", "embeddings")

    def __init__(
        self,
        *,
        beams: int = 4,
        embed_by: str = "base",
        grounding: str = "first",
        statistic: str = "",
        gamma: float = 0.0,
        embeddings: str = "",
    ):
        check_argument("beams", beams, beams >= 1, "at least 1")
        for name, value in (("embed_by", embed_by), ("grounding", grounding), ("statistic", statistic)):
            check_argument(name, value, value in CHOICES[name], f"one of {', '.join(map(repr, CHOICES[name]))}")
        check_argument("gamma", gamma, 0.0 <= gamma < float("inf"), "a power of 0 or more")
        with_it = "'popularity' or 'collaborative' with it, or gamma 0"
        check_argument("gamma", gamma, bool(statistic) or not gamma, with_it, but=", but statistic is empty")
        check_file("embeddings", embeddings, "one from the cache of another run, or nothing to compute them")
        self._beams, self._by_base, self._gamma = beams, embed_by == "base", gamma
        self._n_grounded = 1 if grounding == "first" else beams
        self._statistic, self._embeddings_file = statistic if gamma else "", embeddings

    @property
    def needs_collaborative(self) -> bool:
        """Whether the statistic is collaborative."""
        return self._statistic == "collaborative"

    def make_model(self, context: Context) -> nnx.Module:
        """The backbone."""
        return context.backbone()

    def objective(self, context: Context) -> Objective:
        """Cross-entropy of all target tokens.

        Raises:
          InputError: the identifiers are not words.
        """
        _check_words(context)
        return Objective(token_loss, gain_weights(context.index, beta=1.0))

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
        ends = text_ends(tokenizer, vocab_size=embedder.config.vocab_size)
        embeddings = self._embeddings(context, embedder, index.catalog.tokens.take(rows), ends)
        return Grounding(
            *nnx.split(model),
            embedder=nnx.split(embedder) if self._by_base else None,
            titles=make_titles(embeddings),
            row=jnp.asarray(rows, jnp.int32),
            ends=jnp.asarray(ends),
            popularity=min_max(jnp.asarray(index.catalog.counts[rows], jnp.float32)),
            item=jnp.asarray(items[by_title], jnp.int32),
            item_title=jnp.asarray(title[by_title], jnp.int32),
            statistic=self._statistic,
            gamma=jnp.float32(self._gamma),
            n_grounded=self._n_grounded,
            options=SearchOptions(self._beams, options.max_length, options.length_penalty),
            temperature=jnp.float32(options.temperature),
            top_k=options.top_k,
            eos=tokenizer.eos,
            bos=tokenizer.bos,
        )

    def _embeddings(
        self, context: Context, embedder: Decoder, rows: Ragged, ends: Int[np.ndarray, " V"]
    ) -> Float[np.ndarray, "n D"]:
        """Embeddings from the file or from the cache, else computed."""
        marks = {"model": fingerprint_of_model(embedder), "catalogue": fingerprint_of_rows(rows, context.tokenizer)}
        cached = context.cache / f"embeddings-{fingerprint(*marks.values())}.safetensors"
        shape = (len(rows), embedder.config.hidden_size)
        if self._embeddings_file:
            return read_embeddings(Path(self._embeddings_file), marks, shape=shape)
        if (found := read_cached(cached, "embeddings", shape=shape, metadata=marks)) is not None:
            return found
        embeddings = embed_rows(embedder, rows, ends, bos=context.tokenizer.bos, mesh=context.mesh)
        if context.cache.parent.is_dir():  # so that a start that fails on bad input creates no folder
            write_matrices(cached, {"embeddings": embeddings}, marks)
        return embeddings


def _check_words(context: Context) -> None:
    if not context.prompts.has_words:
        raise InputError(
            "bigrec compares what a model writes with titles, but config.identifiers.name names identifiers that are "
            "no words; set it to titles, or config.method.name to a method that searches the trie"
        )


def text_ends(tokenizer: Tokenizer, *, vocab_size: int) -> Int[np.ndarray, " V"]:
    """Remainder of each token where a text is cut; see `grounding.cut`.

    The remainder of a token with a newline is the token of the text before the newline, if there is such a token.
    """
    ends = np.full(max(vocab_size, tokenizer.vocab_size), GOES_ON, np.int32)
    for token in range(tokenizer.vocab_size):
        before, newline, _ = tokenizer.decode([token]).partition("\n")
        if newline:
            [ids] = tokenizer.encode([before])
            ends[token] = ids[0] if len(ids) == 1 else NOTHING
    ends[tokenizer.eos] = NOTHING
    return ends


def read_embeddings(path: Path, marks: dict[str, str], *, shape: tuple[int, int]) -> Float[np.ndarray, "N D"]:
    """Read the embeddings of a cache file, which must have these marks (fingerprints by name) and this shape.

    Raises:
      InputError: the file is unusable, has another shape, or belongs to another model or catalogue.
    """
    (embeddings,), found = read_matrices(path, "embeddings", remedy="leave config.method.args.embeddings empty")
    differ = [name for name, mark in marks.items() if found.get(name) != mark]
    if differ := differ or ["shape"] * (embeddings.shape != shape):
        raise InputError(
            f"config.method.args.embeddings is {str(path)!r}, which is of another {' and another '.join(differ)}; "
            "expected those of this run; leave it empty to compute them"
        )
    return embeddings


def fingerprint_of_model(model: Decoder) -> str:
    """Text that changes with the weights, the config and the dtype of a model."""
    return fingerprint(repr(model.config), str(model.dtype), *sample_leaves(nnx.state(model)))


def fingerprint_of_rows(rows: Ragged, tokenizer: Tokenizer) -> str:
    """Text that changes with the ids of the rows and with the tokenizer."""
    return fingerprint(tokenizer.fingerprint, rows.ids.tobytes(), rows.start.tobytes())


METHOD = BIGRec
