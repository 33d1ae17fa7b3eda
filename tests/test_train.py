"""Training from start to end: what it writes and says, how it resumes, and when it refuses."""

import dataclasses
import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import tiny_run
from command import run_here
from runs import EPOCH, STEPS, lines_of, saved, session_of, train_tiny, without_speed

from igd_jax import evaluate as evaluation
from igd_jax import train as program
from igd_jax.core.errors import InputError
from igd_jax.core.io import Workdir, read_json
from igd_jax.data.prepared import load
from igd_jax.data.tokenizer import load_tokenizer
from igd_jax.evaluate import evaluate
from igd_jax.inspect import as_json
from igd_jax.methods.base import Objective, token_loss
from igd_jax.methods.igd import IGD
from igd_jax.models import config as model_config
from igd_jax.models.load import config_of
from igd_jax.session.explaining import explanation
from igd_jax.session.train_plan import TrainPlan
from igd_jax.session.training_weights import training_weights
from igd_jax.settings.config_flags import config_json
from igd_jax.training.optimizer import make_schedule
from igd_jax.training.train_log import SPEED

SHORT = {"train.num_steps": 2, "train.warmup_steps": 0, "train.log_every_steps": 1}
ONE_SHAPE = {"train.micro_batch_size": 16}
"""A single micro-batch per step, for models that no other test compiles."""


# ------------------------------------------------------------------------------------------------------ start to finish
def test_the_loss_falls_and_each_step_is_logged_once(trained):
    lines = lines_of(trained)
    steps = [line for line in lines if "loss" in line]
    assert [line["step"] for line in steps] == list(range(1, STEPS + 1))
    assert steps[-1]["loss"] < 0.6 * steps[0]["loss"]
    assert set(steps[0]) == {
        *("step", "loss", "loss_forced", "loss_deciding"),
        *("grad_norm", "learning_rate", *(name for name in SPEED if name != "utilisation")),
    }
    valid = [line for line in lines if "valid_loss" in line]
    assert [line["step"] for line in valid] == [EPOCH, 2 * EPOCH, 3 * EPOCH]
    assert set(valid[0]) == {"step", "valid_loss", "valid_loss_forced", "valid_loss_deciding"}
    assert [line["step"] for line in lines] == sorted(line["step"] for line in lines)


def test_the_learning_rate_of_each_step_is_that_of_the_schedule(trained):
    logged = [line["learning_rate"] for line in lines_of(trained) if "loss" in line]
    expected = [0, 0.5e-2, *(1e-2 * (STEPS - step) / (STEPS - 2) for step in range(2, STEPS))]
    np.testing.assert_allclose(logged, expected, rtol=1e-5)


def test_the_workdir_holds_all_that_describes_the_run(tiny, trained):
    assert read_json(trained / "config.json") == config_json(tiny_run.tiny_config(tiny))
    assert read_json(trained / "env.json")["devices"] == ["cpu"] * 8
    assert load_tokenizer(trained / "tokenizer").fingerprint == load_tokenizer(tiny / "model").fingerprint
    assert {path.name for path in (trained / "checkpoints").iterdir()} == {"best", "last", "newest.json"}
    ((state, progress), (_, best)) = saved(trained)
    assert int(state.step) == STEPS
    losses = {line["step"]: line["valid_loss"] for line in lines_of(trained) if "valid_loss" in line}
    assert progress["best_step"] == min(losses, key=losses.get) == best["best_step"]
    assert progress["best_loss"] == losses[progress["best_step"]]


# ------------------------------------------------------------------------------------------------------------- stopping
def test_training_stops_early_and_stays_stopped(tiny, tmp_path, capsys):
    changes = {"train.patience": 1, "train.eval_every_steps": 2, "train.learning_rate": 0.0, "train.num_steps": 8}
    progress = train_tiny(tiny, tmp_path, changes)
    assert (progress["best_step"], progress["worse"]) == (2, 1)
    told = capsys.readouterr().out
    assert "micro-batches of 8; at most 2 steps (0.33 epochs) without a better loss\n" in told
    assert "stopping early: 1 evaluation(s) without a better loss" in told
    assert lines_of(tmp_path)[-1]["step"] == 4
    assert train_tiny(tiny, tmp_path, changes) == progress
    why = "1 evaluation(s) were no better, raise config.train.patience to go on"
    assert f"nothing left to train: step 4 was the last; {why}\n" in capsys.readouterr().out


