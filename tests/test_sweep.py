"""A sweep trains a product of fields, chooses on valid unless only seeds vary, and goes on where it was stopped."""

import json
import os
import shutil
import signal

import pytest
import tiny_run
from command import one_line, run_here
from evaluation_folders import write_evaluation
from runs import interrupt_at

from igd_jax import evaluate as evaluation
from igd_jax import sweep as program
from igd_jax.core.errors import InputError
from igd_jax.core.io import Workdir, read_json
from igd_jax.evaluate import config_record
from igd_jax.settings.config_grid import Axis

BETAS, ALPHAS = Axis("method.args.beta", [0.1, 0.5]), Axis("decode.alpha", [0.0, 0.4])
SHORT = {"train.num_steps": 2, "train.checkpoint_every_steps": 1, "eval.max_examples": 4}


@pytest.fixture
def started(monkeypatch):
    """Lists what is trained and evaluated, in order."""
    calls = []

    def noted(what, function):
        def call(config, workdir, **given):
            calls.append((what, workdir.path.name, *(given[key] for key in given if key == "name")))
            return function(config, workdir, **given)

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
    fields = ("data.dir", "model.path", "train.num_steps", "train.checkpoint_every_steps", "train.global_batch_size")
    fields += ("train.micro_batch_size", "decode.num_beams", "decode.batch_size", "mesh.data", "eval.max_examples")
    given = [f"--config.{field}={_of(config, field)}" for field in fields]
    return ["--config=configs/igd.py", "--config.eval.ks=(1,3)", f"--output={root}", *given]


def _of(config, field):
    section, name = field.split(".")
    return config[section][name]


# ------------------------------------------------------------------------------------------------- on the command line
GRID = ("--grid=train.seed=1,2", "--evaluate=decode.alpha=0,0.4")


def _chosen(out):
    """The alpha that a sweep says it chose."""
    (line,) = [line for line in out.splitlines() if line.startswith("chosen ")]
    return line.split()[1]


def test_every_point_is_trained_and_evaluated_on_valid_and_the_chosen_one_on_test(finished):
    root, out = finished
    assert {path.stem for path in root.iterdir()} == {"seed=1", "seed=2", "compare", "compare_valid"}
    for name, split in (("compare", "test"), ("compare_valid", "valid")):
        assert (root / f"{name}.md").read_text(encoding="utf-8") in out
        assert read_json(root / f"{name}.json")["split"] == split
    valid, on_test = {f"valid,alpha={alpha}" for alpha in (0.0, 0.4)}, f"test,{_chosen(out)}"
    for seed in (1, 2):
        config = read_json(root / f"seed={seed}" / "config.json")
        assert (config["train"]["seed"], config["eval"]["split"]) == (seed, "test")
        evaluations = root / f"seed={seed}" / "eval"
        assert {path.name for path in evaluations.iterdir()} == valid | {on_test}
        for path in evaluations.iterdir():
            made, (split, alpha) = read_json(path / "config.json"), path.name.split(",alpha=")
            assert (made["train"]["seed"], made["decode"]["alpha"], made["eval"]["ks"]) == (seed, float(alpha), [1, 3])
            assert made["eval"]["split"] == split
            assert ("chosen" in made) == (split == "test")


def test_the_combination_with_the_largest_mean_on_valid_is_chosen(finished):
    root, out = finished
    mean = {
        alpha: sum(read_json(root / f"seed={s}" / "eval" / f"valid,{alpha}" / "metrics.json")["ndcg@3"] for s in (1, 2))
        for alpha in ("alpha=0.0", "alpha=0.4")
    }
    assert mean[_chosen(out)] == max(mean.values())
    told = ", ".join(f"{alpha}: {total / 2:.4f}" for alpha, total in mean.items())
    assert f"by ndcg@3 on 4 rows of valid, mean of 2 seeds ({told})" in out
    assert read_json(root / "seed=1" / "eval" / f"test,{_chosen(out)}" / "config.json")["chosen"] == {
        "tried": {"decode.alpha": [0.0, 0.4]}, "metric": "ndcg@3", "split": "valid", "protocol": "rows", "n": 4,
    }  # fmt: skip


