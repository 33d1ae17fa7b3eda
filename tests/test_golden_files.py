"""The figures in tests/golden are those of the authors' code, few, and in formats that hold nothing but numbers."""

import numpy as np
import pytest
from derive_golden import PARTS
from golden_figures import FOLDER, golden_arrays, golden_figures


@pytest.mark.parametrize("name", PARTS)
def test_committed_figures_are_taken_from_those_in_full_size(name, shared):
    arrays, figures = PARTS[name](shared)
    assert figures == golden_figures(name)
    committed = golden_arrays(name)
    assert set(committed) - set(arrays) == ({"loss_logits", "edge_logp"} if name == "igd" else set())
    for array, values in arrays.items():
        np.testing.assert_array_equal(committed[array], values, err_msg=array)


def test_they_are_two_megabytes_at_most():
    files = list(FOLDER.iterdir())
    assert {file.name for file in files} == {f"{name}.{end}" for name in PARTS for end in ("json", "safetensors")}
    assert sum(file.stat().st_size for file in files) <= 2_000_000
