from dataclasses import replace

import numpy as np
import pytest

from igd_jax.core.allowed import Allowed
from igd_jax.core.errors import InputError
from igd_jax.evaluation.metrics import (
    CatalogueRows,
    coverage,
    hit_rate,
    mean_metrics,
    most_popular,
    mrr,
    ndcg,
    popular_lists,
    popularity_third,
    rank_of_item,
    rank_of_target,
    row_metrics,
    score_rows,
)


def ints(*values):
    return np.array(values, dtype=np.int64)


def bools(*values):
    return np.array(values, dtype=bool)


# Row 1 is items 0 2 4 and row 3 items 3 5; row 4, of item 7, is not a candidate.
SHARED = CatalogueRows(
    row_of_item=ints(1, 2, 1, 3, 1, 3, 0, 4),
    candidates=bools(1, 1, 1, 1, 1, 1, 1, 0),
    is_candidate=bools(1, 1, 1, 1, 0),
    count=ints(5, 0, 2, 2, 0),
    is_warm=bools(1, 1, 1, 1, 0),
)


def random_case(seed, *, n_rows=40, n_results=6, n_catalogue=9):
    """Lists of candidate rows, some places empty, and a target for each; a quarter of the items are not candidates."""
    rng = np.random.default_rng(seed)
    row_of_item = rng.permutation(np.repeat(np.arange(n_catalogue), rng.integers(1, 4, n_catalogue)))
    items = row_of_item.size
    catalogue = CatalogueRows.of_items(
        row_of_item,
        candidates=rng.random(items) < 0.75,
        counts=rng.integers(0, 4, items),
        seen=rng.random(items) < 0.4,
    )
    rows = np.flatnonzero(catalogue.is_candidate)
    ranked = np.full((n_rows, n_results), -1)
    for list_ in ranked:
        found = rng.permutation(rows)[:n_results]
        list_[: found.size] = found
    ranked[rng.random(ranked.shape) < 0.2] = -1
    return ranked, rng.integers(0, items, n_rows), catalogue


def test_rank_counts_from_zero_and_is_minus_one_on_a_miss():
    ranked = ints(7, 8, 9, 7, 8, 9, 7, 8, 9, 7, 8, 9).reshape(4, 3)
    assert rank_of_target(ranked, ints(7, 8, 9, 5)).tolist() == [0, 1, 2, -1]


def test_first_of_several_equal_results_counts():
    assert rank_of_target(ints(1, 4, 4, 4).reshape(1, 4), ints(4)).tolist() == [1]


def test_no_result_still_takes_its_place():
    assert rank_of_target(ints(-1, 3).reshape(1, 2), ints(3)).tolist() == [1]


def test_ndcg_at_places_one_two_three_and_ten():
    values = ndcg(ints(0, 1, 2, 9, -1), 10)
    np.testing.assert_allclose(values, [1.0, 0.6309297535714575, 0.5, 0.2890648263178879, 0.0], rtol=1e-15)
    assert values[0] == 1.0


def test_ndcg_is_the_quotient_of_natural_logs_of_the_published_code():
    rank = np.arange(50)
    np.testing.assert_allclose(ndcg(rank, 50), np.log(2) / np.log(rank + 2), rtol=1e-15)


def test_cut_off_keeps_place_k_and_drops_place_k_plus_one():
    rank = ints(4, 5, -1)
    assert hit_rate(rank, 5).tolist() == [1.0, 0.0, 0.0]
    assert (ndcg(rank, 5) > 0).tolist() == [True, False, False]


def test_reciprocal_rank():
    assert mrr(ints(0, 1, 3, -1)).tolist() == [1.0, 0.5, 0.25, 0.0]


def test_coverage_counts_each_candidate_row_once_and_no_result_never():
    ranked = ints(0, 1, -1, 1, 0, 3).reshape(2, 3)
    is_candidate = bools(1, 1, 1, 1, 0, 0, 0, 1)
    assert coverage(ranked, is_candidate, 2) == 2 / 5
    assert coverage(ranked, is_candidate, 3) == 3 / 5
    assert coverage(ranked + np.where(ranked == 3, 2, 0), is_candidate, 3) == 2 / 5  # row 5 is not a candidate


def test_metrics_of_no_rows_are_none():
    assert mean_metrics(ints(), [1]) == {"hr@1": None, "ndcg@1": None, "mrr": None}


# ------------------------------------------------------------------------------------------------ items and candidates
def test_what_is_known_of_items_is_gathered_by_row():
    rows = CatalogueRows.of_items(
        ints(2, 0, 2, 1, 1), candidates=bools(0, 0, 1, 1, 1), counts=ints(4, 1, 0, 3, 2), seen=bools(1, 0, 0, 0, 0)
    )
    assert rows.is_candidate.tolist() == [False, True, True]
    assert rows.count.tolist() == [1, 5, 4]  # of all items, candidates or not
    assert rows.is_warm.tolist() == [False, False, True]


