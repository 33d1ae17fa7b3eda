"""Dependencies are true: what is imported is declared, and what is declared is imported."""

import ast
import re
import sys
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from igd_jax.core.environment import PACKAGES

ROOT = Path(__file__).resolve().parents[1]
OWN = {"igd_jax", "configs", *sys.stdlib_module_names}
distributions_of = cache(packages_distributions)  # reads the lists of files of all packages
CARRIED = ROOT / "igd_jax" / "carried"
"""Files for other programs, which import what those have; the package never imports them."""
COMFORT = ("logging", "pandas", "plots", "quantization", "wandb")
"""Extras that the program itself imports, where they are installed; the others are for accelerators and developers."""


def declared() -> dict[str, set[str]]:
    """Distributions by extra, those always required under "", out of the call in setup.py."""
    calls = [node for node in ast.walk(ast.parse((ROOT / "setup.py").read_text())) if isinstance(node, ast.Call)]
    (call,) = (call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "setup")
    given = {each.arg: each.value for each in call.keywords}
    lists = {"": ast.literal_eval(given["install_requires"]), **ast.literal_eval(given["extras_require"])}
    return {extra: {plain(re.match(r"[\w.-]+", line)[0]) for line in lines} for extra, lines in lists.items()}


def plain(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def imported(source: str) -> tuple[set[str], set[str]]:
    """Distributions that a module imports: those it cannot do without, and those whose absence it catches."""
    tree = ast.parse(source)
    caught = {
        id(node)
        for attempt in ast.walk(tree)
        if isinstance(attempt, ast.Try) and any("ImportError" in ast.dump(handler) for handler in attempt.handlers)
        for statement in attempt.body
        for node in ast.walk(statement)
    }
    found: tuple[set[str], set[str]] = set(), set()
    distributions = distributions_of()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules = [node.module or ""]
        else:
            continue
        for module in {name.split(".")[0] for name in modules} - OWN:
            assert module in distributions, f"{module} is imported (line {node.lineno}) and not installed"
            found[id(node) in caught].update(map(plain, distributions[module]))
    return found


def imported_by(*folders: str) -> tuple[set[str], set[str]]:
    files = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    files = [path for path in files if path.parent != CARRIED]
    needed, optional = zip(*(imported(path.read_text(encoding="utf-8")) for path in files), strict=True)
    return set().union(*needed), set().union(*optional)


def test_what_is_needed_is_required_and_what_is_required_is_needed():
    needed, _ = imported_by("igd_jax", "configs")
    assert needed == declared()[""]


def test_what_is_optional_is_an_extra_and_is_installed_for_the_tests():
    needed, optional = imported_by("igd_jax", "configs")
    extras = declared()
    assert optional - needed == set().union(*(extras[name] for name in COMFORT))
    assert optional - needed <= extras["test"]


def test_the_environment_names_all_that_numbers_depend_on():
    extras = declared()
    assert {plain(name) for name in PACKAGES} == extras[""] | extras["quantization"] | {"igd-jax", "jaxlib"}


@pytest.mark.parametrize(
    ("source", "needed", "optional"),
    [
        ("import numpy.linalg as la\nimport os", {"numpy"}, set()),
        ("def f():\n    from absl import app\n    from igd_jax.core import io", {"absl-py"}, set()),
        ("try:\n    import yaml\nexcept ImportError:\n    import numpy", {"numpy"}, {"pyyaml"}),
        ("try:\n    import numpy\nexcept OSError:\n    pass", {"numpy"}, set()),
    ],
)
def test_imports_are_found_wherever_they_stand(source, needed, optional):
    assert imported(source) == (needed, optional)
