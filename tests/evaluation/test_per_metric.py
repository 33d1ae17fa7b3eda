"""A value for each metric and cut-off: BIGRec's published choice of gamma, and hand-made figures."""

import json

import numpy as np

from igd_jax.evaluation.per_metric import best_by_metric, figures_of, table_of

TRIED = [
    {"hr@1": 0.1, "hr@5": 0.3, "ndcg@5": 0.20, "mrr": 0.9, "n": 9},
    {"hr@1": 0.1, "hr@5": 0.4, "ndcg@5": 0.19, "mrr": 0.1, "n": 9},
    {"hr@1": 0.0, "hr@5": 0.4, "ndcg@5": 0.21, "mrr": 0.1, "n": 9},
]


def test_each_metric_with_a_cut_off_takes_its_first_best_value():
    assert best_by_metric(TRIED) == {"hr@1": 0, "hr@5": 1, "ndcg@5": 2}
    assert best_by_metric([TRIED[0], {"hr@5": 0.9}]) == {"hr@5": 1}


def test_figures_are_those_of_the_chosen_values_and_stand_in_a_table():
    ranked = {place: {"hr@1": place + 0.5, "hr@5": place + 0.25, "ndcg@5": place + 0.125} for place in range(3)}
    figures = figures_of([0.0, 1.0, 2.0], TRIED, ranked)
    assert figures == {
        "hr@1": {"value": 0.0, "chosen_on": 0.1, "figure": 0.5},
        "hr@5": {"value": 1.0, "chosen_on": 0.4, "figure": 1.25},
        "ndcg@5": {"value": 2.0, "chosen_on": 0.21, "figure": 2.125},
    }
    head, _, first, *rest = table_of(figures, field="method.args.gamma", split="test").splitlines()
    assert [cell.strip() for cell in head.strip("|").split("|")] == [
        "metric", "method.args.gamma", "valid, chosen on", "test"
    ]  # fmt: skip
    assert [cell.strip() for cell in first.strip("|").split("|")] == ["hr@1", "0.0", "0.1000", "0.5000"]
    assert len(rest) == 2


def test_gammas_and_figures_are_those_of_the_authors_code(shared):
    folder = shared / "golden" / "msl_bigrec"
    arrays = np.load(folder / "bigrec.npz")
    told = json.loads((folder / "bigrec.json").read_text(encoding="utf-8"))
    ks, golden = told["top_k"], told["cf_game"]["tuned_on_valid"]
    gammas = arrays["gamma_grid_cf_game"].tolist()

    def metrics(split: str) -> list[dict[str, float]]:
        values = {name: arrays[f"cf_game_{name}_{split}"] for name in ("hr", "ndcg")}
        return [
            {f"{name}@{k}": float(values[name][g, i]) for name in values for i, k in enumerate(ks)}
            for g in range(len(gammas))
        ]

    figures = figures_of(gammas, metrics("valid"), dict(enumerate(metrics("test"))))
    for name in ("hr", "ndcg"):
        found = [figures[f"{name}@{k}"] for k in ks]
        np.testing.assert_allclose([each["value"] for each in found], golden[f"gamma_{name}"])
        np.testing.assert_allclose([each["chosen_on"] for each in found], golden[f"best_valid_{name}"], atol=1e-9)
        np.testing.assert_allclose([each["figure"] for each in found], golden[f"test_{name}"], atol=1e-9)
