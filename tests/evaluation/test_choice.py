"""A choice is made by the largest cut-off that all alternatives have, and is written down."""

import json
from dataclasses import asdict

import pytest

from igd_jax.evaluation.choice import Choice, means_of_largest_ndcg, read_choice

CHOICE = Choice({"decode.alpha": [0.0, 0.2], "method.args.beta": [0.1]}, "ndcg@10", "valid", "users", 1_500)


def test_a_choice_survives_json():
    assert read_choice(json.loads(json.dumps(asdict(CHOICE)))) == CHOICE


def test_means_over_seeds_at_the_largest_cut_off_in_common():
    """Lists of three have no NDCG at 10, and cut-offs are compared as numbers."""
    short = {"ndcg@1": 0.9, "ndcg@3": 0.2, "hr@3": 1.0}
    metric, means = means_of_largest_ndcg([[short], [{"ndcg@3": 0.1, "ndcg@10": 1.0}, {"ndcg@3": 0.4, "ndcg@10": 1.0}]])
    assert (metric, means) == ("ndcg@3", [0.2, pytest.approx(0.25)])
    assert means_of_largest_ndcg([[{"ndcg@9": 0.1, "ndcg@10": 0.3}]]) == ("ndcg@10", [0.3])
