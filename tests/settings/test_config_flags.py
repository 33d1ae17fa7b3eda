"""What --help of a command says of its config, and which configs are those of a run."""

import sys

import pytest
from command import one_line, run_here, run_process

from configs import igd
from igd_jax import train
from igd_jax.core.errors import InputError
from igd_jax.core.io import Workdir, write_json
from igd_jax.settings import config_flags
from igd_jax.settings.config_flags import FREE_TO_DECODE, check_workdir, config_at, config_json
from igd_jax.settings.config_grid import changed


@pytest.mark.parametrize(("program", "given"), [("train", ["--config=igd"]), ("evaluate", None)])
def test_help_shows_the_config_and_where_its_fields_are_listed_on_one_screen(program, given, trained):
    lines = run_process(program, *(given or [f"--workdir={trained}"]), "--help").out.splitlines()
    own = lines[lines.index("flags:") :]
    assert any(line.startswith("  --config: Experiment: the name of a shipped one, such as igd") for line in own)
    assert any(line.startswith("  --[no]help_config: Print every field of the config") for line in own)
    assert any(line.startswith("  --workdir:") for line in own)
    assert len(lines) <= 50


def test_a_run_may_be_older_than_some_arguments_of_its_method(tmp_path):
    (config := igd.get_config()).data.dir = "data"
    written = config_json(config)
    del written["method"]["args"]["weights"], written["method"]["args"]["entropy"]
    write_json(tmp_path / "config.json", written)
    check_workdir(config, Workdir(str(tmp_path)))
    config.method.args.weights = "gain"
    with pytest.raises(InputError, match=r"run of another config, method.args.weights: .zero. there, .gain. here"):
        check_workdir(config, Workdir(str(tmp_path)))


def test_what_changes_no_loss_and_where_the_data_lie_may_differ_from_the_run(tmp_path):
    (config := igd.get_config()).data.dir = "data"
    write_json(tmp_path / "config.json", config_json(config))
    changes = {"train.packing": "none", "train.pack_length": 512, "data.dir": "moved/data"}
    check_workdir(changed(config, changes), Workdir(str(tmp_path)))


@pytest.mark.parametrize(
    ("normalizer", "args", "may_differ"),
    [
        ("global", {}, True),
        ("micro_batch", {}, False),
        ("global", {"sampled_items": 5}, False),
        ("global", {"positions": "published"}, False),
    ],
)
def test_micro_batches_may_differ_from_the_run_where_they_change_no_loss(tmp_path, normalizer, args, may_differ):
    (config := igd.get_config()).loss.normalizer = normalizer
    config.method.args = args
    write_json(tmp_path / "config.json", config_json(config))
    other, workdir = changed(config, {"train.micro_batch_size": 32}), Workdir(str(tmp_path))
    check_workdir(other, workdir, free=FREE_TO_DECODE)
    if may_differ:
        check_workdir(other, workdir)
        return
    with pytest.raises(InputError, match=r"another config, train.micro_batch_size: 16 there, 32 here"):
        check_workdir(other, workdir)


def test_where_the_first_model_lies_may_differ_when_a_run_is_decoded_but_not_when_it_is_resumed(tmp_path):
    write_json(tmp_path / "config.json", config_json(config := igd.get_config()))
    other, workdir = changed(config, {"model.path": "elsewhere"}), Workdir(str(tmp_path))
    check_workdir(other, workdir, free=FREE_TO_DECODE)
    with pytest.raises(InputError, match=r"another config, model.path: '' there, 'elsewhere' here"):
        check_workdir(other, workdir, free=config_flags.FREE_TO_RESUME)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--workdir=a", "--workdir=b"], "b"),
        (["-workdir=a", "--title", "workdir"], "a"),
        (["--workdir", "a=b"], "a=b"),
        (["--", "--workdir=a"], None),
        (["--workdir"], None),
        (["--workdirs=a", "workdir=b"], None),
    ],
)
def test_an_option_is_read_as_absl_reads_it(monkeypatch, words, expected):
    monkeypatch.setattr(sys, "argv", ["program", *words])
    assert config_flags._option("--workdir") == expected


@pytest.mark.parametrize(
    "words",
    [
        ["--config.data.dir=nowhere", "--workdir=run", "--config=igd"],
        ["--config.data.dir", "nowhere", "--config", "igd", "--config.train.seed=1", "--workdir=run"],
        ["--config=sft", "--config.data.dir=nowhere", "-config", "igd", "--workdir=run"],
    ],
)
def test_fields_may_stand_before_the_experiment(words):
    assert one_line(run_here(train, *words)).startswith("error: config.data.dir is 'nowhere', which is not a folder")


def test_the_experiment_is_put_first_and_the_rest_stays_in_order(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["program", "-b", "--config", "x", "--a=1", "--config=y", "c", "--", "--config=z"])
    config_flags._put_config_first("y")
    assert sys.argv == ["program", "--config=y", "-b", "--a=1", "c", "--", "--config=z"]


@pytest.mark.parametrize("word", ["--config.data.dir=x", "-config.data.dir=x", "--noconfig.train.show_sample"])
def test_a_field_without_a_config_is_told_as_one(word):
    done = run_here(train, word)
    assert done.code == 2
    assert done.err == "error: --config.FIELD is given, but neither --config=FILE nor the --workdir of a run\n"


def test_the_config_of_an_evaluation_is_read_without_how_values_were_chosen(tmp_path):
    config = igd.get_config()
    chosen = {"tried": {"decode.alpha": [0.0, 0.1]}}  # names with dots, which a config does not have
    write_json(tmp_path / "config.json", config_json(config) | {"chosen": chosen})
    assert config_json(config_at(tmp_path / "config.json")) == config_json(config)
