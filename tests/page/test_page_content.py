"""What the page tells of the tiny run: equal to the files of its evaluations, and to what the engine finds."""

import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import tiny_run
from command import run_here
from evaluation_calls import N_TEST, read_written

from igd_jax import evaluate as evaluation
from igd_jax.compare import compare
from igd_jax.core import remote
from igd_jax.core.errors import InputError
from igd_jax.core.io import Workdir, read_json, write_json
from igd_jax.page import build, lists
from igd_jax.page.beams import N_BEAMS, beam_trees
from igd_jax.page.build import page_of
from igd_jax.page.facts import describe
from igd_jax.page.measured import read_measured
from igd_jax.page.render import render
from igd_jax.page.tokens import heat_map
from igd_jax.session.analysis import read_evaluated


# ------------------------------------------------------------------------------------------------------------- metrics
def test_evaluations_of_the_same_queries_stand_side_by_side_with_intervals(run, written):
    chosen = read_measured([str(run)], None)
    assert [each.label for each in chosen.main] == ["test"]
    assert [each.label for each in chosen.beside] == ["test", "sums"]
    for each in chosen.beside:
        assert each.metrics == written[each.label][1]
        assert each.intervals == {name: tuple(bounds) for name, bounds in each.metrics["intervals"].items()}
        for name, (low, high) in each.intervals.items():
            assert low <= each.metrics[name] <= high
        assert {"hr@3", "ndcg@3", "mrr"} <= each.intervals.keys()


