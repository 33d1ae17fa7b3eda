"""Two titles of three and two tokens, by gain and by place."""

from dataclasses import replace

import numpy as np
import pytest

from igd_jax.evaluation.token_figures import TitleTokens, by_gain, by_place, describe_tokens

TOKENS = TitleTokens(
    place=np.array([0, 1, 2, 0, 1]),
    gain=np.array([2.0, 0.0, 0.0, 2.5, 0.2]),
    forced=np.array([False, True, True, False, False]),
    on_trie=np.ones(5, bool),
    left=np.array([3.0, 1.0, 1.0, 3.0, 0.5]),
    logp=np.array([-1.0, -0.001, -0.5, -2.0, -0.5], np.float32),
    entropy=np.array([1.0, 0.0, 0.25, 3.0, 0.75], np.float32),
    without=np.array([-2.0, -0.001, -0.5, -2.0, -0.25], np.float32),
)


def test_by_gain_forced_tokens_are_a_group_and_shares_of_the_loss_sum_to_one():
    columns = by_gain(TOKENS)
    assert columns["group"] == ["0", "0.1", "1"]
    assert columns["n"] == [2, 1, 2]
    assert columns["logp"] == pytest.approx([-0.2505, -0.5, -1.5])
    assert columns["ghost"] == [0.5, 0.0, 0.0]
    assert columns["history"] == pytest.approx([0, -0.25, 0.5])
    assert columns["loss_share"] == pytest.approx(np.array([0.501, 0.5, 3.0]) / 4.001)


def test_by_place_means_are_over_the_titles_that_have_the_place():
    columns = by_place(TOKENS)
    assert columns["place"] == [0, 1, 2]
    assert columns["n"] == [2, 2, 1]
    assert columns["entropy"] == pytest.approx([2, 0.375, 0.25])
    assert columns["left"] == pytest.approx([3, 0.75, 1])
    assert columns["history"] == pytest.approx([0.5, -0.125, 0])


def test_titles_are_described_by_sums_over_their_tokens():
    assert describe_tokens(TOKENS) == pytest.approx(
        {
            "tokens": 2.5, "ghosts": 0.5, "logp": -4.001 / 2, "history": 0.375,
            "titles_off_trie": 0, "forced": 1.0, "ghosts_forced": 1.0,
        }
    )  # fmt: skip


# -------------------------------------------------------------------------------------------------- titles off the trie
def with_a_title_off_the_trie() -> TitleTokens:
    """`TOKENS` and a title of two ghosts, marked as `TokenWalk` marks one off the trie: forced, and without gain."""
    more = TitleTokens(
        place=np.array([0, 1]),
        gain=np.zeros(2),
        forced=np.ones(2, bool),
        on_trie=np.zeros(2, bool),
        left=np.full(2, 3.0),
        logp=np.full(2, -0.002, np.float32),
        entropy=np.full(2, 0.5, np.float32),
        without=np.full(2, -0.102, np.float32),
    )
    return TitleTokens(*(np.concatenate([vars(TOKENS)[name], vars(more)[name]]) for name in vars(TOKENS)))


def test_a_title_off_the_trie_is_in_no_group_of_gain():
    assert by_gain(with_a_title_off_the_trie()) == by_gain(TOKENS)


def test_a_title_off_the_trie_has_its_place_among_log_probabilities_but_no_mass_that_is_left():
    columns, on = by_place(with_a_title_off_the_trie()), by_place(TOKENS)
    assert columns["n"] == [3, 3, 1]
    assert columns["entropy"] == pytest.approx([4.5 / 3, 1.25 / 3, 0.25])
    assert columns["ghost"] == pytest.approx([1 / 3, 2 / 3, 0])
    assert columns["history"] == pytest.approx([1.1 / 3, -0.15 / 3, 0], abs=1e-6)
    assert columns["left"] == on["left"]


def test_a_title_off_the_trie_is_counted_and_has_no_forced_tokens():
    found = describe_tokens(with_a_title_off_the_trie())
    assert found == pytest.approx(
        {
            "tokens": 7 / 3, "ghosts": 1.0, "logp": -4.005 / 3, "history": 0.95 / 3,
            "titles_off_trie": 1, "forced": 1.0, "ghosts_forced": 1.0,
        }
    )  # fmt: skip


def test_without_a_title_on_the_trie_there_is_nothing_that_could_be_forced():
    off = replace(TOKENS, forced=np.ones(5, bool), on_trie=np.zeros(5, bool))
    found = describe_tokens(off)
    assert (found["titles_off_trie"], found["forced"], found["ghosts_forced"]) == (2, None, None)
    assert by_place(off)["left"] == [None] * 3
    assert by_gain(off)["n"] == []
