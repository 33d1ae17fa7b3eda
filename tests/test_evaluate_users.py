"""Evaluation by users, several targets of each, and by rows."""

import json

import numpy as np
import pytest
import tiny_run
from evaluation_calls import N_TEST, read_written, scores_of, titles_of

from igd_jax import compare
from igd_jax import evaluate as program
from igd_jax.core.errors import InputError
from igd_jax.core.io import Workdir
from igd_jax.data.collaborative import load_collaborative, save_collaborative
from igd_jax.data.prepared import load
from igd_jax.evaluation.evaluations import read_evaluation
from igd_jax.settings.config_flags import load_config
from igd_jax.settings.config_grid import changed


def _by_users(tiny, shoppers, workdir, changes=None):
    data = {"data.dir": str(shoppers[0]), "eval.protocol": "users"}
    program.evaluate(tiny_run.tiny_config(tiny, data | (changes or {})), Workdir(str(workdir)), name="users")
    return read_written(workdir, "users")


def test_each_user_is_asked_once_and_all_they_took_is_right(tiny, shoppers, tmp_path):
    predictions, metrics = _by_users(tiny, shoppers, tmp_path / "run")
    rows = shoppers[1]
    assert [line["row"] for line in predictions] == [16, 17, 18, 19, 20, 21]  # the rows are latest first
    recall = []
    for line in predictions:
        assert line["user"] == rows.user[line["row"]]
        theirs = list(dict.fromkeys(tiny_run.TITLES[t] for t in rows.target[rows.user == line["user"]][::-1]))
        assert [tiny_run.TITLES[tiny_run.ITEM_IDS.index(item)] for item in line["target"]["items"]] == theirs
        assert line["target"]["title"] == theirs[0]
        recall.append(len({r["title"] for r in line["ranked"][:3]} & set(theirs)) / len(theirs))
    assert metrics["recall@3"] == pytest.approx(np.mean(recall))
    assert (metrics["n"], metrics["protocol"], metrics["target_absent"]) == (6, "users", 0)
    assert metrics["ground_truth"] == {"mean": pytest.approx(N_TEST / 6), "max": 4}
    cold = metrics["slices"]["cold"]
    assert (cold["n"], cold["left_out"]) == (tiny_run.ABSENT_IN_TEST, 6 - tiny_run.ABSENT_IN_TEST)
    assert metrics["slices"]["warm"]["n"] == 6


@pytest.mark.slow
def test_compare_reads_users_as_evaluate_wrote_them(tiny, shoppers, tmp_path):
    _, metrics = _by_users(tiny, shoppers, tmp_path / "a")
    _, other = _by_users(tiny, shoppers, tmp_path / "b", {"decode.candidates": "train"})
    found = compare.compare_folders([tmp_path / run / "eval" / "users" for run in "ab"])
    assert (found["n"], found["protocol"]) == (6, "users")
    for name in ("recall@1", "recall@3", "ndcg@1", "ndcg@3"):
        assert [found["runs"][run][name]["value"] for run in "ab"] == pytest.approx([metrics[name], other[name]])