def test_an_evaluation_of_other_queries_is_told_and_left_out(run, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(run / "eval" / "test", workdir / "eval" / "test")
    shutil.copytree(run / "eval" / "test", workdir / "eval" / "valid")
    config = read_json(path := workdir / "eval" / "valid" / "config.json")
    write_json(path, config | {"eval": config["eval"] | {"split": "valid"}})
    chosen = read_measured([str(workdir)], None)
    assert [each.label for each in chosen.beside] == ["test"]
    assert "valid is left out: test was evaluated on test, valid on valid" in chosen.apart[0]
    with pytest.raises(InputError, match="holds no evaluation 'other'; expected one of test, valid"):
        read_measured([str(workdir)], "other")


def test_an_evaluation_that_tells_no_intervals_is_shown_without_and_bad_ones_are_one_line(run, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(run / "eval" / "test", workdir / "eval" / "test")
    path = workdir / "eval" / "test" / "metrics.json"
    metrics = read_json(path)
    write_json(path, {name: value for name, value in metrics.items() if name != "intervals"})
    assert read_measured([str(workdir)], None).main[0].intervals == {}
    for bad in ([], {"mrr": 1}, {"mrr": [1]}, {"mrr": [1, "2"]}):
        write_json(path, metrics | {"intervals": bad})
        with pytest.raises(InputError, match="has no pairs of finite numbers as intervals"):
            read_measured([str(workdir)], None)


def test_a_single_evaluation_has_the_name_of_its_run(run, tmp_path, monkeypatch):
    shutil.copytree(run / "eval" / "sums", tmp_path / "shop" / "eval" / "sums")
    for inside, named in (("", "shop"), ("shop", "."), ("shop/eval", "sums"), ("shop/eval/sums", ".")):
        monkeypatch.chdir(tmp_path / inside)
        (main,) = read_measured([named], None).main
        assert (main.label, main.workdir.path) == ("shop", tmp_path / "shop")


def test_an_evaluation_that_is_named_twice_is_there_once(run, monkeypatch):
    monkeypatch.chdir(run.parent)
    for second, main in (("eval/test", ["test"]), ("eval/sums", ["test", "sums"])):
        chosen = read_measured([run.name, str(run / second)], None)
        assert [each.label for each in chosen.main] == main
        assert [each.label for each in chosen.beside] == ["test", "sums"]


def test_a_comparison_has_its_cautions_and_slices_of_few_queries_are_marked(page):
    comparison = compare([each.evaluation for each in page.beside])
    comparison["candidates"] = {"test": "catalogue", "sums": "<b>"}
    html = render(replace(page, comparison=comparison), "")
    for sentence in (
        "Candidates differ: catalogue (test), &lt;b&gt; (sums); metrics among different ones are not comparable",
        "Decoding differs (config.decode, in the order of the methods): alpha 0.2 / 0.",
        f"There are {comparison['n_users']} users, too few to tell a difference from chance, which takes 50.",
    ):
        assert sentence in html
    slices = page.beside[0].metrics["slices"]
    assert all(each["n"] < 50 for each in slices.values())
    assert html.count('<span class="soft">few</span>') == len(slices) == 5
    assert all(bar["few"] for bar in page.slices["data"]["values"])
    metrics = page.beside[0].metrics | {"slices": {name: each | {"n": 50} for name, each in slices.items()}}
    many = replace(page, beside=[replace(page.beside[0], metrics=metrics)])
    assert '<span class="soft">few</span>' not in render(many, "")


def test_the_run_in_sentences(run, written, monkeypatch):
    config = read_json(run / "eval" / "test" / "config.json")
    told = describe(config, written["test"][1], read_json(run / "env.json"), Workdir(str(run)))
    assert "23 items, rows 90 of train, 13 of valid, 22 of test" in told["Data"]
    assert "1 titles are shared" in told["Data"]
    assert "The method is igd (beta 0.1, " in told["Method"]
    assert "18 steps of 16 rows with the seed 42" in told["Training"]
    assert f"{N_TEST} rows of test (num_beams 4, alpha 0.2)" in told["Evaluation"]
    assert "Python 3." in told["Versions"]
    facts, config["data"]["dir"] = told["Data"], f"file://{config['data']['dir']}"
    assert describe(config, written["test"][1], {}, Workdir(str(run)))["Data"] == facts
    config["data"]["dir"], config["method"] = "gs://no-such-store", {"name": "sasrec", "args": {}}
    monkeypatch.setattr(remote, "_PATIENCE", "endpoint_override=localhost:1&scheme=http&retry_limit_seconds=1")
    told = describe(config, written["test"][1], {}, Workdir(str(run)))
    assert told["Data"] == "gs://no-such-store cannot be read now, so nothing is told of its data."
    assert "from random weights of a model of its own" in told["Method"]


# ----------------------------------------------------------------------------------------------------- users and items
def test_users_have_the_history_and_the_list_that_the_files_say(page, evaluated, written):
    (view,), (predictions, _) = page.runs, written["test"]
    rows, titles = evaluated.session.rows("test"), evaluated.session.prepared.titles
    assert len(view.users) == min(lists.N_USERS, N_TEST)
    for query, user in zip(view.queries, view.users, strict=True):
        line = predictions[query]
        assert user.history == [titles[item] for item in rows.history[line["row"]]]
        assert (user.name, user.target) == (line["user"], line["target"]["title"])
        right = [set(each["items"]) >= set(line["target"]["items"]) for each in line["ranked"]]
        assert [(title, hit) for title, _, hit in user.ranked] == [
            (each["title"], hit) for each, hit in zip(line["ranked"], right, strict=True)
        ]
        assert user.rank == (right.index(True) + 1 if any(right) else None)


def test_items_are_counted_in_lists_and_among_targets(page, written):
    items, metrics = page.runs[0].items, written["test"][1]
    assert items["n_left_out"] == 0
    counts = np.array([row[2:] for row in items["rows"]])
    assert counts.sum(axis=0).tolist() == [90, 3 * N_TEST, N_TEST, round(metrics["hr@3"] * N_TEST)]


def test_a_long_catalogue_is_cut_to_what_occurs_most(evaluated, monkeypatch):
    monkeypatch.setattr(lists, "MOST_ITEMS", 300)
    cut = lists.searched_items(evaluated)
    assert 0 < cut["n_left_out"] < 22
    assert len(cut["rows"]) + cut["n_left_out"] == 22
    occurs = [row[3] + row[4] for row in cut["rows"]]
    assert occurs == sorted(occurs, reverse=True)


# --------------------------------------------------------------------------------------------------------------- model
def titles_of(node, *, plain: bool, before: str = "") -> list[tuple[int, str, float]]:
    """Rank, title and score of the ends of titles in a tree."""
    text = before + node.text
    rank, score = (node.plain_rank, node.plain) if plain else (node.rank, node.score)
    own = [(rank, text.removesuffix("⏎"), score)] if rank is not None else []
    return own + [each for child in node.children for each in titles_of(child, plain=plain, before=text)]


def assert_ends_are(tree, expected: list[dict], *, plain: bool = False) -> None:
    """The ends of titles in a tree are a list of predictions.jsonl."""
    found = sorted(titles_of(tree, plain=plain))
    ranks = [(rank, each["title"]) for rank, each in enumerate(expected, start=1)]
    assert [(rank, title) for rank, title, _ in found] == ranks
    np.testing.assert_allclose([score for *_, score in found], [each["score"] for each in expected], atol=1e-4)


@pytest.mark.parametrize(("name", "plain"), [("test", False), ("sums", True)])
def test_the_ends_of_a_tree_are_the_list_of_the_evaluation(page, written, name, plain):
    (view,) = page.runs
    assert len(view.trees) == N_BEAMS
    for tree, query in zip(view.trees, view.queries, strict=False):
        assert_ends_are(tree, written[name][0][query]["ranked"], plain=plain)


@pytest.mark.slow
def test_a_tree_has_the_candidates_and_the_source_of_the_evaluation(run):
    options = ("--decode_as=d3", "--config.decode.collaborative=popularity", "--config.decode.exclude_history=true")
    assert run_here(evaluation, f"--workdir={run}", "--name=mixed", *options).code == 0
    predictions, _ = read_written(run, "mixed")
    trees = beam_trees(read_evaluated(Workdir(str(run)), "mixed"))
    shutil.rmtree(run / "eval" / "mixed")
    for tree, query in zip(trees, lists.chosen_queries(N_TEST), strict=False):
        assert_ends_are(tree, predictions[query]["ranked"])


def test_tokens_have_gain_weight_and_log_probability(page, evaluated, written):
    heat, walk, tokens = page.runs[0].heat, evaluated.walk, evaluated.session.index.item_tokens
    predictions, view = written["sums"][0], page.runs[0]
    ids = evaluated.session.prepared.item_ids
    for title, query in zip(heat.titles, view.queries, strict=True):
        target = predictions[query]["target"]["items"][0]
        item = ids.index(target)
        own = slice(tokens.start[item], tokens.start[item + 1])
        assert title.on_trie
        assert [token.gain for token in title.tokens] == walk.gain[own].tolist()
        assert [token.weight for token in title.tokens] == pytest.approx(np.where(walk.forced[own], 0.1, 1.0))
        for result in predictions[query]["ranked"]:
            if target in result["items"]:
                assert sum(token.after for token in title.tokens) == pytest.approx(result["score"], abs=1e-4)
        assert all(0 <= shade <= 1 for token in title.tokens for shade in token.shades.values())
    assert title.tokens[-1].text == "end"
    assert heat.n_queries == N_TEST
    assert all(after > before for before, after in zip(heat.by_gain["before"], heat.by_gain["after"], strict=True))


def test_a_title_off_the_trie_has_no_forced_tokens_but_says_that_it_is_off_it(page, evaluated):
    """Two targets were sold to nobody."""
    session = evaluated.session
    index = session.index.with_candidates(session.index.counts > 0)
    of_sold = replace(evaluated, session=replace(session, index=index), walk=index.walk())
    heat = heat_map(of_sold, max_examples=0)
    assert heat.n_queries == N_TEST - tiny_run.ABSENT_IN_TEST
    lengths, targets = index.item_tokens.lengths, session.rows("test").target
    assert sum(heat.by_gain["n"]) == lengths[targets[index.counts[targets] > 0]].sum()
    (view,), sold = page.runs, {session.prepared.titles[item] for item in session.rows("train").target.tolist()}
    assert [title.on_trie for title in heat.titles] == [user.target in sold for user in view.users]
    assert {title.on_trie for title in heat.titles} == {True, False}
    html = render(replace(page, runs=[replace(view, heat=heat)]), "")
    shown = [line for line in html.splitlines() if line.startswith('<li><span class="token')]
    assert len(shown) == len(heat.titles)
    for line, title in zip(shown, heat.titles, strict=True):
        assert ("off the trie" in line) == (not title.on_trie)
        n_deciding = sum(not token.forced for token in title.tokens) if title.on_trie else 0
        assert line.count('class="token deciding') == n_deciding
        gains = re.findall(r'data-channel="gain">([^<]*)<', line)
        assert all((gain == "–") == (not title.on_trie) for gain in gains)


def test_a_figure_for_which_no_target_is_on_the_trie_is_told_to_be_left_out(run, evaluated, monkeypatch):
    walk = replace(evaluated.walk, on_trie=np.zeros_like(evaluated.walk.on_trie))
    monkeypatch.setattr(build, "read_evaluated", lambda *_: replace(evaluated, walk=walk))
    page = page_of(read_measured([str(run)], None), None, with_model=True, max_examples=2)
    assert page.runs[0].heat.by_gain["before"] == [None, None]
    assert "Left out: gain_logp: all targets are off the trie (no candidate of training)." in render(page, "")


def test_without_weights_or_data_the_page_says_what_is_left_out(run, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(run, workdir, ignore=shutil.ignore_patterns("checkpoints"))
    (view,) = page_of(read_measured([str(workdir)], None), None, with_model=True, max_examples=4).runs
    assert view.left_out.keys() == {"heat", "beam"}
    assert "has no checkpoint yet" in view.left_out["heat"]
    assert view.items is not None
    assert [panel.name for panel in view.analyses] == ["data", "gain"]
    for path in workdir.rglob("config.json"):
        config = read_json(path)
        write_json(path, config | {"data": config["data"] | {"dir": str(tmp_path / "gone")}})
    (view,) = page_of(read_measured([str(workdir)], None), None, with_model=True, max_examples=4).runs
    assert "gone" in view.left_out["data"]
    assert view.users[0].history is None
    assert view.users[0].ranked
