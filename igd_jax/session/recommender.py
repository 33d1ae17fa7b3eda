"""Recommender of a trained run: built once, it answers any number of requests, and compiles once per shape."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias, overload

import numpy as np
from jaxtyping import Float

from igd_jax.core.errors import InputError
from igd_jax.core.io import Workdir
from igd_jax.core.map_rows import in_groups
from igd_jax.core.shown import shown
from igd_jax.data.batches import by_length
from igd_jax.data.source_io import is_writable
from igd_jax.decoding.search import EXACT, TrieSearch
from igd_jax.evaluation.predictions import Result
from igd_jax.session.answers import answer_file
from igd_jax.session.collaborative import collaborative_source
from igd_jax.session.explaining import explanation
from igd_jax.session.exported import exported_config, exported_session, is_exported
from igd_jax.session.given_lists import list_scores, search_of
from igd_jax.session.ranker import Ranker
from igd_jax.session.requests import Request, Resolved, entries, plain, read_request, requests_in
from igd_jax.session.results import Answer, Answers, Explanation
from igd_jax.session.session import set_up_to_decode
from igd_jax.session.token_statistics import token_statistics
from igd_jax.session.training_weights import training_weights
from igd_jax.session.weights import as_trained
from igd_jax.settings.config_flags import run_config
from igd_jax.settings.config_grid import check_field
from igd_jax.settings.settings import for_lists_alone
from igd_jax.training.mesh import put_batch

OneRequest: TypeAlias = Request | Mapping[str, Any]
"""A request, or a mapping with the fields of `Request`."""
OneOfMany: TypeAlias = OneRequest | list[str] | tuple[str, ...]
"""One of several requests: also a history alone, which may be any iterable of texts."""


class Recommender(Ranker):
    """A model with everything needed to recommend; `Ranker` has the attributes."""

    @classmethod
    def load(cls, workdir: str | Path, changes: Mapping[str, Any] | None = None) -> "Recommender":
        """Load the recommender of a run.

        Args:
          workdir: folder of the run, or one that `igd_jax.export` has written.
          changes: fields of the config by their full names, such as ``{"decode.alpha": 0.1}``. Of `eval.ks`, which only
            evaluations use, those that lists are too short for are left out.

        Raises:
          InputError: there is no run, or the config does not accept a change.
        """
        if not isinstance(workdir, str | os.PathLike):
            raise InputError(f"the run is {shown(workdir)}; expected the path of its folder")
        folder, path = Workdir(str(workdir)), Path(workdir)
        if not (is_exported(path) or folder.config.is_file()):
            raise InputError(f"{folder.path} holds no run (no config.json in it); give the folder of one, or an export")
        config = exported_config(path) if is_exported(path) else run_config(folder)
        for field in changes if isinstance(changes, Mapping) else ():
            if not str(field).startswith("method.args."):  # those of another method are not in the config
                check_field(str(field), config, before="changes: ")
        try:
            config.update_from_flattened_dict({field: plain(value) for field, value in dict(changes or {}).items()})
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"changes are {changes!r}, which the config does not take ({error})") from None
        config = for_lists_alone(config)
        if is_exported(path):
            return cls(*exported_session(config, path))
        return cls(set_up_to_decode(config, folder), folder)

    def __repr__(self) -> str:
        settings, step = self.session.settings, self.trained.step
        # Without a step, it is an exported folder, or a model as it came.
        folder = settings.model.path if step is None else self._workdir.path
        told = [settings.method.name, *[f"step {step}"] * (step is not None)]
        told.append(f"{int(self.index.candidates.sum()):,} candidates")
        if self.session.method.beam_search and settings.decode.search != EXACT:
            told.append(f"{settings.decode.num_beams} beams")
        return f"<Recommender of {folder}: {', '.join(told)}>"

    @overload
    def recommend(
        self, asked: Iterable[str] | OneRequest, *, k: int | None = None, exclude_history: bool | None = None
    ) -> Answer: ...

    @overload
    def recommend(
        self, asked: Iterable[OneOfMany], *, k: int | None = None, exclude_history: bool | None = None
    ) -> Answers: ...

    def recommend(
        self,
        asked: Any,  # as above; what is something else is told in one line
        *,
        k: int | None = None,
        exclude_history: bool | None = None,
    ) -> Answer | Answers:
        """Recommend the next items after one history, or after many.

        Args:
          asked: a history, titles or item ids, oldest first; or a request, which can say more; or several of either,
            which are answered together, in the given order. Lists, tuples, arrays and columns of pandas will do. An
            empty one is taken for no requests; an empty history is an error among several, ``[[]]``, or in a request,
            ``{"history": []}``.
          k: length of the lists, at most `config.decode.top_k`, which is the default.
          exclude_history: whether items of the history are left out, unless a request says so itself; None =
            `config.decode.exclude_history`, which is False by default: what the user has may be recommended again.

        Returns:
          One answer to a history or a request; to several, a list of answers, which `to_pandas` makes one table of. No
          requests have no answers.

        Raises:
          InputError: a request cannot be answered, or k exceeds `config.decode.top_k`.
        """
        requests, is_one = requests_in(asked)
        resolved = []
        for number, each in enumerate(requests, start=1):
            try:
                request = read_request(each)
                if exclude_history is not None and request.exclude_history is None and request.score is None:
                    request = read_request(replace(request, exclude_history=exclude_history))
                resolved.append(self.resolve(request))
            except InputError as error:
                raise error if is_one else InputError(f"request {number}: {error}") from None
        answers = self.answer(resolved, k=k)
        return answers[0] if is_one else Answers(answers)

    def resolve(self, request: Request) -> Resolved:
        """Convert a request to numbers of the catalogue; raises `InputError` if it cannot be answered."""
        if request.score is not None:
            self._search()
        found = self._names.resolve(request, exclude_history=self.session.settings.decode.exclude_history)
        if not self._histories.reads_words and not any(item is not None for item in found.items):
            raise self._names.unknown(
                f"no entry of the history {list(request.history)} is in the catalogue, and this model reads nothing "
                "else; name at least one title or item id",
                request.history[-1],
            )
        return found

    def answer(self, resolved: Sequence[Resolved], *, k: int | None = None) -> list[Answer]:
        """Answer requests, in the given order.

        Args:
          resolved: requests, by `resolve`.
          k: length of the lists; None = `config.decode.top_k`.

        Raises:
          InputError: k exceeds `config.decode.top_k`, or `config.decode.allowed` has lists for the rows of a split.
        """
        self._check_no_lists_of_rows()
        k, answers = self._checked_length(k), dict[int, Answer]()
        for is_scored in (False, True):
            group = [q for q, each in enumerate(resolved) if (each.score is not None) == is_scored]
            if group:
                asked = [resolved[q] for q in group]
                answers |= zip(group, self._scored(asked) if is_scored else self._ranked(asked, k=k), strict=True)
        return [answers[q] for q in range(len(resolved))]

    def recommend_file(self, input: str | Path, output: str | Path, *, k: int | None = None) -> None:
        """Answer a file of requests, one JSON object per line; called again, it goes on where it was stopped.

        Lines that are not requests are reported, counted and left out (docs/data.md, Requests).

        Args:
          input: file of requests.
          output: file of answers to write, or to go on with.
          k: length of the lists; None = `config.decode.top_k`.

        Raises:
          InputError: `input` is not a file, `output` exists and is not a file of answers to it, another process writes
            it, or k exceeds `config.decode.top_k`.
        """
        answer_file(lambda: self, input, output, k=k)

    def explain(self, title: str, history: Sequence[str] | None = None) -> Explanation:
        """Take a title apart into tokens: what each decides, weighs in training, and how likely it is.

        Args:
          title: title or item id.
          history: titles or item ids, oldest first, after which the model predicts the title; None = no
            log-probabilities.

        Raises:
          InputError: the catalogue has no such title, the history is not a list of texts, or the model writes none.
        """
        if not is_writable(title):
            raise InputError(f"the title is {shown(title)}; expected a title or an item id, which are texts")
        item = self._names.item(title)
        found = explanation(self.session.index, self.session.tokenizer, item, weight=self._weights)
        if history is None:
            return found
        request = read_request({"history": entries(history)})
        examples, (notes,) = self._histories.of_requests([self.resolve(request)], self._names)
        logp, *_ = token_statistics(self, examples, np.array([item])).tolist()
        tokens = [replace(token, log_probability=p) for token, p in zip(found.tokens, logp, strict=True)]
        return replace(found, tokens=tuple(tokens), notes=tuple(notes))

    def score(self, requests: Sequence[OneRequest], lists: Sequence[Sequence[str]]) -> list[Float[np.ndarray, " n"]]:
        """Scores of given lists after the histories of requests; see `recommend` with requests that have ``score``.

        Args:
          requests: requests, or mappings with the fields of `Request`, whose histories are read.
          lists: titles or item ids for each request.

        Returns:
          Final scores of each list, in its order, float32.

        Raises:
          InputError: a request has no answer, there are not as many lists as requests, or the method does not search
            the trie of titles.
        """
        if len(requests) != len(lists):
            raise InputError(f"{len(requests)} requests and {len(lists)} lists are given; give a list for each request")
        asked = [
            {"history": read_request(each).history, "score": names} for each, names in zip(requests, lists, strict=True)
        ]
        return [np.array([one.score for one in each.results], np.float32) for each in self.recommend(asked)]

    @cached_property
    def _weights(self) -> Float[np.ndarray, " total"]:
        return training_weights(as_trained(self.session, self._workdir))

    def _ranked(self, resolved: Sequence[Resolved], *, k: int) -> list[Answer]:
        examples, notes = self._histories.of_requests(resolved, self._names)
        source = collaborative_source(self.session, split=None, n_rows=len(resolved))
        found = self.rank(examples, collaborative=source, allowed=[each.allowed for each in resolved])
        score = self.session.method.score
        return [
            Answer(self.results(found, q)[:k], tuple(told), score, each.request.id)
            for q, (each, told) in enumerate(zip(resolved, notes, strict=True))
        ]

    def _scored(self, resolved: Sequence[Resolved]) -> list[Answer]:
        examples, notes = self._histories.of_requests(resolved, self._names)
        source = collaborative_source(self.session, split=None, n_rows=len(resolved))
        lists = [np.asarray(each.score) for each in resolved]
        search, size, mesh = self._search(), self._batch_size(len(resolved)), self.session.mesh
        results: list[tuple[Result, ...]] = [()] * len(resolved)
        for group in in_groups(by_length(examples, np.arange(len(resolved))), size):
            batch: Any = put_batch(self.batch(examples, group, size=size, collaborative=source), mesh)
            scores = list_scores(search, self.index, batch, [lists[q] for q in group], mesh)
            for q, of_list in zip(group.tolist(), scores, strict=True):
                pairs = zip(lists[q].tolist(), of_list.tolist(), strict=True)
                results[q] = tuple(self._result(row, score) for row, score in pairs)
        score = self.session.method.score
        return [
            Answer(of_one, tuple(told), score, each.request.id)
            for each, of_one, told in zip(resolved, results, notes, strict=True)
        ]

    def _search(self) -> TrieSearch:
        return search_of(self.engine, self.session.settings.method.name)

    def _check_no_lists_of_rows(self) -> None:
        if given := self.session.settings.decode.allowed:
            raise InputError(
                f"config.decode.allowed is {given!r}, which has lists for the rows of a split only; set it to '', and "
                "give a request candidates of its own"
            )

    def _checked_length(self, k: int | None) -> int:
        decode = self.session.settings.decode
        if k is not None and (not isinstance(k, int | np.integer) or not 1 <= k <= decode.top_k):
            raise InputError(
                f"k is {k!r}, but lists have a length of {decode.top_k}; give 1 to {decode.top_k}, or raise "
                "config.decode.num_beams (and config.decode.top_k, if that is not 0)"
            )
        return decode.top_k if k is None else int(k)
