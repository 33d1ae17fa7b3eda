"""A model with everything needed to rank candidates after histories; compiled once per shape."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from jaxtyping import Bool, Int

from igd_jax.core.allowed import Allowed
from igd_jax.core.arrays import power_of_two
from igd_jax.core.environment import environment
from igd_jax.core.fingerprint import fingerprint, version_of
from igd_jax.core.io import Workdir
from igd_jax.core.log import Progress, say
from igd_jax.core.map_rows import in_groups, in_order, pad_rows
from igd_jax.core.sharding import row_shards
from igd_jax.core.types import ItemBatch, Recommendations, TextBatch
from igd_jax.data.batches import by_length, n_shapes, padded_width, prompt_room
from igd_jax.data.collaborative import Collaborative
from igd_jax.data.examples import Examples
from igd_jax.data.prepared import Rows
from igd_jax.decoding.engine import Engine
from igd_jax.decoding.jump import Jump, call_sizes
from igd_jax.decoding.queue import Reader, recommend_all
from igd_jax.evaluation.predictions import Result
from igd_jax.items.index import ItemIndex
from igd_jax.methods.base import DecodeOptions
from igd_jax.models.decoder import Decoder
from igd_jax.models.sharding_rules import placed
from igd_jax.session.batch import make_batch
from igd_jax.session.histories import Histories
from igd_jax.session.limits import decode_options
from igd_jax.session.requests import ItemNames, allowed_of_rows
from igd_jax.session.session import Session
from igd_jax.session.unfinished import BATCHES_PER_PART, Lists, Unfinished
from igd_jax.session.weights import Trained, trained_model
from igd_jax.training.compilations import Compilations
from igd_jax.training.mesh import check_divides, local_rows, put_batch

SEARCH_WIDTHS = (64, 128, 256, 512)
"""Widths of prompts for which the search of a single batch is compiled; at 256 it takes a tenth longer than at 64."""


def engine_of(session: Session, index: ItemIndex, model: Any, options: DecodeOptions) -> Engine:
    """Engine of the run's method over the candidates of `index`, its arrays placed on the devices."""
    engine: Engine = placed(session.method.engine(session.context(index), model, options), session.mesh)
    return engine


