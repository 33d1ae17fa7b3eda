import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from command import run_here
from evaluation_folders import N_ROWS, assert_one_line_error, read, run_command, write_evaluation

from igd_jax import compare as program
from igd_jax.compare import compare, compare_folders
from igd_jax.core.errors import InputError
from igd_jax.core.io import write_json
from igd_jax.evaluation.evaluations import find_all_evaluations, find_evaluations, read_evaluation, short_labels
from igd_jax.evaluation.predictions import Target, read_predictions, write_predictions
from igd_jax.evaluation.record import CheckpointRecord, EvaluationRecord
from igd_jax.evaluation.significance import MIN_USERS
from igd_jax.evaluation.user_metrics import user_metrics


@pytest.fixture
def runs(tmp_path):
    """Run `a` hits 10 rows first and 10 second; `b` hits the same 20 and 20 more first; `c` hits like `a`."""
    a = [0] * 10 + [1] * 10 + [-1] * 40
    b = [0] * 40 + [-1] * 20
    for name, rank in (("a", a), ("b", b), ("c", a)):
        write_evaluation(tmp_path / name / "eval" / "test", rank)
    return tmp_path


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


def test_what_is_printed_is_written_too_and_replaces_an_older_comparison_only(runs):
    folders = [f"{name}/eval/test" for name in "ab"]
    table = run_here(program, *(str(runs / folder) for folder in folders))
    assert (table.code, table.err) == (0, "")
    assert table.out == f"{(runs / 'compare.md').read_text()}\nwritten to {runs / 'compare.md'} and compare.json\n"
    again = run_here(program, *(str(runs / folder) for folder in folders), "--json", f"--output={runs / 'new' / 'one'}")
    assert again.out == (runs / "new" / "one" / "compare.json").read_text() == (runs / "compare.json").read_text()
    for name, content in (("compare.md", "mine"), ("compare.json", "[1]")):
        (other := runs / f"with {name}").mkdir()
        (other / name).write_text(content)
        done = run_here(program, *(str(runs / folder) for folder in folders), f"--output={other}")
        assert done.code == 2
        assert f"{other} holds a compare.md or compare.json that no comparison wrote; name another" in done.err
        assert [path.read_text() for path in other.iterdir()] == [content]


def test_json_may_stand_after_the_runs(runs):
    result = run_command(runs, "a", "b/eval/test", "--json")
    comparison = json.loads(result.stdout)
    assert (comparison["n"], comparison["ks"], comparison["reference"]) == (60, [1, 3], "a")
    hr = comparison["runs"]["b"]["hr@3"]
    assert hr["value"] == pytest.approx(40 / 60)
    assert hr["difference"] == pytest.approx(20 / 60)
    assert hr["low"] < 20 / 60 < hr["high"]
    low, high = hr["together"]
    assert 0 < low < hr["low"] < hr["high"] < high
    assert hr["excludes_zero"] is hr["significant"] is True
    assert hr["p"] < 0.01
    assert comparison["winner"]["hr@3"] == "b"
    assert comparison["n_comparisons"] == 4
    assert comparison["popularity"]["ndcg@1"] == 0.125
    assert comparison["runs"]["a"]["ndcg@3"] == {"value": pytest.approx((10 + 10 / np.log2(3)) / 60)}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["a", "nowhere"], ["nowhere is not a folder"]),
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
    write_evaluation(runs / "a" / "eval" / "baseline.old", [0] * N_ROWS)
    for left in (".beta.0123abcd.partial", ".test.0123abcd.old"):
        (runs / "a" / "eval" / left).mkdir()
    folders = find_evaluations(str(runs / "a"))
    assert folders == [runs / "a" / "eval" / name for name in ("alpha=0.2", "baseline.old", "test")]
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
        (["runs/eval/a", "runs/a"], ["eval/a", "a"]),
        (["runs/a/eval/test", "runs/a/test", "runs/b"], ["a/eval/test", "a/test", "b"]),
    ],
)
def test_labels_are_the_parts_of_the_paths_that_differ(folders, labels):
    assert short_labels([Path(folder) for folder in folders]) == labels


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
        with pytest.raises(InputError, match=r"predictions.jsonl line 1 is not a prediction"):
            read_evaluation("a", folder)
    (folder / "predictions.jsonl").write_bytes(b"\xff\n")
    with pytest.raises(InputError, match=r"line 1 is not a prediction"):
        read_evaluation("a", folder)
    (folder / "predictions.jsonl").write_text("")
    with pytest.raises(InputError, match="has no rows"):
        read_evaluation("a", folder)
    (folder / "predictions.jsonl").unlink()
    with pytest.raises(InputError, match=r"predictions.jsonl does not exist"):
        read_evaluation("a", folder)