def test_a_table_of_each_split_says_which_it_is_with_seeds_as_one_method(finished):
    lines = finished[1].splitlines()
    runs = [line for line in lines if line.startswith("run ")]
    asked = ["valid,alpha=0.0, valid,alpha=0.4", f"test,{_chosen(finished[1])}"]
    assert runs == [f"run {s} of 2: seed={s}, evaluations to make: {names}" for names in asked for s in (1, 2)]
    tried, chosen = [line for line in lines if line.startswith("| metric") and "seeds" in line]
    cells = [cell.strip() for cell in tried.strip("|").split("|")]
    of_valid = [f"seed=*,alpha={alpha} (2 seeds)" for alpha in (0.0, 0.4)]
    assert cells == ["metric", *of_valid, "difference", "popularity"]
    of_test = f"seed=*,{_chosen(finished[1])} (2 seeds)"
    assert [cell.strip() for cell in chosen.strip("|").split("|")] == ["metric", of_test, "popularity"]
    captions = [line for line in lines if ", all targets, candidates: catalogue." in line]
    assert [caption.split(",")[0] for caption in captions] == ["4 rows of valid", "4 rows of test"]
    alpha = _chosen(finished[1]).removeprefix("alpha=")
    assert f"decode.alpha chosen from 0.0, 0.4 ({alpha}, {alpha}) by ndcg@3 on 4 rows of valid" in captions[1]
    assert "chosen from" not in captions[0]


def test_the_end_names_the_best_runs_and_the_next_command(finished):
    root, out = finished
    assert out.splitlines()[-2:] == [
        f"best runs: {root / 'seed=1'}, {root / 'seed=2'}",
        f"next: python -m igd_jax.report --workdir={root / 'seed=1'} --name=test,{_chosen(out)}",
    ]
    assert "one method only" not in out


def test_a_finished_sweep_does_nothing_but_print_the_tables(tiny, finished, started):
    root, before = finished
    done = run_here(program, *_arguments(tiny, root), *GRID)
    assert (done.code, done.err, started) == (0, "", [])
    assert done.out.count("run 1 of 2: seed=1, evaluations to make: none") == 2

    summary = before[before.index("all combinations, on valid") : before.index("evaluating alpha=")].strip()
    assert summary in done.out
    assert done.out.splitlines()[-11:] == before.splitlines()[-11:]


def test_what_is_missing_is_made_and_nothing_else(tiny, finished, started, tmp_path):
    root, on_test = tmp_path / "root", f"test,{_chosen(finished[1])}"
    shutil.copytree(finished[0], root)
    shutil.rmtree(root / "seed=2" / "eval" / "valid,alpha=0.4")
    shutil.rmtree(root / "seed=1" / "eval" / on_test)
    done = run_here(program, *_arguments(tiny, root), *GRID)
    assert (done.code, done.err) == (0, "")
    assert started == [
        ("train", "seed=2"), ("evaluate", "seed=2", "valid,alpha=0.4"), ("evaluate", "seed=1", on_test),
    ]  # fmt: skip
    assert done.out.count("nothing left to train: step 2 was the last") == 1


def test_an_evaluation_by_another_config_is_made_again(tiny, finished, started, tmp_path):
    root, on_test = tmp_path / "root", f"test,{_chosen(finished[1])}"
    shutil.copytree(finished[0] / "seed=1", root / "seed=1")
    changes = [*_arguments(tiny, root), "--config.eval.max_examples=3"]
    done = run_here(program, *changes, "--grid=train.seed=1", f"--evaluate=decode.{_chosen(finished[1])}")
    assert (done.code, done.err) == (0, "")
    assert started == [("train", "seed=1"), ("evaluate", "seed=1", on_test)]
    assert read_json(root / "seed=1" / "eval" / on_test / "metrics.json")["n"] == 3
    assert "chosen" not in read_json(root / "seed=1" / "eval" / on_test / "config.json")
    assert "one method only" not in done.out
    assert done.out.splitlines()[-2] == f"run: {root / 'seed=1'}"


