"""A recommender answers many requests alike: in order, as evaluation does, and compiled once per shape."""

import inspect
import json
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas
import pytest
import tiny_run
from tiny_run import ITEM_IDS, TITLES

import igd_jax
from igd_jax import Answer, Recommender
from igd_jax.core.errors import InputError
from igd_jax.core.io import Workdir
from igd_jax.core.log import say_once
from igd_jax.data.prepared import load
from igd_jax.decoding.engine import start
from igd_jax.decoding.jump import Jump
from igd_jax.evaluate import evaluate
from igd_jax.evaluation.predictions import read_predictions
from igd_jax.session import recommender as program
from igd_jax.session.requests import ItemNames, Request, read_request, requests_in
from igd_jax.session.session import set_up_to_decode

HISTORY = TITLES[4:6]
FRAME = pandas.DataFrame({"history": [["i1"]]})


@pytest.fixture(scope="module")
def recommender(trained) -> Recommender:
    return Recommender.load(trained)


def _ask(recommender: Recommender, *requests, k: int | None = None) -> list:
    """Answers, by the batch of eight that most tests ask for: each further shape costs a compilation."""
    return recommender.recommend([*requests, *[{"history": HISTORY}] * (8 - len(requests))], k=k)[: len(requests)]


def _titles(answers) -> list[list[str]]:
    return [[result.title for result in answer.results] for answer in answers]


def _scores(answers) -> np.ndarray:
    return np.array([[result.score for result in answer.results] for answer in answers])


# ----------------------------------------------------------------------------------------------------- what is answered
@pytest.mark.parametrize("by", ["titles", "ids"])
def test_answers_are_those_of_the_evaluation_of_the_same_histories_in_order(tiny, trained, recommender, by):
    rows, names = load(tiny / "data").splits["test"], TITLES if by == "titles" else ITEM_IDS
    if not (trained / "eval" / "all").exists():
        evaluate(tiny_run.tiny_config(tiny), Workdir(str(trained)), name="all")
    expected = list(read_predictions(trained / "eval" / "all" / "predictions.jsonl"))
    answers = recommender.recommend(
        {"history": [names[item] for item in rows.history[row]]} for row in range(len(expected))
    )
    assert _titles(answers) == [[result.title for result in each.ranked] for each in expected]
    np.testing.assert_allclose(
        _scores(answers), [[result.score for result in each.ranked] for each in expected], atol=1e-4
    )
    assert [answer.results[0].items for answer in answers] == [each.ranked[0].items for each in expected]
    assert {answer.notes for answer in answers} == {()}


@pytest.mark.parametrize(("template", "end"), [("d3", '"\n'), pytest.param("msl", '"', marks=pytest.mark.slow)])
def test_titles_that_a_template_quotes_are_written_with_quotes_and_shown_without(tiny, tmp_path, template, end):
    config = tiny_run.tiny_config(tiny, {"data.prompt": template, "data.category": "books"})
    workdir = Workdir(str(tmp_path / "run"))  # of an untrained model
    recommender = Recommender(set_up_to_decode(config, workdir), workdir)
    by_title, by_id, own = _ask(
        recommender, {"history": HISTORY}, {"history": ITEM_IDS[4:6]}, {"history": ["My own", *HISTORY]}
    )
    assert [result.title for result in by_title.results] == [result.title for result in by_id.results]
    assert own.notes == ("'My own' is neither a title nor an item of the catalogue; the model reads it as plain text",)
    for result in by_title.results:
        assert result.title in TITLES
        assert recommender.session.tokenizer.decode(result.tokens) == f'"{result.title}{end}'
    texts = recommender.session.prompts.of_texts([["My own"]])[0]
    assert '"My own"' in recommender.session.tokenizer.decode(texts.tolist())


def test_no_requests_have_no_answers(recommender):
    assert recommender.recommend([]) == []
    with pytest.raises(InputError, match=r"^a request has no history"):
        recommender.recommend({"history": []})


def test_a_history_or_a_request_has_one_answer(recommender):
    (answer,) = recommender.recommend([{"history": HISTORY}], k=3)
    assert answer.score.startswith("log-probability of the title")
    for asked in (HISTORY, tuple(HISTORY), {"history": HISTORY}, Request(tuple(HISTORY)), np.array(HISTORY)):
        assert recommender.recommend(asked, k=3) == answer
    with pytest.raises(InputError, match=r"^the history is 'Title A'; expected a list of titles or item ids, oldest"):
        recommender.recommend("Title A")
    with pytest.raises(InputError, match=r"^1 requests and 2 lists are given; give a list for each request"):
        recommender.score([{"history": HISTORY}], [TITLES[:1], TITLES[1:2]])
    with pytest.raises(InputError, match=r"^request 1: a request is 'Title A'; expected an object such as"):
        recommender.recommend(["Title A", {"history": HISTORY}])
    with pytest.raises(InputError, match=r"^a request has no history"):
        recommender.recommend({"history": []})


