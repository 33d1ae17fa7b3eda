"""What a recommender gives back reads well as text, as a data frame, and in a notebook, where a title is text."""

import sys
from xml.etree import ElementTree

import pytest

from igd_jax import Answer, Answers, Explanation, InputError, Result, Token

SCRIPT = '<script>alert("a & b")</script>'
ANSWER = Answer(
    (Result(("sku1", "sku2"), SCRIPT, -1.25, (7, 0)), Result((), "", -3.0, ())), (f"{SCRIPT!r} is unknown",), "a number"
)
TOKENS = (
    Token(5, "<b> Red", 0.5, False, 1.0, -0.25),
    Token(6, " Fox", 0.25, False, 1.0, -2.0),
    Token(0, "\n", 0.0, True, 0.1, -30.0),
)
EXPLANATION = Explanation(SCRIPT, True, TOKENS, ("cut",))


def _elements(html: str) -> list[ElementTree.Element]:
    """All elements of a well-formed fragment."""
    return list(ElementTree.fromstring(f"<all>{html}</all>").iter())


def _texts(html: str, tag: str) -> list[str]:
    return ["".join(each.itertext()) for each in _elements(html) if each.tag == tag]


def test_an_answer_is_a_table_with_the_meaning_of_its_scores():
    head, _, first, second, note, score = repr(ANSWER).splitlines()
    assert [cell.strip() for cell in head.strip("|").split("|")] == ["rank", "score", "items", "title"]
    assert [cell.strip() for cell in first.strip("|").split("|")] == ["1", "-1.250", "sku1 sku2", SCRIPT]
    assert "(unfinished)" in second
    assert (note, score) == (f"note: {SCRIPT!r} is unknown", "score: a number")
    assert repr(Answer(())).count("\n") == 1


def test_a_long_title_and_many_items_are_shortened_for_people():
    items = tuple(f"sku{number}" for number in range(900))
    answer = Answer((Result(items, "The long " * 300 + "End", -1.0, (7, 0)), Result(("sku1",), "y" * 60, -2.0, (7, 0))))
    lines, cells = repr(answer).splitlines(), _texts(answer._repr_html_(), "td")
    assert max(map(len, lines)) < 160 + 60 + 40
    assert max(map(len, repr(Answer(answer.results[1:])).splitlines())) < 100
    assert [cells[3], cells[7]] == ["The long The long The long T...e long The long The long End", "y" * 60]
    assert [line.split("|")[4].strip() for line in lines[2:]] == [cells[3], cells[7]]
    assert len(cells[2]) <= 160


def test_an_answer_in_a_notebook_shows_markup_as_text():
    html = ANSWER._repr_html_()
    assert {each.tag for each in _elements(html)} <= {
        "all",
        *("table", "thead", "tbody", "tr", "th", "td", "p"),
    }
    assert _texts(html, "td")[:4] == ["1", "-1.250", "sku1 sku2", SCRIPT]
    assert _texts(html, "p") == [f"{SCRIPT!r} is unknown", "score: a number"]


def test_a_title_is_a_heat_map_of_its_tokens():
    html = EXPLANATION._repr_html_()
    assert {each.tag for each in _elements(html)} <= {"all", "div", "span", "code", "small", "br", "p"}
    assert _texts(html, "code") == ["<b>\u2423Red", "\u2423Fox", "\u23ce"]
    assert _texts(html, "p")[1:] == ["note: cut"]
    boxes = [each.get("style") for each in _elements(html) if each.tag == "span"]
    gain, likely = boxes[::2], boxes[1::2]
    assert [style.rpartition(", ")[2] for style in gain] == ["0.600)", "0.300)", "0.000)"]
    assert [style.rpartition(", ")[2] for style in likely] == ["0.030)", "0.240)", "0.600)"]
    assert ["dashed" in style for style in gain] == [False, False, True]
    for number in ("0.5", "-0.25", "-30.00"):
        assert number in html


def test_a_title_without_history_or_off_the_trie_says_so():
    text = repr(EXPLANATION)
    assert [cell.strip() for cell in text.splitlines()[0].strip("|").split("|")][-1] == "log-probability"
    bare = Explanation("A", False, (Token(5, "A", 0.0, True, 0.1),))
    assert "log-probability" not in repr(bare)
    assert repr(bare).splitlines()[-1] == "'A' is not a candidate of training, so none of its tokens has a gain"
    assert _texts(bare._repr_html_(), "p")[-1].startswith("'A' is not a candidate")


def test_data_frames_have_a_row_per_result_and_per_token():
    frame = ANSWER.to_pandas()
    assert (list(frame.columns), list(frame.index)) == (["title", "items", "score"], [1, 2])
    assert frame.loc[1].tolist() == [SCRIPT, ("sku1", "sku2"), -1.25]
    assert list(Answer(()).to_pandas().columns) == ["title", "items", "score"]
    frame = EXPLANATION.to_pandas()
    assert list(frame.columns) == ["id", "text", "gain", "forced", "weight", "log_probability"]
    assert frame["log_probability"].tolist() == [-0.25, -2.0, -30.0]


def test_a_data_frame_of_many_answers_names_their_requests():
    answers = Answers([ANSWER, Answer(()), Answer(ANSWER.results[:1], id=7)])
    assert answers == [ANSWER, Answer(()), Answer(ANSWER.results[:1], id=7)]
    frame = answers.to_pandas()
    assert list(frame.columns) == ["request", "id", "rank", "title", "items", "score"]
    assert frame[["request", "rank"]].to_numpy().tolist() == [[1, 1], [1, 2], [3, 1]]
    assert (frame["id"].isna().tolist(), frame["id"][2]) == ([True, True, False], 7)
    assert frame.loc[2, ["title", "items", "score"]].tolist() == [SCRIPT, ("sku1", "sku2"), -1.25]
    assert list(Answers().to_pandas().columns) == list(frame.columns)


@pytest.mark.parametrize("others", [[], [Answer(ANSWER.results)]])
def test_large_ids_are_exact_in_a_data_frame_also_beside_a_missing_one(others):
    frame = Answers([Answer(ANSWER.results, id=2**53 + 1), *others]).to_pandas()
    assert frame["id"].tolist() == [2**53 + 1] * 2 + [None] * 2 * len(others)


def test_without_pandas_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(InputError, match=r"^to_pandas needs pandas: pip install pandas$"):
        ANSWER.to_pandas()
