"""Environment of a run or an evaluation: versions, devices, commit. Saved next to its metrics."""

import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax

PACKAGES = (
    *("igd_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "transformers", "tokenizers"),
    *("safetensors", "datasets", "pyarrow", "ml-collections", "absl-py", "jaxtyping", "tqdm", "rapidfuzz"),
    *("altair", "vl-convert-python", "jinja2", "qwix"),
)
"""Packages that setup.py requires, jaxlib, and of its extras the one that changes numbers: it quantises weights."""


def environment() -> dict[str, Any]:
    """Versions (None = not installed), devices, commit (None outside a checkout) and command line, as JSON values."""
    devices = jax.devices()
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
        "backend": jax.default_backend(),
        "devices": [device.device_kind for device in devices],
        "processes": jax.process_count(),
        "commit": _commit(),
        "command": sys.argv,
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    """Commit of the checkout that contains this package, independent of the current folder; None if there is none."""
    here = Path(__file__).resolve()
    git = ["git", "-C", str(here.parent)]
    try:  # an installed package may be inside the checkout of another project, which does not track its files
        subprocess.run([*git, "ls-files", "--error-unmatch", here.name], capture_output=True, timeout=5, check=True)
        found = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()
