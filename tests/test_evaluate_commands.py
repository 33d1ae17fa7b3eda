"""Evaluation as it is started on the command line."""

import numpy as np
import tiny_run
from command import run_here
from evaluation_calls import read_written, scores_of, titles_of

from igd_jax import evaluate as program
from igd_jax.core.io import Workdir, read_json
from igd_jax.evaluation.evaluations import read_evaluation


def test_cold_users_on_the_command_line(trained):
    options = ("--config.eval.protocol=users", "--config.decode.candidates=cold", "--config.decode.num_beams=3")
    done = run_here(program, f"--workdir={trained}", "--name=cold", *options)
    assert (done.code, done.err) == (0, "")
    assert "candidates (cold): 2 of 23 items" in done.out
    assert "22 users, 1.00 titles each to find, at most 1; 20 titles that are not candidates" in done.out
    predictions, metrics = read_written(trained, "cold")
    for titles in titles_of(predictions):
        assert sorted(titles) == sorted(tiny_run.TITLES[tiny_run.N_SOLD : -1])
    assert (metrics["candidates"], metrics["slices"]["cold"]["n"]) == ("cold", tiny_run.ABSENT_IN_TEST)
    assert metrics["slices"]["cold"]["recall@3"] == 1
    assert metrics["slices"]["warm"]["recall@3"] == 0
    found = [read_evaluation("cold", trained / "eval" / "cold", group=group) for group in ("warm", "cold")]
    assert [len(e.answers) for e in found] == [metrics["slices"][name]["n"] for name in ("warm", "cold")]
    assert [e.by_row["recall@3"].mean() for e in found] == [0, 1]


def test_one_field_can_be_changed_on_the_command_line_of_a_trained_run(trained, evaluate):
    changes = ("--config.decode.alpha=0.4", "--config.eval.max_examples=6", "--config.eval.ks=(1,2)")
    done = run_here(program, f"--workdir={trained}", "--name=shell", *changes)
    assert (done.code, done.err) == (0, "")
    assert f"written to {trained / 'eval' / 'shell'}" in done.out
    examples = [line for line in done.out.splitlines() if line.startswith("after ")]
    for line, said in zip(examples, read_written(trained, "shell")[0][::2], strict=True):
        assert f" came {said['target']['title']!r}, " in line
        assert line.endswith(", ".join(f"{place}. {one['title']!r}" for place, one in enumerate(said["ranked"][:3], 1)))
    assert read_json(trained / "eval" / "shell" / "config.json")["decode"]["alpha"] == 0.4
    assert "hr@2" in read_written(trained, "shell")[1]
    ours, theirs = read_written(trained, "shell")[0], evaluate("0.4", {"decode.alpha": 0.4, "eval.max_examples": 6})[0]
    assert titles_of(ours) == titles_of(theirs)
    np.testing.assert_allclose(scores_of(ours), scores_of(theirs), atol=1e-4)
    assert np.abs(scores_of(ours) - scores_of(evaluate("0.2", {"eval.max_examples": 6})[0])).max() > 0.01


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
    predictions, metrics = read_written(trained, "valid")
    assert [line["user"] for line in predictions] == ["valid customer 0", "valid customer 6"]
    assert metrics["n"] == 2
    assert "checkpoint of step 18, valid loss" in done.out
    assert "candidates (catalogue): 23 of 23 items, 22 titles" in done.out


def test_a_model_folder_needs_no_training(tiny, tmp_path, capsys):
    config = tiny_run.tiny_config(tiny, {"eval.max_examples": 5})
    for name in ("first", "second"):
        program.evaluate(config, Workdir(str(tmp_path / "run")), name=name)
    assert f"no training: weights of {tiny / 'model'}" in capsys.readouterr().out
    first, second = (read_written(tmp_path / "run", name) for name in ("first", "second"))
    assert first == second
    assert len(first[0]) == 5