@pytest.mark.slow
def test_a_run_that_loses_patience_at_its_last_step_is_finished_and_says_so_if_made_longer(tiny, tmp_path, capsys):
    changes = {"train.patience": 1, "train.eval_every_steps": 2, "train.learning_rate": 0.0, "train.num_steps": 4}
    train_tiny(tiny, tmp_path, changes)
    assert "stopping early" not in capsys.readouterr().out
    train_tiny(tiny, tmp_path, changes)
    assert "nothing left to train: step 4 was the last\n" in capsys.readouterr().out
    train_tiny(tiny, tmp_path, changes | {"train.num_steps": 8})
    assert "no better, raise config.train.patience to go on\n" in capsys.readouterr().out
    train_tiny(tiny, tmp_path, changes | {"train.num_steps": 8, "train.patience": 3})
    assert lines_of(tmp_path)[-1]["step"] == 8


@pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered:RuntimeWarning")
def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good_checkpoint(tiny, tmp_path):
    changes = {"train.learning_rate": 1e30, "train.warmup_steps": 3, "train.checkpoint_every_steps": 1}
    with pytest.raises(InputError, match=r"^\w+ is (nan|inf) at step 3; try a lower config.train.learning_rate, more "):
        train_tiny(tiny, tmp_path, changes)
    assert [line["step"] for line in lines_of(tmp_path)] == [1, 2]
    (state, _), best = saved(tmp_path)
    assert int(state.step) == 2
    assert best is None


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered:RuntimeWarning")
def test_a_valid_loss_that_is_not_finite_is_never_the_best(tiny, tmp_path):
    with pytest.raises(InputError, match=r"^valid_loss\w* is (nan|inf) at step 1; try a lower "):
        train_tiny(tiny, tmp_path, SHORT | {"train.learning_rate": 1e30, "train.num_steps": 1})
    assert saved(tmp_path) == (None, None)


def test_a_source_that_is_not_there_yet_is_told(capsys, tmp_path):
    said = []
    for given in ("", "popularity", str(tmp_path), str(tmp_path / "sasrec")):
        (tmp_path / "collaborative.safetensors").touch()
        program._tell_source(given)
        said.append(capsys.readouterr().out)
    told = f"note: config.decode.collaborative is {tmp_path / 'sasrec'}, which holds no collaborative.safetensors yet; "
    assert said == ["", "", "", f"{told}evaluating needs it\n"]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"model.path": "", "train.learning_rate": 1e-2}, []),
        ({"model.lora_rank": 4}, []),
        (
            {"model.path": "", "model.lora_rank": 4},
            ["note: its weights are random, and config.model.lora_rank=4 trains"],
        ),
        (
            {"model.path": "", "model.lora_rank": 4, "train.learning_rate": 1e-4},
            [
                "note: its weights are random, and",
                "note: its weights are random, which config.train.learning_rate=",
            ],
        ),
    ],
)
def test_what_is_for_trained_weights_is_told_of_random_ones(tiny, tmp_path, capsys, changes, told):
    small = {"model.config": "pico", "tokenizer.path": str(tiny / "model")}
    session = session_of(tiny_run.tiny_config(tiny, small | changes), tmp_path)
    capsys.readouterr()
    program._tell_model(session)
    first, *notes = capsys.readouterr().out.splitlines()
    assert first.startswith("making the model: ")
    assert len(notes) == len(told)
    assert all(map(str.startswith, notes, told))


@pytest.mark.parametrize(
    ("warmup", "note"),
    [
        (4, ""),
        (5, "note: config.train.warmup_steps=5 does not end before training does, so the rate rises to 0.008 and not"),
        (
            40,
            "note: config.train.warmup_steps=40 does not end before training does, so the rate rises to 0.001 and not",
        ),
    ],
)
def test_a_warm_up_as_long_as_training_is_told(tiny, tmp_path, warmup, note):
    config = tiny_run.tiny_config(tiny, {"train.num_steps": 5, "train.warmup_steps": warmup})
    plan = TrainPlan(session_of(config, tmp_path), 90)
    assert [told[: len(note)] for told in plan.notes] == [note] * (warmup >= 5)
    schedule = make_schedule("constant", learning_rate=1e-2, warmup_steps=warmup, num_steps=5)
    assert bool(plan.notes) == (max(map(schedule, range(5))) < 1e-2)