def test_many_histories_are_lists_of_lists_or_a_column_of_them(recommender):
    histories = [HISTORY, TITLES[:2]]
    column = pandas.DataFrame({"bought": histories})["bought"]
    for asked in (histories, tuple(map(tuple, histories)), column, np.array(histories), map(iter, histories)):
        assert requests_in(asked) == ([{"history": HISTORY}, {"history": TITLES[:2]}], False)
    assert requests_in([HISTORY, request := Request(("A",))]) == ([{"history": HISTORY}, request], False)
    expected = _ask(recommender, {"history": HISTORY}, {"history": TITLES[:2]})
    answers = recommender.recommend([*histories, *[{"history": HISTORY, "id": 7}] * 6])
    assert answers[:2] == expected
    assert [answer.id for answer in answers] == [None, None, *[7] * 6]
    assert len(answers.to_pandas()) == 8 * 4
    for asked, number in (([HISTORY, []], 2), ([[]], 1)):
        with pytest.raises(InputError, match=rf"^request {number}: a request has no history"):
            recommender.recommend(asked)


@pytest.mark.parametrize("name", ["a", 7, -1, np.int64(7)])
def test_the_id_of_a_request_is_a_text_or_a_whole_number(name):
    found = read_request({"history": ["A"], "id": name}).id
    assert (found, type(found)) == (name, str if name == "a" else int)


@pytest.mark.parametrize("array", [lambda names: np.array(names, object), pandas.Series])
def test_the_fields_of_a_request_may_be_arrays(array):
    lists = {"history": ("A", "B"), "candidates": ("C",)}
    given = {name: array(names) for name, names in lists.items()}
    expected = Request(**lists, id=7, exclude_history=True)
    assert read_request(given | {"id": np.int64(7), "exclude_history": np.bool_(True)}) == expected
    assert read_request({"history": given["history"], "score": array(["C"])}) == Request(("A", "B"), score=("C",))


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ([1, 2], 'history[0] is 1; expected a title or an item id, which are texts; give "1"'),
        (["i1", 2], 'history[1] is 2; expected a title or an item id, which are texts; give "2"'),
        (np.array([7]), 'history[0] is np.int64(7); expected a title or an item id, which are texts; give "7"'),
        (["i1", None], "history[1] is None; expected a title or an item id, which are texts"),
        (["i1", True], "history[1] is True; expected a title or an item id, which are texts"),
        ([b"i1"], "history[0] is b'i1'; expected a title or an item id, which are texts"),
        ([10**5000], "history[0] is a number of 16,610 bits; expected a title or an item id, which are texts; give"),
        ([["i1"], [2]], 'request 2: history[0] is 2; expected a title or an item id, which are texts; give "2"'),
        ([["i1"], "i2"], "request 2: a request is 'i2'; expected an object such as"),
        ([["i1"], float("nan")], "request 2: a request is nan; expected an object such as"),
        (b"i1", "the history is b'i1'; expected a list of titles or item ids, oldest first"),
        (np.array("i1"), "the history is array('i1'"),
        ({"i1"}, "the history is {'i1'}; expected a list of titles or item ids, oldest first"),
        ([["i1"], {"i2"}], "request 2: a request is {'i2'}; expected an object such as"),
        *(
            (asked, "a DataFrame is given; expected histories, df['history'], or requests, df.to_dict('records')")
            for asked in (FRAME, [FRAME])
        ),
    ],
)
def test_what_is_no_text_is_named_by_its_place(recommender, asked, message):
    with pytest.raises(InputError, match=f"^{re.escape(message)}"):
        recommender.recommend(asked)


def test_a_file_is_answered_as_its_requests_are(recommender, tmp_path):
    (tmp_path / "in.jsonl").write_text(json.dumps({"history": HISTORY}) + "\n")
    recommender.recommend_file(str(tmp_path / "in.jsonl"), tmp_path / "out.jsonl", k=2)
    (line,) = (tmp_path / "out.jsonl").read_text().splitlines()
    expected = recommender.recommend(HISTORY, k=2).results
    assert [result["title"] for result in json.loads(line)["ranked"]] == [result.title for result in expected]


