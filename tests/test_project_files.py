"""Files about the project: they parse, name one version, and start the same checks; README's figures are true."""

import re

import pytest
import yaml
from command import ROOT

import igd_jax

CONFIGURED = [*sorted((ROOT / ".github").rglob("*.yml")), ROOT / ".pre-commit-config.yaml", ROOT / "CITATION.cff"]


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("path", CONFIGURED, ids=lambda path: path.name)
def test_it_parses(path):
    assert isinstance(yaml.safe_load(path.read_text(encoding="utf-8")), dict)


def test_the_version_stands_in_one_place_and_has_its_changes():
    assert re.findall(r"^## \[(.+?)\]", text("CHANGELOG.md"), re.MULTILINE)[:2] == ["Unreleased", igd_jax.__version__]
    assert "version" not in yaml.safe_load(text("CITATION.cff"))
    assert igd_jax.__version__ not in text("setup.py")


def test_commits_and_ci_run_the_checks_of_the_makefile():
    (repository,) = yaml.safe_load(text(".pre-commit-config.yaml"))["repos"]
    programs = {hook["entry"].split()[0].removeprefix(".venv/") for hook in repository["hooks"]}
    lint = re.search(r"^lint:.*\n((?:\t.*\n)+)", text("Makefile"), re.MULTILINE)
    assert programs == set(re.findall(r"\$\(VENV\)/(bin/\w+)", lint[1]))
    steps = yaml.safe_load(text(".github/workflows/ci.yml"))["jobs"]["gate"]["steps"]
    assert any(".ci/run" in step.get("run", "") for step in steps)


def test_the_readme_is_short():
    lines = text("README.md").splitlines()
    assert len(lines) < 200
    assert max(len(line) for line in lines if not line.startswith("|")) <= 120


def test_its_figures_are_those_of_the_record():
    claims = text("README.md").partition("Does it work?")[2].partition("The quickstart prints")[0]
    figures = re.findall(r"0\.\d{4}", claims)
    assert len(figures) >= 12
    records = "".join(text(f"benchmarks/results/claims_{name}.json") for name in ("ml100k_chosen", "ml1m", "books"))
    assert {float(figure) for figure in figures} <= set(map(float, re.findall(r"\d\.\d+", records)))
