"""Of several processes the first writes and talks; the others go through the same motions and leave nothing behind."""

import subprocess
import sys

import jax
import pytest

from igd_jax.core.io import append_lines, atomic_file, atomic_folder, write_json
from igd_jax.core.log import Progress, say
from igd_jax.core.metrics_log import MetricsWriter, plot_losses
from igd_jax.core.process import is_first
from igd_jax.core.trackers import TensorBoard

METRICS = '{"step": 1, "loss": 1.0}\n{"step": 2, "loss": 0.5}\n'


@pytest.fixture
def second(monkeypatch):
    """As if this process were the second of two."""
    monkeypatch.setattr(jax, "process_index", lambda: 1)


def test_a_process_alone_is_the_first():
    assert is_first()


@pytest.mark.usefixtures("second")
def test_another_process_writes_nothing(tmp_path):
    write_json(tmp_path / "config.json", {})
    with atomic_file(tmp_path / "new" / "x.txt") as partial:
        partial.write_text("x")
    with atomic_folder(tmp_path / "eval") as folder:
        (folder / "metrics.json").write_text("{}")
    append_lines(tmp_path / "answers" / "x.jsonl", ["{}"])
    metrics = MetricsWriter(tmp_path / "run" / "metrics.jsonl", TensorBoard(tmp_path / "tb"))
    metrics.write(1, loss=1.0)
    metrics.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("second")
def test_another_process_leaves_what_the_first_has_written(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(METRICS)
    MetricsWriter(tmp_path / "metrics.jsonl").truncate(1)
    append_lines(tmp_path / "metrics.jsonl", ["{}"], keep=0)
    plot_losses(tmp_path / "metrics.jsonl", tmp_path / "loss.png")
    with atomic_folder(tmp_path) as folder:  # the first would refuse to replace this one
        (folder / "x").touch()
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]
    assert (tmp_path / "metrics.jsonl").read_text() == METRICS


@pytest.mark.usefixtures("second")
def test_another_process_says_nothing(capsys):
    say("hello")
    Progress("train", 1, "steps").update(1)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("module", ["prepare", "compare", "inspect"])
def test_programs_without_a_model_start_no_devices(module):
    look = f"import sys, igd_jax.{module}; print('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
