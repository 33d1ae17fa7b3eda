"""Evaluation from a trained run, or a model folder, to metrics.json and predictions.jsonl."""

import json
import re
import shutil
from dataclasses import replace

import jax
import numpy as np
import pytest
import tiny_run
from command import run_here
from evaluation_calls import N_TEST, read_written, scores_of, titles_of

from igd_jax import evaluate as program
from igd_jax.core.errors import InputError
from igd_jax.core.io import MARK, Workdir, read_json
from igd_jax.data.assembling import assemble
from igd_jax.data.prepared import load, save
from igd_jax.data.tokenizer import load_tokenizer
from igd_jax.evaluation.predictions import SCHEMA_VERSION


# ------------------------------------------------------------------------------------------------------ what is written
def test_predictions_have_a_line_for_each_row_in_order(tiny, plain):
    predictions, _ = plain
    rows = load(tiny / "data").splits["test"]
    assert [line["row"] for line in predictions] == list(range(N_TEST))
    assert [line["user"] for line in predictions] == rows.user.tolist()
    for line, target in zip(predictions, rows.target, strict=True):
        assert list(line) == ["row", "user", "target", "ranked"]
        warm = [bool(target < tiny_run.N_SOLD)]
        named = {"items": [tiny_run.ITEM_IDS[target]], "title": tiny_run.TITLES[target]}
        assert line["target"] == named | {"warm": warm}


def test_results_are_whole_titles_best_first_with_all_their_items(trained, plain):
    predictions, _ = plain
    tokenizer = load_tokenizer(trained / "tokenizer")
    shared = tiny_run.TITLES[3]
    for line in predictions:
        assert len(line["ranked"]) == 4
        for result in line["ranked"]:
            assert list(result) == ["items", "title", "score", "tokens"]
            named = [i for i, t in zip(tiny_run.ITEM_IDS, tiny_run.TITLES, strict=True) if t == result["title"]]
            assert result["items"] == named
            assert tokenizer.encode_titles([result["title"]])[0].tolist() == result["tokens"]
        titles = [result["title"] for result in line["ranked"]]
        assert len(set(titles)) == 4
    assert {len(r["items"]) for line in predictions for r in line["ranked"] if r["title"] == shared} <= {2}
    scores = scores_of(predictions)
    assert np.isfinite(scores).all()
    assert (np.diff(scores, axis=1) <= 0).all()


def test_metrics_hold_rates_counts_a_baseline_and_slices(plain):
    predictions, metrics = plain
    assert {*("hr@1", "hr@3", "ndcg@1", "ndcg@3", "mrr"), "n", "invalid", "popularity_baseline", "slices"} <= set(
        metrics
    )
    assert (metrics["n"], metrics["invalid"], metrics["target_absent"]) == (N_TEST, 0, 0)
    assert metrics["candidates"] == "catalogue"
    hits = [
        line["target"]["title"] in titles[:3] for line, titles in zip(predictions, titles_of(predictions), strict=True)
    ]
    assert metrics["hr@3"] == pytest.approx(np.mean(hits))
    assert metrics["slices"]["cold"]["n"] == tiny_run.ABSENT_IN_TEST
    assert metrics["slices"]["warm"]["n"] == N_TEST - tiny_run.ABSENT_IN_TEST


def test_the_evaluation_keeps_its_own_config(trained, plain):
    config = read_json(trained / "eval" / "plain" / "config.json")
    assert (config["decode"]["alpha"], config["eval"]["ks"]) == (0.2, [1, 3])
    assert {path.name for path in (trained / "eval" / "plain").iterdir()} == {
        *("config.json", "env.json", "metrics.json", "predictions.jsonl", MARK),
    }


def test_the_evaluation_tells_what_made_it(trained, plain):
    told = read_json(trained / "eval" / "plain" / "env.json")
    run = read_json(trained / "env.json")
    assert told["predictions_schema"] == SCHEMA_VERSION
    assert told["checkpoint"] == {"step": _best_step(trained), "commit": run["commit"]}
    assert {name: told[name] for name in run} == run


def test_a_damaged_env_json_of_the_run_is_told_before_anything_is_ranked(tiny, trained, tmp_path, monkeypatch):
    run = Workdir(str(shutil.copytree(trained, tmp_path / "run", ignore=shutil.ignore_patterns("eval"))))
    monkeypatch.setattr(program, "score", lambda *_, **__: pytest.fail("it was ranked"))
    run.env.write_text("[]")
    with pytest.raises(InputError, match=r"env.json is no JSON object; put back the file of the run, or remove it"):
        program.evaluate(tiny_run.tiny_config(tiny), run, name="test")
    run.env.write_text("{}")
    assert program._trained_commit(run) is None


