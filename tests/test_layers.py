"""The layer rule: a module imports lower ranks or its own folder; of siblings apart the base; two, entry points."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "igd_jax"
FOLDERS = (
    ("core",),
    ("items", "models", "evaluation"),
    ("data", "training", "decoding"),
    ("identifiers", "methods"),
    ("settings",),
    ("session",),
    ("page",),
)
RANKS = {folder: rank for rank, folders in enumerate(FOLDERS) for folder in folders}
SIBLINGS_APART = ("identifiers", "methods")
"""Folders whose modules know nothing of one another, but all of ``base``."""
CARRIED = "carried"
"""Folder of files that `igd_jax.export` copies for other programs."""
ENTRY_POINT = 7
STARTS_ENTRY_POINTS = {"sweep": 8, "report": 8}
FILES = sorted(PACKAGE.rglob("*.py"))


def place(module: str) -> tuple[str, int]:
    """Folder (or module) directly under igd_jax, and its rank."""
    part = module.split(".")[1] if "." in module else ""
    return part, (RANKS | STARTS_ENTRY_POINTS).get(part, ENTRY_POINT)


def imports(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the rank"
            found.add(node.module or "")
            found |= {f"{node.module}.{alias.name}" for alias in node.names if node.module == "igd_jax"}
    return found


def test_every_folder_has_a_rank():
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders == RANKS.keys() | {CARRIED}


def test_files_for_other_programs_import_nothing_of_the_package_which_does_not_import_them():
    carried = {path.stem for path in (PACKAGE / CARRIED).glob("*.py")}
    allowed = carried | {"numpy", "tokenizers", "torch", "transformers", "vllm", *sys.stdlib_module_names}
    for path in FILES:
        tops = {module.split(".")[0] for module in imports(path)}
        assert tops <= allowed if path.parent.name == CARRIED else not tops & carried, path


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down(path: Path):
    own = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    folder, rank = place(own)
    for module in imports(path):
        assert module.split(".")[0] not in ("configs", "tests", "benchmarks"), f"{own} imports {module}"
        if not module.startswith("igd_jax."):
            continue
        other, other_rank = place(module)
        if folder == other and folder in SIBLINGS_APART:
            assert f"{module}.".startswith(f"igd_jax.{folder}.base."), f"{own} imports its sibling {module}"
        else:
            assert other_rank < rank or other == folder, f"{own} (rank {rank}) imports {module} (rank {other_rank})"


def test_configs_do_not_import_the_package():
    for path in (ROOT / "configs").glob("*.py"):
        assert not {module for module in imports(path) if module.startswith("igd_jax")}, path


def test_method_names_are_compared_only_in_methods_and_configs():
    methods = {path.stem for path in (PACKAGE / "methods").glob("*.py")} - {"__init__", "base"}
    for path in FILES:
        if path.parent.name == "methods":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Compare):
                named = {c.value for c in ast.walk(node) if isinstance(c, ast.Constant) and isinstance(c.value, str)}
                assert not named & methods, f"{path} line {node.lineno} compares a method's name"