def test_what_was_made_on_other_data_is_not_taken_for_finished(tiny, finished, started, tmp_path):
    shutil.copytree(finished[0], tmp_path / "root")
    shutil.copytree(tiny / "data", tmp_path / "data")
    tiny_run.save_data(tmp_path / "data", seed=1)
    before = sorted(tmp_path.rglob("*"))
    for path in tmp_path.rglob("config.json"):
        config = read_json(path)
        config["data"]["dir"] = str(tmp_path / "data")
        path.write_text(json.dumps(config))
    arguments = [*_arguments(tiny, tmp_path / "root"), f"--config.data.dir={tmp_path / 'data'}"]
    done = run_here(program, *arguments, *GRID)
    assert (done.code, started, sorted(tmp_path.rglob("*"))) == (2, [], before)
    assert done.err.count("\n") == 1
    assert f"was made on other data than {tmp_path / 'data'} holds now" in done.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--grid is not set"),
        (["--grid=train.sede=1"], "--grid=train.sede=1: the config has no field train.sede"),
        (["--grid=train.seed="], "--grid=train.seed= has no values"),
        (["--grid=train.seed=1,one"], "'one' cannot be read as int"),
        (["--grid=train.seed=1", "--grid=train.seed=2"], "a field is varied twice"),
        (["--grid=train.seed=1", "--evaluate=train.seed=2"], "train.seed, which decoding by igd does not read"),
        (["--grid=eval.split=valid,test"], "eval.split cannot be varied here"),
        (["--grid=train.seed=1", "--evaluate=eval.split=valid,test"], "eval.split, which decoding by igd does"),
        (["--grid=train.seed=1", "--evaluate=method.args.beta=0,1"], "--evaluate names method.args.beta, which decod"),
        (["--grid=decode.alpha=0,0.2"], "decode.alpha, which training does not use; give it to --evaluate, which tr"),
        (
            ["--config=configs/d3.py", "--config.decode.collaborative=popularity", "--grid=method.args.lam=0,0.1"],
            "--grid names method.args.lam, which training does not use; give it to --evaluate",
        ),
        (["--grid=method.args.beta=0,1", "--choose_seeds=1"], "--choose_seeds is 1, but --grid has 0 values of train"),
        (["--grid=train.seed=1,2", "--choose_seeds=3"], "--choose_seeds is 3, but --grid has 2 values of train.seed;"),
        (["--grid=train.seed=1", "--evaluate=decode.alpha="], "--evaluate=decode.alpha= has no values"),
        (["--grid=method.args.beta=3,0.1"], "config.method.args.beta is 3.0; expected a weight from 0 to 1"),
        (
            ["--grid=train.seed=1", "--config.train.sede=2"],
            "no field train.sede; --help_config lists them all",
        ),
        (["--grid=data.dir=a,b"], "--grid names data.dir, but metrics of different data cannot be compared; give e"),
        (["--grid=data.candidates=warm,cold"], "data.candidates, but metrics among different candidates cannot be"),
        (["--grid=decode.candidates=warm,cold"], "--grid names decode.candidates, but metrics among"),
        (["--grid=train.seed=1", "--evaluate=decode.candidates=warm,cold"], "--evaluate names decode.candidates, but"),
        (["--grid=train.seed=1", "--evaluate=decode.allowed=a,b"], "--evaluate names decode.allowed, but metrics"),
        (["--grid=train.seed=1", "--config.decode.collaborative=nope"], "decode.collaborative is 'nope', which is not"),
        (
            ["--grid=data.candidates=warm,nope", "--config.decode.candidates=warm"],
            "config.data.candidates is 'nope', which is not a file",
        ),
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
@pytest.fixture
def made(monkeypatch):
    """Replaces training by nothing, and evaluations by lists in which the first rows hit; collects their folders.

    Returns a function that says how many rows hit, by beta and seed on valid; none do on test.
    """
    folders, hits = [], {}

    def evaluate(config, workdir, name, choice=None):
        folders.append(f"{workdir.path.name}/{name}")
        n = hits.get((config.method.args.beta, config.train.seed), 0) if config.eval.split == "valid" else 0
        write_evaluation(workdir.eval(name), [0] * n + [-1] * (9 - n), config=config_record(config, choice))

    monkeypatch.setattr(program, "train", lambda config, workdir: None)
    monkeypatch.setattr(program, "evaluate", evaluate)

    def use(table):
        hits.update(table)
        return folders

    return use


