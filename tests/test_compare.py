import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from igd_jax.compare import compare, compare_folders
from igd_jax.core.errors import InputError
from igd_jax.core.io import write_json
from igd_jax.evaluation.evaluations import find_evaluations, read_evaluation, short_labels
from igd_jax.evaluation.metrics import mean_metrics
from igd_jax.evaluation.predictions import Prediction, Result, Target, read_predictions, write_predictions
from igd_jax.evaluation.record import CheckpointRecord, EvaluationRecord, write_record
from igd_jax.evaluation.user_metrics import user_metrics

N_ROWS, N_RESULTS = 60, 3


def write_evaluation(folder: Path, rank, *, ks=(1, 3), user="u", with_metrics=True, config=None):
    """An evaluation whose row r hits at rank[r] (-1: not at all); each title is shared by two items."""
    folder.mkdir(parents=True)
    predictions = []
    for row, place in enumerate(rank):
        names = [("other", f"i{row}") if j == place else (f"x{j}", f"y{j}") for j in range(N_RESULTS)]
        ranked = tuple(Result(items, f"T{j}", -float(j), (1,)) for j, items in enumerate(names))
        target = Target((f"i{row}",), f"Title {row}", (row % 2 == 0,))
        predictions.append(Prediction(row, f"{user}{row}", target, ranked))
    write_predictions(folder / "predictions.jsonl", predictions)
    write_record(folder / "env.json", EvaluationRecord(CheckpointRecord(18, None), {"commit": None}))
    if with_metrics:
        baseline = {f"{metric}@{k}": 0.125 for metric in ("hr", "ndcg") for k in ks}
        counts = {"n": len(rank), "invalid": 0, "protocol": "rows", "popularity_baseline": baseline}
        write_json(folder / "metrics.json", mean_metrics(np.array(rank), ks) | counts)
    if config is not None:
        write_json(folder / "config.json", config)
    return folder


@pytest.fixture
def runs(tmp_path):
    """Run `a` hits 10 rows first and 10 second; `b` hits the same 20 and 20 more first; `c` hits like `a`."""
    a = [0] * 10 + [1] * 10 + [-1] * 40
    b = [0] * 40 + [-1] * 20
    for name, rank in (("a", a), ("b", b), ("c", a)):
        write_evaluation(tmp_path / name / "eval" / "test", rank)
    return tmp_path


def read(*folders):
    return [read_evaluation(str(folder), folder) for folder in folders]


def run_command(cwd, *arguments):
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    command = [sys.executable, "-m", "igd_jax.compare", *arguments]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)


def assert_one_line_error(result, *words):
    assert result.returncode == 2
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    assert all(word in result.stderr for word in words), result.stderr


def test_table_end_to_end(runs):
    result = run_command(runs, "a", "b/", "c")
    assert result.returncode == 0, result.stderr
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in result.stdout.splitlines()]
    assert rows[0] == ["metric", "a", "b", "difference", "c", "difference", "popularity"]
    cells = {row[0]: row[1:] for row in rows[2:6]}
    assert list(cells) == ["hr@1", "hr@3", "ndcg@1", "ndcg@3"]
    assert cells["hr@1"][:2] == ["0.1667", "**0.6667**"]
    assert cells["hr@1"][5] == "0.1250"
    assert cells["hr@1"][2].startswith("+0.5000 [+0.3")
    assert cells["hr@1"][2].endswith("] *")
    assert cells["hr@3"][4] == "+0.0000 [+0.0000, +0.0000]"


