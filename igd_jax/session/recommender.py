"""Recommender of a trained run: built once, it answers any number of requests, and compiles once per shape."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Int

from igd_jax.core.errors import InputError
from igd_jax.core.io import Workdir
from igd_jax.core.log import Progress
from igd_jax.core.map_rows import in_groups, in_order, pad_rows
from igd_jax.core.ragged import Ragged, TokenRows
from igd_jax.core.sharding import row_shards
from igd_jax.core.types import ItemBatch, Recommendations, TextBatch
from igd_jax.data.batches import by_length, make_item_batch, make_text_batch, prompt_room
from igd_jax.data.collaborative import Collaborative
from igd_jax.data.examples import Examples, item_examples, make_examples
from igd_jax.data.prepared import Rows
from igd_jax.decoding.queue import recommend_all
from igd_jax.evaluation.predictions import Result
from igd_jax.items.index import ItemIndex
from igd_jax.methods.base import DecodeOptions
from igd_jax.models.sharding_rules import placed
from igd_jax.session.collaborative import collaborative_source
from igd_jax.session.config_flags import load_config
from igd_jax.session.requests import Allowed, ItemNames, Request, Resolved, read_request
from igd_jax.session.sections import DecodeSettings
from igd_jax.session.session import Session, set_up_to_decode
from igd_jax.session.weights import trained_model
from igd_jax.training.mesh import check_divides, put_batch


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
        self.engine = placed(engine, session.mesh)
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
        given = [read_request(each) for each in requests]
        resolved = [self._resolved(each) for each in given]
        if not given:
            return []
        examples, notes = self._examples(given, resolved)
        source = collaborative_source(self.session, split=None, n_rows=len(given))
        found = self.rank(examples, collaborative=source, allowed=[each.allowed for each in resolved])
        lists = [self.results(found, q)[:k] for q in range(len(given))]
        return [Answer(results, tuple(told)) for results, told in zip(lists, notes, strict=True)]

    def check(self, request: Request) -> None:
        """Raise `InputError` if a request cannot be answered."""
        self._resolved(request)

    def _resolved(self, request: Request) -> Resolved:
        """Convert a request to numbers of the catalogue; raises `InputError` if it cannot be answered."""
        found = self._names.resolve(request)
        if not self._reads_words and not any(item is not None for item in found.items):
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
    ) -> Recommendations:
        """Recommend for all examples, in order.

        Args:
          examples: the examples.
          collaborative: scores of items for each example.
          allowed: rows that may be recommended for each example; None, or an empty sequence = all candidates.

        Returns:
          Lists as NumPy arrays.
        """
        decode, mesh = self.session.settings.decode, self.session.mesh
        check_divides("config.decode.batch_size", decode.batch_size, mesh)
        size = self._batch_size(len(examples))
        width = prompt_room(examples)  # of these examples only, so that answers do not depend on earlier requests
        is_restricted = any(each is not None for each in allowed)

        def batch_of(group: Int[np.ndarray, " b"]) -> TextBatch | ItemBatch:
            batch, more = self._batch(examples, group, size), dict[str, Any]()
            if collaborative is not None and isinstance(batch, TextBatch):
                more["collaborative"] = pad_rows(collaborative.scores(group), size)
            if is_restricted:
                more["allowed"] = pad_rows(self._masks([allowed[q] for q in group.tolist()]), size)
            return put_batch(replace(batch, **more), mesh)

        n_rows = len(examples)
        order = by_length(examples, np.arange(n_rows))
        batches = ((len(group), batch_of(group)) for group in in_groups(order, size))
        progress = Progress("recommend", n_rows, "users") if n_rows > size else None  # none for a single batch
        with jax.set_mesh(mesh):
            found = recommend_all(self.engine, batches, width=width)
            return in_order(((order[place], lists) for place, lists in found), n_rows=n_rows, progress=progress)

    def results(self, lists: Recommendations, query: int) -> tuple[Result, ...]:
        """Results of one list of `rank`, best first; a result that was cut before its end has no items."""
        index, ids, found = self.index, self.session.prepared.item_ids, []
        for row, score in zip(lists.rows[query].tolist(), lists.scores[query].tolist(), strict=True):
            if row >= 0:
                items = tuple(ids[item] for item in index.items_of(row))
                tokens = tuple(index.catalog.tokens[row].tolist())
                found.append(Result(items, index.title_of_row(row), score, tokens))
            elif score > -np.inf:
                found.append(Result((), "", score, ()))
        return tuple(found)

    def examples(self, rows: Rows) -> Examples:
        """Rows of a split in the form that the model reads, without their targets."""
        history = Ragged(rows.history_items, rows.history_start)
        if self.session.method.inputs == "items":
            return item_examples(history)
        return self._fit(self.session.prompts.of_items(history))

    @property
    def _reads_words(self) -> bool:
        """Whether a history may contain arbitrary text."""
        return self.session.method.inputs == "text" and self.session.identifiers.texts is not None

    def _checked_length(self, k: int | None) -> int:
        top_k = self.session.settings.decode.top_k
        if k is not None and not 1 <= k <= top_k:
            raise InputError(
                f"k is {k}, but lists have a length of {top_k}; give 1 to {top_k}, or raise config.decode.top_k"
            )
        return top_k if k is None else k

    def _batch_size(self, n_rows: int) -> int:
        """`config.decode.batch_size`; for fewer rows, the next power of two times the number of parts."""
        parts = row_shards(self.session.mesh)
        needed = parts * (1 << max(-(-n_rows // parts) - 1, 0).bit_length())
        return min(self.session.settings.decode.batch_size, needed)

    def _batch(self, examples: Examples, group: Int[np.ndarray, " b"], size: int) -> TextBatch | ItemBatch:
        if self.session.method.inputs == "items":
            return make_item_batch(examples, group, size=size)
        return make_text_batch(examples, group, self.index.item_tokens, {}, size=size)

    def _masks(self, allowed: Sequence[Allowed | None]) -> Bool[np.ndarray, "b N"]:
        is_candidate = self.index.is_candidate
        return np.stack([is_candidate if each is None else each.mask(is_candidate) for each in allowed])

    def _fit(self, prompts: TokenRows) -> Examples:
        """Cut prompts so that the longest candidate fits after each."""
        limit = self.session.settings.data.max_length
        room = limit - self.index.longest
        if room < 1:
            raise InputError(
                f"config.data.max_length is {limit}, but the longest candidate alone has {self.index.longest} tokens; "
                "raise it"
            )
        return make_examples(prompts, room=room)

    def _examples(self, requests: Sequence[Request], resolved: Sequence[Resolved]) -> tuple[Examples, list[list[str]]]:
        """Histories in the form that the model reads, and notes on parts that are not read as given."""
        notes = [_unknown(request, found, self._reads_words) for request, found in zip(requests, resolved, strict=True)]
        if self._reads_words:
            histories = [
                [entry if item is None else self.index.titles[item] for entry, item in pairs]
                for pairs in (zip(r.history, f.items, strict=True) for r, f in zip(requests, resolved, strict=True))
            ]
            examples = self._fit(self.session.prompts.of_texts(histories))
            for told, is_whole in zip(notes, examples.has_prefix.tolist(), strict=True):
                if not is_whole:
                    limit = self.session.settings.data.max_length
                    told.append(f"the history is cut to its newest part: with a title over {limit} tokens")
            return examples, notes
        known = [[item for item in found.items if item is not None] for found in resolved]
        history = Ragged.from_lists(known)
        if self.session.method.inputs == "items":
            return item_examples(history), notes
        return self._fit(self.session.prompts.of_items(history)), notes


def _unknown(request: Request, found: Resolved, reads_words: bool) -> list[str]:
    """A note for each entry of the history that is not in the catalogue."""
    becomes = "the model reads it as plain text" if reads_words else "so the model cannot read it; it is left out"
    return [
        f"{entry!r} is neither a title nor an item of the catalogue{';' if reads_words else ','} {becomes}"
        for entry, item in zip(request.history, found.items, strict=True)
        if item is None
    ]
