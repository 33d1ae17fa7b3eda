"""One history in, a ranked list out: for people as a table, for programs as JSON and nothing else."""

import json

import pytest
import tiny_run
from command import Done, run_here, run_process

from igd_jax import recommend as program
from igd_jax.core.errors import InputError
from igd_jax.core.io import Workdir
from igd_jax.data.prepared import load
from igd_jax.evaluate import evaluate

HISTORY = [tiny_run.TITLES[4], tiny_run.TITLES[5]]


@pytest.fixture(scope="module")
def ask(trained):
    """Run the program in this process, over the trained run."""

    def run(*arguments: str, history: list[str] = HISTORY) -> Done:
        return run_here(program, f"--workdir={trained}", *(f"--history={title}" for title in history), *arguments)

    return run


def test_json_is_all_that_standard_output_holds(trained, ask):
    done = run_process(
        "recommend", f"--workdir={trained}", *(f"--history={title}" for title in HISTORY), "--k=3", "--json"
    )
    assert done.code == 0
    found = json.loads(done.out)
    assert [list(result) for result in found] == [["items", "title", "score", "tokens"]] * 3
    assert "checkpoint of step 18" in done.err
    again = json.loads(ask("--k=3", "--json").out)
    assert [result["title"] for result in again] == [result["title"] for result in found]


def test_the_list_is_that_of_the_evaluation_of_the_same_history(tiny, trained, ask):
    rows = load(tiny / "data").splits["test"]
    evaluate(tiny_run.tiny_config(tiny, {"eval.max_examples": 1}), Workdir(str(trained)), name="one")
    (line,) = (trained / "eval" / "one" / "predictions.jsonl").read_text().splitlines()
    found = json.loads(ask("--k=4", "--json", history=[tiny_run.TITLES[item] for item in rows.history[0]]).out)
    expected = json.loads(line)["ranked"]
    assert [result.pop("score") for result in found] == pytest.approx([r.pop("score") for r in expected], abs=1e-4)
    assert found == expected


def test_the_table_holds_rank_score_items_and_title(ask):
    done = ask("--k=2")
    assert (done.code, done.err) == (0, "")
    *_, head, _, first, second, score = done.out.splitlines()
    assert [cell.strip() for cell in head.strip("|").split("|")] == ["rank", "score", "items", "title"]
    assert [line.split("|")[1].strip() for line in (first, second)] == ["1", "2"]
    assert first.split("|")[4].strip() in tiny_run.TITLES
    assert score.startswith("score: log-probability of the title, ")


def test_candidates_can_be_named_and_the_history_left_out(ask):
    wanted = [HISTORY[0], tiny_run.ITEM_IDS[9], tiny_run.TITLES[8]]
    done = ask("--json", "--exclude_history", *(f"--candidate={name}" for name in wanted))
    assert {result["title"] for result in json.loads(done.out)} == {tiny_run.TITLES[9], tiny_run.TITLES[8]}


def test_scores_of_titles_are_told_in_the_order_given(ask):
    found = json.loads(ask("--json", "--k=2").out)
    again = json.loads(ask("--json", *(f"--score={result['title']}" for result in reversed(found))).out)
    assert [result["title"] for result in again] == [result["title"] for result in reversed(found)]
    scores = [[result["score"] for result in results] for results in (reversed(found), again)]
    assert scores[0] == pytest.approx(scores[1], abs=1e-4)


@pytest.mark.parametrize("option", ["--exclude_history", "--json"])
def test_options_of_one_request_are_not_those_of_a_file(trained, tmp_path, option):
    files = (f"--input={tmp_path / 'in.jsonl'}", f"--output={tmp_path / 'out.jsonl'}")
    done = run_here(program, f"--workdir={trained}", *files, option)
    assert done.code == 2
    assert "error: --candidate, --exclude_history, --score and --json are of --history; a file of" in done.err


def test_an_unknown_title_is_noted_and_read_as_text(ask):
    done = ask("--k=1", "--json", history=["A title of my own", HISTORY[0]])
    assert done.code == 0
    assert len(json.loads(done.out)) == 1
    notes = [line for line in done.err.splitlines() if line.startswith("note:")]
    assert notes == [
        "note: 'A title of my own' is neither a title nor an item of the catalogue; the model reads it as plain text"
    ]


def test_a_history_that_is_too_long_is_cut_and_that_is_told(ask):
    done = ask("--k=1", "--json", history=[f"Title number {number}" for number in range(100)])
    assert done.code == 0
    assert "note: the history is cut to its newest items: over 503 tokens in the prompt" in done.err


@pytest.mark.parametrize("k", [0, 5])
def test_a_list_longer_than_the_beams_is_bad_input(tiny, trained, k):
    with pytest.raises(
        InputError, match=rf"k is {k}, but lists have a length of 4; give 1 to 4, or raise config.decode.num_beams"
    ):
        program.recommend(tiny_run.tiny_config(tiny), Workdir(str(trained)), HISTORY, k=k)


def test_no_history_is_bad_input(tiny, trained):
    with pytest.raises(InputError, match="no --history is given"):
        program.recommend(tiny_run.tiny_config(tiny), Workdir(str(trained)), [], k=1)


def test_a_length_has_no_meaning_for_scores(ask):
    done = ask("--k=2", f"--score={HISTORY[0]}")
    assert done.code == 2
    assert "--k is the length of a list, and --score asks for the scores of given titles; leave one out" in done.err


def test_lists_for_the_rows_of_a_split_are_not_for_new_histories(ask, tmp_path):
    (tmp_path / "allowed.jsonl").write_text("null\n")
    done = ask(f"--config.decode.allowed={tmp_path / 'allowed.jsonl'}")
    assert done.code == 2
    assert "has lists for the rows of a split only; set it to '', and give a request candidates of its own" in done.err
