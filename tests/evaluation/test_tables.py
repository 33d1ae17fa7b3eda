import numpy as np

from igd_jax.evaluation.metrics import CatalogueRows
from igd_jax.evaluation.metrics_json import metrics_of
from igd_jax.evaluation.queries import make_queries
from igd_jax.evaluation.tables import comparison_table, evaluation_table, markdown_table


def test_columns_are_aligned_first_left_others_right():
    assert markdown_table(["metric", "a"], [["hr@1", "0.5"], ["n", "1,000"]]).splitlines() == [
        "| metric |     a |",
        "| :----- | ----: |",
        "| hr@1   |   0.5 |",
        "| n      | 1,000 |",
    ]


def test_a_bar_in_a_cell_does_not_split_it():
    assert markdown_table(["a|b"], [["c"]]).splitlines()[0] == r"| a\|b |"


def small_evaluation(ks, protocol="rows", *, n=120, n_invalid=0):
    """Of three items, the last is not a candidate; each user, with two rows, hits once first and once second."""
    candidates, counts = np.array([True, True, False]), np.array([3, 1, 2])
    catalogue = CatalogueRows.of_items(np.arange(3), candidates=candidates, counts=counts, seen=counts > 0)
    user, target = np.repeat(np.arange(n // 2).astype(str), 2), np.tile([0, 1], n // 2)
    target[:10] = 2
    queries = make_queries(protocol, user=user, timestamp=np.arange(n), target=target)
    ranked = np.tile([0, 1], (len(queries), 1))
    ranked[:n_invalid, 1] = -1
    return metrics_of(
        queries, ranked=ranked, scores=np.zeros(ranked.shape), catalogue=catalogue, ks=ks, candidates="catalogue"
    )


def test_an_evaluation_shows_main_metrics_with_intervals_beside_popularity_and_how_to_read_them():
    lines = evaluation_table(metrics := small_evaluation([1, 2]), has_beam=True, n_candidates=3).splitlines()
    assert lines[0] == "120 rows, 10 with a target that is not a candidate; 0 invalid results"
    header, _, *rows = cells("\n".join(lines))
    assert header == ["metric", "model", "95% interval", "id-exact", "popularity"]
    assert [row[0] for row in rows] == ["hr@1", "hr@2", "ndcg@2"]
    low, high = metrics["intervals"]["hr@1"]
    assert rows[0][1:] == ["0.4583", f"[{low:.4f}, {high:.4f}]", "0.4583", "0.4583"]
    assert 0.4 < low < metrics["hr@1"] < high <= 0.5
    assert lines[-4] == (
        "ndcg@2 by target (with their number): head 1.0000 (55), tail 0.5339 (65), warm 0.7475 (120); fewer than 50, "
        "so not told: mid (0), cold (0)"
    )
    assert lines[-3] == (
        "interval: over resampled users; id-exact: a hit is the very item taken, not another of the same title; "
        "popularity: the most frequent targets of training, for everybody"
    )
    assert len(lines) == 12


NO_BETTER = "the model ranks no better than popularity: "
LONGER = "train longer or, from random weights, with a higher config.train.learning_rate"
CUT = "raise config.decode.max_new_tokens, which cut 3 results (0 = the longest title)"


def last_line(metrics, *, has_beam=False, n_candidates=3):
    return evaluation_table(metrics, has_beam=has_beam, n_candidates=n_candidates).splitlines()[-1]


def test_a_model_that_popularity_equals_is_told_of_and_a_better_one_is_not():
    metrics = small_evaluation([1, 2])
    assert last_line(metrics) == NO_BETTER + LONGER
    assert last_line(metrics, has_beam=True) == (
        f"{NO_BETTER}{LONGER}; --beam_misses=N or, for small catalogues, --config.decode.search=exact shows whether "
        "the beam misses items"
    )
    better = metrics | {"ndcg@2": metrics["ndcg@2"] + 0.01}
    assert NO_BETTER not in evaluation_table(better, has_beam=True, n_candidates=3)


def test_a_beam_whose_misses_are_known_is_not_suspected():
    metrics = small_evaluation([1, 2]) | {"beam_misses": {"queries": 4, "lists@1": 0.0, "results@1": 0.0}}
    assert last_line(metrics, has_beam=True) == NO_BETTER + LONGER


def test_results_that_were_cut_are_told_of_first():
    metrics = small_evaluation([1, 2], n_invalid=3)
    assert last_line(metrics) == f"{NO_BETTER}{CUT}; {LONGER}"


def test_lists_with_room_for_all_candidates_do_not_ask_for_training():
    metrics = small_evaluation([1, 2])
    room = "a list of 2 has room for all 2 candidates, so give a smaller k in config.eval.ks, or more candidates"
    assert last_line(metrics, has_beam=True, n_candidates=2) == NO_BETTER + room
    cut = small_evaluation([1, 2], n_invalid=3)
    assert last_line(cut, has_beam=True, n_candidates=2) == f"{NO_BETTER}{CUT}; {room}"


def test_an_evaluation_by_users_shows_what_there_was_to_find():
    text = evaluation_table(small_evaluation([1, 5], "users", n_invalid=3), has_beam=True, n_candidates=3)
    assert text.splitlines()[0] == (
        "60 users, 1.92 titles each to find, at most 2; 5 titles that are not candidates; 3 invalid results; k = 5 "
        "left out: not from 1 to the results per row"
    )
    assert cells(text)[0] == ["metric", "model", "95% interval", "popularity"]
    assert [row[0] for row in cells(text)[2:]] == ["recall@1", "ndcg@1"]
    assert "id-exact" not in text


def test_few_users_are_told_to_be_too_few_for_an_interval():
    few, enough = (evaluation_table(small_evaluation([1], n=n), has_beam=True, n_candidates=3) for n in (98, 100))
    assert "resampled users; 49 users are too few to trust it, which takes 50; id-exact" in few
    assert "too few" not in enough


def test_slices_of_few_rows_are_not_told():
    assert "by target (with their number): fewer than 50, so not told: head (" in evaluation_table(
        small_evaluation([1], n=20), has_beam=True, n_candidates=3
    )


def small_comparison():
    """Two methods, the second with two seeds."""
    against = {"spread": 0.01, "difference": 0.05, "together": [0.01, 0.09], "p": 0.04, "significant": True}
    return {
        "n": 1200,
        "protocol": "rows",
        "split": "test",
        "targets": "all",
        "ks_skipped": [20],
        "n_users": 300,
        "confidence": 0.95,
        "n_resamples": 10_000,
        "n_comparisons": 2,
        "reference": "a",
        "evaluations": {"a": ["a"], "b*": ["b1", "b2"]},
        "candidates": {"a": "catalogue", "b*": "catalogue"},
        "data": {"a": "11aa", "b*": "11aa"},
        "weights": {label: {"run": label, "step": 18} for label in ("a", "b1", "b2")},
        "decoding": {"a": {"alpha": 0.0, "search": "jump"}, "b*": {"alpha": 0.0, "search": "jump"}},
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
                    "together": [-0.04, -0.0],
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
        "1,200 rows of test, all targets, candidates: catalogue. b*: method.args.lam chosen from 0.2, 0.5 (0.5, 0.2); "
        "decode.alpha chosen from 0.0 (0.0, 0.0) by ndcg@10 on 1,500 rows of valid. Difference"
    )
    comparison["split"] = None
    assert "1,200 rows of a split that no config.json names, all targets, cand" in comparison_table(comparison)


def test_comparison_of_single_seeds_says_nothing_of_seeds():
    comparison = small_comparison()
    comparison["evaluations"]["b*"] = ["b1"]
    text = comparison_table(comparison)
    assert cells(text)[0][2] == "b*"
    assert "seeds" not in text


def test_the_caption_says_where_candidates_differ_or_are_not_told():
    comparison = small_comparison()
    comparison["candidates"] = {"a": "catalogue", "b*": "train"}
    text = comparison_table(comparison)
    assert "1,200 rows of test, all targets. Candidates differ: catalogue (a), train (b*); metrics among diff" in text
    assert "Weights" not in text
    comparison["candidates"] = {"a": None, "b*": None}
    assert "1,200 rows of test, all targets. Difference" in comparison_table(comparison)


def test_the_caption_says_where_decoding_differs():
    comparison = small_comparison()
    assert "Decoding" not in comparison_table(comparison)
    comparison["decoding"] = {
        "a": {"alpha": 0.0, "length_penalty": 1.0, "search": "jump", "num_beams": 10, "collaborative": ""},
        "b*": {"alpha": 0.2, "length_penalty": 1.0, "search": "exact", "num_beams": 10, "collaborative": "x" * 99},
        "c": {"alpha": None, "length_penalty": 0.5, "search": "jump", "collaborative": "popularity"},
    }
    assert (
        "candidates: catalogue. Decoding differs (config.decode, in the order of the methods): alpha 0 / 0.2 / chosen, "
        f"length_penalty 1 / 1 / 0.5, search jump / exact / jump, collaborative none / {'x' * 18}...{'x' * 18} / "
        "popularity. Difference"
    ) in comparison_table(comparison)
    comparison["decoding"]["a"] = {}
    assert "methods): alpha not told / 0.2 / chosen, length_penalty not told / 1 / 0.5" in comparison_table(comparison)


def test_the_caption_says_where_evaluations_of_one_run_are_of_different_steps():
    comparison = small_comparison()
    comparison["weights"] = {
        "a": {"run": "r", "step": 4},
        "b1": {"run": "s", "step": 6},
        "b2": {"run": "r", "step": None},
    }
    assert "Weights of one run differ: step 4 (a), untrained (b2). Difference" in comparison_table(comparison)


def test_of_one_method_nothing_is_told_of_differences():
    comparison = small_comparison()
    del comparison["runs"]["b*"], comparison["evaluations"]["b*"]
    text = comparison_table(comparison)
    assert cells(text)[0] == ["metric", "a", "popularity"]
    assert text.splitlines()[-1].startswith("1,200 rows of test, all targets, candidates: catalogue.")
    assert "interval" not in text