SEEDS = Axis("train.seed", [1, 2])


def test_what_cannot_be_compared_is_refused_in_python_too(tiny, tmp_path):
    with pytest.raises(InputError, match=r"--grid names data.candidates, but metrics among different candidates"):
        program.sweep(tiny_run.tiny_config(tiny), tmp_path, grid=[Axis("data.candidates", ["a"])], evaluations=[])


def test_the_mean_over_seeds_decides_and_of_equals_the_first(tiny, tmp_path, made):
    """Beta 0.5 has the best seed, but 0.1 the largest mean; 0.9 has the same."""
    folders = made({(0.1, 1): 4, (0.1, 2): 4, (0.5, 1): 6, (0.5, 2): 0, (0.9, 1): 3, (0.9, 2): 5})
    betas = Axis("method.args.beta", [0.5, 0.1, 0.9])
    found = program.sweep(tiny_run.tiny_config(tiny), tmp_path, grid=[betas, SEEDS], evaluations=[])
    tried = [f"beta={beta},seed={seed}/valid" for beta in (0.5, 0.1, 0.9) for seed in (1, 2)]
    assert folders == [*tried, "beta=0.1,seed=1/test", "beta=0.1,seed=2/test"]
    assert found.folders == found.chosen == [tmp_path / f"beta=0.1,seed={seed}" / "eval" / "test" for seed in (1, 2)]


def test_combinations_may_be_tried_with_the_first_seeds_only(tiny, tmp_path, made):
    folders = made({(0.1, 1): 1, (0.5, 1): 2})
    found = program.sweep(tiny_run.tiny_config(tiny), tmp_path, grid=[BETAS, SEEDS], evaluations=[], choose_seeds=1)
    tried = ["beta=0.1,seed=1/valid", "beta=0.5,seed=1/valid"]
    assert folders == [*tried, "beta=0.5,seed=1/test", "beta=0.5,seed=2/test"]
    assert found.chosen == [tmp_path / f"beta=0.5,seed={seed}" / "eval" / "test" for seed in (1, 2)]


def test_test_is_not_looked_at_if_the_split_is_valid(tiny, tmp_path, made):
    folders, config = made({(0.5, 42): 1}), tiny_run.tiny_config(tiny, {"eval.split": "valid"})
    found = program.sweep(config, tmp_path, grid=[BETAS], evaluations=[])
    assert folders == ["beta=0.1/valid", "beta=0.5/valid"]
    assert found.folders == [tmp_path / f"beta={beta}" / "eval" / "valid" for beta in (0.1, 0.5)]
    assert found.chosen == found.folders[1:]


def test_the_chosen_one_has_all_seeds_on_valid_too(tiny, tmp_path, made):
    folders, config = made({(0.5, 1): 1}), tiny_run.tiny_config(tiny, {"eval.split": "valid"})
    found = program.sweep(config, tmp_path, grid=[BETAS, SEEDS], evaluations=[], choose_seeds=1)
    assert folders == ["beta=0.1,seed=1/valid", "beta=0.5,seed=1/valid", "beta=0.5,seed=2/valid"]
    assert [folder.parents[1].name for folder in found.chosen] == ["beta=0.5,seed=1", "beta=0.5,seed=2"]
    assert len(found.folders) == 3