@pytest.mark.slow
def test_k_is_the_length_of_the_lists(recommender):
    (whole,), (short,) = (_ask(recommender, {"history": HISTORY}, k=k) for k in (None, 2))
    assert len(whole.results) == 4
    assert short.results == whole.results[:2]
    for k in (0, 5):
        with pytest.raises(InputError, match=rf"k is {k}, but lists have a length of 4; give 1 to 4, or raise"):
            recommender.recommend([{"history": HISTORY}], k=k)


def test_a_title_that_the_catalogue_does_not_have_is_read_as_text_and_noted(recommender):
    plain, told = _ask(recommender, {"history": HISTORY}, {"history": ["My own", *HISTORY]})
    assert plain.notes == ()
    assert told.notes == ("'My own' is neither a title nor an item of the catalogue; the model reads it as plain text",)
    assert not np.allclose(_scores([plain]), _scores([told]), atol=1e-3)


def test_ids_that_are_titles_of_other_items_are_told(recommender, capsys):
    ids = [*recommender.session.prepared.item_ids]
    ids[2:4] = TITLES[3], TITLES[3]
    say_once.cache_clear()
    assert ItemNames(recommender.index, ids).item(TITLES[3]) == 3
    told = (
        "note: 1 ids of items are titles of others, such as 'TITLE'; where an item is named, they mean these titles\n"
    )
    assert capsys.readouterr().out == told.replace("TITLE", TITLES[3])


def test_a_title_goes_before_an_id_and_ids_are_read_as_their_titles(recommender):
    by_title, by_id = _ask(recommender, {"history": HISTORY}, {"history": ITEM_IDS[4:6]})
    assert _titles([by_title]) == _titles([by_id])
    np.testing.assert_allclose(_scores([by_title]), _scores([by_id]), atol=1e-5)


def test_a_history_that_is_too_long_is_cut_and_noted(recommender):
    (answer,) = _ask(recommender, {"history": TITLES * 4})
    assert answer.notes == ("the history is cut to its newest items: over 503 tokens in the prompt",)


# -------------------------------------------------------------------------------------------- what may be recommended
def test_only_candidates_of_a_request_are_recommended_to_it(recommender):
    wanted = [TITLES[9], ITEM_IDS[17], TITLES[3]]
    free, bound = _ask(recommender, {"history": HISTORY}, {"history": HISTORY, "candidates": wanted})
    assert {result.title for result in bound.results} == {TITLES[9], TITLES[17], TITLES[3]}
    assert {result.items for result in bound.results} == {("sku9",), ("sku17",), ("sku3", "sku22")}
    assert _titles([free]) == _titles(_ask(recommender, {"history": HISTORY}))


def test_the_history_can_be_excluded(recommender):
    best = _ask(recommender, {"history": HISTORY})[0].results
    history = [best[0].title, best[1].items[0]]
    (answer,) = _ask(recommender, {"history": history, "exclude_history": True})
    assert len(answer.results) == 4
    assert not {result.title for result in answer.results} & {best[0].title, best[1].title}


@pytest.mark.parametrize(
    ("config", "call", "request_", "is_left_out"),
    [
        (False, None, None, False),
        (True, None, None, True),
        (True, False, None, False),
        (False, True, None, True),
        (True, True, False, False),
        (False, False, True, True),
    ],
)
def test_the_request_says_whether_the_history_is_left_out_else_the_call_else_the_config(
    recommender, monkeypatch, config, call, request_, is_left_out
):
    settings, asked = recommender.session.settings, []
    changed = replace(settings, decode=replace(settings.decode, exclude_history=config))
    monkeypatch.setattr(recommender, "session", replace(recommender.session, settings=changed))
    monkeypatch.setattr(recommender, "answer", lambda resolved, **__: asked.append(*resolved) or [Answer(())])
    recommender.recommend([Request(tuple(HISTORY), exclude_history=request_)], exclude_history=call)
    (resolved,) = asked
    assert (resolved.allowed is not None) == is_left_out