def test_json_may_stand_after_the_runs(runs):
    result = run_command(runs, "a", "b/eval/test", "--json")
    comparison = json.loads(result.stdout)
    assert (comparison["n"], comparison["ks"], comparison["reference"]) == (60, [1, 3], "a")
    hr = comparison["runs"]["b"]["hr@3"]
    assert hr["value"] == pytest.approx(40 / 60)
    assert hr["difference"] == pytest.approx(20 / 60)
    assert hr["low"] < 20 / 60 < hr["high"]
    assert hr["excludes_zero"] is hr["significant"] is True
    assert hr["p"] < 0.01
    assert comparison["winner"]["hr@3"] == "b"
    assert comparison["n_comparisons"] == 4
    assert comparison["popularity"]["ndcg@1"] == 0.125
    assert comparison["runs"]["a"]["ndcg@3"] == {"value": pytest.approx((10 + 10 / np.log2(3)) / 60)}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["a", "nowhere"], ["nowhere is no folder"]),
        (["a", "empty"], ["empty holds no evaluation", "igd_jax.evaluate"]),
        (["a"], ["two evaluations", "a/eval/test; name another run"]),
        (["a", "a/eval/test"], ["two evaluations", "a/eval/test; name another run"]),
        ([], ["two evaluations", "got none"]),
        (["a", "other"], ["line 1", '"u0"', '"v0"', "in other"]),
        (["a", "b", "--josn"], ["josn"]),
    ],
)
def test_bad_input_is_one_line_and_exit_code_two(runs, arguments, words):
    (runs / "empty").mkdir()
    write_evaluation(runs / "other" / "eval" / "test", [0] * N_ROWS, user="v")
    assert_one_line_error(run_command(runs, *arguments), *words)


def test_several_evaluations_of_a_run_each_take_part(runs):
    write_evaluation(runs / "a" / "eval" / "alpha=0.2", [0] * N_ROWS)
    (runs / "a" / "eval" / "beta.partial").mkdir()
    folders = find_evaluations(str(runs / "a"))
    assert folders == [runs / "a" / "eval" / "alpha=0.2", runs / "a" / "eval" / "test"]
    result = compare_folders(folders)
    assert result["reference"] == "alpha=0.2"
    assert result["runs"]["test"]["hr@1"]["difference"] == pytest.approx(10 / 60 - 1)


@pytest.mark.parametrize(
    ("folders", "labels"),
    [
        (["runs/a/eval/test", "runs/b/eval/test"], ["a", "b"]),
        (["runs/a/eval/test", "runs/a/eval/x=0", "runs/b/eval/test"], ["a/test", "a/x=0", "b/test"]),
        (["runs/a/eval/test", "runs/a/eval/x=0"], ["test", "x=0"]),
        (["runs/a", "runs/a/eval/test"], ["a", "a/test"]),
        (["x/a/eval/test", "y/a/eval/test"], ["x", "y"]),
    ],
)
def test_labels_are_the_parts_of_the_paths_that_differ(folders, labels):
    assert short_labels([Path(folder) for folder in folders]) == labels


# ------------------------------------------------------------------------------------------------------ several seeds
def config_of(seed, *, beta=0.1, source="runs/sasrec/eval/test"):
    return {
        "method": {"args": {"beta": beta}},
        "decode": {"collaborative": source},
        "train": {"seed": seed, "num_steps": 1},
    }


@pytest.fixture
def seeds(tmp_path):
    """Two seeds of beta 0.1 that hit other rows, and two of beta 0.5 that miss 10 more."""
    hits = np.where(np.arange(N_ROWS) < 40, 0, -1)
    folders = []
    for beta, shift, kept in ((0.1, 7, 60), (0.5, 3, 30)):
        for seed in (1, 2):
            rank = np.where(np.arange(N_ROWS) < kept, np.roll(hits, shift * seed), -1)
            rank[0] = 0 if seed == 1 else -1
            folder = tmp_path / f"beta={beta},seed={seed}" / "eval" / "test"
            folders.append(write_evaluation(folder, rank.tolist(), config=config_of(seed, beta=beta)))
    return folders


