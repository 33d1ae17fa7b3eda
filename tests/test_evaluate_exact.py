"""Evaluations with an exact ranking, beside a beam, and of what may be recommended to each row."""

import json
import re

import numpy as np
import pytest
import tiny_run
from command import run_here
from evaluation_calls import N_TEST, read_written, titles_of
from tiny_run import ITEM_IDS, TITLES

from igd_jax import evaluate as program
from igd_jax.core.errors import InputError
from igd_jax.core.io import Workdir
from igd_jax.core.log import say_once
from igd_jax.data.prepared import load

NARROW = {"decode.num_beams": 1, "eval.ks": (1,)}


def test_the_misses_of_a_beam_are_those_beside_the_exact_lists(tiny, trained, evaluate, monkeypatch):
    told = []
    monkeypatch.setattr(program, "evaluation_table", lambda _, **how: told.append(how) or "")
    done = run_here(program, f"--workdir={trained}", "--name=beam", "--beam_misses=0")
    assert (done.code, done.err) == (0, "")
    beam, metrics = read_written(trained, "beam")
    exact, _ = evaluate("exact", {"decode.search": "exact", **NARROW, "decode.top_k": 4})
    assert [how["has_beam"] for how in told] == [True, False]
    assert {how["n_candidates"] for how in told} == {len(set(TITLES))}
    ours, theirs = titles_of(beam), titles_of(exact)
    misses = metrics["beam_misses"]
    assert misses.pop("queries") == N_TEST
    expected = {}
    for k in (1, 3):
        lacking = np.array([len(set(e[:k]) - set(b[:k])) / k for b, e in zip(ours, theirs, strict=True)])
        expected |= {f"lists@{k}": (lacking > 0).mean(), f"results@{k}": lacking.mean()}
    assert misses == pytest.approx(expected)
    assert f"the beam beside an exact ranking: {{'queries': {N_TEST}" in done.out


def test_a_number_of_queries_below_0_is_refused(trained):
    done = run_here(program, f"--workdir={trained}", "--name=none", "--beam_misses=-3")
    assert (done.code, len(done.err.splitlines())) == (2, 1)


@pytest.mark.parametrize("option", ["--beam_misses=2", "--config.decode.search=exact"])
def test_candidates_that_are_too_long_to_be_ranked_exactly_are_counted(trained, option):
    say_once.cache_clear()
    done = run_here(program, f"--workdir={trained}", "--name=long", "--config.decode.max_new_tokens=7", option)
    assert (done.code, done.err) == (0, "")
    (line,) = (line for line in done.out.splitlines() if "are longer than" in line)
    told = (
        rf"[1-9]\d* of {len(set(TITLES))} candidates are longer than config.decode.max_new_tokens=7 and are not ranked"
    )
    assert re.fullmatch(told, line)


@pytest.mark.parametrize("option", ["--beam_misses=0", "--config.decode.search=exact"])
def test_titles_that_are_all_too_long_cannot_be_ranked_exactly(trained, option):
    done = run_here(program, f"--workdir={trained}", "--name=none", "--config.decode.max_new_tokens=1", option)
    assert (done.code, len(done.err.splitlines())) == (2, 1)
    assert "config.decode.max_new_tokens is 1, but the shortest title has" in done.err


def test_without_a_beam_there_are_no_misses(trained, sasrec_run):
    for workdir, more in ((trained, ["--config.decode.search=exact"]), (sasrec_run, [])):
        done = run_here(program, f"--workdir={workdir}", "--name=none", "--beam_misses=4", *more)
        assert done.code == 2
        assert "--beam_misses compares a beam over the trie with an exact ranking, but these lists come" in done.err
        assert "set config.decode.search to jump or stepwise, for a method that searches the trie" in done.err


def test_each_row_is_recommended_what_is_allowed_and_not_in_its_history(tiny, trained, evaluate, tmp_path):
    rows = load(tiny / "data").splits["test"]
    rng = np.random.default_rng(0)
    lists = [None if row % 5 == 0 else [ITEM_IDS[i] for i in rng.choice(19, 8, replace=False)] for row in range(N_TEST)]
    (tmp_path / "allowed.jsonl").write_text("".join(f"{json.dumps(names)}\n" for names in lists))
    changes = {"decode.allowed": str(tmp_path / "allowed.jsonl"), "decode.exclude_history": True}
    predictions, metrics = evaluate("allowed", changes)
    n_not_allowed = 0
    for row, (names, found) in enumerate(zip(lists, titles_of(predictions), strict=True)):
        may = {TITLES[ITEM_IDS.index(name)] for name in (names or ITEM_IDS)}
        may -= {TITLES[item] for item in rows.history[row]}
        assert len(found) == min(4, len(may))
        assert set(found) <= may
        n_not_allowed += TITLES[rows.target[row]] not in may
    assert metrics["n"] == N_TEST
    assert metrics["target_not_allowed"] == n_not_allowed > 0


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (['["sku1"]'] * 3, f"has 3 lines; expected one for each of the {N_TEST} rows of the split"),
        (["{"] * N_TEST, "line 1: .* expected a JSON list of titles or item ids"),
        (["null", "[1]"] * N_TEST, r"line 2\[0\] is 1; expected a title or an item id"),
        (
            ["null", '["sku99"]'] * (N_TEST // 2),
            "row 1: a request names the candidate 'sku99', which the catalogue does",
        ),
        (["null", "[]"] * (N_TEST // 2), "row 1: a request leaves nothing to recommend"),
    ],
)
def test_a_file_that_does_not_fit_the_rows(tiny, trained, tmp_path, lines, message):
    (tmp_path / "allowed.jsonl").write_text("\n".join(lines))
    config = tiny_run.tiny_config(tiny, {"decode.allowed": str(tmp_path / "allowed.jsonl")})
    with pytest.raises(InputError, match=message):
        program.score(config, Workdir(str(trained)))