class Ranker:
    """A model that ranks.

    Attributes:
      session: the run.
      index: items, with the candidates of decoding.
      trained: model with its weights, in the dtype of the computation, and what they were made from.
      engine: engine that ranks.
      n_read: number of users of the last `rank` whose lists an earlier start had found.
    """

    def __init__(self, session: Session, workdir: Workdir, *, trained: Trained | None = None):
        self.session, self.index, self._workdir = session, session.decode_index, workdir
        self.trained = trained_model(session, workdir, session.context(self.index), known=trained)
        if (parts := session.settings.mesh.fsdp) > 1:
            say(
                f"note: with config.mesh.fsdp={parts} each call of the model gathers its weights from {parts} devices; "
                "where they fit one device, --config.mesh.fsdp=1 is faster, with the same lists"
            )
        for _, module in nnx.iter_modules(self.trained.model):
            if isinstance(module, Decoder):
                module.round_weights()
        options = decode_options(session.settings.decode, self.index)
        self.engine, self._read = engine_of(session, self.index, self.trained.model, options), Reader()
        self.n_read, self._compilations = 0, Compilations()
        self._names = ItemNames(self.index, session.prepared.item_ids)
        self._histories = Histories(session, self.index)

    def rank(
        self,
        examples: Examples,
        *,
        collaborative: Collaborative | None = None,
        allowed: Sequence[Allowed | None] = (),
        engine: Engine | None = None,
        unfinished: Path | None = None,
    ) -> Recommendations:
        """Recommend for all examples, in order.

        Args:
          examples: the examples.
          collaborative: scores of items for each example.
          allowed: rows that may be recommended for each example; None, or an empty sequence = all candidates.
          engine: engine that ranks, if it is another one.
          unfinished: folder for the lists found so far, if a later start with all else equal is to go on from them.

        Returns:
          Lists as NumPy arrays.
        """
        self.n_read, mesh, size = 0, self.session.mesh, self._batch_size(len(examples))
        engine = self._for_batches(size) if engine is None else engine
        width = prompt_room(examples)  # of these examples only, so that answers do not depend on earlier requests
        if len(examples) <= size:  # one batch, after which others of other lengths may follow
            width = padded_width(width, SEARCH_WIDTHS)
        batch_of = partial(
            self.batch,
            examples,
            size=size,
            own=local_rows(size, mesh),
            collaborative=collaborative,
            allowed=allowed if any(each is not None for each in allowed) else (),
        )
        n_rows = len(examples)
        order = by_length(examples, np.arange(n_rows))
        n_widths = n_shapes(examples, in_groups(order, size))
        progress = Progress("recommend", n_rows, "users") if n_rows > size else None  # none for a single batch

        def rank_part(part: Int[np.ndarray, " _"]) -> Iterator[Lists]:
            groups = list(in_groups(part, size))
            batches: Iterator[Any] = (put_batch(batch_of(group), mesh, size=size) for group in groups)
            if progress is not None:
                batches = self._compilations.watch("search", batches, n_shapes=n_widths)
            numbered = ((len(group), batch) for batch, group in zip(batches, groups, strict=True))
            for place, lists in recommend_all(engine, numbered, width=width, read=self._read):
                yield part[place], lists

        with jax.set_mesh(mesh):
            if unfinished is None:
                return in_order(rank_part(order), n_rows=n_rows, progress=progress)
            kept = Unfinished(unfinished, self._made_from(examples, collaborative, allowed))
            with kept.told():
                found = kept.ranked(list(in_groups(order, size * BATCHES_PER_PART)), rank_part)
                lists = in_order(found, n_rows=n_rows, progress=progress)
            self.n_read = kept.n_read
            return lists

    def batch(
        self,
        examples: Examples,
        rows: Int[np.ndarray, " b"],
        *,
        size: int,
        own: Int[np.ndarray, " own"] | None = None,
        collaborative: Collaborative | None = None,
        allowed: Sequence[Allowed | None] = (),
    ) -> TextBatch | ItemBatch:
        """Some examples as a batch, with scores of a source where the model reads text; all arrays are NumPy's.

        Args:
          examples: the examples.
          rows: numbers of some of them.
          size, own: as in `make_batch`.
          collaborative: scores of items for each example.
          allowed: rows that may be recommended for each example; an empty sequence = all candidates, without masks.
        """
        batch, more = make_batch(self.session, examples, rows, size=size, own=own), dict[str, Any]()
        mine, n_own = (rows, size) if own is None else (rows[own[own < len(rows)]], len(own))
        if collaborative is not None and isinstance(batch, TextBatch):
            more["collaborative"] = pad_rows(collaborative.scores(mine), n_own)
        if allowed:
            more["allowed"] = pad_rows(self.masks([allowed[row] for row in mine.tolist()]), n_own)
        return replace(batch, **more)

    @property
    def made_from(self) -> str:
        """A fingerprint of settings, data, candidates and weights: another one means other answers to a request.

        Of the data, the tokenizer and the model the content counts, wherever they lie; other paths count as they are
        given, and files of `method.args` also by size and time of change.
        """
        session, settings = self.session, self.session.settings
        versions = map(version_of, map(str, settings.method.args.values()))
        parts = (repr(settings.without_folders), session.fingerprint, self.index.candidates, self.trained.made_from)
        return fingerprint(*parts, *versions)

    def _made_from(
        self, examples: Examples, collaborative: Collaborative | None, allowed: Sequence[Allowed | None]
    ) -> Iterator[str | np.ndarray]:
        """All that the lists of `rank` depend on, to the bit."""
        yield self.made_from
        yield from (json.dumps(value) for name, value in environment().items() if name != "command")
        yield examples.prompt.lengths
        if collaborative is not None:
            yield from (collaborative.users, collaborative.items)
        for each in allowed:
            yield from ("all",) if each is None else ("only" if each.only is None else each.only, each.without)

    def results(self, lists: Recommendations, query: int) -> tuple[Result, ...]:
        """Results of one list of `rank`, best first; a result that was cut before its end has no items."""
        found = []
        for row, score in zip(lists.rows[query].tolist(), lists.scores[query].tolist(), strict=True):
            if row >= 0:
                found.append(self._result(row, score))
            elif score > -np.inf:
                found.append(Result((), "", score, ()))
        return tuple(found)

    def allowed(self, rows: Rows, numbers: Int[np.ndarray, " q"]) -> list[Allowed | None]:
        """What may be recommended to some rows of a split; see `requests.allowed_of_rows`."""
        decode, by_user = self.session.settings.decode, self.session.settings.eval.protocol == "users"
        return allowed_of_rows(
            self._names,
            rows,
            numbers,
            file=decode.allowed,
            exclude_history=decode.exclude_history,
            by_user=by_user,
        )

    def masks(self, allowed: Sequence[Allowed | None]) -> Bool[np.ndarray, "b N"]:
        """Mask of the catalogue rows that may be recommended, for each of some rows; None = all candidates."""
        is_candidate = self.index.is_candidate
        masks = [is_candidate if each is None else each.mask(is_candidate) for each in allowed]
        return np.array(masks, bool).reshape(len(masks), len(is_candidate))  # there may be none

    def examples(self, rows: Rows) -> Examples:
        """Rows of a split in the form that the model reads, without their targets."""
        return self._histories.of_rows(rows)

    def _batch_size(self, n_rows: int) -> int:
        """`config.decode.batch_size`; for fewer rows, the next power of two times the number of parts."""
        check_divides("config.decode.batch_size", self.session.settings.decode.batch_size, self.session.mesh)
        parts = row_shards(self.session.mesh)
        needed = parts * power_of_two(-(-n_rows // parts))
        return min(self.session.settings.decode.batch_size, needed)

    def _for_batches(self, size: int) -> Engine:
        """The engine for batches of a size: where a device has few rows, it reads more tokens of each in a call."""
        if not isinstance(self.engine, Jump):
            return self.engine
        budget = self.session.settings.decode.budget
        return replace(self.engine, **call_sizes(budget, batch_size=size, mesh=self.session.mesh))

    def _result(self, row: int, score: float) -> Result:
        index, ids = self.index, self.session.prepared.item_ids
        items = tuple(ids[item] for item in index.items_of(row))
        return Result(items, index.title_of_row(row), score, tuple(index.catalog.tokens[row].tolist()))
