"""metrics.jsonl has each step once, whatever was killed."""

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from igd_jax.core.errors import InputError
from igd_jax.core.metrics_log import MetricsWriter, last_step, plot_losses, read_metrics
from igd_jax.core.trackers import TensorBoard


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


def test_lines_that_are_written_together_are_those_written_one_by_one(tmp_path, monkeypatch):
    lines = [(step, {"loss": 1.0 / step}) for step in (1, 2, 3)]
    seen = ([], [])
    rest = {"truncate": lambda _: None, "close": lambda: None}
    trackers = (SimpleNamespace(write=lambda step, values, at=at: at.append((step, values)), **rest) for at in seen)
    one_by_one, together = (MetricsWriter(tmp_path / name, next(trackers)) for name in ("a", "b"))
    for step, values in lines:
        one_by_one.write(step, **values)
    opened, plain = [], Path.open
    monkeypatch.setattr(Path, "open", lambda path, *args, **given: opened.append(path) or plain(path, *args, **given))
    together.write_all(lines)
    together.write_all([])
    assert opened == [tmp_path / "b"]
    assert (tmp_path / "a").read_text() == (tmp_path / "b").read_text()
    assert seen == (lines, lines)


def test_truncation_drops_later_steps_and_a_line_cut_short(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"step": 2, "valid_loss": 1.0}\n{"step": 2, "lo')
    MetricsWriter(path).truncate(2)
    assert _steps(path) == [1, 2, 2]
    MetricsWriter(path).write(3, loss=1.0)
    assert _steps(path) == [1, 2, 2, 3]


def test_truncation_can_drop_the_evaluation_of_the_last_step(tmp_path):
    path, lines = tmp_path / "metrics.jsonl", ['{"step": 2, "valid_loss": 1.0}', '{"step": 4}']
    path.write_text("\n".join([*lines, '{"step": 4, "valid_loss": 1.0}', ""]))
    MetricsWriter(path).truncate(4, last_evaluation=2)
    assert path.read_text().splitlines() == lines


def test_truncation_leaves_a_good_file_as_it_is_and_replaces_another_as_a_whole(tmp_path, monkeypatch):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n')
    before = path.stat()
    MetricsWriter(path).truncate(2)
    assert path.stat() == before

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", killed)
    with pytest.raises(KeyboardInterrupt):
        MetricsWriter(path).truncate(1)
    assert _steps(path) == [1, 2]


def test_a_line_without_its_end_gets_one(tmp_path):
    (path := tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2}')
    (writer := MetricsWriter(path)).truncate(2)
    writer.write(3)
    assert _steps(path) == [1, 2, 3]


def test_lines_that_cannot_be_read_are_counted_and_dropped(tmp_path, capsys):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n{}\n[]\n\xff\n{"step": "2"}\n{"step": 2}\n{"st')
    assert last_step(path) == 2
    MetricsWriter(path).truncate(5)
    assert _steps(path) == [1, 2]
    assert capsys.readouterr().out == f"note: 4 lines of {path} cannot be read and are dropped\n"


def test_values_are_read_and_lines_that_cannot_be_read_are_told(tmp_path, capsys):
    path = tmp_path / "metrics.jsonl"
    assert read_metrics(path) == []
    path.write_text('{"step": 1, "loss": 2.0}\n[]\n{"step": 2}\n{"st')
    assert read_metrics(path) == [{"step": 1, "loss": 2.0}, {"step": 2}]
    assert capsys.readouterr().out == f"note: 2 lines of {path} cannot be read and are left out\n"


def test_the_last_step_of_nothing_is_0(tmp_path):
    assert last_step(tmp_path / "metrics.jsonl") == 0
    (tmp_path / "metrics.jsonl").touch()
    assert last_step(tmp_path / "metrics.jsonl") == 0


def test_truncation_of_nothing_is_fine(tmp_path):
    MetricsWriter(tmp_path / "metrics.jsonl").truncate(5)
    assert not (tmp_path / "metrics.jsonl").exists()


def test_losses_are_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    writer = MetricsWriter(tmp_path / "metrics.jsonl")
    for step in range(1, 4):
        writer.write(step, loss=1 / step, grad_norm=1.0)
    writer.write(3, valid_loss=0.5)
    with (tmp_path / "metrics.jsonl").open("a") as file:  # by another hand
        file.write('{"step": 3, "valid_loss": "\\ud800", "loss_forced": [], "loss_deciding": 1%s}\n' % ("0" * 400))
    plot_losses(tmp_path / "metrics.jsonl", tmp_path / "loss.png")
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_nothing_is_made_before_the_first_line(tmp_path):
    MetricsWriter(tmp_path / "run" / "metrics.jsonl", TensorBoard(tmp_path / "run" / "tb")).close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to(path.name)])
def test_what_is_no_file_is_bad_input(tmp_path, make):
    make(tmp_path / "metrics.jsonl")
    with pytest.raises(InputError, match=r"metrics\.jsonl is not a file; move it away"):
        MetricsWriter(tmp_path / "metrics.jsonl")