def test_candidates_without_the_history(recommender):
    request = Request(tuple(HISTORY), candidates=(*HISTORY, TITLES[8]), exclude_history=True)
    assert _titles(_ask(recommender, request)) == [[TITLES[8]]]


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({}, "a request has no history; name at least one title or item id, oldest first"),
        ({"history": []}, "a request has no history"),
        ({"history": "Title A"}, "history is 'Title A'; expected a list of titles or item ids"),
        ({"history": ["A", 3]}, r"history\[1\] is 3; expected a title or an item id, which are texts; give \"3\""),
        ({"history": ["half \ud800"]}, r"history\[0\] is 'half .ud800'; expected a title or an item id"),
        ({"histry": ["A"]}, r"a request has the field 'histry'; expected history, id, .*; did you mean 'history'\?"),
        ({"history": ["A"], "nothing": 1, 2: 3}, "a request has the field '2'; expected .*, exclude_history, score$"),
        *(
            ({"history": ["A"], "id": each}, f"id is {re.escape(repr(each))}; expected a text or a whole number")
            for each in (7.0, True, [7], {"a": 7}, "\udfff")
        ),
        ({"history": ["A"], "exclude_history": 1}, "exclude_history is 1; expected true or false"),
        ({"history": ["A"], "candidates": ["nothing"]}, "names the candidate 'nothing', which the catalogue does not"),
        ({"history": ["A"], "candidates": []}, "none of its candidates is a candidate of the run; name others$"),
        (
            {"history": [TITLES[0]], "candidates": [TITLES[0]], "exclude_history": True},
            "leaves nothing to recommend: .* or set exclude_history to false$",
        ),
        (Request(()), "a request has no history"),
    ],
)
def test_a_request_that_cannot_be_answered(recommender, request_, message):
    with pytest.raises(InputError, match=message):
        recommender.recommend([{"history": HISTORY}, request_])


# ------------------------------------------------------------------------------------------------- one build, one shape
@pytest.fixture
def traced(monkeypatch):
    """Counts how often the parts of the search are traced."""
    calls = Counter()
    for name in ("prefill", "generate", "finished"):
        plain = getattr(Jump, name)

        def counted(self, *arguments, name=name, plain=plain):
            calls[name] += 1
            return plain(self, *arguments)

        monkeypatch.setattr(Jump, name, counted)
    return calls


def test_requests_of_one_shape_are_compiled_once(trained, traced):
    recommender = Recommender.load(trained, {"decode.num_beams": np.int64(5)})  # beams that no other test has
    first = recommender.recommend([{"history": HISTORY}])
    once = Counter(traced)
    assert once["prefill"] >= 1
    for number in range(6):
        recommender.recommend([{"history": [TITLES[number], TITLES[number + 7]]}])
    assert _titles(recommender.recommend([{"history": HISTORY}])) == _titles(first)
    assert traced == once
    recommender.recommend([{"history": HISTORY}] * 3)  # a batch of four rows
    twice = Counter(traced)
    assert twice["prefill"] > once["prefill"]
    recommender.recommend([{"history": HISTORY}] * 4)
    assert traced == twice
    for first in (TITLES[0], TITLES[7], HISTORY[0]):  # what their prompts share is another number of tokens each time
        recommender.recommend([{"history": [first, TITLES[3]]}, {"history": [first, TITLES[5]]}] * 2)
    assert traced == twice


def test_the_search_of_requests_is_compiled_once_for_prompts_up_to_a_width(trained, traced):
    recommender = Recommender.load(trained, {"decode.num_beams": 6})  # beams that no other test has
    before = {}
    for n in (4, 9):
        recommender.recommend([{"history": TITLES[:n]}])
        before[n] = traced["generate"]
    assert before[4] >= 1
    assert len({*before.values()}) == 1


# ----------------------------------------------------------------------------------------------------- loading, changes
@pytest.mark.slow
def test_fields_of_decoding_can_be_changed(trained, recommender):
    changed = Recommender.load(str(trained), {"decode.alpha": 1.0, "decode.candidates": "train"})
    (ours,), (theirs,) = (_ask(each, {"history": HISTORY}) for each in (recommender, changed))
    assert changed.trained.step == recommender.trained.step
    assert int(changed.index.candidates.sum()) == int(recommender.index.candidates.sum()) - tiny_run.N_COLD
    assert not np.allclose(_scores([ours]), _scores([theirs]), atol=1e-3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"decode.alpha": 1.5}, r"config.decode.alpha is 1.5; expected a discount from 0 to 1"),
        ({"decode.alhpa": 0.5}, r"changes: the config has no field decode.alhpa; .*; did you mean 'alpha'\?$"),
        ({"alpha": 0.5}, r"changes: the config has no field alpha; .*; did you mean 'decode.alpha'\?$"),
        ({"method.args.betta": 0.5}, r"config.method.args has betta"),
        ({"decode.alpha": "high"}, r"changes are .*, which the config does not take"),
        ({"nothing.of.this": 1}, r"changes: the config has no field nothing.of.this"),
        ({"train.seed": 7}, r"holds a run of another config, train.seed: \d+ there, 7 here"),
    ],
)
def test_changes_that_a_run_cannot_take(trained, changes, message):
    with pytest.raises(InputError, match=message):
        Recommender.load(trained, changes)


