"""BIGRec: plain fine-tuning, then two steps of grounding (arXiv 2308.08434; spec/methods.md 2.4).

The model writes a title of its own accord, and the titles of the catalogue are ranked by their distance to it in the
space of a model's last hidden states; see `decoding.grounding`. What other users do may pull titles nearer:

    D~(u, i) = minmax(D(u, .))(i) * (1 + W(u, i))^-gamma

With the texts of all beams in turn, and the tuned model's hidden states, it is CFT's grounding (spec/methods.md 4.4).
"""

from dataclasses import replace
from pathlib import Path
from typing import Any, no_type_check

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx, struct
from jaxtyping import Array, Float, Int
from safetensors.numpy import save_file

from igd_jax.core.errors import InputError
from igd_jax.core.fingerprint import fingerprint
from igd_jax.core.io import atomic_file
from igd_jax.core.log import Progress
from igd_jax.core.ragged import Ragged
from igd_jax.core.types import Batch, LossSum, Ranked
from igd_jax.data.batches import in_groups, pad_rows
from igd_jax.data.safetensors_io import read_matrices
from igd_jax.data.tokenizer import Tokenizer
from igd_jax.decoding.beam_search import SearchOptions
from igd_jax.decoding.grounding import (
    GOES_ON,
    NOTHING,
    Titles,
    adjusted,
    cut,
    distances,
    embed_texts,
    make_titles,
    min_max,
    nearest,
)
from igd_jax.decoding.unconstrained import unconstrained_search
from igd_jax.items.catalog import Catalog
from igd_jax.items.index import ItemIndex
from igd_jax.methods.base import Context, Method, gain_weights, title_loss
from igd_jax.models.decoder import Decoder

CHOICES = {
    "embed_by": ("base", "tuned"),
    "grounding": ("first", "interleaved"),
    "statistic": ("", "popularity", "collaborative"),
}
TITLES_AT_ONCE, WIDTH_STEP = 64, 16
"""Shapes in which titles are embedded: so many, and as wide as a multiple of so many tokens."""


@no_type_check  # as a pytree it also holds shardings
@struct.dataclass
class Tables:
    """What `BIGRec.recommend` looks up.

    Attributes:
      titles: embeddings of the catalogue rows.
      leaf: trie node that ends each row.
      ends: what stays of tokens that end a title; see `grounding.cut`.
      embedder: graph and state of the model that embeds; None for the one that writes.
      popularity: W of each row; None where it plays no part.
      item, item_row: candidates with their rows, by row.
      eos, bos: tokens around a title.
    """

    titles: Titles
    leaf: Int[Array, " N"]
    ends: Int[Array, " V"]
    embedder: Any
    popularity: Float[Array, " N"] | None
    item: Int[Array, " I"]
    item_row: Int[Array, " I"]
    eos: int = struct.field(pytree_node=False)
    bos: int | None = struct.field(pytree_node=False)


