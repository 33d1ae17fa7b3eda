"""Groups of counts and of gain, and means over them."""

import numpy as np

from igd_jax.evaluation.groups import gain_groups, group_means, powers_of_two


def test_counts_are_grouped_by_powers_of_two():
    names, group = powers_of_two(np.array([0, 1, 2, 3, 4, 7, 8, 15, 16]))
    assert names == ["0", "1", "2-3", "4-7", "8-15", "16-31"]
    assert [names[each] for each in group] == ["0", "1", "2-3", "2-3", "4-7", "4-7", "8-15", "8-15", "16-31"]
    assert powers_of_two(np.array([0, 0]))[0] == ["0"]


def test_powers_of_two_are_the_first_of_their_group_however_large():
    values = 2 ** np.arange(40)
    names, group = powers_of_two(np.concatenate([values, values - 1]))
    assert [int(names[each].split("-")[0]) for each in group[:40]] == values.tolist()
    assert (group[40:] == group[:40] - 1).all()


def test_gain_is_grouped_by_half_decades_beside_the_forced_tokens():
    gain, forced = np.array([0, 0, 5e-7, 0.05, 0.09, 0.1, 0.5, 3e3]), np.array([1, 0, 0, 0, 0, 0, 0, 0], bool)
    names, group = gain_groups(gain, forced)
    assert [names[each] for each in group] == ["0", "<1e-06", "<1e-06", "0.032", "0.032", "0.1", "0.32", "1e+02"]
    assert len(names) == 6


def test_means_are_taken_over_each_group_and_are_none_over_an_empty_one():
    columns = group_means(["x", "y", "z"], np.array([0, 2, 0]), {"hit": np.array([True, True, False])})
    assert columns == {"group": ["x", "y", "z"], "n": [2, 0, 1], "hit": [0.5, None, 1.0]}