@pytest.mark.parametrize(("patience", "every", "told"), [(1, 2, True), (1, 0, False), (2, 2, False), (0, 2, False)])
def test_that_one_evaluation_within_an_epoch_can_end_training_is_told(tiny, tmp_path, patience, every, told):
    fields = {"train.patience": patience, "train.eval_every_steps": every}
    plan = TrainPlan(session_of(tiny_run.tiny_config(tiny, fields), tmp_path), 90)
    start = "note: training ends at the first evaluation, one per 2 steps, whose loss is no better"
    assert [note[: len(start)] for note in plan.notes] == [start] * told


# ------------------------------------------------------------------------------------------------------------- refusing
def test_a_workdir_of_another_config_is_refused_with_the_fields_that_differ(tiny, trained):
    before = (trained / "config.json").read_bytes()
    with pytest.raises(
        InputError,
        match=r"another config, method.args.beta: 0.1 there, 0.3 here, train.learning_rate: 0.01 there, 1.0 here, "
        r"train.seed: 42 there, 1 here; leave them as they are there, or name another --workdir",
    ):
        train_tiny(tiny, trained, {"train.seed": 1, "train.learning_rate": 1.0, "method.args.beta": 0.3})
    assert (trained / "config.json").read_bytes() == before


def test_annotations_of_another_length_are_refused_before_anything_is_compiled(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        IGD, "objective", lambda self, context: Objective(token_loss, {"weight": np.ones(len(context.index.titles))})
    )
    with pytest.raises(
        InputError, match=r"the objective of igd has an annotation 'weight' of shape \(23,\); expected one entry per "
    ):
        train_tiny(tiny, tmp_path / "run")
    assert "making the model" not in capsys.readouterr().out
    with pytest.raises(InputError, match=r"of all items, \(\d+,\), aligned with context.index.item_tokens.ids$"):
        training_weights(session_of(tiny_run.tiny_config(tiny), tmp_path / "run"))


def test_weights_are_told_only_where_the_objective_says_them(tiny, tmp_path, monkeypatch):
    session = session_of(tiny_run.tiny_config(tiny), tmp_path / "run")
    total = len(session.index.item_tokens.ids)
    for annotations, expected in (({}, 1.0), ({"mine": np.ones(total, np.float32)}, np.nan)):
        objective = Objective(token_loss, annotations)
        monkeypatch.setattr(IGD, "objective", lambda self, context, made=objective: made)
        np.testing.assert_array_equal(training_weights(session), np.full(total, expected))
    found = explanation(session.index, session.tokenizer, 3, weight=training_weights(session))
    assert {token["weight"] for token in as_json(found)["tokens"]} == {None}


def test_how_to_decode_and_evaluate_and_on_how_many_devices_may_change(tiny, trained, tmp_path, capsys):
    shutil.copytree(trained, tmp_path / "run", ignore=shutil.ignore_patterns("eval"))
    changes = {"decode.alpha": 0.0, "eval.split": "valid", "mesh.data": 8, "model.remat": "full"}
    train_tiny(tiny, tmp_path / "run", changes)
    assert "nothing left to train" in capsys.readouterr().out
    assert read_json(tmp_path / "run" / "config.json")["mesh"]["data"] == 8


def test_other_candidates_are_refused_because_the_weights_of_tokens_come_from_them(tiny, trained):
    with pytest.raises(
        InputError, match=r"holds a run of another config, data.candidates: 'catalogue' there, 'train' here;"
    ):
        train_tiny(tiny, trained, {"data.candidates": "train"})


def test_other_candidates_in_the_same_file_are_refused_by_training_and_evaluation(tiny, tmp_path):
    items, file = pq.read_table(tiny / "data" / "items.parquet")["id"].to_pylist(), tmp_path / "candidates.txt"
    fields = {"data.candidates": str(file), "decode.candidates": "catalogue", "train.num_steps": 1}
    file.write_text("\n".join(items[:4]))
    train_tiny(tiny, tmp_path / "run", fields)
    file.write_text("\n".join(items[1:5]))
    with pytest.raises(InputError, match=r"run was trained .* with other candidates"):
        train_tiny(tiny, tmp_path / "run", {**fields, "train.num_steps": 2})
    with pytest.raises(InputError, match=r"run was trained .* with other candidates"):
        evaluate(tiny_run.tiny_config(tiny, fields), Workdir(str(tmp_path / "run")), name="test")


