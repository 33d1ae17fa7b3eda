"""The exact ranking is what a beam as wide as the catalogue finds."""

import jax
import numpy as np
import pytest
from batches import text_batch
from plain_trie import random_rows
from searches import engine_of, index_of, lists
from tiny_models import VOCAB, random_model

from igd_jax.core.log import say_once
from igd_jax.core.sharding import replicated
from igd_jax.decoding import blocks, exact
from igd_jax.decoding.exact import exact_search
from igd_jax.decoding.mixture import mixture
from igd_jax.decoding.rebalancing import rebalanced
from igd_jax.training.mesh import make_mesh, put_batch

PROMPTS = [[5, 6, 7, 8, 9], [3], [11, 2, 11]]


@pytest.fixture(scope="module")
def index():
    rng = np.random.default_rng(6)
    rows = [list(row) for row in {tuple(row) for row in random_rows(rng, 40, vocab=VOCAB, longest=6)}]
    return index_of(rows, counts=rng.integers(0, 4, len(rows)), candidates=rng.random(len(rows)) < 0.8)


def _exact(search, index, batch):
    """Exact lists as NumPy arrays, and the number of candidates that are in none."""
    engine = exact_search(search, index)
    return lists(engine, batch), engine.n_left_out


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("decoder", {"alpha": 0.4, "length_penalty": 0.5}),
        pytest.param("T5 1.0", {"temperature": 0.7}, marks=pytest.mark.slow),
    ],
)
def test_it_ranks_as_a_beam_for_each_title_does(index, kind, options, monkeypatch):
    monkeypatch.setattr(blocks, "WIDTH", 8)  # many blocks
    monkeypatch.setattr(exact, "MOST_LOGITS", 1)  # one row at a time
    n = len(index.trie.row)
    engine = engine_of(random_model(kind), index, k=n + 2, **options)
    beam = lists(engine, text_batch(PROMPTS, width=6))
    (found, n_left_out) = _exact(engine, index, text_batch(PROMPTS))
    rows, scores = found.rows, found.scores
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
    found, _ = _exact(engine, index, text_batch(PROMPTS).replace(collaborative=source))
    np.testing.assert_allclose(found.scores, beam.scores, rtol=1e-5, atol=1e-4)


def test_titles_that_the_search_cannot_finish_are_left_out_and_counted(index, capsys):
    engine = engine_of(random_model("decoder"), index, k=len(index.trie.row))
    engine = engine.replace(options=engine.options.replace(max_length=4))
    say_once.cache_clear()
    found, n_left_out = _exact(engine, index, text_batch(PROMPTS))
    assert capsys.readouterr().out == (
        f"{n_left_out} of {len(index.trie.row)} candidates are longer than config.decode.max_new_tokens=4 and are not "
        "ranked\n"
    )
    lengths = index.catalog.lengths
    assert n_left_out == (lengths[index.trie.row] > 4).sum() > 0
    assert {row for row in found.rows[0] if row >= 0} == {row for row in index.trie.row if lengths[row] <= 4}


@pytest.mark.slow
def test_devices_score_rows_beside_one_another(index, monkeypatch):
    monkeypatch.setattr(exact, "MOST_LOGITS", 1)  # one row at a time on each
    engine = exact_search(engine_of(random_model("decoder"), index, k=3), index)
    batch = text_batch([[5, 6 + row] for row in range(8)])
    alone = lists(engine, batch)
    jax.clear_caches()  # as a constant has changed
    mesh = make_mesh(data=4)
    with jax.set_mesh(mesh):
        there = lists(jax.device_put(engine, replicated(mesh)), put_batch(batch, mesh))
        traced = jax.make_jaxpr(exact.title_scores.__wrapped__)(engine.search, batch, engine.blocks)
    groups = [each.params["length"] for each in traced.eqns if each.primitive.name == "scan"]
    assert groups[-1] == 2, groups
    np.testing.assert_array_equal(there.rows, alone.rows)
    np.testing.assert_allclose(there.scores, alone.scores, atol=1e-5)


def test_sizes_of_blocks_for_requests_are_powers_of_two(index, monkeypatch):
    monkeypatch.setattr(blocks, "WIDTH", 8)
    titles = index.catalog.tokens.take(index.trie.row)
    some = [titles.take(np.arange(n)) for n in range(1, len(titles) + 1)]
    sizes = {blocks.blocks_of(index.trie, [each], of_requests=True)[0].node.shape[1:] for each in some}
    assert {n & (n - 1) for shape in sizes for n in shape} == {0}
    assert len(sizes) < len({blocks.blocks_of(index.trie, [each])[0].node.shape[1:] for each in some})