def test_seeds_of_a_config_are_one_method_with_mean_and_spread(seeds):
    result = compare_folders(seeds)
    assert result["evaluations"] == {
        "beta=0.1,seed=*": ["beta=0.1,seed=1", "beta=0.1,seed=2"],
        "beta=0.5,seed=*": ["beta=0.5,seed=1", "beta=0.5,seed=2"],
    }
    for label, folders in zip(result["runs"], (seeds[:2], seeds[2:]), strict=True):
        values = [json.loads((folder / "metrics.json").read_text())["hr@1"] for folder in folders]
        assert result["runs"][label]["hr@1"]["value"] == pytest.approx(np.mean(values))
        assert result["runs"][label]["hr@1"]["spread"] == pytest.approx(abs(values[0] - values[1]) / np.sqrt(2))


def test_differences_are_between_rows_averaged_over_the_seeds(seeds, tmp_path):
    """Two seeds whose hits add up to those of others in every row are the same method in each row."""
    one, other = [0, 0, -1, -1] * 15, [-1, -1, 0, 0] * 15
    folders = [
        write_evaluation(tmp_path / f"{beta}-{seed}", rank, config=config_of(seed, beta=beta))
        for beta, (first, second) in ((1, (one, other)), (2, ([0, -1] * 30, [-1, 0] * 30)))
        for seed, rank in ((1, first), (2, second))
    ]
    result = compare_folders(folders)
    assert list(result["runs"]) == ["1-*", "2-*"]
    hr = result["runs"]["2-*"]["hr@1"]
    assert (hr["difference"], hr["low"], hr["high"], hr["p"], hr["significant"]) == (0, 0, 0, 1, False)
    assert result["winner"] == dict.fromkeys(["hr@1", "hr@3", "ndcg@1", "ndcg@3"])


def test_paths_may_follow_the_seed_but_nothing_else_may_differ(tmp_path):
    def n_methods(*configs):
        folders = [tmp_path / f"{hash(str(configs))}-{number}" for number in range(len(configs))]
        for folder, config in zip(folders, configs, strict=True):
            write_evaluation(folder, [0, -1], config=config)
        return len(compare_folders(folders)["runs"])

    for form in ("runs/sasrec-seed{}/eval/test", "runs/seed={}", "a,seed_{},b", "seed{}"):
        assert n_methods(config_of(1, source=form.format(1)), config_of(11, source=form.format(11))) == 1
    assert n_methods(config_of(1, source="seed1"), config_of(2, source="seed1")) == 2
    assert n_methods(config_of(1, source="seed1"), config_of(2, source="seed23")) == 2
    assert n_methods(config_of(1, source="seed12"), config_of(2, source="seed22")) == 2
    assert n_methods(config_of(1, source="v1"), config_of(2, source="v2")) == 2
    assert n_methods(config_of(1), config_of(2, beta=0.2)) == 2
    chosen = {"chosen": {"field": "method.args.beta", "values": [0.1, 0.2]}}
    assert n_methods(config_of(1) | chosen, config_of(2, beta=0.2) | chosen) == 1
    assert n_methods(config_of(1) | chosen, config_of(2)) == 2


def test_the_same_seed_again_begins_another_method(tmp_path):
    folders = [
        write_evaluation(tmp_path / code / f"s{seed}", [0, -1], config=config_of(seed))
        for code in ("old", "new")
        for seed in (1, 2)
    ]
    result = compare_folders(folders)
    assert result["evaluations"] == {"old/s*": ["old/s1", "old/s2"], "new/s*": ["new/s1", "new/s2"]}


def test_seeds_of_one_method_alone_are_told_to_be_one_method(seeds):
    done = run_command(seeds[0].parents[2], "beta=0.1,seed=1", "beta=0.1,seed=2")
    assert done.returncode == 0, done.stderr
    assert "one method only" in done.stdout
    assert "± 0.0" in done.stdout


# --------------------------------------------------------------------------------------------- correction and winners
def test_a_winner_must_beat_the_second_best_and_not_only_the_first(tmp_path):
    low, high, higher = ([0] * n + [-1] * (N_ROWS - n) for n in (5, 40, 42))
    folders = [
        write_evaluation(tmp_path / name, rank) for name, rank in (("a", low), ("b", high), ("c", higher), ("d", low))
    ]
    result = compare_folders(folders)
    assert result["runs"]["c"]["hr@1"]["significant"]
    assert result["winner"]["hr@1"] is None
    assert compare_folders([*folders[:2], folders[3]])["winner"]["hr@1"] == "b"
    assert compare_folders([folders[1], folders[0]])["winner"]["hr@1"] == "b"


