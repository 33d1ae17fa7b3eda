"""Titles as identifiers, and what chooses identifiers by name."""

import json
from pathlib import Path

import numpy as np
import pytest
from plain_trie import lists_of
from tiny_run import ITEM_IDS, TITLES, tiny_config

from igd_jax.core.errors import InputError
from igd_jax.core.io import Workdir
from igd_jax.data.tokenizer import Tokenizer, train_tokenizer
from igd_jax.evaluate import evaluate
from igd_jax.identifiers.base import Source, identifier_names, identifiers_class
from igd_jax.identifiers.titles import Titles
from igd_jax.recommend import recommend
from igd_jax.train import train

TOKENIZER = train_tokenizer(TITLES, vocab_size=300)


def source(cache: Path, titles: list[str] = TITLES) -> Source:
    return Source(ITEM_IDS, titles, {}, TOKENIZER, cache)


def test_a_title_is_its_words_a_newline_and_eos_and_stands_in_a_history_without_eos(tmp_path):
    titles = Titles(source(tmp_path / "cache"))
    assert titles.texts == TITLES
    assert titles.vocab_size == TOKENIZER.vocab_size
    rows, mentions = titles.rows(), titles.mentions()
    assert len(rows) == len(mentions) == len(TITLES)
    for item, title in enumerate(TITLES):
        assert rows[item].tolist() == [*mentions[item].tolist(), TOKENIZER.eos]
        assert TOKENIZER.decode(mentions[item].tolist()) == title + "\n"
        assert TOKENIZER.eos not in mentions[item]


def test_rows_are_kept_on_disk_for_just_these_titles(tmp_path):
    first = Titles(source(tmp_path / "cache")).rows()
    (kept,) = (tmp_path / "cache").iterdir()
    written = kept.stat().st_mtime_ns
    again = Titles(source(tmp_path / "cache")).rows()
    np.testing.assert_array_equal(again.ids, first.ids)
    np.testing.assert_array_equal(again.start, first.start)
    assert kept.stat().st_mtime_ns == written
    Titles(source(tmp_path / "cache", [*TITLES[:-1], "another"])).rows()
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_identifiers_are_the_modules_of_their_folder():
    assert identifier_names() == ["titles"]
    assert identifiers_class("titles") is Titles
    with pytest.raises(InputError, match=r"^config.identifiers.name is 'codes'; expected one of titles$"):
        identifiers_class("codes")


def test_a_t5_writes_titles(tiny: Path, t5_folder: Path, tmp_path: Path):
    config, workdir = tiny_config(tiny, {"model.path": str(t5_folder)}), Workdir(str(tmp_path / "run"))
    config.method = {"name": "sft", "args": {}}
    assert train(config, workdir)["best_step"] > 6  # the loss of valid falls
    metrics = evaluate(config, workdir, name="test")
    assert metrics["invalid"] == 0
    lines = (workdir.eval("test") / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    for result in (result for line in lines for result in json.loads(line)["ranked"]):
        assert TOKENIZER.decode(result["tokens"]) == result["title"] + "\n"
        assert {TITLES[ITEM_IDS.index(item)] for item in result["items"]} == {result["title"]}
    answer = recommend(config, workdir, [TITLES[4], "a title of my own"], k=2)
    assert len(answer.results) == 2
    assert answer.notes == (
        "'a title of my own' is neither a title nor an item of the catalogue; the model reads it as plain text",
    )


def test_titles_are_tokenised_once_and_other_titles_anew(tmp_path, monkeypatch):
    calls = []
    encode = Tokenizer.encode_titles
    monkeypatch.setattr(Tokenizer, "encode_titles", lambda self, titles: calls.append(titles) or encode(self, titles))
    (tmp_path / "run").mkdir()
    for titles in (TITLES, TITLES, TITLES[::-1]):
        found = Titles(source(tmp_path / "run" / "cache", titles))
        assert lists_of(found.rows()) == lists_of(encode(TOKENIZER, titles))
        found.mentions()
    assert calls == [TITLES, TITLES[::-1]]


def test_another_tokenizer_does_not_get_the_ids_of_the_first(tmp_path):
    (tmp_path / "run").mkdir()
    rows = []
    for size in (257, 300):
        tokenizer = train_tokenizer(TITLES, vocab_size=size)
        rows.append(Titles(Source(ITEM_IDS, TITLES, {}, tokenizer, tmp_path / "run" / "cache")).rows())
    assert lists_of(rows[0]) != lists_of(rows[1])


def test_a_run_that_has_no_folder_yet_gets_none(tmp_path):
    Titles(source(tmp_path / "run" / "cache")).rows()
    assert not (tmp_path / "run").exists()
