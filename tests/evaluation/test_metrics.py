import numpy as np
import pytest

from igd_jax.core.errors import InputError
from igd_jax.evaluation.metrics import (
    Candidates,
    Targets,
    coverage,
    evaluate,
    hit_rate,
    mean_metrics,
    mrr,
    ndcg,
    popularity_third,
    rank_of_item,
    rank_of_target,
    row_metrics,
)


def ints(*values):
    return np.array(values, dtype=np.int64)


# Rows 1 and 3 are titles that several items share.
SHARED = Candidates(count=ints(5, 0, 2, 2), row_start=ints(0, 1, 4, 5, 7), row_item=ints(6, 2, 0, 4, 1, 3, 5))


def random_case(seed, *, n_rows=40, n_results=6, n_catalogue=9):
    rng = np.random.default_rng(seed)
    size = rng.integers(1, 4, n_catalogue)
    row_start = np.concatenate([[0], np.cumsum(size)])
    candidates = Candidates(rng.integers(0, 4, n_catalogue), row_start, rng.permutation(size.sum()))
    row = rng.integers(-1, n_catalogue, n_rows)
    item = np.array([rng.choice(candidates.row_item[row_start[r] : row_start[r + 1]]) if r >= 0 else 99 for r in row])
    ranked = np.stack([rng.permutation(n_catalogue)[:n_results] for _ in range(n_rows)])
    ranked[rng.random(ranked.shape) < 0.2] = -1
    count, is_warm = np.where(row >= 0, candidates.count[row], 0), rng.random(n_rows) < 0.6
    return ranked, Targets(row, item, count, is_warm), candidates


def test_rank_counts_from_zero_and_is_minus_one_on_a_miss():
    ranked = ints(7, 8, 9, 7, 8, 9, 7, 8, 9, 7, 8, 9).reshape(4, 3)
    assert rank_of_target(ranked, ints(7, 8, 9, 5)).tolist() == [0, 1, 2, -1]


def test_first_of_several_equal_results_counts():
    assert rank_of_target(ints(1, 4, 4, 4).reshape(1, 4), ints(4)).tolist() == [1]


def test_no_result_never_hits_an_absent_target():
    assert rank_of_target(ints(-1, -1).reshape(1, 2), ints(-1)).tolist() == [-1]


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


def test_coverage_counts_each_row_once_and_no_result_never():
    ranked = ints(0, 1, -1, 1, 0, 3).reshape(2, 3)
    assert coverage(ranked, 8, 2) == 2 / 8
    assert coverage(ranked, 8, 3) == 3 / 8


def test_metrics_of_no_rows_are_none():
    assert mean_metrics(ints(), [1]) == {"hr@1": None, "ndcg@1": None, "mrr": None}


def test_exact_item_ranks_count_the_items_of_shared_titles():
    # Written out: rows 2, 1, 3 are items 1 | 2 0 4 | 3 5.
    ranked = np.tile(ints(2, -1, 1, 3), (7, 1))
    ranks = rank_of_item(ranked, ints(1, 2, 0, 4, 3, 5, 6), SHARED)
    assert ranks.tolist() == [0, 1, 2, 3, 4, 5, -1]


def test_item_outside_the_candidates_never_hits():
    ranked = ints(0, 1, 2, 3, 0, 1, 2, 3).reshape(2, 4)
    assert rank_of_item(ranked, ints(99, -1), SHARED).tolist() == [-1, -1]


@pytest.mark.parametrize("seed", range(5))
def test_ranks_equal_those_of_lists_searched_one_by_one(seed):
    ranked, targets, candidates = random_case(seed)
    start = candidates.row_start
    for r, rows in enumerate(ranked):
        items = [i for row in rows if row >= 0 for i in candidates.row_item[start[row] : start[row + 1]]]
        titles = rows.tolist()
        want_title = titles.index(targets.row[r]) if targets.row[r] >= 0 and targets.row[r] in titles else -1
        want_item = items.index(targets.item[r]) if targets.item[r] in items else -1
        assert rank_of_target(ranked, targets.row)[r] == want_title
        assert rank_of_item(ranked, targets.item, candidates)[r] == want_item


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
    # Row 0 hits at 1; row 1 hits the title at 2 with its third item; row 2 misses; row 3's target is no candidate.
    targets = Targets(
        row=ints(0, 3, 2, -1),
        item=ints(6, 5, 1, 8),
        count=ints(5, 2, 2, 0),
        is_warm=np.array([True, True, True, False]),
    )
    result = evaluate(ranked, targets=targets, candidates=SHARED, ks=[2, 1, 5], n_invalid=1)

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
    ranked, targets, candidates = random_case(seed)
    n_results = ranked.shape[1]
    result = evaluate(ranked, targets=targets, candidates=candidates, ks=[1, 3, n_results], n_invalid=0)
    order = sorted(range(candidates.count.size), key=lambda row: (-candidates.count[row], row))[:n_results]
    rank = np.array([order.index(row) if row in order else -1 for row in targets.row])
    baseline = result["popularity_baseline"]
    for name, values in row_metrics(rank, [1, 3, n_results]).items():
        assert baseline[name] == pytest.approx(sum(values) / len(values))


@pytest.mark.parametrize("parts", [("head", "mid", "tail"), ("warm", "cold")])
def test_slices_add_up_to_the_whole(parts):
    ranked, targets, candidates = random_case(3, n_rows=200)
    result = evaluate(ranked, targets=targets, candidates=candidates, ks=[1, 5], n_invalid=0)
    slices = [result["slices"][name] for name in parts]
    assert all(part["n"] > 0 for part in slices)
    assert sum(part["n"] for part in slices) == result["n"]
    for name in ("hr@1", "hr@5", "ndcg@5", "mrr"):
        assert sum(part["n"] * part[name] for part in slices) / result["n"] == pytest.approx(result[name])


def test_one_item_a_title_makes_exact_and_merged_equal():
    ranked, targets, candidates = random_case(1)
    n = candidates.count.size
    single = Candidates(candidates.count, np.arange(n + 1), np.arange(n))
    targets = Targets(targets.row, targets.row, targets.count, targets.is_warm)
    ranked = np.sort(ranked, axis=1)[:, ::-1].copy()  # "none" last: it takes a place among titles, none among items
    result = evaluate(ranked, targets=targets, candidates=single, ks=[1, 6], n_invalid=0)
    assert result["id_exact"] == {name: result[name] for name in result["id_exact"]}


def test_more_results_than_candidates():
    ranked = np.tile(ints(0, 1, 2, 3, -1, -1), (2, 1))
    targets = Targets(ints(3, 0), ints(5, 6), ints(2, 5), np.array([True, True]))
    result = evaluate(ranked, targets=targets, candidates=SHARED, ks=[6], n_invalid=0)
    assert result["hr@6"] == result["popularity_baseline"]["hr@6"] == 1.0
    assert result["coverage@6"] == result["popularity_baseline"]["coverage@6"] == 1.0


def test_bad_requests_are_told_in_one_line():
    ranked, targets, candidates = random_case(0)
    none = Targets(ints(), ints(), ints(), np.zeros(0, bool))
    with pytest.raises(InputError, match="no rows"):
        evaluate(ranked[:0], targets=none, candidates=candidates, ks=[1], n_invalid=0)
    with pytest.raises(InputError, match=r"\[10, 20\] with 6 results a row"):
        evaluate(ranked, targets=targets, candidates=candidates, ks=[10, 20], n_invalid=0)