def test_other_data_under_the_same_name_is_refused(tiny, trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    for name in ("data", "model"):
        shutil.copytree(tiny / name, tmp_path / name)
    config = read_json(trained / "config.json")
    config["data"]["dir"], config["model"]["path"] = str(tmp_path / "data"), str(tmp_path / "model")
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    tiny_run.save_data(tmp_path / "data", seed=1)
    with pytest.raises(
        InputError, match=r"run was trained on other data, on other rows .* than .*data and the config give"
    ):
        train_tiny(tmp_path, tmp_path / "run")
    with pytest.raises(InputError, match=r"run was trained on other data"):
        evaluate(tiny_run.tiny_config(tmp_path), Workdir(str(tmp_path / "run")), name="test")


@pytest.mark.slow
def test_a_run_older_than_a_field_goes_on_with_the_default_of_the_field(tiny, trained, tmp_path, capsys):
    shutil.copytree(trained, tmp_path / "run", ignore=shutil.ignore_patterns("eval"))
    config = read_json(trained / "config.json")
    del config["model"]["lora_rank"], config["mesh"], config["eval"]["protocol"]
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    done = run_here(evaluation, f"--workdir={tmp_path / 'run'}", "--config.model.lora_rank=0")
    assert (done.code, done.err) == (0, ""), done.err
    assert read_json(tmp_path / "run/eval/test/config.json")["eval"]["protocol"] == "rows"
    train_tiny(tiny, tmp_path / "run")
    assert "nothing left to train" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"holds a run of another config, model.lora_rank: 0 there, 4 here"):
        train_tiny(tiny, tmp_path / "run", {"model.lora_rank": 4})


# ------------------------------------------------------------------------------------------------------------- variants
@pytest.mark.slow
def test_eight_devices_train_like_one(tiny, tmp_path):
    for name, changes in (("one", {"mesh.data": 1}), ("eight", {"mesh.data": 8, **ONE_SHAPE})):
        train_tiny(tiny, tmp_path / name, {**SHORT, **changes})
    for ours, theirs in zip(without_speed(tmp_path / "eight"), without_speed(tmp_path / "one"), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)


