"""A file of requests: answered in order, line by line; gone on with after a kill; nothing dropped without a word."""

import json
import os
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from command import run_here
from safetensors.numpy import load_file, save_file
from tiny_run import ITEM_IDS, TITLES, tiny_config

from igd_jax import recommend as program
from igd_jax.core import remote, suggest
from igd_jax.core.errors import InputError
from igd_jax.core.io import Workdir
from igd_jax.session import answers
from igd_jax.session.recommender import Recommender
from igd_jax.session.session import set_up_to_decode

CHUNK = 4
"""Lines answered together in these tests."""


@pytest.fixture(scope="module")
def recommender(trained) -> Recommender:
    return Recommender.load(trained)


@pytest.fixture
def answer(recommender, tmp_path, monkeypatch, capsys):
    """Answer lines in chunks; returns what was said, and the answers."""
    monkeypatch.setattr(answers, "AT_ONCE", CHUNK)

    def run(lines: list, *, k: int | None = 2, make=lambda: recommender) -> tuple[str, list[dict]]:
        texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
        (tmp_path / "in.jsonl").write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
        answers.answer_file(make, tmp_path / "in.jsonl", tmp_path / "new" / "out.jsonl", k=k)
        written = (tmp_path / "new" / "out.jsonl").read_text(encoding="utf-8")
        return capsys.readouterr().out, [json.loads(line) for line in written.splitlines()]

    return run


def _requests(n: int) -> list[dict]:
    return [{"history": [TITLES[i % 19], ITEM_IDS[i % 7]], "id": f"Löwe {i}"} for i in range(n)]


# ------------------------------------------------------------------------------------------------------ what is written
def test_answers_come_in_order_with_their_lines_and_ids(answer, recommender):
    requests = _requests(10)
    del requests[3]["id"]
    said, found = answer(requests)
    assert [line["line"] for line in found] == list(range(1, 11))
    assert [line.get("id") for line in found] == [request.get("id") for request in requests]
    assert list(found[0]) == ["line", "id", "ranked"]
    assert [list(result) for result in found[0]["ranked"]] == [["items", "title", "score", "tokens"]] * 2
    expected = recommender.recommend(requests[:CHUNK], k=2)
    assert [[result["title"] for result in line["ranked"]] for line in found[:CHUNK]] == [
        [result.title for result in each.results] for each in expected
    ]
    assert said.splitlines()[:3] == [f"answered {n} requests, up to line {n}" for n in (4, 8, 10)]
    assert "10 requests answered, 0 lines left out, 0 notes" in said


def test_an_id_may_be_a_whole_number(answer):
    requests = [request | {"id": number} for number, request in enumerate(_requests(6), start=-2)]
    said, found = answer(requests)
    assert [line["id"] for line in found] == [-2, -1, 0, 1, 2, 3]
    assert "6 requests answered, 0 lines left out" in said
    said, again = answer(requests)
    assert "going on after line 4 of" in said
    assert again == found


@pytest.mark.slow
def test_a_list_is_scored_in_its_order(answer):
    _, (ranked, scored) = answer([*_requests(1), {"history": TITLES[:1], "score": [TITLES[9], ITEM_IDS[2]]}])
    assert list(scored) == ["line", "scored"]
    assert [result["title"] for result in scored["scored"]] == [TITLES[9], TITLES[2]]
    _, again = answer([*_requests(1), {"history": TITLES[:1], "score": [TITLES[9], ITEM_IDS[2]]}])
    assert again == [ranked, scored]


