"""metrics.jsonl has each step once, whatever was killed."""

import json

import pytest

from igd_jax.core.metrics_log import MetricsWriter, plot_losses


def _steps(path):
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


def test_each_write_is_a_line(tmp_path):
    writer = MetricsWriter(tmp_path / "run" / "metrics.jsonl")
    writer.write(1, loss=2.5, grad_norm=1.0)
    writer.write(1, valid_loss=2.25)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"step": 1, "loss": 2.5, "grad_norm": 1.0},
        {"step": 1, "valid_loss": 2.25},
    ]


def test_truncation_drops_later_steps_and_a_line_cut_short(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"step": 2, "valid_loss": 1.0}\n{"step": 2, "lo')
    MetricsWriter(path).truncate(2)
    assert _steps(path) == [1, 2, 2]
    MetricsWriter(path).write(3, loss=1.0)
    assert _steps(path) == [1, 2, 2, 3]


def test_truncation_of_nothing_is_fine(tmp_path):
    MetricsWriter(tmp_path / "metrics.jsonl").truncate(5)
    assert not (tmp_path / "metrics.jsonl").exists()


def test_values_also_go_to_tensorboard(tmp_path):
    pytest.importorskip("tensorboardX")
    writer = MetricsWriter(tmp_path / "metrics.jsonl", tmp_path / "tb")
    writer.write(3, loss=2.5)
    writer.close()
    (events,) = (tmp_path / "tb").iterdir()
    assert b"loss" in events.read_bytes()


def test_losses_are_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    writer = MetricsWriter(tmp_path / "metrics.jsonl")
    for step in range(1, 4):
        writer.write(step, loss=1 / step, grad_norm=1.0)
    writer.write(3, valid_loss=0.5)
    plot_losses(tmp_path / "metrics.jsonl", tmp_path / "loss.png")
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")
