"""Examples whose prompts are joined when a batch asks for them are those of whole prompts, in every number."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from plain_trie import lists_of

from igd_jax.core.ragged import Ragged
from igd_jax.data import examples as made
from igd_jax.data import prompts as joined
from igd_jax.data.batches import by_length, make_text_batch, prompt_room
from igd_jax.data.examples import make_examples
from igd_jax.data.prepared import load
from igd_jax.data.prompts import Prompts, render
from igd_jax.data.templates import filled
from igd_jax.data.tokenizer import Tokenizer, load_tokenizer, train_tokenizer
from igd_jax.identifiers.base import Source
from igd_jax.identifiers.titles import Titles

NO_CACHE = Path("no such folder") / "cache"
UNCLEAN = ["clean", " leads", "trails ", "", "also clean", "a longer title, with words", "\n"]


def _prompts(template: str, tokenizer: Tokenizer, titles: Sequence[str], cache: Path = NO_CACHE) -> Prompts:
    identifiers = Titles(Source([str(number) for number in range(len(titles))], titles, {}, tokenizer, cache))
    return Prompts(filled(template, category="books"), tokenizer, identifiers, cache)


def _whole(template: str, tokenizer: Tokenizer, titles: Sequence[str], history: Ragged) -> Ragged:
    """All prompts, each tokenised as one text."""
    texts = [[titles[item] for item in row] for row in lists_of(history)]
    words = filled(template, category="books")
    return tokenizer.encode_prompts([render(words, row) for row in texts])


def _plain_prefix(rows: Sequence[Sequence[int]]) -> list[int]:
    """What all rows begin with, leaving one id to each; of one row, nothing."""
    if len(rows) < 2:
        return []
    columns = zip(*(row[: min(map(len, rows)) - 1] for row in rows), strict=True)
    same = [column[0] if len(set(column)) == 1 else None for column in columns]
    return same[: same.index(None)] if None in same else same


def _check(template: str, tokenizer: Tokenizer, titles: Sequence[str], history: Ragged, room: np.ndarray) -> None:
    rng, every = np.random.default_rng(1), np.arange(len(history))
    whole = _whole(template, tokenizer, titles, history)
    target = rng.integers(0, len(titles), len(history)).astype(np.int32)
    found = make_examples(_prompts(template, tokenizer, titles).of_items(history), room=room, target=target)
    expected = make_examples(whole.keep_last(room), room=room, target=target)
    is_cut = whole.lengths > room
    assert (found.is_cut == is_cut).all()
    assert (found.has_prefix == ~is_cut).all()
    assert found.shared_prefix.tolist() == _plain_prefix(
        [row for row, cut in zip(lists_of(whole), is_cut, strict=True) if not cut]
    )
    np.testing.assert_array_equal(found.prompt.lengths, expected.prompt.lengths)
    np.testing.assert_array_equal(by_length(found, every), by_length(expected, every))
    items = tokenizer.encode_titles(titles)
    for rows in (every, rng.permutation(every)[:7], every[:0]):
        assert lists_of(found.prompt.take(rows)) == lists_of(expected.prompt.take(rows))
    for rows in (rng.permutation(every)[:7], every[-3:]):
        batch = make_text_batch(found, rows, items, {}, size=8)
        given = np.concatenate([np.tile(batch.shared_prefix, (8, 1)), batch.prompt], axis=1)
        mask = np.concatenate([np.ones((8, len(batch.shared_prefix)), bool), batch.prompt_mask], axis=1)
        assert [row[here].tolist() for row, here in zip(given, mask, strict=True)][: len(rows)] == lists_of(
            expected.prompt.take(rows)
        )
    assert prompt_room(found) >= max(whole.keep_last(room).lengths)
    assert found.prompt[int(every[-1])].tolist() == expected.prompt[int(every[-1])].tolist()


def _random(rng: np.random.Generator, n_items: int, n_rows: int, shortest: int = 0) -> Ragged:
    return Ragged.from_lists([rng.integers(0, n_items, rng.integers(shortest, 6)).tolist() for _ in range(n_rows)])


@pytest.fixture(params=[3, 1 << 13], ids=["few rows at once", "many rows at once"])
def _at_once(request, monkeypatch):
    monkeypatch.setattr(joined, "_AT_ONCE", request.param)
    monkeypatch.setattr(made, "_AT_ONCE", request.param)


@pytest.mark.usefixtures("_at_once")
@pytest.mark.parametrize("template", ["plain", "igd"])
@pytest.mark.parametrize("most", [12, 40, 400])
@pytest.mark.parametrize(
    "titles", [UNCLEAN, UNCLEAN[4:6], ["same start", "same end"]], ids=["unclean", "clean", "alike"]
)
def test_joined_examples_are_those_of_whole_prompts(template, most, titles):
    tokenizer, rng = train_tokenizer([f"{title}\n" for title in UNCLEAN], vocab_size=300), np.random.default_rng(2)
    for shortest in (0, 1):
        history = _random(rng, len(titles), 40, shortest)
        _check(template, tokenizer, titles, history, rng.integers(most // 2, most, 40))


@pytest.mark.parametrize("template", ["plain", "igd"])
def test_all_splits_of_a_prepared_folder(tiny, template):
    prepared, tokenizer = load(tiny / "data"), load_tokenizer(tiny / "model")
    for rows in prepared.splits.values():
        _check(template, tokenizer, prepared.titles, rows.history, np.full(len(rows), 60))


@pytest.mark.slow
@pytest.mark.parametrize("template", ["plain", "igd"])
def test_all_splits_of_a_real_set_with_the_tokenizer_of_qwen(shared, books, template):
    prepared, tokenizer = load(books), load_tokenizer(shared / "data" / "qwen2.5-tokenizer")
    for rows in prepared.splits.values():
        some = rows.take(np.arange(len(rows))[:: max(len(rows) // 1000, 1)])
        _check(template, tokenizer, prepared.titles, some.history, np.full(len(some), 120))


def test_a_row_that_begins_otherwise_is_found_wherever_it_stands(monkeypatch):
    monkeypatch.setattr(made, "_AT_ONCE", 4)
    lists = [[5, 6, 7, 8]] * 30
    assert made.shared_prefix(Ragged.from_lists(lists), np.ones(30, bool)).tolist() == [5, 6, 7]
    for place in range(30):
        other = [*lists[:place], [5, 6, 9, 8], *lists[place + 1 :]]
        assert made.shared_prefix(Ragged.from_lists(other), np.ones(30, bool)).tolist() == [5, 6]
        assert made.shared_prefix(Ragged.from_lists(other), np.arange(30) != place).tolist() == [5, 6, 7]


def test_many_prompts_that_are_tokenised_whole_are_kept_on_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(joined, "_KEPT_ON_DISK", 5)
    monkeypatch.setattr(joined, "_AT_ONCE", 2)
    tokenizer, cache = train_tokenizer(UNCLEAN, vocab_size=300), tmp_path / "run" / "cache"
    history = Ragged.from_lists([[1], [0], [2, 0], [3], [0, 4], [1, 1], [6, 5]])
    whole = _whole("plain", tokenizer, UNCLEAN, history)
    assert lists_of(_prompts("plain", tokenizer, UNCLEAN, cache).of_items(history)) == lists_of(whole)
    kept = [*cache.glob("prompts-*.rows")]
    assert len(kept) == 1
    texts = []
    encode = Tokenizer.encode_prompts
    monkeypatch.setattr(Tokenizer, "encode_prompts", lambda self, given: texts.extend(given) or encode(self, given))
    prompts = _prompts("plain", tokenizer, UNCLEAN, cache)
    rows = prompts.of_items(history)
    assert lists_of(rows) == lists_of(whole)
    assert len(rows.which_whole) == 5
    assert len(texts) == 2  # the words around a history
    prompts.of_items(history.take(np.arange(7)[::-1]))
    _prompts("plain", tokenizer, [*UNCLEAN[:-1], "\t"], cache).of_items(history)
    assert len([*cache.glob("prompts-*.rows")]) == 3  # other histories, other titles


def test_what_is_measured_is_told_only_while_it_takes_long(monkeypatch, capsys):
    tokenizer = train_tokenizer(UNCLEAN, vocab_size=300)
    _prompts("plain", tokenizer, UNCLEAN).of_items(_random(np.random.default_rng(0), len(UNCLEAN), 40))
    assert capsys.readouterr().out == ""
