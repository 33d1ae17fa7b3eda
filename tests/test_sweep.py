"""A sweep trains and evaluates a product of fields, goes on where it was stopped, and ends in one table."""

import os
import shutil
import signal

import pytest
import tiny_run
from command import run_here
from runs import interrupt_at

from igd_jax import sweep as program
from igd_jax.core.errors import InputError
from igd_jax.core.io import Workdir, read_json
from igd_jax.session.config_grid import Axis

BETAS, ALPHAS = Axis("method.args.beta", [0.1, 0.5]), Axis("decode.alpha", [0.0, 0.4])
SHORT = {"train.num_steps": 2, "train.checkpoint_every_steps": 1, "eval.max_examples": 4}


@pytest.fixture
def started(monkeypatch):
    """Lists what is trained and evaluated, in order."""
    calls = []

    def noted(what, function):
        def call(config, workdir, **name):
            calls.append((what, workdir.path.name, *name.values()))
            return function(config, workdir, **name)

        return call

    for what in ("train", "evaluate"):
        monkeypatch.setattr(program, what, noted(what, getattr(program, what)))
    return calls


@pytest.fixture(scope="module")
def finished(tiny, tmp_path_factory):
    """Folder of a finished sweep of two runs with two evaluations each, made on the command line; and its output."""
    root = tmp_path_factory.mktemp("sweep") / "root"
    done = run_here(program, *_arguments(tiny, root), "--grid=train.seed=1,2", "--evaluate=decode.alpha=0,0.4")
    assert (done.code, done.err) == (0, "")
    return root, done.out


def _arguments(tiny, root):
    config = tiny_run.tiny_config(tiny, SHORT)
    fields = ("data.dir", "model.path", "train.num_steps", "train.checkpoint_every_steps", "decode.num_beams")
    fields += (
        "train.global_batch_size",
        "train.micro_batch_size",
        "decode.batch_size",
        "mesh.data",
        "eval.max_examples",
    )
    given = [f"--config.{field}={_of(config, field)}" for field in fields]
    return ["--config=configs/igd.py", "--config.eval.ks=(1,3)", f"--output={root}", *given]


def _of(config, field):
    section, name = field.split(".")
    return config[section][name]


# ------------------------------------------------------------------------------------------------- on the command line
def test_every_point_is_trained_with_its_values_and_evaluated_with_each(finished):
    root, _ = finished
    assert {path.name for path in root.iterdir()} == {"seed=1", "seed=2"}
    for seed in (1, 2):
        assert read_json(root / f"seed={seed}" / "config.json")["train"]["seed"] == seed
        evaluations = root / f"seed={seed}" / "eval"
        assert {path.name for path in evaluations.iterdir()} == {"alpha=0.0", "alpha=0.4"}
        for alpha in (0.0, 0.4):
            made = read_json(evaluations / f"alpha={alpha}" / "config.json")
            assert (made["train"]["seed"], made["decode"]["alpha"], made["eval"]["ks"]) == (seed, alpha, [1, 3])


def test_a_line_a_run_and_at_the_end_the_table_with_seeds_as_one_method(finished):
    lines = finished[1].splitlines()
    assert [line for line in lines if line.startswith("run ")] == [
        f"run {seed} of 2: seed={seed}, evaluations to make: alpha=0.0, alpha=0.4" for seed in (1, 2)
    ]
    (header,) = [line for line in lines if line.startswith("| metric") and "seeds" in line]
    cells = [cell.strip() for cell in header.strip("|").split("|")]
    assert cells == ["metric", "seed=*/alpha=0.0 (2 seeds)", "seed=*/alpha=0.4 (2 seeds)", "difference", "popularity"]


def test_a_finished_sweep_does_nothing_but_print_the_table(tiny, finished, started):
    root, before = finished
    done = run_here(program, *_arguments(tiny, root), "--grid=train.seed=1,2", "--evaluate=decode.alpha=0,0.4")
    assert (done.code, done.err, started) == (0, "", [])
    assert "run 1 of 2: seed=1, evaluations to make: none" in done.out
    assert done.out.splitlines()[-8:] == before.splitlines()[-8:]


def test_what_is_missing_is_made_and_nothing_else(tiny, finished, started, tmp_path):
    root = tmp_path / "root"
    shutil.copytree(finished[0], root)
    shutil.rmtree(root / "seed=2" / "eval" / "alpha=0.4")
    done = run_here(program, *_arguments(tiny, root), "--grid=train.seed=1,2", "--evaluate=decode.alpha=0,0.4,0.2")
    assert (done.code, done.err) == (0, "")
    assert started == [
        ("train", "seed=1"), ("evaluate", "seed=1", "alpha=0.2"),
        ("train", "seed=2"), ("evaluate", "seed=2", "alpha=0.4"), ("evaluate", "seed=2", "alpha=0.2"),
    ]  # fmt: skip
    assert done.out.count("nothing left to train: step 2 was the last") == 2


