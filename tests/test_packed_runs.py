"""Runs in packs: resumed, with adapters that drop out, and on eight devices."""

import pytest
from runs import assert_same_run, interrupt_at, train_tiny, without_speed

PACKED = {
    "train.packing": "trees", "train.shuffle": "users", "train.num_steps": 4, "train.checkpoint_every_steps": 2,
    "train.log_every_steps": 1,
}  # fmt: skip


def _crash() -> None:
    raise ConnectionError("the machine is gone")


@pytest.mark.slow
def test_a_run_in_trees_with_dropout_goes_on_as_if_nothing_had_been(tiny, tmp_path, monkeypatch, capsys):
    changes = PACKED | {"model.lora_rank": 2, "model.lora_dropout": 0.3}
    train_tiny(tiny, tmp_path / "whole", changes)
    with monkeypatch.context() as patched:
        interrupt_at(patched, 2, _crash)
        with pytest.raises(ConnectionError):
            train_tiny(tiny, tmp_path / "broken", changes)
    train_tiny(tiny, tmp_path / "broken", changes)
    assert "resuming from step 2 of 4" in capsys.readouterr().out
    assert_same_run(tmp_path / "broken", tmp_path / "whole")
    train_tiny(tiny, tmp_path / "kept", changes | {"model.lora_dropout": 0.0})
    assert without_speed(tmp_path / "kept")[-1] != without_speed(tmp_path / "whole")[-1]


@pytest.mark.slow
def test_packs_on_eight_devices_have_the_losses_of_one(tiny, tmp_path):
    found = []
    for n_devices in (1, 8):
        train_tiny(tiny, tmp_path / str(n_devices), PACKED | {"train.num_steps": 2, "mesh.data": n_devices})
        found.append(without_speed(tmp_path / str(n_devices)))
    assert len(found[0]) == len(found[1]) > 2
    for ours, theirs in zip(*found, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)