def test_what_made_an_evaluation_is_part_of_it(tmp_path):
    folder = write_evaluation(tmp_path / "a", [0, 1])
    assert read_evaluation("a", folder).record == EvaluationRecord(CheckpointRecord(18, None), None, {"commit": None})
    record = json.loads((folder / "env.json").read_text())
    (folder / "env.json").write_text(json.dumps(record | {"predictions_schema": 2}))
    with pytest.raises(InputError, match=r"env.json says that predictions.jsonl has schema 2, but .* reads up to 1"):
        read_evaluation("a", folder)
    (folder / "env.json").unlink()
    with pytest.raises(InputError, match=r"env.json does not exist, so nothing says what made this evaluation; run"):
        read_evaluation("a", folder)


def write_users(folder: Path, items: tuple[str, ...], warm: tuple[bool, ...], ranks: list[int]) -> Path:
    """An evaluation by users: the first has these targets, at these ranks; the second is found at once."""
    write_evaluation(folder, [1, 0])
    one, other = read_predictions(folder / "predictions.jsonl")
    write_predictions(folder / "predictions.jsonl", [replace(one, target=Target(items, "Title 0", warm)), other])
    found = user_metrics(np.array([*ranks, 0]), np.array([0] * len(ranks) + [1]), [1, 3])
    means = {name: values.mean() for name, values in found.items()}
    write_json(folder / "metrics.json", {"n": 2, "protocol": "users", **means})
    return folder


def test_several_targets_of_a_user_are_found_by_their_items(tmp_path):
    """A user who is found once of twice, at place 2, and whose second target is cold; and one who is found at once."""
    folder = write_users(tmp_path / "users", ("i0", "nowhere"), (True, False), [1, -1])
    found = user_metrics(np.array([1, -1, 0]), np.array([0, 0, 1]), [1, 3])
    evaluation = read_evaluation("users", folder)
    assert {name: values.tolist() for name, values in evaluation.by_row.items()} == {
        name: values.tolist() for name, values in found.items()
    }
    assert [answer.ranks for answer in evaluation.answers] == [(1, -1), (0,)]
    assert [answer.ranks for answer in read_evaluation("users", folder, group="warm").answers] == [(1,)]


def test_targets_of_a_user_that_do_not_count_in_both_are_no_ground_for_comparison(tmp_path):
    """The first user has two targets in one evaluation and one in the other; or two, of which others are warm."""

    both = write_users(tmp_path / "both", ("i0", "nowhere"), (True, False), [1, -1])
    fewer = write_users(tmp_path / "fewer", ("i0",), (True,), [1])
    colder = write_users(tmp_path / "colder", ("i0", "nowhere"), (False, True), [1, -1])
    with pytest.raises(InputError, match=r"line 1: 2 of 2 targets count in both, 1 of 1 in fewer"):
        compare_folders([both, fewer])
    assert len(compare_folders([both, colder])["runs"]) == 2
    with pytest.raises(InputError, match=r"line 1: 1 of 2 targets count in both, 1 of 2 in colder, or other ones"):
        compare_folders([both, colder], group="warm")


def test_the_folder_of_a_sweep_stands_for_its_runs(tmp_path):
    for run, names in (("beta=1", ("test", "valid")), ("beta=2", ("valid",))):
        for name in names:
            write_evaluation(tmp_path / "sweep" / run / "eval" / name, [0])
    write_evaluation(tmp_path / "named" / "seed=1" / "eval" / "valid,alpha=0.2", [0])
    write_evaluation(tmp_path / "named" / "seed=1" / "eval" / "validated", [0])
    write_evaluation(tmp_path / "other" / "seed=1" / "eval" / "valid", [0])
    assert find_all_evaluations(str(tmp_path / "sweep")) == [tmp_path / "sweep" / "beta=1" / "eval" / "test"]
    assert find_all_evaluations(str(tmp_path / "other")) == [tmp_path / "other" / "seed=1" / "eval" / "valid"]
    assert [folder.name for folder in find_all_evaluations(str(tmp_path / "named"))] == ["validated"]
    with pytest.raises(InputError, match="holds no evaluation"):
        find_all_evaluations(str(tmp_path))


def test_other_candidates_and_steps_are_told_in_the_caption_and_the_json(tmp_path):
    for name, candidates, step in (
        ("a/eval/test", "catalogue", 6),
        ("a/eval/tr", "train", 4),
        ("b/eval/test", "train", 9),
    ):
        write_evaluation(tmp_path / name, [0, -1], candidates=candidates, step=step)
    table = run_here(program, str(tmp_path / "a"), str(tmp_path / "b")).out
    assert "all targets. Candidates differ: catalogue (a/test), train (a/tr, b/test); metrics" in table
    assert "Weights of one run differ: step 6 (a/test), step 4 (a/tr). " in table
    found = json.loads((tmp_path / "compare.json").read_text())
    assert found["candidates"] == {"a/test": "catalogue", "a/tr": "train", "b/test": "train"}
    a, b = str(tmp_path / "a"), str(tmp_path / "b")
    assert found["weights"] == {
        "a/test": {"run": a, "step": 6}, "a/tr": {"run": a, "step": 4}, "b/test": {"run": b, "step": 9}
    }  # fmt: skip
    same = run_here(program, f"{a}/eval/tr", f"{b}/eval/test").out
    assert "all targets, candidates: train. Difference" in same
    assert "differ:" not in same