@pytest.mark.slow
def test_without_a_model_folder_weights_are_random_and_the_tokenizer_is_trained(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(model_config.NAMED, "nano", config_of(tiny / "model"))
    changes = {**SHORT, **ONE_SHAPE, "model.path": "", "model.config": "nano", "tokenizer.vocab_size": 280}
    train_tiny(tiny, tmp_path, changes)
    tokenizer = load_tokenizer(tmp_path / "tokenizer")
    assert tokenizer.vocab_size == 280
    first = capsys.readouterr().out
    train_tiny(tiny, tmp_path, changes)
    mark = f"fingerprint {tokenizer.fingerprint}"
    assert mark in first
    assert mark in capsys.readouterr().out
    note = "note: its weights are random, which config.train.learning_rate=0.0001 is low for; 0.001 or more"
    assert note not in first
    other = train_tiny(tiny, tmp_path / "other", changes | {"train.seed": 1, "train.learning_rate": 1e-4})
    assert other["best_loss"] != lines_of(tmp_path)[-1]["valid_loss"]
    assert note in capsys.readouterr().out


@pytest.mark.slow
def test_the_published_normalizer_gives_another_loss_on_unequal_weights(tiny, tmp_path):
    for name in ("global", "micro_batch"):
        train_tiny(tiny, tmp_path / name, {**SHORT, "loss.normalizer": name, "method.args.beta": 0.01})
    ours, theirs = (lines_of(tmp_path / name)[0] for name in ("global", "micro_batch"))
    assert ours["loss_forced"] == pytest.approx(theirs["loss_forced"], rel=1e-5)
    assert ours["loss"] != pytest.approx(theirs["loss"], rel=1e-5)


def test_what_is_merged_left_out_or_cut_is_counted_and_told(tiny, tmp_path, capsys):
    sold = [item for item in tiny_run.ITEM_IDS if item not in ("sku0", "sku7")]
    (tmp_path / "candidates.txt").write_text("\n".join(sold))
    changes = {**SHORT, "data.candidates": str(tmp_path / "candidates.txt"), "data.max_length": 42}
    train_tiny(tiny, tmp_path / "run", changes)
    told = capsys.readouterr().out
    assert "data: users 125, items 23, rows train 90, valid 13, test 22, dates 2020-09-13 to 2020-09-13" in told
    assert "21 of 23 items, 20 titles (1 items merged into one that they share), 18 of them train targets" in told
    data = load(tiny / "data")
    for split in ("train", "valid"):
        off = int(np.isin(data.splits[split].target, (0, 7)).sum())
        assert off > 0
        assert f"{off} of {tiny_run.N_ROWS[split]} {split} targets are off the trie (no candidate)" in told
    cut = [line for line in told.splitlines() if line.endswith(" cut: with target over 42 tokens")]
    of = [line.partition(" of ")[2].partition(" cut: ")[0] for line in cut]
    assert of == ["90 prompts of train", "13 prompts of valid"]
    assert "plan: 2 steps of 16 rows (6 steps per epoch of 90 rows), micro-batches of 8\n" in told
    assert "example target (token:weight): '" in told


def test_chosen_steps_are_traced_and_what_the_run_costs_is_told_before_it_starts(tiny, tmp_path, capsys):
    with pytest.raises(
        InputError, match=r"^--profile_steps is '2:3'; expected FIRST:LAST, two steps from 1 to 2, both"
    ):
        train_tiny(tiny, tmp_path, SHORT, profile_steps="2:3")
    assert not (tmp_path / "config.json").exists()
    train_tiny(tiny, tmp_path, SHORT, profile_steps="2:2")
    [trace] = tmp_path.glob("profile/plugins/profile/*/*.xplane.pb")
    assert trace.stat().st_size > 1000
    told = capsys.readouterr().out
    assert "model: 28,448 parameters to train on 1 cpu device(s) of 1 process(es)\n" in told
    state = "parameters 0.1 MiB, optimizer 0.2 MiB, gradients 0.2 MiB, activations 2.3 MiB: 2.8 MiB of "
    assert f"memory per device, estimated: {state}" in told
    assert "profile of steps 2 to 2: tensorboard --logdir=" in told


def test_the_valid_loss_can_be_that_of_some_rows(tiny, tmp_path, monkeypatch):
    seen, plain = [], program.micro_batches

    def spy(session, annotations, examples, rows, *, step=None, **options):
        if step is None:
            seen.append(examples.target[rows])
        return plain(session, annotations, examples, rows, step=step, **options)

    monkeypatch.setattr(program, "micro_batches", spy)
    train_tiny(tiny, tmp_path, {"train.num_steps": 1, "train.eval_examples": 5})
    valid = load(tiny / "data").splits["valid"]
    np.testing.assert_array_equal(seen, [valid.target[np.arange(5) * len(valid) // 5]])


def test_the_valid_loss_can_be_that_of_the_first_row_of_each_user(tiny, tmp_path):
    run = session_of(tiny_run.tiny_config(tiny, {"train.eval_protocol": "users"}), tmp_path)
    valid, number = run.prepared.splits["valid"], np.arange(13)
    shared = dataclasses.replace(valid, user=np.array([f"u{n % 4}" for n in number], object), timestamp=-number)
    rows = dataclasses.replace(run, prepared=dataclasses.replace(run.prepared, splits={"valid": shared})).watched_rows()
    assert rows.timestamp.tolist() == [-9, -10, -11, -12]


@pytest.mark.slow
def test_a_run_in_packs_or_trees_has_the_losses_of_a_padded_one(tiny, tmp_path, capsys):
    losses = {}
    for packing in ("none", "rows", "trees"):
        changes = {"train.num_steps": 2, "train.log_every_steps": 1, "train.packing": packing}
        train_tiny(tiny, tmp_path / packing, changes)
        lines = [json.loads(line) for line in (tmp_path / packing / "metrics.jsonl").read_text().splitlines()]
        losses[packing] = [line[name] for line in lines for name in ("loss", "valid_loss") if name in line]
    assert losses["none"] == pytest.approx(losses["rows"], rel=1e-5)
    assert losses["none"] == pytest.approx(losses["trees"], rel=1e-5)
    assert "packing: trees in packs of 64 tokens" in capsys.readouterr().out
    with pytest.raises(InputError, match="pack_length is 3, but the longest row has"):
        train_tiny(tiny, tmp_path / "short", {"train.packing": "rows", "train.pack_length": 3})
