"""Compiled programs are kept for the user, unless the user says where, or cannot keep any."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMPILE = """
import jax
jax.jit(lambda x: x + 1)(0)  # a notebook that has compiled without one
from igd_jax.core.compilation import cache_compilations
before = jax.config.jax_compilation_cache_dir
folder = cache_compilations()
jax.jit(lambda x: x * 2)(3)
print(before, folder, jax.config.jax_persistent_cache_min_compile_time_secs, sep="|")
"""


def _compile(**given: str) -> list[str]:
    known = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "XDG_"))}
    env = known | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)} | given
    done = subprocess.run([sys.executable, "-c", COMPILE], env=env, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout.strip().split("|")


def test_programs_are_kept_in_the_users_cache_from_the_first_that_asks(tmp_path):
    before, folder, _ = _compile(
        XDG_CACHE_HOME=str(tmp_path), JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0", HOME="/nowhere"
    )
    assert before == "None"
    assert Path(folder).parent == tmp_path / "igd_jax" / "jax"
    assert any(Path(folder).iterdir())


def test_the_folder_that_the_user_names_is_kept(tmp_path):
    before, folder, seconds = _compile(JAX_COMPILATION_CACHE_DIR=str(tmp_path), HOME=str(tmp_path / "home"))
    assert before == folder == str(tmp_path)
    assert seconds == "1.0"
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("place", ["relative", "/proc/no/such"])
def test_without_a_place_to_write_nothing_is_kept(place):
    _, folder, _ = _compile(XDG_CACHE_HOME=place, HOME="/proc/nobody")
    assert folder == "None"
