"""How programs are compiled, and the cache of what this machine compiled for a user before, in whatever program."""

import os
import platform
from pathlib import Path
from typing import Any

import jax
from jax.experimental.compilation_cache import compilation_cache

from igd_jax.core.fingerprint import fingerprint

_SECONDS_WORTH_KEEPING = 0.2


def cache_compilations() -> Path | None:
    """Have JAX keep compiled programs: where JAX_COMPILATION_CACHE_DIR or `jax.config` says, else in the user's cache.

    Called by what is about to compile, never at import: it changes how all of the process compiles.

    Returns:
      The folder; None where the user's cache cannot be written, and nothing is kept.
    """
    config: Any = jax.config  # which knows more than its type
    if config.jax_compilation_cache_dir is not None:
        return Path(config.jax_compilation_cache_dir)
    if (folder := _users_folder()) is None:
        return None
    config.update("jax_compilation_cache_dir", str(folder))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        config.update("jax_persistent_cache_min_compile_time_secs", _SECONDS_WORTH_KEEPING)
    compilation_cache.reset_cache()  # what was compiled before went without one
    return folder


def training_compiler_options() -> dict[str, Any] | None:
    """Options of `jax.jit` for programs with gradients: on a CPU they compile in half the time and run as fast.

    Programs that search run a third slower under them. Where JAX is told to optimise little, it keeps to that.
    """
    config: Any = jax.config
    if jax.default_backend() != "cpu" or config.read("jax_disable_most_optimizations"):
        return None
    options: dict[str, Any] = {"xla_backend_optimization_level": 1}
    if jax.__version_info__ < (0, 11):  # later compilers have no choice of emitters
        options["xla_cpu_use_fusion_emitters"] = False
    return options


def _users_folder() -> Path | None:
    """``~/.cache/igd_jax/jax/CPU``, made where it is not there yet."""
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        cache = given if given.is_absolute() else Path.home() / ".cache"
        folder = cache / "igd_jax" / "jax" / _processor()
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # also no home
        return None
    return folder if os.access(folder, os.W_OK | os.X_OK) else None


def _processor() -> str:
    """A name for the kind of processor: machines may share a home, and programs are compiled for one kind."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    kind = sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))})
    return f"{platform.machine()}-{fingerprint(*kind)}"
