"""Figures about evaluations of tiny runs, from the command line to files."""

import csv
import re
import shutil
from collections import Counter
from dataclasses import asdict

import numpy as np
import pytest
import tiny_run
from command import one_line, run_here
from evaluation_calls import N_TEST, columns_of, read_written, scores_of, titles_of

from igd_jax import analyse as program
from igd_jax import evaluate as evaluation
from igd_jax.core.io import MARK, Workdir, read_json, write_json
from igd_jax.data.prepared import load
from igd_jax.data.tokenizer import load_tokenizer
from igd_jax.evaluation.choice import Choice
from igd_jax.settings.config_flags import load_config

OF_ANY = {"data", "gain", "training", "lists", "users", "histories", "items"}
OF_TEXT = OF_ANY | {"gain_logp", "entropy", "ghosts", "history", "exact"}
DRAWN = OF_TEXT - {"data"}


@pytest.fixture(scope="module")
def analysed(trained, evaluate):
    """An evaluation by plain sums of log-probabilities, its analysis, and what was printed."""
    predictions, metrics = evaluate("sums", {"decode.alpha": 0.0})
    done = run_here(program, f"--workdir={trained}", "--name=sums", "--max_examples=0", "--exact_examples=9")
    assert (done.code, done.err) == (0, "")
    return predictions, metrics, read_json(trained / "analysis" / "sums" / "analysis.json"), done.out


def test_each_figure_is_a_csv_a_picture_and_part_of_the_json(trained, analysed):
    pytest.importorskip("matplotlib")
    folder, told = trained / "analysis" / "sums", analysed[2]
    assert told["figures"].keys() == OF_TEXT
    assert told["left_out"] == []
    files = {f"{name}.csv" for name in OF_TEXT} | {f"{name}.png" for name in DRAWN} | {"analysis.json", MARK}
    assert {path.name for path in folder.iterdir()} == files
    for name in OF_TEXT:
        header, *rows = csv.reader((folder / f"{name}.csv").read_text().splitlines())
        columns = columns_of(told, name)
        assert header == list(columns)
        expected = ["" if value is None else str(value) for value in columns[header[-1]]]
        assert [row[-1] for row in rows] == expected


def test_the_setting_and_sizes_are_told(analysed):
    told = analysed[2]
    assert (told["method"], told["split"], told["protocol"], told["queries"]) == ("igd", "test", "rows", N_TEST)
    assert (told["candidates"], told["step"], told["evaluation"]) == ("catalogue", 18, "sums")
    assert (told["data"]["items"], told["data"]["titles"]) == (23, 22)
    data = columns_of(told, "data")
    assert data["rows"] == list(tiny_run.N_ROWS.values())
    assert data["items"] == [told["data"]["items"]] * 3


def test_shares_of_data_and_histogram_agree(analysed):
    told = analysed[2]
    data, gain = columns_of(told, "data"), columns_of(told, "gain")
    assert gain["gain"][0] == "0"
    assert gain["targets"][0] == data["without_gain"][0]
    assert sum(gain["targets"]) == data["tokens"][0]
    assert gain["share_of_targets"][0] == pytest.approx(data["share_without_gain"][0])


def test_groups_add_up_to_the_metrics_of_the_evaluation(analysed):
    _, metrics, told, _ = analysed
    for name in ("users", "histories", "items"):
        columns = columns_of(told, name)
        known = [(n, hit) for n, hit in zip(columns["n"], columns["hr@3"], strict=True) if n]
        assert sum(n for n, _ in known) == N_TEST
        assert sum(n * hit for n, hit in known) / N_TEST == pytest.approx(metrics["hr@3"])
    assert columns_of(told, "users")["group"] == ["0"]  # customers of the test rows are new
    items = columns_of(told, "items")
    for name in ("candidates", "recommended", "truth"):
        assert sum(items[name]) == pytest.approx(1)
    assert items["truth"][0] == tiny_run.ABSENT_IN_TEST / N_TEST


def test_coverage_of_lists_is_that_of_the_evaluation(analysed):
    _, metrics, told, _ = analysed
    lists = columns_of(told, "lists")
    assert lists["of"] == ["first result", "top 3", "truth"]
    assert lists["coverage"][1] == pytest.approx(metrics["coverage@3"])
    assert lists["n"] == [N_TEST, 3 * N_TEST, N_TEST]