def test_lines_are_read_and_written_chunk_by_chunk(answer, recommender, tmp_path, monkeypatch):
    seen, n_resolved, out = [], Counter(), tmp_path / "new" / "out.jsonl"
    plain, resolve = recommender.answer, recommender.resolve

    def spy(resolved, *, k):
        n_written = len(out.read_text().splitlines()) if out.exists() else 0
        seen.append((len(resolved), n_written))
        return plain(resolved, k=k)

    monkeypatch.setattr(recommender, "answer", spy)
    monkeypatch.setattr(recommender, "resolve", lambda request: n_resolved.update([request.id]) or resolve(request))
    requests = _requests(10)
    answer(requests)
    assert seen == [(4, 0), (4, 4), (2, 8)]
    assert n_resolved == Counter(request["id"] for request in requests), "each is resolved once"


@pytest.mark.parametrize("lines", [[], ["", " "]])
def test_a_file_without_requests_is_refused_before_a_model_is_made(answer, tmp_path, lines):
    def never():
        raise AssertionError("nothing is to be answered")

    with pytest.raises(InputError, match=r"--input=.*in.jsonl has no request; expected a JSON object per line"):
        answer(lines, make=never)
    assert not list(tmp_path.glob("new/*.jsonl"))


def test_notes_about_histories_are_told_with_their_lines_and_counted(answer):
    said, found = answer([{"history": [TITLES[0], f"My own {i}"]} for i in range(12)])
    assert len(found) == 12
    told = [line for line in said.splitlines() if line.startswith("note: ")]
    assert "in.jsonl line 1: 'My own 0' is neither a title nor an item of the catalogue; the model reads it" in told[0]
    assert "line 10: 'My own 9'" in told[9]
    assert told[10:] == ["note: further lines, too; they are counted at the end"]
    assert "12 requests answered, 0 lines left out, 12 notes" in said


# ------------------------------------------------------------------------------------------------------------ bad lines
BAD = {
    "no json": "it is not valid JSON (Expecting value at column 1)",
    '{"history": ["A"]': "it is not valid JSON (Expecting ',' delimiter at column 19)",
    '["A"]': "a request is ['A']; expected an object",
    "{}": "a request has no history",
    '{"history": ["A"], "id": 3.0}': "id is 3.0; expected a text or a whole number",
    '{"history": ["A"], "histry": []}': "'histry'; expected history, id, candidates, exclude_history, score; did you "
    "mean 'history'?",
    '{"history": ["\\ud800"]}': "history[0] is '\\ud800'; expected a title or an item id",
    "[" * 100_000: "recursion",
    "1" * 5000: "limit",
}


def test_bad_lines_are_named_counted_and_left_out(answer):
    lines = [line for bad in BAD for line in (bad, {"history": [TITLES[1]]})]
    said, found = answer(lines)
    assert [line["line"] for line in found] == list(range(2, 2 * len(BAD) + 1, 2))
    told = [line for line in said.splitlines() if line.startswith("left out: ")]
    for number, (line, message) in enumerate(zip(told, BAD.values(), strict=True)):
        assert f"in.jsonl line {2 * number + 1}: " in line
        assert message in line
    assert f"{len(BAD)} requests answered, {len(BAD)} lines left out" in said


def test_a_line_that_is_no_text_is_left_out(recommender, tmp_path, capsys):
    (tmp_path / "in.jsonl").write_bytes(b'{"history": ["\xff"]}\n')
    with pytest.raises(InputError, match=r"no line of --input=.*in.jsonl could be answered: the reasons are"):
        answers.answer_file(lambda: recommender, tmp_path / "in.jsonl", tmp_path / "out.jsonl", k=None)
    assert "line 1: 'utf-8' codec can't decode" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_blank_lines_are_skipped(answer):
    said, found = answer([*_requests(2), "", *_requests(1), " ", ""])
    assert [line["line"] for line in found] == [1, 2, 4]
    assert "3 requests answered, 0 lines left out" in said
    assert "0 requests answered, 0 lines left out" in answer([*_requests(2), "", *_requests(1), " ", ""])[0]


