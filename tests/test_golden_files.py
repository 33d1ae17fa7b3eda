"""The figures in tests/golden are those of the authors' code, few, and in formats that hold nothing but numbers."""

import numpy as np
import pytest
from derive_golden import PARTS, igd_inputs
from golden_figures import FOLDER, golden_arrays, golden_figures, ragged
from plain_trie import PlainNode, lists_of, plain_trie


@pytest.mark.parametrize("name", PARTS)
def test_committed_figures_are_taken_from_those_in_full_size(name, shared):
    arrays, figures = PARTS[name](shared)
    assert figures == golden_figures(name)
    committed = golden_arrays(name)
    assert set(committed) - set(arrays) == ({"loss_logits", "edge_logp"} if name == "igd" else set())
    for array, values in arrays.items():
        np.testing.assert_array_equal(committed[array], values, err_msg=array)


@pytest.mark.slow
def test_inputs_in_place_of_the_model_are_what_transformers_says_of_it(shared):
    pytest.importorskip("transformers")
    titles = lists_of(ragged("igd", "title"))
    some = titles[::100]
    found, committed = igd_inputs(shared, some), golden_arrays("igd")
    np.testing.assert_allclose(found["loss_logits"], committed["loss_logits"], rtol=0, atol=1e-4)

    def by_prefix(nodes: list[PlainNode], logp: np.ndarray) -> dict[tuple[int, ...], float]:
        return {tuple(each.token for each in node.path()): logp[node.number] for node in nodes}

    every = by_prefix(plain_trie(titles), committed["edge_logp"][0])
    for prefix, logp in by_prefix(plain_trie(some), found["edge_logp"][0]).items():
        assert every[prefix] == pytest.approx(logp, abs=1e-4)


def test_they_are_two_megabytes_at_most():
    files = list(FOLDER.iterdir())
    assert {file.name for file in files} == {f"{name}.{end}" for name in PARTS for end in ("json", "safetensors")}
    assert sum(file.stat().st_size for file in files) <= 2_000_000
