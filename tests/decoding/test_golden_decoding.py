"""The authors' own decoding runs, title by title: alpha, length penalty and temperature on a small trained model.

In every clone a table of the model's log-probabilities takes its place (docs/golden.md).
"""

import ast
import csv
import json
from typing import NamedTuple

import jax
import numpy as np
import pytest
from batches import text_batch
from golden_figures import books_index, golden_arrays, golden_figures
from plain_trie import lists_of
from table_search import search
from tiny_run import context_of, decode_options

from igd_jax.core.types import Recommendations
from igd_jax.data.prompts import render
from igd_jax.data.templates import filled
from igd_jax.data.tokenizer import Tokenizer, load_tokenizer
from igd_jax.decoding.device_trie import device_trie
from igd_jax.decoding.engine import recommend
from igd_jax.decoding.rebalancing import rebalanced
from igd_jax.decoding.recurrence import SearchOptions
from igd_jax.decoding.search import JUMP, STEPWISE
from igd_jax.items.index import ItemIndex, build_index
from igd_jax.methods import load_method
from igd_jax.models.decoder_weights import load_decoder

N_RUNS = 6
MAX_NEW_TOKENS = 72


class Golden(NamedTuple):
    """What the authors' code was given and what it found, and the same made ready for ours."""

    prompts: list[list[int]]
    runs: list[dict]
    test_rows: list[dict]
    tokenizer: Tokenizer
    index: ItemIndex
    found: list[Recommendations]


@pytest.fixture(scope="module", params=[JUMP, pytest.param(STEPWISE, marks=pytest.mark.slow)])
def golden(shared, request) -> Golden:
    folder, model_folder = shared / "golden" / "igd_amazon_books", shared / "models" / "tiny-qwen2-books"
    given = json.loads((folder / "igd_decoding.json").read_text(encoding="utf-8"))
    frequency = json.loads((folder / "item_frequency.json").read_text(encoding="utf-8"))
    with (folder / "test_rows.csv").open(encoding="utf-8", newline="") as file:
        test_rows = list(csv.DictReader(file))
    tokenizer = load_tokenizer(model_folder)
    titles = list(frequency)
    index = build_index(
        titles,
        tokenizer.encode_titles(titles),
        np.array(list(frequency.values())),
        candidates=np.ones(len(titles), bool),
    )
    model, method = load_decoder(model_folder), load_method("igd", {})
    context = context_of(index, tokenizer=tokenizer)
    found = []
    for run in given["runs"]:
        assert run["max_new_tokens"] == MAX_NEW_TOKENS
        options = decode_options(
            index,
            alpha=run["alpha"],
            temperature=run["temperature"],
            length_penalty=run["length_penalty"],
            num_beams=run["num_beams"],
            max_length=min(MAX_NEW_TOKENS, index.longest),
            search=request.param,
        )
        engine = method.engine(context, model, options)
        found.append(jax.tree.map(np.asarray, recommend(engine, text_batch(given["prompts"]))))
    return Golden(given["prompts"], given["runs"], test_rows, tokenizer, index, found)


def assert_list(found: list, scores: np.ndarray, theirs: list, their_scores: list[float]) -> None:
    """The published titles in their order; those whose scores differ by less than 1e-5 may swap."""
    score_of = dict(zip(theirs, their_scores, strict=True))
    assert sorted(found) == sorted(score_of)
    np.testing.assert_allclose([score_of[title] for title in found], their_scores, rtol=0, atol=1e-5)
    np.testing.assert_allclose(scores, their_scores, rtol=0, atol=1e-4)


@pytest.mark.parametrize("number", range(N_RUNS))
def test_a_table_of_the_model_gives_the_authors_lists(number):
    index, run = books_index(), golden_figures("igd")["runs"][number]
    score = rebalanced(index.gain, alpha=run["alpha"], temperature=run["temperature"])
    options = SearchOptions(run["num_beams"], min(run["max_new_tokens"], index.longest), run["length_penalty"])
    found = search(device_trie(index.trie), golden_arrays("igd")["edge_logp"], score, options)
    for row, titles in enumerate(run["titles"]):
        theirs = index.catalog.row_of_item[titles].tolist()
        assert_list(found.rows[row].tolist(), found.scores[row], theirs, run["scores"][row])


def test_golden_prompts_are_the_igd_template_over_the_histories(golden):
    words = filled("igd", category="books")
    pieces = [render(words, ast.literal_eval(row["history_item_title"])) for row in golden.test_rows]
    assert lists_of(golden.tokenizer.encode_prompts(pieces)) == golden.prompts


@pytest.mark.parametrize("number", range(N_RUNS))
def test_golden_titles_come_in_the_authors_order_with_their_scores(golden, number):
    run, ranked = golden.runs[number], golden.found[number]
    assert len(golden.runs) == N_RUNS
    for row, expected in enumerate(run["results"]):
        titles = [golden.index.title_of_row(r) for r in ranked.rows[row].tolist()]
        assert_list(titles, ranked.scores[row], expected["titles"], expected["scores"])


@pytest.mark.parametrize("number", range(N_RUNS))
def test_golden_titles_are_written_in_the_authors_tokens(golden, number):
    eos = golden.tokenizer.eos
    for row, expected in enumerate(golden.runs[number]["results"]):
        tokens_of = dict(zip(expected["titles"], expected["tokens"], strict=True))
        for r in golden.found[number].rows[row].tolist():
            tokens = tokens_of[golden.index.title_of_row(r)]
            assert golden.index.catalog.tokens[r].tolist() == tokens[: tokens.index(eos) + 1]