def test_each_metric_is_judged_by_itself(tmp_path):
    first = write_evaluation(tmp_path / "first", [0] * 40 + [-1] * 20)
    second = write_evaluation(tmp_path / "second", [1] * 40 + [-1] * 20)
    result = compare_folders([first, second])
    assert {name: metric["significant"] for name, metric in result["runs"]["second"].items()} == {
        "hr@1": True, "hr@3": False, "ndcg@1": True, "ndcg@3": True,
    }  # fmt: skip
    assert result["winner"] == {"hr@1": "first", "hr@3": None, "ndcg@1": "first", "ndcg@3": "first"}


def test_a_difference_alone_may_be_none_among_many(tmp_path):
    rng = np.random.default_rng(0)
    base = np.where(np.arange(N_ROWS) < 20, 0, -1)
    better = np.where((np.arange(N_ROWS) < 25) & (np.arange(N_ROWS) != 3), 0, -1)
    folders = [write_evaluation(tmp_path / "a", base.tolist()), write_evaluation(tmp_path / "b", better.tolist())]
    alone = compare_folders(folders)["runs"]["b"]["hr@1"]
    many = [write_evaluation(tmp_path / f"x{n}", rng.permutation(base).tolist()) for n in range(8)]
    among = compare_folders([*folders, *many])["runs"]["b"]["hr@1"]
    assert (alone["low"], alone["high"]) == pytest.approx((among["low"], among["high"]), abs=0.02)
    assert among["p"] > 1.5 * alone["p"]


def test_hit_is_any_item_of_the_title_and_the_first_one_counts(tmp_path):
    folder = write_evaluation(tmp_path / "e", [1])
    path = folder / "predictions.jsonl"
    entry = json.loads(path.read_text())
    entry["ranked"][2]["items"] = ["i0"]
    path.write_text(json.dumps(entry) + "\n")
    assert read_evaluation("e", folder).by_row["hr@1"].tolist() == [0]
    assert read_evaluation("e", folder).by_row["hr@3"].tolist() == [1]


def test_only_cut_offs_in_common_are_compared(tmp_path):
    a = write_evaluation(tmp_path / "a", [0, -1], ks=(1, 2))
    b = write_evaluation(tmp_path / "b", [0, 2], ks=(2, 3))
    result = compare(read(a, b))
    assert (result["ks"], result["ks_skipped"]) == ([2], [1, 3])
    c = write_evaluation(tmp_path / "c", [0, 2], ks=(3,))
    with pytest.raises(InputError, match="no k in common"):
        compare(read(a, c))


def test_other_rows_or_targets_are_refused(tmp_path):
    a = write_evaluation(tmp_path / "a", [0, 1])
    longer = write_evaluation(tmp_path / "longer", [0, 1, 2])
    with pytest.raises(InputError, match=r"has 2 rows, .*longer 3"):
        compare(read(a, longer))
    moved = write_evaluation(tmp_path / "moved", [0, -1])
    path = moved / "predictions.jsonl"
    path.write_text(path.read_text().replace("Title 1", "Another"))
    with pytest.raises(InputError, match=r"line 2: target is .*Title 1.*Another"):
        compare(read(a, moved))


def test_predictions_and_metrics_of_two_evaluations_are_refused(tmp_path):
    folder = write_evaluation(tmp_path / "a", [0, 1, -1])
    metrics = json.loads((folder / "metrics.json").read_text())
    for name, value in (("hr@1", 0.9), ("ndcg@3", None), ("n", 4)):
        (folder / "metrics.json").write_text(json.dumps({**metrics, name: value}))
        with pytest.raises(InputError, match=f"gives {name} "):
            read_evaluation("a", folder)