def test_of_many_bad_lines_ten_are_named_and_all_are_counted(answer):
    said, found = answer(["bad"] * 7 + _requests(2) + ["worse"] * 6)
    assert [line["line"] for line in found] == [8, 9]
    told = [line for line in said.splitlines() if line.startswith("left out: ")]
    assert len(told) == 11
    assert "line 12: " in told[9]
    assert told[10] == "left out: further lines, too; they are counted at the end"
    assert "2 requests answered, 13 lines left out" in said


def test_what_may_be_meant_is_looked_for_where_it_is_told(answer, monkeypatch):
    """A look through a large catalogue takes a second."""
    asked = []
    monkeypatch.setattr(suggest, "did_you_mean", lambda given, known: asked.append(given) or "; did you mean that?")
    said, _ = answer([*_requests(1), *({"history": TITLES[:1], "candidates": [f"My own {n}"]} for n in range(14))])
    assert said.count("which the catalogue does not have; did you mean that?") == len(asked) == 10
    assert "1 requests answered, 14 lines left out" in said


# ------------------------------------------------------------------------------------------------------------- going on
@pytest.mark.parametrize("share", [0.0, 0.03, 0.31, 0.5, 0.77, 0.999, 1.0])
def test_killed_in_any_line_it_goes_on_and_the_file_is_that_of_an_unbroken_run(answer, trained, tmp_path, share):
    longer = {"history": TITLES[:9]}  # its chunk needs more room than those that are answered after the kill
    requests = [longer, *_requests(4), "bad", *_requests(8)]
    answer(requests)
    out = tmp_path / "new" / "out.jsonl"
    whole = out.read_bytes()
    left = whole[: round(share * len(whole))]
    out.write_bytes(left)
    said, found = answer(requests, make=lambda: Recommender.load(trained))
    assert out.read_bytes() == whole
    assert len(found) == 13
    n_done = max((line["line"] for line in found[: left.count(b"\n")]), default=0) // CHUNK * CHUNK
    assert (f"going on after line {n_done} of" in said) == (n_done > 0)


def test_a_finished_file_of_whole_chunks_is_left_alone(answer, recommender, tmp_path, monkeypatch):
    answer(_requests(8))
    before = (tmp_path / "new" / "out.jsonl").read_bytes()
    monkeypatch.delattr(Recommender, "answer")  # as nothing is left to answer
    said, _ = answer(_requests(8))
    assert "going on after line 8 of" in said
    assert "0 requests answered" in said
    assert (tmp_path / "new" / "out.jsonl").read_bytes() == before


def test_requests_can_be_added(answer, tmp_path):
    answer(_requests(6))
    said, found = answer(_requests(9))
    assert [line["line"] for line in found] == list(range(1, 10))
    assert "going on after line 4 of" in said
    grown = (tmp_path / "new" / "out.jsonl").read_bytes()
    (tmp_path / "new" / "out.jsonl").unlink()
    answer(_requests(9))
    assert (tmp_path / "new" / "out.jsonl").read_bytes() == grown


# ------------------------------------------------------------------------------------------------------------- refusals
@pytest.mark.parametrize(
    "content",
    [
        "my thesis",
        "my thesis\n",
        '{"line": 1, "ranked": []}\nmy thesis\n',
        '{"line": 1, "ranked": []}\nmy thesis',
        '{"line": 2, "ranked": []}\n{"line": 1, "ranked": []}\n',
        '{"line": %s, "ranked": []}\n' % ("7" * 8600),
        '{"line": 1}\n',
        '{"history": ["A"]}\n',
        "\n",
    ],
)
def test_a_file_that_holds_no_answers_is_left_as_it_is(answer, tmp_path, content):
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "out.jsonl").write_text(content)
    with pytest.raises(InputError, match=r"out.jsonl holds something else than answers; name a file that is"):
        answer(_requests(2))
    assert (tmp_path / "new" / "out.jsonl").read_text() == content