@pytest.mark.parametrize("decoding", [[], [Axis("decode.alpha", [0.4])]])
def test_where_only_seeds_vary_the_split_is_evaluated_at_once(tiny, tmp_path, made, decoding):
    folders, name = made({}), "test,alpha=0.4" if decoding else "test"
    grid = [Axis("method.args.beta", [0.1]), SEEDS]
    found = program.sweep(tiny_run.tiny_config(tiny), tmp_path, grid=grid, evaluations=decoding)
    assert folders == [f"beta=0.1,seed={seed}/{name}" for seed in (1, 2)]
    assert found == ([tmp_path / f"beta=0.1,seed={seed}" / "eval" / name for seed in (1, 2)], [])
    assert "chosen" not in read_json(found.folders[0] / "config.json")


def test_a_choice_that_changes_with_more_values_is_evaluated_anew(tiny, tmp_path, made):
    folders, config = made({(0.1, 42): 1, (0.5, 42): 2, (0.9, 42): 3}), tiny_run.tiny_config(tiny)
    program.sweep(config, tmp_path, grid=[BETAS], evaluations=[])
    more = Axis("method.args.beta", [0.1, 0.5, 0.9])
    found = program.sweep(config, tmp_path, grid=[more], evaluations=[])
    assert found.folders == [tmp_path / "beta=0.9" / "eval" / "test"]
    assert folders[-2:] == ["beta=0.9/valid", "beta=0.9/test"]


def test_a_run_that_fails_ends_the_sweep_and_keeps_what_is_finished(tiny, tmp_path, monkeypatch, made):
    def fails(config, workdir):
        if config.method.args.beta == 0.3:
            raise InputError("loss is nan at step 3")

    folders = made({})
    monkeypatch.setattr(program, "train", fails)
    with pytest.raises(InputError, match=r"loss is nan at step 3"):
        program.sweep(
            tiny_run.tiny_config(tiny), tmp_path, grid=[Axis("method.args.beta", [0.1, 0.3, 0.5])], evaluations=[]
        )
    assert folders == ["beta=0.1/valid"]


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


@pytest.mark.parametrize("is_grid", [True, False])
def test_two_combinations_never_have_one_folder(tiny, tmp_path, started, is_grid):
    files = [tmp_path / "a@b", tmp_path / "a_b"]
    for file in files:
        file.mkdir()
        (file / "collaborative.safetensors").touch()
    grid = [Axis("data.category", ["a@b", "a_b"])] if is_grid else [Axis("train.seed", [1])]
    evaluations = [] if is_grid else [Axis("decode.collaborative", [*map(str, files)])]
    with pytest.raises(InputError, match=r"two combinations would have one folder, .*a_b; let them differ in a letter"):
        program.sweep(tiny_run.tiny_config(tiny, SHORT), tmp_path / "out", grid=grid, evaluations=evaluations)
    assert started == []


@pytest.mark.slow
def test_a_run_stopped_in_training_is_resumed(tiny, tmp_path, capsys, monkeypatch):
    config, seeds = tiny_run.tiny_config(tiny, SHORT), [Axis("train.seed", [3])]
    with monkeypatch.context() as patched:
        interrupt_at(patched, 0, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(SystemExit, match="143"):
            program.sweep(config, tmp_path, grid=seeds, evaluations=[])
    assert not Workdir(str(tmp_path / "seed=3")).eval("test").exists()
    line = one_line(run_here(evaluation, f"--workdir={tmp_path / 'seed=3'}"))
    assert "seed=3 has a state of step 1 to resume, but no evaluated weights yet; go on with igd_jax.train, if" in line
    program.sweep(config, tmp_path, grid=seeds, evaluations=[])
    told = capsys.readouterr().out
    assert "terminated: saving step 1" in told
    assert "resuming from step 1 of 2" in told
    assert Workdir(str(tmp_path / "seed=3")).eval("test").is_dir()
