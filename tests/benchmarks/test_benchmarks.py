"""Both sides of each program agree on a made-up shop and a random model."""

from pathlib import Path

import pytest
from tiny_run import sasrec_config, tiny_config

pytest.importorskip("torch")

import torch
from transformers import AutoModelForCausalLM

from benchmarks import (
    common,
    decoding,
    decoding_inputs,
    decoding_ours,
    kills,
    memory,
    precision,
    sasrec,
    setrec,
    training,
)
from igd_jax.core.errors import InputError
from igd_jax.core.io import Workdir
from igd_jax.data.prepared import load
from igd_jax.session.session import Session, set_up
from igd_jax.settings.settings import settings_from


@pytest.fixture(scope="module")
def session(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Session:
    changes = {"decode.alpha": 0.3, "data.candidates": "train", "decode.max_new_tokens": 40}
    return set_up(settings_from(tiny_config(tiny, changes)), Workdir(str(tmp_path_factory.mktemp("benchmarks"))))


@pytest.mark.slow
def test_both_searches_find_the_same_titles_with_the_same_scores(session: Session):
    columns, both = decoding.compare(session, n_users=11, repeats=1)
    agreed = {name: value for name, value in both.items() if name.startswith("same_lists")}
    assert set(agreed.values()) == {"11 of 11"}
    assert len(agreed) == 2
    ours, peer = columns["igd_jax"], columns["transformers"]
    for figure in ("sequential_model_calls_per_batch", "tokens_through_the_model_per_user"):
        assert ours[figure] < peer[figure]


@pytest.mark.slow
def test_both_trainings_take_the_same_steps(session: Session):
    columns, both = training.compare(session, n_steps=3, n_examples=40, repeats=1)
    ours, peer = columns["igd_jax"], columns["torch"]
    assert both["loss_difference"] < 1e-5
    assert both["later"] < 1e-4
    assert 0 < ours["tokens_through_the_model_per_example"] < peer["tokens_through_the_model_per_example"]


@pytest.mark.slow
def test_one_pass_ranks_as_a_sort_of_all_titles_does(tiny: Path, tmp_path: Path):
    sessions = setrec.make_sessions(tiny_config(tiny), Workdir(str(tmp_path)))
    columns, both = setrec.compare(sessions, n_users=11, repeats=1)
    assert both["same_lists"] == "8 of 8"
    assert both["largest_score_difference"] < 1e-4
    ours, search = columns["setrec"], columns["igd"]
    assert ours["sequential_model_calls_per_batch"] == 1 < search["sequential_model_calls_per_batch"]
    assert 0 < ours["of_them_no_padding"] < ours["tokens_through_the_model_per_user"]
    args = sessions["setrec"].settings.method.args
    args["beta"] = 1 - args["beta"]  # of the sort alone
    side = decoding_ours.Ours(sessions["setrec"])
    examples, groups = decoding_ours.choose_users(side.session, 8)
    with pytest.raises(InputError, match="scores differ"):
        setrec.check(side(examples, groups), setrec.rank_all(side, examples, groups[0]))


@pytest.mark.slow
def test_both_trainings_of_sasrec_rank_all_rows(tiny: Path, tmp_path: Path):
    session = set_up(settings_from(sasrec_config(tiny)), Workdir(str(tmp_path)))
    for side in sasrec.compare(session, n_epochs=1).values():
        assert side["examples_per_second"] > 0
        assert 0 <= side["hr@10"] < 1


@pytest.mark.slow
def test_fewer_bits_are_told_beside_float32(tiny: Path, tmp_path: Path):
    pytest.importorskip("qwix")
    base = tiny_config(tiny, precision.ADAPTERS)
    exact, nf4 = (precision.measure(base, tmp_path, name, steps=2, seeds=1) for name in ("float32", "nf4"))
    assert exact["bytes_per_weight"] == 4
    assert 0.5 + 4 / 64 < nf4["bytes_per_weight"] < 0.5 + 4 / 32  # a scale for each 32 or 64 inputs
    assert (exact["titles_of_float32_kept"], exact["score_difference_nats"]) == (1, 0)
    assert nf4["score_difference_nats"] > 1e-3
    assert nf4["tuned_valid_loss"] != exact["tuned_valid_loss"]


def test_lists_beside_those_of_float32():
    exact = [{"a": -1.0, "b": -2.0}, {"c": -1.0, "d": -3.0}]
    assert precision.beside([{"b": -2.5, "e": -3.0}, {"c": -1.25, "d": -3.0}], exact) == {
        "titles_of_float32_kept": 0.75,
        "first_titles_kept": 0.5,
        "score_difference_nats": 0.25,
    }


@pytest.mark.slow
def test_memory_is_that_of_a_process_whose_first_step_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(memory, "_SMALL", 40)
    nowhere = Path("no such folder")
    sides = memory.compare(nowhere, nowhere, n_rows=200, n_items=60, long_title=50, scratch=tmp_path)
    assert max(map(len, load(tmp_path / "all").titles)) > 100
    assert len(load(tmp_path / "all").splits["train"]) == 160
    for side in ("small", "all"):
        assert sides[side]["seconds_to_the_first_step"] >= sides[side]["longest_silence_seconds"] > 0
        assert sides[side]["peak_gib"] > 0.1


@pytest.mark.slow
def test_a_run_that_is_killed_twice_loses_nothing(tmp_path: Path):
    records = list(kills.kill_runs(tmp_path, n_kills=2, n_damages=1, seed=0))
    columns = kills.table(records)
    assert (columns["SIGKILL"]["kills"], columns["SIGTERM"]["kills"]) == (1, 1)
    assert sum(record["is_completed"] for record in records) >= 1  # each of them compared with one that was not killed


def test_scores_or_losses_that_differ_are_told():
    title = ((3, 0), -1.0)
    assert decoding.check([[title]], [[title]])["same_lists"] == "1 of 1"
    with pytest.raises(InputError, match="scores differ"):
        decoding.check([[title]], [[((3, 0), -1.01)]])
    with pytest.raises(InputError, match="scores differ"):
        decoding.check([[title]], [[((3, 0), float("nan"))]])
    with pytest.raises(InputError, match="differ"):
        training.check([2.0, 1.0], [2.0002, 1.0])
    with pytest.raises(InputError, match="differ"):
        training.check([2.0, 1.0], [2.0, 1.01])


def test_lists_that_change_are_told_by_order_titles_and_first_ones():
    a, b, c, d = (((token, 0), 0.0) for token in range(1, 5))
    found = decoding.changes([[a, b], [a, b], [a, b], [a, b]], [[a, b], [b, a], [a, c], [c, d]])
    assert found == {
        "users": 4,
        "lists_in_another_order": 3,
        "lists_of_other_titles": 2,
        "other_first_titles": 2,
        "share_of_titles_kept": 0.625,
    }


@pytest.mark.slow
def test_a_larger_model_predicts_what_the_small_one_does(shared: Path):
    ids = torch.arange(3, 43).reshape(2, 20)
    logits = []
    for size in decoding_inputs.SIZES:
        with decoding_inputs.model_of(size) as folder, torch.no_grad():
            model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
            logits.append(model(ids).logits)
    assert sum(weight.numel() for weight in model.parameters()) == pytest.approx(30e6, rel=0.05)
    torch.testing.assert_close(logits[1], logits[0], rtol=1e-4, atol=1e-4)


def test_interleaved_times_are_the_least_of_each_side():
    turns: list[str] = []
    least = common.interleaved({"a": lambda: turns.append("a"), "b": lambda: turns.append("b")}, repeats=3)
    assert turns == ["a", "b"] * 3
    assert set(least) == {"a", "b"}


def test_tables_leave_figures_of_one_side_blank_for_the_other():
    assert common.markdown({"a": {"x_y": 1}, "b": {"x_y": 2, "z": 3}}).splitlines() == [
        "|  | a | b |",
        "| --- | --- | --- |",
        "| x y | 1 | 2 |",
        "| z |  | 3 |",
    ]
