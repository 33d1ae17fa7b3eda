"""What is read back of an evaluation are numbers that can be computed with, whatever somebody wrote into its files."""

import json

import pytest
from evaluation_folders import write_evaluation

from igd_jax.core.errors import InputError
from igd_jax.evaluation.evaluations import read_evaluation


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1" + "0" * 400, "true", '"many"', "null"])
@pytest.mark.parametrize("name", ["n", "hr@1"])
def test_metrics_that_are_no_numbers_are_bad_input(tmp_path, name, number):
    path = write_evaluation(tmp_path / "a", [0, 1]) / "metrics.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: "THERE"}).replace('"THERE"', number))
    with pytest.raises(InputError, match=rf"predictions.jsonl gives {name} .*metrics.json .*; run python -m "):
        read_evaluation("a", path.parent)


@pytest.mark.parametrize("baseline", [[], {"hr@1": float("nan")}, {"hr@1": None}, 3])
def test_a_baseline_without_numbers_is_bad_input(tmp_path, baseline):
    path = write_evaluation(tmp_path / "a", [0, 1]) / "metrics.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"popularity_baseline": baseline}))
    with pytest.raises(InputError, match=r"metrics.json has no finite numbers as popularity_baseline; run python -m"):
        read_evaluation("a", path.parent)


SEEDED = {"train": {"seed": 1}, "eval": {"split": "test"}}
CHOSEN = {"tried": {"train.seed": [1]}, "metric": "ndcg@3", "split": "valid", "protocol": "rows", "n": 50}


@pytest.mark.parametrize(
    "config",
    [
        [],
        {},
        {"train": []},
        {"train": {"seed": 1}},
        SEEDED | {"train": {"seed": "("}},
        SEEDED | {"chosen": {"field": "train.seed", "values": [1]}},
        SEEDED | {"chosen": CHOSEN | {"tried": {"a.b": [1]}}},
        SEEDED | {"chosen": CHOSEN | {"tried": {"eval.split": 1}}},
        SEEDED | {"chosen": CHOSEN | {"metric": None}},
        SEEDED | {"chosen": CHOSEN | {"n": "many"}},
    ],
)
def test_what_is_no_config_is_bad_input(tmp_path, config):
    folder = write_evaluation(tmp_path / "a", [0, 1], config=config)
    with pytest.raises(
        InputError, match=r"config.json is not a config of an evaluation \(.*\); run python -m igd_jax.ev"
    ):
        read_evaluation("a", folder)


def test_a_cut_off_beyond_any_list_is_no_metric(tmp_path):
    path = write_evaluation(tmp_path / "a", [0, 1]) / "metrics.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {f"hr@{10**30}": 1.0}))
    assert read_evaluation("a", path.parent).ks == {1, 3}
