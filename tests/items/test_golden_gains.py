"""Gains are those of the authors' code (docs/golden.md)."""

import json

import numpy as np
import pytest
from golden_figures import books_index, golden_arrays, golden_figures, ragged
from plain_trie import lists_of

from igd_jax.core.ragged import ragged_index
from igd_jax.data.tokenizer import load_tokenizer
from igd_jax.items.gain_weights import gain_share


@pytest.fixture(scope="module")
def tokens() -> np.ndarray:
    """Where the tokens of the titles with figures stand among those of all titles."""
    rows, chosen = ragged("igd", "title"), golden_arrays("igd")["gain_title"]
    assert len(chosen) == 300
    return ragged_index(rows.start[chosen], rows.lengths[chosen])


def test_gain_of_each_token_and_which_have_none(tokens):
    expected, walked = golden_arrays("igd")["gain"], books_index().walk()
    assert walked.on_trie.all()
    np.testing.assert_allclose(walked.gain[tokens], expected, rtol=1e-9, atol=0)
    np.testing.assert_array_equal(walked.forced[tokens], expected == 0)


def test_gain_relative_to_the_entropy_before_each_token(tokens):
    found = gain_share(books_index(), weights="relative", entropy="mass")[tokens]
    np.testing.assert_allclose(found, golden_arrays("igd")["relative_gain"], rtol=1e-9, atol=0)


def test_root_entropy_and_number_of_nodes():
    index, figures = books_index(), golden_figures("igd")
    assert index.gain.root_entropy == pytest.approx(figures["root_entropy"], rel=1e-12)
    assert len(index.trie.token) - 1 == figures["statistics"]["total_nodes"]  # the authors do not count the root


def test_shares_of_purchased_tokens_by_gain():
    index, figures = books_index(), golden_figures("igd")
    rows, walked, statistics = index.item_tokens, index.walk(), figures["statistics"]
    weight = np.repeat(index.counts, rows.lengths)
    # Two nats part the large gains from the small: only first tokens lie above, and all of them do.
    assert weight[rows.start[:-1]].sum() == figures["total_frequency"]
    assert weight.sum() == statistics["total_frequency"]
    assert weight[walked.forced].sum() == statistics["freq_zero"]
    assert weight[~walked.forced & (walked.gain < 2)].sum() == statistics["freq_small"]
    assert weight[walked.gain > 2].sum() == statistics["freq_large"]


def test_the_tokenizer_gives_the_tokens_of_all_titles(shared):
    titles = json.loads((shared / "golden/igd_amazon_books/item_frequency.json").read_text(encoding="utf-8"))
    found = load_tokenizer(shared / "models/tiny-qwen2-books").encode_titles(list(titles))
    assert lists_of(found) == lists_of(ragged("igd", "title"))
    assert list(titles.values()) == golden_arrays("igd")["count"].tolist()
