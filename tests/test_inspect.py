"""The gain of each token of a title: ours against the published numbers, and how it is printed."""

import json

import pytest
import tiny_run
from command import Done, run_here, run_process

from igd_jax import inspect as program
from igd_jax.data.tokenizer import load_tokenizer

TITLE = tiny_run.TITLES[5]


@pytest.fixture
def look(tiny):
    """Run the program in this process."""

    def run(*arguments: str) -> Done:
        return run_here(program, f"--data={tiny / 'data'}", f"--tokenizer={tiny / 'model'}", *arguments)

    return run


def test_json_holds_each_token_with_gain_forced_mark_and_weight(tiny):
    done = run_process(
        "inspect",
        f"--data={tiny / 'data'}",
        f"--tokenizer={tiny / 'model'}",
        f"--title={TITLE}",
        "--beta=0.3",
        "--json",
    )
    assert (done.code, done.err) == (0, "")
    found = json.loads(done.out)
    assert found["title"] == TITLE
    assert [list(token) for token in found["tokens"]] == [["id", "text", "gain", "forced", "weight"]] * len(
        found["tokens"]
    )
    tokenizer = load_tokenizer(tiny / "model")
    assert [token["id"] for token in found["tokens"]] == tokenizer.encode_titles([TITLE])[0].tolist()
    assert "".join(token["text"] for token in found["tokens"]) == TITLE + "\n<|endoftext|>"
    for token in found["tokens"]:
        assert token["forced"] == (token["gain"] == 0)
        assert token["weight"] == (0.3 if token["forced"] else 1.0)
    assert found["tokens"][0]["gain"] > 0
    assert found["tokens"][-1]["forced"] is True


def test_a_prompt_with_quotes_has_them_in_the_tokens_and_not_in_the_title(look):
    found = json.loads(look(f"--title={TITLE}", "--prompt=d3", "--json").out)
    assert (found["title"], found["on_trie"]) == (TITLE, True)
    assert "".join(token["text"] for token in found["tokens"]) == f'"{TITLE}"\n<|endoftext|>'
    assert [token["forced"] for token in found["tokens"]][:2] == [True, False]


def test_the_table_is_for_people(look):
    done = look(f"--title={TITLE}")
    head, _, *rows = done.out.splitlines()
    assert [cell.strip() for cell in head.strip("|").split("|")] == ["token", "id", "gain (nats)", "forced", "weight"]
    assert len(rows) == len(json.loads(look(f"--title={TITLE}", "--json").out)["tokens"])
    assert rows[0].split(" | ")[3].strip() == ""
    assert rows[-1].split(" | ")[3].strip() == "forced"


def test_a_title_off_the_trie_weighs_beta_throughout_and_that_is_told(look):
    cold = tiny_run.TITLES[tiny_run.N_SOLD]
    done = look(f"--title={cold}", "--candidates=train")
    assert f"{cold!r} is not a candidate of training, so none of its tokens has a gain" in done.out
    found = json.loads(look(f"--title={cold}", "--candidates=train", "--json").out)
    assert found["on_trie"] is False
    assert {token["weight"] for token in found["tokens"]} == {0.1}
    assert json.loads(look(f"--title={cold}", "--json").out)["on_trie"] is True


def test_an_empty_title_is_bad_input(look):
    done = look("--title= ")
    assert (done.code, done.out) == (2, "")
    assert done.err == "error: --title is empty; give the title as it stands in the catalogue\n"


@pytest.mark.parametrize("beta", ["nan", "inf", "-0.1", "1.5"])
def test_a_beta_that_is_no_weight_is_bad_input(look, beta):
    done = look(f"--title={TITLE}", f"--beta={beta}")
    assert (done.code, done.out) == (2, "")
    assert done.err == f"error: --beta is {float(beta)}; expected a weight from 0 to 1\n"


def test_gains_equal_the_published_ones(shared, books):
    golden = json.loads((shared / "golden/igd_amazon_books/information_gain.json").read_text(encoding="utf-8"))
    for item in golden["items"][7:9]:
        done = run_here(
            program,
            *(f"--data={books}", f"--tokenizer={shared / 'models/tiny-qwen2-books'}"),
            *(f"--title={item['title']}", "--candidates=train", "--json"),
        )
        tokens = json.loads(done.out)["tokens"]
        assert [token["id"] for token in tokens] == item["tokens"]
        assert [token["gain"] for token in tokens] == pytest.approx(item["information_gain"], rel=1e-9, abs=0)


def test_json_is_all_that_standard_output_holds_where_data_are_copied(tiny):
    given = (f"--data=file://{tiny / 'data'}", f"--tokenizer={tiny / 'model'}", f"--title={TITLE}")
    done = run_process("inspect", *given, "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["title"] == TITLE
    assert "copied 5 files" in done.err
