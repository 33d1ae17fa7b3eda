"""Rows of many batches that take one another's places find what each batch finds alone."""

from threading import Barrier

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from batches import text_batch
from flax import nnx
from plain_trie import random_rows
from searches import assert_same_lists, engine_of, index_of, jump_of, lists
from table_model import Sizes, TableModel, padded
from tiny_models import VOCAB as TINY_VOCAB
from tiny_models import random_model

from igd_jax.core.types import Recommendations
from igd_jax.decoding import queue
from igd_jax.decoding.jump import Jump
from igd_jax.decoding.queue import Reader, recommend_all
from igd_jax.decoding.recurrence import SearchOptions
from igd_jax.decoding.search import TrieSearch
from igd_jax.decoding.stepwise import Stepwise

SIZE, WIDTH, VOCAB = 4, 6, 30


@pytest.fixture(scope="module")
def searches() -> tuple[Stepwise, Jump]:
    rows = random_rows(np.random.default_rng(5), 50, vocab=12, longest=12)
    built = padded(rows, [1] * len(rows), Sizes(VOCAB, 600, 150, 64, 14), alpha=0.3)
    graph, weights = nnx.split(TableModel(VOCAB, seed=1))
    search = {"graph": graph, "weights": weights, "trie": built.trie, "edge_score": built.score,
              "options": SearchOptions(3, 12, 0.5), "top_k": 3}  # fmt: skip
    return Stepwise(**search), Jump(**search, chains=built.chains, n_tokens=4, fill=4)


@pytest.mark.parametrize("which", [pytest.param(0, marks=pytest.mark.slow), 1], ids=["stepwise", "jump"])
def test_every_row_comes_once_with_the_lists_that_its_batch_finds_alone(searches, which):
    engine: TrieSearch = searches[which]
    rng, n_rows = np.random.default_rng(6), 6 * SIZE + 3
    prompts = [rng.integers(1, VOCAB, rng.integers(1, WIDTH + 1)).tolist() for _ in range(n_rows)]
    allowed = rng.random((n_rows, 64)) < rng.choice([0.1, 1.1], (n_rows, 1))
    batches = []
    for begin in range(0, n_rows, SIZE):
        chosen = np.arange(begin, min(begin + SIZE, n_rows))
        filled = [prompts[row] for row in chosen] + [[]] * (SIZE - len(chosen))
        masks = np.pad(allowed[chosen], ((0, SIZE - len(chosen)), (0, 0)))
        batches.append((len(chosen), text_batch(filled, width=WIDTH).replace(allowed=jnp.asarray(masks))))
    places, found = zip(*recommend_all(engine, iter(batches), width=WIDTH), strict=True)
    order = np.argsort(np.concatenate(places))
    assert np.concatenate(places)[order].tolist() == list(range(n_rows))
    if which:
        assert np.concatenate(places).tolist() != list(range(n_rows))
    whole = jax.tree.map(lambda *parts: np.concatenate(parts)[order], *found)
    alone = [lists(searches[0], batch) for _, batch in batches]
    expected: Recommendations = jax.tree.map(lambda *parts: np.concatenate(parts)[:n_rows], *alone)
    assert_same_lists(whole, expected)


def test_results_of_two_searches_are_waited_for_together():
    class Result(int):
        def block_until_ready(self):
            both.wait()  # until the other search waits, too
            return self

    def search(number: int):
        found = None
        for call in range(3):
            result = yield found, lambda call=call: Result(10 * number + call)
            found = np.array([result]), number
        yield found, None

    both = Barrier(2, timeout=30)
    found = [(places.tolist(), number) for places, number in queue._beside([search(0), search(1)])]
    assert sorted(found) == [([10 * number + call], number) for number in range(2) for call in range(3)]


def test_searches_beside_one_another_share_a_program(searches, monkeypatch):
    engine, traces, plain = searches[1].replace(top_k=2), [], Jump.generate
    monkeypatch.setattr(Jump, "generate", lambda *given: traces.append(1) or plain(*given))
    batches = [(SIZE, text_batch([[1, 2, number + 3]] * SIZE, width=WIDTH)) for number in range(4)]
    found = list(recommend_all(engine, iter(batches), width=WIDTH))
    assert sum(len(places) for places, _ in found) == 4 * SIZE
    assert 1 <= len(traces) <= 2  # one per room of the table


def test_what_prompts_begin_with_is_read_once_until_it_changes(monkeypatch):
    index = index_of(random_rows(np.random.default_rng(5), 12, vocab=TINY_VOCAB, longest=4))
    stepwise = engine_of(random_model("decoder"), index, k=2)
    jump = jump_of(stepwise, index, n_tokens=4, fill=0)
    reads, plain = [], queue._read_shared
    monkeypatch.setattr(queue, "_read_shared", lambda *given: reads.append(given[1]) or plain(*given))
    read = Reader()
    for header, n_reads in ([4, 5, 6], 1), ([4, 5, 6], 1), ([4, 5, 7], 2):
        batch = text_batch([[7, 8], [3, 9]], width=2, shared=header)
        for _, found in recommend_all(jump, iter([(2, batch)]), width=5, read=read):
            expected = lists(stepwise, batch)
            for rows, scores in zip(found.rows, found.scores, strict=True):
                assert rows.tolist() in expected.rows.tolist()
                assert np.abs(expected.scores - scores).sum(axis=1).min() < 1e-4
        assert len(reads) == n_reads
