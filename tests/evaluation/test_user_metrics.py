import numpy as np
import pytest

from igd_jax.core.errors import InputError
from igd_jax.core.ragged import Ragged
from igd_jax.evaluation.metrics import CatalogueRows, score_rows
from igd_jax.evaluation.user_metrics import score_users, user_metrics

SECOND, THIRD, FOURTH = 1 / np.log2(3), 1 / 2, 1 / np.log2(5)
"""Gains of a hit at these places; the first has gain 1."""


def ints(*values):
    return np.array(values, dtype=np.int64)


def bools(*values):
    return np.array(values, dtype=bool)


def catalogue_of(count, *, warm, candidate=None):
    """Rows of one item each."""
    is_candidate = np.ones(len(count), bool) if candidate is None else candidate
    return CatalogueRows(np.arange(len(count)), is_candidate, is_candidate, np.array(count), warm)


def random_case(seed, *, n_users=30, n_results=6, n_rows=15):
    """Lists of distinct candidates, some places empty, and 1 to 9 right rows per user, some of them no candidates."""
    rng = np.random.default_rng(seed)
    candidate = rng.permutation(n_rows) < n_rows - 3
    catalogue = catalogue_of(rng.integers(0, 4, n_rows), warm=rng.random(n_rows) < 0.6, candidate=candidate)
    ranked = np.stack([rng.permutation(np.flatnonzero(candidate))[:n_results] for _ in range(n_users)])
    ranked[rng.random(ranked.shape) < 0.2] = -1
    right = [rng.permutation(n_rows)[: rng.integers(1, 10)].tolist() for _ in range(n_users)]
    return ranked, Ragged.from_lists(right), catalogue


# ------------------------------------------------------------------------------------------------------------- metrics
def test_fewer_titles_than_k_are_measured_against_as_many_places():
    # Two titles, one found at place 2: ideal are places 1 and 2, however large k.
    values = user_metrics(ints(1, -1), ints(0, 0), [1, 2, 10])
    assert [values[f"recall@{k}"][0] for k in (1, 2, 10)] == [0, 0.5, 0.5]
    expected = [0, SECOND / (1 + SECOND), SECOND / (1 + SECOND)]
    assert [values[f"ndcg@{k}"][0] for k in (1, 2, 10)] == pytest.approx(expected)
    assert values["mrr"][0] == 0.5


def test_more_titles_than_k_are_measured_against_k_places():
    # Five titles, found at places 1, 3 and 4: Recall divides by five, NDCG by the gain of k hits.
    values = user_metrics(ints(3, -1, 0, 2, -1), ints(0, 0, 0, 0, 0), [1, 3, 4])
    assert [values[f"recall@{k}"][0] for k in (1, 3, 4)] == [1 / 5, 2 / 5, 3 / 5]
    ideal = 1 + SECOND + THIRD
    expected = [1, (1 + THIRD) / ideal, (1 + THIRD + FOURTH) / (ideal + FOURTH)]
    assert [values[f"ndcg@{k}"][0] for k in (1, 3, 4)] == pytest.approx(expected)
    assert values["mrr"][0] == 1


def test_as_many_titles_as_k_all_found_are_perfect_in_any_order():
    values = user_metrics(ints(2, 0, 1), ints(0, 0, 0), [3])
    assert (values["recall@3"][0], values["ndcg@3"][0]) == (1, pytest.approx(1))


@pytest.mark.parametrize("seed", range(5))
def test_metrics_equal_those_of_lists_searched_one_by_one(seed):
    ranked, truth, catalogue = random_case(seed)
    for k in (1, 3, 6):
        recall, gain = [], []
        for user, rows in enumerate(ranked):
            right = truth[user]
            hits = [place for place, row in enumerate(rows[:k]) if row >= 0 and row in right]
            recall.append(len(hits) / len(right))
            ideal = sum(1 / np.log2(place + 2) for place in range(min(k, len(right))))
            gain.append(sum(1 / np.log2(place + 2) for place in hits) / ideal)
        result, _ = score_users(ranked, truth, catalogue=catalogue, ks=[k], n_invalid=0)
        assert result[f"recall@{k}"] == pytest.approx(np.mean(recall))
        assert result[f"ndcg@{k}"] == pytest.approx(np.mean(gain))


