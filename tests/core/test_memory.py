"""Bytes that were used, and that there are; as a device says, or else the machine."""

import jax
import pytest

from igd_jax.core.memory import device_memory, peak_memory, shown_bytes


class Device:
    platform = "gpu"

    def __init__(self, device_kind: str = "", **stats: int):
        self.device_kind = device_kind
        self.memory_stats = lambda: stats or None


def test_the_peak_of_a_process_never_falls():
    before = peak_memory()
    assert 50 * 2**20 < before <= peak_memory()


def test_devices_that_say_it_are_asked(monkeypatch):
    devices = [Device(peak_bytes_in_use=5, bytes_limit=80), Device(peak_bytes_in_use=7), Device("NVIDIA L4")]
    monkeypatch.setattr(jax, "local_devices", lambda: devices)
    assert peak_memory() == 7
    assert [device_memory(device) for device in devices] == [80, None, 24 * 2**30]


def test_a_cpu_has_the_memory_of_the_machine():
    assert device_memory(jax.devices("cpu")[0]) > 2**30


@pytest.mark.parametrize(("n", "shown"), [(0, "0.0 MiB"), (3 * 2**19, "1.5 MiB"), (5 * 2**28, "1.25 GiB")])
def test_bytes_for_people(n, shown):
    assert shown_bytes(n) == shown