def test_a_title_that_training_saw_once_is_warm_if_only_in_a_history(tiny, shoppers, tmp_path):
    _, metrics = _by_users(tiny, shoppers, tmp_path / "run", {"data.max_examples": 7})
    rows, used = shoppers[1], load(shoppers[0]).splits["train"].take(np.arange(7) * tiny_run.N_ROWS["train"] // 7)
    train = np.concatenate([used.target, used.history.ids])
    assert set(used.target) < set(train) < set(range(tiny_run.N_SOLD))
    assert (np.bincount(train) == 1).any()
    for name, is_here in (("warm", np.isin(rows.target, train)), ("cold", ~np.isin(rows.target, train))):
        assert metrics["slices"][name]["n"] == len(set(rows.user[is_here]))


def test_a_user_is_shown_the_history_of_their_earliest_row(tiny, shoppers, tmp_path):
    by_users, _ = _by_users(tiny, shoppers, tmp_path / "run")
    changes = {"data.dir": str(shoppers[0])}
    program.evaluate(tiny_run.tiny_config(tiny, changes), Workdir(str(tmp_path / "run")), name="rows")
    by_rows, _ = read_written(tmp_path / "run", "rows")
    asked = [by_rows[line["row"]] for line in by_users]
    assert titles_of(by_users) == titles_of(asked)
    np.testing.assert_allclose(scores_of(by_users), scores_of(asked), atol=1e-4)
    with pytest.raises(InputError, match="users was evaluated by users, rows by rows; compare evaluations of the same"):
        compare.compare_folders([tmp_path / "run" / "eval" / name for name in ("users", "rows")])


@pytest.mark.parametrize("is_alike", [True, False])
def test_lists_of_what_is_allowed_are_those_of_users(tiny, shoppers, tmp_path, is_alike):
    users, file = shoppers[1].user.tolist(), tmp_path / "allowed.jsonl"
    lists = {user: [item, tiny_run.ITEM_IDS[-1]] for user, item in zip(users, tiny_run.ITEM_IDS * 9, strict=False)}
    lines = [lists[user] for user in users]
    if not is_alike:
        lines[-1] = lines[-1][:1]
    file.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    if is_alike:
        predictions, _ = _by_users(tiny, shoppers, tmp_path / "run", {"decode.allowed": str(file)})
        assert all(len(line["ranked"]) <= 2 for line in predictions)
        return
    with pytest.raises(
        InputError, match=rf"lines \d+ and {len(lines)} differ, but both are of user '.*', who is asked"
    ):
        _by_users(tiny, shoppers, tmp_path / "run", {"decode.allowed": str(file)})


@pytest.mark.slow
def test_some_users_keep_all_their_targets(tiny, shoppers, tmp_path):
    predictions, _ = _by_users(tiny, shoppers, tmp_path / "run")
    some, metrics = _by_users(tiny, shoppers, tmp_path / "run", {"eval.max_examples": 2})
    assert metrics["n"] == 2
    # Evenly spread over six.
    assert [line["target"] for line in some] == [predictions[0]["target"], predictions[3]["target"]]


def test_some_rows_are_spread_over_the_split(evaluate, plain):
    predictions, metrics = evaluate("some", {"eval.max_examples": 4})
    assert metrics["n"] == 4
    assert [line["row"] for line in predictions] == [0, N_TEST // 4, N_TEST // 2, 3 * N_TEST // 4]
    assert [line["target"] for line in predictions] == [plain[0][line["row"]]["target"] for line in predictions]


def test_users_with_one_row_each_are_the_rows(evaluate, plain):
    predictions, metrics = evaluate("users", {"eval.protocol": "users"})
    assert predictions == plain[0]
    for name in ("1", "3"):
        assert metrics[f"recall@{name}"] == plain[1][f"hr@{name}"]
        assert metrics[f"ndcg@{name}"] == plain[1][f"ndcg@{name}"]
    assert metrics["mrr"] == plain[1]["mrr"]
    assert "hr@1" not in metrics


def test_collaborative_scores_are_those_of_the_rows_asked(tiny, shoppers, tmp_path):
    """The source gives every row its own target, and the method believes nothing else."""
    rows, source = shoppers[1], tmp_path / "source"
    source.mkdir()
    users = np.full((N_TEST, len(tiny_run.TITLES)), -100.0, np.float32)
    users[np.arange(N_TEST), rows.target] = 100.0
    mark, items = load(shoppers[0]).meta["fingerprint"], np.eye(len(tiny_run.TITLES), dtype=np.float32)
    save_collaborative(source, items, {"test": users}, fingerprint=mark, n_train=tiny_run.N_ROWS["train"])
    changes = {"decode.collaborative": str(source), "method.name": "d3", "method.args": {"lam": 0.0}}
    predictions, _ = _by_users(tiny, shoppers, tmp_path / "run", changes)
    assert [line["ranked"][0]["title"] for line in predictions] == [line["target"]["title"] for line in predictions]


def test_vectors_are_kept_of_every_row_whoever_is_asked(tiny, sasrec_run):
    """So they can serve an evaluation by rows, and the rows of one by users are where it looks for them."""
    workdir = Workdir(str(sasrec_run))
    config = changed(load_config(None, workdir), {"eval.protocol": "users", "eval.max_examples": 2})
    assert program.evaluate(config, workdir, name="users")["n"] == 2
    mark, n_items = load(tiny / "data").meta["fingerprint"], len(tiny_run.TITLES)
    for split in ("valid", "test"):
        n_rows, n_train = tiny_run.N_ROWS[split], tiny_run.N_ROWS["train"]
        kept = load_collaborative(
            sasrec_run, fingerprint=mark, split=split, n_rows=n_rows, n_items=n_items, n_train=n_train
        )
        assert len(kept.users) == n_rows


@pytest.mark.parametrize("left_out", [3, len(tiny_run.TITLES) - 1])
def test_both_protocols_hit_by_title_where_candidates_split_one(trained, evaluate, tmp_path, left_out):
    """Two items share a title, and only one is a candidate: whichever was taken, the title is what is to be written."""
    stock = tmp_path / "stock.txt"
    stock.write_text("".join(f"{item}\n" for number, item in enumerate(tiny_run.ITEM_IDS) if number != left_out))
    split = {"decode.candidates": str(stock)}
    names = [f"split-{left_out}-{protocol}" for protocol in ("rows", "users")]
    by_rows, rows = evaluate(names[0], split)
    by_users, users = evaluate(names[1], split | {"eval.protocol": "users"})
    assert by_users == by_rows
    assert users["target_absent"] == rows["target_absent"] == 0
    shared = [line for line in by_rows if line["target"]["title"] == tiny_run.TITLES[3]]
    assert shared
    assert {tuple(line["target"]["items"]) for line in shared} == {(tiny_run.ITEM_IDS[-1 if left_out == 3 else 3],)}
    for k in (1, 3):
        hits = [line["target"]["title"] in [r["title"] for r in line["ranked"][:k]] for line in by_rows]
        assert rows[f"hr@{k}"] == users[f"recall@{k}"] == pytest.approx(np.mean(hits))
        assert rows["popularity_baseline"][f"ndcg@{k}"] == users["popularity_baseline"][f"ndcg@{k}"]
    for name, hit, metrics in zip(names, ("hr", "recall"), (rows, users), strict=True):
        read_back = read_evaluation(name, trained / "eval" / name).by_row  # from the predictions alone
        assert read_back[f"{hit}@3"].mean() == pytest.approx(metrics[f"{hit}@3"])
