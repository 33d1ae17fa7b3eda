import numpy as np
import pytest

from igd_jax.core.errors import InputError
from igd_jax.evaluation import metrics
from igd_jax.evaluation.user_metrics import GroundTruth, evaluate, group_by_user, merge_titles, user_metrics

SECOND, THIRD, FOURTH = 1 / np.log2(3), 1 / 2, 1 / np.log2(5)
"""Gains of a hit at these places; the first has gain 1."""


def ints(*values):
    return np.array(values, dtype=np.int64)


def bools(*values):
    return np.array(values, dtype=bool)


def random_case(seed, *, n_users=30, n_results=6, n_titles=12):
    """Lists of distinct rows, some places empty, and 1 to 9 right titles a user, of which some are no candidate."""
    rng = np.random.default_rng(seed)
    ranked = np.stack([rng.permutation(n_titles)[:n_results] for _ in range(n_users)])
    ranked[rng.random(ranked.shape) < 0.2] = -1
    titles = [rng.permutation(n_titles + 3)[: rng.integers(1, 10)] for _ in range(n_users)]
    user, title = np.repeat(np.arange(n_users), [len(t) for t in titles]), np.concatenate(titles)
    row = np.where(np.arange(n_titles + 3) < n_titles, np.arange(n_titles + 3), -1)
    is_warm = rng.random(n_titles + 3) < 0.6
    return ranked, merge_titles(user, title, row=row, is_warm=is_warm), rng.integers(0, 4, n_titles)


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
    ranked, truth, count = random_case(seed)
    for k in (1, 3, 6):
        recall, gain = [], []
        for user, rows in enumerate(ranked):
            right = truth.row[truth.user == user]
            hits = [place for place, row in enumerate(rows[:k]) if row >= 0 and row in right]
            recall.append(len(hits) / len(right))
            ideal = sum(1 / np.log2(place + 2) for place in range(min(k, len(right))))
            gain.append(sum(1 / np.log2(place + 2) for place in hits) / ideal)
        result = evaluate(ranked, truth=truth, count=count, ks=[k], n_invalid=0)
        assert result[f"recall@{k}"] == pytest.approx(np.mean(recall))
        assert result[f"ndcg@{k}"] == pytest.approx(np.mean(gain))


@pytest.mark.parametrize("seed", range(3))
def test_one_title_a_user_gives_the_metrics_of_the_rows(seed):
    ranked, truth, count = random_case(seed)
    single = np.unique(truth.user, return_index=True)[1]
    truth = GroundTruth(truth.user[single], truth.row[single], truth.is_warm[single])
    result = evaluate(ranked, truth=truth, count=count, ks=[1, 3, 6], n_invalid=0)
    n = count.size
    rows = metrics.evaluate(
        ranked,
        targets=ranking.Targets(truth.row, truth.row, truth.is_warm.astype(np.int64), truth.is_warm),
        candidates=ranking.Candidates(count, np.arange(n + 1), np.arange(n)),
        ks=[1, 3, 6],
        n_invalid=0,
    )
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
    # User 0: rows 0 (warm) and 3 (cold). User 1: row 3 (cold) and a cold title that is no candidate. User 2: row 0.
    truth = GroundTruth(ints(0, 0, 1, 1, 2), ints(0, 3, 3, -1, 0), bools(1, 0, 0, 0, 1))
    result = evaluate(ranked, truth=truth, count=ints(5, 0, 6, 0), ks=[5, 2, 1], n_invalid=4)
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
    truth = GroundTruth(ints(0, 1), ints(0, 1), bools(1, 1))
    cold = evaluate(ints(0, 0).reshape(2, 1), truth=truth, count=ints(1, 1), ks=[1], n_invalid=0)["slices"]["cold"]
    assert cold == {"n": 0, "left_out": 2, "recall@1": None, "ndcg@1": None, "mrr": None}


def test_a_repeated_result_is_one_hit():
    truth = GroundTruth(ints(0, 0), ints(4, 5), bools(1, 1))
    result = evaluate(ints(4, 4, 4).reshape(1, 3), truth=truth, count=np.ones(6, int), ks=[3], n_invalid=0)
    assert result["recall@3"] == 0.5


def test_cut_offs_and_users_that_are_not_there_are_told():
    ranked, truth, count = random_case(0)
    with pytest.raises(InputError, match=r"\[10\] with 6 results a row"):
        evaluate(ranked, truth=truth, count=count, ks=[10], n_invalid=0)
    nobody = GroundTruth(ints(), ints(), bools())
    with pytest.raises(InputError, match="no rows"):
        evaluate(ranked[:0], truth=nobody, count=count, ks=[1], n_invalid=0)


# -------------------------------------------------------------------------------------------------- users and titles
def test_items_of_one_title_are_one_title_to_find():
    # Titles 0 and 3 are one catalogue row, title 2 is no candidate. User 1 took title 1 twice.
    row, warm = ints(7, 4, -1, 7), bools(1, 0, 0, 1)
    truth = merge_titles(ints(0, 1, 0, 0, 1, 0), ints(0, 1, 2, 3, 1, 2), row=row, is_warm=warm)
    found = sorted(zip(truth.user.tolist(), truth.row.tolist(), truth.is_warm.tolist(), strict=True))
    assert found == [(0, -1, False), (0, 7, True), (1, 4, False)]


def test_different_titles_that_are_no_candidate_each_count():
    truth = merge_titles(ints(0, 0), ints(0, 1), row=ints(-1, -1), is_warm=bools(0, 0))
    assert truth.row.tolist() == [-1, -1]


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
