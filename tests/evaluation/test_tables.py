import numpy as np

from igd_jax.core.ragged import Ragged
from igd_jax.evaluation.metrics import CatalogueRows, score_rows
from igd_jax.evaluation.tables import comparison_table, evaluation_table, markdown_table
from igd_jax.evaluation.user_metrics import score_users


def test_columns_are_aligned_first_left_others_right():
    assert markdown_table(["metric", "a"], [["hr@1", "0.5"], ["n", "1,000"]]).splitlines() == [
        "| metric |     a |",
        "| :----- | ----: |",
        "| hr@1   |   0.5 |",
        "| n      | 1,000 |",
    ]


def test_a_bar_in_a_cell_does_not_split_it():
    assert markdown_table(["a|b"], [["c"]]).splitlines()[0] == r"| a\|b |"


def small_catalogue():
    """Three items of their own rows; the last is no candidate."""
    candidates, counts = np.array([True, True, False]), np.array([3, 1, 2])
    return CatalogueRows.of_items(np.arange(3), candidates=candidates, counts=counts, seen=counts > 0)


def small_evaluation(ks):
    ranked = np.array([[0, 1], [1, 0]])
    return score_rows(ranked, np.array([0, 0]), catalogue=small_catalogue(), ks=ks, n_invalid=1)


def test_evaluation_shows_model_baseline_and_slices():
    text = evaluation_table(small_evaluation([1, 2]))
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    assert text.splitlines()[0] == "2 rows, 0 with a target that is no candidate; 1 invalid results"
    assert ["metric", "model", "model, id-exact", "popularity"] in rows
    assert ["hr@1", "0.5000", "0.5000", "1.0000"] in rows
    assert ["coverage@2", "1.0000", "-", "1.0000"] in rows
    assert ["metric", "head", "mid", "tail", "warm", "cold"] in rows
    assert ["n", "2", "0", "0", "2", "0"] in rows
    assert ["hr@1", "0.5000", "-", "-", "0.5000", "-"] in rows


def test_an_evaluation_by_users_shows_what_there_was_to_find():
    right, ranked = Ragged.from_lists([[0, 2], [1]]), np.array([[0, 1], [0, 1]])
    metrics = score_users(ranked, right, catalogue=small_catalogue(), ks=[1, 5], n_invalid=0)
    text = evaluation_table(metrics)
    told, rows = text.splitlines()[0], cells(text)
    assert told.startswith("2 users, 1.50 titles each to find, at most 2; 1 titles that are no candidate; 0 invalid")
    assert "k = 5 left out" in told
    assert ["metric", "model", "popularity"] in rows
    assert ["recall@1", "0.2500", "0.2500"] in rows
    assert ["metric", "warm", "cold"] in rows
    assert ["left_out", "0", "2"] in rows
    assert ["recall@1", "0.2500", "-"] in rows


def test_left_out_cut_offs_are_told():
    assert "k = 5, 10 left out" in evaluation_table(small_evaluation([1, 5, 10]))
    assert "left out" not in evaluation_table(small_evaluation([1]))


def small_comparison():
    """Two methods, the second with two seeds."""
    against = {"spread": 0.01, "difference": 0.05, "low": 0.01, "high": 0.09, "p": 0.04, "significant": True}
    return {
        "n": 1200,
        "protocol": "rows",
        "split": "test",
        "targets": "all",
        "ks_skipped": [20],
        "confidence": 0.95,
        "n_resamples": 10_000,
        "n_comparisons": 2,
        "reference": "a",
        "evaluations": {"a": ["a"], "b*": ["b1", "b2"]},
        "choices": {},
        "popularity": {"hr@1": 0.05, "hr@5": None},
        "winner": {"hr@1": "b*", "hr@5": None},
        "runs": {
            "a": {"hr@1": {"value": 0.1}, "hr@5": {"value": 0.2}},
            "b*": {
                "hr@1": {"value": 0.15, **against},
                "hr@5": {
                    **against,
                    "value": 0.19,
                    "difference": -0.01,
                    "low": -0.04,
                    "high": -0.0,
                    "significant": False,
                },
            },
        },
    }


def cells(text):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]


def test_comparison_shows_spread_winner_and_popularity_and_marks_what_is_significant():
    text = comparison_table(small_comparison())
    header, _, *rows = cells(text)
    assert header == ["metric", "a", "b* (2 seeds)", "difference", "popularity"]
    assert rows == [
        ["hr@1", "0.1000", "**0.1500 ± 0.0100**", "+0.0500 [+0.0100, +0.0900] *", "0.0500"],
        ["hr@5", "0.2000", "0.1900 ± 0.0100", "-0.0100 [-0.0400, -0.0000]", "-"],
    ]
    legend = text.splitlines()[-1]
    for told in ("1,200 rows", "95% interval", "all 2 comparisons", "standard deviation over seeds", "k = 20 left out"):
        assert told in legend


def test_the_caption_says_which_split_it_is_and_what_was_chosen_on_which_rows():
    comparison = small_comparison()
    comparison["choices"] = {
        "b*": {
            "tried": {"method.args.lam": [0.2, 0.5], "decode.alpha": [0.0]},
            "metric": "ndcg@10", "split": "valid", "protocol": "rows", "n": 1_500,
            "chosen": [{"method.args.lam": 0.5, "decode.alpha": 0.0}, {"method.args.lam": 0.2, "decode.alpha": 0.0}],
        },
    }  # fmt: skip
    legend = comparison_table(comparison).splitlines()[-1]
    assert legend.startswith(
        "1,200 rows of test, all targets. b*: method.args.lam chosen from 0.2, 0.5 (0.5, 0.2); decode.alpha chosen "
        "from 0.0 (0.0, 0.0) by ndcg@10 on 1,500 rows of valid. Difference"
    )
    comparison["split"] = None
    assert "1,200 rows of a split that no config.json names, all targets." in comparison_table(comparison)


def test_comparison_of_single_seeds_says_nothing_of_seeds():
    comparison = small_comparison()
    comparison["evaluations"]["b*"] = ["b1"]
    text = comparison_table(comparison)
    assert cells(text)[0][2] == "b*"
    assert "seeds" not in text


def test_one_method_is_told_to_be_one():
    comparison = small_comparison()
    del comparison["runs"]["b*"], comparison["evaluations"]["b*"]
    text = comparison_table(comparison)
    assert cells(text)[0] == ["metric", "a", "popularity"]
    assert "one method only" in text
    assert "interval" not in text