def _best_step(workdir) -> int:
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    losses = {line["step"]: line["valid_loss"] for line in lines if "valid_loss" in line}
    return min(losses, key=losses.get)


@pytest.mark.parametrize("name", ["../checkpoints", ".", "..", "../../victim", "../config.json", "{folder}", "link"])
def test_a_name_that_leads_elsewhere_deletes_nothing(trained, tmp_path, name):
    (tmp_path / "thesis.tex").write_text("mine")
    if name == "link":
        (trained / "eval").mkdir(exist_ok=True)
        (trained / "eval" / "link").symlink_to(tmp_path)
    before = sorted(trained.parent.rglob("*"))
    done = run_here(program, f"--workdir={trained}", f"--name={name.format(folder=tmp_path)}")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1
    assert (sorted(trained.parent.rglob("*")), (tmp_path / "thesis.tex").read_text()) == (before, "mine")
    (trained / "eval" / "link").unlink(missing_ok=True)


def test_an_evaluation_that_fails_leaves_the_older_one(tiny, trained, tmp_path, monkeypatch):
    workdir = tmp_path / "run"
    shutil.copytree(trained, workdir, ignore=shutil.ignore_patterns("eval"))
    config = tiny_run.tiny_config(tiny, {"eval.max_examples": 5})
    program.evaluate(config, Workdir(str(workdir)), name="test")
    before = read_written(workdir, "test")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(program, "write_predictions", fail)
    with pytest.raises(OSError, match="disk full"):
        program.evaluate(config, Workdir(str(workdir)), name="test")
    assert read_written(workdir, "test") == before
    assert {path.name for path in (workdir / "eval").iterdir()} == {"test"}


def test_another_process_than_the_first_ranks_and_leaves_nothing(tiny, trained, monkeypatch, capsys):
    before = sorted(trained.rglob("*"))
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    metrics = program.evaluate(tiny_run.tiny_config(tiny), Workdir(str(trained)), name="second")
    assert metrics["n"] == N_TEST
    assert capsys.readouterr() == ("", "")
    assert sorted(trained.rglob("*")) == before


# ------------------------------------------------------------------------------------------------- what changes nothing
@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"decode.batch_size": 4}, id="4 users at a time"),
        pytest.param({"decode.batch_size": 16}, id="16 users at a time", marks=pytest.mark.slow),
        pytest.param({"mesh.data": 8, "decode.batch_size": 8}, id="8 devices", marks=pytest.mark.slow),
    ],
)
def test_how_users_are_dealt_out_changes_nothing(evaluate, plain, changes):
    predictions, metrics = evaluate("dealt", changes)
    assert titles_of(predictions) == titles_of(plain[0])
    np.testing.assert_allclose(scores_of(predictions), scores_of(plain[0]), atol=1e-4)
    assert metrics == plain[1]


# ------------------------------------------------------------------------------------------------------ what can be set
def test_candidates_seen_in_train_leave_cold_titles_out(evaluate, capsys):
    changes = {"decode.candidates": "train", "decode.num_beams": 21}
    predictions, metrics = evaluate("train-only", changes)
    told = capsys.readouterr().out
    assert "candidates (train): 21 of 23 items, 20 titles (1 items merged into one that they share), 20 of them" in told
    assert "22 rows, 2 with a target that is not a candidate; 0 invalid results" in told
    assert metrics["target_absent"] == tiny_run.ABSENT_IN_TEST
    for titles in titles_of(predictions):
        assert sorted(titles) == sorted(tiny_run.TITLES[: tiny_run.N_SOLD])  # 21 beams find the 20 titles, no more


@pytest.fixture
def stock(tmp_path):
    """Three candidates, by file, and more beams than that."""
    (tmp_path / "stock.txt").write_text("sku3\n\nsku20\nsku7\n")
    return {"decode.candidates": str(tmp_path / "stock.txt"), "decode.num_beams": 5}


def test_a_file_of_items_is_all_there_is_to_recommend(evaluate, stock):
    predictions, metrics = evaluate("stock", stock)
    names = {tiny_run.TITLES[3]: ["sku3"], tiny_run.TITLES[20]: ["sku20"], tiny_run.TITLES[7]: ["sku7"]}
    for line in predictions:
        assert {result["title"]: result["items"] for result in line["ranked"]} == names
    assert metrics["target_absent"] == N_TEST - sum(line["target"]["title"] in names for line in predictions)
    assert metrics["invalid"] == 0