@pytest.mark.parametrize("seed", range(3))
def test_one_right_row_per_user_gives_the_metrics_of_the_rows(seed):
    ranked, truth, catalogue = random_case(seed)
    target = truth.ids[truth.start[:-1]].astype(np.int64)
    single = Ragged(target.astype(np.int32), np.arange(len(target) + 1))
    result, _ = score_users(ranked, single, catalogue=catalogue, ks=[1, 3, 6], n_invalid=0)
    rows, _ = score_rows(ranked, target, catalogue=catalogue, ks=[1, 3, 6], n_invalid=0)
    pairs = [(result, rows), (result["popularity_baseline"], rows["popularity_baseline"])]
    pairs += [(result["slices"][name], rows["slices"][name]) for name in ("warm", "cold")]
    for ours, theirs in pairs:
        assert ours["mrr"] == theirs["mrr"]
        for k in (1, 3, 6):
            assert (ours[f"recall@{k}"], ours[f"ndcg@{k}"]) == (theirs[f"hr@{k}"], theirs[f"ndcg@{k}"])
    assert (result["n"], result["target_absent"]) == (rows["n"], rows["target_absent"])


# ---------------------------------------------------------------------------------------------------------- evaluation
def test_evaluation_by_hand():
    ranked = ints(0, 1, 2, 3, 2, 0).reshape(3, 2)
    # User 0: rows 0 (warm) and 3 (cold). User 1: row 3 (cold) and row 4 (cold), no candidate. User 2: row 0.
    right = Ragged.from_lists([[0, 3], [3, 4], [0]])
    catalogue = catalogue_of([5, 0, 6, 0, 9], warm=bools(1, 0, 1, 0, 0), candidate=bools(1, 1, 1, 1, 0))
    result, _ = score_users(ranked, right, catalogue=catalogue, ks=[5, 2, 1], n_invalid=4)
    assert (result["n"], result["invalid"], result["target_absent"], result["ks_skipped"]) == (3, 4, 1, [5])
    assert result["ground_truth"] == {"mean": pytest.approx(5 / 3), "max": 2}
    assert (result["recall@1"], result["recall@2"]) == (pytest.approx(0.5 / 3), pytest.approx((0.5 + 0.5 + 1) / 3))
    assert result["ndcg@1"] == pytest.approx(1 / 3)
    assert result["ndcg@2"] == pytest.approx((1 / (1 + SECOND) + SECOND / (1 + SECOND) + SECOND) / 3)
    assert result["mrr"] == pytest.approx((1 + 0.5 + 0.5) / 3)
    # Most popular are rows 2 and 0, so row 0 stands second for everyone.
    popular = result["popularity_baseline"]
    assert popular["recall@2"] == pytest.approx((0.5 + 0 + 1) / 3)
    warm, cold = result["slices"]["warm"], result["slices"]["cold"]
    assert (warm["n"], warm["left_out"], cold["n"], cold["left_out"]) == (2, 1, 2, 1)
    assert (warm["recall@1"], warm["recall@2"], warm["ndcg@2"]) == (0.5, 1, pytest.approx((1 + SECOND) / 2))
    assert (cold["recall@2"], cold["ndcg@2"]) == (0.25, pytest.approx(SECOND / (1 + SECOND) / 2))


def test_a_slice_that_no_user_has_is_empty_and_not_nan():
    right, catalogue = Ragged.from_lists([[0], [1]]), catalogue_of([1, 1], warm=bools(1, 1))
    result, _ = score_users(ints(0, 0).reshape(2, 1), right, catalogue=catalogue, ks=[1], n_invalid=0)
    assert result["slices"]["cold"] == {"n": 0, "left_out": 2, "recall@1": None, "ndcg@1": None, "mrr": None}


def test_a_repeated_result_is_one_hit():
    catalogue = catalogue_of([1] * 6, warm=np.ones(6, bool))
    result, _ = score_users(
        ints(4, 4, 4).reshape(1, 3), Ragged.from_lists([[4, 5]]), catalogue=catalogue, ks=[3], n_invalid=0
    )
    assert result["recall@3"] == 0.5


def test_cut_offs_and_users_that_are_not_there_are_told():
    ranked, right, catalogue = random_case(0)
    with pytest.raises(InputError, match=r"\[10\] with 6 results per row"):
        score_users(ranked, right, catalogue=catalogue, ks=[10], n_invalid=0)
    with pytest.raises(InputError, match="no rows"):
        score_users(ranked[:0], Ragged.from_lists([]), catalogue=catalogue, ks=[1], n_invalid=0)
