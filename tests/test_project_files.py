"""Files about the project: they parse, name one version, and start the same checks; README's figures are true."""

import json
import re

import pytest
import yaml
from command import ROOT

import igd_jax

CONFIGURED = [*sorted((ROOT / ".github").rglob("*.yml")), ROOT / ".pre-commit-config.yaml", ROOT / "CITATION.cff"]


TABLE = {
    "SFT: all tokens weigh the same; plain search (`decode.alpha=0`, `decode.length_penalty=0`)": "sft/seed=*/test",
    "IGD, beta 0.1; plain search": "igd/seed=*/test",
    "SFT, decoding rebalanced, alpha chosen on validation": "sft/seed=*/alpha",
    "IGD, the same": "igd/seed=*/alpha",
}
"""Lines of README's table, each with its runs."""


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
    sft, half, small = "sft/seed=*,learning_rate=0.003", ml1m["patience_15"]["runs"], books["runs"]

    def spread(run: dict, metric: str) -> str:
        return f"{run[metric]['value']:.4f} ± {run[metric]['spread']:.4f}"

    def difference(run: dict, metric: str) -> str:
        low, high = run[metric]["together"]
        return f"{run[metric]['difference']:+.4f} [{low:+.4f}, {high:+.4f}]"

    runs, both = long["runs"], long["igd_less_sft_with_alpha_chosen_for_both"]
    lines = [
        *((name, spread, runs[run]) for name, run in TABLE.items()),
        ("IGD less SFT, plain search", difference, runs["igd/seed=*/test"]),
        ("IGD less SFT, alpha chosen for both", difference, both),
    ]
    for name, told, run in lines:
        assert f"| {name} | {told(run, 'hr@10')} | {told(run, 'ndcg@10')} |" in claims
    sasrec, popularity = short["sasrec/seed=*,learning_rate=0.001/test"], ml100k["popularity"]
    cells = (f"{spread(sasrec, metric)} / {popularity[metric]:.4f}" for metric in ("hr@10", "ndcg@10"))
    assert f" / popularity | {' | '.join(cells)} |" in claims
    by_seed = long["hr@10_by_seed"]["sft/test"]
    said = [
        f"runs reach from {min(by_seed):.4f} to {max(by_seed):.4f}",
        *(f"{name} ({spread(runs[f'{name.lower()}/seed=*/test'], 'hr@10')})" for name in ("Pos", "MSL")),
        f"{difference(short['igd/seed=*,beta=0.1/test'], 'hr@10')}",
        *(
            words.format(run["hr@10"]["value"])
            for words, run in (
                ("CFT ({:.4f}, one run)", runs["cft/seed=1/test"]),
                ("{:.4f} with IGD", short["igd/seed=*,beta=0.1/test"]),
                ("{:.4f} with SFT", short[f"{sft}/test"]),
                ("{:.4f} with Pos", short["pos/seed=*/test"]),
                ("{:.4f} with CFT", short["cft/seed=*/test"]),
                ("scores, has {:.4f}", short[f"{sft}/d3"]),
                ("vectors, {:.4f}", ml100k["setrec"]["runs"]["setrec/seed=*/beta"]),
                ("IGD has {:.4f}", half["igd/seed=1,beta=0.1/test"]),
                ("Pos {:.4f}", half["pos/seed=1/test"]),
                ("MSL {:.4f}", half["msl/seed=1/test"]),
                ("SFT {:.4f}", half["sft/seed=1,learning_rate=0.003/test"]),
                ("SASRec {:.4f}", half["sasrec/seed=1,learning_rate=0.001/test"]),
                ("Books IGD ({:.4f})", small["igd/seed=*,beta=0.3/test"]),
                ("SFT ({:.4f})", small[f"{sft}/test"]),
                ("Pos ({:.4f})", small["pos/seed=*/test"]),
                ("D3 ({:.4f})", small[f"{sft}/d3"]),
                ("SASRec ({:.4f})", small["sasrec/seed=*,learning_rate=0.001/test"]),
                ("SETRec ({:.4f})", books["setrec"]["runs"]["setrec/seed=*"]),
            )
        ),
        f"popularity ({books['popularity']['hr@10']:.4f})",
    ]
    prose = " ".join(claims.split())
    assert [words for words in said if words not in prose] == []
    n_in_table = sum(line.count("0.") for line in claims.splitlines() if line.startswith("|"))
    n_said = sum(len(re.findall(r"0\.\d{4}", words)) for words in said)
    assert len(re.findall(r"0\.\d{4}", claims)) + len(re.findall(r"beta 0\.1;", claims)) == n_in_table + n_said
