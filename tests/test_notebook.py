"""The notebook runs from its first cell to its last, with a few steps in place of many, and is kept without outputs."""

import os

import nbformat
import pytest
from command import ROOT

NOTEBOOK = ROOT / "docs" / "notebook.ipynb"


def test_it_is_kept_without_outputs():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert all(not cell.outputs and cell.execution_count is None for cell in notebook.cells if cell.cell_type == "code")


@pytest.mark.slow
def test_it_runs(tmp_path, monkeypatch):
    from nbclient import NotebookClient

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    for cell in notebook.cells:
        cell.source = cell.source.replace("num_steps = 200", "num_steps = 2\nconfig.train.eval_examples = 32")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".cache" / "jax"))
    where = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources=where).execute()
    *_, listed, heat_map = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(listed.outputs[-1].text.splitlines()) == 5 + 5
    assert heat_map.outputs[-1].data["text/html"].count("<span") > 5
