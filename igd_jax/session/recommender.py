"""Recommender of a trained run: built once, it answers any number of requests, and compiles once per shape."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from igd_jax.core.errors import InputError
from igd_jax.core.io import Workdir
from igd_jax.core.log import Progress
from igd_jax.core.map_rows import in_groups, in_order, pad_rows
from igd_jax.core.sharding import row_shards
from igd_jax.core.types import ItemBatch, Recommendations, TextBatch
from igd_jax.data.batches import by_length, make_item_batch, make_text_batch, prompt_room
from igd_jax.data.collaborative import Collaborative
from igd_jax.data.examples import Examples
from igd_jax.data.prepared import Rows
from igd_jax.decoding.engine import Engine
from igd_jax.decoding.queue import Reader, recommend_all
from igd_jax.decoding.search import TrieSearch
from igd_jax.evaluation.predictions import Result
from igd_jax.items.index import ItemIndex
from igd_jax.methods.base import DecodeOptions
from igd_jax.models.sharding_rules import placed
from igd_jax.session.collaborative import collaborative_source
from igd_jax.session.config_flags import load_config
from igd_jax.session.histories import Histories
from igd_jax.session.requests import Allowed, ItemNames, Request, Resolved, allowed_of_rows, read_request
from igd_jax.session.scoring import list_scores, search_of
from igd_jax.session.sections import DecodeSettings
from igd_jax.session.session import Session, set_up_to_decode
from igd_jax.session.weights import trained_model
from igd_jax.training.mesh import check_divides, local_rows, put_batch


@dataclass(frozen=True)
class Answer:
    """Answer to a request.

    Attributes:
      results: results, best first.
      notes: one sentence for each part of the history that was not read as given.
    """

    results: tuple[Result, ...]
    notes: tuple[str, ...]


def decode_options(decode: DecodeSettings, index: ItemIndex) -> DecodeOptions:
    """Options of decoding for the candidates of `index`."""
    return DecodeOptions(
        alpha=decode.alpha,
        temperature=decode.temperature,
        length_penalty=decode.length_penalty,
        num_beams=decode.num_beams,
        top_k=decode.top_k,
        normalize=decode.normalize,
        max_length=min(decode.max_new_tokens, index.longest) if decode.max_new_tokens else index.longest,
        search=decode.search,
        budget=decode.budget,
        batch_size=decode.batch_size,
    )


class Recommender:
    """A model with everything needed to recommend.

    Attributes:
      session: the run.
      index: items, with the candidates of decoding.
      model: model with its weights.
      step: number of training steps of the weights; None if untrained.
      engine: engine that ranks.
    """

    def __init__(self, session: Session, workdir: Workdir):
        self.session, self.index = session, session.decode_index()
        context = session.context(self.index)
        trained = trained_model(session, workdir, context)
        self.model, self.step = trained.model, trained.step
        options = decode_options(session.settings.decode, self.index)
        engine = session.method.engine(context, trained.model, options)
        self.engine, self._read = placed(engine, session.mesh), Reader()
        self._histories = Histories(session, self.index)
        self._names = ItemNames(self.index, session.prepared.item_ids)

    @classmethod
    def load(cls, workdir: str | Path, changes: Mapping[str, Any] | None = None) -> "Recommender":
        """Load the recommender of a run.

        Args:
          workdir: folder of the run.
          changes: fields of the config by their full names, such as ``{"decode.alpha": 0.1}``.

        Raises:
          InputError: there is no run, or the config does not accept a change.
        """
        folder = Workdir(str(workdir))
        config = load_config(None, folder)
        try:
            config.update_from_flattened_dict(dict(changes or {}))
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"changes are {changes!r}, which the config does not take ({error})") from None
        return cls(set_up_to_decode(config, folder), folder)

    def recommend(self, requests: Iterable[Request | Mapping[str, Any]], *, k: int | None = None) -> list[Answer]:
        """Answer requests, in the given order.

        Args:
          requests: requests, or mappings with the fields of `Request`.
          k: length of the lists; None = `config.decode.top_k`.

        Raises:
          InputError: a request cannot be answered, or k exceeds `config.decode.top_k`.
        """
        k = self._checked_length(k)
        given, resolved = [], []
        for number, each in enumerate(requests, start=1):
            try:
                given.append(read_request(each))
                resolved.append(self._resolved(given[-1]))
            except InputError as error:
                raise InputError(f"request {number}: {error}") from None
        answers = dict[int, Answer]()
        for is_scored in (False, True):
            group = [q for q, each in enumerate(resolved) if (each.score is not None) == is_scored]
            if group:
                asked = [given[q] for q in group], [resolved[q] for q in group]
                answers |= zip(group, self._scored(*asked) if is_scored else self._ranked(*asked, k=k), strict=True)
        return [answers[q] for q in range(len(given))]

    def score(
        self, requests: Sequence[Request | Mapping[str, Any]], lists: Sequence[Sequence[str]]
    ) -> list[Float[np.ndarray, " n"]]:
        """Scores of given lists after the histories of requests; see `recommend` with requests that have ``score``.

        Args:
          requests: requests, or mappings with the fields of `Request`, whose histories are read.
          lists: titles or item ids for each request.

        Returns:
          Final scores of each list, in its order, float32.

        Raises:
          InputError: a request has no answer, or the method does not search the trie of titles.
        """
        asked = [
            Request(read_request(each).history, score=tuple(names)) for each, names in zip(requests, lists, strict=True)
        ]
        return [np.array([one.score for one in each.results], np.float32) for each in self.recommend(asked)]

    def _ranked(self, requests: Sequence[Request], resolved: Sequence[Resolved], *, k: int) -> list[Answer]:
        examples, notes = self._histories.of_requests(requests, resolved)
        source = collaborative_source(self.session, split=None, n_rows=len(requests))
        found = self.rank(examples, collaborative=source, allowed=[each.allowed for each in resolved])
        return [Answer(self.results(found, q)[:k], tuple(told)) for q, told in enumerate(notes)]

    def _scored(self, requests: Sequence[Request], resolved: Sequence[Resolved]) -> list[Answer]:
        examples, notes = self._histories.of_requests(requests, resolved)
        source = collaborative_source(self.session, split=None, n_rows=len(requests))
        lists = [np.asarray(each.score) for each in resolved]
        search, size, mesh = self._search(), self._batch_size(len(requests)), self.session.mesh
        results: list[tuple[Result, ...]] = [()] * len(requests)
        for group in in_groups(by_length(examples, np.arange(len(requests))), size):
            batch: Any = put_batch(self._batch(examples, group, size, np.arange(size), collaborative=source), mesh)
            scores = list_scores(search, self.index, batch, [lists[q] for q in group], mesh)
            for q, of_list in zip(group.tolist(), scores, strict=True):
                pairs = zip(lists[q].tolist(), of_list.tolist(), strict=True)
                results[q] = tuple(self._result(row, score) for row, score in pairs)
        return [Answer(*each) for each in zip(results, map(tuple, notes), strict=True)]

    def _search(self) -> TrieSearch:
        return search_of(self.engine, self.session.settings.method.name)

    def check(self, request: Request) -> None:
        """Raise `InputError` if a request cannot be answered."""
        self._resolved(request)

    def _resolved(self, request: Request) -> Resolved:
        """Convert a request to numbers of the catalogue; raises `InputError` if it cannot be answered."""
        if request.score is not None:
            self._search()
        found = self._names.resolve(request, exclude_history=self.session.settings.decode.exclude_history)
        if not self._histories.reads_words and not any(item is not None for item in found.items):
            raise InputError(
                f"no entry of the history {list(request.history)} is in the catalogue, and this model reads nothing "
                "else; name at least one title or item id"
            )
        return found

    def rank(
        self,
        examples: Examples,
        *,
        collaborative: Collaborative | None = None,
        allowed: Sequence[Allowed | None] = (),
        engine: Engine | None = None,
    ) -> Recommendations:
        """Recommend for all examples, in order.

        Args:
          examples: the examples.
          collaborative: scores of items for each example.
          allowed: rows that may be recommended for each example; None, or an empty sequence = all candidates.
          engine: engine that ranks, if it is another one.

        Returns:
          Lists as NumPy arrays.
        """
        mesh, size = self.session.mesh, self._batch_size(len(examples))
        engine = self.engine if engine is None else engine
        width = prompt_room(examples)  # of these examples only, so that answers do not depend on earlier requests
        is_restricted, own = any(each is not None for each in allowed), local_rows(size, mesh)

        def batch_of(group: Int[np.ndarray, " b"]) -> TextBatch | ItemBatch:
            mine = group[own[own < len(group)]]
            batch, more = self._batch(examples, group, size, own, collaborative=collaborative), dict[str, Any]()
            if is_restricted:
                more["allowed"] = pad_rows(self._masks([allowed[q] for q in mine.tolist()]), len(own))
            return put_batch(replace(batch, **more), mesh, size=size)

        n_rows = len(examples)
        order = by_length(examples, np.arange(n_rows))
        batches = ((len(group), batch_of(group)) for group in in_groups(order, size))
        progress = Progress("recommend", n_rows, "users") if n_rows > size else None  # none for a single batch
        with jax.set_mesh(mesh):
            found = recommend_all(engine, batches, width=width, read=self._read)
            return in_order(((order[place], lists) for place, lists in found), n_rows=n_rows, progress=progress)

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
        decode = self.session.settings.decode
        return allowed_of_rows(self._names, rows, numbers, file=decode.allowed, exclude_history=decode.exclude_history)

    def examples(self, rows: Rows) -> Examples:
        """Rows of a split in the form that the model reads, without their targets."""
        return self._histories.of_rows(rows)

    def _checked_length(self, k: int | None) -> int:
        top_k = self.session.settings.decode.top_k
        if k is not None and not 1 <= k <= top_k:
            raise InputError(
                f"k is {k}, but lists have a length of {top_k}; give 1 to {top_k}, or raise config.decode.top_k"
            )
        return top_k if k is None else k

    def _batch_size(self, n_rows: int) -> int:
        """`config.decode.batch_size`; for fewer rows, the next power of two times the number of parts."""
        check_divides("config.decode.batch_size", self.session.settings.decode.batch_size, self.session.mesh)
        parts = row_shards(self.session.mesh)
        needed = parts * (1 << max(-(-n_rows // parts) - 1, 0).bit_length())
        return min(self.session.settings.decode.batch_size, needed)

    def _batch(
        self,
        examples: Examples,
        group: Int[np.ndarray, " b"],
        size: int,
        own: Int[np.ndarray, " own"],
        *,
        collaborative: Collaborative | None,
    ) -> TextBatch | ItemBatch:
        """Some places, `own`, of `size` for examples, with scores of a source where the model reads text."""
        if self.session.method.inputs == "items":
            return make_item_batch(examples, group, size=size, own=own)
        batch = make_text_batch(examples, group, self.index.item_tokens, {}, size=size, own=own)
        if collaborative is None:
            return batch
        scores: Any = pad_rows(collaborative.scores(group[own[own < len(group)]]), len(own))
        return replace(batch, collaborative=scores)

    def _result(self, row: int, score: float) -> Result:
        index, ids = self.index, self.session.prepared.item_ids
        items = tuple(ids[item] for item in index.items_of(row))
        return Result(items, index.title_of_row(row), score, tuple(index.catalog.tokens[row].tolist()))

    def _masks(self, allowed: Sequence[Allowed | None]) -> Bool[np.ndarray, "b N"]:
        is_candidate = self.index.is_candidate
        return np.stack([is_candidate if each is None else each.mask(is_candidate) for each in allowed])
