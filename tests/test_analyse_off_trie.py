"""Figures about tokens of titles that are not candidates of training."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import tiny_run
from command import run_here
from evaluation_calls import N_TEST, columns_of

from igd_jax import analyse as program
from igd_jax import evaluate as evaluation
from igd_jax.core.io import Workdir, read_json
from igd_jax.data.prepared import load
from igd_jax.data.tokenizer import load_tokenizer
from igd_jax.session.analysis import Analysis, read_evaluated
from igd_jax.session.analysis_model import add_tokens


@pytest.fixture(scope="module")
def of_train(tiny, tmp_path_factory):
    """Analysis of random weights over a trie of train targets, on which no recommended title is; and its output."""
    workdir = tmp_path_factory.mktemp("of_train") / "run"
    changes = {"data.candidates": "train", "decode.candidates": "cold"}
    evaluation.evaluate(tiny_run.tiny_config(tiny, changes), Workdir(str(workdir)), name="test")
    done = run_here(program, f"--workdir={workdir}", "--max_examples=0", "--exact_examples=0")
    assert (done.code, done.err) == (0, "")
    return read_json(workdir / "analysis" / "test" / "analysis.json"), done.out


def test_targets_off_the_trie_are_counted_and_have_no_part_in_gain(tiny, of_train):
    told, printed = of_train
    prepared, tokenizer = load(tiny / "data"), load_tokenizer(tiny / "model")
    ids = {title: [*tokenizer.encode([title + "\n"])[0], tokenizer.eos] for title in prepared.titles}
    targets = [prepared.titles[item] for item in prepared.splits["test"].target]
    sold = Counter(prepared.titles[item] for item in prepared.splits["train"].target)
    on_trie = [ids[title] for title in targets if title in sold]
    p = {title: count / sold.total() for title, count in sold.items()}

    def below(start: list[int]) -> list[str]:
        return [title for title in sold if ids[title][: len(start)] == start]

    def left(start: list[int]) -> float:
        return -sum(p[title] * np.log(p[title]) for title in below(start))

    forced = sum(below(ids[:at]) == below(ids[: at + 1]) for ids in on_trie for at in range(len(ids)))
    truth, gain, entropy = told["tokens"]["truth"], columns_of(told, "gain_logp"), columns_of(told, "entropy")
    assert truth["titles_off_trie"] == N_TEST - len(on_trie) == tiny_run.ABSENT_IN_TEST
    assert (gain["group"][0], gain["n"][0]) == ("0", forced)
    assert sum(gain["n"]) == sum(map(len, on_trie))
    assert sum(gain["loss_share"]) == pytest.approx(1)
    assert truth["forced"] == pytest.approx(forced / len(on_trie))
    assert truth["tokens"] == pytest.approx(np.mean([len(ids[title]) for title in targets]))
    assert entropy["truth_n"][0] == N_TEST
    for at, found in enumerate(entropy["truth_left"]):
        there = [left(ids[:at]) for ids in on_trie if at < len(ids)]
        assert found == (pytest.approx(np.mean(there)) if there else None)
    assert f"{tiny_run.ABSENT_IN_TEST} of {N_TEST} titles are off the trie, and in no figure of gain" in printed


def test_recommended_titles_that_are_all_off_the_trie_have_no_forced_tokens(of_train):
    told, printed = of_train
    recommended, entropy = told["tokens"]["recommended"], columns_of(told, "entropy")
    assert (recommended["titles_off_trie"], recommended["forced"]) == (N_TEST, None)
    assert set(entropy["recommended_left"]) == {None}
    assert entropy["recommended_n"][0] == N_TEST
    [line] = [line for line in printed.splitlines() if line.startswith("recommended: ")]
    assert "without gain" not in line
    assert f"; {N_TEST} of {N_TEST} titles are off the trie" in line


def test_if_all_targets_are_off_the_trie_there_are_no_groups_of_gain(trained, plain):
    evaluated = read_evaluated(Workdir(str(trained)), "plain")
    walk = replace(evaluated.walk, on_trie=np.zeros_like(evaluated.walk.on_trie))
    add_tokens(found := Analysis(), replace(evaluated, walk=walk), max_examples=2)
    assert [figure.name for figure in found.figures] == ["entropy", "ghosts", "history"]
    assert found.left_out == ["gain_logp: all targets are off the trie (no candidate of training)"]


def test_queries_whose_list_has_no_item_are_left_out_and_told(trained, plain):
    evaluated = read_evaluated(Workdir(str(trained)), "plain")
    ranked = evaluated.lists.ranked.copy()
    ranked[0] = -1
    add_tokens(found := Analysis(), replace(evaluated, lists=replace(evaluated.lists, ranked=ranked)), max_examples=3)
    assert found.facts["tokens"]["queries"] == 2
    assert found.left_out == ["tokens, entropy, ghosts and history: 1 of 3 queries, whose list has no item"]
