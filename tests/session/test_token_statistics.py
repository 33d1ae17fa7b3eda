"""What a model makes of titles, against one prompt after another that ends before the token, and a plain softmax."""

import jax
import numpy as np
import pytest
import tiny_run
from batches import text_batch
from flax import nnx

from igd_jax.core.sharding import row_shards
from igd_jax.data.templates import TEMPLATES
from igd_jax.decoding import exact
from igd_jax.evaluation.token_figures import GHOST
from igd_jax.session.recommender import Recommender
from igd_jax.session.token_statistics import title_tokens

ITEMS = [4, 0, tiny_run.N_SOLD, 10, 3, 19, tiny_run.N_SOLD + 1, 7, 12, len(tiny_run.TITLES) - 1]
"""One title for each of ten prompts, more than a batch; two of them were never sold."""


@pytest.fixture(scope="module")
def ranker(trained) -> Recommender:
    return Recommender.load(trained)


@pytest.fixture(scope="module")
def prompts(ranker):
    """Ten prompts of several lengths."""
    return ranker.examples(ranker.session.rows("test").take(np.arange(len(ITEMS))))


@pytest.fixture(scope="module")
def titles(ranker) -> list[list[int]]:
    tokenizer = ranker.session.tokenizer
    return [[*tokenizer.encode([tiny_run.TITLES[item] + "\n"])[0], tokenizer.eos] for item in ITEMS]


@pytest.fixture(scope="module")
def walk(ranker):
    """The walk over the titles that were sold."""
    index = ranker.session.index
    return index.with_candidates(index.counts > 0).walk()


@pytest.fixture(scope="module")
def model(ranker):
    """The model, surer of itself: it has ghosts."""
    model = nnx.clone(ranker.trained.model)
    model.norm.scale[...] *= 8
    return model


@pytest.fixture(scope="module")
def found(ranker, prompts, walk, model):
    return title_tokens(ranker, prompts, np.array(ITEMS), walk, model=model)


@pytest.fixture(scope="module")
def plain(ranker, prompts, titles, model):
    """Log-probabilities of all that may follow each prompt and each part of its title, float64."""
    read = [
        [*prompts.prompt[row].tolist(), *title[:at]] for row, title in enumerate(titles) for at in range(len(title))
    ]
    return log_softmax(ranker, model, read)


def log_softmax(ranker, model, texts: list[list[int]]) -> np.ndarray:
    next_logits = nnx.jit(lambda model, batch: model.logits(model.prefill(batch).hidden))
    with jax.set_mesh(ranker.session.mesh):
        logits = np.asarray(next_logits(model, text_batch(texts)), np.float64)
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def of_tokens(logp: np.ndarray, titles: list[list[int]]) -> np.ndarray:
    """Log-probability of each token of the titles."""
    return logp[np.arange(len(logp)), np.concatenate(titles)]


def test_log_probabilities_entropies_and_ghosts_are_those_of_a_plain_softmax(found, plain, titles):
    own = of_tokens(plain, titles)
    assert found.place.tolist() == [at for title in titles for at in range(len(title))]
    np.testing.assert_allclose(found.logp, own, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found.entropy, -(np.exp(plain) * plain).sum(axis=1), rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(found.is_ghost, np.exp(own) > GHOST)
    assert 0 < found.is_ghost.sum() < found.is_ghost.size


def test_where_logits_take_much_memory_fewer_titles_are_read_at_once(ranker, prompts, walk, model, found, monkeypatch):
    monkeypatch.setattr(exact, "MOST_LOGITS", 1)
    by_parts = title_tokens(ranker, prompts, np.array(ITEMS), walk, model=model)
    assert ranker.session.settings.decode.batch_size > row_shards(ranker.session.mesh)
    np.testing.assert_allclose(by_parts.logp, found.logp, rtol=1e-4, atol=1e-4)


def test_the_effect_of_the_history_is_what_is_lost_after_the_words_for_an_unknown_one(
    ranker, model, found, plain, titles
):
    [unknown] = ranker.session.tokenizer.encode([TEMPLATES["plain"].unknown.format(category="items")])
    without = log_softmax(ranker, model, [[*unknown, *title[:at]] for title in titles for at in range(len(title))])
    effect = of_tokens(plain, titles) - of_tokens(without, titles)
    np.testing.assert_allclose(found.logp - found.without, effect, rtol=1e-3, atol=1e-3)
    assert np.abs(effect).max() > 0.1


def test_what_is_left_is_the_entropy_mass_of_the_sold_titles_that_begin_alike(ranker, found, titles):
    prepared, tokenizer = ranker.session.prepared, ranker.session.tokenizer
    counts: dict[tuple[int, ...], int] = {}
    for item in prepared.splits["train"].target.tolist():
        ids = (*tokenizer.encode([prepared.titles[item] + "\n"])[0], tokenizer.eos)
        counts[ids] = counts.get(ids, 0) + 1
    p = {ids: count / sum(counts.values()) for ids, count in counts.items()}

    def mass(begin: list[int]) -> float:
        return -sum(each * np.log(each) for ids, each in p.items() if [*ids[: len(begin)]] == begin)

    is_sold = [tuple(title) in counts for title in titles]
    assert is_sold.count(False) == tiny_run.N_COLD
    assert found.on_trie.tolist() == [sold for title, sold in zip(titles, is_sold, strict=True) for _ in title]
    left, gain = [], []
    for title, sold in zip(titles, is_sold, strict=True):
        masses = [mass(title[:at]) for at in range(len(title) + 1)]
        left += masses[:-1] if sold else []
        gain += [*-np.diff(masses)] if sold else []
    np.testing.assert_allclose(found.left[found.on_trie], left, rtol=1e-9)
    np.testing.assert_allclose(found.gain[found.on_trie], gain, rtol=1e-9, atol=1e-12)
