"""Memory that programs have used, and that there is."""

import os
import resource
import sys
from typing import Any

import jax

from igd_jax.core.devices import facts

_RESIDENT_UNIT = 1 if sys.platform == "darwin" else 1024


def peak_memory() -> int:
    """Largest number of bytes in use at once so far: on the fullest device of this process, or by the process itself.

    The latter where devices do not say, as those of a CPU, whose memory is that of the process.
    """
    peaks = [stats["peak_bytes_in_use"] for stats in map(_stats, jax.local_devices()) if "peak_bytes_in_use" in stats]
    return max(peaks) if peaks else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RESIDENT_UNIT


def device_memory(device: Any) -> int | None:
    """Bytes that programs may use on a `jax.Device`; of a CPU, those of the machine; None if it is not known."""
    if "bytes_limit" in (stats := _stats(device)):
        return stats["bytes_limit"]
    if device.platform != "cpu":
        known = facts(device.device_kind)
        return None if known is None else known.memory_bytes
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def shown_bytes(n: int) -> str:
    """A number of bytes for people."""
    return f"{n / 2**30:,.2f} GiB" if n >= 2**30 else f"{n / 2**20:,.1f} MiB"


def _stats(device: Any) -> dict[str, Any]:
    return device.memory_stats() or {}
