"""The exact ranking is what a beam as wide as the catalogue finds."""

import numpy as np
import pytest
from batches import text_batch
from plain_trie import random_rows
from searches import engine_of, index_of, lists
from tiny_models import VOCAB, random_model

from igd_jax.decoding import exact
from igd_jax.decoding.exact import ExactRanking
from igd_jax.decoding.mixture import mixture
from igd_jax.decoding.rebalancing import rebalanced

PROMPTS = [[5, 6, 7, 8, 9], [3], [11, 2, 11]]


@pytest.fixture(scope="module")
def index():
    rng = np.random.default_rng(6)
    rows = [list(row) for row in {tuple(row) for row in random_rows(rng, 40, vocab=VOCAB, longest=6)}]
    return index_of(rows, counts=rng.integers(0, 4, len(rows)), candidates=rng.random(len(rows)) < 0.8)


def _ranked(engine, index, k, batch_of=lambda n: text_batch(PROMPTS[n : n + 1])):
    ranking = ExactRanking(engine, index)
    found = [ranking.rank(batch_of(n), k, width=6) for n in range(len(PROMPTS))]
    return *map(np.stack, zip(*found, strict=True)), ranking.n_left_out


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("decoder", {"alpha": 0.4, "length_penalty": 0.5}),
        pytest.param("T5 1.0", {"temperature": 0.7}, marks=pytest.mark.slow),
    ],
)
def test_it_ranks_as_a_beam_for_each_title_does(index, kind, options, monkeypatch):
    monkeypatch.setattr(exact, "MOST_TITLES", 16)  # several chunks, the last of which is filled up
    n = len(index.trie.row)
    assert n % 16
    engine = engine_of(random_model(kind), index, k=n + 2, **options)
    beam = lists(engine, text_batch(PROMPTS, width=6))
    rows, scores, n_left_out = _ranked(engine, index, n + 2)
    assert n_left_out == 0
    np.testing.assert_allclose(scores, beam.scores, rtol=1e-5, atol=1e-5)
    assert (rows[:, n:] == beam.rows[:, n:]).all()
    assert (rows[:, n:] == -1).all()
    is_apart = np.diff(beam.scores[:, :n], axis=1) < -1e-4  # nearly equal scores may swap
    np.testing.assert_array_equal(rows[:, 0][is_apart[:, 0]], beam.rows[:, 0][is_apart[:, 0]])
    for ours, theirs in zip(rows, beam.rows, strict=True):
        assert sorted(ours.tolist()) == sorted(theirs.tolist())


def test_scores_of_a_source_are_part_of_it(index):
    score = mixture(index, lam=0.3, then=rebalanced(index.gain, alpha=0.2, temperature=1.0))
    n = len(index.trie.row)
    engine = engine_of(random_model("decoder"), index, k=n, score=score)
    source = np.random.default_rng(0).normal(0, 2, (len(PROMPTS), len(index.titles))).astype(np.float32)
    beam = lists(engine, text_batch(PROMPTS, width=6).replace(collaborative=source))
    _, scores, _ = _ranked(
        engine, index, n, lambda n: text_batch(PROMPTS[n : n + 1]).replace(collaborative=source[n : n + 1])
    )
    np.testing.assert_allclose(scores, beam.scores, rtol=1e-5, atol=1e-4)


def test_titles_that_the_search_cannot_finish_are_left_out(index):
    engine = engine_of(random_model("decoder"), index, k=3)
    engine = engine.replace(options=engine.options.replace(max_length=4))
    rows, _, n_left_out = _ranked(engine, index, len(index.trie.row))
    lengths = index.catalog.lengths
    assert n_left_out == (lengths[index.trie.row] > 4).sum() > 0
    assert {row for row in rows[0] if row >= 0} == {row for row in index.trie.row if lengths[row] <= 4}