def test_exact_item_ranks_count_the_items_of_shared_titles():
    # Written out: rows 2, 1, 3 are items 1 | 0 2 4 | 3 5.
    ranked = np.tile(ints(2, -1, 1, 3), (7, 1))
    ranks = rank_of_item(ranked, ints(1, 0, 2, 4, 3, 5, 6), SHARED)
    assert ranks.tolist() == [0, 1, 2, 3, 4, 5, -1]


def test_exact_item_ranks_count_only_candidates():
    # Row 1 is items 0 2 4, of which 0 is not a candidate: rows 1, 2 written out are 2 4 | 1.
    split = replace(SHARED, candidates=bools(0, 1, 1, 1, 1, 1, 1, 0))
    assert rank_of_item(np.tile(ints(1, 2), (4, 1)), ints(0, 2, 4, 1), split).tolist() == [-1, 0, 1, 2]


def test_an_item_that_is_no_candidate_hits_by_its_row_and_not_by_itself():
    split = replace(SHARED, candidates=bools(0, 1, 1, 1, 1, 1, 1, 0))
    result, _ = score_rows(ints(2, 1).reshape(1, 2), ints(0), catalogue=split, ks=[1, 2], n_invalid=0)
    assert (result["hr@1"], result["hr@2"], result["mrr"], result["target_absent"]) == (0, 1, 0.5, 0)
    assert (result["id_exact"]["hr@2"], result["id_exact"]["mrr"]) == (0, 0)


@pytest.mark.parametrize("seed", range(5))
def test_ranks_equal_those_of_lists_searched_one_by_one(seed):
    ranked, target, catalogue = random_case(seed)
    for r, rows in enumerate(ranked):
        offered = [i for i in range(catalogue.row_of_item.size) if catalogue.candidates[i]]
        items = [i for row in rows for i in offered if catalogue.row_of_item[i] == row]
        row, places = catalogue.row_of_item[target[r]], rows.tolist()
        assert rank_of_target(ranked, catalogue.row_of_item[target])[r] == (places.index(row) if row in places else -1)
        assert rank_of_item(ranked, target, catalogue)[r] == (items.index(target[r]) if target[r] in items else -1)


def test_what_is_no_candidate_is_never_popular():
    catalogue = replace(SHARED, count=ints(5, 0, 2, 2, 100))
    assert most_popular(catalogue, 10).tolist() == [0, 2, 3]  # nor is 1, which is no train target
    result, _ = score_rows(ints(0, 0).reshape(2, 1), ints(6, 7), catalogue=catalogue, ks=[1], n_invalid=0)
    assert result["popularity_baseline"]["hr@1"] == 0.5
    # Nor does it move the thirds: above item 6 lies nothing of 9.
    assert (result["slices"]["head"]["n"], result["target_absent"]) == (2, 1)


@pytest.mark.parametrize("seed", range(5))
def test_popular_lists_are_those_of_all_candidates_without_what_is_not_allowed(seed):
    rng = np.random.default_rng(seed)
    count, is_candidate = rng.integers(0, 4, 20), rng.random(20) < 0.8
    catalogue = CatalogueRows(np.arange(20), is_candidate, is_candidate, count, is_candidate)

    def some() -> np.ndarray:
        return rng.integers(0, 20, rng.integers(0, 12))

    allowed = [None, *(Allowed(only, some()) for only in (None, some(), some(), None, ints()))]
    lists = popular_lists(catalogue, 6, n_lists=len(allowed), allowed=allowed)
    whole = most_popular(catalogue, 20).tolist()
    for found, each in zip(lists.tolist(), allowed, strict=True):
        mask = is_candidate if each is None else each.mask(is_candidate)
        assert found == ([row for row in whole if mask[row]] + [-1] * 6)[:6]
        assert all(count[row] > 0 for row in found if row >= 0)
        assert each is None or each.allows(np.array(whole)).tolist() == mask[whole].tolist()


# ------------------------------------------------------------------------------------------------------- whole results
def test_popularity_thirds_by_hand():
    # Mass 12: above 6 lies 0, above 3 lies 6 (1/2), above 2 lies 9 (3/4), above 1 lies 11.
    count = ints(1, 6, 0, 3, 2)
    assert popularity_third(ints(6, 3, 2, 1, 0), count).tolist() == [0, 1, 2, 2, 2]


def test_popularity_thirds_never_part_equal_counts_and_borders_fall_down():
    count = ints(1, 1, 1)
    assert popularity_third(ints(1, 1), count).tolist() == [0, 0]
    # Above the second title lies exactly 1/3, above the third exactly 2/3.
    assert popularity_third(ints(5, 4, 3), ints(5, 4, 3, 3)).tolist() == [0, 1, 1]
    assert popularity_third(ints(3, 2, 1), ints(3, 2, 1, 3)).tolist() == [0, 2, 2]
    assert popularity_third(ints(4, 3, 2), ints(4, 3, 2, 3)).tolist() == [0, 1, 2]


