"""predictions.jsonl: what is written is what is read, byte for byte as documented; bad lines are named."""

import json

import pytest

from igd_jax.core.errors import InputError
from igd_jax.evaluation.predictions import (
    SCHEMA_VERSION,
    Prediction,
    Result,
    Target,
    as_json,
    check_version,
    read_predictions,
    write_predictions,
)

FOX = Result(items=("B3", "B9"), title='Füchse "rot"', score=-1.25, tokens=(71, 5, 0))
CUT = Result(items=(), title="", score=-2.0, tokens=())
FIRST = Prediction(7, "A1", Target(("B3",), "Red Fox", (True,)), (FOX, CUT))
SECOND = Prediction(9, "A2", Target(("B1", "B2"), "Owl", (True, False)), ())
LINES = (
    '{"row": 7, "user": "A1", "target": {"items": ["B3"], "title": "Red Fox", "warm": [true]}, "ranked": '
    '[{"items": ["B3", "B9"], "title": "Füchse \\"rot\\"", "score": -1.25, "tokens": [71, 5, 0]}, '
    '{"items": [], "title": "", "score": -2.0, "tokens": []}]}\n'
    '{"row": 9, "user": "A2", "target": {"items": ["B1", "B2"], "title": "Owl", "warm": [true, false]}, "ranked": []}\n'
)


def test_a_line_per_query_byte_for_byte(tmp_path):
    write_predictions(tmp_path / "predictions.jsonl", iter([FIRST, SECOND]))
    assert (tmp_path / "predictions.jsonl").read_bytes() == LINES.encode()
    assert list(read_predictions(tmp_path / "predictions.jsonl")) == [FIRST, SECOND]


def test_results_alone_are_the_ranked_of_a_line():
    assert json.loads(as_json(FIRST.ranked)) == json.loads(LINES.splitlines()[0])["ranked"]


def test_whole_numbers_are_scores(tmp_path):
    path = tmp_path / "predictions.jsonl"
    path.write_text(LINES.replace("-2.0", "-2"), encoding="utf-8")
    score = next(read_predictions(path)).ranked[1].score
    assert (score, type(score)) == (-2.0, float)


def test_writing_that_fails_leaves_the_older_file(tmp_path):
    def broken():
        yield FIRST
        raise OSError("disk full")

    path = tmp_path / "predictions.jsonl"
    write_predictions(path, [SECOND])
    with pytest.raises(OSError, match="disk full"):
        write_predictions(path, broken())
    assert list(read_predictions(path)) == [SECOND]


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('"row": 9, ', "", "the line has no 'row'"),
        ('"row": 9', '"row": 9.5', "row is 9.5; expected a whole number"),
        ('"row": 9', '"row": true', "row is true; expected a whole number"),
        ('"user": "A2"', '"user": 2', "user is 2; expected a text"),
        ('"user": "A2"', '"user": "A2", "age": 3', "the line has 'age'; expected only row, user, target, ranked"),
        (
            '"user": "A2"',
            '"age": 3',
            "the line has no 'user'",
        ),
        ('"title": "Owl", ', "", "target has no 'title'"),
        ('"title": "Owl"', '"title": "Owl", "b": 1, "a": 2', "target has 'a'; expected only items, title, warm"),
        ('"ranked": []', '"ranked": [{"items": []}]', "ranked[0] has no 'title'"),
        ('["B1", "B2"]', '["B1", null, [2]]', 'target.items is ["B1", null, [2]]; expected a list, each a text'),
        ('["B1", "B2"]', "[]", "a target needs items, and for each whether it is warm"),
        ('["B1", "B2"]', '["B1"]', "a target needs items, and for each whether it is warm"),
        ('["B1", "B2"]', '["B1", 2]', 'target.items is ["B1", 2]; expected a list, each a text'),
        ("[true, false]", "[1, 0]", "target.warm is [1, 0]; expected a list, each true or false"),
        ('"ranked": []', '"ranked": {}', "ranked is {}; expected a list"),
        ('"ranked": []', '"ranked": [[]]', "ranked[0] is []; expected an object"),
        (
            '"ranked": []',
            '"ranked": [{"items": [], "title": "", "score": null, "tokens": []}]',
            "ranked[0].score is null; expected a finite number",
        ),
        (
            '"ranked": []',
            '"ranked": [{"items": [], "title": "", "score": 0, "tokens": [1.5]}]',
            "ranked[0].tokens is [1.5]; expected a list, each a whole number",
        ),
        *(
            (
                '"ranked": []',
                f'"ranked": [{{"items": [], "title": "", "score": {score}, "tokens": []}}]',
                "ranked[0].score is ",
            )
            for score in ("NaN", "-Infinity", "true", "1e300", "1" * 400)
        ),
        ('"ranked": []', f'"ranked": {"[" * 100_000}', "maximum recursion depth exceeded"),
        ('{"row": 9', '"row": 9', "Extra data"),
    ],
)
def test_a_bad_line_is_named_with_what_is_wrong(tmp_path, old, new, problem):
    path = tmp_path / "predictions.jsonl"
    first, second = LINES.splitlines(keepends=True)
    assert old in second
    path.write_text(first + second.replace(old, new), encoding="utf-8")
    with pytest.raises(InputError) as told:
        list(read_predictions(path))
    message = str(told.value)
    assert message.startswith(f"{path} line 2 is not a prediction ({problem}")
    assert message.endswith("run python -m igd_jax.evaluate again")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"predictions.jsonl does not exist; run python -m igd_jax.evaluate again"):
        list(read_predictions(tmp_path / "predictions.jsonl"))


def test_a_newer_schema_is_refused(tmp_path):
    check_version(SCHEMA_VERSION, source=tmp_path)
    with pytest.raises(InputError, match=r"env.json says that predictions.jsonl has schema 2, but .* reads up to 1; "):
        check_version(SCHEMA_VERSION + 1, source=tmp_path / "env.json")