def test_an_evaluation_by_another_config_is_made_again(tiny, finished, started, tmp_path):
    root = tmp_path / "root"
    shutil.copytree(finished[0] / "seed=1", root / "seed=1")
    changes = [*_arguments(tiny, root), "--config.eval.max_examples=3"]
    done = run_here(program, *changes, "--grid=train.seed=1", "--evaluate=decode.alpha=0.4")
    assert (done.code, done.err) == (0, "")
    assert started == [("train", "seed=1"), ("evaluate", "seed=1", "alpha=0.4")]
    assert read_json(root / "seed=1" / "eval" / "alpha=0.4" / "metrics.json")["n"] == 3
    assert "one method only" in done.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--grid is not set"),
        (["--grid=train.sede=1"], "--grid=train.sede=1: the config has no field train.sede"),
        (["--grid=train.seed="], "--grid=train.seed= has no values"),
        (["--grid=train.seed=1,one"], "'one' cannot be read as int"),
        (["--grid=train.seed=1", "--grid=train.seed=2"], "a field is varied twice"),
        (["--grid=train.seed=1", "--evaluate=train.seed=2"], "train.seed cannot be varied here"),
        (["--grid=train.seed=1", "--evaluate=decode.alpha="], "--evaluate=decode.alpha= has no values"),
        (["--grid=method.args.beta=3,0.1"], "config.method.args.beta is 3.0; expected a weight from 0 to 1"),
        (["--grid=train.seed=1", "--config.train.sede=2"], "no field 'sede'"),
    ],
)
def test_bad_input_is_one_line_before_anything_is_made(tiny, tmp_path, arguments, message):
    done = run_here(program, *_arguments(tiny, tmp_path / "root"), *arguments)
    assert done.code == 2
    (line,) = done.err.splitlines()
    assert message in line
    assert not (tmp_path / "root").exists()


def test_a_config_is_needed(tmp_path):
    done = run_here(program, f"--output={tmp_path / 'root'}", "--grid=train.seed=1")
    assert done.code == 2
    assert "--config is not set" in done.err


# ----------------------------------------------------------------------------------------------------------- in process
def test_two_fields_make_a_product_and_without_evaluations_the_split_names_one(tiny, tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(program, "train", lambda config, workdir: None)
    monkeypatch.setattr(
        program,
        "evaluate",
        lambda config, workdir, name: made.append((config.method.args.beta, config.train.seed, name)),
    )
    seeds = Axis("train.seed", [1, 2])
    folders = program.sweep(tiny_run.tiny_config(tiny), tmp_path, grid=[BETAS, seeds], evaluations=[])
    assert made == [(beta, seed, "test") for beta in (0.1, 0.5) for seed in (1, 2)]
    assert folders == [tmp_path / f"beta={b},seed={s}" / "eval" / "test" for b in (0.1, 0.5) for s in (1, 2)]


def test_a_run_that_fails_ends_the_sweep_and_keeps_what_is_finished(tiny, tmp_path, monkeypatch):
    def fails(config, workdir):
        if config.method.args.beta == 0.3:
            raise InputError("loss is nan at step 3")

    made = []
    monkeypatch.setattr(program, "train", fails)
    monkeypatch.setattr(program, "evaluate", lambda config, workdir, name: made.append(workdir.path.name))
    with pytest.raises(InputError, match=r"loss is nan at step 3"):
        program.sweep(
            tiny_run.tiny_config(tiny), tmp_path, grid=[Axis("method.args.beta", [0.1, 0.3, 0.5])], evaluations=[]
        )
    assert made == ["beta=0.1"]


@pytest.mark.parametrize(
    ("grid", "evaluations", "message"),
    [
        ([Axis("method.args.beta", [0.1, 7.0])], [], "config.method.args.beta is 7.0"),
        ([BETAS], [Axis("decode.alpha", [0.0, 1.5])], "config.decode.alpha is 1.5"),
    ],
)
def test_a_bad_value_anywhere_ends_the_sweep_before_anything_is_made(
    tiny, tmp_path, started, grid, evaluations, message
):
    with pytest.raises(InputError, match=message):
        program.sweep(tiny_run.tiny_config(tiny, SHORT), tmp_path, grid=grid, evaluations=evaluations)
    assert started == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_run_stopped_in_training_is_resumed(tiny, tmp_path, capsys, monkeypatch):
    config, seeds = tiny_run.tiny_config(tiny, SHORT), [Axis("train.seed", [3])]
    with monkeypatch.context() as patched:
        interrupt_at(patched, 0, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(SystemExit, match="143"):
            program.sweep(config, tmp_path, grid=seeds, evaluations=[])
    assert not Workdir(str(tmp_path / "seed=3")).eval("test").exists()
    program.sweep(config, tmp_path, grid=seeds, evaluations=[])
    told = capsys.readouterr().out
    assert "terminated: saving step 1" in told
    assert "resuming from step 1 of 2" in told
    assert Workdir(str(tmp_path / "seed=3")).eval("test").is_dir()