def test_without_any_train_target_everything_is_tail():
    assert popularity_third(ints(0, 0), ints(0, 0, 0)).tolist() == [2, 2]


def test_evaluation_by_hand():
    ranked = ints(0, 1, 1, 3, 3, -1, 2, 0).reshape(4, 2)
    # Row 0 hits at 1; row 1 hits the title at 2 with its second item; row 2 misses; row 3's target is not a candidate.
    result, _ = score_rows(ranked, ints(6, 5, 1, 7), catalogue=SHARED, ks=[2, 1, 5], n_invalid=1)

    discount = 1 / np.log2(3)
    assert result["n"] == 4
    assert result["invalid"] == 1
    assert result["target_absent"] == 1
    assert result["ks_skipped"] == [5]
    assert (result["hr@1"], result["hr@2"], result["mrr"]) == (0.25, 0.5, 0.375)
    assert result["ndcg@2"] == pytest.approx((1 + discount) / 4)
    assert result["coverage@2"] == 1.0
    assert "hr@5" not in result
    assert result["id_exact"]["hr@2"] == 0.25
    assert result["id_exact"]["mrr"] == pytest.approx((1 + 1 / 5) / 4)
    # Most frequent: row 0, then row 2 before row 3 (equal counts, catalogue order).
    popular = result["popularity_baseline"]
    assert (popular["hr@1"], popular["hr@2"], popular["coverage@2"]) == (0.25, 0.5, 0.5)
    assert popular["ndcg@2"] == pytest.approx((1 + discount) / 4)
    slices = result["slices"]
    assert {name: part["n"] for name, part in slices.items()} == {"head": 1, "mid": 2, "tail": 1, "warm": 3, "cold": 1}
    assert (slices["head"]["hr@2"], slices["mid"]["hr@2"], slices["cold"]["hr@2"]) == (1.0, 0.5, 0.0)


@pytest.mark.parametrize("seed", range(5))
def test_popularity_baseline_equals_a_sorted_list(seed):
    ranked, target, catalogue = random_case(seed)
    n_results = ranked.shape[1]
    result, _ = score_rows(ranked, target, catalogue=catalogue, ks=[1, 3, n_results], n_invalid=0)
    offered = [row for row in range(catalogue.count.size) if catalogue.is_candidate[row]]
    order = sorted(offered, key=lambda row: (-catalogue.count[row], row))[:n_results]
    rank = np.array([order.index(row) if row in order else -1 for row in catalogue.row_of_item[target]])
    baseline = result["popularity_baseline"]
    for name, values in row_metrics(rank, [1, 3, n_results]).items():
        assert baseline[name] == pytest.approx(sum(values) / len(values))
    assert baseline[f"coverage@{n_results}"] == len(order) / len(offered)


@pytest.mark.parametrize("parts", [("head", "mid", "tail"), ("warm", "cold")])
def test_slices_add_up_to_the_whole(parts):
    ranked, target, catalogue = random_case(3, n_rows=200)
    result, _ = score_rows(ranked, target, catalogue=catalogue, ks=[1, 5], n_invalid=0)
    slices = [result["slices"][name] for name in parts]
    assert all(part["n"] > 0 for part in slices)
    assert sum(part["n"] for part in slices) == result["n"]
    for name in ("hr@1", "hr@5", "ndcg@5", "mrr"):
        assert sum(part["n"] * part[name] for part in slices) / result["n"] == pytest.approx(result[name])


def test_one_item_per_title_makes_exact_and_merged_equal():
    n = 9
    rng, everything = np.random.default_rng(1), np.ones(n, bool)
    single = CatalogueRows.of_items(
        rng.permutation(n), candidates=everything, counts=rng.integers(0, 4, n), seen=everything
    )
    ranked = np.stack([rng.permutation(n)[:6] for _ in range(40)])
    ranked[:, 4:] = -1  # last: it takes a place among titles, none among items
    result, _ = score_rows(ranked, rng.integers(0, n, 40), catalogue=single, ks=[1, 6], n_invalid=0)
    assert 0 < result["hr@6"] < 1
    assert result["id_exact"] == {name: result[name] for name in result["id_exact"]}


def test_more_results_than_candidates():
    ranked = np.tile(ints(0, 1, 2, 3, -1, -1), (2, 1))
    result, _ = score_rows(ranked, ints(5, 6), catalogue=SHARED, ks=[6], n_invalid=0)
    assert result["hr@6"] == result["popularity_baseline"]["hr@6"] == 1.0
    assert (result["coverage@6"], result["popularity_baseline"]["coverage@6"]) == (1.0, 0.75)  # row 1: never a target


def test_bad_requests_are_told_in_one_line():
    ranked, target, catalogue = random_case(0)
    with pytest.raises(InputError, match="no rows"):
        score_rows(ranked[:0], target[:0], catalogue=catalogue, ks=[1], n_invalid=0)
    with pytest.raises(InputError, match=r"\[10, 20\] with 6 results per row"):
        score_rows(ranked, target, catalogue=catalogue, ks=[10, 20], n_invalid=0)
