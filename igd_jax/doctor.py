"""Report the devices and versions of this machine, problems, and how to fix them.

    python -m igd_jax.doctor [--workdir=RUN]

Exit code 0 if a model can be trained here, 1 if there is a problem.
"""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from igd_jax.core import errors
from igd_jax.core.compilation import cache_compilations
from igd_jax.core.environment import environment
from igd_jax.core.io import Workdir
from igd_jax.core.log import say
from igd_jax.core.sharding import by_row
from igd_jax.training.mesh import make_mesh


def check_devices() -> str:
    """Count devices and their memory."""
    devices = jax.devices()
    stats = devices[0].memory_stats() or {}
    memory = f", {stats['bytes_limit'] / 2**30:.0f} GiB each" if "bytes_limit" in stats else ""
    kind = f"{devices[0].device_kind} ({jax.default_backend()})"
    return f"{len(devices)} x {kind}{memory}, {jax.process_count()} process(es)"


def check_accelerator() -> str:
    """Detect a GPU or TPU that this installation of jax cannot use."""
    if jax.default_backend() != "cpu":
        return "in use"
    if Path("/dev/nvidia0").exists():
        raise RuntimeError("there is an NVIDIA GPU but jax runs on the CPU: run 'pip install -e .[cuda]'")
    if Path("/dev/accel0").exists() or Path("/dev/vfio/0").exists():
        raise RuntimeError("there is a TPU but jax runs on the CPU: run 'pip install -e .[tpu]'")
    return "none found; the CPU is in use"


def check_sharded_product() -> str:
    """Multiply a matrix that is split over all devices."""
    mesh = make_mesh(data=-1)
    x = jax.device_put(jnp.ones((8 * mesh.size, 64)), by_row(mesh))
    if not np.allclose(jax.jit(lambda x: x @ x.T)(x), 64.0):
        raise RuntimeError("a product over all devices is wrong: check the driver, or run on one device")
    return f"right on {mesh.size} device(s)"


def check_compilation_cache() -> str:
    """Report the folder of compiled programs."""
    folder = cache_compilations()
    return str(folder) if folder else "none, since ~/.cache/igd_jax cannot be written; set JAX_COMPILATION_CACHE_DIR"


def check_workdir(workdir: Path) -> str:
    """Check that the folder for runs can be written."""
    workdir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=workdir):
        return f"{workdir} can be written"


def define_flags() -> None:
    """Flags of the command line."""
    flags.DEFINE_string("workdir", ".", "Folder where runs will be written.")


def main() -> None:
    """Entry point."""
    workdir = Workdir(flags.FLAGS.workdir)
    packages = environment()["packages"]
    say(", ".join(f"{name} {version}" for name, version in packages.items() if version))
    checks: dict[str, Callable[[], str]] = {
        "devices": check_devices,
        "accelerator": check_accelerator,
        "compilation cache": check_compilation_cache,
        "sharded product": check_sharded_product,
        "workdir": lambda: check_workdir(workdir.path),
    }
    failed = 0
    for name, check in checks.items():
        try:
            say(f"ok     {name}: {check()}")
        except (OSError, RuntimeError) as error:
            failed += 1
            say(f"WRONG  {name}: {error}")
    say("all is well" if not failed else f"{failed} thing(s) to fix")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    define_flags()
    errors.run(main)