def test_first_tokens_are_those_of_the_bare_titles(tiny, analysed):
    lists, tokenizer = columns_of(analysed[2], "lists"), load_tokenizer(tiny / "model")
    ranked = titles_of(analysed[0])
    targets = [tiny_run.TITLES[item] for item in load(tiny / "data").splits["test"].target]
    chosen = [titles[0] for titles in ranked], [title for titles in ranked for title in titles[:3]], targets
    for number, titles in enumerate(chosen):
        share = np.array([*Counter(tokenizer.encode([title])[0][0] for title in titles).values()]) / len(titles)
        assert lists["first_token_top"][number] == pytest.approx(share.max())
        assert lists["first_token_entropy"][number] == pytest.approx(-(share * np.log(share)).sum(), abs=1e-12)


def test_log_probabilities_of_the_first_results_sum_to_their_scores(analysed):
    predictions, _, told, _ = analysed
    tokens = told["tokens"]
    assert tokens["queries"] == N_TEST
    assert tokens["recommended"]["logp"] == pytest.approx(scores_of(predictions)[:, 0].mean(), abs=1e-4)
    assert tokens["truth"]["logp"] <= tokens["recommended"]["logp"]
    gain, entropy = columns_of(told, "gain_logp"), columns_of(told, "entropy")
    assert sum(gain["loss_share"]) == pytest.approx(1)
    assert np.dot(gain["n"], gain["logp"]) / N_TEST == pytest.approx(tokens["truth"]["logp"], rel=1e-5)
    assert entropy["truth_n"][0] == entropy["recommended_n"][0] == N_TEST
    assert entropy["truth_left"][0] == pytest.approx(told["data"]["root_entropy"])
    history = columns_of(told, "history")
    n, effect = ([value or 0 for value in history[f"truth_{name}"]] for name in ("n", "history"))
    assert np.dot(n, effect) / N_TEST == pytest.approx(tokens["truth"]["history"], rel=1e-4)
    assert tokens["truth"]["history"] > 0  # it was trained to read histories


@pytest.mark.parametrize(
    ("protocol", "hit", "n"), [("rows", "hr", N_TEST), pytest.param("users", "recall", 6, marks=pytest.mark.slow)]
)
def test_the_beam_and_the_exact_ranking_score_as_their_evaluations_do(tiny, shoppers, tmp_path, protocol, hit, n):
    """Random weights and three beams, so that the lists differ; by users, each has several targets."""
    workdir, found = Workdir(str(tmp_path / "run")), {}
    data = {"data.dir": str(shoppers[0]), "eval.protocol": protocol, "decode.alpha": 0.02}
    exactly = {"decode.search": "exact", "decode.num_beams": 1, "decode.top_k": 3}
    for name, search in (("beam", {"decode.num_beams": 3}), ("exact", exactly)):
        evaluation.evaluate(tiny_run.tiny_config(tiny, data | search), workdir, name=name)
        found[name] = read_written(workdir.path, name)
    done = run_here(program, f"--workdir={workdir.path}", "--name=beam", "--max_examples=1", f"--exact_examples={n}")
    assert (done.code, done.err) == (0, "")
    told = read_json(workdir.path / "analysis" / "beam" / "analysis.json")
    columns = columns_of(told, "exact")
    assert told["exact"] == {"queries": n, "candidates_too_long": 0}
    assert list(columns) == ["k", "overlap", *(f"{side}_{name}" for name in (hit, "ndcg") for side in found)]
    assert columns["k"] == [1, 3]
    for side, (_, metrics) in found.items():
        for name in (hit, "ndcg"):
            assert columns[f"{side}_{name}"] == pytest.approx([metrics[f"{name}@{k}"] for k in (1, 3)])
    assert any(columns[f"beam_{name}"] != columns[f"exact_{name}"] for name in (hit, "ndcg"))
    ours, theirs = (titles_of(predictions) for predictions, _ in found.values())
    for k, overlap in zip((1, 3), columns["overlap"], strict=True):
        shared = [len({*a[:k]} & {*b[:k]}) / k for a, b in zip(ours, theirs, strict=True)]
        assert overlap == pytest.approx(np.mean(shared))
    assert 0 < columns["overlap"][-1] < 1


def test_the_most_telling_tables_are_printed(analysed):
    printed = analysed[3]
    assert "\n| split | rows | users | items | tokens | without_gain | share_without_gain |" in re.sub(
        " +", " ", printed
    )
    for title in ("Target tokens", "Popularity and diversity of lists", "By train targets of the item"):
        assert f"\n{title}\n" in printed
    assert "truth: " in printed
    assert "nats per title" in printed