@pytest.mark.slow
def test_the_length_penalty_divides_sums_by_the_length(evaluate, stock):
    stock |= {"decode.alpha": 0.0, "eval.max_examples": 5}
    sums, _ = evaluate("sum", stock)
    means, _ = evaluate("mean", stock | {"decode.length_penalty": 1.0})
    for ours, theirs in zip(means, sums, strict=True):
        expected = {result["title"]: result["score"] / len(result["tokens"]) for result in theirs["ranked"]}
        assert {result["title"]: result["score"] for result in ours["ranked"]} == pytest.approx(expected, rel=1e-4)


def test_titles_cut_short_are_invalid_and_name_no_item(evaluate, plain):
    predictions, metrics = evaluate("cut", {"decode.max_new_tokens": 2, "eval.max_examples": 3})
    results = [result for line in predictions for result in line["ranked"]]
    assert [(result["items"], result["title"], result["tokens"]) for result in results] == [([], "", [])] * 12
    assert (metrics["invalid"], metrics["n"], metrics["hr@3"]) == (12, 3, 0)


def test_more_tokens_than_the_longest_title_change_nothing(evaluate, plain):
    assert titles_of(evaluate("long", {"decode.max_new_tokens": 500})[0]) == titles_of(plain[0])


def test_lists_do_not_depend_on_targets_and_histories_that_are_cut_are_counted(tiny, tmp_path, capsys):
    data = load(tiny / "data")
    test, lists = data.splits["test"], []
    for name, target in (("theirs", test.target), ("others", np.roll(test.target, 7))):
        splits = data.splits | {"test": replace(test, target=target)}
        shutil.copytree(tiny / "model", tmp_path / name / "model")
        save(
            assemble(item_ids=data.item_ids, titles=data.titles, splits=splits, dropped={}, notes={}),
            tmp_path / name / "data",
        )
        tiny_run.set_positions(tmp_path / name / "model", 56)
        config = tiny_run.tiny_config(tmp_path / name, {"data.max_length": 56})
        program.evaluate(config, Workdir(str(tmp_path / name / "run")), name="plain")
        told = re.findall(
            r"(\d+) of 22 histories without their oldest items: over 47 tokens in the prompt", capsys.readouterr().out
        )
        assert [0 < int(n_cut) < N_TEST for n_cut in told] == [True]
        predictions, _ = read_written(tmp_path / name / "run", "plain")
        lists.append([line["ranked"] for line in predictions])
    assert lists[0] == lists[1]


def test_lists_do_not_depend_on_how_short_prompts_are_cut_in_training(tiny, tmp_path, capsys):
    lists = []
    for limit in (47, 512):
        program.evaluate(
            tiny_run.tiny_config(tiny, {"data.max_length": limit}), Workdir(str(tmp_path / f"{limit}")), name="plain"
        )
        lists.append([line["ranked"] for line in read_written(tmp_path / f"{limit}", "plain")[0]])
    assert "oldest items" not in capsys.readouterr().out
    assert lists[0] == lists[1]


# ------------------------------------------------------------------------------------------------------ what is refused
@pytest.mark.parametrize(
    ("ks", "message"),
    [
        ((1, 5), r"config.eval.ks is \(1, 5\), but lists have a length of 4; raise config.decode.num_beams "),
        ((), r"config.eval.ks is \(\); expected at least one number"),
        ((0,), r"config.eval.ks\[0\] is 0; expected a length of lists"),
    ],
)
def test_cut_offs_beyond_the_lists_are_bad_input(tiny, trained, ks, message):
    with pytest.raises(InputError, match=message):
        program.evaluate(tiny_run.tiny_config(tiny, {"eval.ks": ks}), Workdir(str(trained)), name="none")
    assert not (trained / "eval" / "none").exists()


def test_a_folder_of_other_things_takes_no_evaluation(tiny, tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(InputError, match=r"which has no run .* but 'thesis.tex'; name a new folder"):
        program.evaluate(tiny_run.tiny_config(tiny), Workdir(str(tmp_path)), name="none")


def test_a_run_without_a_checkpoint_is_bad_input(tiny, trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints", "eval"))
    with pytest.raises(InputError, match=r"run has no checkpoint yet; let igd_jax.train reach its first evaluation"):
        program.evaluate(tiny_run.tiny_config(tiny), Workdir(str(tmp_path / "run")), name="none")


def test_an_unknown_split_lists_the_known_ones(tiny, trained):
    with pytest.raises(InputError, match=r"config.eval.split is 'dev'; expected one of train, valid, test"):
        program.evaluate(tiny_run.tiny_config(tiny, {"eval.split": "dev"}), Workdir(str(trained)), name="none")


def test_an_unknown_protocol_lists_the_known_ones(tiny, trained):
    with pytest.raises(InputError, match=r"config.eval.protocol is 'user'; expected one of rows, users"):
        program.evaluate(tiny_run.tiny_config(tiny, {"eval.protocol": "user"}), Workdir(str(trained)), name="none")
