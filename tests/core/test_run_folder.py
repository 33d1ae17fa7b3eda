"""Folders that may be those of a run, or of a sweep, and others."""

import sys

import pytest

from igd_jax.core.errors import InputError
from igd_jax.core.io import Workdir
from igd_jax.core.run_folder import check_takes_run, check_takes_sweep


def _made(folder, *names):
    for name in names:
        path = folder / name
        if name.endswith("/"):
            path.mkdir(parents=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    return folder


@pytest.mark.parametrize(
    "names",
    [
        ["new/"],
        ["config.json", "notes.md", "anything/"],
        ["checkpoints/", "tb/", "tokenizer/", "metrics.jsonl", "env.json", ".config.json.0a1b2c3d.partial"],
        ["eval/test/", "cache/", "report.html", "analysis/", "answers.jsonl"],
        ["lost+found/"],
        ["train.log", "slurm-1.out", "log", ".run.lock", ".cache/"],
    ],
)
def test_a_new_folder_a_run_or_what_one_leaves(tmp_path, names):
    check_takes_run(Workdir(str(_made(tmp_path, *names) / ("new" if names == ["new/"] else ""))))


@pytest.mark.parametrize("words", [["--config={}:seed=1"], ["--config", "{}"]])
def test_an_experiment_may_stand_in_the_folder_of_its_run(tmp_path, monkeypatch, words):
    workdir = Workdir(str(_made(tmp_path, "experiment.py")))
    with pytest.raises(InputError, match=r"but 'experiment.py'"):
        check_takes_run(workdir)
    monkeypatch.setattr(sys, "argv", ["train", *(word.format(tmp_path / "experiment.py") for word in words)])
    check_takes_run(workdir)


def test_a_folder_that_does_not_exist(tmp_path):
    check_takes_run(Workdir(str(tmp_path / "a" / "b")))
    check_takes_sweep(tmp_path / "a" / "b")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["meta.json", "items.txt"], r"which another command of igd_jax wrote \(meta.json is in it\)"),
        ([".igd_jax", "config.json"], r"wrote \(.igd_jax is in it\)"),
        (["igd/config.json", "sft/config.json"], r"which has no run \(no config.json in it\), but 'igd'; name a new f"),
        (["thesis.tex", "train.log"], r"but 'thesis.tex'"),
        (["logs.txt/"], r"but 'logs.txt'"),
    ],
)
def test_other_folders_are_no_place_for_a_run(tmp_path, names, message):
    with pytest.raises(InputError, match=message):
        check_takes_run(Workdir(str(_made(tmp_path, *names))))


def test_a_file_is_no_place_for_a_run(tmp_path):
    (file := tmp_path / "my.csv").touch()
    with pytest.raises(InputError, match=r"^--workdir is .*my.csv, which is a file; name a folder for the run, which"):
        check_takes_run(Workdir(str(file)))
    with pytest.raises(InputError, match=r"^--output is .*my.csv, which is a file; name a folder for the runs, which"):
        check_takes_sweep(file)


def test_a_sweep_goes_on_in_its_folder(tmp_path):
    check_takes_sweep(_made(tmp_path, "seed=1/config.json", "compare.md"))


@pytest.mark.parametrize("name", ["meta.json", ".igd_jax", "config.json"])
def test_data_exports_and_runs_are_no_place_for_a_sweep(tmp_path, name):
    wanted = "one for many runs" if name == "config.json" else "a folder for the runs alone"
    with pytest.raises(InputError, match=rf"--output is .*\({name} is in it\); name {wanted}"):
        check_takes_sweep(_made(tmp_path, name))
