"""Identifiers of one's own are checked against the items, and a run by all that its prompts hold of them."""

import sys
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import tiny_run
from runs import session_of

from igd_jax.core.errors import InputError
from igd_jax.core.ragged import Ragged
from igd_jax.data.tokenizer import load_tokenizer
from igd_jax.identifiers import base
from igd_jax.identifiers.titles import Titles
from igd_jax.session.histories import Histories
from igd_jax.session.identifiers import make_identifiers
from igd_jax.session.requests import ItemNames, Request
from igd_jax.session.session import Session

N = len(tiny_run.TITLES)


class Numbers:
    """Each item is one new token, and EOS; tests change one of its members."""

    texts, names = None, {}

    def __init__(self, source: base.Source):
        self.source, self.first = source, source.tokenizer.vocab_size

    @property
    def vocab_size(self) -> int:
        return self.first + N

    def rows(self) -> Ragged:
        return Ragged.from_lists([[self.first + item, self.source.tokenizer.eos] for item in range(N)])

    def mentions(self) -> Ragged:
        return Ragged.from_lists([[self.first + item] for item in range(N)])


@pytest.fixture
def set_up(tiny, tmp_path, monkeypatch) -> Callable[..., Session]:
    """Session of a run of a kind of identifiers with some members changed."""
    monkeypatch.setattr(base, "identifier_names", lambda: ["numbers"])

    def set_up(kind: type, **changes) -> Session:
        made = type("Changed", (kind,), changes)
        monkeypatch.setitem(sys.modules, "igd_jax.identifiers.numbers", SimpleNamespace(IDENTIFIERS=made))
        return session_of(tiny_run.tiny_config(tiny, {"identifiers.name": "numbers"}), tmp_path)

    return set_up


@pytest.fixture
def mark(set_up) -> Callable[..., str]:
    """Its fingerprint."""
    return lambda kind, **changes: set_up(kind, **changes).fingerprint


def last_left_out(rows: Callable[[Numbers], Ragged]) -> Callable[[Numbers], Ragged]:
    return lambda self: rows(self).take(np.arange(N - 1))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rows": last_left_out(Numbers.rows)}, rf"^rows\(\) of .* has {N - 1} entries for {N} items; expected one"),
        ({"mentions": last_left_out(Numbers.mentions)}, rf"^mentions\(\) of .* has {N - 1} entries for {N} it"),
        ({"texts": ("A", "B")}, rf"^texts of the identifiers 'numbers' has 2 entries for {N} items; expected"),
        ({"vocab_size": 301}, r"^rows\(\) of .* has the id \d+, but their vocab_size is 301; expected ids from 0"),
        ({"mentions": lambda self: Ragged.from_lists([[-1]] * N)}, r"^mentions\(\) of .* has the id -1, but th"),
    ],
)
def test_what_breaks_the_contract_is_one_line(mark, changes, message):
    with pytest.raises(InputError, match=message):
        mark(Numbers, **changes)


def test_a_run_is_checked_by_mentions_and_texts_that_do_not_follow_from_the_rows_and_titles(mark):
    plain = mark(Numbers)
    reverse = mark(Numbers, mentions=lambda self: Numbers.mentions(self).take(np.arange(N)[::-1].copy()))
    twice = mark(
        Numbers, mentions=lambda self: Ragged.from_lists([[self.first, self.first + item] for item in range(N)])
    )
    assert len({plain, reverse, twice}) == 3
    titles = mark(Titles)
    assert mark(Titles, texts=property(lambda self: [*self._source.titles])) == titles
    assert mark(Titles, texts=property(lambda self: [title.lower() for title in self._source.titles])) != titles


def test_requests_are_read_by_the_texts_that_training_read(set_up):
    def lower(self: Titles, source: base.Source) -> None:
        Titles.__init__(self, replace(source, titles=[title.lower() for title in source.titles]))

    session = set_up(Titles, __init__=lower)
    histories, names = Histories(session, session.index), ItemNames(session.index, session.prepared.item_ids)
    asked = Request((tiny_run.TITLES[4], tiny_run.ITEM_IDS[7]))
    found, _ = histories.of_requests([names.resolve(asked)], names)
    trained = histories.of_items(Ragged.from_lists([[4, 7]]), is_request=True)
    assert found.prompt[0].tolist() == trained.prompt[0].tolist()


def test_runs_of_titles_keep_their_fingerprint(tiny, tmp_path):
    tokenizer = load_tokenizer(tiny / "model")
    _, rows, others = make_identifiers(
        "titles", base.Source(tiny_run.ITEM_IDS, tiny_run.TITLES, {}, tokenizer, tmp_path)
    )
    assert (len(rows), others) == (N, [])
