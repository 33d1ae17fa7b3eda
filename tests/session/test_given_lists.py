"""Scores of given lists: those of the exact ranking, in the order of the list."""

import re

import numpy as np
import pytest
import tiny_run
from tiny_run import ITEM_IDS, TITLES

from igd_jax import Recommender
from igd_jax.core.errors import InputError

HISTORIES = [TITLES[4:6], ["My own", TITLES[8]], [TITLES[1]]]
LISTS = [[TITLES[9], ITEM_IDS[17], TITLES[3], TITLES[9], ITEM_IDS[22]], TITLES[:-1], [TITLES[20]]]


@pytest.fixture(scope="module")
def recommender(trained) -> Recommender:
    return Recommender.load(trained)


@pytest.fixture(scope="module")
def every(trained) -> list[dict[str, float]]:
    """Scores of all titles after each history, by the exact ranking."""
    n = len(set(TITLES))
    exact = Recommender.load(trained, {"decode.search": "exact", "decode.top_k": n})
    answers = exact.recommend([{"history": history} for history in HISTORIES])
    assert [len(answer.results) for answer in answers] == [n] * len(HISTORIES)
    return [{result.title: result.score for result in answer.results} for answer in answers]


def _title(name: str) -> str:
    return TITLES[ITEM_IDS.index(name)] if name in ITEM_IDS else name


def test_scores_are_those_of_the_exact_ranking_in_the_order_of_the_list(recommender, every):
    scores = recommender.score([{"history": history} for history in HISTORIES], LISTS)
    for names, found, expected in zip(LISTS, scores, every, strict=True):
        np.testing.assert_allclose(found, [expected[_title(name)] for name in names], atol=1e-4)


def test_scored_and_ranked_requests_are_answered_in_order(recommender):
    scored = {"history": HISTORIES[0], "score": LISTS[0], "id": "a"}
    ranked = {"history": HISTORIES[1]}
    first, second, third = recommender.recommend([scored, ranked, scored])
    assert [result.title for result in first.results] == [_title(name) for name in LISTS[0]]
    assert first.results[2].items == (ITEM_IDS[3], ITEM_IDS[22])
    assert (first.notes, len(second.results), len(second.notes)) == ((), 4, 1)
    assert third.results == first.results
    assert (first.id, second.id, third.id) == ("a", None, "a")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"score": []}, "request 2: a request has an empty score; name the titles or item ids to be scored"),
        ({"score": "Title"}, "request 2: score is 'Title'; expected a list of titles or item ids"),
        (
            {"score": ["nothing"]},
            "request 2: a request names the candidate 'nothing', which the catalogue does not have",
        ),
        (
            {"score": TITLES[:1], "candidates": TITLES[:2]},
            "has score and restricts its candidates; give one of the two",
        ),
        ({"score": TITLES[:1], "exclude_history": True}, "has score and restricts its candidates; give one of the two"),
    ],
)
def test_a_list_that_cannot_be_scored(recommender, fields, message):
    with pytest.raises(InputError, match=message):
        recommender.recommend([{"history": TITLES[:1]}, {"history": TITLES[:1], **fields}])


def test_what_is_no_candidate_of_the_run_has_no_score(trained):
    warm = Recommender.load(trained, {"decode.candidates": "train"})
    cold = TITLES[tiny_run.N_SOLD]
    with pytest.raises(
        InputError, match=re.escape(f"asks for the score of {cold!r}, which is not a candidate of the run")
    ):
        warm.score([{"history": TITLES[:1]}], [[TITLES[0], cold]])


def test_a_method_that_scores_items_has_no_scores_of_titles(sasrec_run):
    with pytest.raises(InputError, match="sasrec does not search the trie of titles, so given titles have no scores"):
        Recommender.load(sasrec_run).score([{"history": TITLES[:1]}], [TITLES[:2]])
