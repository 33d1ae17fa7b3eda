"""Metrics also go to TensorBoard, and if wanted to Weights & Biases, as one run however often it dies."""

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from igd_jax.core.errors import InputError
from igd_jax.core.metrics_log import MetricsWriter
from igd_jax.core.trackers import TensorBoard, WeightsAndBiases


class Refused(Exception):
    pass


class Service:
    """In the place of the package wandb: keeps what it is told."""

    Error = Refused

    def __init__(self) -> None:
        self.begun: list[dict[str, Any]] = []
        self.logged: list[Any] = []

    def Settings(self, **given: Any) -> Any:
        return given

    def init(self, **given: Any) -> Any:
        if given["project"] == "secret":
            raise Refused("no key is configured\nfurther lines")
        self.begun.append(given)
        return SimpleNamespace(
            log=lambda values, step: self.logged.append((step, values)), finish=lambda: self.logged.append("finished")
        )


@pytest.fixture
def service(monkeypatch) -> Service:
    monkeypatch.setitem(sys.modules, "wandb", found := Service())
    return found


def test_values_go_to_tensorboard_which_is_imported_before_the_first_of_them(tmp_path, monkeypatch):
    pytest.importorskip("tensorboardX")
    monkeypatch.delitem(sys.modules, "tensorboardX")
    writer = MetricsWriter(tmp_path / "metrics.jsonl", TensorBoard(tmp_path / "tb"))
    assert "tensorboardX" in sys.modules
    assert not (tmp_path / "tb").exists()
    writer.write(3, loss=2.5)
    writer.close()
    (events,) = (tmp_path / "tb").iterdir()
    assert b"loss" in events.read_bytes()


def test_tensorboard_hides_the_steps_that_a_resumed_run_trains_again(tmp_path):
    pytest.importorskip("tensorboardX")
    from tensorboardX.proto.event_pb2 import Event, SessionLog

    writer = MetricsWriter(tmp_path / "metrics.jsonl", TensorBoard(tmp_path / "tb"))
    writer.truncate(4)
    writer.write(4, valid_loss=2.5)  # of an evaluation that had been interrupted: the loss of step 4 stays
    writer.close()
    (file,) = (tmp_path / "tb").iterdir()
    data, events = file.read_bytes(), []
    while data:  # length, checksum, event, checksum
        end = 12 + int.from_bytes(data[:8], "little")
        events.append(Event.FromString(data[12:end]))
        data = data[end + 4 :]
    began = [event.step for event in events if event.session_log.status == SessionLog.START]
    assert began == [5], "TensorBoard drops what earlier files have from that step on"


def test_values_go_to_a_project_and_a_resumed_run_goes_on_there(tmp_path, service):
    for step in (1, 4, 1):
        writer = MetricsWriter(tmp_path / "metrics.jsonl", WeightsAndBiases("mine", tmp_path, {"train": {"seed": 1}}))
        writer.write(step, loss=2.5)
        writer.write(step, valid_loss=2.0)
        writer.close()
    first, resumed, restarted = service.begun
    assert first == resumed
    assert first["id"] != restarted["id"]
    told = {"project": "mine", "name": tmp_path.name, "dir": str(tmp_path), "config": {"train": {"seed": 1}}}
    assert first == told | {"id": first["id"], "resume": "allow", "settings": {"console": "off"}}
    assert service.logged[:4] == [(1, {"loss": 2.5}), (1, {"valid_loss": 2.0}), "finished", (4, {"loss": 2.5})]


def test_without_a_value_nothing_is_begun(tmp_path, service):
    MetricsWriter(tmp_path / "metrics.jsonl", WeightsAndBiases("mine", tmp_path, {})).close()
    assert (service.begun, list(tmp_path.iterdir())) == ([], [])


def test_a_service_that_is_missing_or_refuses_is_one_line(tmp_path, service, monkeypatch):
    with pytest.raises(InputError, match=r"'secret', but wandb says: no key is configured; log in by `wandb"):
        WeightsAndBiases("secret", tmp_path, {}).write(1, {"loss": 1.0})
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(InputError, match=r"config\.train\.wandb is 'mine', but the package wandb is not installed; "):
        WeightsAndBiases("mine", tmp_path, {})