def test_losses_of_training_are_averaged_in_windows(analysed):
    training = columns_of(analysed[2], "training")
    assert training["step"] == list(range(1, 19))
    assert {"loss_forced", "loss_deciding", "valid_loss_forced", "valid_loss_deciding"} < training.keys()
    assert sum(value is not None for value in training["valid_loss"]) == 3


def test_an_item_scorer_has_all_but_the_figures_about_text(sasrec_run):
    evaluation.evaluate(load_config(None, Workdir(str(sasrec_run))), Workdir(str(sasrec_run)), name="test")
    done = run_here(program, f"--workdir={sasrec_run}")
    assert (done.code, done.err) == (0, "")
    told = read_json(sasrec_run / "analysis" / "test" / "analysis.json")
    assert told["figures"].keys() == OF_ANY
    assert "left out: tokens, entropy, ghosts and history: sasrec scores items and writes no text\n" in done.out
    assert "left out: exact: these lists come from no beam over the trie\n" in done.out
    assert columns_of(told, "training").keys() == {"step", "loss", "valid_loss", "valid_loss_softmax"}


@pytest.mark.slow
def test_users_are_asked_once_and_how_a_value_was_chosen_does_not_matter(trained):
    options = ("--config.eval.protocol=users", "--config.decode.candidates=cold", "--config.decode.num_beams=3")
    assert run_here(evaluation, f"--workdir={trained}", "--name=users", *options).code == 0
    path = trained / "eval" / "users" / "config.json"
    choice = Choice({"decode.alpha": [0.1, 0.2]}, "ndcg@3", "valid", "users", 4)
    write_json(path, read_json(path) | {"chosen": asdict(choice)})
    done = run_here(program, f"--workdir={trained}", "--name=users", "--max_examples=4", "--exact_examples=0")
    assert (done.code, done.err) == (0, "")
    told = read_json(trained / "analysis" / "users" / "analysis.json")
    assert (told["protocol"], told["tokens"]["queries"]) == ("users", 4)
    assert "recall@3" in columns_of(told, "users")
    assert told["left_out"] == [
        "exact: 16 tokens of candidates are read for each query; --exact_examples=N ranks N queries"
    ]


# ------------------------------------------------------------------------------------------------------ what is refused
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--name=none",), "eval/none holds no evaluation; run python -m igd_jax.evaluate --workdir="),
        (("--name=../x",), "--name is '../x'; expected the name of a folder"),
        (("--max_examples=-1",), "--max_examples is -1; expected a number of queries, at least 0"),
        (("--exact_examples=-3",), "--exact_examples is -3; expected a number of queries"),
        (("--split=dev",), "--split"),
    ],
)
def test_bad_options_are_one_line(trained, options, message):
    before = sorted(trained.rglob("*"))
    assert message in one_line(run_here(program, f"--workdir={trained}", *options))
    assert sorted(trained.rglob("*")) == before


@pytest.fixture
def copied(trained, plain, tmp_path):
    """A copy of the run with one evaluation."""
    workdir = tmp_path / "run"
    shutil.copytree(trained, workdir, ignore=shutil.ignore_patterns("analysis", "eval"))
    shutil.copytree(trained / "eval" / "plain", workdir / "eval" / "plain")
    return workdir


def test_an_evaluation_whose_files_disagree_is_bad_input(copied):
    path = copied / "eval" / "plain" / "predictions.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    line = one_line(run_here(program, f"--workdir={copied}", "--name=plain"))
    assert f"gives n {N_TEST - 1}, " in line
    assert not (copied / "analysis").exists()


def test_an_evaluation_of_other_data_is_bad_input(copied):
    folder = copied / "eval" / "plain"
    text = (folder / "predictions.jsonl").read_text()
    (folder / "predictions.jsonl").write_text(text.replace('"sku1"', '"unknown"'))
    line = one_line(run_here(program, f"--workdir={copied}", "--name=plain"))
    assert "names the item 'unknown', which the data does not have" in line


def test_a_folder_of_another_is_left_as_it_is(copied):
    (notes := copied / "analysis" / "plain" / "notes.txt").parent.mkdir(parents=True)
    notes.write_text("mine")
    assert "holds 'notes.txt'" in one_line(run_here(program, f"--workdir={copied}", "--name=plain"))
    assert notes.read_text() == "mine"
