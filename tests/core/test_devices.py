import pytest

from igd_jax.core import devices
from igd_jax.core.devices import facts


@pytest.mark.parametrize(
    ("kind", "gib", "teraflops"),
    [("TPU v5 lite", 16, 197), ("TPU v6 lite", 32, 918), ("NVIDIA H100 80GB HBM3", 80, 989), ("NVIDIA H200", 141, 989)],
)
def test_the_limits_of_a_device_are_found_by_its_kind(kind: str, gib: int, teraflops: int):
    found = facts(kind)
    assert found is not None
    assert (found.memory_bytes / 2**30, found.flops_per_second / 1e12) == (gib, teraflops)


def test_a_device_that_is_not_known_has_no_limits():
    assert facts("cpu") is None


def test_an_accelerator_that_jax_does_not_use_is_told(tmp_path, monkeypatch):
    (tmp_path / "accel0").touch()
    paths = {("a GPU", "cuda"): (str(tmp_path / "nvidia0"),), ("a TPU", "tpu"): (str(tmp_path / "accel0"),)}
    monkeypatch.setattr(devices, "DEVICE_FILES", paths)
    assert devices.unused_accelerator() == "there is a TPU but jax runs on the CPU: run pip install -e '.[tpu]'"
    (tmp_path / "accel0").unlink()
    assert devices.unused_accelerator() == ""