def test_a_recommender_shows_what_it_is(trained, recommender, monkeypatch):
    step, n = recommender.trained.step, len(TITLES)
    assert repr(recommender) == f"<Recommender of {trained}: igd, step {step}, {n} candidates, 4 beams>"
    monkeypatch.setattr(recommender, "trained", replace(recommender.trained, step=None))
    settings = recommender.session.settings
    exact = replace(settings, decode=replace(settings.decode, search="exact"))
    monkeypatch.setattr(recommender, "session", replace(recommender.session, settings=exact))
    assert repr(recommender) == f"<Recommender of {settings.model.path}: igd, {n} candidates>"


def test_lists_may_be_shorter_than_what_an_evaluation_would_cut(trained, monkeypatch):
    asked = []
    monkeypatch.setattr(program, "set_up_to_decode", lambda config, folder: asked.append(config))
    monkeypatch.setattr(Recommender, "__init__", lambda *_: None)
    for n_beams, ks in ((np.int64(2), (1,)), (3, (1, 3)), (4, (1, 3))):
        Recommender.load(trained, {"decode.num_beams": n_beams, "eval.ks": (1, 3)})
        assert (asked[-1].decode.num_beams, asked[-1].eval.ks) == (n_beams, ks)
    Recommender.load(trained, {"decode.num_beams": 2, "eval.ks": (3,)})
    assert asked[-1].eval.ks == (1,)


def test_what_is_no_folder_of_a_run():
    with pytest.raises(InputError, match=r"^the run is None; expected the path of its folder$"):
        inspect.unwrap(Recommender.load.__func__)(Recommender, None)


def test_a_folder_without_a_run(tmp_path):
    with pytest.raises(InputError, match=r"holds no run .*; give the folder of one, or an export"):
        Recommender.load(tmp_path)
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------------------- a model of item ids
def test_a_model_of_items_reads_what_it_knows_and_notes_the_rest(sasrec_run):
    recommender = Recommender.load(sasrec_run)
    known, mixed = _ask(recommender, {"history": HISTORY}, {"history": ["My own", *HISTORY]})
    assert mixed.results == known.results
    assert mixed.notes == (
        "'My own' is neither a title nor an item of the catalogue, so the model cannot read it; it is left out",
    )
    with pytest.raises(InputError, match=r"no entry of the history \['My own'\] is in the catalogue, and this model"):
        recommender.recommend([{"history": ["My own"]}])
    (bound,) = recommender.recommend([{"history": HISTORY, "candidates": [TITLES[9], TITLES[8]]}])
    assert {result.title for result in bound.results} == {TITLES[9], TITLES[8]}


def test_histories_of_many_lengths_are_read_by_few_programs(sasrec_run):
    recommender, histories = Recommender.load(sasrec_run), [(TITLES * 2)[:n] for n in (1, 2, 3, 4, 5, 40)]
    start.clear_cache()  # which may hold programs of other tests for these shapes
    alone = [recommender.recommend(history) for history in histories]
    assert start._cache_size() == 2
    together = recommender.recommend([{"history": history} for history in histories])
    assert _titles(together) == _titles(alone)
    np.testing.assert_allclose(_scores(together), _scores(alone), atol=1e-5)


# ------------------------------------------------------------------------------------------------------------ notebooks
def test_names_for_notebooks_are_there_and_importing_the_package_is_cheap():
    assert {getattr(igd_jax, name).__name__ for name in igd_jax.__all__} == set(igd_jax.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Recommmender'"):
        _ = igd_jax.Recommmender
    look = "import sys, igd_jax; print(sorted({'jax', 'flax', 'numpy', 'absl'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_the_example_of_the_readme_runs(trained):
    readme = Path(igd_jax.__file__).parents[1] / "README.md"
    (example,) = re.findall(r"```python\n(.*?)```", readme.read_text(encoding="utf-8"), flags=re.DOTALL)
    example = example.replace('"runs/igd"', json.dumps(str(trained))).replace("k=10", "k=3")
    *lines, asks, explains = example.replace("Title C", TITLES[5]).strip().splitlines()
    names = {}
    exec("\n".join(lines), names)
    answer, explanation = eval(asks, names), eval(explains, names)
    assert len(answer.results) == 3
    assert len(answer.notes) == len(explanation.notes) == 2  # Title A and Title B are not titles of the shop
    assert explanation.title == TITLES[5]