@pytest.mark.parametrize("n", [3, 8])
def test_answers_to_more_lines_than_there_are(answer, tmp_path, n):
    answer(_requests(9))
    before = (tmp_path / "new" / "out.jsonl").read_bytes()
    with pytest.raises(InputError, match=rf"out.jsonl answers more lines than the {n} of .*in.jsonl; name another"):
        answer(_requests(n))
    assert (tmp_path / "new" / "out.jsonl").read_bytes() == before


def test_what_was_written_stays_until_there_is_more(answer, tmp_path):
    """A start that fails before it has answered anything takes nothing away."""
    answer(_requests(6))
    before = (tmp_path / "new" / "out.jsonl").read_bytes()

    def fails():
        raise InputError("there is no model")

    with pytest.raises(InputError, match="there is no model"):
        answer(_requests(6), make=fails)
    assert (tmp_path / "new" / "out.jsonl").read_bytes() == before


@pytest.mark.parametrize("n", [3, 6, 8], ids=["less than a chunk", "more", "whole chunks"])
def test_answers_of_another_run_or_length_are_not_mixed_in(answer, recommender, tmp_path, monkeypatch, n):
    requests = _requests(n)
    answer(requests)
    before = (tmp_path / "new" / "out.jsonl").read_bytes()
    with pytest.raises(InputError, match=r"out.jsonl holds answers of another run, of other settings or of another k"):
        answer(requests, k=1)
    monkeypatch.setattr(recommender, "trained", replace(recommender.trained, made_from="other weights"))
    with pytest.raises(InputError, match=r"would be mixed with these; name another file"):
        answer(requests)
    assert (tmp_path / "new" / "out.jsonl").read_bytes() == before


def test_answers_out_of_other_candidates_are_not_mixed_in(answer, trained, tmp_path):
    changes = {"decode.candidates": str(tmp_path / "candidates.txt")}

    def answer_from(*items: str) -> None:
        (tmp_path / "candidates.txt").write_text("\n".join(items))
        answer(_requests(6), make=lambda: Recommender.load(trained, changes))

    answer_from(*ITEM_IDS[:9])
    answer_from(*ITEM_IDS[8::-1])
    with pytest.raises(InputError, match=r"out.jsonl holds answers of another run"):
        answer_from(*ITEM_IDS[:8])


@pytest.mark.parametrize("n", [3, 6, 8], ids=["less than a chunk", "more", "whole chunks"])
@pytest.mark.parametrize("changed", [0, -1])
def test_answers_to_requests_that_have_changed_are_not_gone_on_with(answer, tmp_path, n, changed):
    requests = _requests(n)
    answer(requests)
    before = (tmp_path / "new" / "out.jsonl").read_bytes()
    requests[changed] = {"history": TITLES[:3]}
    with pytest.raises(InputError, match=rf"to other requests: the first {n} lines of .*in.jsonl are not those"):
        answer(requests + _requests(2))
    assert (tmp_path / "new" / "out.jsonl").read_bytes() == before


def test_answers_of_a_model_are_gone_on_with_wherever_it_lies_until_its_weights_change(answer, tiny, tmp_path):
    copy, workdir = shutil.copytree(tiny / "model", tmp_path / "copy"), Workdir(str(tmp_path / "run"))
    (weights := copy / "model.safetensors").touch()

    def answer_in_a_new_process(model: Path) -> str:
        remote._copied.cache_clear()
        config = tiny_config(tiny, {"data.dir": f"file://{tiny / 'data'}", "model.path": f"file://{model}"})
        return answer(_requests(6), make=lambda: Recommender(set_up_to_decode(config, workdir), workdir))[0]

    answer_in_a_new_process(tiny / "model")
    assert "going on after line 4 of" in answer_in_a_new_process(copy)
    arrays, before = load_file(weights), weights.stat()
    save_file(arrays | {"model.norm.weight": -arrays["model.norm.weight"]}, weights)
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert weights.stat().st_size == before.st_size
    with pytest.raises(InputError, match=r"out.jsonl holds answers of another run"):
        answer_in_a_new_process(copy)


