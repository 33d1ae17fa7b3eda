import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from igd_jax.compare import compare, find_evaluations, read_evaluation
from igd_jax.core.errors import InputError
from igd_jax.evaluation.ranking import mean_metrics

N_ROWS, N_RESULTS = 60, 3


def write_evaluation(folder: Path, rank, *, ks=(1, 3), user="u", with_metrics=True):
    """An evaluation whose row r hits at rank[r] (-1: not at all); each title is shared by two items."""
    folder.mkdir(parents=True)
    lines = []
    for row, place in enumerate(rank):
        ranked = [
            {"items": [f"x{j}", f"y{j}"], "title": f"T{j}", "score": -float(j), "tokens": [1]} for j in range(N_RESULTS)
        ]
        if place >= 0:
            ranked[place]["items"] = ["other", f"i{row}"]
        target = {"items": [f"i{row}"], "title": f"Title {row}"}
        lines.append(json.dumps({"row": row, "user": f"{user}{row}", "target": target, "ranked": ranked}) + "\n")
    (folder / "predictions.jsonl").write_text("".join(lines), encoding="utf-8")
    if with_metrics:
        metrics = {**mean_metrics(np.array(rank), ks), "n": len(rank), "invalid": 0}
        (folder / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
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
    assert rows[0] == ["metric", "a", "b", "difference", "c", "difference"]
    cells = {row[0]: row[1:] for row in rows[2:6]}
    assert list(cells) == ["hr@1", "hr@3", "ndcg@1", "ndcg@3"]
    assert cells["hr@1"][:2] == ["0.1667", "0.6667"]
    assert cells["hr@1"][2].startswith("+0.5000 [+0.3")
    assert cells["hr@1"][2].endswith("] *")
    assert cells["hr@3"][4] == "+0.0000 [+0.0000, +0.0000]"


def test_json_may_stand_after_the_runs(runs):
    result = run_command(runs, "a", "b/eval/test", "--json")
    comparison = json.loads(result.stdout)
    assert (comparison["n"], comparison["ks"], comparison["reference"]) == (60, [1, 3], "a")
    hr = comparison["runs"]["b/eval/test"]["hr@3"]
    assert hr["value"] == pytest.approx(40 / 60)
    assert hr["difference"] == pytest.approx(20 / 60)
    assert hr["low"] < 20 / 60 < hr["high"]
    assert hr["excludes_zero"] is True
    assert comparison["runs"]["a"]["ndcg@3"] == {"value": pytest.approx((10 + 10 / np.log2(3)) / 60)}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["a", "nowhere"], ["nowhere is no folder"]),
        (["a", "empty"], ["empty holds no evaluation", "igd_jax.evaluate"]),
        (["a"], ["two evaluations", "got a"]),
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
    run = str(runs / "a")
    assert find_evaluations(run) == {
        f"{run}:alpha=0.2": runs / "a" / "eval" / "alpha=0.2",
        f"{run}:test": runs / "a" / "eval" / "test",
    }
    result = compare([read_evaluation(label, folder) for label, folder in find_evaluations(run).items()])
    assert result["runs"][f"{run}:test"]["hr@1"]["difference"] == pytest.approx(10 / 60 - 1)


def test_hit_is_any_item_of_the_title_and_the_first_one_counts(tmp_path):
    folder = write_evaluation(tmp_path / "e", [1])
    path = folder / "predictions.jsonl"
    entry = json.loads(path.read_text())
    entry["ranked"][2]["items"] = ["i0"]
    path.write_text(json.dumps(entry) + "\n")
    assert read_evaluation("e", folder).rank.tolist() == [1]


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
