"""Two processes that write one place: the second is told in one line by whom, before it has written anything."""

import concurrent.futures
from pathlib import Path

import pytest
import tiny_run
from command import run_here, run_process
from holder import holding

from igd_jax import evaluate, prepare, recommend, sweep, train
from igd_jax.core.io import MARK
from igd_jax.data.prepared import load


def _arguments(tiny: Path) -> list[str]:
    fields = {"data.dir": tiny / "data", "model.path": tiny / "model", "mesh.data": 1}
    return ["--config=configs/igd.py", *(f"--config.{field}={value}" for field, value in fields.items())]


@pytest.mark.parametrize("command", ["prepare", "train", "evaluate", "sweep", "recommend"])
def test_a_place_that_another_process_writes_is_left_to_it(tiny, trained, tmp_path, command):
    place = trained / "eval" / "locked" if command == "evaluate" else tmp_path / "place"
    requests = tmp_path / "requests.jsonl"
    requests.write_text('{"history": ["sku0"]}\n')
    module, arguments = {
        "prepare": (prepare, ["--source=synthetic", f"--output={place}"]),
        "train": (train, [*_arguments(tiny), f"--workdir={place}"]),
        "evaluate": (evaluate, [f"--workdir={trained}", "--name=locked"]),
        "sweep": (sweep, [*_arguments(tiny), "--grid=train.seed=1", f"--output={place}"]),
        "recommend": (recommend, [f"--workdir={trained}", f"--input={requests}", f"--output={place}"]),
    }[command]
    with holding(place) as process:
        done = run_here(module, *arguments)
    assert done.code == 2
    assert f"{place} is being written by process {process.pid} on " in done.err
    assert len(done.err.splitlines()) == 1
    assert not place.exists()


def test_of_three_that_prepare_one_folder_one_wins_or_they_follow_each_other(tmp_path):
    out = tmp_path / "out"
    arguments = ("--source=synthetic", "--n_items=60", "--n_users=200", "--n_events=2000", f"--output={out}")
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        ended = list(pool.map(lambda _: run_process("prepare", *arguments), range(3)))
    assert sorted({done.code for done in ended}) in ([0], [0, 2]), [done.err for done in ended]
    assert all("is being written by process" in done.err for done in ended if done.code)
    load(out)
    assert {path.name for path in tmp_path.iterdir()} == {"out"}
    assert (out / MARK).is_file()


def test_evaluations_of_other_names_and_training_go_on_beside_one(tiny, trained):
    with holding(trained / "eval" / "locked"):
        done = run_here(evaluate, f"--workdir={trained}", "--name=beside", "--config.eval.max_examples=2")
        assert (done.code, done.err) == (0, "")
        assert train.train(tiny_run.tiny_config(tiny), train.Workdir(str(trained)))["best_step"] > 0
