"""Files about the project: they parse, name one version, and start the same checks; README's figures are true."""

import json
import re

import pytest
import yaml
from command import ROOT

import igd_jax

CONFIGURED = [*sorted((ROOT / ".github").rglob("*.yml")), ROOT / ".pre-commit-config.yaml", ROOT / "CITATION.cff"]


TABLE = {
    "SFT: all tokens weigh the same": "sft/test",
    "IGD": "igd/test",
    "SFT, decoding rebalanced, alpha chosen on validation": "sft/alpha",
    "IGD, the same": "igd/alpha",
    "Pos": "pos/test",
    "CFT": "cft/test",
    "MSL": "msl/test",
    "BIGRec, its own two steps": "sft/bigrec",
    "D3 on SFT: guided by SASRec's scores, lam chosen": "sft/d3",
    "D3 on IGD, the same": "igd/d3",
    "SASRec, which reads item ids and not titles": "sasrec/test",
}
"""Lines of README's table, each with the method that was trained and the name of its evaluation."""


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


def test_files_of_the_package_have_at_most_300_lines():
    files = [path for folder in ("igd_jax", "configs") for path in (ROOT / folder).rglob("*.py")]
    assert len(files) > 200
    assert [path.name for path in files if len(path.read_text(encoding="utf-8").splitlines()) > 300] == []


def test_the_readme_is_short():
    lines = text("README.md").splitlines()
    assert len(lines) < 200
    assert max(len(line) for line in lines if not line.startswith("|")) <= 120


def test_its_figures_are_those_of_the_record():
    """Each of them by name, so that none is true by chance."""
    claims = text("README.md").partition("Does it work?")[2].partition("The quickstart prints")[0]
    ml100k, ml1m, books = (
        json.loads(text(f"benchmarks/results/claims_{name}.json")) for name in ("ml100k_chosen", "ml1m", "books")
    )
    long, short = ml100k["patience_15"], ml100k["runs"]
    further = ml1m["patience_15_seeds_2_and_3_all_methods"]
    sets = [long["runs"], further["runs"], books["runs"]]

    def of(runs: dict, evaluation: str) -> dict:
        method, name = evaluation.split("/")
        (found,) = (run for label, run in runs.items() if re.fullmatch(rf"{method}/seed=[^/]*/{name}", label))
        return found["hr@10"]

    def cell(runs: dict, evaluation: str) -> str:
        """Of ML-1M, some methods have a run of the first seed only."""
        try:
            return value(of(runs, evaluation))
        except ValueError:
            assert runs is further["runs"]
            return f"{value(of(ml1m['patience_15']['runs'], evaluation))} †"

    def value(found: dict) -> str:
        return f"{found['value']:.4f}" + (f" ± {found['spread']:.4f}" if "spread" in found else "")

    def difference(found: dict) -> str:
        low, high = found["together"]
        return f"{found['difference']:+.4f} [{low:+.4f}, {high:+.4f}]" + " *" * found["significant"]

    setrec = (value(found["setrec"]["runs"][run]["hr@10"]) for found, run in (
        (long, "setrec/seed=*/beta"), (books, "setrec/seed=*")
    ))  # fmt: skip
    lines = [
        *((name, *(cell(runs, evaluation) for runs in sets)) for name, evaluation in TABLE.items()),
        ("SETRec, which reads SASRec's vectors", next(setrec), "", next(setrec)),
        ("Most popular items", *(f"{found['popularity']['hr@10']:.4f}" for found in (ml100k, further, books))),
        ("IGD less SFT", *(difference(of(runs, "igd/test")) for runs in sets)),
    ]
    told = [line for line in claims.splitlines() if line.startswith("|")][2:]
    assert sorted(told) == sorted(f"| {' | '.join(cells)} |" for cells in lines)
    by_seed = long["hr@10_by_seed"]["sft/test"]
    first = {name: of(ml1m["patience_15"]["runs"], f"{name}/test") for name in ("sft", "igd")}
    early = {name: of(short, f"{name}/test") for name in ("igd", "sft", "pos", "cft")}
    said = [
        f"SFT ranges from {min(by_seed):.4f} to {max(by_seed):.4f} over its seeds",
        f"for both it is {difference(long['igd_less_sft_with_alpha_chosen_for_both']['hr@10'])}.",
        f"of which SFT has {value(first['sft'])} and IGD {value(first['igd'])}.",
        f"IGD has {early['igd']['value']:.4f}, SFT {early['sft']['value']:.4f} ({difference(early['igd'])[:-2]}), "
        f"Pos {early['pos']['value']:.4f} and CFT {early['cft']['value']:.4f};",
    ]
    prose = " ".join(line for line in claims.splitlines() if not line.startswith("|"))
    assert [words for words in said if words not in prose] == []
    assert len(re.findall(r"\d\.\d{4}", prose)) == sum(len(re.findall(r"\d\.\d{4}", words)) for words in said)
