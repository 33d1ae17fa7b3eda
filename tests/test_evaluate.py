"""Evaluation from a trained run, or a model folder, to metrics.json and predictions.jsonl."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import tiny_run
from command import run_here, run_process

from igd_jax import compare
from igd_jax import evaluate as program
from igd_jax.core.errors import InputError
from igd_jax.core.io import MARK, Workdir, read_json
from igd_jax.data.collaborative import load_collaborative, save_collaborative
from igd_jax.data.prepared import assemble, load, save
from igd_jax.data.tokenizer import load_tokenizer
from igd_jax.evaluation.evaluations import read_evaluation
from igd_jax.evaluation.predictions import SCHEMA_VERSION
from igd_jax.session.session import set_up_to_decode
from igd_jax.train import train

N_TEST = tiny_run.N_ROWS["test"]


@pytest.fixture(scope="module")
def evaluate(tiny, trained):
    """Evaluate the trained run under a name, with some fields changed; returns its predictions and metrics."""

    def run(name: str, changes: dict | None = None) -> tuple[list[dict], dict]:
        program.evaluate(tiny_run.tiny_config(tiny, changes), Workdir(str(trained)), name=name)
        return _read(trained, name)

    return run


@pytest.fixture(scope="module")
def plain(evaluate):
    """Predictions and metrics of the config as it is."""
    return evaluate("plain")


def _read(workdir, name):
    lines = (workdir / "eval" / name / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines], read_json(workdir / "eval" / name / "metrics.json")


def _titles(predictions):
    return [[result["title"] for result in line["ranked"]] for line in predictions]


def _scores(predictions):
    return np.array([[result["score"] for result in line["ranked"]] for line in predictions])


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
    scores = _scores(predictions)
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
        line["target"]["title"] in titles[:3] for line, titles in zip(predictions, _titles(predictions), strict=True)
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
    config = tiny_run.tiny_config(tiny, {"eval.max_examples": 2})
    program.evaluate(config, Workdir(str(workdir)), name="test")
    before = _read(workdir, "test")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(program, "write_predictions", fail)
    with pytest.raises(OSError, match="disk full"):
        program.evaluate(config, Workdir(str(workdir)), name="test")
    assert _read(workdir, "test") == before
    assert {path.name for path in (workdir / "eval").iterdir()} == {"test"}


# ------------------------------------------------------------------------------------------------- what changes nothing
@pytest.mark.parametrize(
    "changes",
    [{"decode.batch_size": 4}, {"decode.batch_size": 16}, {"mesh.data": 8, "decode.batch_size": 8}],
    ids=["4 users at a time", "16 users at a time", "8 devices"],
)
def test_how_users_are_dealt_out_changes_nothing(evaluate, plain, changes):
    predictions, metrics = evaluate("dealt", changes)
    assert _titles(predictions) == _titles(plain[0])
    np.testing.assert_allclose(_scores(predictions), _scores(plain[0]), atol=1e-4)
    assert metrics == plain[1]


# ------------------------------------------------------------------------------------------------------ what can be set
def test_candidates_seen_in_train_leave_cold_titles_out(evaluate, capsys):
    changes = {"decode.candidates": "train", "decode.num_beams": 21}
    predictions, metrics = evaluate("train-only", changes)
    told = capsys.readouterr().out
    assert "candidates (train): 21 of 23 items, 20 titles (1 items merged into a title they share), 20 of them" in told
    assert "22 rows, 2 with a target that is no candidate; 0 invalid results" in told
    assert metrics["target_absent"] == tiny_run.ABSENT_IN_TEST
    for titles in _titles(predictions):
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


def test_the_length_penalty_divides_sums_by_the_length(evaluate, stock):
    stock |= {"decode.alpha": 0.0, "eval.max_examples": 2}
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
    assert _titles(evaluate("long", {"decode.max_new_tokens": 500})[0]) == _titles(plain[0])


def test_prompts_over_the_limit_are_counted_and_told(tiny, tmp_path, capsys):
    run = set_up_to_decode(tiny_run.tiny_config(tiny, {"data.max_length": 30}), Workdir(str(tmp_path)))
    examples = run.examples(run.rows("test"))
    assert 0 < examples.n_cut <= N_TEST
    assert f"{examples.n_cut} of {N_TEST} prompts cut: with target over 30 tokens" in capsys.readouterr().out


# ------------------------------------------------------------------------------------------ several targets of a user
@pytest.fixture(scope="module")
def shoppers(tiny, tmp_path_factory):
    """The data with the test rows dealt out among six users, latest first; two of the targets are cold."""
    prepared = load(tiny / "data")
    rows = prepared.splits["test"].take(np.arange(N_TEST)[::-1].copy())
    rows = replace(rows, user=np.array([f"shopper {r % 6}" for r in range(N_TEST)], object))
    splits = {**prepared.splits, "test": rows}
    folder = tmp_path_factory.mktemp("shoppers")
    data = assemble(item_ids=prepared.item_ids, titles=prepared.titles, splits=splits, dropped={}, notes={})
    save(data, folder / "data")
    return folder / "data", rows


def _by_users(tiny, shoppers, workdir, changes=None):
    data = {"data.dir": str(shoppers[0]), "eval.protocol": "users"}
    program.evaluate(tiny_run.tiny_config(tiny, data | (changes or {})), Workdir(str(workdir)), name="users")
    return _read(workdir, "users")


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


def test_compare_reads_users_as_evaluate_wrote_them(tiny, shoppers, tmp_path):
    _, metrics = _by_users(tiny, shoppers, tmp_path / "a")
    _, other = _by_users(tiny, shoppers, tmp_path / "b", {"decode.candidates": "train"})
    found = compare.compare_folders([tmp_path / run / "eval" / "users" for run in "ab"])
    assert (found["n"], found["protocol"]) == (6, "users")
    for name in ("recall@1", "recall@3", "ndcg@1", "ndcg@3"):
        assert [found["runs"][run][name]["value"] for run in "ab"] == pytest.approx([metrics[name], other[name]])


def test_a_title_that_training_saw_once_is_warm_if_only_in_a_history(tiny, shoppers, tmp_path):
    _, metrics = _by_users(tiny, shoppers, tmp_path / "run", {"data.max_examples": 7})
    rows, first = shoppers[1], load(shoppers[0]).splits["train"].take(np.arange(7))
    train = np.concatenate([first.target, first.history_items])
    assert set(first.target) < set(train) < set(range(tiny_run.N_SOLD))
    assert (np.bincount(train) == 1).any()
    for name, is_here in (("warm", np.isin(rows.target, train)), ("cold", ~np.isin(rows.target, train))):
        assert metrics["slices"][name]["n"] == len(set(rows.user[is_here]))


def test_a_user_is_shown_the_history_of_their_earliest_row(tiny, shoppers, tmp_path):
    by_users, _ = _by_users(tiny, shoppers, tmp_path / "run")
    changes = {"data.dir": str(shoppers[0])}
    program.evaluate(tiny_run.tiny_config(tiny, changes), Workdir(str(tmp_path / "run")), name="rows")
    by_rows, _ = _read(tmp_path / "run", "rows")
    asked = [by_rows[line["row"]] for line in by_users]
    assert _titles(by_users) == _titles(asked)
    np.testing.assert_allclose(_scores(by_users), _scores(asked), atol=1e-4)
    with pytest.raises(InputError, match="users was evaluated by users, rows by rows; compare evaluations of the same"):
        compare.compare_folders([tmp_path / "run" / "eval" / name for name in ("users", "rows")])


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
    save_collaborative(source, items, {"test": users}, fingerprint=mark)
    changes = {"decode.collaborative": str(source), "method.name": "d3", "method.args": {"lam": 0.0}}
    predictions, _ = _by_users(tiny, shoppers, tmp_path / "run", changes)
    assert [line["ranked"][0]["title"] for line in predictions] == [line["target"]["title"] for line in predictions]


def test_vectors_are_kept_of_every_row_whoever_is_asked(tiny, shoppers, tmp_path):
    """So they can serve an evaluation by rows, and the rows of one by users are where it looks for them."""
    sasrec = {"method.name": "sasrec", "method.args": {}, "train.num_steps": 1, "eval.max_examples": 2}
    train(tiny_run.tiny_config(tiny, sasrec | {"data.dir": str(shoppers[0])}), Workdir(str(tmp_path / "run")))
    _, metrics = _by_users(tiny, shoppers, tmp_path / "run", sasrec)
    assert metrics["n"] == 2
    mark, n_items = load(shoppers[0]).meta["fingerprint"], len(tiny_run.TITLES)
    for split in ("valid", "test"):
        n_rows = tiny_run.N_ROWS[split]
        kept = load_collaborative(tmp_path / "run", fingerprint=mark, split=split, n_rows=n_rows, n_items=n_items)
        assert len(kept.users) == n_rows


# ----------------------------------------------------------------------------------------------------- the command line
def test_cold_users_on_the_command_line(trained):
    options = ("--config.eval.protocol=users", "--config.decode.candidates=cold", "--config.decode.num_beams=3")
    done = run_here(program, f"--workdir={trained}", "--name=cold", *options)
    assert (done.code, done.err) == (0, "")
    assert "candidates (cold): 2 of 23 items" in done.out
    assert "22 users, 1.00 titles each to find, at most 1; 20 titles that are no candidate" in done.out
    predictions, metrics = _read(trained, "cold")
    for titles in _titles(predictions):
        assert sorted(titles) == sorted(tiny_run.TITLES[tiny_run.N_SOLD : -1])
    assert (metrics["candidates"], metrics["slices"]["cold"]["n"]) == ("cold", tiny_run.ABSENT_IN_TEST)
    assert metrics["slices"]["cold"]["recall@3"] == 1
    assert metrics["slices"]["warm"]["recall@3"] == 0
    found = [read_evaluation("cold", trained / "eval" / "cold", group=group) for group in ("warm", "cold")]
    assert [len(e.answers) for e in found] == [metrics["slices"][name]["n"] for name in ("warm", "cold")]
    assert [e.by_row["recall@3"].mean() for e in found] == [0, 1]


def test_one_field_can_be_changed_on_the_command_line_of_a_trained_run(trained, evaluate):
    done = run_process(
        "evaluate", f"--workdir={trained}", "--name=shell", "--config.decode.alpha=0.4", "--config.eval.max_examples=6"
    )
    assert (done.code, done.err) == (0, "")
    assert f"written to {trained / 'eval' / 'shell'}" in done.out
    assert read_json(trained / "eval" / "shell" / "config.json")["decode"]["alpha"] == 0.4
    ours, theirs = _read(trained, "shell")[0], evaluate("0.4", {"decode.alpha": 0.4, "eval.max_examples": 6})[0]
    assert _titles(ours) == _titles(theirs)
    np.testing.assert_allclose(_scores(ours), _scores(theirs), atol=1e-4)
    assert np.abs(_scores(ours) - _scores(evaluate("0.2", {"eval.max_examples": 6})[0])).max() > 0.01


def test_another_experiment_can_decode_a_run_and_keeps_its_candidates(tiny, trained, tmp_path):
    other = tmp_path / "other.py"
    other.write_text(
        "from configs import common\n\n\ndef get_config(lam='1'):\n    config = common.get_config()\n"
        "    config.method.name, config.method.args.lam = 'd3', float(lam)\n"
        "    config.decode.alpha, config.decode.num_beams = 0.0, 7\n    return config\n"
    )
    given = ("--name=other", f"--decode_as={other}:0.25", "--config.decode.collaborative=popularity")
    done = run_here(program, f"--workdir={trained}", *given)
    assert (done.code, done.err) == (0, "")
    made = read_json(trained / "eval" / "other" / "config.json")
    assert made["method"] == {"name": "d3", "args": {"lam": 0.25}}
    assert (made["decode"]["alpha"], made["decode"]["num_beams"]) == (0.0, 4)
    assert run_here(program, f"--workdir={trained}", "--decode_as=no.py").code == 2
    needs_run = run_here(program, f"--workdir={tmp_path / 'none'}", f"--decode_as={other}")
    assert (needs_run.code, "--decode_as" in needs_run.err) == (2, True)


def test_a_model_of_another_kind_cannot_be_decoded(trained):
    done = run_here(program, f"--workdir={trained}", "--decode_as=configs/sasrec.py")
    assert done.code == 2
    assert "holds a model of igd, which sasrec cannot decode" in done.err


def test_the_split_names_the_evaluation_unless_a_name_is_given(trained):
    done = run_here(program, f"--workdir={trained}", "--split=valid", "--config.eval.max_examples=2")
    assert (done.code, done.err) == (0, "")
    predictions, metrics = _read(trained, "valid")
    assert [line["user"] for line in predictions] == ["valid customer 0", "valid customer 6"]
    assert metrics["n"] == 2
    assert "checkpoint of step 18, valid loss" in done.out
    assert "candidates (catalogue): 23 of 23 items, 22 titles" in done.out


def test_a_model_folder_needs_no_training(tiny, tmp_path, capsys):
    config = tiny_run.tiny_config(tiny, {"eval.max_examples": 2})
    for name in ("first", "second"):
        program.evaluate(config, Workdir(str(tmp_path / "run")), name=name)
    assert f"no training: weights of {tiny / 'model'}" in capsys.readouterr().out
    first, second = (_read(tmp_path / "run", name) for name in ("first", "second"))
    assert first == second
    assert len(first[0]) == 2


# ------------------------------------------------------------------------------------------------------ what is refused
@pytest.mark.parametrize(
    ("ks", "message"),
    [
        ((1, 5), r"config.eval.ks is \(1, 5\), but lists have a length of 4; raise config.decode.top_k "),
        ((), r"config.eval.ks is \(\); expected at least one number"),
        ((0,), r"config.eval.ks\[0\] is 0; expected a length of lists"),
    ],
)
def test_cut_offs_beyond_the_lists_are_bad_input(tiny, trained, ks, message):
    with pytest.raises(InputError, match=message):
        program.evaluate(tiny_run.tiny_config(tiny, {"eval.ks": ks}), Workdir(str(trained)), name="none")
    assert not (trained / "eval" / "none").exists()


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
