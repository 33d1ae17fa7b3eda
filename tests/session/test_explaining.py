"""A title is explained by what its tokens decide and weigh, and by how likely the model finds them."""

import inspect
import json

import numpy as np
import pytest
from command import run_here
from tiny_run import ITEM_IDS, N_SOLD, TITLES

import igd_jax
from igd_jax import InputError, Recommender
from igd_jax import inspect as program

TITLE, HISTORY = TITLES[5], TITLES[3:5]


@pytest.fixture(scope="module")
def recommender(trained) -> Recommender:
    return igd_jax.load(trained, {"decode.alpha": 0.0})


def test_log_probabilities_of_the_tokens_add_up_to_the_score_of_the_title(recommender):
    found = recommender.explain(TITLE, HISTORY)
    (scores,) = recommender.score([{"history": HISTORY}], [[TITLE]])
    assert sum(token.log_probability for token in found.tokens) == pytest.approx(scores[0], abs=1e-3)
    assert (found.title, found.is_candidate, found.notes) == (TITLE, True, ())
    assert "".join(token.text for token in found.tokens) == f"{TITLE}\n<|endoftext|>"
    noted = recommender.explain(TITLE, ["My own", *HISTORY])
    assert noted.notes[0].startswith("'My own' is neither a title nor an item of the catalogue; the model reads it")
    assert noted.tokens != found.tokens


def test_weights_are_those_of_training(recommender):
    found = recommender.explain(TITLE)
    assert {token.weight for token in found.tokens if token.forced} == {0.1}
    assert {token.weight for token in found.tokens if not token.forced} == {1.0}
    assert {token.log_probability for token in found.tokens} == {None}
    assert recommender.explain(ITEM_IDS[5]) == found


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((3,), "the title is 3; expected a title or an item id, which are texts"),
        ((["x"],), r"the title is \['x'\]; expected a title or an item id, which are texts"),
        ((TITLE, 5), "history is 5; expected a list of titles or item ids"),
        ((TITLE, TITLE), "history is '.*'; expected a list of titles or item ids"),
    ],
)
def test_what_is_no_title_or_no_history_is_one_line(recommender, given, message):
    with pytest.raises(InputError, match=f"^{message}$"):
        inspect.unwrap(Recommender.explain)(recommender, *given)


def test_inspect_of_a_run_explains_alike(recommender, trained, tiny):
    done = run_here(program, f"--workdir={trained}", f"--title={TITLE}", "--json")
    assert done.code == 0
    assert "candidates (catalogue): 23 of 23 items" in done.err
    told = json.loads(done.out)
    expected = [vars(token).copy() for token in recommender.explain(TITLE).tokens]
    assert [token | {"log_probability": None} for token in told["tokens"]] == expected
    alone = run_here(program, f"--data={tiny / 'data'}", f"--tokenizer={tiny / 'model'}", f"--title={TITLE}", "--json")
    assert json.loads(alone.out) == told
    assert run_here(program, f"--workdir={trained}", f"--title={TITLE}").out.endswith(
        f"{recommender.explain(TITLE)!r}\n"
    )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--title=red fox"], "'red fox' is neither a title nor an item of the catalogue; did you mean 'Red Fox (p"),
        (["--title=nothing"], "'nothing' is neither a title nor an item of the catalogue\n"),
        (["--title=Red Fox", "--beta=0.5"], "--workdir and --beta are given; a run has its own, so leave one out"),
    ],
)
def test_what_cannot_be_explained_of_a_run(trained, flags, message):
    done = run_here(program, f"--workdir={trained}", *flags)
    assert done.code == 2
    assert done.err.startswith(f"error: {message}")


def test_without_a_run_data_and_tokenizer_are_needed(tiny):
    done = run_here(program, f"--data={tiny / 'data'}", f"--title={TITLE}")
    told = "error: no run is given; give --workdir=RUN, or --data=DIR with --tokenizer=HF_DIR\n"
    assert (done.code, done.err) == (2, told)


def test_a_model_that_writes_no_titles_explains_none(sasrec_run):
    with pytest.raises(InputError, match="sasrec scores items and writes no titles, so there are no tokens to explain"):
        Recommender.load(sasrec_run).explain(TITLE)


def test_a_title_that_training_could_not_write_has_no_gain(trained):
    catalogue = igd_jax.load(trained).explain(TITLES[N_SOLD])
    assert catalogue.is_candidate
    assert np.sum([token.gain for token in catalogue.tokens]) > 0
