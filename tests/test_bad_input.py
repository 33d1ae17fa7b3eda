"""Whatever is wrong with the input: exit code 2, one line that says what, no traceback, and nothing written."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from command import ROOT, one_line, run_here, run_process

from igd_jax import evaluate, inspect, recommend, train
from igd_jax.session import session


def _field(name: str, value: object) -> str:
    return f"--config.{name}={value}"


# -------------------------------------------------------------------------------------------------- flags and fields
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--confg=x"], "--confg is not an option of this command; --help lists them; did you mean 'config'?"),
        (
            ["--learning_rate=1"],
            "--learning_rate is not an option of this command; --help lists them; did you mean --config.",
        ),
        (
            ["--batch_size=1"],
            "did you mean --config.decode.batch_size or --config.train.global_batch_size or --config.train.micro_",
        ),
        (["--config.workdir=x"], "the config has no field workdir, which is an option of its own; give --workdir"),
        (
            ["--train.num_steps=3"],
            "--train.num_steps is not an option; fields of the config are given by --config.SECTION",
        ),
        (["data"], "unexpected argument 'data': options are written --name=value"),
        (
            ["--config.train.learning_rte=1"],
            "no field train.learning_rte; --help_config lists them all; did you mean 'lea",
        ),
        (["--config.learning_rate=1"], "no field learning_rate; --help_config lists them all; did you mean 'train.lea"),
        (["--config.train.lr=1"], "no field train.lr; --help_config lists them all"),
        (["--config.method.args.bta=1"], "no field method.args.bta; --help_config lists them all; did you mean 'beta'"),
        (["--noconfig.train.show_sampel"], "no field train.show_sampel; "),
        (["--config.train.num_steps=many"], "--config.train.num_steps is 'many'; expected a whole number"),
        (["--config.train.learning_rate=x"], "--config.train.learning_rate is 'x'; expected a number"),
        (["--config.train.show_sample=maybe"], "--config.train.show_sample is 'maybe'; expected true or false"),
        (["--config.method.args.gamma=1"], "no field method.args.gamma"),
        (
            [_field("data.dir", "nowhere")],
            "config.data.dir is 'nowhere', which is not a folder; expected a folder that igd_jax.prepare has written",
        ),
        ([_field("data.dir", "")], "config.data.dir is not set; expected a folder that igd_jax.prepare has written"),
        (
            [_field("data.prompt", "story")],
            "config.data.prompt is 'story'; expected one of bigrec, d3, igd, letter, msl, plain",
        ),
        (
            [_field("data.max_length", 9)],
            "config.data.max_length is 9, but a prompt without a history has ",
        ),
        (
            [_field("data.max_length", 513)],
            "config.data.max_length is 513; expected at most 512, the positions that ",
        ),
        (
            [_field("data.max_examples", -1)],
            "data.max_examples is -1; expected a number of rows from 1 to 1,000,000,000, or 0 for all",
        ),
        (
            [_field("train.eval_examples", -1)],
            "train.eval_examples is -1; expected a number of rows from 1 to 1,000,000,000, or 0",
        ),
        (
            [_field("data.candidates", "cold")],
            "config.data.candidates is 'cold', and none of these is a train target, so no token has a gain; expected "
            "some that are, such as 'catalogue'; config.decode.candidates may still name the others",
        ),
        ([_field("method.name", "idg")], "config.method.name is 'idg'; known methods are "),
        ([_field("method.args.beta", 2.0)], "config.method.args.beta is 2.0; expected a weight from 0 to 1"),
        (
            [_field("decode.candidates", "nowhere.txt")],
            "config.decode.candidates is 'nowhere.txt', which is not a file that can be read; expected catalogue, ",
        ),
        (
            [_field("tokenizer.path", "nowhere")],
            "config.tokenizer.path is 'nowhere', which is not a folder; expected a Hugging Face folder",
        ),
        (
            [_field("model.path", "nowhere"), _field("tokenizer.path", "{tiny}/model")],
            "config.model.path is 'nowhere', which is not a folder; expected a Hugging Face model folder",
        ),
        (
            [_field("model.path", ""), _field("model.config", "huge")],
            "config.model.config is 'huge'; expected one of pico, ",
        ),
        ([_field("model.config", "picoo")], "; did you mean 'pico'?"),
        ([_field("method.name", "igdd")], "; did you mean 'igd'?"),
        ([_field("model.dtype", "float8")], "config.model.dtype is 'float8'; expected one of float32, bfloat16"),
        (
            [
                *(_field(f"{name}_size", 18) for name in ("train.micro_batch", "train.global_batch", "decode.batch")),
                _field("mesh.data", 9),
            ],
            "config.mesh is data 9 x fsdp 1 x tensor 1, but there are 8 devices",
        ),
        (
            [_field("mesh.data", 8), _field("train.micro_batch_size", 4)],
            "micro_batch_size is 4, which 8 devices do not",
        ),
        ([_field("train.micro_batch_size", 24)], "global_batch_size is 128, no multiple of micro_batch_size 24"),
        (
            [_field("train.global_batch_size", 0)],
            "config.train.global_batch_size is 0; expected a number of rows from 1",
        ),
        (
            [_field("train.checkpoint_every_steps", 0)],
            "config.train.checkpoint_every_steps is 0; expected a number of updates",
        ),
        ([_field("train.num_epochs", 0)], "config.train asks for 0 steps; raise num_epochs or num_steps"),
        (
            [_field("train.schedule", "exponential")],
            "config.train.schedule is 'exponential'; expected one of linear, cosine, constant",
        ),
        ([_field("loss.normalizer", "row")], "config.loss.normalizer is 'row'; expected one of global, micro_batch"),
    ],
)
def test_of_training(ask, tiny, changes, message):
    assert message in ask(train, *(change.format(tiny=tiny) for change in changes))


@pytest.mark.parametrize(
    "change", [_field("decode.alpha", 1.5), _field("decode.num_beams", 0), _field("eval.ks", "(1,99)")]
)
def test_what_only_decoding_reads_ends_training_at_second_zero(ask, monkeypatch, change):
    def opened(*_):
        raise AssertionError("the data was read")

    monkeypatch.setattr(session, "load", opened)
    assert f"config.{change.split('.', 1)[1].split('=')[0]} is " in ask(train, change)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            [_field("eval.ks", "(1,20)")],
            "config.eval.ks is (1, 20), but lists have a length of 10; raise config.decode.nu",
        ),
        ([_field("decode.alpha", 1.5)], "config.decode.alpha is 1.5; expected a discount from 0 to 1"),
        (
            [_field("decode.temperature", 0.0)],
            "config.decode.temperature is 0.0; expected a divisor of log-probabilities",
        ),
        (
            [_field("decode.temperature", "nan")],
            "config.decode.temperature is nan; expected a divisor of log-probabilities",
        ),
        (
            [_field("decode.length_penalty", "inf")],
            "config.decode.length_penalty is inf; expected a power of the length",
        ),
        ([_field("decode.batch_size", 0)], "config.decode.batch_size is 0; expected a number of users from 1"),
        (
            [_field("decode.num_beams", 0), _field("eval.ks", "(1,)")],
            "config.decode.num_beams is 0; expected a number of",
        ),
        ([_field("model.path", ""), _field("model.config", "nano")], "holds no run and config.model.path is not set"),
        (["--split=dev"], "config.eval.split is 'dev'; expected one of train, valid, test"),
    ],
)
def test_of_evaluation(ask, changes, message):
    assert message in ask(evaluate, *changes)


def test_of_recommendation(ask):
    assert "k is 11, but lists have a length of 10; give 1 to 10, or raise config.decode.num_beams" in ask(
        recommend, "--history=A", "--k=11"
    )
    assert "no --history is given; name at least one title" in ask(recommend)


def test_of_inspection(tiny, tmp_path):
    def look(data: Path, tokenizer: Path) -> str:
        return one_line(run_here(inspect, f"--data={data}", f"--tokenizer={tokenizer}", "--title=A"))

    assert "is not a prepared folder" in look(tmp_path, tiny / "model")
    assert "holds no tokenizer.json" in look(tiny / "data", tmp_path)


def test_an_experiment_that_is_not_there_or_takes_no_such_name(ask):
    assert "--config=configs/none.py: there is no such file; expected FILE.py or bigrec, cft, " in ask(
        train, config="none.py"
    )
    line = ask(train, config="elsewhere/igd.py:books")
    assert line.endswith("; did you mean --config=igd:books?")
    assert "configs/igd.py:book is unknown; expected one of books, " in ask(train, config="igd.py:book")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import nowhere", " line 1: ModuleNotFoundError: No module named 'nowhere'"),
        ("\ndef get_config(:", " line 2: SyntaxError: invalid syntax (broken.py, line 2)"),
        ("x = 1", " has no get_config()"),
        ("def get_config():\n    return 1 / 0", " line 2: ZeroDivisionError: division by zero"),
        ("def get_config(): raise OSError('no such\\nthing')", " line 1: OSError: no such thing"),
        ("def get_config(): return None", ": get_config() returns NoneType and no ConfigDict"),
        ("def get_config(kind): return None", ": TypeError: get_config() missing 1 required positional argument"),
        ("import sys; sys.exit(0)", " line 1: SystemExit: 0"),
        ("def get_config(): return (lambda f: f(f))(lambda f: f(f))", " line 1: RecursionError: maximum recursion dep"),
        ("raise ValueError('x' * 100_000)", " line 1: ValueError: xxx"),
        (
            "from configs import common\n\ndef get_config():\n    common.get_config().trian.num_epochs = 1",
            """ line 4: AttributeError: 'trian' Did you mean "train" instead of "trian"?; expected""",
        ),
    ],
)
def test_an_experiment_that_is_broken(text, message, tmp_path):
    (tmp_path / "broken.py").write_text(text, encoding="utf-8")
    line = one_line(run_here(train, f"--config={tmp_path / 'broken.py'}", f"--workdir={tmp_path / 'run'}"))
    assert f"error: {tmp_path / 'broken.py'}{message}" in line
    assert line.endswith("; expected an experiment like those of configs/")


def test_an_experiment_without_the_ending_of_its_file(tmp_path, monkeypatch):
    (tmp_path / "mine.py").touch()
    monkeypatch.chdir(tmp_path)
    for given in (f"{tmp_path}/mine", "mine"):
        line = one_line(run_here(train, f"--config={given}:x", "--workdir=run"))
        assert line.endswith(f"; did you mean --config={given}.py:x?")


@pytest.mark.slow
def test_an_experiment_can_be_named_from_anywhere(tmp_path):
    experiment = ROOT / "configs" / "igd.py"
    command = [sys.executable, "-m", "igd_jax.train", f"--config={experiment}", "--workdir=run"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, "config.data.dir is not set" in done.stderr) == (2, True), done.stderr


@pytest.mark.parametrize("module", [train, evaluate, recommend])
def test_neither_an_experiment_nor_a_run(module, tmp_path):
    line = one_line(run_here(module, f"--workdir={tmp_path / 'none'}"))
    assert "--config" in line
    line = one_line(run_here(module, f"--workdir={tmp_path / 'none'}", "--config.decode.alpha=0.1"))
    assert f"{tmp_path / 'none'} holds no run" in line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (train, "--workdir is missing; expected the folder of the run"),
        (evaluate, "--workdir is missing; expected the folder of the run"),
        (inspect, "--title is missing; expected the title, or the item id, to take apart"),
    ],
)
def test_a_required_option_that_is_missing(module, message):
    assert one_line(run_here(module)) == f"error: {message}"


def test_a_field_without_its_section(trained):
    line = one_line(run_here(evaluate, f"--workdir={trained}", "--name=a", "--choose=alpha=0,0.1"))
    assert line.endswith("the config has no field alpha; --help_config lists them all; did you mean 'decode.alpha'?")


def test_a_word_that_an_experiment_does_not_take():
    line = one_line(run_here(train, "--config=sft:books", "--workdir=run"))
    assert line.endswith("--config=sft:books: this experiment takes nothing after a colon; give --config=sft")


def test_an_unknown_field_of_the_run_in_the_workdir(trained):
    line = one_line(run_here(evaluate, f"--workdir={trained}", "--config.decode.alhpa=0.1"))
    assert "the config has no field decode.alhpa; --help_config lists them all; did you mean 'alpha'" in line


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"data": ', " is not valid JSON"),
        ("[" * 100_000, " is not valid JSON (maximum recursion depth"),
        ("[]", " holds no sections with fields, as a run writes them; restore that file"),
        ('{"data": []}', " holds no sections with fields, as a run writes them; restore that file"),
        ('{"data": {"a.b": 1}}', " holds no config of a run (ConfigDict does not accept dots"),
    ],
)
def test_a_run_whose_config_is_broken(tmp_path, text, message):
    (tmp_path / "config.json").write_text(text)
    line = one_line(run_here(evaluate, f"--workdir={tmp_path}"))
    assert f"{tmp_path / 'config.json'}{message}" in line


def test_a_run_whose_checkpoints_are_a_file(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints", "eval"))
    (tmp_path / "run" / "checkpoints").touch()
    assert f"{tmp_path / 'run'} has no checkpoint yet" in one_line(run_here(evaluate, f"--workdir={tmp_path / 'run'}"))


def test_a_workdir_of_another_config(ask, tiny, trained):
    line = ask(train, _field("train.seed", 7), workdir=trained)
    assert "holds a run of another config, " in line
    assert "train.seed: 42 there, 7 here" in line
    assert "; leave them as they are there, or name another --workdir" in line


# ------------------------------------------------------------------------------------------------------- real processes
def test_in_a_process_of_its_own(tiny, tmp_path):
    arguments = [f"--config.data.dir={tiny / 'data'}", f"--workdir={tmp_path / 'run'}"]
    done = run_process("train", "--config=configs/igd.py", *arguments, "--config.method.name=none")
    assert "config.method.name is 'none'; known methods are " in one_line(done)
    done = run_here(evaluate, *arguments[1:])
    assert "holds no run (no config.json in it); train one there, or give --config" in one_line(done)
    assert not (tmp_path / "run").exists()