def test_other_prepared_data_are_told_where_they_are_known(tmp_path):
    for name, data in (("a", "11aa"), ("b", None), ("c", "11aa"), ("d", "22bb")):
        write_evaluation(tmp_path / name, [0, -1], data=data)
    known = run_here(program, *(str(tmp_path / name) for name in "abc")).out
    assert "data differ" not in known
    table = run_here(program, *(str(tmp_path / name) for name in "abcd")).out
    assert "Prepared data differ, though not the rows that are ranked: fingerprint 11aa (a, c), 22bb (d)." in table
    found = json.loads((tmp_path / "compare.json").read_text())
    assert found["data"] == {"a": "11aa", "b": None, "c": "11aa", "d": "22bb"}


def test_which_item_of_a_title_is_the_target_may_differ(tmp_path):
    """As it does between candidates of which one has another item of that title."""
    a, b = (write_evaluation(tmp_path / name, [0, 1, 2]) for name in "ab")
    path = b / "predictions.jsonl"
    path.write_text(path.read_text().replace('"i1"', '"another of the title"'))
    assert compare(read(a, b))["runs"][str(b)]["hr@3"]["difference"] == 0


def test_what_rows_are_restricted_to_is_part_of_their_candidates(tmp_path):
    config = {"train": {"seed": 1}, "eval": {"split": "test"}, "decode": {"allowed": "", "exclude_history": False}}
    for name, decode in (
        ("a", {}),
        ("b", {"allowed": "lists.jsonl", "exclude_history": True}),
        ("c", {"exclude_history": True}),
    ):
        restricted = config | {"decode": config["decode"] | decode}
        write_evaluation(tmp_path / name, [0, -1], candidates="catalogue", config=restricted)
    table = run_here(program, *(str(tmp_path / name) for name in "abc")).out
    assert (
        "Candidates differ: catalogue (a), catalogue and, for each row, lists.jsonl without the history (b), catalogue "
        "without the history (c); metrics among" in table
    )


def test_candidates_of_fewer_train_rows_are_others(tmp_path):
    for name, rows in (("a", 0), ("b", 1000)):
        config = {
            "train": {"seed": 1},
            "eval": {"split": "test"},
            "data": {"candidates": "train", "max_examples": rows},
        }
        write_evaluation(tmp_path / name, [0, -1], candidates="train", config=config)
    table = run_here(program, *(str(tmp_path / name) for name in "ab")).out
    assert "Candidates differ: train (a), train of 1,000 train rows (b); metrics among" in table


def test_which_targets_are_warm_may_differ(tmp_path):
    """As it does between runs with different data.max_examples."""
    a, b = (write_evaluation(tmp_path / name, [0, 1, 2]) for name in "ab")
    path = b / "predictions.jsonl"
    path.write_text(path.read_text().replace('"warm": [true]', '"warm": [false]', 1))
    assert compare(read(a, b))["n"] == 3
    with pytest.raises(InputError, match=r"a has 2 rows, b 1; .*and, with --targets, of runs on the same train rows"):
        compare_folders([a, b], group="warm")


@pytest.mark.parametrize("n_users", [1, MIN_USERS - 1, MIN_USERS])
def test_few_users_show_nothing_for_certain(tmp_path, n_users):
    """Whose bootstrap would call any difference certain that all of them have."""
    folders = [write_evaluation(tmp_path / name, [rank] * n_users) for name, rank in (("a", -1), ("b", 0))]
    table = run_here(program, *map(str, folders)).out
    found, enough = json.loads((tmp_path / "compare.json").read_text()), n_users == MIN_USERS
    assert found["n_users"] == n_users
    assert found["runs"]["b"]["hr@1"]["significant"] is enough
    assert found["winner"]["hr@1"] == ("b" if enough else None)
    caution = f"There are {n_users} users, too few to tell a difference from chance, which takes 50."
    assert (caution in table) is not enough
    assert ("] *" in table) is ("**" in table) is enough


def test_targets_of_one_kind_alone(runs):
    """Even rows are warm; `a` hits 5 of them first and 5 second."""
    folders = [runs / name / "eval" / "test" for name in "ab"]
    found = compare_folders(folders, group="warm")
    assert (found["n"], found["targets"]) == (30, "warm")
    assert [found["runs"][name]["hr@1"]["value"] for name in "ab"] == [5 / 30, 20 / 30]
    assert found["popularity"]["hr@1"] is None
    result = run_command(runs, "a", "b", "--targets=cold")
    assert "30 rows of a split that no config.json names, cold targets." in result.stdout
    assert_one_line_error(run_command(runs, "a", "b", "--targets=new"), "--targets", "warm|cold")