class BIGRec(Method):
    """Writing freely and grounding.

    Items that share a title are one row of the catalogue, so each has the best rank of them all. Lists are as long as
    `config.decode.num_beams`, and texts at most as long as `config.decode.max_new_tokens` and the longest candidate,
    whichever is less; `config.decode.alpha` has no effect. The loss is over the title; BIGRec's published runs took the
    tokens of the prompt into it, too (spec/methods.md 2.2).

    Args:
      beams: texts that are written.
      embed_by: the model whose hidden states are compared: ``base``, the backbone before training (BIGRec), or
        ``tuned`` (CFT).
      grounding: ``first``, by the best text alone (BIGRec), or ``interleaved``, by all of them in turn (CFT, whose
        published texts have at least 4 tokens; ours may be shorter).
      statistic: where W comes from: ``popularity``, train targets of the title; ``collaborative``, the scores of
        `config.decode.collaborative`; each scaled to 0 to 1. Or empty.
      gamma: power of 1 + W, 0 or more; 0 = by distance alone. The authors choose it on validation, from 0.01 to 99,
        for each metric and each length of list; here one value serves them all.
      embeddings: a file of the catalogue's embeddings from the cache of another run, with the same embedding model and
        catalogue; empty = computed, and kept in the cache of this run.
    """

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
        if beams < 1:
            raise InputError(f"config.method.args.beams is {beams}; expected at least 1")
        for name, value in (("embed_by", embed_by), ("grounding", grounding), ("statistic", statistic)):
            if value not in CHOICES[name]:
                known = ", ".join(repr(choice) for choice in CHOICES[name])
                raise InputError(f"config.method.args.{name} is {value!r}; expected one of {known}")
        if not 0.0 <= gamma < float("inf"):
            raise InputError(f"config.method.args.gamma is {gamma}; expected a power of 0 or more")
        if gamma and not statistic:
            raise InputError(
                f"config.method.args.gamma is {gamma}, but statistic is empty; expected 'popularity' or "
                "'collaborative' with it, or gamma 0"
            )
        self._beams, self._by_base, self._gamma = beams, embed_by == "base", gamma
        self._n_grounded = 1 if grounding == "first" else beams
        self._statistic, self._embeddings = statistic if gamma else "", embeddings

    def annotate(self, index: ItemIndex) -> dict[str, np.ndarray]:
        """`weight` float32 and `forced` bool; both 0 after a title's end."""
        return gain_weights(index, beta=1.0)

    def loss(self, model: Decoder, batch: Batch, constants: Any) -> LossSum:
        """Cross-entropy of all target tokens, summed."""
        return title_loss(model, batch)

    def tables(self, context: Context, model: Decoder) -> Tables:
        """Embed the catalogue, or read its embeddings.

        Raises:
          InputError: `embeddings` names no such file, or one of another model or catalogue.
        """
        embedder = context.backbone() if self._by_base else model
        tokenizer, catalog = context.tokenizer, context.index.catalog
        ends = text_ends(tokenizer, vocab_size=embedder.config.vocab_size)
        marks = {"model": _mark_of_model(embedder), "catalogue": _mark_of_catalogue(catalog, tokenizer)}
        kept = context.cache / f"embeddings-{fingerprint(*marks.values())}.safetensors"
        if self._embeddings or kept.is_file():
            embeddings = read_embeddings(Path(self._embeddings) if self._embeddings else kept, marks)
        else:
            embeddings = embed_rows(embedder, catalog.tokens, ends, bos=tokenizer.bos)
            if context.cache.parent.is_dir():  # a start that ends in bad input leaves no folder behind
                save_embeddings(kept, embeddings, marks)
        counts = jnp.asarray(catalog.counts, jnp.float32)
        return Tables(
            titles=make_titles(embeddings),
            leaf=jnp.asarray(context.index.trie.leaf),
            ends=jnp.asarray(ends),
            embedder=nnx.split(embedder) if self._by_base else None,
            popularity=min_max(counts) if self._statistic == "popularity" else None,
            item=jnp.asarray(catalog.item),
            item_row=jnp.asarray(catalog.row_of_item[catalog.item]),
            eos=tokenizer.eos,
            bos=tokenizer.bos,
        )

    def recommend(self, model: Decoder, batch: Batch, *, tables: Tables, options: SearchOptions) -> Ranked:
        """Write, embed what is written, rank the catalogue; scores are minus the distances.

        Texts are embedded by the ids that were written, cut before newline and EOS. Decoded and tokenised again, as
        the authors do, a text could have other ids, where a model spells a title in other pieces than its tokenizer.
        """
        texts = unconstrained_search(model, batch, replace(options, num_beams=self._beams), eos=tables.eos)
        embedder = model if tables.embedder is None else nnx.merge(*tables.embedder)
        n_rows, n_texts = len(texts.lengths), self._n_grounded
        lengths = texts.lengths[:, :n_texts]
        tokens = texts.tokens[:, :n_texts].reshape(n_rows * n_texts, -1)
        embedded = embed_texts(embedder, *cut(tokens, lengths.reshape(-1), tables.ends), bos=tables.bos)
        distance = distances(embedded, tables.titles).reshape(n_rows, n_texts, -1)
        if self._statistic:
            distance = adjusted(distance, self._weight(batch, tables), self._gamma)
        rows, distance = nearest(distance, lengths > 0, k=options.num_beams)
        nodes = jnp.where(rows >= 0, tables.leaf[rows], -1)
        return Ranked(rows=rows, scores=-distance, nodes=nodes)

    def _weight(self, batch: Batch, tables: Tables) -> Float[Array, "B N"]:
        """W, from 0 to 1."""
        n_rows, n_titles = len(batch["prompt"]), len(tables.leaf)
        if tables.popularity is not None:
            return jnp.broadcast_to(tables.popularity[None], (n_rows, n_titles))
        if "collaborative" not in batch:
            raise InputError(
                "config.method.args.statistic is 'collaborative', but config.decode.collaborative is empty; expected "
                "the evaluation of a collaborative run there, or another statistic"
            )
        return collaborative_weight(batch["collaborative"], tables.item, tables.item_row, n_titles=n_titles)


