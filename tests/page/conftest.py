"""The page about two evaluations of the tiny run, made once."""

import shutil
from pathlib import Path

import pytest
from evaluation_calls import read_written

from igd_jax.core.io import Workdir
from igd_jax.page.build import Page, page_of
from igd_jax.page.measured import read_measured
from igd_jax.session.analysis import Evaluated, read_evaluated


@pytest.fixture(scope="session")
def run(trained: Path, evaluate, tmp_path_factory) -> Path:
    """A copy of the trained run with the evaluations test and, without alpha, sums."""
    workdir = tmp_path_factory.mktemp("page") / "shop"
    written = {"test": evaluate("plain"), "sums": evaluate("sums", {"decode.alpha": 0.0})}
    shutil.copytree(trained, workdir, ignore=shutil.ignore_patterns("analysis", "eval"))
    for name in written:
        shutil.copytree(trained / "eval" / ("plain" if name == "test" else name), workdir / "eval" / name)
    return workdir


@pytest.fixture(scope="session")
def written(run: Path):
    """Predictions and metrics of both evaluations by their names."""
    return {name: read_written(run, name) for name in ("test", "sums")}


@pytest.fixture(scope="session")
def evaluated(run: Path) -> Evaluated:
    return read_evaluated(Workdir(str(run)), "test")


@pytest.fixture(scope="session")
def page(run: Path) -> Page:
    return page_of(read_measured([str(run)], None), None, with_model=True, max_examples=0)
