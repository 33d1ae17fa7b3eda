"""`evaluate --choose`: the value that ranks valid best is the one the split is ranked with."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import tiny_run
from command import run_here

from igd_jax import evaluate as program
from igd_jax.core.errors import InputError
from igd_jax.core.io import Workdir, read_json
from igd_jax.evaluation.choice import Choice
from igd_jax.settings.config_flags import load_config
from igd_jax.settings.config_grid import Axis, changed
from igd_jax.training.checkpoint import Checkpoints

METRIC = "ndcg@3"
"""NDCG at the largest k of tiny_run."""


def _predictions(workdir, name):
    lines = (workdir / "eval" / name / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def _scored(metrics: dict) -> SimpleNamespace:
    return SimpleNamespace(metrics=metrics, ranker=SimpleNamespace(trained=None))


# --------------------------------------------------------------------------------------------------------- the choice
@pytest.fixture
def trials(monkeypatch):
    """Replaces `score` by a table of values; collects the configs that were tried."""
    tried = []

    def use(values: list[float]) -> list:
        def score(config, _, **__):
            tried.append(config)
            value = values[len(tried) - 1]
            return _scored({"ndcg@1": 1 - value, METRIC: value, "n": 1, "protocol": "rows"})

        monkeypatch.setattr(program, "score", score)
        return tried

    return use


ALPHAS = Axis("decode.alpha", [0.5, 0.0, 0.1, 0.3])


def test_candidates_are_not_chosen_in_python_either(tiny):
    with pytest.raises(InputError, match=r"--choose names decode.candidates, but metrics among different candidates"):
        program.choose(tiny_run.tiny_config(tiny), Workdir("no"), Axis("decode.candidates", ["warm"]), max_examples=0)


@pytest.mark.parametrize(("values", "chosen"), [([0.2, 0.1, 0.4, 0.3], 0.1), ([0.1, 0.4, 0.4, 0.4], 0.0)])
def test_the_best_value_wins_and_of_equals_the_first(tiny, trials, values, chosen):
    trials(values)
    config = tiny_run.tiny_config(tiny)
    better = program.choose(config, Workdir("nowhere"), ALPHAS, max_examples=0).config
    assert (better.decode.alpha, config.decode.alpha) == (chosen, 0.2)


def test_lists_shorter_than_the_largest_cut_off_are_judged_by_what_they_have(tiny, monkeypatch):
    metrics = {"ndcg@1": 0.2, "n": 1, "protocol": "rows"}
    monkeypatch.setattr(program, "score", lambda config, _, **__: _scored(metrics))
    found = program.choose(tiny_run.tiny_config(tiny), Workdir("nowhere"), ALPHAS, max_examples=0)
    assert found.choice == Choice({"decode.alpha": ALPHAS.values}, "ndcg@1", "valid", "rows", 1)


@pytest.mark.parametrize("split", ["test", "valid", "train"])
def test_only_rows_of_valid_are_ever_tried(tiny, trials, split):
    tried = trials([0.1] * 4)
    config = tiny_run.tiny_config(tiny, {"eval.split": split, "eval.max_examples": 5})
    better = program.choose(config, Workdir("nowhere"), ALPHAS, max_examples=7).config
    assert [(c.eval.split, c.eval.max_examples, c.decode.alpha) for c in tried] == [
        ("valid", 7, alpha) for alpha in ALPHAS.values
    ]
    assert (better.eval.split, better.eval.max_examples) == (split, 5)


def test_weights_are_loaded_once_for_all_values_and_give_the_lists_of_each(trained, monkeypatch):
    workdir = Workdir(str(trained))
    config = changed(load_config(None, workdir), {"eval.split": "valid"})
    alone = [program.score(changed(config, {"decode.alpha": alpha}), workdir) for alpha in ALPHAS.values]
    score, restore, scored, restored = program.score, Checkpoints.restore_best, [], []
    monkeypatch.setattr(program, "score", lambda *a, **k: scored.append(score(*a, **k)) or scored[-1])
    monkeypatch.setattr(Checkpoints, "restore_best", lambda *a, **k: restored.append(1) or restore(*a, **k))
    program.choose(config, workdir, ALPHAS, max_examples=0)
    assert len(restored) == 1
    for found, expected in zip(scored, alone, strict=True):
        np.testing.assert_array_equal(found.found.rows, expected.found.rows)
        np.testing.assert_array_equal(found.found.scores, expected.found.scores)


def test_an_argument_of_training_is_refused_with_known_weights_too(trained):
    config, workdir = load_config(None, Workdir(str(trained))), Workdir(str(trained))
    beta = config.method.args.beta
    with pytest.raises(InputError, match=r"--choose names method.args.beta, which decoding by igd does not read; "):
        program.choose(config, workdir, Axis("method.args.beta", [beta, 0.7]), max_examples=2)


@pytest.mark.parametrize("source", ["runs/sasrec", "popularity", ""])
def test_the_source_of_scores_stays_as_it_has_those_of_valid_too(tiny, trials, source):
    tried = trials([0.1] * 4)
    config = tiny_run.tiny_config(tiny, {"decode.collaborative": source})
    better = program.choose(config, Workdir("nowhere"), ALPHAS, max_examples=0).config
    assert {c.decode.collaborative for c in (*tried, better)} == {source}


@pytest.mark.slow
def test_scores_of_a_run_are_those_of_valid_while_it_chooses_and_of_test_after(trained, sasrec_run):
    given = (f"--workdir={trained}", "--name=mixed", "--decode_as=configs/d3.py", "--config.eval.ks=(1,3)")
    source = f"--config.decode.collaborative={sasrec_run}"
    done = run_here(program, *given, source, "--choose=method.args.lam=0.3,0.6")
    assert (done.code, done.err) == (0, "")
    assert read_json(trained / "eval" / "mixed" / "metrics.json")["n"] == tiny_run.N_ROWS["test"]
    assert "on 13 rows of valid" in done.out


# --------------------------------------------------------------------------------------------------- the command line
def test_the_split_is_ranked_with_the_chosen_value_which_is_recorded(tiny, trained):
    def evaluate(name, changes):
        program.evaluate(tiny_run.tiny_config(tiny, changes), Workdir(str(trained)), name=name)
        return read_json(trained / "eval" / name / "metrics.json")[METRIC]

    alphas = [0.9, 0.0, 0.5]
    on_valid = [
        evaluate(f"valid-{a}", {"decode.alpha": a, "eval.split": "valid", "eval.max_examples": 11}) for a in alphas
    ]
    best = alphas[on_valid.index(max(on_valid))]
    spread = [place * tiny_run.N_ROWS["valid"] // 11 for place in range(11)]
    assert [line["row"] for line in _predictions(trained, "valid-0.9")] == spread

    done = run_here(
        program, f"--workdir={trained}", "--choose=decode.alpha=0.9,0,0.5", "--choose_examples=11", "--name=chosen",
        "--config.eval.max_examples=9",
    )  # fmt: skip
    assert (done.code, done.err) == (0, "")
    config = read_json(trained / "eval" / "chosen" / "config.json")
    assert (config["decode"]["alpha"], config["eval"]["split"], config["eval"]["max_examples"]) == (best, "test", 9)
    assert config["chosen"] == {
        "tried": {"decode.alpha": alphas}, "metric": METRIC, "split": "valid", "protocol": "rows", "n": 11,
    }  # fmt: skip
    for alpha, value in zip(alphas, on_valid, strict=True):
        assert f"decode.alpha={alpha}: ndcg@3 {value:.4f} on 11 rows of valid" in done.out
    assert f"chosen decode.alpha={best} by ndcg@3 of valid" in done.out
    assert done.out.count("checkpoint of step ") == 1  # the weights are read once, for the lists of test, too

    evaluate("same", {"decode.alpha": best, "eval.max_examples": 9})
    titles = [
        [[result["title"] for result in line["ranked"]] for line in _predictions(trained, name)]
        for name in ("chosen", "same")
    ]
    assert titles[0] == titles[1]


@pytest.mark.slow
def test_an_argument_of_the_method_can_be_chosen_if_decoding_reads_it(trained):
    given = (f"--workdir={trained}", "--choose_examples=2", "--name=lam", "--config.eval.max_examples=2")
    source = ("--decode_as=configs/d3.py", "--choose=method.args.lam=0.3,0.4")
    done = run_here(program, *given, *source)
    assert (done.code, done.err) == (0, "")
    assert read_json(trained / "eval" / "lam" / "config.json")["method"]["args"]["lam"] in (0.3, 0.4)
    done = run_here(program, *given, "--config.method.args.beta=0.3")
    assert done.code == 2
    assert "config.method.args.beta is 0.3, but the run was trained with 0.1, and decoding does not read it" in done.err


@pytest.mark.parametrize(
    ("choose", "message"),
    [
        ("decode.alpha=", "--choose=decode.alpha= has no values"),
        ("", "--choose= has no values"),
        ("decode.candidates=train,warm", "--choose names decode.candidates, but metrics among different candidates "),
        ("method.args.gamma=0", "the config has no field method.args.gamma"),
        ("decode.exclude_history=true,false", "names decode.exclude_history, but metrics among different candidates "),
        ("eval.split=test", "eval.split, which decoding by igd does not read"),
        ("method.args.beta=0.3", "method.args.beta, which decoding by igd does not read; expected a field of decode"),
        ("decode.alpha=0.1,2", "config.decode.alpha is 2.0; expected a discount from 0 to 1"),
        ("decode.num_beams=3,2", "config.eval.ks is (1, 3), but lists have a length of 2"),
    ],
)
def test_what_cannot_be_chosen_is_bad_input_and_writes_nothing(trained, choose, message):
    done = run_here(program, f"--workdir={trained}", f"--choose={choose}", "--choose_examples=1", "--name=refused")
    assert done.code == 2
    (line,) = done.err.splitlines()
    assert message in line
    assert "rows of valid" not in done.out, "a value was tried"
    assert not (trained / "eval" / "refused").exists()


def test_lists_of_the_rows_of_one_split_are_not_those_of_valid(trained, tmp_path):
    (tmp_path / "allowed").write_text("null\n" * tiny_run.N_ROWS["test"])
    given = (f"--workdir={trained}", f"--config.decode.allowed={tmp_path / 'allowed'}", "--name=refused")
    done = run_here(program, *given, "--choose=decode.alpha=0,0.1")
    assert done.code == 2
    assert "with a list for each row of test, but values are chosen on valid; choose with config.eval.s" in done.err
    (tmp_path / "allowed").write_text("null\n" * tiny_run.N_ROWS["valid"])
    done = run_here(program, *given, "--choose=decode.alpha=0,0.1", "--split=valid", "--choose_examples=2")
    assert (done.code, done.err) == (0, "")


# ---------------------------------------------------------------------------------------------------------- per metric
def test_each_metric_is_reported_with_the_value_that_is_best_for_it_on_valid(tiny, trials):
    tried = trials([0.2, 0.1, 0.4, 0.3, 0.6, 0.7])
    config = tiny_run.tiny_config(tiny)
    found = program.choose(config, Workdir("nowhere"), ALPHAS, max_examples=3, per_metric=True)
    assert [(c.eval.split, c.decode.alpha) for c in tried[4:]] == [("test", 0.0), ("test", 0.1)]
    assert found.per_metric == {
        "ndcg@1": {"value": 0.0, "chosen_on": 0.9, "figure": 0.4},
        METRIC: {"value": 0.1, "chosen_on": 0.4, "figure": 0.7},
    }
    assert (found.config.decode.alpha, found.choice.metric) == (0.1, METRIC)


@pytest.mark.slow
def test_figures_per_metric_lie_beside_the_evaluation_with_the_single_value(trained):
    given = (f"--workdir={trained}", "--choose_per_metric", "--name=per_metric")
    few = ("--choose_examples=2", "--config.eval.max_examples=2", "--choose=decode.alpha=0.4,0.1")
    done = run_here(program, *given, *few)
    assert (done.code, done.err) == (0, "")
    folder = trained / "eval" / "per_metric"
    figures, metrics = (read_json(folder / name) for name in ("per_metric.json", "metrics.json"))
    alpha = read_json(folder / "config.json")["decode"]["alpha"]
    assert figures.keys() == {"hr@1", "hr@3", "ndcg@1", "ndcg@3"}
    assert all(each["value"] in (0.4, 0.1) for each in figures.values())
    assert figures[METRIC] == {**figures[METRIC], "value": alpha, "figure": metrics[METRIC]}
    assert "| metric | decode.alpha | valid, chosen on |   test |" in done.out
    assert done.out.count("checkpoint of step ") == 1
    done = run_here(program, *given)
    assert (done.code, "--choose_per_metric has nothing to choose from" in done.err) == (2, True)
