"""Compiler options, and the cache of compiled programs that all commands of a user share."""

import os
import platform
from pathlib import Path
from typing import Any

import jax
from jax.experimental.compilation_cache import compilation_cache

from igd_jax.core.fingerprint import fingerprint

_SECONDS_WORTH_KEEPING = 0.2


def cache_compilations() -> Path | None:
    """Make JAX keep compiled programs: in JAX_COMPILATION_CACHE_DIR or as `jax.config` says, else in the user's cache.

    To be called before compiling, never at import, since it affects all compilations of the process.

    Returns:
      The folder; None if the user's cache is not writable, so that nothing is kept.
    """
    config: Any = jax.config  # its type lacks some attributes
    if config.jax_compilation_cache_dir is not None:
        return Path(config.jax_compilation_cache_dir)
    if (folder := _users_folder()) is None:
        return None
    config.update("jax_compilation_cache_dir", str(folder))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        config.update("jax_persistent_cache_min_compile_time_secs", _SECONDS_WORTH_KEEPING)
    compilation_cache.reset_cache()  # earlier compilations ran without a cache
    return folder


def training_compiler_options() -> dict[str, Any] | None:
    """Options of `jax.jit` for programs with gradients: on a CPU, half the compilation time at the same speed.

    Searches run a third slower with them. None if JAX is configured to optimise less than these options do.
    """
    config: Any = jax.config
    if jax.default_backend() != "cpu" or config.read("jax_disable_most_optimizations"):
        return None
    options: dict[str, Any] = {"xla_backend_optimization_level": 1}
    if jax.__version_info__ < (0, 11):  # later compilers have no choice of emitters
        options["xla_cpu_use_fusion_emitters"] = False
    return options


def _users_folder() -> Path | None:
    """``~/.cache/igd_jax/jax/CPU``, created if missing; None if it is not writable."""
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        cache = given if given.is_absolute() else Path.home() / ".cache"
        folder = cache / "igd_jax" / "jax" / _processor()
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # RuntimeError: no home folder
        return None
    return folder if os.access(folder, os.W_OK | os.X_OK) else None


def _processor() -> str:
    """Name of the processor type: machines may share a home folder, but compiled programs fit one type only."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    kind = sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))})
    return f"{platform.machine()}-{fingerprint(*kind)}"
