"""Report the devices and versions of this machine, problems, and how to fix them.

    python -m igd_jax.doctor
    python -m igd_jax.doctor --workdir=/disk/runs
    python -m igd_jax.doctor --recipe=tpu_pod

Exit code 0 if a model can be trained here, 1 if there is a problem. What a recipe of launch/ lacks is told, and is no
problem of this machine.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import distributions
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from igd_jax.core import errors
from igd_jax.core.compilation import cache_compilations
from igd_jax.core.devices import NVIDIA, told_unused, unused_accelerator
from igd_jax.core.environment import environment
from igd_jax.core.io import Workdir
from igd_jax.core.log import say
from igd_jax.core.sharding import by_row, fetch
from igd_jax.training.mesh import make_mesh

DRIVERS = {"jax-cuda12-plugin": 525, "jax-cuda13-plugin": 580}
"""Least major version of the NVIDIA driver, by jax's plugin."""

GCLOUD = {"gcloud": "https://cloud.google.com/sdk/docs/install", "git": "the system's packages"}
RECIPES: dict[str, dict[str, str]] = {
    "local": {"uv": "https://docs.astral.sh/uv, or launch/setup.sh gets it", "git": "the system's packages"},
    "tpu_vm": GCLOUD,
    "tpu_pod": GCLOUD,
    "slurm": {"sbatch": "a login host of the cluster", "uv": "https://docs.astral.sh/uv, or launch/setup.sh gets it"},
    "sky": {"sky": "pip install 'skypilot[gcp]', or another cloud's name", "git": "the system's packages"},
    "docker": {"docker": "https://docs.docker.com/engine/install"},
}
"""Programs that a recipe of launch/ starts on the machine it is started on, each with where it comes from."""


def check_devices() -> str:
    """Count devices and their memory."""
    devices = jax.devices()
    stats = jax.local_devices()[0].memory_stats() or {}
    memory = f", {stats['bytes_limit'] / 2**30:.0f} GiB each" if "bytes_limit" in stats else ""
    kind = f"{devices[0].device_kind} ({jax.default_backend()})"
    return f"{len(devices)} x {kind}{memory}, {jax.process_count()} process(es)"


def check_accelerator() -> str:
    """Name the plugins of this installation of jax; detect a GPU or TPU that it cannot use."""
    found = {name: each.version for each in distributions() if (name := _plugin(each.name))}
    plugins = ", ".join(f"{name} {version}" for name, version in sorted(found.items()))
    driver = _driver()
    if jax.default_backend() != "cpu":
        return f"in use, by {plugins or 'a plugin of another installation'}{driver and f', driver {driver}'}"
    if driver:
        for name, least in DRIVERS.items():
            if name in found and int(driver.split(".")[0]) < least:
                raise RuntimeError(
                    f"the NVIDIA driver is {driver}, but {name} needs {least} or newer: update the driver"
                )
        raise RuntimeError(told_unused(*NVIDIA))
    if unused := unused_accelerator():
        raise RuntimeError(unused)
    return f"none found; the CPU is in use{plugins and f', though there is {plugins}'}"


def _plugin(distribution: str | None) -> str:
    """The name of a distribution if it makes jax use an accelerator, else nothing; None is what pip left behind."""
    name = (distribution or "").lower().replace("_", "-")
    return name if name == "libtpu" or (name.startswith("jax-cuda") and name.endswith("-plugin")) else ""


def _driver() -> str:
    """Version of the NVIDIA driver; empty if there is none."""
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return next(iter(done.stdout.split()), "")


def check_sharded_product() -> str:
    """Multiply a matrix that is split over all devices."""
    mesh = make_mesh(data=-1)
    x = jax.device_put(jnp.ones((8 * mesh.size, 64)), by_row(mesh))
    if not np.allclose(fetch(jax.jit(lambda x: x @ x.T)(x)), 64.0):
        raise RuntimeError("a product over all devices is wrong: check the driver, or run on one device")
    return f"right on {mesh.size} device(s)"


def check_compilation_cache() -> str:
    """Report the folder of compiled programs."""
    folder = cache_compilations()
    return str(folder) if folder else "none, since ~/.cache/igd_jax cannot be written; set JAX_COMPILATION_CACHE_DIR"


def check_workdir(workdir: Path) -> str:
    """Check that the folder for runs can be written, or made; tell what room there is, on disk and in memory."""
    there = next(folder for folder in (workdir, *workdir.parents) if os.path.exists(folder))
    if not there.is_dir():
        raise RuntimeError(f"{there} is not a folder: name another one by --workdir")
    try:
        with tempfile.TemporaryFile(dir=there):
            disk = shutil.disk_usage(there).free
    except OSError as error:
        raise RuntimeError(
            f"{there} cannot be written ({error.strerror}): mend that, or name another folder by --workdir"
        ) from None
    pages = "SC_AVPHYS_PAGES" if "SC_AVPHYS_PAGES" in os.sysconf_names else "SC_PHYS_PAGES"
    memory = os.sysconf(pages) * os.sysconf("SC_PAGE_SIZE")
    can_be = "written" if there == workdir else "made"
    return f"{workdir} can be {can_be}; free: {disk / 2**30:,.0f} GiB of disk, {memory / 2**30:,.0f} GiB of memory"


def check_recipe(recipe: str) -> list[str]:
    """One line per program that a recipe of launch/ needs."""
    found = {tool: shutil.which(tool) for tool in RECIPES[recipe]}
    return [
        f"ok     {recipe}: {path}" if path else f"lacks  {recipe}: {tool} is not in PATH: {RECIPES[recipe][tool]}"
        for tool, path in found.items()
    ]


def define_flags() -> None:
    """Flags of the command line."""
    flags.DEFINE_string("workdir", ".", "Folder where runs will be written.")
    flags.DEFINE_enum("recipe", None, sorted(RECIPES), "Recipe of launch/ whose programs are looked for, too.")


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
    recipe = flags.FLAGS.recipe
    programs = check_recipe(recipe) if recipe else []
    for line in programs:
        say(line)
    lacks = sum(line.startswith("lacks") for line in programs)
    well = f"all is well here, but {recipe} lacks {lacks} program(s)" if lacks else "all is well"
    say(f"{failed} thing(s) to fix" if failed else well)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    define_flags()
    errors.run(main)