@pytest.mark.parametrize("note", ["", "[]", "{}", '{"from": 1}', "made by an earlier version k=None\n"])
def test_answers_of_unknown_origin_are_not_gone_on_with(answer, tmp_path, note):
    answer(_requests(6))
    (tmp_path / "new" / ".out.jsonl.made_from").write_text(note)
    with pytest.raises(InputError, match=r"out.jsonl holds answers of another run"):
        answer(_requests(6))


def test_a_length_that_no_list_has_leaves_nothing_behind(answer, tmp_path):
    with pytest.raises(InputError, match="k is 9"):
        answer(_requests(2), k=9)
    assert not (tmp_path / "new").exists()


def test_a_folder_is_no_file_of_answers(answer, tmp_path):
    (tmp_path / "new" / "out.jsonl").mkdir(parents=True)
    with pytest.raises(InputError, match=r"out.jsonl is not a file; name one that does not exist yet"):
        answer(_requests(2))


def test_a_pipe_is_no_file_of_answers(recommender, tmp_path):
    (tmp_path / "in.jsonl").write_text("{}")
    ends = os.pipe()  # /dev/stdout may be one
    try:
        with pytest.raises(
            InputError, match=rf"--output=/dev/fd/{ends[1]} is not a file; name one that does not exist"
        ):
            answers.answer_file(lambda: recommender, tmp_path / "in.jsonl", f"/dev/fd/{ends[1]}", k=None)
    finally:
        for end in ends:
            os.close(end)


@pytest.mark.parametrize("link", [False, True])
def test_the_requests_are_never_overwritten(recommender, tmp_path, link):
    (tmp_path / "in.jsonl").write_text("{}")
    out = tmp_path / "in.jsonl"
    if link:
        out = tmp_path / "out.jsonl"
        os.link(tmp_path / "in.jsonl", out)
    with pytest.raises(InputError, match="is the file of requests itself; name another one"):
        answers.answer_file(lambda: recommender, tmp_path / "in.jsonl", out, k=None)


# ----------------------------------------------------------------------------------------------------- the command line
def test_on_the_command_line(trained, tmp_path):
    lines = [*(json.dumps(request) for request in _requests(3)), "bad"]
    (tmp_path / "in.jsonl").write_text("\n".join(lines), encoding="utf-8")
    files = (f"--input={tmp_path / 'in.jsonl'}", f"--output={tmp_path / 'out.jsonl'}")
    done = run_here(program, f"--workdir={trained}", *files, "--k=1")
    assert (done.code, done.err) == (0, "")
    found = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(line["line"], line["id"], len(line["ranked"])) for line in found] == [
        (i + 1, f"Löwe {i}", 1) for i in range(3)
    ]
    assert "3 requests answered, 1 lines left out, 0 notes" in done.out


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--input={in}"], "give --history, or --input=REQUESTS.jsonl with --output=FILE.jsonl, and not both"),
        (["--output={in}"], "give --history, or --input=REQUESTS.jsonl with --output=FILE.jsonl, and not both"),
        (["--input={in}", "--output={in}.out", "--history=A"], "and not both"),
        (["--input={in}.none", "--output={in}.out"], "does not exist; name a file with one request per line"),
        (["--input=/dev/null", "--output={in}.out"], "/dev/null is not a file; name a file with one request per line"),
        (["--input={in}", "--output={in}"], "is the file of requests itself; name another one"),
        (["--input={in}", "--output={in}.out", "--k=9"], "k is 9, but lists have a length of 4"),
    ],
)
def test_what_cannot_be_meant(trained, tmp_path, given, message):
    requests = tmp_path / "in.jsonl"
    requests.write_text(json.dumps(_requests(1)[0]))
    done = run_here(program, f"--workdir={trained}", *(word.replace("{in}", str(requests)) for word in given))
    assert done.code == 2
    (line,) = done.err.splitlines()
    assert message in line
    assert requests.read_text() == json.dumps(_requests(1)[0])