def test_missing_and_malformed_files_are_named(tmp_path):
    folder = write_evaluation(tmp_path / "a", [0, 1], with_metrics=False)
    with pytest.raises(InputError, match=r"metrics.json does not exist"):
        read_evaluation("a", folder)
    (folder / "metrics.json").write_text("[]")
    with pytest.raises(InputError, match=r"metrics.json holds no metrics"):
        read_evaluation("a", folder)
    (folder / "metrics.json").write_text("{}")
    with pytest.raises(InputError, match=r"metrics.json tells of the protocol None, which is not known"):
        read_evaluation("a", folder)
    (folder / "metrics.json").write_text('{"protocol": "rows"}')
    for text in ('{"row": 0}\n', "not json\n", "[]\n"):
        (folder / "predictions.jsonl").write_text(text)
        with pytest.raises(InputError, match=r"predictions.jsonl line 1 is no prediction"):
            read_evaluation("a", folder)
    (folder / "predictions.jsonl").write_bytes(b"\xff\n")
    with pytest.raises(InputError, match=r"line 1 is no prediction"):
        read_evaluation("a", folder)
    (folder / "predictions.jsonl").write_text("")
    with pytest.raises(InputError, match="has no rows"):
        read_evaluation("a", folder)
    (folder / "predictions.jsonl").unlink()
    with pytest.raises(InputError, match=r"predictions.jsonl does not exist"):
        read_evaluation("a", folder)


def test_what_made_an_evaluation_is_part_of_it(tmp_path):
    folder = write_evaluation(tmp_path / "a", [0, 1])
    assert read_evaluation("a", folder).record == EvaluationRecord(CheckpointRecord(18, None), {"commit": None})
    record = json.loads((folder / "env.json").read_text())
    (folder / "env.json").write_text(json.dumps(record | {"predictions_schema": 2}))
    with pytest.raises(InputError, match=r"env.json says that predictions.jsonl has schema 2, but .* reads up to 1"):
        read_evaluation("a", folder)
    (folder / "env.json").unlink()
    with pytest.raises(InputError, match=r"env.json does not exist, so nothing says what made this evaluation; run"):
        read_evaluation("a", folder)


def test_several_targets_of_a_user_are_found_by_their_items(tmp_path):
    """A user who is found once of twice, at place 2, and whose second target is cold; and one who is found at once."""
    folder = write_evaluation(tmp_path / "users", [1, 0])
    one, other = read_predictions(folder / "predictions.jsonl")
    one = replace(one, target=Target(("i0", "nowhere"), "Title 0", (True, False)))
    write_predictions(folder / "predictions.jsonl", [one, other])
    found = user_metrics(np.array([1, -1, 0]), np.array([0, 0, 1]), [1, 3])
    means = {name: values.mean() for name, values in found.items()}
    write_json(folder / "metrics.json", {"n": 2, "protocol": "users", **means})
    evaluation = read_evaluation("users", folder)
    assert {name: values.tolist() for name, values in evaluation.by_row.items()} == {
        name: values.tolist() for name, values in found.items()
    }
    assert [answer.ranks for answer in evaluation.answers] == [(1, -1), (0,)]
    assert [answer.ranks for answer in read_evaluation("users", folder, group="warm").answers] == [(1,)]


def test_targets_of_one_kind_alone(runs):
    """Even rows are warm; `a` hits 5 of them first and 5 second."""
    folders = [runs / name / "eval" / "test" for name in "ab"]
    found = compare_folders(folders, group="warm")
    assert (found["n"], found["targets"]) == (30, "warm")
    assert [found["runs"][name]["hr@1"]["value"] for name in "ab"] == [5 / 30, 20 / 30]
    assert found["popularity"]["hr@1"] is None
    result = run_command(runs, "a", "b", "--targets=cold")
    assert "30 rows, cold targets." in result.stdout
    assert_one_line_error(run_command(runs, "a", "b", "--targets=new"), "--targets", "warm|cold")
