"""An example is the end of a history, what came after it, where that stands in the list, and how the list begins."""

import pytest

from igd_jax.evaluation.examples import example_line

LONG = "A very long title that nobody wants to read to its very end"


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ((["A", "B"], ["C"], 1, ["D", "C"]), "after 'A' + 'B' came 'C', number 2 of the 2 recommended: 1. 'D', 2. 'C'"),
        (
            (["A", "B", "C", "D"], ["E", "F"], -1, ["A", "B", "C", "D"]),
            "after ... + 'B' + 'C' + 'D' came 'E' and 1 more, none of the 4 recommended: 1. 'A', 2. 'B', 3. 'C'",
        ),
        (
            ([LONG], ["E"], -1, ["A"]),
            "after 'A very long title ...ad to its very end' came 'E', none of the 1 recommended: 1. 'A'",
        ),
    ],
)
def test_an_example_is_a_line(given, line):
    assert example_line(*given) == line
