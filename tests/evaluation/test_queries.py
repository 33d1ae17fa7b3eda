"""What is asked of a split, what was right, and what is measured of the answers."""

import json

import numpy as np
import pytest

from igd_jax.evaluation.metrics import CatalogueRows
from igd_jax.evaluation.metrics_json import metrics_of
from igd_jax.evaluation.predictions import Target
from igd_jax.evaluation.queries import describe_targets, distinct_targets, evenly_spaced, group_by_user, make_queries


def ints(*values):
    return np.array(values, dtype=np.int64)


def bools(*values):
    return np.array(values, dtype=bool)


# Items 0 and 3 share row 2; item 2 is the only one of row 0 and no candidate, and neither is item 0.
CATALOGUE = CatalogueRows.of_items(
    ints(2, 1, 0, 2, 3),
    candidates=bools(0, 1, 0, 1, 1),
    counts=ints(2, 1, 4, 0, 0),
    seen=bools(1, 1, 1, 0, 0),
)
SPLIT = {
    "user": np.array(list("baabb"), object),
    "timestamp": ints(1, 2, 5, 3, 4),
    "target": np.array([0, 1, 4, 3, 2], np.int32),
}
IDS, TITLES = [f"i{item}" for item in range(5)], ["Fox", "Owl", "Elk", "Red Fox", "Hare"]


# ------------------------------------------------------------------------------------------------------ what is asked
def test_each_row_is_a_query_with_its_target():
    queries = make_queries("rows", **SPLIT)
    assert (len(queries), queries.row.tolist(), queries.protocol) == (5, [0, 1, 2, 3, 4], "rows")
    assert [queries.targets[q].tolist() for q in range(5)] == [[0], [1], [4], [3], [2]]


def test_each_user_is_a_query_at_their_earliest_row_with_all_targets_oldest_first():
    queries = make_queries("users", **SPLIT)
    assert queries.row.tolist() == [0, 1]
    assert [queries.targets[q].tolist() for q in range(2)] == [[0, 3, 2], [1, 4]]


@pytest.mark.parametrize(("protocol", "rows", "targets"), [("rows", [0, 2], [[0], [4]]), ("users", [0], [[0, 3, 2]])])
def test_some_queries_keep_all_their_targets(protocol, rows, targets):
    queries = make_queries(protocol, **SPLIT, max_examples=len(rows))
    assert queries.row.tolist() == rows
    assert [queries.targets[q].tolist() for q in range(len(queries))] == targets


def test_some_rows_are_evenly_spaced():
    assert evenly_spaced(10, 4).tolist() == [0, 2, 5, 7]
    for limit in (0, 10, 11):
        assert evenly_spaced(10, limit).tolist() == list(range(10))


def test_users_are_asked_at_their_earliest_row():
    first, user = group_by_user(np.array(list("babca"), object), ints(1, 5, 3, 2, 4))
    assert first.tolist() == [0, 3, 4]
    assert user.tolist() == [0, 2, 0, 1, 2]


def test_of_equal_times_the_first_row_is_the_earliest():
    first, user = group_by_user(np.array(list("aabb"), object), ints(3, 3, 2, 1))
    assert (first.tolist(), user.tolist()) == ([0, 3], [0, 0, 1, 1])


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_rows_does_not_change_who_is_asked_what(seed):
    rng = np.random.default_rng(seed)
    names, timestamp = rng.choice(np.array(list("abcdefg"), object), 40), rng.permutation(40)

    def asked(order):
        first, user = group_by_user(names[order], timestamp[order])
        assert (names[order][first][user] == names[order]).all()
        return {names[order][row]: timestamp[order][row] for row in first}

    expected = {name: timestamp[names == name].min() for name in set(names)}
    assert asked(np.arange(40)) == asked(rng.permutation(40)) == expected


# ----------------------------------------------------------------------------------------------------- what was right
def test_items_of_one_row_are_one_target_and_the_oldest_stands_for_it():
    right = distinct_targets(make_queries("users", **SPLIT), CATALOGUE.row_of_item)
    assert [right[q].tolist() for q in range(2)] == [[0, 2], [1, 4]]


@pytest.mark.parametrize("seed", range(3))
def test_distinct_targets_equal_those_of_a_dictionary(seed):
    rng = np.random.default_rng(seed)
    row_of_item, n = rng.permutation(np.arange(12) // 2), 60
    user = rng.choice(np.array(list("abcdefg"), object), n)
    queries = make_queries("users", user=user, timestamp=rng.permutation(n), target=rng.integers(0, 12, n))
    right = distinct_targets(queries, row_of_item)
    for q in range(len(queries)):
        first: dict[int, int] = {}
        for item in queries.targets[q].tolist():
            first.setdefault(row_of_item[item], item)
        assert right[q].tolist() == list(first.values())


def test_targets_are_named_as_lists_name_them():
    """Item 0 is not a candidate, but item 3 of its row is; item 2 shares its row with none."""
    described = describe_targets(make_queries("users", **SPLIT), CATALOGUE, item_ids=IDS, titles=TITLES)
    assert described == [
        Target(items=("i3", "i2"), title="Fox", warm=(True, True)),
        Target(items=("i1", "i4"), title="Owl", warm=(True, False)),
    ]


# -------------------------------------------------------------------------------------------------- what is measured
RANKED = {"ranked": ints(3, 2, 1, -1).reshape(2, 2), "scores": np.full((2, 2), -1.0)}


def test_metrics_by_users():
    found = metrics_of(make_queries("users", **SPLIT), **RANKED, catalogue=CATALOGUE, ks=(1, 2), candidates="stock.txt")
    # User b finds row 2 of rows 2 and 0, second; user a row 1 of rows 1 and 3, first.
    assert (found["n"], found["invalid"], found["target_absent"], found["ground_truth"]["max"]) == (2, 1, 1, 2)
    assert (found["recall@1"], found["recall@2"], found["mrr"]) == (0.25, 0.5, 0.75)
    assert (found["protocol"], found["candidates"]) == ("users", "stock.txt")
    json.dumps(found)


def test_metrics_by_rows():
    queries = make_queries("rows", **{name: column[:2] for name, column in SPLIT.items()})
    found = metrics_of(queries, **RANKED, catalogue=CATALOGUE, ks=(1, 2), candidates="warm")
    assert (found["hr@1"], found["hr@2"], found["id_exact"]["hr@2"], found["invalid"]) == (0.5, 1, 0.5, 1)
    assert (found["protocol"], found["candidates"]) == ("rows", "warm")
    # Of rows 1, 2 and 3, row 2 has two targets in train and row 1 one.
    assert found["popularity_baseline"]["hr@1"] == 0.5
    json.dumps(found)