def collaborative_weight(
    scores: Float[Array, "B items"], item: Int[Array, " I"], item_row: Int[Array, " I"], *, n_titles: int
) -> Float[Array, "B N"]:
    """W of each title for each user: the best score of its items, scaled from 0 to 1 over the user's titles."""
    best = jax.ops.segment_max(scores[:, item].T, item_row, num_segments=n_titles, indices_are_sorted=True)
    return min_max(best.T)


def text_ends(tokenizer: Tokenizer, *, vocab_size: int) -> Int[np.ndarray, " V"]:
    """What stays of each token where a text is cut: see `grounding.cut`.

    Of a token that holds a newline, that is the token of what stands before it, if there is such a token.
    """
    ends = np.full(max(vocab_size, tokenizer.vocab_size), GOES_ON, np.int32)
    for token in range(tokenizer.vocab_size):
        before, newline, _ = tokenizer.decode([token]).partition("\n")
        if newline:
            [ids] = tokenizer.encode([before])
            ends[token] = ids[0] if len(ids) == 1 else NOTHING
    ends[tokenizer.eos] = NOTHING
    return ends


def embed_rows(
    model: Decoder, rows: Ragged, ends: Int[np.ndarray, " V"], *, bos: int | None
) -> Float[np.ndarray, "N D"]:
    """Embeddings of the catalogue's rows, cut as written texts are, in few shapes; float32."""
    graph, state = nnx.split(model)

    @jax.jit
    def embed(state: Any, ends: Array, tokens: Array, lengths: Array) -> Array:
        return embed_texts(nnx.merge(graph, state), *cut(tokens, lengths, ends), bos=bos)

    embeddings = np.empty((len(rows), model.config.hidden_size), np.float32)
    progress, done = Progress("embed", len(rows), "titles"), 0
    for group in in_groups(np.argsort(rows.lengths, kind="stable"), TITLES_AT_ONCE):
        part = rows.take(group)
        width = -(-int(part.lengths.max()) // WIDTH_STEP) * WIDTH_STEP
        tokens, lengths = (pad_rows(x, TITLES_AT_ONCE) for x in (part.pad(width), part.lengths))
        embeddings[group] = embed(state, ends, tokens, lengths)[: len(group)]
        done += len(group)
        progress.update(done)
    return embeddings


def save_embeddings(path: Path, embeddings: Float[np.ndarray, "N D"], marks: dict[str, str]) -> None:
    """Write embeddings, and of which model and catalogue they are."""
    with atomic_file(path) as partial:
        save_file({"embeddings": embeddings}, partial, metadata=marks)


def read_embeddings(path: Path, marks: dict[str, str]) -> Float[np.ndarray, "N D"]:
    """Read what `save_embeddings` wrote.

    Raises:
      InputError: no such file, or it is of another model or catalogue than `marks` says.
    """
    remedy = "leave config.method.args.embeddings empty, and delete the file if it is of this run's cache"
    (embeddings,), found = read_matrices(path, "embeddings", remedy=remedy)
    differ = [name for name, mark in marks.items() if found.get(name) != mark]
    if differ:
        raise InputError(
            f"config.method.args.embeddings is {str(path)!r}, which is of another {' and another '.join(differ)}; "
            "expected those of this run; leave it empty to compute them"
        )
    return embeddings


def _mark_of_model(model: Decoder) -> str:
    """Changes with any weight, and with how they are used."""
    leaves = [fingerprint(np.asarray(leaf).tobytes()) for leaf in jax.tree.leaves(nnx.state(model))]
    return fingerprint(repr(model.config), str(model.dtype), *leaves)


def _mark_of_catalogue(catalog: Catalog, tokenizer: Tokenizer) -> str:
    rows = catalog.tokens
    return fingerprint(tokenizer.fingerprint, rows.ids.tobytes(), rows.start.tobytes())


METHOD = BIGRec
