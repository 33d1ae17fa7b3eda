"""Two titles of three and two tokens, by gain and by place."""

import numpy as np
import pytest

from igd_jax.evaluation.token_figures import TitleTokens, by_gain, by_place, describe_tokens

TOKENS = TitleTokens(
    place=np.array([0, 1, 2, 0, 1]),
    gain=np.array([2.0, 0.0, 0.0, 2.5, 0.2]),
    forced=np.array([False, True, True, False, False]),
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
        {"tokens": 2.5, "forced": 1.0, "ghosts": 0.5, "ghosts_forced": 1.0, "logp": -4.001 / 2, "history": 0.375}
    )
