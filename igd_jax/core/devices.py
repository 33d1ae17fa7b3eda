"""Accelerators: what their makers say of them, by JAX's name (``jax.Device.device_kind``), and one that is not used.

A TPU's figures are those of docs.cloud.google.com/tpu/docs/system-architecture-tpu-vm and of the pages of the versions
that it links; a GPU's those of NVIDIA's data sheets, without sparsity. Where a JAX device is half a chip, so are they.
"""

from dataclasses import dataclass
from pathlib import Path

import jax

GIB = 2**30


@dataclass(frozen=True)
class DeviceFacts:
    """Limits of one device.

    Attributes:
      memory_bytes: memory of the device; what programs may use is a few percent less.
      flops_per_second: peak of dense products in bfloat16 (float16 where a GPU has no bfloat16).
    """

    memory_bytes: int
    flops_per_second: float


_V5E = DeviceFacts(16 * GIB, 197e12)
_V5P = DeviceFacts(95 * GIB, 459e12)
_V6E = DeviceFacts(32 * GIB, 918e12)
_FACTS = {
    "TPU v3": DeviceFacts(16 * GIB, 61.5e12),
    "TPU v4": DeviceFacts(32 * GIB, 275e12),
    "TPU v5 lite": _V5E,
    "TPU v5e": _V5E,
    "TPU v5": _V5P,
    "TPU v5p": _V5P,
    "TPU v6 lite": _V6E,
    "TPU v6e": _V6E,
    "TPU7x": DeviceFacts(96 * GIB, 1153.5e12),
    "Tesla T4": DeviceFacts(16 * GIB, 65e12),
    "Tesla V100-SXM2-16GB": DeviceFacts(16 * GIB, 125e12),
    "Tesla V100-SXM2-32GB": DeviceFacts(32 * GIB, 125e12),
    "NVIDIA A10G": DeviceFacts(24 * GIB, 70e12),
    "NVIDIA A10": DeviceFacts(24 * GIB, 125e12),
    "NVIDIA L4": DeviceFacts(24 * GIB, 121e12),
    "NVIDIA L40S": DeviceFacts(48 * GIB, 362e12),
    "NVIDIA A100-SXM4-40GB": DeviceFacts(40 * GIB, 312e12),
    "NVIDIA A100-SXM4-80GB": DeviceFacts(80 * GIB, 312e12),
    "NVIDIA A100-PCIE-40GB": DeviceFacts(40 * GIB, 312e12),
    "NVIDIA A100 80GB PCIe": DeviceFacts(80 * GIB, 312e12),
    "NVIDIA H100 80GB HBM3": DeviceFacts(80 * GIB, 989e12),
    "NVIDIA H100 PCIe": DeviceFacts(80 * GIB, 756e12),
    "NVIDIA H100 NVL": DeviceFacts(94 * GIB, 835e12),
    "NVIDIA H200": DeviceFacts(141 * GIB, 989e12),
    "NVIDIA B200": DeviceFacts(180 * GIB, 2250e12),
}


def facts(device_kind: str) -> DeviceFacts | None:
    """Limits of a device of a kind, such as ``TPU v5 lite`` or ``NVIDIA H100 80GB HBM3``; None if it is not known."""
    return _FACTS.get(device_kind)


NVIDIA, TPU = ("an NVIDIA GPU", "cuda"), ("a TPU", "tpu")
"""Kinds of accelerators, each with the extra of this package that uses it."""
DEVICE_FILES = {NVIDIA: ("/dev/nvidia0",), TPU: ("/dev/accel0", "/dev/vfio/0")}
"""Files that the driver of an accelerator makes."""


def told_unused(what: str, extra: str) -> str:
    """That jax does not use an accelerator, and what to do."""
    return f"there is {what} but jax runs on the CPU: run pip install -e '.[{extra}]'"


def unused_accelerator() -> str:
    """What accelerator this machine has although jax runs on the CPU, and what to do; empty if there is none."""
    if jax.default_backend() == "cpu":
        for kind, paths in DEVICE_FILES.items():
            if any(Path(path).exists() for path in paths):
                return told_unused(*kind)
    return ""
