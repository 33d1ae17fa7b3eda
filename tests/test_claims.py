"""The scripts of tables: what they train and decode, how they choose, what they compare, and that they go on."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
TITLES = ("sft", "igd", "pos", "cft", "msl")
SETS = ("setrec", "setrec_t5")
SEEDS = ("1", "2", "3")

STAND_IN = r"""
import itertools, json, os, pathlib, sys
program, *flags = sys.argv[2:]
with open(os.environ["RECORD"], "a") as record:
    record.write(json.dumps([program, *flags]) + "\n")
value = dict(flag[2:].split("=", 1) for flag in flags if flag.startswith("--") and "=" in flag)
def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{}")
if program == "igd_jax.prepare":
    touch(pathlib.Path(value["output"]) / "meta.json")
if program == "igd_jax.sweep":  # which chooses the last value of each field
    axes = [flag.removeprefix("--grid=").split("=") for flag in flags if flag.startswith("--grid=")]
    axes = [[(field.split(".")[-1], v) for v in values.split(",")] for field, values in axes]
    for point in itertools.product(*(axis if axis[0][0] == "seed" else axis[-1:] for axis in axes)):
        touch(pathlib.Path(value["output"]) / ",".join(map("=".join, point)) / "eval" / "test" / "metrics.json")
if program == "igd_jax.evaluate":
    touch(pathlib.Path(value["workdir"]) / "eval" / value["name"] / "metrics.json")
"""


class Command(NamedTuple):
    """A command of a script: its program, the last value of each flag, and all its words."""

    program: str
    flags: dict[str, str]
    words: list[str]


def _run(folder: Path, **settings: str) -> list[Command]:
    """What `launch/claims.sh` runs, for ML-100K unless the settings say otherwise, with a stand-in for Python."""
    (folder / "bin").mkdir(exist_ok=True)
    (folder / "stand_in.py").write_text(STAND_IN)
    stand_in = folder / "bin" / "python"
    stand_in.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "{folder}/stand_in.py" "$@"\n')
    stand_in.chmod(0o755)
    record = folder / "record"
    record.write_text("")
    environment = {"PATH": f"{folder}/bin:{os.environ['PATH']}", "RECORD": str(record), "SETS": "ml-100k"} | settings
    (folder / "data" / environment["SETS"]).mkdir(parents=True, exist_ok=True)
    script = [ROOT / "launch" / "claims.sh", str(folder / "data"), str(folder / "out")]
    done = subprocess.run(script, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    lines = [json.loads(line) for line in record.read_text().splitlines()]
    return [
        Command(program, dict(word[2:].split("=", 1) for word in words if "=" in word), words)
        for program, *words in lines
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("claims")


@pytest.fixture(scope="module")
def commands(folder):
    return _run(folder)


def _named(commands: list[Command], program: str) -> list[Command]:
    return [command for command in commands if command.program == program]


def _method(path: str) -> str:
    """The folder below OUT/ml-100k that a path leads through."""
    return path.split("/ml-100k/")[1].split("/")[0]


def _grid(command: Command) -> dict[str, str]:
    return dict(word.removeprefix("--grid=").split("=") for word in command.words if word.startswith("--grid="))


def test_every_method_is_trained_with_three_seeds_until_validation_says_so(commands):
    seeds: dict[str, set[str]] = {}
    for sweep in _named(commands, "igd_jax.sweep"):
        seeds.setdefault(_method(sweep.flags["output"] + "/"), set()).update(_grid(sweep)["train.seed"].split(","))
        assert sweep.flags["config.data.max_examples"] == sweep.flags["config.eval.max_examples"] == "0"
        if _method(sweep.flags["output"] + "/") in (*TITLES, *SETS):
            assert (sweep.flags["config.train.patience"], sweep.flags["config.train.schedule"]) == ("15", "constant")
    assert seeds == {method: set(SEEDS) for method in ("sasrec", *TITLES, *SETS)}


@pytest.mark.slow
def test_patience_is_that_of_all_sets_where_an_epoch_is_long(tmp_path):
    sweeps = _named(_run(tmp_path, SETS="movielens-1m"), "igd_jax.sweep")
    found = {sweep.flags["output"].rsplit("/", 1)[1]: sweep.flags.get("config.train.patience") for sweep in sweeps}
    assert found == {"sasrec": None} | dict.fromkeys((*TITLES, *SETS), "15")


def test_rates_and_beta_are_chosen_by_the_first_seed_for_titles_and_by_each_for_sets(commands):
    grids = {_method(s.flags["output"] + "/"): (_grid(s), s) for s in _named(commands, "igd_jax.sweep")}
    assert grids["sft"][0]["train.learning_rate"] == "3e-3,6e-3"
    assert grids["igd"][0]["method.args.beta"] == "0.1,0.3"
    for method in ("sasrec", *TITLES):
        assert grids[method][1].flags["choose_seeds"] == "1"
    for method in TITLES[1:]:
        assert grids[method][1].flags["config.train.learning_rate"] == "6e-3"
    for method in SETS:
        rates = [
            _grid(s)["train.learning_rate"] for s in _named(commands, "igd_jax.sweep")
            if _method(s.flags["output"] + "/") == method
        ]  # fmt: skip
        assert rates == ["1e-3,3e-3"] * 3


def test_all_is_decoded_with_both_sets_of_candidates_and_choices_are_those_of_validation(commands, folder):
    asked = {f"{_method(e.flags['workdir'])}/{e.flags['name']}": e.flags for e in _named(commands, "igd_jax.evaluate")}
    rows = {name for name in asked if "/users" not in name}
    every = {f"{method}/test" for method in ("sasrec", *TITLES, *SETS)}
    chosen = {*(f"{method}/{name}" for method in ("sft", "igd") for name in ("alpha", "d3")), "setrec/beta"}
    every |= chosen | {"setrec_t5/beta", "sft/penalty", "sft/bigrec"}
    assert {name for name in rows if name.endswith("-train")} == {f"{name}-train" for name in every}
    assert {f"{_method(str(path))}/{path.name}" for path in (folder / "out").glob("*/*/*/eval/*")} >= every
    for name in rows:
        assert asked[name].get("config.decode.candidates", "catalogue") == (
            "train" if name.endswith("-train") else "catalogue"
        )
        assert ("choose" in asked[name]) == (name.removesuffix("-train") in chosen | {"setrec_t5/beta"})
        assert asked[name]["choose_examples"] == "1000"
    seeds = [e.flags["workdir"] for e in _named(commands, "igd_jax.evaluate") if e.flags["name"] == "d3"]
    assert sorted(path.split("seed=")[1][0] for path in seeds) == sorted(SEEDS * 2)


def test_tables_compare_every_method_with_sft_and_sets_with_sasrec(commands):
    tables = [words for _, _, words in _named(commands, "igd_jax.compare")]
    assert len(tables) == 2 + 2 + 5
    for suffix, (words, of_sets) in {"": (tables[0], tables[2]), "-train": (tables[1], tables[3])}.items():
        found = list(dict.fromkeys(f"{_method(word)}/{word.split('/')[-1]}" for word in words))
        assert found[0] == f"sft/test{suffix}"
        assert len(words) == 3 * len(found)
        assert {"sasrec", *TITLES} == {name.split("/")[0] for name in found if name.endswith(f"/test{suffix}")}
        assert {name.split("/")[1] for name in found} == {
            f"{e}{suffix}" for e in ("test", "alpha", "d3", "penalty", "bigrec")
        }
        assert _method(of_sets[0]) == "sasrec"
        assert {_method(word) for word in of_sets} == {"sasrec", "sft", "igd", *SETS}


def test_started_again_it_trains_and_decodes_nothing_again(commands, folder):
    again = _run(folder)
    assert {command.program for command in again} == {"igd_jax.sweep", "igd_jax.compare"}
    assert len(_named(again, "igd_jax.compare")) == len(_named(commands, "igd_jax.compare"))


@pytest.mark.slow
def test_a_set_of_few_rows_has_as_many_epochs_as_it_takes_with_every_method(tmp_path):
    commands = _run(tmp_path, SETS="amazon2014_digital_music")
    assert len(_named(commands, "igd_jax.compare")) == 2 + 2 + 1  # none of cold items, as there are none
    for sweep in _named(commands, "igd_jax.sweep"):
        flags = sweep.flags
        if flags["config"] == "sasrec":
            assert (flags["config.train.global_batch_size"], flags["config.train.patience"]) == ("64", "20")
        else:
            assert (flags["config.train.num_epochs"], flags["config.train.eval_every_steps"]) == ("1000", "30")


def test_an_unknown_set_is_refused_before_anything_is_made(tmp_path):
    script = [ROOT / "launch" / "claims.sh", "data", str(tmp_path / "out")]
    done = subprocess.run(script, env=os.environ | {"SETS": "ml-10k"}, capture_output=True, text=True)
    assert (done.returncode, (tmp_path / "out").exists()) == (2, False)
    assert done.stderr.startswith("error: SETS is ml-10k; expected some of: amazon_books ml-100k")


@pytest.mark.parametrize(
    ("script", "usage", "least"),
    [
        ("claims", "DATA OUT [--config.FIELD=VALUE ...]", 2),
        ("paper", "SOURCE INPUT OUT [--config.FIELD=VALUE ...]", 3),
        ("setrec", "OUT [--config.FIELD=VALUE ...]", 1),
        ("mount", "BUCKET FOLDER", 2),
    ],
)
def test_too_few_arguments_are_answered_with_the_usage(script, usage, least, tmp_path):
    path = ROOT / "launch" / f"{script}.sh"
    assert f"#   launch/{script}.sh {usage}\n" in path.read_text()
    for given in [["some"] * number for number in range(least)] + [[""] * least]:
        done = subprocess.run([path, *given], capture_output=True, text=True, cwd=tmp_path)
        assert (done.returncode, done.stdout, list(tmp_path.iterdir())) == (2, "", [])
        assert done.stderr == f"error: too few arguments; usage: {path} {usage}\n"


@pytest.mark.parametrize("there", [[], ["ml-100k"]])
def test_data_that_are_not_there_are_refused_before_anything_is_made(there, tmp_path):
    for name in there:
        (tmp_path / "data" / name).mkdir(parents=True)
    script = [ROOT / "launch" / "claims.sh", "data", "out"]
    sets = "ml-100k movielens-1m"
    done = subprocess.run(script, env=os.environ | {"SETS": sets}, capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stdout, (tmp_path / "out").exists()) == (2, "", False)
    missing = sets.split()[len(there)]
    assert done.stderr == f"error: DATA is data, which holds no folder {missing}; expected those of SETS: {sets}\n"


def test_sets_are_not_trained_where_titles_were_not(tmp_path):
    done = subprocess.run([ROOT / "launch" / "setrec.sh", "out"], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stdout, list(tmp_path.iterdir())) == (2, "", [])
    assert done.stderr == "error: OUT is out, which holds no data/meta.json; run launch/paper.sh with it first\n"
